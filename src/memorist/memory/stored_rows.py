"""Records and changes as rows of a stored bank's tables, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np

from memorist.memory.overlay import Entry
from memorist.memory.record import Change, Kind, MemoryRecord, Scope, payload_json

FIELDS = ("id", "user", "agent", "session", "text", "created", "updated", "key", "payload", "source", "expires")
RECORD = ", ".join(f"{{0}}.{name}" for name in FIELDS)


def columns_of(record: MemoryRecord) -> tuple[object, ...]:
    """The values of FIELDS."""
    scope, source = record.scope, json.dumps(record.source, ensure_ascii=False)
    created, updated = record.created.isoformat(), record.updated.isoformat()
    about = (record.id, scope.user, scope.agent, scope.session, record.text, created, updated)
    expires = None if record.expires is None else record.expires.isoformat()
    return (*about, record.key, payload_json(record.payload), source, expires)


def record_of(row: Sequence[Any]) -> MemoryRecord:
    """A record from a row that begins with FIELDS."""
    record_id, user, agent, session, text, created, updated, key, payload, source, expires = row[: len(FIELDS)]
    return MemoryRecord(
        record_id,
        _scope(user, agent, session),
        text,
        datetime.fromisoformat(created),
        datetime.fromisoformat(updated),
        key,
        {} if payload == "{}" else json.loads(payload),
        () if source == "[]" else tuple(json.loads(source)),
        None if expires is None else datetime.fromisoformat(expires),
    )


@lru_cache(maxsize=4096)
def _scope(user: str, agent: str, session: str) -> Scope:
    return Scope(user, agent, session)


def entry_of(row: Sequence[Any]) -> Entry:
    """A change from commit, kind, reason, FIELDS of the record before and after it, and the vector after it."""
    number, kind, reason = row[:3]
    middle, end = 3 + len(FIELDS), 3 + 2 * len(FIELDS)
    before = None if row[3] is None else record_of(row[3:middle])
    after = None if row[middle] is None else record_of(row[middle:end])
    vector = None if row[end] is None else np.frombuffer(row[end], "<f4").astype(np.float32, copy=False)
    return Change(int(number), Kind(kind), before, after, reason), vector
