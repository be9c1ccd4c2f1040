"""Memory-R1: a Memory Manager and an Answer Agent around a textual memory bank.

Algorithms 3 and 4 of arXiv 2508.19828. Where the paper is silent or contradicts itself we choose:

- related memories: the union of the `k` = 5 nearest per fact (the paper gives no k);
- UPDATE replaces one record and keeps the old text in its history, DELETE removes one record, unmentioned
  entries stay (the printed set algebra would remove all that was retrieved);
- records live in the scope of the person who spoke; a record's date is the session's, and an UPDATE renews it;
- candidates of all speakers are shown in one list, the nearest first.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol

from memorist.agents.components.answers import Answer
from memorist.agents.components.extractors import Extractor, by_model, statements
from memorist.agents.components.prompts import STYLES
from memorist.agents.components.updaters import UNDATED, manage, related
from memorist.catalogue import find
from memorist.conversation import Message
from memorist.errors import RecipeError, need_known
from memorist.memory.bank import Hit, MemoryBank
from memorist.memory.record import Code, Operation, Result, Scope
from memorist.models.sampler import Actor


class Asked(Protocol):
    """A question as a task holds it."""

    @property
    def text(self) -> str:
        """The question."""
        ...


class DialogueExercise(Protocol):
    """What `run` needs of a task: what is said, who speaks, what is asked afterwards."""

    @property
    def messages(self) -> Sequence[Message]:
        """Turns to observe."""
        ...

    @property
    def speakers(self) -> Sequence[str]:
        """Whose memories answer."""
        ...

    @property
    def questions(self) -> Sequence[Asked]:
        """Questions, asked side by side, each on its own."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: operation results per Manager call, the answers, and the bank's commit before each
    message."""

    results: tuple[tuple[Result, ...], ...] = ()
    answers: tuple[Answer, ...] = ()
    commits: tuple[int, ...] = ()


class MemoryR1:
    """The agent. It is handed its bank and its models and does not know whether it is being trained.

    Args:
        bank: where memories live.
        manager: decides operations.
        answerer: answers from candidates.
        extract: from a message to facts.
        style: "compact" or "full" prompts.
        k: related memories per fact.
        candidates: memories per speaker that the Answer Agent sees (paper: 30, so 60 for two).
    """

    roles = ("manager", "answerer")

    def __init__(
        self,
        *,
        bank: MemoryBank,
        manager: Actor,
        answerer: Actor,
        extract: Extractor = statements,
        style: str = "full",
        k: int = 5,
        candidates: int = 30,
    ) -> None:
        self.bank, self.manager, self.answerer = bank, manager, answerer
        self.extract, self.prompts = extract, STYLES[style]
        self.k, self.candidates = k, candidates

    @property
    def neutral(self) -> Mapping[str, str]:
        """By role, an action that changes nothing; what a decision was worth is priced against it."""
        return {"manager": self.prompts.nothing}

    async def observe(
        self, messages: Iterable[Message], scope: Scope | None = None
    ) -> AsyncIterator[tuple[Result, ...]]:
        """Read messages in order; yield the results of each Manager call. Default scope: the speaker's."""
        for message in messages:
            facts = await self.extract(message)
            if facts is None:
                yield (Result(Operation("", message.shown, reason="the reply is no list of facts"), Code.MALFORMED),)
                continue
            step = self.prompts.facts_per_call or max(1, len(facts))
            for start in range(0, len(facts), step):
                yield await self._manage(facts[start : start + step], message, scope or Scope(message.speaker))

    async def _manage(self, facts: Sequence[str], message: Message, scope: Scope) -> tuple[Result, ...]:
        at, source = message.time or UNDATED, (message.id,) if message.id else ()
        hits = self.related(facts, scope, at)
        return await manage(self.manager, self.prompts, facts, hits, self.bank, scope, at, source)

    def related(self, facts: Sequence[str], scope: Scope, at: datetime) -> list[Hit]:
        """The union of the `k` nearest memories of each fact, save what has expired `at` a time; nearest first."""
        return related(self.bank, facts, scope, at, self.k)

    async def answer(self, question: str, scopes: Sequence[Scope]) -> Answer:
        """Answer from the nearest memories of each scope."""
        hits = [hit for scope in scopes for hit in self.bank.search(question, scope, k=self.candidates)]
        hits.sort(key=lambda hit: -hit.score)
        return await self.answer_from(question, hits)

    async def answer_from(self, question: str, hits: Sequence[Hit]) -> Answer:
        """Answer from given memories."""
        reply = await self.answerer.act(self.prompts.answer(question, hits))
        return self.prompts.read_answer(reply.text, [hit.record for hit in hits])

    async def run(self, task: DialogueExercise) -> Outcome:
        """Observe what is said, then answer what is asked."""
        results, commits = [], []
        for message in task.messages:
            commits.append(self.bank.commit)
            results += [result async for result in self.observe([message])]
        scopes = [Scope(name) for name in task.speakers]
        answers = await asyncio.gather(*(self.answer(question.text, scopes) for question in task.questions))
        return Outcome(tuple(results), tuple(answers), tuple(commits))


@dataclass(frozen=True)
class MemoryR1Settings:
    """How recipes set it: for the bundled base, which reads short prompts.

    style: "compact" or "full" prompts. k: related memories per fact. candidates: memories per speaker that are
    answered from. extract: "statements" (shipped with the data) or "sentences".
    """

    name: str = "memory-r1"
    style: str = "compact"
    k: int = 5
    candidates: int = 4
    extract: str = "statements"

    roles: ClassVar[tuple[str, ...]] = MemoryR1.roles
    exercise: ClassVar[str] = "dialogue"

    def check(self, where: str = "agent") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist.
        """
        need_known(f"{where}.style", self.style, STYLES)
        if inspect.isclass(find("extractors", self.extract, f"{where}.extract")):
            raise RecipeError(
                f"{where}.extract is {self.extract!r}, which reads whole sessions or asks a model; expected "
                "statements, sentences or turns, or agent.name: composed"
            )

    def build(self, **given: Any) -> MemoryR1:
        """The agent around `bank`, `manager` and `answerer`."""
        extract = find("extractors", self.extract, "agent.extract")
        return MemoryR1(**given, extract=extract, style=self.style, k=self.k, candidates=self.candidates)

    def reply_forms(self) -> dict[str, Callable[[str], bool]]:
        """By role, whether a reply can be read: what must survive when its model is made smaller."""
        prompts = STYLES[self.style]
        return {
            "manager": lambda reply: prompts.read_operations(reply, (), ("",)).well_formed,
            "answerer": lambda reply: prompts.read_answer(reply, ()).well_formed,
        }


def by_one_model(actor: Actor) -> Callable[[MemoryBank], MemoryR1]:
    """Memory-R1 with an instruct model in every role: it extracts facts, decides operations and answers."""

    def build(bank: MemoryBank) -> MemoryR1:
        return MemoryR1(bank=bank, manager=actor, answerer=actor, extract=by_model(actor), style="full")

    return build
