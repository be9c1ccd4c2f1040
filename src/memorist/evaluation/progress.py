"""What people see while they wait: exams as they are scored, training as it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from memorist.evaluation.exam import Exam
from memorist.models.endpoint import Spent


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


class Calls:
    """Says how many replies have come from a served model, every ten seconds or so."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what, self._next = console, what, 0.0

    def __call__(self, spent: Spent) -> None:
        """After each reply."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 10
            self._console.print(
                f"{self._what}: {spent.calls} calls, {spent.prompt_tokens + spent.completion_tokens:,} tokens, "
                f"cost {spent.cost:.2f}",
                highlight=False,
            )


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
