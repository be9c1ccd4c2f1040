"""Processes that can harm nothing: they read what Python needs, write into one folder, have no network, few children,
and so much memory and disk. Confined by sandlock (Landlock and seccomp; Linux), without root or containers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from memorist.errors import SandboxError

DENIED = ("prlimit64", "setpriority", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr",
          "ioprio_set", "clock_settime", "settimeofday", "clock_adjtime", "adjtimex")  # fmt: skip
"""System calls by which a process can cripple others of its user, or the machine's clock. What is confined sets its own
limits by `setrlimit` itself: the C library's is `prlimit64`."""
PACKAGE = Path(str(files("memorist")))
SLACK = 4
"""A process may have so many times the memory of a cell: it is ended above that, while a cell has an error."""
READABLE = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom")


@dataclass(frozen=True)
class Limits:
    """What a notebook may use.

    seconds: of a cell. characters: of a cell's output that are kept, of its beginning and its end. memory: megabytes.
    file, disk: megabytes of one file, and of all.
    """

    seconds: float = 5.0
    characters: int = 2000
    memory: int = 1024
    file: int = 10
    disk: int = 50


def confined(
    command: Sequence[str], folder: Path, limits: Limits, *, kept: bool = False, allowed: Sequence[str] = ()
) -> Any:
    """Start a process (sandlock's `Process`, with pipes to its input and from its output).

    Args:
        folder: where it may write.
        kept: whether what it writes is seen in the folder; otherwise it is gone with the process, and `limits.disk` is
            all that it may write.
        allowed: of `DENIED`, what it may call all the same.

    Raises:
        SandboxError: there is no sandbox here; nothing is started without one.
    """
    try:
        from sandlock import BranchAction, Sandbox, StdioMode
    except ImportError as error:
        raise SandboxError(
            "notebooks run in a sandbox and sandlock is not installed; type: pip install 'memorist[notebook]' (Linux)"
        ) from error
    settings: dict[str, Any] = {}
    if not kept:
        settings = {"workdir": str(folder), "max_disk": f"{limits.disk}M", "on_exit": BranchAction.ABORT}
    box = Sandbox(
        fs_readable=[*READABLE, sys.base_prefix, sys.prefix],
        # Where this package is installed: it knows how tables are made, and what is right.
        fs_denied=[str(PACKAGE)],
        extra_deny_syscalls=[name for name in DENIED if name not in allowed],
        fs_writable=[str(folder), "/dev/null"],
        # Beside the cells' own limit, which is an error that they can read.
        max_memory=f"{SLACK * limits.memory}M",
        max_processes=2,
        clean_env=True,
        env=environment(folder),
        cwd=str(folder),
        no_coredump=True,
        **settings,
    )
    try:
        return box.popen(command, stdin=StdioMode.PIPED, stdout=StdioMode.PIPED, stderr=StdioMode.NULL)
    except Exception as error:
        raise SandboxError(
            f"no sandbox can be made here ({error}); expected Linux with Landlock (6.7 or newer): "
            "python -c 'import sandlock; print(sandlock.landlock_abi_version())' says what the kernel has"
        ) from error


def environment(folder: Path) -> dict[str, str]:
    """All that it knows of where it runs."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    places = dict.fromkeys(("HOME", "TMPDIR"), str(folder))
    return threads | places | {"MPLBACKEND": "Agg", "PATH": "/usr/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
