"""What is to be seen, by where it lies: a run's folder, or a memory in a file or a database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from memorist.errors import ArgumentError, BankError, DataError
from memorist.library.memory import Memory
from memorist.library.opening import is_database
from memorist.view.banks import Bank
from memorist.view.runs import Run, is_run


@dataclass(frozen=True)
class Seen:
    """What the pages show: one run or two beside each other, or one memory."""

    runs: tuple[Run, ...] = ()
    bank: Bank | None = None

    @property
    def names(self) -> list[str]:
        """What pages call them."""
        return [run.name for run in self.runs] if self.bank is None else [self.bank.name]


def open_places(place: str, beside: str | None = None) -> Seen:
    """What lies at a place; nothing there is changed.

    Raises:
        DataError: a folder is no run's.
        ArgumentError: a memory was to be shown beside something.
        BankError: there is no such file, or it is no memory.
    """
    if not is_database(place) and Path(place).is_dir():
        return Seen(runs=tuple(_run(Path(one)) for one in (place, beside) if one is not None))
    if beside is not None:
        raise ArgumentError(f"--beside shows two runs, and {place!r} is no run's folder; give two folders of runs")
    if not is_database(place) and not Path(place).exists():
        raise BankError(
            f"{place}: there is no such file or folder; give a run's folder (e.g. runs/first), a memory's file, or "
            "postgresql://USER@HOST/DATABASE"
        )
    return Seen(bank=Bank(Memory(place, read_only=True), _named(place)))


def _run(folder: Path) -> Run:
    if not folder.is_dir() or not is_run(folder):
        raise DataError(
            str(folder), "-", "-", "is not a run's folder; expected one that `memorist train` or `memorist eval --out` "
            "wrote, with metrics.jsonl or trajectories"
        )  # fmt: skip
    return Run(folder)


def _named(place: str) -> str:
    """A memory's name, without who opens it and the password."""
    if not is_database(place):
        return Path(place).name
    parts = urlsplit(place)
    return f"{parts.hostname or ''}{parts.path}".strip("/")
