"""Measure what hybrids know: how many answers they get right of their teachers', and what reinforcement adds to both. Resumable: trained runs
stay in runs/results, outcomes in results/hybrid.

Teachers are the bundled bases of MemAgent and Memory-R1. Of four layers, KEPT keep their attention. Students are distilled along what the
teacher writes on the train split, first by the forward divergence, then by the reverse one; reinforcement then goes on from them with the
recipe that the teacher's own rows are of (of Memory-R1 the Manager's part). What teachers and their trained policies answer is not measured
again: results/agents and results/memory-r1 have it, on the same documents and dialogues. The first 330 steps of a
reader were judged on the documents that its row is of, once, and no setting was changed for it.
Run: python scripts/results_hybrid.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import results_agents
import results_memory_r1
from results_kit import Found, Kept, Right, asked_for, base, interval, line
from results_kit import row as table_row

from memorist.evaluation.exam import sit
from memorist.evaluation.readers import points
from memorist.evaluation.runs import greedy_seats, train
from memorist.evaluation.statistics import Interval, hierarchical_bootstrap, paired_difference, ratio_of_means
from memorist.fit.hybrid.convert import convert
from memorist.models.registry import bundled_folder, quiet_libraries
from memorist.recipe import Recipe, Stage
from memorist.tasks.world import dialogues
from memorist.training.rollout import Seat, play

RUNS = Path("runs/results")
OUTCOMES = Kept("results/hybrid")
row = partial(table_row, how="make results-hybrid")
SEEDS = (0, 1, 2)
KEPT = (1, 3)
CHUNKS = 4


@dataclass(frozen=True)
class Teacher:
    """A bundled base, and where its outcomes are: kept, of an untrained and of trained ones, in which part.

    cuts: what a step of distillation is cut into and how many of it, by role; learns: the recipe of a seed's reinforcement.
    """

    base: str
    cuts: Mapping[str, tuple[str, int]]
    learns: Callable[[int], Recipe]
    kept: Kept
    untrained: tuple[str, str]
    trained: tuple[str, str]


TEACHERS = {
    "memagent": Teacher(
        "bundled-reader", {"reader": ("whole", 8)}, lambda seed: results_agents.experiments(seed)["memagent"],
        results_agents.KEPT, ("frozen-reading", f"base.{CHUNKS}-chunks"), ("memagent", f"{CHUNKS}-chunks"),
    ),
    "memory-r1": Teacher(
        "bundled", {"manager": ("turns", 32), "answerer": ("questions", 32)},
        lambda seed: results_memory_r1.experiments(seed)["manager"],
        results_memory_r1.KEPT, ("frozen", "base.a"), ("manager", "a"),
    ),
}  # fmt: skip


def begun(teacher: Teacher) -> Path:
    """Where a teacher's hybrid begins."""
    folder = RUNS / f"hybrid-{teacher.base}-{'-'.join(map(str, KEPT))}"
    if not folder.exists():
        convert(bundled_folder(teacher.base), folder, KEPT)
    return folder


def distillation(teacher: Teacher, seed: int) -> Recipe:
    stages: list[Stage] = []
    for role, (cut, tasks) in teacher.cuts.items():
        one = Stage(
            kind="distill",
            paths="teacher",
            teacher=teacher.base,
            role=role,
            cut=cut,
            tasks=tasks,
            siblings=1,
            align=1.0,
        )
        stages += [
            replace(one, divergence="forward", steps=1200, lr=3e-3, warmup=20, cooldown=0.4),
            replace(one, steps=200, lr=3e-4, cooldown=0.5),
        ]
    recipe = teacher.learns(seed)
    models = {**recipe.models, **dict.fromkeys(teacher.cuts, str(begun(teacher)))}
    return replace(recipe, models=models, stages=tuple(stages), log_every=0, checkpoint_every=100)


def reinforcement(agent: str, seed: int) -> Recipe:
    """The teacher's recipe, from the student."""
    recipe = TEACHERS[agent].learns(seed)
    policies = RUNS / f"hybrid-{agent}-{seed}" / "policies"
    return replace(recipe, models={**recipe.models, **{role: str(policies / role) for role in TEACHERS[agent].cuts}})


def judged(agent: str, recipe: Recipe, seats: Mapping[str, Seat]) -> Found:
    """Points of each question that the teacher's rows are of."""
    if agent == "memagent":
        right = points(play(recipe.agent.build, results_agents.documents(CHUNKS), seats))
    else:
        right = sit("hybrid", recipe.agent.build, dialogues("test", results_memory_r1.TEST), seats).right()
    print(agent, round(float(np.mean([value for own in right.values() for value in own])), 2), flush=True)
    return {"right": right}


def trained(name: str, agent: str, recipe: Recipe) -> Found:
    folder = RUNS / name
    train(recipe, folder, resume=True, progress=line(name, 50))
    steps = [json.loads(one) for one in (folder / "metrics.jsonl").read_text().splitlines()]
    return judged(agent, recipe, greedy_seats(recipe.models, folder)) | {
        "seconds": sum(one["seconds"] for one in steps)
    }


# Rows.


def of(name: str) -> dict[int, Right]:
    return {seed: OUTCOMES.read(f"{name}-{seed}")["right"] for seed in SEEDS}


def still(agent: str) -> dict[int, Right]:
    name, part = TEACHERS[agent].untrained
    return {0: TEACHERS[agent].kept.read(name)[part]}


def learnt(agent: str) -> dict[int, Right]:
    name, part = TEACHERS[agent].trained
    return {seed: TEACHERS[agent].kept.read(f"{name}-{seed}")[part] for seed in SEEDS}


def gains(before: Mapping[int, Right], after: Mapping[int, Right]) -> dict[int, Right]:
    """By question; who has one seed before stands before each after."""
    return {
        seed: {
            name: [b - a for a, b in zip(before.get(seed, before[0])[name], values, strict=True)]
            for name, values in own.items()
        }
        for seed, own in after.items()
    }


def more(agent: str) -> Interval:
    """What reinforcement adds to students, minus what it adds to the teacher."""
    student = gains(of(f"hybrid-{agent}"), of(f"hybrid-{agent}-rl"))
    return paired_difference(student, gains(still(agent), learnt(agent)))


def table() -> None:
    rows = []
    for agent in TEACHERS:
        sides: dict[str, tuple[Callable[[], Mapping[int, Right]], int]] = {
            "teacher": (partial(still, agent), 1),
            "distilled": (partial(of, f"hybrid-{agent}"), 3),
            "teacher-learnt": (partial(learnt, agent), 3),
            "learnt": (partial(of, f"hybrid-{agent}-rl"), 3),
        }
        rows += [
            row(f"hybrid.{agent}.distilled-over-teacher", "ratio",
                interval(partial(lambda a: ratio_of_means(of(f"hybrid-{a}"), still(a)), agent), 3)),
            row(f"hybrid.{agent}.rl-gain-minus-transformers", "points", interval(partial(more, agent), 3)),
            *(row(f"hybrid.{agent}.{name}", "points", interval(partial(lambda some: hierarchical_bootstrap(some()), some), seeds))
              for name, (some, seeds) in sides.items()),
        ]  # fmt: skip
    Path("results/hybrid.json").write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    args = asked_for(__doc__, ", ".join(f"hybrid-{agent}, hybrid-{agent}-rl" for agent in TEACHERS), SEEDS)
    quiet_libraries()
    if not args.write:
        measures: dict[str, tuple[dict[str, str], Callable[[], Found]]] = {}
        for agent, teacher in TEACHERS.items():
            for seed in args.seeds:
                name = f"hybrid-{agent}"
                first, then = distillation(teacher, seed), reinforcement(agent, seed)
                known = {"base": base(teacher.base), "recipe": first.fingerprint()}
                measures[f"{name}-{seed}"] = (known, partial(trained, f"{name}-{seed}", agent, first))
                also = known | {"reinforcement": then.fingerprint()}
                measures[f"{name}-rl-{seed}"] = (also, partial(trained, f"{name}-rl-{seed}", agent, then))
        OUTCOMES.keep_all(measures, args.only)
    table()


if __name__ == "__main__":
    main()
