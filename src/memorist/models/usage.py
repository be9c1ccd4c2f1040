"""How much memory a run has used: what torch allocated on an accelerator, or what the process held on CPUs."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int:
    """The most bytes so far: allocated on the CUDA device if there is one, else resident in this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    found = _status("VmHWM")
    if found:
        return found
    import resource

    # Kilobytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_bytes() -> int:
    """Bytes held now, in the same sense; where the system does not say, the most so far."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return _status("VmRSS") or peak_memory_bytes()


def _status(field: str) -> int:
    """A size of this process as Linux tells it, 0 elsewhere. Unlike `getrusage` it forgets what ran before an exec."""
    if not _STATUS.exists():
        return 0
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0
