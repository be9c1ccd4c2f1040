"""Measure the rows of Datarus on questions about tables that no run has seen. Resumable: trained runs stay in runs/results, outcomes
in results/notebook.

Arms, all from the same base and for as many steps of reinforcement: the recipe's curriculum from form to substance; one reward alone
(`structure`, `verified`) or what the curriculum ends with from the start (`semantic`); and `sft`, imitation of the base's own right
episodes. The recipe was chosen on the validation split, but for two things that were
seen on the questions of the rows too: that a price of writing divided by spreads costs right answers by hand, and that a price on what notebooks
write keeps fewer of the others right than none.
Run: python scripts/results_notebook.py
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from results_kit import Found, Kept, asked_for, base, interval, line
from results_kit import row as table_row

from memorist.agents.datarus_pairs import NotebookPairsData
from memorist.evaluation.notebook import answered, tokens
from memorist.evaluation.runs import greedy_seats, train
from memorist.evaluation.statistics import (
    Interval,
    hierarchical_bootstrap,
    paired_difference,
    ratio_headroom,
    ratio_of_means,
)
from memorist.evaluation.voting import Budget
from memorist.models.registry import quiet_libraries
from memorist.recipe import Recipe, load_recipe
from memorist.tasks.notebook.episodes import NotebookData
from memorist.tasks.notebook.experts import CORRUPTIONS, VISIBLE
from memorist.tasks.notebook.steps import fabricated
from memorist.training.judging import Judges
from memorist.training.reward_model import RewardModel

RUNS = Path("runs/results")
KEPT = Kept("results/notebook")
row = partial(table_row, how="make results-notebook")
SEEDS, ARMS = (0, 1, 2), ("curriculum", "structure", "verified", "semantic", "sft")
QUESTIONS = {
    "test": NotebookData(split="test", questions=360, by_hand=0.2, modes=("agentic", "chosen")),
    "by-hand": NotebookData(split="test", questions=300, by_hand=1.0, modes=("reflection",)),
}
"""All skills, in a notebook or as the analyst chooses; and small tables, to be answered at once."""
MEASURES = ("correct", "format", "answered", "cells", "failed_cells", "reflected")
PAIRS = 300
NOTHING = {"structure": 0.0, "hrm": 0.0, "verified": 0.0, "thinking": 0.0, "errors": 0.0, "cells": 0.0}


def experiments(seed: int) -> dict[str, Recipe]:
    recipe = replace(load_recipe("datarus"), seed=seed)
    judge, stage = recipe.stages

    def alone(gate: str, **rewards: float) -> Recipe:
        # What is thought costs as much of an answer's worth as at the curriculum's end.
        end = stage.rewards_end
        price = end["thinking"] / (end["verified"] + end["hrm"])
        worth = rewards.get("verified", 0.0) + rewards.get("hrm", 0.0)
        weights = NOTHING | {"thinking": price * worth} | rewards
        without = (
            {}
            if weights["hrm"]
            else {"judges": {}, "stages": (replace(stage, rewards=weights, rewards_end={}, gate=gate),)}
        )
        return replace(
            recipe, **without or {"stages": (judge, replace(stage, rewards=weights, rewards_end={}, gate=gate))}
        )  # type: ignore[arg-type]

    return {
        "curriculum": recipe,
        "structure": alone("structure", structure=1.0),
        "verified": alone("verified", verified=1.0),
        "semantic": alone("verified", verified=0.5, hrm=0.5),
        "sft": replace(
            recipe, judges={},
            stages=(replace(stage, kind="rejection", rewards=NOTHING | {"verified": 1.0}, rewards_end={}, gate=""),),
        ),
    }  # fmt: skip


def judged(recipe: Recipe, seats: Mapping[str, Any]) -> Found:
    """What came of each question, greedily: measures, tokens that were written, whether an observation was made up."""
    found: Found = {}
    for name, data in QUESTIONS.items():
        runs = [(one.task, one.runs[0]) for one in answered(recipe.agent, seats, data.tasks(0), Budget())]  # type: ignore[arg-type]
        found[name] = [
            [*(task.measures(run.outcome)[what] for what in MEASURES), float(tokens(run)), float(fabricated(run.outcome.parts))]
            for task, run in runs
        ]  # fmt: skip
        print(
            name,
            {what: round(float(np.mean([one[i] for one in found[name]])), 4) for i, what in enumerate(NAMES)},
            flush=True,
        )
    return found


NAMES = (*MEASURES, "tokens", "fabricated")


def trained(name: str, seed: int) -> Found:
    recipe, folder = experiments(seed)[name], RUNS / f"datarus-{name}-{seed}"
    train(recipe, folder, resume=True, progress=line(folder.name, 5))
    steps = [json.loads(one) for one in (folder / "metrics.jsonl").read_text().splitlines()]
    seats = greedy_seats(recipe.models, folder)
    return judged(recipe, seats) | {"seconds": sum(step["seconds"] for step in steps)}


def judge(seed: int) -> Found:
    """Pairs of the test split that the reward model of a run ranks rightly, by what is wrong with the worse one."""
    recipe, folder = experiments(seed)["curriculum"], RUNS / f"datarus-curriculum-{seed}"
    if not (folder / "judges" / "hrm").exists():
        raise KeyError(folder.name)
    judges = Judges(recipe, {"hrm": RewardModel.load(folder / "judges" / "hrm")})
    found = {
        kind: judges.accuracy(NotebookPairsData(split="test", questions=PAIRS, kinds=(kind,)), kind) for kind in CORRUPTIONS
    }  # fmt: skip
    visible = judges.accuracy(NotebookPairsData(split="test", questions=PAIRS, kinds=VISIBLE), "visible")
    # A policy that pleases its judge without being right would show here.
    tasks, seats = QUESTIONS["test"].tasks(0), greedy_seats(recipe.models, folder)
    runs = [one.runs[0] for one in answered(recipe.agent, seats, tasks, Budget())]  # type: ignore[arg-type]
    opinions = [
        next(r.value for r in run.trajectory.rewards if r.name == "hrm") for [run] in judges.judged([[run] for run in runs])
    ]  # fmt: skip
    rights = [float(task.right(run.outcome.answer)) for task, run in zip(tasks, runs, strict=True)]
    return {"kinds": found, "visible": visible, "opinions": opinions, "rights": rights}


def untrained() -> Found:
    recipe = experiments(0)["curriculum"]
    return judged(recipe, greedy_seats(recipe.models))


def sources() -> str:
    """Changes with what asks, runs and answers."""
    root = Path("src/memorist")
    files = [*sorted((root / "tasks" / "notebook").glob("*.py")), *sorted((root / "agents").glob("datarus*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


# Rows.


def of(name: str, what: str, questions: str = "test") -> dict[int, dict[str, list[float]]]:
    """A measure of each question, by seed."""
    place = NAMES.index(what)
    files = {0: "base"} if name == "base" else {seed: f"{name}-{seed}" for seed in SEEDS}
    return {
        seed: {str(i): [one[place]] for i, one in enumerate(KEPT.read(file)[questions])} for seed, file in files.items()
    }  # fmt: skip


def perfect() -> dict[int, dict[str, list[float]]]:
    return {0: {who: [1.0] for who in of("base", "correct")[0]}}


def points(some: Mapping[int, Mapping[str, list[float]]]) -> dict[int, dict[str, list[float]]]:
    return {seed: {who: [100 * v for v in own] for who, own in run.items()} for seed, run in some.items()}


def best_single() -> str:
    """The one reward that alone gives most right answers."""
    return max(
        ("structure", "verified", "semantic"), key=lambda name: hierarchical_bootstrap(of(name, "correct")).value
    )  # fmt: skip


def accuracy() -> Found:
    some = [KEPT.read(f"judge-{seed}")["visible"]["hrm"] for seed in SEEDS]
    return {"value": float(np.mean(some)), "n": PAIRS, "seeds": len(SEEDS)}


def agreement() -> Found:
    """Pearson's correlation of what the judge thinks of an episode and whether its answer is right."""
    some = [KEPT.read(f"judge-{seed}") for seed in SEEDS]
    found = [float(np.corrcoef(one["opinions"], one["rights"])[0, 1]) for one in some]
    return {
        "value": float(np.mean(found)),
        "n": len(some[0]["rights"]),
        "seeds": 3,
    }


def minutes() -> Found:
    return {"value": max(KEPT.read(f"curriculum-{seed}")["seconds"] for seed in SEEDS) / 60, "seeds": len(SEEDS)}


def table() -> None:
    def over(name: str) -> Callable[[], Interval]:
        return lambda: paired_difference(points(of("curriculum", "correct")), points(of(name, "correct")))

    rows = [
        row("datarus.verified.headroom", "share",
            interval(lambda: ratio_headroom(of("base", "correct"), of("curriculum", "correct"), perfect()), 3)),
        row("datarus.over-sft", "points", interval(over("sft"), 3)),
        row("datarus.format-rate", "share", interval(lambda: hierarchical_bootstrap(of("curriculum", "format")), 3)),
        row("datarus.curriculum-minus-best-single", "points", interval(lambda: over(best_single())(), 3)),
        row("datarus.reward-model-accuracy", "share", accuracy),
        row("datarus.reward-model-agreement", "correlation", agreement),
        row("datarus.reflection-token-share", "share", interval(
            lambda: ratio_of_means(of("curriculum", "tokens", "by-hand"), of("base", "tokens", "by-hand")), 3)),
        row("datarus.reflection-correct-minus-base", "points", interval(lambda: paired_difference(
            points(of("curriculum", "correct", "by-hand")), points(of("base", "correct", "by-hand"))), 3)),
        *(row(f"datarus.{name}.{questions}.{what}", unit,
              interval(partial(lambda *how: hierarchical_bootstrap(of(*how)), name, what, questions), 3 if name in ARMS else 1))
          for name in (*ARMS, "base") for questions in QUESTIONS
          for what, unit in (("correct", "share"), ("format", "share"), ("tokens", "tokens"))),
        row("datarus.training-run.minutes", "minutes", minutes),
    ]  # fmt: skip
    Path("results/notebook.json").write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    args = asked_for(__doc__, f"base, {', '.join(ARMS)}, judge", SEEDS)
    quiet_libraries()
    if not args.write:
        known = {"questions": str(QUESTIONS), "sources": sources(), "base": base("bundled-analyst")}
        measures: dict[str, tuple[dict[str, str], Callable[[], Found]]] = {"base": (known, untrained)}
        for seed in args.seeds:
            for name, recipe in experiments(seed).items():
                made_by = known | {"recipe": recipe.fingerprint()}
                measures[f"{name}-{seed}"] = (made_by, partial(trained, name, seed))
                if name == "curriculum":
                    measures[f"judge-{seed}"] = (made_by | {"pairs": str(PAIRS)}, partial(judge, seed))
        KEPT.keep_all(measures, args.only)
    table()


if __name__ == "__main__":
    main()
