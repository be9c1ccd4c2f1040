"""From facts to operations on the bank: by a trained manager, by merging topics, or by adding everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol

from memorist.agents.components.extractors import Fact
from memorist.agents.components.prompts import STYLES, Prompts
from memorist.memory.bank import Hit, MemoryBank
from memorist.memory.record import Code, Operation, Result, Scope
from memorist.models.sampler import Actor

UNDATED = datetime(1970, 1, 1)


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
