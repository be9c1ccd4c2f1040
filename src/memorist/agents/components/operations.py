"""Reading operations out of what a model wrote: lenient about form, strict about meaning.

Whatever comes in (prose around the JSON, fences, nothing, ten megabytes, ten thousand brackets), a list of
operations comes out, and what cannot be read is one operation that every bank refuses as malformed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memorist.memory.record import MemoryRecord, Operation, clean_text

MAX_REPLY = 200_000
"""Characters of a reply that are looked at; a longer one is malformed."""
MAX_STARTS = 64
"""Brackets in a reply at which a JSON value is looked for; prose has some too."""
_START = re.compile(r"[\[{]")
_EVENTS = {"NONE": "NOOP", "NO-OP": "NOOP", "DEL": "DELETE"}
_decode = json.JSONDecoder(strict=False).raw_decode


@dataclass(frozen=True, slots=True)
class ReadOperations:
    """What was read: operations with the bank's ids, and whether the reply had the form asked for."""

    operations: tuple[Operation, ...]
    well_formed: bool


def read_json(text: str) -> Any:
    """The first JSON object or array of objects in `text`, else the first array; None if there is neither."""
    if len(text) > MAX_REPLY:
        return None
    array = None
    at = 0
    for _ in range(MAX_STARTS):
        start = _START.search(text, at)
        if start is None:
            break
        try:
            value, at = _decode(text, start.start())
        except json.JSONDecodeError as error:
            # Do not look inside an object that breaks off: it is not what the model meant to say.
            at = start.end() if text[start.start()] == "[" else max(start.end(), error.pos)
            continue
        except (ValueError, RecursionError):
            at = start.end()
            continue
        if isinstance(value, dict) or any(isinstance(item, dict) for item in value):
            return value
        array = value if array is None else array  # prose cites memories as [0]
    return array


def read_operations(text: str, shown: Sequence[MemoryRecord], fact: str = "") -> ReadOperations:
    """Operations of a reply of the form `{"memory": [{"event", "id", "text"}]}` or the bare list.

    Args:
        text: what the model wrote.
        shown: the memories that it saw under the ids "0", "1", ...; a private map, so that it cannot name others.
        fact: the text of operations that carry none: where one fact is managed at a time, "ADD" means to add it as
            it was said, and a small model need not write it again. A text that is given, be it empty, stands.

    Ids that were not shown are hidden behind a prefix, so that the bank refuses them (`Code.UNKNOWN_ID`) even if
    they are a real record's.
    """
    data = read_json(text)
    if isinstance(data, dict):
        data = data.get("memory", [data] if "event" in data else None)
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        return ReadOperations((), well_formed=False)
    return ReadOperations(tuple(_operation(item, shown, fact) for item in data), well_formed=True)


def _operation(item: dict[str, Any], shown: Sequence[MemoryRecord], fact: str) -> Operation:
    event, text = item.get("event"), item.get("text", fact)
    event = event.strip().upper() if isinstance(event, str) else ""
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
