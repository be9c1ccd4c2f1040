"""Measure the rows of Memory-R1: three seeds, held-out dialogues, resumable. Writes results/memory-r1.json.

Each (experiment, seed) is trained once into runs/results/… and judged once into a JSON file beside it; what is there
already is not done again. Run: python scripts/results_memory_r1.py [--seeds 3] [--steps 120]
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from memorist.agents.build import builder
from memorist.evaluation.exam import gold_bank, sit, tune_heuristic
from memorist.evaluation.runs import greedy_seats, train
from memorist.evaluation.statistics import Interval, hierarchical_bootstrap, paired_difference, ratio_headroom
from memorist.recipe import Recipe, load_recipe
from memorist.tasks.world import dialogues
from memorist.training.rollout import Seat

Right = dict[str, list[float]]
ROOT = Path("runs/results")
TEST = 40


def judged(place: Path, measure: Any) -> dict[str, Right]:
    """What `measure` gives, kept in a file."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        found = measure()
        place.with_suffix(".new").write_text(json.dumps(found))
        place.with_suffix(".new").rename(place)
    return json.loads(place.read_text())


def frozen(recipe: Recipe) -> dict[str, Right]:
    """Base, gold and tuned heuristic, on both grammars."""
    build, seats = builder(recipe.agent), greedy_seats(recipe.models)
    found: dict[str, Right] = {}
    tuned = tune_heuristic(build, dialogues("train", 20, seed=77), seats["answerer"])
    print(f"tuned heuristic: {tuned.name}")
    for grammar in ("a", "b"):
        test = dialogues("test", TEST, grammar=grammar)
        found[f"base.{grammar}"] = sit("base", build, test, seats).right()
        found[f"gold.{grammar}"] = sit("gold", build, test, seats, bank=gold_bank).right()
        found[f"tuned.{grammar}"] = sit("tuned", build, test, {**seats, "manager": Seat(tuned)}).right()
    return found


def trained(recipe: Recipe, folder: Path) -> dict[str, Right]:
    """Train (or go on), then judge: with the trained roles, and with the trained Manager alone."""
    train(recipe, folder, resume=True, progress=_line(folder.name))
    build, base, seats = builder(recipe.agent), greedy_seats(recipe.models), greedy_seats(recipe.models, folder)
    found: dict[str, Right] = {}
    for grammar in ("a", "b"):
        test = dialogues("test", TEST, grammar=grammar)
        found[f"manager.{grammar}"] = sit("m", build, test, {**base, "manager": seats["manager"]}).right()
        found[f"both.{grammar}"] = sit("both", build, test, seats).right()
    return found


def _line(name: str) -> Any:
    def show(metrics: Mapping[str, Any]) -> None:
        if metrics["step"] % 20 == 0:
            print(
                f"{name} {metrics['role']} step {metrics['step']}/{metrics['steps']} reward {metrics['reward']:.3f}",
                flush=True,
            )

    return show


def experiments(steps: int) -> dict[str, Recipe]:
    """What is trained, by name."""
    long = load_recipe("memory-r1")
    manager, answerer = (replace(s, steps=steps) for s in long.stages)
    few = replace(long.data, questions=152)
    return {
        "grpo": replace(long, stages=(manager, answerer)),
        "sft": replace(long, stages=(replace(manager, kind="rejection"),)),
        "few": replace(long, stages=(manager,), data=few),
        "answerer-sft": replace(long, stages=(manager, replace(answerer, kind="rejection"))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120, help="per stage")
    parser.add_argument("--only", nargs="*", help="experiments; default all")
    args = parser.parse_args()
    still = judged(ROOT / "frozen.json", lambda: frozen(load_recipe("memory-r1")))
    runs: dict[str, dict[int, dict[str, Right]]] = {}
    for name, recipe in experiments(args.steps).items():
        if args.only and name not in args.only:
            continue
        for seed in range(args.seeds):
            folder = ROOT / f"{name}-{args.steps}-{seed}"
            seeded = replace(recipe, seed=seed, data=replace(recipe.data, seed=seed))
            runs.setdefault(name, {})[seed] = judged(
                folder.with_suffix(".json"), lambda r=seeded, f=folder: trained(r, f)
            )
    write(still, runs, args.seeds)


def write(still: Mapping[str, Right], runs: Mapping[str, Mapping[int, Mapping[str, Right]]], seeds: int) -> None:
    """All rows, with null and a reason where something was not trained."""

    def of(name: str, key: str) -> dict[int, Right]:
        return {seed: found[key] for seed, found in runs[name].items()}

    def same(key: str) -> dict[int, Right]:
        return {0: still[key]}

    measures: dict[str, tuple[str, Any]] = {
        "memory-r1.base.em": ("points", lambda: hierarchical_bootstrap(same("base.a"))),
        "memory-r1.gold.em": ("points", lambda: hierarchical_bootstrap(same("gold.a"))),
        "memory-r1.tuned-heuristic.em": ("points", lambda: hierarchical_bootstrap(same("tuned.a"))),
        "memory-r1.manager-grpo.em": ("points", lambda: hierarchical_bootstrap(of("grpo", "manager.a"))),
        "memory-r1.both-grpo.em": ("points", lambda: hierarchical_bootstrap(of("grpo", "both.a"))),
        "memory-r1.manager-grpo.headroom": ("share", lambda: ratio_headroom(same("base.a"), of("grpo", "manager.a"), same("gold.a"))),
        "memory-r1.manager-grpo.over-tuned-heuristic": ("points", lambda: paired_difference(of("grpo", "manager.a"), same("tuned.a"))),
        "memory-r1.manager-grpo.over-sft": ("points", lambda: paired_difference(of("grpo", "manager.a"), of("sft", "manager.a"))),
        "memory-r1.manager-grpo.unseen-phrasing.headroom": ("share", lambda: ratio_headroom(same("base.b"), of("grpo", "manager.b"), same("gold.b"))),
        "memory-r1.manager-grpo.152-questions.headroom": ("share", lambda: ratio_headroom(same("base.a"), of("few", "manager.a"), same("gold.a"))),
        "memory-r1.answerer-grpo.headroom": ("share", lambda: ratio_headroom(of("grpo", "manager.a"), of("grpo", "both.a"), _perfect(of("grpo", "both.a")))),
        "memory-r1.answerer-grpo.over-sft": ("points", lambda: paired_difference(of("grpo", "both.a"), of("answerer-sft", "both.a"))),
    }  # fmt: skip
    rows = []
    for name, (unit, measure) in measures.items():
        row: dict[str, Any] = {
            "row": name, "value": None, "unit": unit, "seeds": seeds, "peer": None, "peer_value": None,
            "how": "make results-memory-r1", "device": "2 CPU cores", "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        try:
            interval: Interval = measure()
            row |= interval.to_json()
        except KeyError as missing:
            row["why"] = f"experiment {missing} has not been run yet"
        rows.append(row)
        print(name, row["value"], row.get("low"), row.get("high"))
    Path("results").mkdir(exist_ok=True)
    Path("results/memory-r1.json").write_text(json.dumps(rows, indent=1) + "\n")


def _perfect(right: Mapping[int, Right]) -> dict[int, Right]:
    """Every question right: the Answer Agent's ceiling."""
    return {seed: {d: [100.0] * len(v) for d, v in found.items()} for seed, found in right.items()}


if __name__ == "__main__":
    main()
