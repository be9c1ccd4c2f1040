"""From a question and memories to an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from memorist.agents.components.answers import Answer
from memorist.agents.components.prompts import STYLES
from memorist.memory.bank import Hit
from memorist.models.sampler import Actor


class Answerer(Protocol):
    """Answers from memories."""

    async def reply(self, question: str, hits: Sequence[Hit]) -> Answer:
        """The answer, with the memories that it rests on."""
        ...


@dataclass(frozen=True)
class Distilling:
    """Memory-R1's Answer Agent names the memories that it uses, then answers (arXiv 2508.19828).

    Args:
        answerer: the model.
        style: "compact" or "full" prompts.
    """

    answerer: Actor
    style: str = "full"

    roles: ClassVar[tuple[str, ...]] = ("answerer",)

    async def reply(self, question: str, hits: Sequence[Hit]) -> Answer:
        """The answer."""
        prompts = STYLES[self.style]
        reply = await self.answerer.act(prompts.answer(question, hits))
        return prompts.read_answer(reply.text, [hit.record for hit in hits])


@dataclass(frozen=True)
class Silent:
    """Shows what was found and says nothing: where only finding is learnt or measured."""

    roles: ClassVar[tuple[str, ...]] = ()

    async def reply(self, question: str, hits: Sequence[Hit]) -> Answer:
        """No text."""
        return Answer("", candidates=tuple(hit.record for hit in hits))
