"""Records as lines of JSON, with the changes that led to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from memorist.memory.record import MemoryRecord, Scope
from memorist.memory.stored import StoredBank


def write_records(bank: StoredBank, path: Path, scope: Scope) -> int:
    """Write a scope's live records to a file, with the changes that led to them; how many they are."""
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        for record in bank.page(scope):
            past = [
                _past(change.after, change.reason)
                for change in bank.history(record.id, record.scope)
                if change.after is not None
            ]
            file.write(json.dumps(record.to_json() | {"history": past}, ensure_ascii=False) + "\n")
            count += 1
    return count


def _past(record: MemoryRecord, reason: str) -> dict[str, Any]:
    """One version: what an import needs to make it again."""
    found = {"text": record.text, "at": record.updated.isoformat(), "reason": reason, "payload": dict(record.payload)}
    found["source"] = list(record.source)
    return found if record.expires is None else found | {"expires": record.expires.isoformat()}
