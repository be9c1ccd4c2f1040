"""Reading operations out of what a model wrote: lenient about form, strict about meaning.

Whatever comes in (prose around the JSON, fences, nothing, ten megabytes, ten thousand brackets), a list of
operations comes out, and what cannot be read is one operation that every bank refuses as malformed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memorist.memory.record import MemoryRecord, Operation, clean_text

MAX_REPLY = 200_000
"""Characters of a reply that are looked at; a longer one is malformed."""
_EVENTS = {"NONE": "NOOP", "NO-OP": "NOOP", "DEL": "DELETE"}
_decode = json.JSONDecoder(strict=False).raw_decode


@dataclass(frozen=True, slots=True)
class ReadOperations:
    """What was read: operations with the bank's ids, and whether the reply had the form asked for."""

    operations: tuple[Operation, ...]
    well_formed: bool


def read_json(text: str) -> Any:
    """The first JSON object or array in `text`; None if there is none that can be read."""
    if len(text) > MAX_REPLY:
        return None
    starts = [i for i in (text.find("["), text.find("{")) if i >= 0]
    for start in sorted(starts):
        try:
            return _decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
    return None


def read_operations(text: str, shown: Sequence[MemoryRecord]) -> ReadOperations:
    """Operations of a reply of the form `{"memory": [{"event", "id", "text"}]}` or the bare list.

    Args:
        text: what the model wrote.
        shown: the memories that it saw under the ids "0", "1", ...; a private map, so that it cannot name others.

    Ids that were not shown stay as they are and are refused by the bank (`Code.UNKNOWN_ID`), unless they are a
    real record's: then they are hidden behind a prefix, for the model was never shown them.
    """
    data = read_json(text)
    if isinstance(data, dict):
        data = data.get("memory", [data] if "event" in data else None)
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        return ReadOperations((), well_formed=False)
    return ReadOperations(tuple(_operation(item, shown) for item in data), well_formed=True)


def _operation(item: dict[str, Any], shown: Sequence[MemoryRecord]) -> Operation:
    event = str(item.get("event", "")).strip().upper()
    text = item.get("text")
    return Operation(
        kind=_EVENTS.get(event, event),
        text=clean_text(text).strip() if isinstance(text, str) else "",
        id=_real_id(item.get("id"), shown),
    )


def _real_id(given: Any, shown: Sequence[MemoryRecord]) -> str | None:
    if isinstance(given, bool) or not isinstance(given, str | int):
        return None
    number = str(given).strip()
    if number.isascii() and number.isdigit() and len(number) < 7 and int(number) < len(shown):
        return shown[int(number)].id
    return f"not-shown:{number[:100]}"
