"""Dialogues as tasks: observe what is said, answer what is asked, be scored on the answers.

One task type serves all of Memory-R1's exercises: a whole dialogue from an empty bank (reading B of the paper's
credit), one turn from a given bank (reading A), one question over a finished bank (the Answer Agent's).
`DialogueTask.cut` makes the small ones from a run of the whole one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar, Protocol

from memorist.catalogue import find
from memorist.conversation import Message
from memorist.decision import Decision, Reward
from memorist.errors import RecipeError
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Operation, Result, Scope
from memorist.memory.scratch import ScratchBank
from memorist.tasks.locomo import Dialogue, Question, find_file, load
from memorist.tasks.rewards import Term
from memorist.tasks.world import dialogues

UNDATED = datetime(1970, 1, 1)
TRAINED_CATEGORIES = (1, 2, 3, 4)
"""Category 5 (unanswerable) carries no exact-match reward, as in the paper."""


class Answered(Protocol):
    """An answer as the score needs it."""

    @property
    def text(self) -> str:
        """What was answered."""
        ...


class DialogueOutcome(Protocol):
    """What a dialogue agent's run gives back."""

    @property
    def results(self) -> Sequence[Sequence[Result]]:
        """Results of each Manager call."""
        ...

    @property
    def answers(self) -> Sequence[Answered]:
        """One answer per question."""
        ...

    @property
    def commits(self) -> Sequence[int]:
        """The bank's commit before each message."""
        ...


@dataclass(frozen=True)
class DialogueTask:
    """Messages to observe from a starting bank, then questions.

    `bank` is never written: each run forks it. `rewards` are names of the catalogue.
    """

    id: str
    speakers: tuple[str, ...]
    messages: tuple[Message, ...]
    questions: tuple[Question, ...]
    bank: MemoryBank = field(default_factory=ScratchBank, compare=False)
    rewards: tuple[str, ...] = ("exact_match",)

    cuts: ClassVar[tuple[str, ...]] = ("turns", "questions")
    """Ways to make smaller tasks of it, beside "whole"."""

    @classmethod
    def of(cls, dialogue: Dialogue, *, categories: Sequence[int] = TRAINED_CATEGORIES) -> DialogueTask:
        """The whole dialogue, from an empty bank."""
        questions = tuple(q for q in dialogue.questions if q.category in categories)
        talk = dialogue.conversation
        return cls(talk.id, talk.speakers, tuple(talk.messages()), questions)

    def without_questions(self) -> DialogueTask:
        """The same dialogue with nothing asked: to build its bank."""
        return replace(self, questions=())

    def score(self, outcome: DialogueOutcome) -> tuple[Reward, ...]:
        """The terms on the whole run. The default, exact match, is the mean of the answers times the share of Manager
        replies that could be read (paper eqs. 4, 7; a malformed reply to a single turn earns 0)."""
        return tuple(reward for term in self._terms() for reward in term(self, outcome, ()))

    def placed(self, outcome: DialogueOutcome, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
        """The terms on single decisions."""
        found = (reward for term in self._terms() for reward in term(self, outcome, decisions))
        return tuple(reward for reward in found if reward.decision is not None)

    def _terms(self) -> list[Term]:
        return [find("rewards", name, "data.rewards") for name in self.rewards]

    def cut(self, how: str, outcome: DialogueOutcome, bank: MemoryBank, *, questions: int = 4) -> list[DialogueTask]:
        """Smaller tasks from a run of this one.

        Args:
            how: "turns": each turn with facts, from the bank as this run had it, with the questions that are
                settled by then; "questions": each question over the run's final bank; "whole": this task.
            outcome: what the run gave.
            bank: the bank that the run wrote.
            questions: how many a turn is asked at most, the most affected first.
        """
        if how == "whole":
            return [self]
        if how == "questions":
            final = bank.fork()
            return [
                replace(self, id=f"{self.id}/q{i}", messages=(), questions=(question,), bank=final)
                for i, question in enumerate(self.questions)
            ]
        if how != "turns":
            raise RecipeError(f"cut is {how!r}; expected one of whole, {', '.join(self.cuts)}")
        tasks = []
        order = {message.id: i for i, message in enumerate(self.messages)}
        for i, message in enumerate(self.messages):
            asked = self._settled(i, message, order, bank)[:questions] if message.statements else []
            if asked:
                start = bank.fork(outcome.commits[i])
                tasks.append(
                    replace(self, id=f"{self.id}/{message.id}", messages=(message,), questions=tuple(asked), bank=start)
                )
        return tasks

    def _settled(self, at: int, message: Message, order: Mapping[str, int], bank: MemoryBank) -> list[Question]:
        """Questions whose last evidence has been said by turn `at`: first those that this turn settles, then the
        nearest to what it says. A turn can spoil an old answer, so later turns are asked old questions too."""
        last = {q: max((order[e] for e in q.evidence if e in order), default=None) for q in self.questions}
        settled = [q for q in self.questions if (end := last[q]) is not None and end <= at]
        if not settled:
            return []
        vectors = bank.embedder.embed([" ".join(message.statements), *(q.text for q in settled)])
        near = vectors[1:] @ vectors[0]
        rank = sorted(range(len(settled)), key=lambda i: (last[settled[i]] != at, -float(near[i]), i))
        return [settled[i] for i in rank]


def told(dialogue: Dialogue, bank: MemoryBank, rewards: tuple[str, ...]) -> list[DialogueTask]:
    """The dialogue's turns as memories of one bank, and each question whose evidence is among them as a task over
    it."""
    talk = dialogue.conversation
    for turn in talk.messages():
        added = Operation("ADD", f"{turn.speaker}: {turn.shown}", source=(turn.id,))
        bank.apply([added], Scope(talk.id), at=turn.time or UNDATED)
    return [
        DialogueTask(f"{talk.id}/q{i}", (talk.id,), (), (question,), bank, rewards)
        for i, question in enumerate(dialogue.questions)
        if question.category in TRAINED_CATEGORIES and question.evidence
    ]


@dataclass(frozen=True)
class DialogueData:
    """Which dialogues: a LoCoMo file, or the synthetic world.

    questions: at most so many training questions in all (0: no limit). conversations: only those with these ids
    (none: all).
    rewards: terms, by their names in the catalogue. bank: which bank runs start from, by its name there. told:
    whether its
    turns stand in the bank from the beginning, each a memory, and each question with evidence is a task of its own: for
    what learns to find and not to write.
    """

    kind: str = "dialogues"
    file: str = ""
    split: str = "train"
    dialogues: int = 400
    seed: int = 0
    difficulty: str = "easy"
    grammar: str = "a"
    questions: int = 0
    conversations: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ("exact_match",)
    bank: str = "hashed"
    told: bool = False

    exercise: ClassVar[str] = "dialogue"

    def check(self, where: str = "data") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: there would be no dialogue.
        """
        if self.dialogues < 1:
            raise RecipeError(f"{where}.dialogues is {self.dialogues}; expected 1 or more")
        if not self.rewards:
            raise RecipeError(f"{where}.rewards is empty; expected at least one, e.g. exact_match")
        for i, name in enumerate(self.rewards):
            find("rewards", name, f"{where}.rewards[{i}]")
        find("banks", self.bank, f"{where}.bank")

    def read(self) -> list[Dialogue]:
        """The dialogues."""
        if self.file:
            known = load(find_file(self.file))
            missing = set(self.conversations) - {dialogue.id for dialogue in known}
            if missing:
                raise RecipeError(f"data.conversations: {self.file} has no {', '.join(sorted(missing))}")
            return [d for d in known if not self.conversations or d.id in self.conversations]
        return dialogues(self.split, self.dialogues, seed=self.seed, difficulty=self.difficulty, grammar=self.grammar)

    def tasks(self, seed: int) -> list[DialogueTask]:
        """Whole dialogues with at most `questions` questions in all; those of the last one are drawn."""
        bank = find("banks", self.bank, "data.bank")
        if self.told:
            return [task for dialogue in self.read() for task in told(dialogue, bank(), self.rewards)]
        tasks = [replace(DialogueTask.of(d), bank=bank(), rewards=self.rewards) for d in self.read()]
        if not self.questions:
            return tasks
        rng = random.Random(seed)
        kept, room = [], self.questions
        for task in tasks:
            if not room:
                break
            questions = task.questions if len(task.questions) <= room else tuple(rng.sample(task.questions, room))
            kept.append(replace(task, questions=questions))
            room -= len(questions)
        return kept
