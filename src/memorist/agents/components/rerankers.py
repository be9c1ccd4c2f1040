"""From memories that may answer to those that are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from memorist.decision import Action, Observation
from memorist.memory.bank import Hit
from memorist.models.sampler import Actor


class Reranker(Protocol):
    """Chooses among hits."""

    async def choose(self, question: str, hits: Sequence[Hit], count: int) -> tuple[list[Hit], Action | None]:
        """At most `count` of them, best first, and the action by which a policy chose them."""
        ...


@dataclass(frozen=True)
class Keep:
    """The retriever's order."""

    roles: ClassVar[tuple[str, ...]] = ()

    async def choose(self, question: str, hits: Sequence[Hit], count: int) -> tuple[list[Hit], Action | None]:
        """The first."""
        return list(hits[:count]), None


@dataclass(frozen=True)
class Learned:
    """A policy chooses, one decision for all (`models.reranker`; arXiv 2503.08026)."""

    reranker: Actor

    roles: ClassVar[tuple[str, ...]] = ("reranker",)

    async def choose(self, question: str, hits: Sequence[Hit], count: int) -> tuple[list[Hit], Action | None]:
        """What it draws, in its order; nothing is asked where there is nothing to choose from."""
        if not hits:
            return [], None
        seen = Observation(question, options=tuple(hit.record.text for hit in hits), choose=count)
        action = await self.reranker.act(seen)
        return [hits[i] for i in action.choice], action
