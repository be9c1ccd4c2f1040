"""What the library is given and gives back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from memorist.errors import RefusedError
from memorist.memory.record import Code, MemoryRecord, Result, Scope


@dataclass(frozen=True, slots=True)
class Context:
    """What to put before a model: lines that begin with the id to cite, and how many tokens they are."""

    text: str
    ids: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What `erase` did: how many live records there were, and whether their bytes are gone.

    `pending` names who still reads older pages, after which they are gone; `out_of_reach` are the exports and backups
    that were made of this memory, which nobody but you can delete.
    """

    records: int
    pending: tuple[str, ...] = ()
    out_of_reach: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the bytes are gone from every file that the memory owns."""
        return not self.pending


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import brought: records added, records that were there already, and the lines that could not be read."""

    added: int
    known: int
    broken: tuple[str, ...] = ()


@dataclass(slots=True)
class Usage:
    """Counts of one operation since the memory was opened: calls, errors, seconds, tokens of models and their cost."""

    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class New:
    """Something to be remembered word by word.

    `metadata` can be filtered by; `key` is unique in its scope; `expires` a time or a time from now; `at` when it was
    said; `source` ids of where.
    """

    text: str
    metadata: Mapping[str, Any] | None = None
    key: str | None = None
    expires: datetime | timedelta | None = None
    at: datetime | None = None
    source: Sequence[str] = field(default=())


_WHY = {
    Code.EMPTY_TEXT: "the text is empty; give what is to be remembered",
    Code.TOO_LONG: "the text has more than 1,000,000 characters; split it",
    Code.MALFORMED: "metadata is not plain JSON data, or is nested deeper than 64 levels",
    Code.UNKNOWN_ID: "there is no such record in this scope; `list` shows those there are",
    Code.DUPLICATE_KEY: "the key is taken in this scope; update the record that holds it",
}


def refusal(result: Result, scope: Scope) -> RefusedError:
    """The error that says why an operation was refused."""
    op = result.operation
    what = f"{op.kind} {op.id or repr(str(op.text)[:60])} for {scope}"
    return RefusedError(f"{what} was refused ({result.code}): {why(result)}", result)


def why(result: Result) -> str:
    """Why an operation was refused, and what to do."""
    return result.operation.reason if result.code == Code.REFUSED else _WHY.get(result.code, result.code.value)


def own(record: MemoryRecord) -> MemoryRecord:
    """A record whose metadata is the caller's own: to change it changes nothing that is stored."""
    return replace(record, payload=copy.deepcopy(record.payload)) if record.payload else record


def own_result(result: Result) -> Result:
    """A result with a record of the caller's own."""
    return result if result.record is None else replace(result, record=own(result.record))
