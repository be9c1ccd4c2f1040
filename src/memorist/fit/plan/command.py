"""The steps behind `memorist plan`: from names to a plan, and from a plan to what is printed, kept or drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memorist.errors import PlanError
from memorist.fit.plan import runs
from memorist.fit.plan.config import Model, open_model
from memorist.fit.plan.hardware import HERE, open_hardware, save_calibrated
from memorist.fit.plan.planner import Plan, make_plan
from memorist.fit.plan.show import show_plan, show_side_by_side, to_plain
from memorist.fit.plan.whatif import variants
from memorist.fit.plan.workload import Workload
from memorist.recipe import load_recipe


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and the model it is for."""

    model: Model
    plan: Plan


def calibrate(console: Any) -> None:
    """Measure this machine and keep it for `--hardware here`.

    Raises:
        PlanError: torch and transformers are not installed.
    """
    try:
        from memorist.fit.plan.calibrate import calibrate as measure
    except ImportError as error:
        raise PlanError("calibrating needs torch and transformers: pip install 'memorist[train]'") from error
    with console.status("measuring this machine; leave it alone for a minute"):
        path = save_calibrated(measure())
    console.print(f"kept in {path}; plan with it by --hardware {HERE}", highlight=False)


def prepare(model: str | None, recipe: str | None, hardware: str, devices: int, changes: Mapping[str, Any]) -> Planned:
    """A plan from what the command line was given; a recipe gives the model and workload that `changes` do not.

    Raises:
        PlanError: the model, the hardware or the workload is not one that can be planned with.
        RecipeError: there is no such recipe.
    """
    device, workload = open_hardware(hardware), Workload()
    if recipe is not None:
        read = load_recipe(recipe)
        on_cpu = device.calibration.scores if device.calibration else hardware == "cpu"
        workload = runs.workload_of(read, scores=on_cpu)
        model = model or read.models[runs.planned_stage(read).role]
    if model is None:
        raise PlanError("nothing to plan: give a model or --recipe")
    opened = open_model(model)
    return Planned(opened, make_plan(opened.architecture, replace(workload, **changes), device, devices))


def compared(planned: Planned, kept_experts: float) -> dict[str, Plan]:
    """The same workload on the model's other forms."""
    plan = planned.plan
    return {
        name: make_plan(architecture, plan.workload, plan.hardware, plan.devices)
        for name, architecture in variants(plan.architecture, kept_experts=kept_experts).items()
    }


def to_json(planned: Planned, others: Mapping[str, Plan], run: Path | None) -> dict[str, Any]:
    """All of it as plain objects."""
    found = to_plain(planned.plan) | {"warnings": planned.model.warnings, "notes": planned.model.notes}
    if others:
        found["compared"] = {name: to_plain(plan) for name, plan in others.items()}
    if run is not None:
        measured = runs.read_measured(run)
        found |= {"measured": measured, "departure": runs.departure_of(planned.plan, measured)}
    return found


def show(planned: Planned, others: Mapping[str, Plan], run: Path | None, console: Any) -> None:
    """Print it."""
    measured = runs.read_measured(run) if run is not None else {}
    show_plan(planned.plan, planned.model, console, measured)
    if sentence := runs.departure_of(planned.plan, measured):
        console.print(f"! {sentence}", highlight=False)
    if others:
        show_side_by_side(others, console)
