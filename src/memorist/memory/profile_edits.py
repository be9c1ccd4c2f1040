"""Edits of a profile tree as text: one operation a line, as MemListener writes them (Inside Out, arXiv 2601.05171).

    ADD(path, "value")    UPDATE(path, "value")    DELETE(path, None)    NO_OP()

A line that is none of these is counted, and the others stand. DELETE(path) is read too. Blanks at a value's ends and
double ones are left out: tiny models write them, because words are other tokens after a blank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_PATH = r"(?P<path>[^\s,().]+(?:\.[^\s,().]+)*)"
_STRING = r'"(?P<value>(?:[^"\\]|\\.)*)"'
_LINE = re.compile(
    rf"(?:(?P<put>ADD|UPDATE)\s*\(\s*{_PATH}\s*,\s*{_STRING}\s*\)"
    rf'|DELETE\s*\(\s*{_PATH.replace("path", "gone")}\s*(?:,\s*(?:None|"(?:[^"\\]|\\.)*")\s*)?\)'
    r"|(?P<nothing>NO_OP)\s*\(\s*\))"
)
_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^\s*```\w*\s*$")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
_ESCAPED = re.compile(r'\\(["\\])')
_BLANKS = re.compile("  +")
KINDS = ("ADD", "UPDATE", "DELETE", "NO_OP")


@dataclass(frozen=True, slots=True)
class Edit:
    """One operation on a tree: `path` and `value` are "" where its kind has none."""

    kind: str
    path: str = ""
    value: str = ""

    def __str__(self) -> str:
        """As a listener writes it; a newline in a value becomes a blank, since it would end the line."""
        if self.kind == "NO_OP":
            return "NO_OP()"
        if self.kind == "DELETE":
            return f"DELETE({self.path}, None)"
        value = " ".join(self.value.splitlines()).replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.kind}({self.path}, "{value}")'


@dataclass(frozen=True, slots=True)
class Edits:
    """What a text holds. bad: lines that are no operation. lines: all that are not blank, without fences."""

    found: tuple[Edit, ...]
    bad: tuple[str, ...]
    lines: int


def read_edits(text: str) -> Edits:
    """The operations of a listener's reply. A leading thought, code fences, bullets and numbers are left out."""
    thought = _THOUGHT.match(text)
    found: list[Edit] = []
    bad: list[str] = []
    for line in _told(text[thought.end() :] if thought else text):
        match = _LINE.fullmatch(line)
        if match is None:
            bad.append(line)
        elif match["put"]:
            found.append(Edit(match["put"], match["path"], _value(match["value"])))
        else:
            found.append(Edit("NO_OP") if match["nothing"] else Edit("DELETE", match["gone"]))
    return Edits(tuple(found), tuple(bad), len(found) + len(bad))


def _told(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        if line.strip() and not _FENCE.match(line):
            yield _BULLET.sub("", line).strip()


def _value(written: str) -> str:
    """A value as it is meant: unescaped, in one line, with single blanks between words."""
    return _BLANKS.sub(" ", " ".join(_ESCAPED.sub(r"\1", written).splitlines())).strip(" ")


def edits_between(known: Mapping[str, str], own: Mapping[str, str]) -> list[Edit]:
    """What makes leaves as they were into leaves as they are; NO_OP where nothing has changed."""
    found = [
        Edit("UPDATE" if path in known else "ADD", path, text)
        for path, text in own.items()
        if text and known.get(path) != text
    ]
    found += [Edit("DELETE", path) for path, text in known.items() if not own.get(path) and text]
    return found or [Edit("NO_OP")]
