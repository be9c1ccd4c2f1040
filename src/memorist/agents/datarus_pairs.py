"""Pairs of episodes of one question, of which one is better: what a reward model of notebooks learns from.

The better one is an expert's, the worse one an expert's of whose moves one is wrong. Both are played by the agent, in
its own prompts, so what is judged later has the same form.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from memorist.agents.datarus import DatarusSettings
from memorist.decision import Action, Observation
from memorist.errors import RecipeError, need_known
from memorist.tasks.notebook.episodes import NotebookData, NotebookTask
from memorist.tasks.notebook.experts import CORRUPTIONS, Corrupted, Expert, written
from memorist.tasks.notebook.ran import Ran

AT_ONCE = 32
"""Questions whose episodes are played side by side."""


@dataclass(frozen=True)
class Episode:
    """Messages, each with what was seen before it, and whether each is right."""

    messages: tuple[tuple[Observation, str], ...]
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Pair:
    """Two episodes of a question. kind: what is wrong with the worse one."""

    task: str
    better: Episode
    worse: Episode
    kind: str


@dataclass(frozen=True)
class NotebookPairsData(NotebookData):
    """Pairs about the tables of `NotebookData`, for stages of kind "reward". kinds: corruptions; empty for all. each:
    how many of them a question has at most, each beside the same better episode."""

    kind: str = "notebook-pairs"
    kinds: tuple[str, ...] = ()
    each: int = 1

    def check(self, where: str = "data") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist, or a number is too small.
        """
        super().check(where)
        for name in self.kinds:
            need_known(f"{where}.kinds", name, CORRUPTIONS)
        if self.each < 1:
            raise RecipeError(f"{where}.each is {self.each}; expected 1 or more")

    def pairs(self, agent: DatarusSettings, seed: int) -> list[Pair]:
        """Pairs as the agent would have played them.

        Raises:
            RecipeError: the agent answers at once, so that there are no steps of which one could be wrong.
        """
        if agent.mode == "reflection":
            raise RecipeError("pairs are of notebooks, and agent.mode is 'reflection'; expected 'agentic' or 'chosen'")
        return pairs(self.tasks(seed), agent, kinds=self.kinds or CORRUPTIONS, each=self.each)


class _Played:
    """Says what an expert does, and writes down what it saw."""

    def __init__(self, expert: Expert) -> None:
        self.expert = expert
        self.messages: list[tuple[Observation, str]] = []

    async def act(self, observation: Observation) -> Action:
        seen = [one.prompt for one, _ in observation.after][1:] + [observation.prompt] * bool(observation.after)
        told = [text.removeprefix("<observation>").partition("</observation>")[0] for text in seen]
        text = written(self.expert.next([Ran(one) for one in told]))
        self.messages.append((observation, text))
        return Action(text)


async def episode(task: NotebookTask, expert: Expert, settings: DatarusSettings) -> Episode:
    """What an expert does with a question."""
    played = _Played(expert)
    await settings.build(bank=task.bank.fork(), analyst=played).run(task)
    wrong = expert.step if isinstance(expert, Corrupted) else None
    return Episode(tuple(played.messages), tuple(number != wrong for number in range(len(played.messages))))


def pairs(
    tasks: Sequence[NotebookTask],
    settings: DatarusSettings,
    *,
    kinds: Sequence[str] = CORRUPTIONS,
    seed: int = 0,
    each: int = 1,
) -> list[Pair]:
    """Up to `each` pairs for each question that has a corruption of one of the kinds."""
    asked: list[tuple[NotebookTask, list[Corrupted]]] = []
    for task in tasks:
        order = list(kinds)
        random.Random(f"pairs/{task.id}/{seed}").shuffle(order)
        experts = (Corrupted(task, kind, seed=seed) for kind in order)
        asked.append((task, list(islice((expert for expert in experts if expert.step is not None), each))))

    async def beside(task: NotebookTask, worse: Sequence[Corrupted]) -> list[Pair]:
        better = await episode(task, Expert(task), settings)
        return [Pair(task.id, better, await episode(task, one, settings), one.kind) for one in worse]

    async def every() -> list[Pair]:
        found: list[Pair] = []
        some = [one for one in asked if one[1]]
        for begin in range(0, len(some), AT_ONCE):
            together = await asyncio.gather(*(beside(*one) for one in some[begin : begin + AT_ONCE]))
            found += [pair for own in together for pair in own]
        # An episode that a limit ended before its wrong move is no worse.
        return [pair for pair in found if False in pair.worse.right]

    return asyncio.run(every())
