"""Who reads an SQLite file: asked of the operating system, to name those who keep older pages of it alive."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

UNNAMED = "a reader in this process, or one that the system does not name"
_READ_LOCKS = range(123, 128)  # bytes of the -shm file, as SQLite's documentation of the WAL index gives them


def readers_of(path: Path) -> tuple[str, ...]:
    """The other processes that hold a read lock on the file's log, as far as the system tells.

    The file is not opened to ask: closing it would drop the locks that SQLite itself holds in this process.
    """
    found: set[int] = set()
    with suppress(OSError):  # no such list but on Linux
        log = Path(f"{path}-shm").stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            found |= _holder(line.split(), log)
    return tuple(f"process {process}{_called(process)}" for process in sorted(found)) or (UNNAMED,)


def _holder(words: list[str], inode: int) -> set[int]:
    """From `1: POSIX ADVISORY READ 4711 fe:01:1234 124 124` the process, if it reads our log."""
    with suppress(ValueError, IndexError):
        process, place, first, last = int(words[-4]), words[-3], int(words[-2]), int(words[-1])
        mine = int(place.rpartition(":")[2]) == inode and any(first <= byte <= last for byte in _READ_LOCKS)
        if mine and process not in (os.getpid(), 0, -1):
            return {process}
    return set()


def _called(process: int) -> str:
    with suppress(OSError):
        return f" ({Path(f'/proc/{process}/comm').read_text(encoding='utf-8').strip()})"
    return ""
