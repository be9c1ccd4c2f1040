"""Messages in the forms that people have them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from memorist.agents.components.extractors import SENTENCE
from memorist.conversation import Message
from memorist.errors import DataError
from memorist.memory.record import Scope
from memorist.memory.sqlite import SQLiteBank
from memorist.memory.words import words

OPENING, CLOSING = "<memories>", "</memories>"
"""What stands around a context: what is said between them came out of memory and does not go back in."""

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
    return Message(name if isinstance(name, str) else role, content or "", str(said.get("id") or ""), at)


def unfed(message: Message, scope: Scope, bank: SQLiteBank) -> Message:
    """A message without what came out of memory: a context, and of a program's message what a record says."""
    return _without_echoes(_without_contexts(message), scope, bank)


def _without_contexts(message: Message) -> Message:
    text = message.text
    while OPENING in text:
        before, _, rest = text.partition(OPENING)
        text = before + rest.partition(CLOSING)[2]
    return message if text == message.text else replace(message, text=text)


def _without_echoes(message: Message, scope: Scope, bank: SQLiteBank) -> Message:
    if message.by_person:
        return message

    def known(sentence: str) -> bool:
        said = words(sentence)
        hits = bank.find(sentence, scope, k=3, mode="lexical") if said else []
        return any(words(hit.record.text) == said for hit in hits)

    kept = [sentence for sentence in SENTENCE.split(message.text) if not known(sentence)]
    return replace(message, text=" ".join(kept))
