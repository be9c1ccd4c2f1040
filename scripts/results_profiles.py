"""Measure the rows of PersonaTree's listener on invented people. Resumable: trained runs stay in runs/results, outcomes in
results/profiles.

People are of the validation split, whose values no run has seen. Baselines: the rules that the base imitates without their
errors, the chooser's listener, nothing; imitation of the base's own successes for as long. Answers are by one frozen answerer
that takes the nearest clause or line, so they say what a tree is worth, not how well somebody words it.
Run: python scripts/results_profiles.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from results_chooser import count
from results_kit import Found, Kept, Right, asked_for, base, interval, line
from results_kit import row as table_row

from memorist.agents.personatree import PersonaTreeSettings
from memorist.agents.profile_heuristics import RuleListener
from memorist.agents.profile_offline import OfflineAnswerer, OfflineListener
from memorist.evaluation.listening import judged, truncated
from memorist.evaluation.runs import greedy_seats, train
from memorist.evaluation.statistics import Interval, hierarchical_bootstrap, paired_difference, ratio_headroom
from memorist.memory.scratch import minilm_bank
from memorist.models.registry import open_role, quiet_libraries
from memorist.models.sampler import Sampler
from memorist.models.scripted import ScriptedSampler
from memorist.recipe import Recipe, load_recipe
from memorist.tasks.profiles import ProfilesData

RUNS = Path("runs/results")
KEPT = Kept("results/profiles")
row = partial(table_row, how="make results-profiles")
SEEDS = (0, 1, 2)
PEOPLE = ProfilesData(split="validation", people=100, statements=60, bank="minilm")
COMPACT = PersonaTreeSettings(style="compact", pairs=1)
EXPERIMENTS = {"rl": "personatree", "sft": "personatree-sft"}


def measured(listener: Sampler, settings: PersonaTreeSettings = COMPACT) -> Found:
    """All that the rows are made of."""
    answerer, tokens = OfflineAnswerer(minilm_bank().embedder), count()
    worth = judged(listener, answerer, settings, PEOPLE, tokens)
    found = asdict(worth)
    found["answers"]["truncated"] = truncated(answerer, PEOPLE, tokens, worth.shown["fast"])
    states = [state for own in worth.states.values() for state in own]
    print({"state": float(np.mean(states)), "foreign": worth.foreign / max(1, worth.clauses)},
          {mode: mean(points) for mode, points in found["answers"].items()}, flush=True)  # fmt: skip
    return found


def mean(points: Right) -> float:
    return float(np.mean([value for own in points.values() for value in own]))


def trained(name: str, seed: int) -> Found:
    recipe, folder = experiment(name, seed), RUNS / f"personatree-{name}-{seed}"
    train(recipe, folder, resume=True, progress=line(folder.name))
    return measured(greedy_seats(recipe.models, folder)["listener"].sampler) | {"seconds": seconds(folder)}


def seconds(folder: Path) -> float:
    """What a run's steps took."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return float(sum(json.loads(one)["seconds"] for one in lines))


def experiment(name: str, seed: int) -> Recipe:
    return replace(load_recipe(EXPERIMENTS[name]), seed=seed)


def still() -> dict[str, Callable[[], Found]]:
    """What is not trained."""
    full = replace(COMPACT, style="full", branches=1)
    return {
        "base": lambda: measured(open_role("bundled-listener")),
        "rules": lambda: measured(RuleListener()),
        "offline": lambda: measured(OfflineListener(embedder=minilm_bank().embedder), full),
        "nothing": lambda: measured(ScriptedSampler(lambda request: "NO_OP()")),
    }


# Rows.


def states(name: str) -> dict[int, Right]:
    return {0: KEPT.read(name)["states"]} if name in still() else each(name, lambda found: found["states"])


def each(name: str, part: Callable[[Found], Right]) -> dict[int, Right]:
    return {seed: part(KEPT.read(f"{name}-{seed}")) for seed in SEEDS}


def answers(name: str, mode: str) -> dict[int, Right]:
    return each(name, lambda found: {who: own for who, own in found["answers"][mode].items() if own})


def perfect() -> dict[int, Right]:
    return {seed: {who: [1.0] * len(own) for who, own in KEPT.read("base")["states"].items()} for seed in SEEDS}


def difference(ours: Mapping[int, Right], theirs: Mapping[int, Right]) -> dict[int, Right]:
    return {
        seed: {who: [a - b for a, b in zip(own, theirs[seed][who], strict=True)] for who, own in run.items()}
        for seed, run in ours.items()
    }


def contamination(name: str) -> Found:
    some = [KEPT.read(f"{name}-{seed}") for seed in SEEDS] if name in EXPERIMENTS else [KEPT.read(name)]
    value = sum(one["foreign"] for one in some) / max(1, sum(one["clauses"] for one in some))
    return {"value": value, "n": len(some[0]["states"]), "seeds": len(some)}


def token_ratio(mode: str) -> Found:
    """Tokens that an answerer is shown in a mode, of those in fast mode."""
    some = [KEPT.read(f"rl-{seed}")["shown"] for seed in SEEDS]
    return {"value": float(np.mean([mean(one[mode]) / mean(one["fast"]) for one in some])), "seeds": len(SEEDS)}


def minutes() -> Found:
    return {"value": max(KEPT.read(f"rl-{seed}")["seconds"] for seed in SEEDS) / 60, "seeds": len(SEEDS)}


def table() -> None:
    def over(name: str) -> Callable[[], Interval]:
        return lambda: paired_difference(states("rl"), states(name))

    def gain(mode: str, than: str = "fast") -> Callable[[], Interval]:
        return lambda: hierarchical_bootstrap(difference(answers("rl", mode), answers("rl", than)))

    rows = [
        row("personatree.listener.headroom", "share",
            interval(lambda: ratio_headroom(states("base"), states("rl"), perfect()), 3)),
        row("personatree.listener.over-rules", "state reward", interval(over("rules"), 3)),
        row("personatree.listener.over-sft", "state reward", interval(over("sft"), 3)),
        row("personatree.listener.over-offline", "state reward", interval(over("offline"), 3)),
        row("personatree.tree-minus-truncation", "points", interval(gain("fast", "truncated"), 3)),
        *(row(f"personatree.{mode}.gain", "points", interval(gain(mode), 3)) for mode in ("agentic", "gated")),
        *(row(f"personatree.{mode}.tokens-of-fast", "ratio", partial(token_ratio, mode)) for mode in ("agentic", "gated")),
        *(row(f"personatree.{name}.state", "state reward",
              interval(partial(lambda name: hierarchical_bootstrap(states(name)), name), len(SEEDS) if name in EXPERIMENTS else 1))
          for name in ("rl", "sft", "base", "rules", "offline", "nothing")),
        *(row("personatree.contamination" if name == "rl" else f"personatree.{name}.contamination", "share",
              partial(contamination, name)) for name in ("rl", "sft", "base", "rules", "offline")),
        row("personatree.training-run.minutes", "minutes", minutes),
    ]  # fmt: skip
    Path("results/profiles.json").write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    args = asked_for(__doc__, "base, rules, offline, nothing, rl, sft", SEEDS)
    quiet_libraries()
    if not args.write:
        people = {"people": str(PEOPLE)}
        model = {"base": base("bundled-listener")} | people
        measures: dict[str, tuple[dict[str, str], Callable[[], Any]]] = {
            name: (model if name == "base" else people, measure) for name, measure in still().items()
        }
        for name in EXPERIMENTS:
            for seed in args.seeds:
                known = model | {"recipe": experiment(name, seed).fingerprint()}
                measures[f"{name}-{seed}"] = (known, partial(trained, name, seed))
        KEPT.keep_all(measures, args.only)
    table()


if __name__ == "__main__":
    main()
