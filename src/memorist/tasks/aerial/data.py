"""Questions about scenes as tasks of a recipe, and what an answer is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

from memorist.decision import Picture, Reward
from memorist.errors import RecipeError, need_known
from memorist.memory.bank import MemoryBank
from memorist.memory.scratch import ScratchBank
from memorist.models.pictures import read_picture
from memorist.tasks.aerial.questions import EIGHT, STAGES, Question, question
from memorist.tasks.aerial.rules import answer, correct, counted, form, whole
from memorist.tasks.aerial.scene import SIDE

SPLITS = {"train": 0, "validation": 10_000_000, "test": 20_000_000, "base": 30_000_000}
"""Where the seeds of each begin: no scene is of two splits."""
LARGEST = 2048


class Answered(Protocol):
    """What an agent's episode gives back."""

    @property
    def text(self) -> str:
        """All that it wrote."""
        ...


@dataclass(frozen=True)
class AerialTask:
    """A question about a picture. side: its pixels across and down."""

    id: str
    question: Question
    side: int = SIDE
    bank: MemoryBank = field(default_factory=ScratchBank, compare=False)

    cuts: ClassVar[tuple[str, ...]] = ()

    @property
    def asked(self) -> str:
        """The question."""
        return self.question.text

    @property
    def choices(self) -> tuple[str, ...]:
        """The answers that there are, where they are few."""
        return self.question.choices

    @cached_property
    def pictures(self) -> tuple[Picture, ...]:
        """What is seen, as everybody's pictures are read."""
        return (read_picture(self.question.scene.png(self.side)),)

    @property
    def size(self) -> int:
        """In which stage it is learnt."""
        return self.question.stage

    @property
    def annotation(self) -> str:
        """What one who sees it would write; empty where nobody wrote it down."""
        if not self.question.rationale:
            return ""
        return f"<think>{self.question.rationale}</think><answer>{self.question.answer}</answer>"

    def right(self, said: str | None) -> bool:
        """Whether it is the answer."""
        return correct(said, self.question.answer, self.question.kind)

    def score(self, outcome: Answered) -> tuple[Reward, ...]:
        """accuracy: whether the last answer is right. form: whether the text is one think and one answer pair. near:
        how near a count is (of other tasks, whether it is right). length: hundreds of characters, below 0. Recipes
        weigh them; the last two count nothing in the paper, as far as is known."""
        said, asked = answer(outcome.text), self.question
        right = float(self.right(said))
        return (
            Reward("accuracy", right),
            Reward("form", form(outcome.text)),
            Reward("near", counted(said, whole(asked.answer) or 0) if asked.kind == "int" else right),
            Reward("length", -len(outcome.text) / 100),
        )

    def measures(self, outcome: Answered) -> dict[str, float]:
        """What answers are judged by; `correct` by task too, so that an evaluation shows what is forgotten."""
        said = answer(outcome.text)
        right = float(self.right(said))
        return {
            "correct": right, f"correct-{self.question.task}": right, "format": form(outcome.text),
            "answered": float(said is not None),
        }  # fmt: skip

    def example(self, outcome: Answered) -> dict[str, Any]:
        """What is shown to people of an answer."""
        said = answer(outcome.text)
        return {"asked": self.asked, "gold": self.question.answer, "said": outcome.text, "right": self.right(said)}


@dataclass(frozen=True)
class AerialData:
    """Questions about scenes that no other split has.

    questions: how many. names: tasks, in turn; empty for the eight. stages: only tasks of these; empty for all. side:
    pixels of a picture across and down. unseen: whether things have colours and places that no other scene has.
    """

    kind: str = "aerial"
    split: str = "train"
    questions: int = 1000
    names: tuple[str, ...] = ()
    stages: tuple[int, ...] = ()
    side: int = SIDE
    unseen: bool = False

    exercise: ClassVar[str] = "pictures"

    def check(self, where: str = "data") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist, or a number is out of its range.
        """
        need_known(f"{where}.split", self.split, SPLITS)
        for name in self.names:
            need_known(f"{where}.names", name, STAGES)
        if self.questions < 1:
            raise RecipeError(f"{where}.questions is {self.questions}; expected 1 or more")
        if not SIDE <= self.side <= LARGEST:
            raise RecipeError(f"{where}.side is {self.side}; expected {SIDE} to {LARGEST} pixels")
        if not self._asked():
            raise RecipeError(
                f"{where}.stages is {list(self.stages)} and {where}.names {list(self.names) or 'all'}: no task is in "
                f"both; expected stages of {', '.join(f'{name} ({stage})' for name, stage in STAGES.items())}"
            )

    def tasks(self, seed: int) -> list[AerialTask]:
        """The questions; `seed`, the run's, changes nothing of them."""
        names = self._asked()
        return [self._task(names[number % len(names)], number) for number in range(self.questions)]

    def _task(self, name: str, number: int) -> AerialTask:
        made = question(name, SPLITS[self.split] + number, unseen=self.unseen)
        return AerialTask(f"{self.split}-{number}-{name}{'-unseen' if self.unseen else ''}", made, self.side)

    def _asked(self) -> Sequence[str]:
        return [name for name in self.names or EIGHT if not self.stages or STAGES[name] in self.stages]
