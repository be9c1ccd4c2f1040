"""What people watch while something learns: the numbers of a step, and where they are shown beside metrics.jsonl."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from memorist.errors import PolicyError, need_known
from memorist.recipe import Recipe, to_plain
from memorist.training.credit import Worth
from memorist.training.rollout import Group

MEASURED = ("seconds", "left", "update_seconds", "tokens_per_second", "peak_memory_bytes")
"""Metrics that are measured, so that they differ between repeats of a run; all others are equal."""
BINS = 10


def describe(groups: Sequence[Group], role: str, worth: Worth) -> dict[str, Any]:
    """What a step's runs were like.

    `reward`: mean of what runs were worth; `histogram`: how many were worth what; `terms`: mean of each reward term;
    `length`: tokens of a decision; `truncated_share`: of decisions that the token limit cut; operations and result
    codes by kind; `measures`: mean of what the task measures beside its reward.
    """
    runs = [run for group in groups for run in group]
    decisions = [d for run in runs for d in run.trajectory.decisions if d.role == role]
    worths = [worth(run.trajectory) for run in runs]
    terms: dict[str, list[float]] = {}
    measures: dict[str, list[float]] = {}
    counts: dict[str, Counter[str]] = {"operations": Counter(), "codes": Counter()}
    for run in runs:
        for reward in run.trajectory.rewards:
            terms.setdefault(reward.name, []).append(reward.value)
        for name, value in run.trajectory.facts.get("measures", {}).items():
            measures.setdefault(name, []).append(value)
        for name, counter in counts.items():
            counter.update(run.trajectory.facts.get(name, {}))
    return {
        "reward": float(np.mean(worths)) if worths else 0.0,
        "histogram": histogram(worths),
        "terms": {name: float(np.mean(values)) for name, values in terms.items()},
        "decisions": len(decisions),
        "length": float(np.mean([len(d.action.tokens) for d in decisions])) if decisions else 0.0,
        "truncated_share": sum(d.action.stop == "length" for d in decisions) / max(1, len(decisions)),
        **{name: dict(counter) for name, counter in counts.items()},
        **({"measures": {name: float(np.mean(values)) for name, values in measures.items()}} if measures else {}),
    }


def histogram(values: Sequence[float]) -> dict[str, int]:
    """Counts by value, or where there are many different ones by the upper edge of equal bins."""
    if len(set(values)) <= BINS:
        named = [(f"{value:g}", 1) for value in sorted(values)]
    else:
        counts, edges = np.histogram(values, BINS)
        named = [(f"{edge:.3g}", int(count)) for edge, count in zip(edges[1:], counts, strict=True)]
    found: dict[str, int] = {}
    for name, count in named:  # values that differ in what is not shown have one name
        found[name] = found.get(name, 0) + count
    return found


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The metrics of a run, without a last line that a kill has torn."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return


class Tracker(Protocol):
    """Somewhere else that numbers are shown."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers of one step."""
        ...

    def end(self) -> None:
        """No more will come."""
        ...


class _TensorBoard:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("recipe", f"```\n{to_plain(recipe)}\n```")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self) -> None:
        self._writer.close()


class _Run:
    """W&B and trackio, which share their surface."""

    def __init__(self, module: Any, folder: Path, recipe: Recipe, **more: Any) -> None:
        self._module = module
        module.init(project="memorist", name=f"{recipe.name}-{recipe.seed}", config=to_plain(recipe), **more)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._module.log(dict(numbers), step=step)

    def end(self) -> None:
        self._module.finish()


def _wandb(folder: Path, recipe: Recipe) -> Tracker:
    wandb = importlib.import_module("wandb")
    return _Run(wandb, folder, recipe, dir=str(folder))


def _trackio(folder: Path, recipe: Recipe) -> Tracker:
    trackio = importlib.import_module("trackio")
    return _Run(trackio, folder, recipe)


TRACKERS: dict[str, Callable[[Path, Recipe], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _wandb,
    "trackio": _trackio,
}


def open_tracker(name: str, folder: Path, recipe: Recipe) -> Tracker:
    """TensorBoard (files in the run's folder), W&B or trackio.

    Raises:
        RecipeError: there is no such tracker.
        PolicyError: it is not installed.
    """
    need_known("tracker", name, TRACKERS)
    try:
        return TRACKERS[name](folder, recipe)
    except ImportError as error:
        raise PolicyError(f"{name} is not installed: pip install {name}") from error


class Tracked:
    """Passes each step's metrics on to a tracker and to another callback.

    Args:
        recipe: says how many steps went before a stage.
    """

    def __init__(self, tracker: Tracker, recipe: Recipe, then: Callable[[Mapping[str, Any]], None]) -> None:
        self.tracker, self.then = tracker, then
        self._before = np.cumsum([0, *(stage.steps for stage in recipe.stages)])

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        """Show one step."""
        numbers = dict(flat(metrics, str(metrics["role"])))
        self.tracker.log(numbers, int(self._before[metrics["stage"]]) + metrics["step"])
        self.then(metrics)


def flat(metrics: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """All numbers in metrics, by paths."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and name not in ("stage", "step", "steps", "left"):
            yield f"{prefix}/{name}", float(value)
