"""What people see while they wait: exams as they are scored, training as it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from memorist.evaluation.exam import Exam


def told(exams: Iterator[Exam], console: Console) -> Iterator[Exam]:
    """Pass exams on, and say what each gave as soon as it is known."""
    while True:
        with console.status("scoring"):
            exam = next(exams, None)
        if exam is None:
            return
        values = [value for found in exam.right().values() for value in found]
        points = f"{sum(values) / len(values):.1f} points of exact match" if values else "nothing asked"
        console.print(f"scored: {exam.name}, {points}, {len(values)} questions", highlight=False)
        yield exam


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
