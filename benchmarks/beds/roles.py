"""A tiny mixture of experts that plays both roles of Memory-R1: made as the bundled base is, then trained by the recipe
of the demo, first as Manager, then as Answer Agent. What its roles need is calibrated and measured on its own logs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from memorist.evaluation.exam import sit
from memorist.evaluation.runs import greedy_seats, talking_agent, train
from memorist.fit.experts.command import calibrate
from memorist.fit.experts.quality import Gate
from memorist.fit.experts.role_command import roles
from memorist.log import write_trajectories
from memorist.recipe import load_recipe
from memorist.tasks.world import dialogues

EXPERTS, BASE_STEPS, SAMPLES, HELD_OUT = 8, 1200, 25, 60
ROLES = ("manager", "answerer")
MAKE = Path(__file__).parents[2] / "scripts" / "make_base.py"


def trained(folder: Path, quick: bool) -> Path:
    """The folder of a model that plays both roles; what is there already is not made again."""
    base, steps = folder / "base", 20 if quick else BASE_STEPS
    if not (base / "config.json").exists():
        options = ["--out", str(folder / "base.new"), "--steps", str(steps), "--experts", str(EXPERTS)]
        subprocess.run([sys.executable, str(MAKE), *options], check=True, stdout=sys.stderr)
        (folder / "base.new").rename(base)
    model, recipe = base, load_recipe("memory-r1-demo")
    for stage in recipe.stages:
        run = folder / stage.role
        short = replace(stage, steps=2 if quick else min(stage.steps, 100))
        both = replace(recipe, models=dict.fromkeys(ROLES, str(model)), stages=(short,))
        if not (run / "policies").exists():
            train(both, run, resume=True, progress=lambda m: print(m["role"], m["step"], m["reward"], file=sys.stderr))
        model = run / "policies" / stage.role
    return model


def measured(folder: Path, scorers: Sequence[str], quick: bool) -> dict[str, Any]:
    """Divergence at half the experts by scorer, mode and role, on replies held out from calibration."""
    model, agent = trained(folder, quick), talking_agent(load_recipe("memory-r1-demo"))
    seats = greedy_seats(dict.fromkeys(ROLES, str(model)))
    for name, seed in (("calibration", 11), ("held-out", 12)):
        exam = sit(name, agent.build, dialogues("train", 2 if quick else 6, seed=seed), seats)
        write_trajectories(folder / f"{name}.jsonl", (run.trajectory for run in exam.runs))
    console, store = Console(stderr=True), folder / "experts"
    for role in ROLES:
        calibrate(model, folder / "calibration.jsonl", role, store, console, limit=SAMPLES, role=role)
    return {
        scorer: roles(
            model, folder / "held-out.jsonl", store=store, names=ROLES, keep=EXPERTS // 2, scorer=scorer,
            readers=agent.reply_forms(), gate=Gate(), limit=10 if quick else HELD_OUT, budget=None, changes=1.0,
            rate=1e9, console=console,
        )
        for scorer in scorers
    }  # fmt: skip
