"""`memorist demo`: train a memory agent on this machine and show, before and after, what it learnt."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from memorist.evaluation.exam import BuildMemoryR1, Exam, baselines, sit, tune_heuristic
from memorist.evaluation.progress import Bar, told
from memorist.evaluation.report import table, write_report
from memorist.evaluation.runs import greedy_seats, talking_agent, train
from memorist.evaluation.statistics import Interval, paired_difference
from memorist.recipe import Recipe, load_recipe
from memorist.tasks.locomo import Dialogue
from memorist.tasks.world import dialogues
from memorist.training.metrics import read_metrics
from memorist.training.rollout import Seat

TEST_DIALOGUES = 24
NEXT = (
    "memorist chat --run {run}: talk to the agent that you just trained",
    "memorist eval synthetic --run {run} --grammar b: phrasings that it never saw",
    "memorist eval locomo --run {run}: real dialogues, where MEMORIST_DATA points to LoCoMo",
    "memorist train memory-r1 --out runs/long: the longer recipe behind docs/results.md",
)


@dataclass(frozen=True)
class Shown:
    """What the demo found. `gain`: EM points of the trained over the base, on the same questions."""

    exams: list[Exam]
    gain: Interval
    manager_gain: Interval
    seconds: float


def demo(
    folder: Path, console: Console, *, test_dialogues: int = TEST_DIALOGUES, recipe: Recipe | None = None
) -> Shown:
    """Score, train both roles, score again, write the table, report.html and summary.json into `folder`."""
    began = time.monotonic()
    recipe = recipe or load_recipe("memory-r1-demo")
    build = talking_agent(recipe).build
    held_out = dialogues("test", test_dialogues)
    questions = sum(q.category < 5 for d in held_out for q in d.questions)
    console.print(
        f"Held-out: {test_dialogues} dialogues, {questions} questions, people and values that training never sees."
    )
    base = greedy_seats(recipe.models)
    before, *others = told(_before(build, held_out, base), console)
    trainer = train(recipe, folder, progress=Bar(console))
    manager, after = told(_after(build, held_out, base, greedy_seats(recipe.models, folder)), console)
    metrics = list(read_metrics(trainer.folder / "metrics.jsonl"))
    exams = [before, *others, manager, after]
    shown = Shown(exams, _gain(after, before), _gain(manager, before), time.monotonic() - began)
    notes = [note.format(run=folder) for note in NEXT]
    report = folder / "report.html"
    write_report(
        report, title="Memorist demo: Memory-R1", agent_before=before, agent_after=after,
        others=[*others, manager], metrics=metrics, notes=notes,
    )  # fmt: skip
    _print(console, shown, report, notes)
    summary = {
        "seconds": shown.seconds,
        "gain": shown.gain.to_json(),
        "manager_gain": shown.manager_gain.to_json(),
        "systems": [dict(row) if isinstance(row, dict) else str(row) for row in map(_plain, table(exams))],
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return shown


def _before(build: BuildMemoryR1, held_out: Sequence[Dialogue], seats: Mapping[str, Seat]) -> Iterator[Exam]:
    yield sit("base", build, held_out, seats)
    tuned = tune_heuristic(build, dialogues("train", 20, seed=77), seats["answerer"])
    yield from baselines(build, held_out, seats["answerer"], tuned=tuned)


def _after(
    build: BuildMemoryR1, held_out: Sequence[Dialogue], base: Mapping[str, Seat], trained: Mapping[str, Seat]
) -> Iterator[Exam]:
    yield sit("trained Manager, base Answer Agent", build, held_out, {**base, "manager": trained["manager"]})
    yield sit("trained", build, held_out, trained)


def _plain(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("name", "value", "low", "high", "n", "dialogues")}


def _gain(ours: Exam, theirs: Exam) -> Interval:
    return paired_difference({0: ours.right()}, {0: theirs.right()})


def _print(console: Console, shown: Shown, report: Path, notes: list[str]) -> None:
    grid = Table(title="Exact match on held-out questions (points, 95 % interval over dialogues)")
    for column in ("system", "points", "interval", "questions"):
        grid.add_column(column, justify="left" if column == "system" else "right")
    for row in table(shown.exams):
        grid.add_row(row.name, f"{row.value:.1f}", f"{row.low:.1f} to {row.high:.1f}", str(row.n))
    console.print(grid)
    for what, gain in (("Manager alone", shown.manager_gain), ("both roles", shown.gain)):
        console.print(f"Gain of {what}: {gain.value:+.1f} points ({gain.low:+.1f} to {gain.high:+.1f}, n = {gain.n})")
    console.print(f"{shown.seconds:.0f} s in all. Report: {report}")
    console.print("What to try next:")
    for note in notes:
        console.print(f"  {note}", highlight=False)
