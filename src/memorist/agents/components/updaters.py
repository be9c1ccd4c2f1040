"""From facts to operations on the bank: by a trained manager, by a chooser, by merging topics, or by adding
all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol

import numpy as np

from memorist.agents.components.extractors import SENTENCE, Fact
from memorist.agents.components.prompts import STYLES, Prompts
from memorist.decision import Observation
from memorist.memory.bank import Hit, MemoryBank
from memorist.memory.embed import Embedder
from memorist.memory.record import Code, MemoryRecord, Operation, Result, Scope
from memorist.memory.words import asked, words
from memorist.models.chooser import ABOUT, ALONE, chosen, options
from memorist.models.sampler import Actor

UNDATED = datetime(1970, 1, 1)
ENDS = (".", "!", "?", "…")
LONGEST_JOINED = 300
"""Characters of a memory that something is joined to at most; what would make it longer becomes one of its own."""
SOME, NEAR, SAID = 4, 0.3, 0.7
"""Telling words from which on a statement is not left out without looking: if it is worth keeping it is joined to the
nearest memory, from this cosine on, where no memory has this share of them; so is one whose numbers no memory has."""
LONG, SHARED = 6, 0.4
"""Telling words of a sentence from which on another one as long must have this share of them to take its place or to
end it, else it is joined."""
OWN = 10
"""Telling words from which on a sentence of a joined memory was said of something of its own."""


class Updater(Protocol):
    """Writes facts about one person."""

    async def write(self, facts: Sequence[Fact], bank: MemoryBank, scope: Scope) -> list[tuple[Result, ...]]:
        """The results of each call of a model, or of each commit."""
        ...


def related(bank: MemoryBank, facts: Sequence[str], scope: Scope, at: datetime, k: int) -> list[Hit]:
    """The union of the `k` nearest memories of each fact, save what has expired `at` a time; nearest first."""
    hits = [hit for fact in facts for hit in bank.search(fact, scope, k=k)]
    hits = [hit for hit in hits if not hit.record.has_expired(at)]
    hits.sort(key=lambda hit: -hit.score)
    nearest: dict[str, Hit] = {}
    for hit in hits:
        nearest.setdefault(hit.record.id, hit)
    return list(nearest.values())


async def manage(
    manager: Actor, prompts: Prompts, facts: Sequence[str], hits: Sequence[Hit], bank: MemoryBank, scope: Scope,
    at: datetime, source: Sequence[str],
) -> tuple[Result, ...]:  # fmt: skip
    """Ask Memory-R1's Manager about facts and what is related, and do what it says."""
    shown = [hit.record for hit in hits]
    reply = await manager.act(prompts.manage(hits, facts))
    read = prompts.read_operations(reply.text, shown, facts)
    if not read.well_formed:
        return (Result(Operation(reply.text[:200]), Code.MALFORMED),)
    return tuple(bank.apply(read.operations, scope, at=at, source=source))


@dataclass(frozen=True)
class Managed:
    """Memory-R1's Manager decides what to add, update, delete and leave alone (arXiv 2508.19828).

    Args:
        manager: the model.
        style: "compact" or "full" prompts.
        k: related memories per fact.
    """

    manager: Actor
    style: str = "full"
    k: int = 5

    roles: ClassVar[tuple[str, ...]] = ("manager",)

    async def write(self, facts: Sequence[Fact], bank: MemoryBank, scope: Scope) -> list[tuple[Result, ...]]:
        """The results of each call."""
        prompts = STYLES[self.style]
        step = prompts.facts_per_call or max(1, len(facts))
        results = []
        for start in range(0, len(facts), step):
            some = facts[start : start + step]
            texts, at = [fact.text for fact in some], some[0].time or UNDATED
            source = tuple(dict.fromkeys(name for fact in some for name in fact.source))
            hits = related(bank, texts, scope, at, self.k)
            results.append(await manage(self.manager, prompts, texts, hits, bank, scope, at, source))
        return results


@dataclass(frozen=True)
class Choosing:
    """A small encoder chooses for each fact: add it, leave all as it is, or replace, join or remove one that is near.

    An UPDATE's text is the fact itself, which takes the memory's place, or both one after the other, which keeps the
    sources of both. A long fact that would be left out although nothing near says most of it, and that would be added
    if nothing were near, is joined to the nearest.

    Args:
        chooser: the policy, of `models.chooser`.
        k: memories that a fact is compared with.
    """

    chooser: Actor
    k: int = 4

    roles: ClassVar[tuple[str, ...]] = ("chooser",)

    async def write(self, facts: Sequence[Fact], bank: MemoryBank, scope: Scope) -> list[tuple[Result, ...]]:
        """The results of each fact."""
        results: list[tuple[Result, ...]] = []
        for fact in facts:
            at = fact.time or UNDATED
            hits = related(bank, [fact.text], scope, at, self.k)
            shown = [hit.record for hit in hits]
            action = await self.chooser.act(Observation(fact.text, options=options([one.text for one in shown])))
            choice = action.choice[0]
            if chosen(choice)[0] == "NOOP" and unsaid(fact.text, hits):
                alone = await self.chooser.act(Observation(fact.text, options=options(())))
                if chosen(alone.choice[0])[0] == "ADD":
                    choice = len(ALONE) + ABOUT.index("JOIN")  # to the first, which is the nearest
            operation = self.operation(fact, shown, choice, bank.embedder)
            if operation.kind == "NOOP":
                results.append((Result(operation, Code.UNCHANGED),))
            else:
                results.append(tuple(bank.apply([operation], scope, at=at)))
        return results

    @staticmethod
    def operation(fact: Fact, shown: Sequence[MemoryRecord], choice: int, embedder: Embedder) -> Operation:
        """What a choice among the options does. Of a memory that was joined the sentence that is nearest to the fact
        is replaced or ended, and with it what only adds to it; long ones stay, they were said of something else."""
        kind, target = chosen(choice)
        if target is None:
            reason = "new: nothing near says it" if kind == "ADD" else "known already, or nothing to keep"
            return Operation(kind, fact.text, reason=reason, source=fact.source)
        old = shown[target]
        parts, of = SENTENCE.split(old.text), 0
        if len(parts) > 1 and kind != "JOIN":
            vectors = embedder.embed([fact.text, *parts])
            of = int(np.argmax(vectors[1:] @ vectors[0]))
        both = tuple(dict.fromkeys((*old.source, *fact.source)))
        if kind == "JOIN" or apart(parts[of], fact.text):
            text = f"{old.text}{'' if old.text.endswith(ENDS) else '.'} {fact.text}"
            if len(text) > LONGEST_JOINED:
                reason = f"tells more of it, which is long: {old.text}"
                return Operation("ADD", fact.text, reason=reason, source=fact.source)
            return Operation("UPDATE", text, old.id, reason="tells more of it", source=both)
        stays = [i for i, part in enumerate(parts) if i != of and len(asked(part)) >= OWN]
        if kind == "DELETE" and not stays:
            return Operation(kind, fact.text, old.id, reason=f"ended by: {fact.text}", source=fact.source)
        if kind == "DELETE":
            left = " ".join(parts[i] for i in stays)
            return Operation("UPDATE", left, old.id, reason=f"{parts[of]!r} ended by: {fact.text}", source=both)
        text = " ".join(fact.text if i == of else parts[i] for i in sorted([of, *stays]))
        source = both if stays else fact.source
        reason = f"takes the place of: {parts[of] if stays else old.text}"
        return Operation("UPDATE", text, old.id, reason=reason, source=source)


def apart(old: str, new: str) -> bool:
    """Whether two texts are both long and have few words in common: so much is seldom out of date at once."""
    had, has = set(asked(old)), set(asked(new))
    return min(len(had), len(has)) >= LONG and len(had & set(words(new))) < SHARED * len(had)


def unsaid(text: str, hits: Sequence[Hit]) -> bool:
    """Whether a text would be lost if it were left out although something is near it: nothing there says most of it,
    if it is long, or has its numbers, or, of a short one ("Bob loves Anna"), its words in the same order."""
    if not hits or hits[0].score < NEAR:
        return False
    order, orders = asked(text), [asked(hit.record.text) for hit in hits]
    if len(order) <= SOME and order not in orders and any(sorted(order) == sorted(other) for other in orders):
        return True
    telling, held = set(order), [set(words(hit.record.text)) for hit in hits]
    numbers = {word for word in telling if any(letter.isdigit() for letter in word)}
    if numbers and not any(numbers <= has for has in held):
        return True
    return len(telling) >= SOME and max(len(telling & has) for has in held) < SAID * len(telling)


@dataclass(frozen=True)
class AddAll:
    """Every fact becomes a memory; nothing is ever changed."""

    roles: ClassVar[tuple[str, ...]] = ()

    async def write(self, facts: Sequence[Fact], bank: MemoryBank, scope: Scope) -> list[tuple[Result, ...]]:
        """The results, a commit for each time that facts are of."""
        times = list(dict.fromkeys(fact.time for fact in facts))
        found = []
        for time in times:
            added = [adding(fact) for fact in facts if fact.time == time]
            found.append(tuple(bank.apply(added, scope, at=time or UNDATED)))
        return found


def adding(fact: Fact) -> Operation:
    """The operation that adds a fact, with the turns that it was drawn from."""
    payload: dict[str, Any] | None = {"turns": list(fact.turns)} if fact.turns else None
    return Operation("ADD", fact.text, payload=payload, source=fact.source)
