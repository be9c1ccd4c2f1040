"""What other systems, and this one, export: read row by row, so that a broken row is named and the rest is kept.

| form | what |
|---|---|
| `memorist` | this library's JSONL: a record a line, with the changes that led to it |
| `jsonl` | an object a line: `text`; if known `user`, `agent`, `session`, `id`, `at`, `key`, `metadata`, `expires` |
| `mem0` | what `get_all` gives: `results` (or a list) of objects with `memory`, `user_id`, `metadata`, … |
| `graphiti` | `edges` (or a list) of objects with `fact`, `group_id`, `valid_at`, `invalid_at`, `episodes` |
| `chatgpt` | `conversations.json` of a data export: the thread that ends at `current_node` |
| `claude` | `conversations.json` of a data export: `chat_messages` |

The first four are facts, kept word by word; the last two are conversations, which the agent reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memorist.conversation import Message
from memorist.errors import DataError, nearest
from memorist.memory.record import Operation, Scope, clean_text

_ODD = re.compile(r"[\s\x00-\x1f\x7f\[\]<>]+")


@dataclass(frozen=True, slots=True)
class Fact:
    """One record to bring in: whose it was, its id there, and its texts from the first to the present one."""

    scope: Scope | None
    id: str | None
    past: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Talk:
    """One conversation to let the agent read."""

    id: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that could not be read."""

    problem: str


Row = Fact | Talk | Broken


def read_rows(path: Path, form: str | None = None) -> Iterator[tuple[int, Row]]:
    """The rows of a file in one of the forms, with their numbers; None looks which form it is.

    Raises:
        DataError: the file cannot be read, or is in none of the forms.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(path), "all", "file", f"cannot be read: {error}") from error
    rows = list(_parsed(text))
    if not rows:
        return iter(())
    kind = form or _look(path, rows)
    if kind not in FORMS:
        raise DataError(str(path), "all", "form", f"is {kind!r}; {nearest(kind, FORMS)}")
    return _read(rows, FORMS[kind])


def _parsed(text: str) -> Iterator[tuple[int, Any]]:
    """(number, object or Broken) of each row: elements of one JSON document, or lines of JSONL."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, Mapping):
        lists = [whole[name] for name in ("results", "memories", "edges", "facts", "conversations") if name in whole]
        whole = next((one for one in lists if isinstance(one, list)), [whole])
    if isinstance(whole, list):
        yield from enumerate(whole, 1)
        return
    for number, line in enumerate(text.split("\n"), 1):  # texts may hold other characters that end lines
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                yield number, Broken(f"is not JSON ({error})")
            except RecursionError:
                yield number, Broken("is nested too deep")


def _look(path: Path, rows: Sequence[tuple[int, Any]]) -> str:
    marks = {
        "mapping": "chatgpt",
        "chat_messages": "claude",
        "fact": "graphiti",
        "memory": "mem0",
        "history": "memorist",
    }
    for _, row in rows:
        if isinstance(row, Mapping):
            found = next((form for mark, form in marks.items() if mark in row), "jsonl" if "text" in row else None)
            if found:
                return found
    first = next((", ".join(map(repr, list(row)[:5])) for _, row in rows if isinstance(row, Mapping)), "")
    problem = f"is none of those that are known (rows have {first or 'no names'}); give one of {', '.join(FORMS)}"
    raise DataError(str(path), "all", "form", problem)


def _read(
    rows: Sequence[tuple[int, Any]], read: Callable[[Mapping[str, Any]], Fact | Talk]
) -> Iterator[tuple[int, Row]]:
    for number, row in rows:
        if isinstance(row, Broken):
            yield number, row
            continue
        try:
            if not isinstance(row, Mapping):
                raise ValueError(f"is {type(row).__name__}; expected an object")
            yield number, read(row)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            yield number, Broken(f"field {error} is missing" if isinstance(error, KeyError) else str(error))


def _text(row: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = row.get(name, default) if default is not None else row[name]
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} is {value!r}; expected a text")
    return value


def _id(value: Any) -> str | None:
    """An id as records may have them: one line without what `context` puts around it."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"field 'id' is {value!r}; expected a text")
    return _ODD.sub("-", clean_text(str(value)))[:200] or None


def _sources(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    many = value if isinstance(value, list | tuple) else [value]
    return tuple(str(one) for one in many if isinstance(one, str | int))


def _scope(value: Any) -> Scope:
    if not isinstance(value, list) or not 1 <= len(value) <= 3:
        raise ValueError(f"field 'scope' is {value!r}; expected [user, agent, session]")
    return Scope(*value)


def _time(value: Any, name: str) -> datetime | None:
    """A time from ISO 8601 or seconds since 1970; without a zone it is in UTC."""
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        found = datetime.fromisoformat(value)
    except (ValueError, TypeError, OverflowError, OSError):
        raise ValueError(f"field {name!r} is {value!r}; expected a time such as 2026-01-31T12:00:00Z") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _own(user: Any, agent: Any, session: Any) -> Scope | None:
    return Scope(str(user), str(agent or ""), str(session or "")) if user else None


def _memorist(row: Mapping[str, Any]) -> Fact:
    key = row.get("key")
    expires = _time(row.get("expires"), "expires")
    past = row.get("history") or [{"text": row["text"], "at": row["updated"], "reason": ""}]
    ops = []
    for number, one in enumerate(past):
        kind, last = "UPDATE" if number else "ADD", number + 1 == len(past)
        whole = row if last or "payload" not in one else one  # older exports have only the last
        until = expires if last else _time(one.get("expires"), "expires")
        about = (whole.get("payload") or {}, _text(one, "reason", ""), until, _time(one["at"], "at"))
        ops.append(Operation(kind, _text(one, "text"), None, key, *about, _sources(whole.get("source"))))
    if ops[-1].text != row["text"]:
        raise ValueError("field 'history' does not end with 'text'")
    return Fact(_scope(row["scope"]), _id(_text(row, "id")), tuple(ops))


def _jsonl(row: Mapping[str, Any]) -> Fact:
    metadata, at = row.get("metadata"), _time(row.get("at", row.get("created_at")), "at")
    key, expires = row.get("key"), _time(row.get("expires"), "expires")
    op = Operation("ADD", _text(row, "text"), None, key, metadata, "", expires, at, _sources(row.get("source")))
    return Fact(_own(row.get("user"), row.get("agent"), row.get("session")), _id(row.get("id")), (op,))


def _mem0(row: Mapping[str, Any]) -> Fact:
    at, changed = (_time(row.get(name), name) for name in ("created_at", "updated_at"))
    metadata = dict(row.get("metadata") or {})
    if row.get("categories"):
        metadata.setdefault("categories", list(row["categories"]))
    expires = _time(row.get("expiration_date"), "expiration_date")
    op = Operation("ADD", _text(row, "memory"), None, None, metadata, "", expires, changed or at)
    return Fact(_own(row.get("user_id"), row.get("agent_id"), row.get("run_id")), _id(row.get("id")), (op,))


def _graphiti(row: Mapping[str, Any]) -> Fact:
    at = _time(row.get("valid_at"), "valid_at") or _time(row.get("created_at"), "created_at")
    metadata = {name: row[name] for name in ("name", "source_node_uuid", "target_node_uuid") if row.get(name)}
    until = _time(row.get("invalid_at"), "invalid_at") or _time(row.get("expired_at"), "expired_at")
    source = _sources(row.get("episodes"))
    op = Operation("ADD", _text(row, "fact"), None, None, metadata, "", until, at, source)
    return Fact(_own(row.get("group_id"), "", ""), _id(row.get("uuid")), (op,))


def _chatgpt(row: Mapping[str, Any]) -> Talk:
    nodes, at = row["mapping"], row.get("current_node")
    if at is None:  # older exports: the last leaf
        at = next((name for name in reversed(nodes) if not nodes[name].get("children")), None)
    said: list[Message] = []
    seen: set[str] = set()
    while at is not None and at not in seen:
        seen.add(at)
        message, at = nodes[at].get("message") or {}, nodes[at].get("parent")
        content, role = message.get("content") or {}, (message.get("author") or {}).get("role")
        text = "\n".join(part for part in content.get("parts") or () if isinstance(part, str)).strip()
        if text and role:
            time = _time(message.get("create_time") or row.get("create_time"), "create_time")
            said.append(Message(role, text, str(message.get("id") or ""), time))
    return Talk(str(row.get("conversation_id") or row.get("id") or row.get("title") or ""), tuple(reversed(said)))


def _claude(row: Mapping[str, Any]) -> Talk:
    said = []
    for one in row["chat_messages"]:
        parts = [part.get("text") or "" for part in one.get("content") or () if part.get("type") == "text"]
        text = (one.get("text") or "\n".join(parts)).strip()
        role = {"human": "user"}.get(one["sender"], one["sender"])
        time = _time(one.get("created_at") or row.get("created_at"), "created_at")
        if text:
            said.append(Message(role, text, str(one.get("uuid") or ""), time))
    return Talk(str(row.get("uuid") or row.get("name") or ""), tuple(said))


FORMS: dict[str, Callable[[Mapping[str, Any]], Fact | Talk]] = {
    "memorist": _memorist,
    "jsonl": _jsonl,
    "mem0": _mem0,
    "graphiti": _graphiti,
    "chatgpt": _chatgpt,
    "claude": _claude,
}
