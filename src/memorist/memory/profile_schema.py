"""What a profile tree may hold: a fixed trunk of named branches, and leaves for texts (arXiv 2601.05171).

A path joins the names from a root to a leaf by dots. The bundled schema is the released one; others come from a file,
in the same short form or as nested JSON objects whose leaves are strings.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any

from memorist.errors import DataError

NAME = re.compile(r"[^\s.,(){}\"]+")
"""A part of a path."""
_TOKEN = re.compile(r"\s*([{},]|[^\s.,(){}\"]+)")


@dataclass(frozen=True)
class Schema:
    """A trunk.

    Args:
        name: whose keys are told apart by it in a bank.
        leaves: paths, in the order of the file.

    Raises:
        DataError: there are none, one stands twice, lies below another, or has a name that is not allowed.
    """

    name: str
    leaves: tuple[str, ...]
    inner: frozenset[str] = field(init=False, repr=False, compare=False)
    known: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.leaves:
            raise DataError(f"schema {self.name!r}", "-", "-", "it has no leaves")
        inner: set[str] = set()
        seen: set[str] = set()
        for path in self.leaves:
            parts = path.split(".")
            if not all(NAME.fullmatch(part) for part in parts):
                raise DataError(
                    f"schema {self.name!r}", path, "-", "a name is empty, or has blanks or one of . , ( ) { }"
                )
            if path in seen:
                raise DataError(f"schema {self.name!r}", path, "-", "this leaf stands twice")
            seen.add(path)
            inner |= {".".join(parts[:i]) for i in range(1, len(parts))}
        if both := seen & inner:
            raise DataError(f"schema {self.name!r}", min(both), "-", "it is a leaf and holds others")
        object.__setattr__(self, "inner", frozenset(inner))
        object.__setattr__(self, "known", frozenset(seen))

    @property
    def branches(self) -> dict[str, tuple[str, ...]]:
        """The leaves below each second-level branch (or root, where leaves lie right below it), in order."""
        found: dict[str, list[str]] = {}
        for leaf in self.leaves:
            found.setdefault(".".join(leaf.split(".")[:-1][:2]) or leaf, []).append(leaf)
        return {branch: tuple(leaves) for branch, leaves in found.items()}

    @property
    def checksum(self) -> str:
        """SHA-256 of the paths, a line each, in hex."""
        return hashlib.sha256("\n".join(self.leaves).encode()).hexdigest()

    @classmethod
    def read(cls, file: str | Path, name: str = "") -> Schema:
        """From a file: nested JSON, or the short form of `memory/schemas`.

        Raises:
            DataError: it cannot be read, or is none.
        """
        file = Path(file)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(str(file), "-", "-", f"it cannot be read as a schema: {error}") from error
        return cls.parse(text, name or file.stem, str(file))

    @classmethod
    def parse(cls, text: str, name: str, where: str = "schema") -> Schema:
        """From a text of either form.

        Raises:
            DataError: it has neither.
        """
        if text.lstrip().startswith("{"):
            try:
                nested = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, where))
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(where, "-", "-", f"it is no JSON: {error}") from error
            return cls(name, tuple(_paths(nested, "", where)))
        return cls(name, tuple(_lines(text, where)))


def shared_parts(one: str, other: str) -> int:
    """How many names two paths have in common from the root on."""
    same = (a == b for a, b in zip(one.split("."), other.split("."), strict=False))
    return sum(1 for _ in takewhile(bool, same))


@lru_cache
def persona_schema() -> Schema:
    """The released schema: 5 roots, 305 leaves."""
    file = resources.files("memorist") / "memory" / "schemas" / "personatree.txt"
    return Schema.parse(file.read_text(encoding="utf-8"), "profile")


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise DataError(where, name, "-", "it stands twice in one object")
        found[name] = value
    return found


def _paths(nested: Any, above: str, where: str) -> Iterator[str]:
    for name, value in nested.items():
        path = f"{above}.{name}" if above else name
        if isinstance(value, Mapping):
            yield from _paths(value, path, where)
        elif isinstance(value, str):
            yield path
        else:
            raise DataError(where, path, "-", f"{value!r} is neither an object nor a string for a leaf")


def _lines(text: str, where: str) -> Iterator[str]:
    root = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = (where, f"line {number}", "-")
        branch, colon, rest = line.strip().partition(":")
        if not line[0].isspace():
            root = line.strip()
        elif not root or not colon:
            raise DataError(
                *place, f"{line.strip()[:60]!r} is no branch below a root; expected `Branch: item, item{{child}}`"
            )
        else:
            yield from _items(rest, f"{root}.{branch.strip()}", place)


def _items(text: str, above: str, place: tuple[str, str, str]) -> Iterator[str]:
    """`item, item{child, child}` below a path."""
    holders, name, at, text = [above], "", 0, text.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise DataError(*place, f"{text[at : at + 20]!r} is not allowed in a name")
        token, at = found[1], found.end()
        if token == "{":
            holders, name = [*holders, f"{holders[-1]}.{name}"], ""
        elif token in ",}":
            if name:
                yield f"{holders[-1]}.{name}"
            if token == "}":
                holders.pop()
            name = ""
        elif name:
            raise DataError(*place, f"{name!r} and {token!r} have no comma between them")
        else:
            name = token
        if not holders:
            raise DataError(*place, "a brace closes that was not opened")
    if len(holders) > 1:
        raise DataError(*place, "a brace is not closed")
    if name:
        yield f"{above}.{name}"
