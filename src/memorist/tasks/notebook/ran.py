"""What a cell of a notebook gave, as text that can be shown, encoded and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memorist.errors import DataError

TIMEOUT, DIED, NO_TOOL = "Timeout", "Died", "NoTool"
"""Kinds of errors that are no exception's: a cell took too long, ended its process, or asked for another tool."""
LINES = 15
"""Of a traceback that are told."""
LEFT_OUT = "\n... 1,000,000,000,000 characters left out ...\n"
NAME, SHOWN = 80, 4
"""Characters of an exception's name; of its text, times those of an output."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a cell gave. output: what was printed, and the value of a last expression. error: the end of a traceback.
    kind: of the error: an exception's name, "Timeout", "Died" (the process is gone); "" where there is none."""

    output: str
    error: str = ""
    kind: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether it ran to its end."""
        return not self.kind

    def told(self) -> str:
        """As it is shown to who wrote the cell."""
        said = {
            TIMEOUT: "Timeout: the cell took too long and left nothing behind",
            DIED: "Died: the cell ended its kernel and left nothing behind",
        }
        return "\n".join(part for part in (self.output.rstrip("\n"), said.get(self.kind, self.error)) if part)


def checked_files(files: Mapping[str, str | bytes]) -> dict[str, bytes]:
    """Files that a notebook begins with.

    Raises:
        DataError: a name is no name of a file in its folder.
    """
    for name in files:
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            raise DataError("notebook", "-", name, "is no name of a file; expected one without folders, as 'sales.csv'")
    return {name: data if isinstance(data, bytes) else clean(data).encode() for name, data in files.items()}


def clean(text: str) -> str:
    """A text that can be written and encoded: lone surrogates are question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def shortened(text: str, most: int) -> str:
    """The beginning and the end of a text, three to two, where it has more characters than that."""
    kept = Kept(most)
    kept.add(text)
    return kept.told()


class Kept:
    """The beginning and the end of what is added, three to two, whatever that is. What `cells.Kept` is in the sandbox,
    where nothing of this package can be imported."""

    def __init__(self, most: int) -> None:
        self.first = most * 3 // 5
        self.last = most - self.first
        self.head, self.tail, self.dropped = "", "", 0

    def add(self, text: str) -> None:
        """Keep what there is room for."""
        room = self.first - len(self.head)
        self.head += text[:room]
        rest = self.tail + text[room:]
        cut = max(0, len(rest) - self.last)
        self.dropped += cut
        self.tail = rest[cut:]

    def told(self) -> str:
        """What was kept, with how much was not."""
        middle = f"\n... {self.dropped} characters left out ...\n" if self.dropped else ""
        return f"{self.head}{middle}{self.tail}"
