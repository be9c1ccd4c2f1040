"""Questions about tables as tasks of a notebook, and what an episode is worth."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Protocol

from memorist.decision import Reward
from memorist.errors import RecipeError, need_known
from memorist.memory.bank import MemoryBank
from memorist.memory.scratch import ScratchBank
from memorist.tasks.notebook.ran import Ran
from memorist.tasks.notebook.skills import BY_HAND, NAMES, Question, correct, question
from memorist.tasks.notebook.steps import CHOSEN, MODES, Part, structure
from memorist.tasks.notebook.tables import DEFECTS, LEAST, MOST, SMALL, Table, table

ASKED = (*MODES, CHOSEN)
"""Modes that a question can ask for."""
SPLITS = {"train": 0, "validation": 10_000_000, "test": 20_000_000, "base": 30_000_000}
"""Where the seeds of each begin."""
MOST_DEFECTS = 2
NEEDED = {"filled": "missing", "outlier": "outlier"}
"""Skills that only tables with some defect have questions of."""
OFTEN = {"missing": "missing", "twice": "duplicate"}
"""Skills of which half of the tables have a defect, or most answers would be 0."""


class EpisodeOutcome(Protocol):
    """What an agent's episode gives back."""

    @property
    def parts(self) -> Sequence[Part]:
        """All that was written, and by whom."""
        ...

    @property
    def mode(self) -> str:
        """In which of the modes it was answered."""
        ...

    @property
    def cells(self) -> Sequence[tuple[str, Ran]]:
        """What was run, and what it gave."""
        ...

    @property
    def answer(self) -> str | None:
        """What it answered; None where it did not."""
        ...


@dataclass(frozen=True)
class NotebookTask:
    """A question about a table. skill: which kind it is. defects: what is wrong with the table. mode: in which it is to
    be answered; empty where the agent says."""

    id: str
    question: Question
    table: Table
    skill: str
    defects: tuple[str, ...] = ()
    mode: str = ""
    bank: MemoryBank = field(default_factory=ScratchBank, compare=False)

    cuts: ClassVar[tuple[str, ...]] = ()

    @property
    def files(self) -> dict[str, str]:
        """What lies beside the notebook."""
        return {self.table.domain.file: self.table.written()}

    @property
    def asked(self) -> str:
        """The question."""
        return self.question.text

    @property
    def shown(self) -> str:
        """The table, or where it is not small its first rows."""
        return self.table.preview()

    @property
    def whole(self) -> bool:
        """Whether all of the table is shown."""
        return self.table.small

    @property
    def size(self) -> int:
        """How much is wrong with the table."""
        return len(self.defects)

    def right(self, answer: str | None) -> bool:
        """Whether it is the answer."""
        return correct(answer, self.question.gold, self.question.kind)

    def score(self, outcome: EpisodeOutcome) -> tuple[Reward, ...]:
        """structure: how well formed the episode is (section 4.2). verified: whether the answer is right. errors: share
        of the cells that failed, below 0; cells: how many there were, below 0; thinking: thousands of characters of
        an answer at once, below 0. Recipes weigh them; the last three count nothing in the paper."""
        count = len(outcome.cells)
        failed = sum(not ran.good for _, ran in outcome.cells)
        at_once = outcome.mode == "reflection"
        return (
            Reward("structure", structure(outcome.parts, mode=outcome.mode)),
            Reward("verified", float(self.right(outcome.answer))),
            Reward("errors", -failed / count if count else 0.0),
            Reward("cells", -float(count)),
            Reward("thinking", -sum(len(part.text) for part in outcome.parts if part.by_policy and at_once) / 1000),
        )

    def measures(self, outcome: EpisodeOutcome) -> dict[str, float]:
        """What episodes are judged by."""
        failed = sum(not ran.good for _, ran in outcome.cells)
        return {
            "correct": float(self.right(outcome.answer)),
            "format": float(structure(outcome.parts, mode=outcome.mode) == 1.0),
            "answered": float(outcome.answer is not None),
            "cells": float(len(outcome.cells)),
            "failed_cells": float(failed),
            "reflected": float(outcome.mode == "reflection"),
        }


@dataclass(frozen=True)
class NotebookData:
    """Questions about tables that no other split has.

    questions: how many. skills: which kinds, in turn; empty for all that tables with these defects have. defects: which
    tables may have, up to two of a table; empty for all. by_hand: share of the questions that are about tables so small
    that they are shown whole, and can be answered without running anything. modes: in which questions are to be
    answered, drawn; empty where the agent says. Reflection is asked for where a question can be answered by hand, and
    another of the modes elsewhere.
    """

    kind: str = "notebook"
    split: str = "train"
    questions: int = 1000
    skills: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    by_hand: float = 0.0
    modes: tuple[str, ...] = ()

    exercise: ClassVar[str] = "notebook"

    def check(self, where: str = "data") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist, or a number is too small.
        """
        need_known(f"{where}.split", self.split, SPLITS)
        for name in self.skills:
            need_known(f"{where}.skills", name, NAMES)
        for name in self.defects:
            need_known(f"{where}.defects", name, DEFECTS)
        for name in self.skills:
            if self.defects and NEEDED.get(name, self.defects[0]) not in self.defects:
                raise RecipeError(
                    f"{where}.defects lacks {NEEDED[name]!r}, without which there is no question of {name!r}"
                )
        for name in self.modes:
            need_known(f"{where}.modes", name, ASKED)
        if not 0 <= self.by_hand <= 1:
            raise RecipeError(f"{where}.by_hand is {self.by_hand:g}; expected a share from 0 to 1")
        if self.by_hand and self.skills and not set(self.skills) & set(BY_HAND):
            raise RecipeError(
                f"{where}.by_hand is {self.by_hand:g}, and none of {where}.skills can be done by hand; expected one of "
                f"{', '.join(BY_HAND)} among them"
            )
        if self.by_hand < 1 and set(self.modes) == {"reflection"}:
            raise RecipeError(
                f"{where}.modes is reflection alone, and {where}.by_hand is {self.by_hand:g}: the other questions "
                "cannot be answered without running anything; expected by_hand: 1, or another mode beside it"
            )
        if self.questions < 1:
            raise RecipeError(f"{where}.questions is {self.questions}; expected 1 or more")

    def tasks(self, seed: int) -> list[NotebookTask]:
        """The questions; `seed`, the run's, changes nothing of them."""
        defects = self.defects or DEFECTS
        skills = self.skills or [name for name in NAMES if NEEDED.get(name, defects[0]) in defects]
        return [self._task(number, skills, defects) for number in range(self.questions)]

    def _task(self, number: int, skills: Sequence[str], defects: tuple[str, ...]) -> NotebookTask:
        # Skills come in turn; what they are asked about, and how, must not go with the turn.
        drawn = random.Random(f"by hand/{self.split}/{number}")
        small = drawn.random() < self.by_hand
        names = [name for name in BY_HAND if name in skills] if small else skills
        modes = [name for name in self.modes if small or name != "reflection"]
        mode = drawn.choice(modes) if modes else ""
        return task(self.split, number, names[number % len(names)], tuple(defects), small, mode)


@lru_cache(8192)
def task(
    split: str, number: int, skill: str, defects: tuple[str, ...] = DEFECTS, small: bool = False, mode: str = ""
) -> NotebookTask:
    """A question of a skill: the first table, from its number on, about which there is one that is clear."""
    attempt = 0
    while True:
        seed = (SPLITS[split] + number) * 100 + attempt
        rng = random.Random(f"notebook/{seed}")
        wrong = rng.sample(defects, rng.randint(0, min(MOST_DEFECTS, len(defects))))
        needed = NEEDED.get(skill) or (OFTEN.get(skill) if OFTEN.get(skill) in defects and rng.random() < 0.6 else None)
        if needed and needed not in wrong:
            wrong = [needed, *wrong[:1]]
        made = table(seed, wrong, SMALL if small else (LEAST, MOST))
        asked = question(skill, made, seed)
        if asked is not None:
            return NotebookTask(f"{split}-{number}-{skill}", asked, made, skill, tuple(wrong), mode)
        attempt += 1
