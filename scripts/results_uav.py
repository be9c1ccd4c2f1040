"""Measure the rows of UAV-VL-R1 on scenes that no run has seen. Resumable: trained runs stay in runs/results, outcomes in results/uav.

Arms, all from the same base and for as many tokens that carry loss (`EQUAL`): the recipe (imitation, then reinforcement on attributes, on objects, on
spatial tasks); `sft`, imitation of the same annotations alone; `rl`, its reinforcement without the imitation before; `single`, all tasks in
one stage; `reversed`, spatial tasks first. Recipe and rates were chosen on the validation split, the one of `sft` too (of 1e-4, 3e-4, 1e-3).
That annotations are 900 was chosen on it as well, after 1,800 had left reinforcement 3.6 points to gain (docs/aerial.md). So the recipe and `sft`
run from a base with 1,800 as well (`many`), whose rows stand beside the others.
Run: make results-uav, which makes that base first
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_kit import Found, Kept, Right, asked_for, base, interval, line
from results_kit import row as table_row

from memorist.decision import Action, Distribution, Picture
from memorist.evaluation.runs import greedy_seats, train
from memorist.evaluation.statistics import Interval, hierarchical_bootstrap, paired_difference
from memorist.memory.scratch import ScratchBank
from memorist.models.pictures import image_of, read_picture
from memorist.models.quantised import weight_bytes
from memorist.models.registry import open_role, quiet_libraries
from memorist.models.rows import Unit, pack, written_by_policy
from memorist.models.sampler import Request
from memorist.recipe import Recipe, Stage, load_recipe
from memorist.tasks.aerial.data import AerialData
from memorist.tasks.aerial.questions import EIGHT, STAGES
from memorist.training.rollout import Seat, play

RUNS = Path("runs/results")
KEPT = Kept("results/uav")
row = partial(table_row, how="make results-uav")
SEEDS, ARMS = (0, 1, 2), ("staged", "sft", "rl", "single", "reversed")
QUESTIONS = {
    "seen": AerialData(split="test", questions=1600),
    "unseen": AerialData(split="test", questions=800, unseen=True),
}
"""Other scenes of the kinds that were learnt from, and some with colours and places that no scene had."""
BUNDLED = "bundled-viewer"
MANY, ANNOTATED = RUNS / "viewer-1800", 1800
"""A base that was made alike with twice the annotations."""
EQUAL = 1.9
"""Steps of imitation that have as many tokens with loss as a step of reinforcement, by the recipe's sizes: siblings who are all right, or all
wrong, carry none. The rows of tokens say how near it is."""


def experiments(seed: int) -> dict[str, Recipe]:
    recipe = replace(load_recipe("uav"), seed=seed)
    imitation, *parts = recipe.stages
    steps = sum(stage.steps for stage in parts)

    def of(*stages: Stage) -> Recipe:
        first = (replace(stages[0], replay=0.0),)
        return replace(recipe, stages=(*first, *stages[1:]))

    turned = [
        replace(stage, replay=place.replay, cooldown=place.cooldown)
        for stage, place in zip(reversed(parts), parts, strict=True)
    ]
    longer = replace(imitation, steps=imitation.steps + round(EQUAL * steps))
    scale = 1 + imitation.steps / EQUAL / steps

    def many(recipe: Recipe) -> Recipe:
        first, *rest = recipe.stages
        first = replace(first, data=replace(first.data, questions=ANNOTATED))
        return replace(recipe, models={"viewer": str(MANY)}, stages=(first, *rest))

    return {
        "staged": recipe,
        "many-staged": many(recipe),
        "many-sft": many(of(longer)),
        "sft": of(longer),
        "rl": of(*(replace(stage, steps=round(stage.steps * scale)) for stage in parts)),
        "single": of(imitation, replace(parts[-1], steps=steps, data=recipe.data, replay=0.0)),
        "reversed": of(imitation, *turned),
    }


def judged(recipe: Recipe, seats: Mapping[str, Any]) -> Found:
    """Whether each question was answered rightly, greedily, by scenes that are like those seen or not."""
    found: Found = {}
    for name, data in QUESTIONS.items():
        tasks = data.tasks(0)
        runs = [run for (run,) in play(recipe.agent.build, tasks, seats)]
        measured = [run.trajectory.facts["measures"] for run in runs]
        found[name] = [
            [task.question.task, one["correct"], one["format"]] for task, one in zip(tasks, measured, strict=True)
        ]
        print(name, round(float(np.mean([one[1] for one in found[name]])), 4), flush=True)
    return found


def trained(name: str, seed: int) -> Found:
    recipe, folder = experiments(seed)[name], RUNS / f"uav-{name}-{seed}"
    train(recipe, folder, resume=True, progress=line(folder.name, 20))
    steps = [json.loads(one) for one in (folder / "metrics.jsonl").read_text().splitlines()]
    stages = [json.loads(one) for one in (folder / "evaluations.jsonl").read_text().splitlines()]
    return judged(recipe, greedy_seats(recipe.models, folder)) | {
        "seconds": sum(step["seconds"] for step in steps),
        "tokens": sum(step["tokens"] * (1 - step.get("flat_groups", 0) / step.get("groups", 1)) for step in steps),
        "after": {stage["after"]: stage["measures"] for stage in stages},
        "sizes": {stage["after"]: stage["tasks"] for stage in stages},
    }


def alone() -> Found:
    """Minutes of the recipe as a command, from start to end; it wants the machine for itself."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "memorist", "train", "uav", "--out", f"{folder}/uav"], check=True)
        return {"value": (time.monotonic() - began) / 60}


def untrained(name: str) -> Found:
    recipe = experiments(0)[name]
    return judged(recipe, greedy_seats(recipe.models))


def integers(seed: int) -> Found:
    """What 8-bit weights of a trained policy take, of its own in bfloat16, and what it answers with them."""
    recipe, folder = experiments(seed)["staged"], RUNS / f"uav-staged-{seed}" / "policies" / "viewer"
    if not folder.exists():
        raise KeyError(folder.parent.parent.name)
    policies = {name: open_role(f"{name}{folder}") for name in ("", "int8:")}
    halves = weight_bytes(policies[""].model) // 2  # it computes in float32
    found = {"share": weight_bytes(policies["int8:"].model) / halves}
    return found | judged(recipe, {"viewer": Seat(policies["int8:"])})


THINKING = ("staged", "sft", "single")
"""Arms whose thoughts are read."""


def thinking() -> dict[str, str]:
    """What changes with whose thoughts are read."""
    recipes = {f"{arm}-{seed}": experiments(seed)[arm].fingerprint() for arm in THINKING for seed in SEEDS}
    return {"base": base(BUNDLED)} | recipes


def thoughts() -> Found:
    """Share of the places in what is thought about a relation that are those of the picture: no reward looks at them."""
    recipe, found = experiments(0)["staged"], {}
    tasks = AerialData(split="test", questions=300, names=("relation",)).tasks(0)
    for name in ("base", *(f"{arm}-{seed}" for arm in THINKING for seed in SEEDS)):
        folder = None if name == "base" else RUNS / f"uav-{name}"
        if folder is not None and not (folder / "policies").exists():
            raise KeyError(name)
        runs = [run for (run,) in play(recipe.agent.build, tasks, greedy_seats(recipe.models, folder))]
        found[name] = []
        for task, run in zip(tasks, runs, strict=True):
            said = run.trajectory.facts["example"]["said"].partition("</think>")[0].removeprefix("<think>").split(", ")
            told = task.question.rationale.split(", ")
            found[name].append([sum(a == b for a, b in zip(said, told, strict=False)) / len(told)])
        print(name, float(np.mean(found[name])), flush=True)
    return found


def by_the_library(policy: Any, action: Action, pictures: Sequence[Picture]) -> torch.Tensor:
    """Log-probabilities of an action's tokens by the model's own way from pixels to logits, for this one answer."""
    ids = torch.tensor([[*action.prompt, *action.tokens]])
    made = policy.processor(images=[image_of(one) for one in pictures], return_tensors="pt")
    made = {name: value.to(policy.model.dtype) if value.is_floating_point() else value for name, value in made.items()}
    with torch.no_grad():
        out = policy.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == policy.image).int(),
            use_cache=False, **made,
        )  # fmt: skip
    logits = out.logits[0, len(action.prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(action.tokens)), list(action.tokens)]


def expanded() -> Found:
    """The largest difference of log-probabilities of tokens, between groups of eight that are sampled and scored together, about one to
    three pictures of several sizes, and the library's for each answer alone. In float64: in float32 the library's own are 1.4e-5 off."""
    policy, worst, count = open_role(BUNDLED), 0.0, 0
    policy.model.double()
    tasks = AerialData(split="test", questions=24).tasks(0)
    agent = experiments(0)["staged"].agent.build(bank=ScratchBank(), viewer=None)
    asked = []
    for number, task in enumerate(tasks):
        others = tasks[number : number + 1 + number % 3] or [task]
        pictures = tuple(
            read_picture(one.question.scene.png(56 + 28 * (n % 3))) for n, one in enumerate(others, number)
        )
        asked.append(replace(agent.asked(task), pictures=pictures))
    requests = [Request(seen, Distribution(), 8 * n + i) for n, seen in enumerate(asked) for i in range(8)]
    actions = policy.sample(requests)
    units = [Unit(action, 1.0, 1.0) for action in actions]
    scored: dict[int, list[float]] = {}
    with torch.no_grad():
        for batch in pack(units, budget=2000):
            for unit, value in zip(batch.unit.tolist(), policy.score(batch).tolist(), strict=True):
                scored.setdefault(id(batch.units[unit]), []).append(value)
    for unit, action, request in zip(units, actions, requests, strict=True):
        own = torch.from_numpy(written_by_policy(action))  # what ends an answer may be the agent's
        expected = by_the_library(policy, action, request.observation.pictures)[own]
        for found in (
            torch.tensor(action.logprobs, dtype=expected.dtype)[own],
            torch.tensor(scored[id(unit)], dtype=expected.dtype),
        ):
            worst, count = max(worst, float((expected - found).abs().max())), count + len(expected)
    return {"value": worst, "n": count}


# Rows.


def of(name: str, questions: str = "seen") -> dict[int, Right]:
    """Points of each question, by seed; questions of a task are asked alike often."""
    files = {0: name} if name.endswith("base") else {seed: f"{name}-{seed}" for seed in SEEDS}
    return {
        seed: {str(i): [100 * one[1]] for i, one in enumerate(KEPT.read(file)[questions])} for seed, file in files.items()
    }  # fmt: skip


def placed(name: str) -> Interval:
    """Points of what is thought about places, see `thoughts`."""
    found, names = KEPT.read("thoughts"), ["base"] if name == "base" else [f"{name}-{seed}" for seed in SEEDS]
    points = [{str(i): [100 * one[0]] for i, one in enumerate(found[file])} for file in names]
    return hierarchical_bootstrap(dict(enumerate(points)))


def on(name: str, task: str) -> Found:
    """Share right of one task's questions."""
    some = [[one[1] for one in KEPT.read(f"{name}-{seed}")["seen"] if one[0] == task] for seed in SEEDS]
    return {"value": float(np.mean(some)), "n": len(some[0]), "seeds": len(SEEDS)}


def forgotten() -> Found:
    """How much worse a task is at the end than right after the stage that learnt it, in points: of all tasks the worst, by means over
    seeds. Evaluations of the recipe (the validation split) after each stage are what it is of."""
    lost = {}
    for task in EIGHT:
        seeds = []
        for seed in SEEDS:
            found = KEPT.read(f"staged-{seed}")["after"]
            last = str(max(map(int, found)))
            seeds.append(100 * (found[str(1 + STAGES[task])][f"correct-{task}"] - found[last][f"correct-{task}"]))
        lost[task] = float(np.mean(seeds))
    worst = max(lost, key=lambda task: lost[task])
    return {"value": lost[worst], "seeds": len(SEEDS), "task": worst, "each": lost}


def unlike() -> Interval:
    """What is lost on scenes with colours and places that none had, which are other questions."""
    seen, unseen = of("staged"), of("staged", "unseen")
    rng, drawn = np.random.default_rng(0), []
    both = [[np.array(list(one.values())) for one in some.values()] for some in (seen, unseen)]
    for _ in range(2000):
        seeds = rng.integers(0, len(SEEDS), len(SEEDS))
        means = [np.mean([rng.choice(some[s][:, 0], len(some[s])).mean() for s in seeds]) for some in both]
        drawn.append(means[1] - means[0])
    value = float(np.mean(both[1]) - np.mean(both[0]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high), len(both[1][0]))


def lean() -> Found:
    return {"value": float(np.mean([KEPT.read(f"int8-{seed}")["share"] for seed in SEEDS])), "seeds": len(SEEDS)}


def rounded() -> Interval:
    files = {seed: KEPT.read(f"int8-{seed}")["seen"] for seed in SEEDS}
    ours = {seed: {str(i): [100 * one[1]] for i, one in enumerate(some)} for seed, some in files.items()}
    return paired_difference(of("staged"), ours)


def most(name: str, what: str) -> float:
    return max(float(KEPT.read(f"{name}-{seed}")[what]) for seed in SEEDS)


def table() -> None:
    def over(name: str, ours: str = "staged") -> Callable[[], Interval]:
        return lambda: paired_difference(of(ours), of(name))

    rows = [
        row("uav.staged-minus-sft", "points", interval(over("sft"), 3)),
        row("uav.staged-minus-single-stage", "points", interval(over("single"), 3)),
        row("uav.staged-minus-reversed", "points", interval(over("reversed"), 3)),
        row("uav.staged-minus-rl-only", "points", interval(over("rl"), 3)),
        row("uav.staged-minus-base", "points", interval(over("base"), 3)),
        row("uav.worst-forgetting", "points", forgotten),
        row("uav.unseen-minus-seen", "points", interval(unlike, 3)),
        row("uav.int8.memory-share", "share", lean),
        row("uav.int8.accuracy-loss", "points", interval(rounded, 3)),
        *(row(f"uav.{name}.places-thought", "points", interval(partial(placed, name), 1 if name == "base" else 3))
          for name in ("base", *THINKING)),
        row("vision.group-expansion.error", "abs log-probability", lambda: KEPT.read("expansion")),
        *(row(f"uav.{name}.correct", "points", interval(partial(lambda n: hierarchical_bootstrap(of(n)), name), n))
          for name, n in (("base", 1), *((arm, 3) for arm in ARMS))),
        row("uav.many.staged-minus-sft", "points", interval(over("many-sft", "many-staged"), 3)),
        *(row(f"uav.many.{name}.correct", "points", interval(partial(lambda n: hierarchical_bootstrap(of(n)), f"many-{name}"), n))
          for name, n in (("base", 1), ("staged", 3), ("sft", 3))),
        *(row(f"uav.{name}.{task}", "share", partial(on, name, task)) for name in ("staged", "sft") for task in EIGHT),
        *(row(f"uav.{name}.tokens", "tokens", partial(lambda n: {"value": most(n, "tokens")}, name))
          for name in ARMS),
        *(row(f"uav.many.{name}.tokens", "tokens", partial(lambda n: {"value": most(n, "tokens")}, f"many-{name}"))
          for name in ("staged", "sft")),
        row("uav.training-run.minutes", "minutes", lambda: KEPT.read("alone")),
    ]  # fmt: skip
    Path("results/uav.json").write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    args = asked_for(
        __doc__, f"base, {', '.join(ARMS)}, int8, expansion, thoughts, alone, many-base, many-staged, many-sft", SEEDS
    )
    quiet_libraries()
    if not args.write:
        known = {"questions": str(QUESTIONS), "sources": sources()}
        measures: dict[str, tuple[dict[str, str], Callable[[], Found]]] = {
            "base": (known | {"base": base(BUNDLED)}, partial(untrained, "staged")),
            "alone": ({"recipe": experiments(0)["staged"].fingerprint()}, alone),
            "expansion": ({"base": base(BUNDLED)}, expanded),
        }
        if MANY.exists():
            measures["many-base"] = (known | {"base": base(MANY)}, partial(untrained, "many-staged"))
        for seed in args.seeds:
            for name, recipe in experiments(seed).items():
                many = name.startswith("many")
                if many and not MANY.exists():
                    continue
                made_by = known | {"base": base(MANY if many else BUNDLED), "recipe": recipe.fingerprint()}
                measures[f"{name}-{seed}"] = (made_by, partial(trained, name, seed))
                if name == "staged":
                    measures[f"int8-{seed}"] = (made_by, partial(integers, seed))
        measures["thoughts"] = (known | thinking(), thoughts)  # of what has been trained by now
        KEPT.keep_all(measures, args.only)
    table()


def sources() -> str:
    """Changes with what asks, draws and compares."""
    files = sorted(Path("src/memorist/tasks/aerial").glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


if __name__ == "__main__":
    main()
