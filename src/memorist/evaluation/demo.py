"""`memorist demo`: train a memory agent on this machine and show, before and after, what it learnt."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from memorist.agents.build import builder
from memorist.evaluation.exam import Exam, baselines, sit, tune_heuristic
from memorist.evaluation.report import table, write_report
from memorist.evaluation.runs import greedy_seats, train
from memorist.evaluation.statistics import Interval, paired_difference
from memorist.recipe import Recipe, load_recipe
from memorist.tasks.world import dialogues
from memorist.training.trainer import read_metrics

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
    build = builder(recipe.agent)
    held_out = dialogues("test", test_dialogues)
    questions = sum(q.category < 5 for d in held_out for q in d.questions)
    console.print(
        f"Held-out: {test_dialogues} dialogues, {questions} questions, people and values that training never sees."
    )
    with console.status("scoring the base and the baselines"):
        base_seats = greedy_seats(recipe.models)
        before = sit("base", build, held_out, base_seats)
        tuned = tune_heuristic(build, dialogues("train", 6, seed=77), base_seats["answerer"])
        others = baselines(build, held_out, base_seats["answerer"], tuned=tuned)
    trainer = train(recipe, folder, progress=Bar(console))
    with console.status("scoring the trained agent"):
        seats = greedy_seats(recipe.models, folder)
        manager = sit(
            "trained Manager, base Answer Agent", build, held_out, {**base_seats, "manager": seats["manager"]}
        )
        after = sit("trained", build, held_out, seats)
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


class Bar:
    """Live progress of training: step, reward, time left. On a plain stream, a line every ten steps."""

    def __init__(self, console: Console) -> None:
        self._console, self._live = console, console.is_terminal
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TextColumn("reward {task.fields[reward]:.2f}"), TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
        )  # fmt: skip
        self._progress = Progress(*columns, console=console)
        self._bars: dict[int, Any] = {}

    def __call__(self, metrics: Any) -> None:
        """Show one step."""
        name = f"stage {metrics['stage'] + 1}: {metrics['kind']} {metrics['role']}"
        left = f"{metrics['left']:.0f} s left"
        if not self._live:
            if metrics["step"] % 10 == 0 or metrics["step"] == 1:
                self._console.print(
                    f"{name} step {metrics['step']}/{metrics['steps']} reward {metrics['reward']:.3f} {left}"
                )
            return
        if not self._bars:
            self._progress.start()
        stage = metrics["stage"]
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(name, total=metrics["steps"], reward=0.0, left="")
        self._progress.update(self._bars[stage], completed=metrics["step"], reward=metrics["reward"], left=left)
        if metrics["step"] == metrics["steps"]:
            self._progress.stop()
            self._bars = {}
            self._progress = Progress(*self._progress.columns, console=self._console)
