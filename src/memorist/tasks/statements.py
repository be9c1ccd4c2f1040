"""Statements by people, the memories that are held when they are made, and what a memory should do about each.

Written by hand, in files of a short form (`tasks/cases`): a line "= a ;; b" says what is held, and each line after it
is a statement behind what is right: A (add it), N (leave everything as it is), U1 (it takes the place of memory 1), J1
(it is joined to memory 1), D1 (memory 1 is removed). "# heading" says what is tried.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from memorist.errors import DataError, need_known

SETS = ("training", "development", "final")
"""To learn from, to develop with, and for the final table."""
OPERATIONS = {"A": "ADD", "N": "NOOP", "U": "UPDATE", "J": "UPDATE", "D": "DELETE"}
_LINE = re.compile(r"(?P<code>[AN]|[UJD]\d+)\s+(?P<statement>\S.*)")


@dataclass(frozen=True, slots=True)
class Case:
    """A statement and what is right.

    kind: what it tries ("" where nothing is said). memories: what is held. operation: ADD, NOOP, UPDATE or DELETE.
    target: which memory an UPDATE or DELETE is of. joins: whether an UPDATE keeps what the memory said.
    """

    kind: str
    memories: tuple[str, ...]
    statement: str
    operation: str
    target: int | None = None
    joins: bool = False


def read_cases(text: str, where: str = "cases") -> list[Case]:
    """The cases of a text in the form of `tasks/cases`.

    Raises:
        DataError: a line has another form, or names a memory that is not there.
    """
    found: list[Case] = []
    kind, memories = "", tuple[str, ...]()
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            kind = line.lstrip("# ") if line else kind
        elif line.startswith("="):
            memories = tuple(part.strip() for part in line[1:].split(";;"))
        else:
            found.append(_read(line, kind, memories, where, f"line {number}"))
    return found


def _read(line: str, kind: str, memories: tuple[str, ...], where: str, record: str) -> Case:
    parts = _LINE.fullmatch(line)
    if parts is None:
        raise DataError(where, record, "-", f"{line[:60]!r} is no case; expected e.g. 'A statement' or 'U0 statement'")
    code = parts["code"]
    target = int(code[1:]) if code[1:] else None
    if target is not None and target >= len(memories):
        raise DataError(where, record, code, f"names memory {target}; expected 0 to {len(memories) - 1}")
    return Case(kind, memories, parts["statement"], OPERATIONS[code[0]], target, code[0] == "J")


@lru_cache
def cases(name: str) -> tuple[Case, ...]:
    """One of the three sets that come with the package.

    Raises:
        RecipeError: there is no such set.
    """
    need_known("cases", name, SETS)
    file = Path(str(resources.files("memorist"))) / "tasks" / "cases" / f"{name}.txt"
    return tuple(read_cases(file.read_text(encoding="utf-8"), file.name))
