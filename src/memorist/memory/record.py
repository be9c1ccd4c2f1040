"""One remembered thing, whose it is, and what can be done to it.

Operations are data. Applying one gives a `Result` with a `Code`; a model's output can be refused but
never raises. A `MemoryRecord` is immutable: an update makes a new one, and the old one stays in the history.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from memorist.errors import ScopeError

MAX_TEXT = 1_000_000
"""Characters a record's text may have; more is refused with `Code.TOO_LONG`."""

MAX_DEPTH = 64
"""Levels a payload may be nested; more is refused with `Code.MALFORMED`."""


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Whose memory it is. A read with an empty `agent` or `session` covers all of that user's.

    Raises:
        ScopeError: `user` is empty, or a part is not a string or holds a NUL or a lone surrogate.
    """

    user: str
    agent: str = ""
    session: str = ""

    def __post_init__(self) -> None:
        for name in ("user", "agent", "session"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ScopeError(f"Scope.{name} is {value!r} ({type(value).__name__}); expected a string")
            if clean_text(value) != value:
                raise ScopeError(f"Scope.{name} is {value!r}; NUL characters and lone surrogates cannot be stored")
        if not self.user:
            raise ScopeError("Scope.user is empty; every read and write names its user, e.g. Scope('anna')")

    def covers(self, other: Scope) -> bool:
        """Whether a read in this scope may see a record that lies in `other`."""
        return self.user == other.user and self.agent in ("", other.agent) and self.session in ("", other.session)


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """One remembered thing as it stood at a commit.

    `created` and `updated` are the times of the *events* told (the session's time), handed in by the caller.
    `source` holds ids of the messages it came from. `key`, when set, is unique in its scope. From `expires` on
    it is not found by those who say what time it is.
    """

    id: str
    scope: Scope
    text: str
    created: datetime
    updated: datetime
    key: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    source: tuple[str, ...] = ()
    expires: datetime | None = None

    def has_expired(self, now: datetime) -> bool:
        """Whether it is not to be found any more at `now`."""
        return self.expires is not None and instant(self.expires) <= instant(now)

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
        } | ({} if self.expires is None else {"expires": self.expires.isoformat()})

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
            expires=datetime.fromisoformat(data["expires"]) if data.get("expires") else None,
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
    """The model's output could not be read as operations, or one has a part that is not plain data."""
    REFUSED = "refused"
    """A guard on writing said no."""

    @property
    def accepted(self) -> bool:
        """Whether the operation was legal (applied, or rightly without effect)."""
        return self in (Code.APPLIED, Code.UNCHANGED)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to do to a bank. `kind` is free text until it is judged: models write anything.

    An UPDATE without a payload, or without `expires`, leaves it as it was. `at` and `source` say when and where
    this one was said, if that differs from what is applied with it.
    """

    kind: str
    text: str = ""
    id: str | None = None
    key: str | None = None
    payload: Mapping[str, Any] | None = None
    reason: str = ""
    expires: datetime | None = None
    at: datetime | None = None
    source: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One applied operation in a bank's history: `before` is None for ADD, `after` is None for DELETE."""

    commit: int
    kind: Kind
    before: MemoryRecord | None
    after: MemoryRecord | None
    reason: str = ""

    @property
    def record(self) -> MemoryRecord:
        """The record that changed, as it stands after the change (before it, for DELETE)."""
        record = self.after or self.before
        assert record is not None
        return record

    @property
    def record_id(self) -> str:
        """Id of the record that changed."""
        return self.record.id

    @property
    def scope(self) -> Scope:
        """Scope of the record that changed."""
        return self.record.scope


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one operation. `record` is the state after it (before it, for DELETE)."""

    operation: Operation
    code: Code
    record: MemoryRecord | None = None


def judge(
    operations: Sequence[Operation],
    *,
    scope: Scope,
    commit: int,
    at: datetime,
    source: tuple[str, ...],
    new_id: Callable[[int, int], str],
    find: Callable[[str], MemoryRecord | None],
    find_key: Callable[[Scope, str], MemoryRecord | None],
) -> tuple[list[Result], list[Change]]:
    """Decide what each operation does, without touching storage: the one place where semantics live.

    Operations apply in order, and each sees the effect of those before it: an id deleted earlier in the list
    is unknown. ADD always gets a fresh id. UPDATE and DELETE reach only records that `scope` covers. What no
    store can hold (NUL characters, lone surrogates) is taken out of texts, keys, payloads and reasons first.

    Args:
        operations: what was asked.
        scope: where it happens.
        commit: number that the changes will carry.
        at: time of the event.
        source: ids of the messages that gave rise to it.
        new_id: `(commit, index) -> id`.
        find: `id -> MemoryRecord | None`, the state before the commit.
        find_key: `(scope, key) -> MemoryRecord | None`, likewise.

    Raises:
        ValueError: `new_id` gave an id that is in use.
    """
    case = _Judgement(scope, commit, at, tuple(map(clean_text, source)), new_id, find, find_key)
    return [case.judge(index, op) for index, op in enumerate(operations)], case.changes


@dataclass(slots=True)
class _Judgement:
    """The state of one `judge` call: what the operations so far have staged."""

    scope: Scope
    commit: int
    at: datetime
    source: tuple[str, ...]
    new_id: Callable[[int, int], str]
    find: Callable[[str], MemoryRecord | None]
    find_key: Callable[[Scope, str], MemoryRecord | None]
    changes: list[Change] = field(default_factory=list)
    staged: dict[str, MemoryRecord | None] = field(default_factory=dict)
    held: dict[str, MemoryRecord] = field(default_factory=dict)
    """Keys that staged records hold in exactly this scope."""

    def judge(self, index: int, given: Operation) -> Result:
        op = readable(given)
        if isinstance(op, Code):
            return Result(given, op)
        if op.kind == Kind.NOOP:
            return Result(given, Code.UNCHANGED)
        if op.kind == Kind.ADD:
            holder = None if op.key is None else self._holder(op.key)
            if holder is not None:
                return Result(given, Code.DUPLICATE_KEY, holder)
            return Result(given, Code.APPLIED, self._stage(op, None, self._new(index, op)))
        before = None if op.id is None else self._current(op.id)
        if before is None:
            return Result(given, Code.UNKNOWN_ID)
        if op.kind == Kind.DELETE:
            return Result(given, Code.APPLIED, self._stage(op, before, None))
        payload = before.payload if op.payload is None else op.payload
        expires = before.expires if op.expires is None else op.expires
        if op.text == before.text and payload == before.payload and expires == before.expires:
            return Result(given, Code.UNCHANGED, before)
        source = tuple(dict.fromkeys(before.source + self.source + op.source))
        updated = op.at or self.at
        after = replace(before, text=op.text, updated=updated, payload=payload, source=source, expires=expires)
        return Result(given, Code.APPLIED, self._stage(op, before, after))

    def _new(self, index: int, op: Operation) -> MemoryRecord:
        record_id = self.new_id(self.commit, index)
        if record_id in self.staged or self.find(record_id) is not None:
            raise ValueError(f"the id source gave {record_id!r}, which is in use; ids are unique within a bank")
        at, source = op.at or self.at, tuple(dict.fromkeys(self.source + op.source))
        return MemoryRecord(record_id, self.scope, op.text, at, at, op.key, op.payload or {}, source, op.expires)

    def _current(self, record_id: str) -> MemoryRecord | None:
        record = self.staged[record_id] if record_id in self.staged else self.find(record_id)
        return record if record is not None and self.scope.covers(record.scope) else None

    def _holder(self, key: str) -> MemoryRecord | None:
        if key in self.held:
            return self.held[key]
        stored = self.find_key(self.scope, key)
        return None if stored is None or stored.id in self.staged else stored

    def _stage(self, op: Operation, before: MemoryRecord | None, after: MemoryRecord | None) -> MemoryRecord:
        record = after or before
        assert record is not None
        self.staged[record.id] = after
        self.changes.append(Change(self.commit, Kind(op.kind), before, after, op.reason))
        if record.key is not None and record.scope == self.scope:
            if after is None:
                self.held.pop(record.key, None)
            else:
                self.held[record.key] = after
        return record


def readable(op: Operation) -> Operation | Code:
    """The operation cleaned for storing, or what is wrong with it whatever the bank holds."""
    if not isinstance(op.kind, str) or op.kind not in Kind.__members__:
        return Code.UNKNOWN_KIND
    if not isinstance(op.text, str) or not isinstance(op.reason, str):
        return Code.MALFORMED
    if not isinstance(op.id, str | None) or not isinstance(op.key, str | None):
        return Code.MALFORMED
    if not isinstance(op.expires, datetime | None) or not isinstance(op.at, datetime | None):
        return Code.MALFORMED
    text, payload = clean_text(op.text), None
    if op.kind in (Kind.ADD, Kind.UPDATE):
        if not text.strip():
            return Code.EMPTY_TEXT
        if len(text) > MAX_TEXT:
            return Code.TOO_LONG
        try:
            payload = None if op.payload is None else clean_payload(op.payload)
        except ValueError:
            return Code.MALFORMED
    key = None if op.key is None else clean_text(op.key)
    source = tuple(map(clean_text, op.source))
    return Operation(op.kind, text, op.id, key, payload, clean_text(op.reason), op.expires, op.at, source)


def instant(time: datetime) -> float:
    """Seconds since 1970; a time without a zone is in UTC."""
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def clean_text(text: str) -> str:
    """`text` without what no store or model can hold: NUL characters and lone surrogates."""
    if "\0" in text:
        text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-8", "ignore").decode("utf-8")


def clean_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `payload` as plain JSON data with clean texts, so that every bank gives back the same.

    Raises:
        ValueError: it holds what JSON cannot (other types, NaN, names that are no texts), or is too deep.
    """
    plain = _plain(payload, 0)
    if not isinstance(plain, dict):
        raise ValueError(f"a payload is an object with named values, not {type(payload).__name__}")
    return plain


def _plain(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int) and value.bit_length() <= 1024:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {clean_text(name): _plain(item, depth + 1) for name, item in value.items()}
    raise ValueError(f"{type(value).__name__} is not plain JSON data")


def payload_json(payload: Mapping[str, Any]) -> str:
    """The canonical JSON of a payload."""
    return json.dumps(payload, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
