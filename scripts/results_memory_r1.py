"""Measure the rows of Memory-R1: three seeds, held-out dialogues, resumable. Writes results/memory-r1.json.

Each (experiment, seed) is trained once into runs/results/… and judged once into results/memory-r1/NAME-SEED.json, every
question with its points, so that the rows can be made again without training. What is there already is not done again
as long as recipe and base are those that it was made with; several processes may share the work by --only and --seed.
Hyperparameters were chosen on the validation split; only this script looks at the test split.
Run: python scripts/results_memory_r1.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from results_kit import Found, Kept, Right, base, line
from results_kit import row as table_row
from rich.console import Console

from memorist import __version__
from memorist.evaluation.benchmarks import locomo
from memorist.evaluation.demo import demo
from memorist.evaluation.exam import gold_bank, sit, tune_heuristic
from memorist.evaluation.runs import greedy_seats, train
from memorist.evaluation.statistics import Interval, hierarchical_bootstrap, paired_difference, ratio_headroom
from memorist.models.registry import quiet_libraries
from memorist.recipe import Recipe, load_recipe
from memorist.tasks.world import dialogues
from memorist.training.rollout import Seat

RUNS = Path("runs/results")
KEPT = Kept("results/memory-r1")
keep, read = KEPT.keep, KEPT.read
row = partial(table_row, how="make results-memory-r1")
SEEDS = (0, 1, 2)
TEST = 40
FEW = 152


def makers(name: str, seed: int) -> dict[str, str]:
    """What an experiment's outcome depends on: base, recipe and, where it starts from it, the trained Manager's recipe."""
    found = {"base": base(), "recipe": experiments(seed)[name].fingerprint()}
    return found | ({"manager": experiments(seed)["manager"].fingerprint()} if name.startswith("answerer") else {})


def frozen(recipe: Recipe) -> Found:
    """Base, gold and tuned heuristic, on both grammars."""
    build, seats = recipe.agent.build, greedy_seats(recipe.models)
    tuned = tune_heuristic(build, dialogues("train", 20, seed=77), seats["answerer"])
    found: Found = {"tuned": tuned.name}
    for grammar in ("a", "b"):
        test = dialogues("test", TEST, grammar=grammar)
        found[f"base.{grammar}"] = sit("base", build, test, seats).right()
        found[f"gold.{grammar}"] = sit("gold", build, test, seats, bank=gold_bank).right()
        found[f"tuned.{grammar}"] = sit("tuned", build, test, {**seats, "manager": Seat(tuned)}).right()
    return found


def trained(name: str, seed: int) -> Found:
    """Train (or go on), then judge the recipe's models with the trained role in its place, on both grammars."""
    recipe, folder = experiments(seed)[name], RUNS / f"{name}-{seed}"
    manager = RUNS / f"manager-{seed}" / "policies" / "manager"
    if name.startswith("answerer") and not manager.exists():  # Its outcome may be here while its weights are not.
        train(experiments(seed)["manager"], RUNS / f"manager-{seed}", resume=True, progress=line(f"manager-{seed}"))
    train(recipe, folder, resume=True, progress=line(folder.name))
    build, seats = recipe.agent.build, greedy_seats(recipe.models, folder)
    return {g: sit("trained", build, dialogues("test", TEST, grammar=g), seats).right() for g in ("a", "b")}


def experiments(seed: int) -> dict[str, Recipe]:
    """What is trained, by name. The Answer Agent learns on the banks of this seed's trained Manager."""
    long = load_recipe("memory-r1")
    by_role = {role: tuple(stage for stage in long.stages if stage.role == role) for role in ("manager", "answerer")}
    long = replace(long, seed=seed, data=replace(long.data, seed=seed), stages=by_role["manager"])
    managed = replace(long, models={**long.models, "manager": str(RUNS / f"manager-{seed}" / "policies" / "manager")})
    return {
        "manager": long,
        "sft": replace(load_recipe("memory-r1-sft"), seed=seed, data=long.data),
        "manager-ppo": replace(load_recipe("memory-r1-ppo"), seed=seed, data=long.data),
        "counterfactual": (by_decision := replace(load_recipe("memory-r1-counterfactual"), seed=seed, data=long.data)),
        # Eight siblings of each dialogue instead of one run and its replays, which take twice as long.
        "trajectory": replace(
            by_decision, stages=tuple(replace(s, rule="grpo", siblings=8) for s in by_decision.stages)
        ),
        "few": replace(long, data=replace(long.data, questions=FEW)),
        "answerer": replace(managed, stages=by_role["answerer"]),
        "answerer-sft": replace(managed, stages=tuple(replace(s, kind="rejection") for s in by_role["answerer"])),
    }


def demonstrated() -> Found:
    """The demo, as `make demo` runs it."""
    shown = demo(RUNS / "demo", Console())
    return {"gain": shown.manager_gain.to_json(), "both": shown.gain.to_json(), "seconds": shown.seconds}


def unit_tests() -> Found:
    """Seconds that the unit tests take, the start of Python included."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "pytest"], check=True)
    return {"seconds": time.monotonic() - began}


def real_dialogues() -> Found:
    """Token F1 on LoCoMo's test conversations, per conversation."""
    found = locomo(None, None)
    scores = found.scores["memory-r1"]["mem0-v1"]
    values: Right = {}
    for scored in scores.questions:
        values.setdefault(scored.prediction.dialogue, []).append(100 * scored.values["f1"])
    return {"data": found.data, "f1": values}


SINGLE = {"demo": demonstrated, "tests": unit_tests, "locomo": real_dialogues}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, nargs="*", default=SEEDS, help="only these seeds, to share the work")
    parser.add_argument("--only", nargs="*", help=f"of {', '.join([*experiments(0), *SINGLE])}; default all")
    parser.add_argument("--write", action="store_true", help="only write the rows of what has been measured")
    args = parser.parse_args()
    quiet_libraries()
    names = [] if args.write else args.only or [*experiments(0), *SINGLE]
    if names:
        keep("frozen", {"base": base()}, lambda: frozen(load_recipe("memory-r1")))
    for name in (n for n in experiments(0) if n in names):
        for seed in args.seed:
            keep(f"{name}-{seed}", makers(name, seed), partial(trained, name, seed))
    for name in (n for n in SINGLE if n in names):
        made_by = {"base": base(), "version": __version__, "recipe": load_recipe("memory-r1-demo").fingerprint()}
        keep(name, made_by, SINGLE[name])
    write()


def write() -> None:
    """All rows, with null and a reason where something was not measured."""

    def of(name: str, grammar: str = "a") -> dict[int, Right]:
        return {seed: read(f"{name}-{seed}")[grammar] for seed in SEEDS}

    def still(name: str, grammar: str = "a") -> dict[int, Right]:
        return {0: read("frozen")[f"{name}.{grammar}"]}

    def headroom(name: str, grammar: str = "a") -> Interval:
        return ratio_headroom(still("base", grammar), of(name, grammar), still("gold", grammar))

    points: dict[str, Callable[[], Interval]] = {
        "memory-r1.base.em": lambda: hierarchical_bootstrap(still("base")),
        "memory-r1.gold.em": lambda: hierarchical_bootstrap(still("gold")),
        "memory-r1.tuned-heuristic.em": lambda: hierarchical_bootstrap(still("tuned")),
        "memory-r1.manager-grpo.em": lambda: hierarchical_bootstrap(of("manager")),
        "memory-r1.manager-ppo.em": lambda: hierarchical_bootstrap(of("manager-ppo")),
        "memory-r1.manager-sft.em": lambda: hierarchical_bootstrap(of("sft")),
        "memory-r1.answerer-grpo.em": lambda: hierarchical_bootstrap(of("answerer")),
        "memory-r1.answerer-sft.em": lambda: hierarchical_bootstrap(of("answerer-sft")),
        "memory-r1.unseen-phrasing.base.em": lambda: hierarchical_bootstrap(still("base", "b")),
        "memory-r1.unseen-phrasing.gold.em": lambda: hierarchical_bootstrap(still("gold", "b")),
        "memory-r1.unseen-phrasing.manager-grpo.em": lambda: hierarchical_bootstrap(of("manager", "b")),
        "memory-r1.manager-grpo.over-tuned-heuristic": lambda: paired_difference(of("manager"), still("tuned")),
        "memory-r1.manager-grpo.over-sft": lambda: paired_difference(of("manager"), of("sft")),
        "memory-r1.counterfactual-minus-trajectory-credit": lambda: paired_difference(
            of("counterfactual"), of("trajectory")
        ),
        "memory-r1.answerer-grpo.over-sft": lambda: paired_difference(of("answerer"), of("answerer-sft")),
        "locomo.memory-r1-bundled.f1": lambda: hierarchical_bootstrap({0: read("locomo")["f1"]}),
    }
    shares: dict[str, Callable[[], Interval]] = {
        "memory-r1.manager-grpo.headroom": lambda: headroom("manager"),
        "memory-r1.manager-grpo.unseen-phrasing.headroom": lambda: headroom("manager", "b"),
        "memory-r1.manager-ppo.headroom": lambda: headroom("manager-ppo"),
        "memory-r1.manager-grpo.152-questions.headroom": lambda: headroom("few"),
        # The Answer Agent's ceiling: every question right.
        "memory-r1.answerer-grpo.headroom": lambda: ratio_headroom(of("manager"), of("answerer"), perfect(of("manager"))),
    }  # fmt: skip
    rows = [row(name, "points", lambda m=m: m().to_json() | {"seeds": len(SEEDS)}) for name, m in points.items()]
    rows += [row(name, "share", lambda m=m: m().to_json() | {"seeds": len(SEEDS)}) for name, m in shares.items()]
    rows += [
        row("demo.manager.gain", "points", lambda: read("demo")["gain"] | {"seeds": 1}),
        row("demo.both.gain", "points", lambda: read("demo")["both"] | {"seeds": 1}),
        row("demo.seconds", "s", lambda: {"value": read("demo")["seconds"], "seeds": 1}),
        row("tests.seconds", "s", lambda: {"value": read("tests")["seconds"], "seeds": 1}),
    ]
    for name in ("base.em", "gold.em", "tuned-heuristic.em", "unseen-phrasing.base.em", "unseen-phrasing.gold.em"):
        next(r for r in rows if r["row"] == f"memory-r1.{name}")["seeds"] = 1  # nothing was trained
    next(r for r in rows if r["row"].startswith("locomo"))["seeds"] = 1
    Path("results").mkdir(exist_ok=True)
    Path("results/memory-r1.json").write_text(json.dumps(rows, indent=1) + "\n")


def perfect(right: Mapping[int, Right]) -> dict[int, Right]:
    """Every question right."""
    return {seed: {d: [100.0] * len(v) for d, v in found.items()} for seed, found in right.items()}


if __name__ == "__main__":
    main()
