"""Who answers questions about tables by what is written down: an expert that knows the code, and one that errs, whom a
base imitates. Some mistakes are seen and put right (a column that is not there, text where numbers were expected),
others give a wrong answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from memorist.tasks.notebook.episodes import NotebookTask
from memorist.tasks.notebook.ran import Ran
from memorist.tasks.notebook.steps import CHOSEN, render_action, render_reflection, render_stop, untagged

WRONG = {
    ".mean()": ".median()",
    ".median()": ".mean()",
    ".std()": ".std(ddof=0)",
    ".idxmax()": ".idxmin()",
    ".sum()": ".count()",
    " > ": " < ",
    ".corr(": ".cov(",
    "isna": "notna",
}
"""What is done in place of what is right, by an expert that errs."""
CLEANING = "I clean it first."
OF_NUMBERS = ("mean", "median", "std", "count")
"""Skills whose code raises where numbers are written as text."""


@dataclass(frozen=True, slots=True)
class Move:
    """What to do next: run a cell, or (where `answer` is given) end with an answer, or (`at_once`) begin with it."""

    thought: str
    code: str = ""
    answer: str | None = None
    at_once: bool = False


def written(move: Move) -> str:
    """A move as a message."""
    if move.answer is not None and move.at_once:
        return render_reflection(untagged(move.thought), untagged(move.answer))
    if move.answer is not None:
        return render_stop(move.thought, untagged(move.answer))
    return render_action(move.thought, move.code)


class Expert:
    """Loads, cleans, computes, answers. What can be answered by hand it answers at once where that is asked for, and in
    half of the cases where it may choose.

    Args:
        errs: how likely it computes something else, or by hand miscounts; both may give a wrong answer.
        leaves: how likely it leaves out a line of cleaning, which may too.
        slips: how likely it makes a mistake that it sees and puts right: it names a column that is not there, or takes
            text for numbers.
        doubts: by hand, how likely it looks a second time, by which it sees whether it miscounted.
        seed: of its mistakes.
    """

    def __init__(
        self, task: NotebookTask, *, errs: float = 0.0, leaves: float = 0.0, slips: float = 0.0, doubts: float = 0.0,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.task, self.rng = task, random.Random(f"expert/{task.id}/{seed}")
        by_hand = task.whole and task.question.by_hand and task.mode in ("reflection", CHOSEN)
        if by_hand and (task.mode == "reflection" or self.rng.random() < 0.5):
            self.moves = [self._reflected(errs, doubts)]
        else:
            self.moves = self._planned(errs, leaves, slips)

    def next(self, seen: Sequence[Ran]) -> Move:
        """The next move, after what its cells gave so far."""
        if len(seen) < len(self.moves):
            return self.moves[len(seen)]
        lines = seen[-1].told().strip().splitlines()
        return Move("The result is there.", answer=lines[-1] if lines else "")

    def _reflected(self, errs: float, doubts: float) -> Move:
        asked = self.task.question
        said = asked.gold
        if self.rng.random() < errs:
            said = str(max(0, int(said) + self.rng.choice((-1, 1))))
        thought = f"{asked.by_hand}. So {said}."
        if self.rng.random() < doubts:
            said = asked.gold
            thought = f"{thought} Again: {asked.by_hand}. So {said}."
        return Move(thought, answer=said, at_once=True)

    def _planned(self, errs: float, leaves: float, slips: float) -> list[Move]:
        asked, file = self.task.question, self.task.table.domain.file
        load = f"import pandas as pd\nd = pd.read_csv({file!r})\nprint(d.dtypes)"
        moves = [Move("I load the table and look at it.", load)]
        lines = list(asked.cleaned)
        if lines and self.rng.random() < leaves:
            lines.remove(self.rng.choice(lines))
        code = asked.code
        if self.rng.random() < errs:
            found = [part for part in WRONG if part in code]
            if found:
                part = self.rng.choice(found)
                code = code.replace(part, WRONG[part])
        text = [line for line in lines if ".str.replace" in line]
        if text and self.task.skill in OF_NUMBERS and self.rng.random() < slips:
            moves.append(Move("I compute it.", code))
            moves.append(Move("These are texts; I make numbers of them.", "print(d.dtypes)"))
        elif asked.column and self.rng.random() < slips:
            moves.append(Move("I compute it.", code.replace(repr(asked.column), repr(f"{asked.column}s"))))
            moves.append(Move("That column is not there; I take the right one.", "print(list(d.columns))"))
        if lines:
            moves.append(Move(CLEANING, "\n".join(lines)))
        moves.append(Move("I compute it.", code))
        return moves


CORRUPTIONS = ("aggregate", "column", "filter", "claim", "uncleaned", "repeated")
VISIBLE = ("aggregate", "column", "filter", "claim")
"""Corruptions that can be seen where they are, from the question and what was observed."""


class Corrupted(Expert):
    """An expert of whose moves one is wrong (section 4.3 of the specification): what a reward model learns to tell.

    step: the number of the wrong move, the answer's being the last; None where the question has no such corruption.
    """

    def __init__(self, task: NotebookTask, kind: str, *, seed: int = 0) -> None:
        super().__init__(task, seed=seed)
        self.kind, self.step = kind, self._corrupt(kind)

    def next(self, seen: Sequence[Ran]) -> Move:
        """The next move, after what its cells gave so far."""
        move = super().next(seen)
        if self.kind == "claim" and move.answer is not None:
            return replace(move, answer=self._otherwise(move.answer))
        return move

    def _corrupt(self, kind: str) -> int | None:
        if self.moves[0].at_once:
            return 0 if kind == "claim" else None
        last = len(self.moves) - 1
        if kind == "claim":
            return last + 1
        if kind == "repeated":
            self.moves.insert(1, self.moves[0])
            return 1
        if kind == "uncleaned":
            cleaning = [number for number, move in enumerate(self.moves) if move.thought == CLEANING]
            if not cleaning:
                return None
            self.moves.pop(cleaning[0])
            return cleaning[0]
        code = self._wrong(kind, self.moves[last].code)
        if code is None:
            return None
        self.moves[last] = replace(self.moves[last], code=code)
        return last

    def _wrong(self, kind: str, code: str) -> str | None:
        """The code of the last cell with what is wrong; None where nothing of the kind is in it."""
        domain, column = self.task.table.domain, self.task.question.column
        if kind == "column":
            other = domain.real if column == domain.whole else domain.whole
            return code.replace(repr(column), repr(other)) if column and repr(other) not in code else None
        tests = {" > ": " < ", " < ": " > "} if "& (d" in code or "].sum()" not in code else {}
        found = [part for part in (tests if kind == "filter" else WRONG) if part in code]
        if kind == "aggregate":
            found = [part for part in found if part not in (" > ", "isna")]
        if not found:
            return None
        part = self.rng.choice(found)
        return code.replace(part, (tests if kind == "filter" else WRONG)[part])

    def _otherwise(self, answer: str) -> str:
        """Another answer than what was printed."""
        names = [*self.task.table.domain.names, "positive", "negative"]
        if answer in names:
            same = names[:-2] if answer in names[:-2] else names[-2:]
            return self.rng.choice([name for name in same if name != answer])
        try:
            number = float(answer)
        except ValueError:
            return "0"
        return f"{number + self.rng.choice((-1, 1)) * max(1.0, round(abs(number) / 2)):g}"
