"""One remembered thing, whose it is, and what can be done to it.

Operations are data. Applying one gives a `Result` with a `Code`; a model's output can be refused but
never raises. A `MemoryRecord` is immutable: an update makes a new one, and the old one stays in the history.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from memorist.errors import ScopeError

MAX_TEXT = 1_000_000
"""Characters a record's text may have; more is refused with `Code.TOO_LONG`."""


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Whose memory it is. A read with an empty `agent` or `session` covers all of that user's.

    Raises:
        ScopeError: `user` is empty or a part is not a string.
    """

    user: str
    agent: str = ""
    session: str = ""

    def __post_init__(self) -> None:
        for name in ("user", "agent", "session"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ScopeError(f"Scope.{name} is {value!r} ({type(value).__name__}); expected a string")
        if not self.user:
            raise ScopeError("Scope.user is empty; every read and write names its user, e.g. Scope('anna')")

    def covers(self, other: Scope) -> bool:
        """Whether a read in this scope may see a record that lies in `other`."""
        return (
            self.user == other.user
            and self.agent in ("", other.agent)
            and self.session in ("", other.session)
        )


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """One remembered thing as it stood at a commit.

    `created` and `updated` are the times of the *events* told (the session's time), handed in by the caller.
    `source` holds ids of the messages it came from. `key`, when set, is unique in its scope.
    """

    id: str
    scope: Scope
    text: str
    created: datetime
    updated: datetime
    key: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    source: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain object that `from_json` reads back."""
        return {
            "id": self.id,
            "scope": [self.scope.user, self.scope.agent, self.scope.session],
            "text": self.text,
            "created": self.created.isoformat(),
            "updated": self.updated.isoformat(),
            "key": self.key,
            "payload": dict(self.payload),
            "source": list(self.source),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MemoryRecord:
        """Read what `to_json` wrote."""
        return cls(
            id=data["id"],
            scope=Scope(*data["scope"]),
            text=data["text"],
            created=datetime.fromisoformat(data["created"]),
            updated=datetime.fromisoformat(data["updated"]),
            key=data["key"],
            payload=data["payload"],
            source=tuple(data["source"]),
        )


class Kind(StrEnum):
    """What an operation does."""

    ADD = "ADD"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    NOOP = "NOOP"


class Code(StrEnum):
    """What became of an operation."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    """A NOOP, or an UPDATE to the same text."""
    UNKNOWN_KIND = "unknown_kind"
    UNKNOWN_ID = "unknown_id"
    EMPTY_TEXT = "empty_text"
    TOO_LONG = "too_long"
    DUPLICATE_KEY = "duplicate_key"
    MALFORMED = "malformed"
    """The model's output could not be read as operations."""

    @property
    def accepted(self) -> bool:
        """Whether the operation was legal (applied, or rightly without effect)."""
        return self in (Code.APPLIED, Code.UNCHANGED)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to do to a bank. `kind` is free text until it is judged: models write anything."""

    kind: str
    text: str = ""
    id: str | None = None
    key: str | None = None
    payload: Mapping[str, Any] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One applied operation in a bank's history: `before` is None for ADD, `after` is None for DELETE."""

    commit: int
    kind: Kind
    before: MemoryRecord | None
    after: MemoryRecord | None
    reason: str = ""

    @property
    def record_id(self) -> str:
        """Id of the record that changed."""
        record = self.after or self.before
        assert record is not None
        return record.id


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one operation. `record` is the state after it (before it, for DELETE)."""

    operation: Operation
    code: Code
    record: MemoryRecord | None = None


def judge(
    operations: list[Operation] | tuple[Operation, ...],
    *,
    scope: Scope,
    commit: int,
    at: datetime,
    source: tuple[str, ...],
    new_id: Any,
    find: Any,
    find_key: Any,
) -> tuple[list[Result], list[Change]]:
    """Decide what each operation does, without touching storage: the one place where semantics live.

    Operations apply in order, and each sees the effect of those before it: an id deleted earlier in the list
    is unknown. ADD always gets a fresh id. UPDATE and DELETE reach only records that `scope` covers.

    Args:
        operations: what was asked.
        scope: where it happens.
        commit: number that the changes will carry.
        at: time of the event.
        source: ids of the messages that gave rise to it.
        new_id: `(commit, index) -> id`.
        find: `id -> MemoryRecord | None`, the state before the commit.
        find_key: `(scope, key) -> MemoryRecord | None`, likewise.
    """
    results: list[Result] = []
    changes: list[Change] = []
    staged: dict[str, MemoryRecord | None] = {}

    def current(record_id: str) -> MemoryRecord | None:
        record = staged[record_id] if record_id in staged else find(record_id)
        return record if record is not None and scope.covers(record.scope) else None

    def holder(key: str) -> MemoryRecord | None:
        for record in staged.values():
            if record is not None and record.scope == scope and record.key == key:
                return record
        stored: MemoryRecord | None = find_key(scope, key)
        return None if stored is None or stored.id in staged else stored

    def stage(op: Operation, kind: Kind, before: MemoryRecord | None, after: MemoryRecord | None) -> None:
        record = after or before
        assert record is not None
        staged[record.id] = after
        changes.append(Change(commit, kind, before, after, op.reason))
        results.append(Result(op, Code.APPLIED, record))

    for index, op in enumerate(operations):
        code = _form_error(op)
        if code is not None:
            results.append(Result(op, code))
        elif op.kind == Kind.NOOP:
            results.append(Result(op, Code.UNCHANGED))
        elif op.kind == Kind.ADD:
            if op.key is not None and holder(op.key) is not None:
                results.append(Result(op, Code.DUPLICATE_KEY, holder(op.key)))
                continue
            record = MemoryRecord(
                new_id(commit, index), scope, op.text, at, at, op.key, dict(op.payload or {}), source
            )
            stage(op, Kind.ADD, None, record)
        else:
            before = current(op.id) if op.id is not None else None
            if before is None:
                results.append(Result(op, Code.UNKNOWN_ID))
            elif op.kind == Kind.DELETE:
                stage(op, Kind.DELETE, before, None)
            else:
                payload = before.payload if op.payload is None else dict(op.payload)
                if op.text == before.text and payload == before.payload:
                    results.append(Result(op, Code.UNCHANGED, before))
                    continue
                merged = tuple(dict.fromkeys(before.source + source))
                stage(op, Kind.UPDATE, before, replace(before, text=op.text, updated=at, payload=payload, source=merged))
    return results, changes


def _form_error(op: Operation) -> Code | None:
    """What is wrong with an operation regardless of the bank, if anything."""
    if op.kind not in Kind.__members__:
        return Code.UNKNOWN_KIND
    if op.kind in (Kind.ADD, Kind.UPDATE):
        if not op.text.strip():
            return Code.EMPTY_TEXT
        if len(op.text) > MAX_TEXT:
            return Code.TOO_LONG
    return None


def clean_text(text: str) -> str:
    """`text` without what no store or model can hold: NUL characters and lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


def payload_json(payload: Mapping[str, Any]) -> str:
    """The canonical JSON of a payload."""
    return json.dumps(payload, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
