"""How well a listener keeps a profile tree, on histories whose right tree is known at every moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from memorist.agents.personatree import PersonaTree
from memorist.memory.bank import MemoryBank
from memorist.memory.profile_text import tokens
from memorist.memory.profile_tree import ProfileTree
from memorist.memory.record import Scope
from memorist.memory.scratch import minilm_bank
from memorist.tasks.profile_rewards import alike
from memorist.tasks.profiles import Heard

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
Make = Callable[[MemoryBank], PersonaTree]


@dataclass(frozen=True)
class Listened:
    """What came of a history. states: of each message, from the right tree before it, the reward by the tree after it
    (-1 to 1). clauses, foreign: of the tree that is left where all is listened to from an empty one, how many there
    are, and how many say what holds of others alone."""

    states: tuple[float, ...]
    clauses: int
    foreign: int


async def listened(make: Make, history: Sequence[Heard]) -> Listened:
    """One history."""
    scope = Scope(history[0].message.speaker)
    right, states, before = minilm_bank(), list[float](), dict[str, str]()
    for heard in history:
        agent = make(right.fork())
        await _hear(agent, heard, scope)
        states.append(alike(before, heard.tree, agent.tree(scope).leaves()))
        ProfileTree(right, scope, guard="off", budget=10_000).apply(heard.edits, at=heard.message.time or _NEVER)
        before = dict(heard.tree)
    alone = make(minilm_bank())
    for heard in history:
        await _hear(alone, heard, scope)
    parts = [part for text in alone.tree(scope).leaves().values() for part in text.split("; ")]
    others = [f" {' '.join(tokens(value))} " for value in history[-1].others]
    foreign = sum(any(value in f" {' '.join(tokens(part))} " for value in others) for part in parts)
    return Listened(tuple(states), len(parts), foreign)


async def _hear(agent: PersonaTree, heard: Heard, scope: Scope) -> None:
    async for _ in agent.observe([heard.message], scope):
        pass


def judged(make: Make, histories: Sequence[Sequence[Heard]]) -> list[Listened]:
    """All of them."""

    async def all_of() -> list[Listened]:
        return [await listened(make, one) for one in histories]

    return asyncio.run(all_of())
