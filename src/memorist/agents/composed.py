"""An agent that a recipe puts together: extractor, updater, retriever, reranker, answerer, each by its name.

    agent: {name: composed, extractor: statements, updater: manager, retriever: nearest, reranker: keep, answerer:
    distilling}

Which models it needs follows from its parts: a manager needs the role "manager", a learned reranker "reranker". All
parts are in the catalogue (`memorist components`), where installed packages can add theirs.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from memorist.agents.components.answerers import Answerer
from memorist.agents.components.answers import Answer
from memorist.agents.components.extractors import PerMessage, SessionExtractor
from memorist.agents.components.prompts import STYLES
from memorist.agents.components.rerankers import Reranker
from memorist.agents.components.retrievers import Retriever
from memorist.agents.components.updaters import Updater
from memorist.agents.memory_r1 import DialogueExercise
from memorist.catalogue import find
from memorist.conversation import Message
from memorist.decision import Action
from memorist.errors import RecipeError, need_known
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Code, Operation, Result, Scope

PARTS = ("extractor", "updater", "retriever", "reranker", "answerer")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. choices: for each question the action by which a policy chose the memories that were shown,
    None where none did; the rest as Memory-R1's."""

    results: tuple[tuple[Result, ...], ...] = ()
    answers: tuple[Answer, ...] = ()
    commits: tuple[int, ...] = ()
    choices: tuple[Action | None, ...] = ()


class Composed:
    """The agent. It is handed its bank and its parts and does not know whether it is being trained.

    Args:
        bank: where memories live.
        extractor, updater, retriever, reranker, answerer: its parts.
        found: memories of each scope that the retriever finds.
        shown: of these, how many the reranker leaves.
    """

    def __init__(
        self, *, bank: MemoryBank, extractor: SessionExtractor, updater: Updater, retriever: Retriever,
        reranker: Reranker, answerer: Answerer, found: int = 20, shown: int = 5,
    ) -> None:  # fmt: skip
        self.bank, self.extractor, self.updater = bank, extractor, updater
        self.retriever, self.reranker, self.answerer = retriever, reranker, answerer
        self.found, self.shown = found, shown

    async def observe(
        self, messages: Iterable[Message], scope: Scope | None = None
    ) -> AsyncIterator[tuple[Result, ...]]:
        """Read in order; yield the results of each write. Default scope: the speaker's."""
        for part in self._parts(messages):
            facts = await self.extractor.read(part)
            if facts is None:
                yield (Result(Operation("", part[0].shown, reason="the reply is no list of facts"), Code.MALFORMED),)
                continue
            for speaker, theirs in groupby(facts, key=lambda fact: fact.speaker):
                for results in await self.updater.write(list(theirs), self.bank, scope or Scope(speaker)):
                    yield results

    def _parts(self, messages: Iterable[Message]) -> Iterator[list[Message]]:
        """What is read in one go: a message, or all that was said at one time."""
        if getattr(self.extractor, "whole", False):
            yield from (list(session) for _, session in groupby(messages, key=lambda message: message.time))
        else:
            yield from ([message] for message in messages)

    async def answer(self, question: str, scopes: Sequence[Scope]) -> Answer:
        """Answer from the memories of all scopes."""
        return (await self._answer(question, scopes))[0]

    async def _answer(self, question: str, scopes: Sequence[Scope]) -> tuple[Answer, Action | None]:
        found = self.retriever.find(self.bank, question, scopes, self.found)
        shown, action = await self.reranker.choose(question, found, self.shown)
        return await self.answerer.reply(question, shown), action

    async def run(self, task: DialogueExercise) -> Outcome:
        """Observe what is said, then answer what is asked."""
        results: list[tuple[Result, ...]] = []
        commits: list[int] = []
        for part in self._parts(task.messages):
            commits += [self.bank.commit] * len(part)
            results += [result async for result in self.observe(part)]
        scopes = [Scope(name) for name in task.speakers]
        replied = await asyncio.gather(*(self._answer(question.text, scopes) for question in task.questions))
        answers, choices = tuple(a for a, _ in replied), tuple(c for _, c in replied)
        return Outcome(tuple(results), answers, tuple(commits), choices)


@dataclass(frozen=True)
class ComposedSettings:
    """How recipes set it.

    extractor, updater, retriever, reranker, answerer: names of the catalogue. style: "compact" or "full" prompts, of
    parts that have both. related: memories that a new fact is compared with. found: memories of each scope that the
    retriever finds. shown: of these, how many are answered from. reply: tokens of a reply at most (0: as each part
    has it).
    """

    name: str = "composed"
    extractor: str = "statements"
    updater: str = "add"
    retriever: str = "nearest"
    reranker: str = "keep"
    answerer: str = "distilling"
    style: str = "full"
    related: int = 5
    found: int = 20
    shown: int = 5
    reply: int = 0

    exercise: ClassVar[str] = "dialogue"

    @property
    def roles(self) -> tuple[str, ...]:
        """Of its parts."""
        return tuple(dict.fromkeys(role for part in PARTS for role in getattr(self._part(part), "roles", ())))

    def _part(self, part: str, place: str = "agent") -> Any:
        return find(f"{part}s", getattr(self, part), f"{place}.{part}")

    def check(self, where: str = "agent") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a part does not exist, or a number is impossible.
        """
        for part in PARTS:
            self._part(part, where)
        need_known(f"{where}.style", self.style, STYLES)
        for name in ("related", "found", "shown"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{where}.{name} is {getattr(self, name)}; expected 1 or more")
        if self.shown > self.found and self.reranker != "keep":
            raise RecipeError(f"{where}.shown is {self.shown}, of found {self.found}; expected no more than are found")

    def build(self, *, bank: MemoryBank, **actors: Any) -> Composed:
        """The agent around `bank` and an actor for each role of its parts."""
        given: dict[str, Any] = {"style": self.style, "k": self.related}
        if self.reply:
            given["reply_tokens"] = self.reply

        def make(part: str) -> Any:
            kind = self._part(part)
            if not inspect.isclass(kind):
                return PerMessage(kind)
            wanted = inspect.signature(kind).parameters
            return kind(**{name: value for name, value in (given | actors).items() if name in wanted})

        made = {part: make(part) for part in PARTS}
        return Composed(bank=bank, found=self.found, shown=self.shown, **made)
