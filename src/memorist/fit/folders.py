"""Folders that appear when they are whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_new(out: Path, error: type[Exception]) -> None:
    """Whether a folder can be made there; `error` is raised where there is something already."""
    if out.exists():
        raise error(f"{out} exists already; give another --out, or remove it first")


@contextmanager
def whole_folder(out: Path, error: type[Exception]) -> Iterator[Path]:
    """An unfinished folder beside the target to write into. It gets the target's name when all is written; where that
    fails nothing is left of it, and `error` says why."""
    check_new(out, error)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.unfinished-", dir=out.parent))
    except OSError as cause:
        raise error(f"{out}: could not be made ({cause.strerror}); choose another folder") from cause
    try:
        yield work
        work.chmod(0o777 & ~_umask())
        work.rename(out)
    except OSError as cause:
        raise error(f"{out}: could not be written ({cause.strerror}); nothing is left of it") from cause
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
