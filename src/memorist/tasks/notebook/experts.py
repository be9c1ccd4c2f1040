"""Who answers questions about tables by what is written down: an expert that knows the code, and one that errs, whom a
base imitates. Some mistakes are seen and put right (a column that is not there, text where numbers were expected),
others give a wrong answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from memorist.tasks.notebook.episodes import NotebookTask
from memorist.tasks.notebook.kernels import Ran
from memorist.tasks.notebook.steps import render_action, render_stop, untagged

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


@dataclass(frozen=True, slots=True)
class Move:
    """What to do next: run a cell, or (where `answer` is given) end with an answer."""

    thought: str
    code: str = ""
    answer: str | None = None


def written(move: Move) -> str:
    """A move as a message."""
    if move.answer is not None:
        return render_stop(move.thought, untagged(move.answer))
    return render_action(move.thought, move.code)


class Expert:
    """Loads, cleans, computes, answers.

    Args:
        errs: how likely it makes a mistake that gives a wrong answer.
        slips: how likely it makes one that it sees and puts right.
        seed: of its mistakes.
    """

    def __init__(self, task: NotebookTask, *, errs: float = 0.0, slips: float = 0.0, seed: int = 0) -> None:
        self.task, self.rng = task, random.Random(f"expert/{task.id}/{seed}")
        self.moves = self._planned(errs, slips)

    def next(self, seen: Sequence[Ran]) -> Move:
        """The next move, after what its cells gave so far."""
        if len(seen) < len(self.moves):
            return self.moves[len(seen)]
        lines = seen[-1].told().strip().splitlines()
        return Move("The result is there.", answer=lines[-1] if lines else "")

    def _planned(self, errs: float, slips: float) -> list[Move]:
        asked, file = self.task.question, self.task.table.domain.file
        load = f"import pandas as pd\nd = pd.read_csv({file!r})\nprint(d.dtypes)"
        moves = [Move("I load the table and look at it.", load)]
        lines = list(asked.cleaned)
        if lines and self.rng.random() < errs:
            lines.remove(self.rng.choice(lines))
        code = asked.code
        if self.rng.random() < errs:
            found = [part for part in WRONG if part in code]
            if found:
                part = self.rng.choice(found)
                code = code.replace(part, WRONG[part])
        if asked.column and self.rng.random() < slips:
            moves.append(Move("I compute it.", code.replace(repr(asked.column), repr(f"{asked.column}s"))))
            moves.append(Move("That column is not there; I take the right one.", "print(list(d.columns))"))
        if lines:
            moves.append(Move("I clean it first.", "\n".join(lines)))
        moves.append(Move("I compute it.", code))
        return moves
