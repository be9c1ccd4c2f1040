"""Messages in the forms that people have them in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from memorist.agents.components.extractors import SENTENCE
from memorist.conversation import PROGRAMS, Message
from memorist.errors import DataError
from memorist.library.results import Context
from memorist.memory.record import MemoryRecord, Scope
from memorist.memory.stored import StoredBank
from memorist.memory.words import words

OPENING, CLOSING = "<memories>", "</memories>"
"""What stands around a context: what is said between them came out of memory and does not go back in."""

TAG = re.compile(r"<(/?memories)>", re.IGNORECASE)

_LINE = re.compile(r"\s*\[[^\]\s]+\] \d{4}-")
"""How a line of a context begins."""

Said = Message | Mapping[str, Any] | str


def read_message(said: Said, number: int, at: datetime) -> Message:
    """A message in one of the forms that people have them in; without a time it is of `at`.

    Raises:
        DataError: it has none of these forms.
    """
    if isinstance(said, Message):
        return said if said.time is not None else replace(said, time=at)
    if isinstance(said, str):
        return Message("user", said, time=at)
    if not isinstance(said, Mapping):
        raise DataError("messages", str(number), "message", f"is {type(said).__name__}; expected role and content")
    role, content = said.get("role"), said.get("content")
    if isinstance(content, list):  # parts, of which some are texts
        content = "\n".join(p["text"] for p in content if isinstance(p, Mapping) and isinstance(p.get("text"), str))
    if not isinstance(role, str) or not isinstance(content, str | None):
        raise DataError("messages", str(number), "role, content", f"are {role!r}, {content!r}; expected texts")
    name = said.get("name")
    # The name of a tool or an assistant does not make it a person.
    speaker = name if isinstance(name, str) and name and role.lower() not in PROGRAMS else role
    return Message(speaker, content or "", str(said.get("id") or ""), at)


def harmless(text: str) -> str:
    """A text on one line, that cannot close the tags around a context."""
    return TAG.sub(r"‹\1›", " ".join(text.split()))


def filled(records: Iterable[MemoryRecord], max_tokens: int, measure: Callable[[str], int]) -> Context:
    """Records on a line each, as many from the first on as fit."""
    text, ids = "", []
    for record in records:
        line = f"[{record.id}] {record.updated:%Y-%m-%d} {harmless(record.text)}"
        longer = f"{text}\n{line}" if text else line
        if measure(f"{OPENING}\n{longer}\n{CLOSING}") <= max_tokens:
            text = longer
            ids.append(record.id)
    whole = f"{OPENING}\n{text}\n{CLOSING}" if ids else ""
    return Context(whole, tuple(ids), measure(whole))


def unfed(message: Message, scope: Scope, bank: StoredBank) -> Message:
    """A message without what came out of memory: a context, and of a program's message what a record says."""
    return _without_echoes(_without_contexts(message), scope, bank)


def _without_contexts(message: Message) -> Message:
    text = message.text
    while OPENING in text:
        before, _, rest = text.partition(OPENING)
        _, closing, after = rest.partition(CLOSING)
        if not closing and not _LINE.match(rest):  # somebody writes about the tag
            break
        text = before + after
    return message if text == message.text else replace(message, text=text)


def _without_echoes(message: Message, scope: Scope, bank: StoredBank) -> Message:
    if message.by_person:
        return message

    def known(sentence: str) -> bool:
        said = words(sentence)
        hits = bank.find(sentence, scope, k=3, mode="lexical", now=message.time) if said else []
        return any(words(hit.record.text) == said for hit in hits)

    kept = [sentence for sentence in SENTENCE.split(message.text) if not known(sentence)]
    return replace(message, text=" ".join(kept))
