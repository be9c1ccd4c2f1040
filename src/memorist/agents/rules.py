"""An agent without a model: keeps what people say of themselves, and overwrites only what they say has changed.

What `observe` falls back on where no model is configured. It is no measure of what memory can be: it knows neither
paraphrase nor contradiction, and errs by keeping too much.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime

from memorist.agents.components.extractors import SENTENCE
from memorist.conversation import Message
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Code, Operation, Result, Scope
from memorist.memory.words import asked, words

CHANGED = re.compile(
    r"\b(now|no longer|not any ?more|anymore|instead|since (today|yesterday|this week|last week)|moved|switched|"
    r"changed|actually|these days|used to)\b",
    re.IGNORECASE,
)


NEAREST = 4
"""Records that are looked at, of which some may have expired."""


def _telling(text: str) -> list[str]:
    """The words of a text that are no function words, in order."""
    wanted = set(asked(text))
    return [word for word in words(text) if word in wanted]


class RuleAgent:
    """Each sentence that a person says, save questions: NOOP if it is known, UPDATE if it says that something near has
    changed and shares most of its words with it, else ADD. Never DELETE.

    Args:
        bank: where memories live.
        same: cosine from which on a sentence with the same telling words is known.
        related: cosine from which on a memory may be what has changed.
        shared: share of the sentence's telling words that the memory must hold to be overwritten.
    """

    def __init__(self, bank: MemoryBank, *, same: float = 0.95, related: float = 0.4, shared: float = 0.5) -> None:
        self.bank, self.same, self.related, self.shared = bank, same, related, shared

    async def observe(self, messages: Iterable[Message], scope: Scope) -> AsyncIterator[tuple[Result, ...]]:
        """Read messages in order; yield the results of each sentence."""
        for message in messages:
            if not message.by_person or message.time is None:
                continue
            for sentence in self.sentences(message):
                yield self.write(sentence, scope, message.time, (message.id,) if message.id else ())

    def write(self, sentence: str, scope: Scope, at: datetime, source: Sequence[str] = ()) -> tuple[Result, ...]:
        """Do what is to do about one sentence."""
        operation = self.decide(sentence, scope, at)
        if operation.kind == "NOOP":
            return (Result(operation, Code.UNCHANGED, self.bank.get(operation.id or "", scope)),)
        return tuple(self.bank.apply([operation], scope, at=at, source=source))

    @staticmethod
    def sentences(message: Message) -> list[str]:
        """What a message states."""
        parts = (part.strip() for part in SENTENCE.split(message.shown))
        return [part for part in parts if not part.endswith("?") and len(words(part)) >= 3 and asked(part)]

    def decide(self, sentence: str, scope: Scope, at: datetime) -> Operation:
        """What to do about one sentence that was said at a time."""
        hits = [hit for hit in self.bank.search(sentence, scope, k=NEAREST) if not hit.record.has_expired(at)]
        if hits:
            # A vector alone would take "3 pm" for "4 pm", and in a script that the embedder does not know all for one.
            for known in (hit.record for hit in hits if hit.score >= self.same):
                if _telling(known.text) == _telling(sentence):
                    return Operation("NOOP", sentence, id=known.id, reason=f"already known: {known.text}")
            near, score = hits[0].record, hits[0].score
            change = CHANGED.search(sentence)
            telling = {word for word in asked(sentence) if not CHANGED.search(word)}
            overlap = len(telling & set(words(near.text))) / max(1, len(telling))
            if change is not None and score >= self.related and overlap >= self.shared:
                return Operation("UPDATE", sentence, id=near.id, reason=f"{change[0]!r} says that this has changed")
        return Operation("ADD", sentence, reason="new: nothing that is known is near enough")
