"""Questions about tables, judged: a model beside an expert, by vote where several answers are asked for, and how some
episodes went."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from memorist.agents.datarus import DatarusSettings, Outcome
from memorist.decision import Distribution
from memorist.errors import RecipeError
from memorist.evaluation.runs import greedy_seats, recipe_of
from memorist.evaluation.statistics import Interval, hierarchical_bootstrap
from memorist.evaluation.voting import Budget, leading, voted
from memorist.models.sampler import Sampler
from memorist.page import COLOURS, escaped, figure, grid, page
from memorist.tasks.notebook.episodes import NotebookData, NotebookTask
from memorist.tasks.notebook.replay import write_ipynb
from memorist.tasks.notebook.steps import fabricated
from memorist.training.rollout import Run, Seat, play

SHOWN = 6
"""Episodes that are written as notebooks."""
HEAD = ("right", "95 %", "format", "answered", "cells", "failed", "recovered", "made up", "tokens")


@dataclass(frozen=True)
class Measures:
    """correct: share of right answers, with its interval. format: of episodes that are wholly well formed. recovered:
    of those with a failed cell, how many were answered rightly (None: none had one). fabricated: of those in which an
    observation was made up. cells, failed, tokens (that the model wrote): means."""

    correct: float
    low: float
    high: float
    format: float
    answered: float
    cells: float
    failed: float
    recovered: float | None
    fabricated: float
    tokens: float
    by_skill: Mapping[str, float]


@dataclass(frozen=True)
class Voted:
    """Answers to a question, the first of which is the greedy one where there is one alone. chosen: what most say."""

    task: NotebookTask
    runs: tuple[Run, ...]
    chosen: str | None


def questions(count: int) -> NotebookData:
    """Held-out ones, of all skills and defects in turn."""
    data = NotebookData(split="test", questions=count)
    data.check("questions")
    return data


def answered(
    settings: DatarusSettings, seats: Mapping[str, Seat], tasks: Sequence[NotebookTask], budget: Budget
) -> list[Voted]:  # fmt: skip
    """Each question answered once greedily, or by sampling as often as a budget of several votes allows."""
    warm = {role: Seat(seat.sampler, Distribution()) for role, seat in seats.items()}

    def ask(numbers: Sequence[int], vote: int) -> list[Run]:
        some = [tasks[i] for i in numbers]
        if budget.votes == 1:
            return [run for [run] in play(settings.build, some, seats)]
        return [run for [run] in play(settings.build, some, warm, seed=vote, numbers=numbers)]

    found = voted(len(tasks), ask, budget, says=_says, tokens=tokens)
    return [_voted(task, own) for task, own in zip(tasks, found, strict=True)]


def _says(run: Run) -> str | None:
    """Its answer, numbers being the same to four digits."""
    return None if run.outcome.answer is None else _same(run.outcome.answer)


def _same(answer: str) -> str:
    try:
        return f"{float(answer.replace(',', '')):.4g}"
    except ValueError:
        return answer.strip().casefold()


def _voted(task: NotebookTask, runs: Sequence[Run]) -> Voted:
    best = leading(runs, _says)
    return Voted(task, tuple(runs), best.outcome.answer if best is not None else None)


def tokens(run: Run) -> int:
    """Tokens that the model wrote; of a service that tells none, words."""
    return sum(d.policy_tokens or len(d.action.text.split()) for d in run.trajectory.decisions)


def measured(found: Sequence[Voted]) -> Measures:
    """What answers are worth."""
    rights = [float(one.task.right(one.chosen)) for one in found]
    runs = [(one.task, run) for one in found for run in one.runs]
    facts = [task.measures(run.outcome) for task, run in runs]
    # Questions count alike, however often they were answered.
    share = [1 / (len(one.runs) * len(found)) for one in found for _ in one.runs]
    missed = [fact["correct"] for fact in facts if fact["failed_cells"]]
    points: Interval = hierarchical_bootstrap(
        {0: {one.task.id: [right] for one, right in zip(found, rights, strict=True)}}
    )
    skills: dict[str, list[float]] = {}
    for one, right in zip(found, rights, strict=True):
        skills.setdefault(one.task.skill, []).append(right)

    def mean(name: str) -> float:
        return math.fsum(weight * fact[name] for weight, fact in zip(share, facts, strict=True))

    return Measures(
        points.value, points.low, points.high, mean("format"), mean("answered"), mean("cells"), mean("failed_cells"),
        sum(missed) / len(missed) if missed else None,
        math.fsum(weight * fabricated(run.outcome.parts) for weight, (_, run) in zip(share, runs, strict=True)),
        sum(tokens(run) for _, run in runs) / len(found),
        {name: sum(values) / len(values) for name, values in skills.items()},
    )  # fmt: skip


def run(
    trained: Path | None, served: Sampler | None, data: NotebookData, out: Path, budget: Budget, as_json: bool,
    screen: Console, err: Console, *, mode: str = "",
) -> Measures:  # fmt: skip
    """Judge a model on held-out questions; a table or JSON, a report, and some episodes as Jupyter notebooks.

    Args:
        trained: a folder that training wrote. served: a model behind an endpoint, which is asked in full.
        budget: for several answers to a question, of which the most frequent counts.
        mode: "agentic", "reflection" or "chosen"; "" for the run's own.

    Raises:
        RecipeError: there is neither, or the run is of another agent.
    """
    if served is not None:
        seats, name, settings = {"analyst": Seat(served)}, served.name, DatarusSettings()
    elif trained is not None:
        recipe = recipe_of(trained)
        if not isinstance(recipe.agent, DatarusSettings):
            raise RecipeError(f"agent {recipe.agent.name!r} answers no questions about tables; expected 'datarus'")
        seats, name, settings = greedy_seats(recipe.models, trained), str(trained), recipe.agent
    else:
        raise RecipeError(
            "notebook judges a run or a model behind an endpoint; give --run FOLDER or --endpoint URL#MODEL"
        )
    settings = replace(settings, mode=mode or settings.mode)
    settings.check("agent")
    tasks = data.tasks(0)
    with err.status(f"answering {len(tasks)} questions"):
        found = answered(settings, seats, tasks, budget)
    told = measured(found)
    out.mkdir(parents=True, exist_ok=True)
    files = _notebooks(out, found)
    (out / "report.html").write_text(page("Questions about tables", _body(name, told, found, files)), encoding="utf-8")
    if as_json:
        print(json.dumps({name: asdict(told)}, indent=1))
    else:
        show(name, told, screen)
        screen.print(f"report: {out / 'report.html'}")
    return told


def show(name: str, told: Measures, screen: Console) -> None:
    """A table of what it is worth, a measure a line: side by side they are cut in a narrow window."""
    table = Table("", Column(name, justify="right"))
    for head, cell in zip(HEAD, _cells(told), strict=True):
        table.add_row(head, cell)
    screen.print(table)


def _cells(told: Measures) -> tuple[str, ...]:
    recovered = "-" if told.recovered is None else f"{told.recovered:.0%}"
    return (
        f"{told.correct:.1%}", f"{told.low:.0%} to {told.high:.0%}", f"{told.format:.0%}", f"{told.answered:.0%}",
        f"{told.cells:.1f}", f"{told.failed:.2f}", recovered, f"{told.fabricated:.0%}", f"{told.tokens:.0f}",
    )  # fmt: skip


def _notebooks(out: Path, found: Sequence[Voted]) -> dict[str, str]:
    """Episodes that say most, wrong ones first, as Jupyter notebooks; file names by question."""
    order = sorted(found, key=lambda one: (one.task.right(one.chosen), one.task.id))
    files = {}
    for one in [*order[: SHOWN // 2], *order[::-1][: SHOWN // 2]]:
        outcome: Outcome = one.runs[0].outcome
        files[one.task.id] = f"{one.task.id}.ipynb"
        write_ipynb(out / files[one.task.id], one.task.asked, outcome.parts, outcome.cells, outcome.thoughts)
    return files


def _body(name: str, told: Measures, found: Sequence[Voted], files: Mapping[str, str]) -> str:
    cells = "".join(f'<td class="n">{cell}</td>' for cell in _cells(told))
    parts = [
        grid(("", *HEAD), f"<tr><th>{escaped(name)}</th>{cells}</tr>"),
        figure("Right answers by skill", lambda axes: _bars(axes, told.by_skill), (7, 0.6 + 0.35 * len(told.by_skill))),
    ]
    for one in found:
        if one.task.id in files:
            parts.append(_episode(one, files[one.task.id]))
    return "\n".join(parts)


def _bars(axes: Any, by_skill: Mapping[str, float]) -> None:
    axes.barh(list(by_skill), list(by_skill.values()), color=COLOURS["after"], height=0.6)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()


def _episode(one: Voted, file: str) -> str:
    """Cell by cell, with the answer and what was right."""
    right = one.task.right(one.chosen)
    mark = '<span class="ok">right</span>' if right else '<span class="no">wrong</span>'
    rows = "".join(
        f"<tr><td><pre>{escaped(code)}</pre></td><td><pre>{escaped(ran.told())}</pre></td></tr>"
        for code, ran in one.runs[0].outcome.cells
    )
    answer = f"<p>Answer: <b>{escaped(one.chosen)}</b>; right is <b>{escaped(one.task.question.gold)}</b>.</p>"
    table = grid(("cell", "what it gave"), rows, "stack")
    head = f"<h3>{escaped(one.task.id)} {mark} · {escaped(file)}</h3><p>{escaped(one.task.asked)}</p>"
    return f'<div class="card">{head}{table}{answer}</div>'
