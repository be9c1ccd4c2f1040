"""A plan beside a run: kept in its folder before, compared with its metrics during and after.

The trainer writes what it measured into metrics.jsonl; nothing here reaches into it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memorist.errors import PlanError
from memorist.fit.plan.planner import Plan
from memorist.fit.plan.workload import Workload
from memorist.recipe import Recipe, Stage

PLAN = "plan.json"
METRICS = "metrics.jsonl"
DEPARTURE = 0.15
"""Share by which live memory may differ from the plan before a run says so."""

Metrics = Mapping[str, Any]


def planned_stage(recipe: Recipe) -> Stage:
    """The stage that plays the most trajectories in a step.

    Raises:
        PlanError: the recipe has no stages.
    """
    if not recipe.stages:
        raise PlanError(f"recipe {recipe.name!r} has no stages: there is nothing to plan")
    return max(recipe.stages, key=lambda stage: stage.tasks * stage.siblings)


def workload_of(recipe: Recipe, *, scores: bool) -> Workload:
    """What this repository's trainer makes of a recipe: weights in FP32, micro-batches of the stage's budget.

    Beside the trained model there are those of other roles, and the stage's start where it is needed; adapters of one
    base need neither: roles share it, and the start is an adapter as well. How many tokens a prompt and a reply have is
    not in a recipe: those stay as they are by default. scores: as `Workload.scores`.
    """
    stage, weights = planned_stage(recipe), recipe.weights
    copies = len(set(recipe.models.values())) - 1 if weights.lora else len(recipe.models) - 1 + stage.needs_start
    return Workload(
        prompts=stage.tasks,
        group_size=stage.siblings,
        weights="fp32",
        cache="fp32",
        optimizer="adamw-fp32",
        copies=copies,
        lora_rank=weights.lora,
        checkpointing=weights.checkpointing,
        scores=scores,
        micro_tokens=stage.budget,
        logits="written",
    )


def keep(folder: Path, plan: Mapping[str, Any]) -> None:
    """Put a plan into the folder of a run that has not begun; one that has keeps the plan that it began with."""
    if not (folder / METRICS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PLAN).write_text(json.dumps(plan, indent=1), encoding="utf-8")


def planned_memory(folder: Path) -> float | None:
    """Bytes of live memory by the plan in a run's folder, or None where there is none.

    Raises:
        PlanError: the plan cannot be read.
    """
    file = folder / PLAN
    if not file.is_file():
        return None
    try:
        return float(json.loads(file.read_text(encoding="utf-8"))["memory"]["planned"])
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(
            f"{file}: no plan that can be read; make it again with memorist plan … --run {folder}"
        ) from error


def departure(planned: float, measured: float) -> str | None:
    """A sentence where the measured memory departs from the plan by more than 15 %."""
    share = measured / planned - 1
    if abs(share) <= DEPARTURE:
        return None
    return f"live memory is {measured / 1e9:.2f} GB, {share:+.0%} from the plan's {planned / 1e9:.2f} GB"


class Watch:
    """A trainer's progress that also says, once, that live memory departs from the plan in the run's folder.

    More than planned is said as soon as it is reached; less only at the `end`, for the peak may still come.
    """

    def __init__(self, folder: Path, progress: Callable[[Metrics], None], say: Callable[[str], None]) -> None:
        self._planned, self._progress, self._say = planned_memory(folder), progress, say
        self._peak, self._said = 0.0, False

    def __call__(self, metrics: Metrics) -> None:
        """Show one step."""
        self._progress(metrics)
        self._peak = max(self._peak, metrics.get("peak_memory_bytes", 0.0))
        if self._planned is not None and self._peak > self._planned:
            self.end()

    def end(self) -> None:
        """After the last step."""
        sentence = departure(self._planned, self._peak) if self._planned is not None and self._peak else None
        if sentence and not self._said:
            self._said = True
            self._say(sentence)


def read_measured(folder: Path) -> dict[str, float]:
    """What a run's steps measured: highest memory, and medians of the update's seconds and the rollouts' tokens/s."""
    file = folder / METRICS
    rows: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:  # A last line that a kill has torn.
            break
    rows = [row for row in rows if "update_seconds" in row]
    if not rows:
        return {}
    updates = [row["update_seconds"] for row in rows]
    written = [row["decisions"] * row["length"] / max(1e-9, row["seconds"] - row["update_seconds"]) for row in rows]
    return {
        "peak_memory_bytes": max(float(row["peak_memory_bytes"]) for row in rows),
        "update_seconds": sorted(updates)[len(updates) // 2],
        "rollout_rate": sorted(written)[len(written) // 2],
    }


def departure_of(plan: Plan, measured: Mapping[str, float]) -> str | None:
    """As `departure`, for a run that has been measured."""
    peak = measured.get("peak_memory_bytes")
    return None if peak is None else departure(plan.memory.planned, peak)
