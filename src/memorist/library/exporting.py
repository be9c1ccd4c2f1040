"""Records as lines of JSON, with the changes that led to them."""

from __future__ import annotations

import json
from pathlib import Path

from memorist.memory.record import Scope
from memorist.memory.sqlite import SQLiteBank


def write_records(bank: SQLiteBank, path: Path, scope: Scope) -> int:
    """Write a scope's live records to a new file; how many they are."""
    count = 0
    with open(path, "x", encoding="utf-8") as file:
        for record in bank.page(scope):
            past = [
                {"text": change.after.text, "at": change.after.updated.isoformat(), "reason": change.reason}
                for change in bank.history(record.id, record.scope)
                if change.after is not None
            ]
            file.write(json.dumps(record.to_json() | {"history": past}, ensure_ascii=False) + "\n")
            count += 1
    return count
