"""What managers of memory leave to be found: LoCoMo's observations stream through one, then its questions are asked.

A turn counts as found where one of its statements stands, word for word, in a memory that is shown: a memory that was
joined from several counts for those whose text it still has, and one that was replaced for its present text alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from memorist.agents.components.extractors import Fact
from memorist.agents.components.updaters import UNDATED, Updater, adding
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Code, Operation, Result, Scope
from memorist.tasks.dialogue import TRAINED_CATEGORIES
from memorist.tasks.locomo import Dialogue, Question

TOKENS = 1000
"""Shown to a question."""


@dataclass(frozen=True)
class Threshold:
    """Leaves out what is as near as this to something remembered, and adds all else."""

    cosine: float

    async def write(self, facts: Sequence[Fact], bank: MemoryBank, scope: Scope) -> list[tuple[Result, ...]]:
        """The results of each fact."""
        results: list[tuple[Result, ...]] = []
        for fact in facts:
            near = bank.search(fact.text, scope, k=1)
            if near and near[0].score >= self.cosine:
                results.append((Result(Operation("NOOP", fact.text), Code.UNCHANGED, near[0].record),))
            else:
                results.append(tuple(bank.apply([adding(fact)], scope, at=fact.time or UNDATED)))
        return results


@dataclass
class Dropping:
    """Adds a share of all facts, drawn by chance."""

    share: float
    seed: int = 0
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    async def write(self, facts: Sequence[Fact], bank: MemoryBank, scope: Scope) -> list[tuple[Result, ...]]:
        """The results of those that are added."""
        return [
            tuple(bank.apply([adding(fact)], scope, at=fact.time or UNDATED))
            for fact in facts
            if self.rng.random() < self.share
        ]


def managed(dialogue: Dialogue, updater: Updater, bank: MemoryBank) -> int:
    """Stream a dialogue's observations through a manager into a bank; how many records there are then."""

    async def stream() -> None:
        for message in dialogue.conversation.messages():
            source = (message.id,)
            for text in message.statements:
                fact = Fact(text, message.speaker, source, message.time)
                await updater.write([fact], bank, Scope(message.speaker))

    asyncio.run(stream())
    return sum(len(bank.list(Scope(name))) for name in dialogue.conversation.speakers)


def observed(dialogue: Dialogue) -> dict[str, tuple[str, ...]]:
    """The statements of each turn that has any."""
    return {m.id: m.statements for m in dialogue.conversation.messages() if m.statements}


def asked_of(dialogue: Dialogue) -> list[Question]:
    """Questions with evidence that observations could give."""
    known = observed(dialogue)
    return [q for q in dialogue.questions if q.category in TRAINED_CATEGORIES and set(q.evidence) & set(known)]


def recalled(
    dialogue: Dialogue, bank: MemoryBank, count: Callable[[str], int], tokens: int = TOKENS
) -> dict[str, list[float]]:
    """Share of each question's evidence that is in the memories shown, best first in so many tokens; by the session
    that its evidence begins in.

    Args:
        count: the tokens of a text.
    """
    known = observed(dialogue)
    scopes = [Scope(name) for name in dialogue.conversation.speakers]
    found: dict[str, list[float]] = {}
    for question in asked_of(dialogue):
        hits = sorted((hit for s in scopes for hit in bank.search(question.text, s, k=200)), key=lambda h: -h.score)
        texts, left = [], tokens
        for hit in hits:
            left -= count(hit.record.text)
            if left < 0:
                break
            texts.append(hit.record.text)
        wanted = [turn for turn in question.evidence if turn in known]
        seen = [any(told in text for told in known[turn] for text in texts) for turn in wanted]
        found.setdefault(wanted[0].partition(":")[0], []).append(100 * sum(seen) / len(seen))
    return found


def mean(found: Mapping[str, Sequence[float]]) -> float:
    """Over all questions."""
    every = [value for values in found.values() for value in values]
    return sum(every) / len(every) if every else 0.0
