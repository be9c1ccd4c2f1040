"""Measure the rows of ESearch on homes that no run has seen. Resumable: trained runs stay in runs/results, outcomes in
results/household.

Arms, all from the same base and for as many steps: costs that rank successes (`rl`), costs that count always (`linear`), and
one who is not told what acts cost and learns to find alone (`react`: what the specification calls so is prompted and not trained;
without the entropy bonus of the others: with it, and with nothing that costs, it walked about, at 50 a search).
Recipe, base and prompts were chosen on the validation split; scripted searchers are tuned on homes of the train split (which
attributes are asked for), the planner is not tuned.
Run: python scripts/results_household.py
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from results_kit import Found, Kept, asked_for, base, interval, line
from results_kit import row as table_row

from memorist.agents.search_heuristics import SEARCHERS, AskThenSweep, Searcher
from memorist.agents.search_planner import Planner
from memorist.evaluation.household import by_model, by_script
from memorist.evaluation.runs import greedy_seats, train
from memorist.evaluation.statistics import Interval, hierarchical_bootstrap, paired_difference, ratio_of_means
from memorist.models.registry import quiet_libraries
from memorist.recipe import Recipe, load_recipe
from memorist.tasks.household.episode import Prices
from memorist.tasks.household.measures import swc, with_failures
from memorist.tasks.household.scene import VALUES
from memorist.tasks.household.searching import HouseholdData
from memorist.tasks.household.world import Household

RUNS = Path("runs/results")
KEPT = Kept("results/household")
row = partial(table_row, how="make results-household")
SEEDS, ARMS = (0, 1, 2), ("rl", "linear", "react")
MORE = (*SEEDS, 3, 4)
"""Of the recipe and of costs that count always: with three, their difference had an interval from -0.0003 on, so two more were
run, and none after those."""
HELD_OUT = HouseholdData(split="test", homes=500, least=1, most=4)
TUNING = HouseholdData(split="train", homes=200, least=1, most=4)
FRONT = {
    "default": Prices(), "dear": Prices(ask=1.0, fatigue=1.0), "far": Prices(metre=1.5), "near": Prices(metre=0.5)
}  # fmt: skip
"""Prices at which success and cost are compared with scripts."""
FAILURES = (12.5, 25.0, 50.0, 100.0, 200.0)
"""What a failure costs, as the policy is told: by this it is one point of its front or another."""
FRONT_HOMES = replace(HELD_OUT, homes=150)
THOROUGH = Prices(failure=FAILURES[-1])
"""Who is told nothing of costs finds nearly all there is to find, so it is held against the policy where that is told that
finding is worth most: found as much, at what cost?"""


ASIDE = ("gym", "picture", "thor")
"""What nothing that is measured here goes through."""
IN_TURN = replace(HELD_OUT, homes=150, searches=3, least=3, most=3)


def told(house: Household) -> list[float]:
    """Success, cost, cost with failures, success weighted by cost, questions, looks at memory, metres."""
    return [
        float(house.success), house.cost.total, with_failures(house), swc(house), float(house.asked), float(house.read),
        house.distance,
    ]  # fmt: skip


NAMES = ("success", "cost", "with_failures", "swc", "asks", "reads", "metres")


def scripted() -> dict[str, Callable[[], Searcher]]:
    """All that are written down and do not plan."""
    asked = [some for n in (1, 2, 3) for some in combinations(VALUES, n)]
    found = {name: make for name, make in SEARCHERS.items() if name not in ("oracle", "ask-then-sweep")}
    return found | {f"ask-{'-'.join(some)}": partial(AskThenSweep, some) for some in asked}


def script(make: Callable[[], Searcher], data: HouseholdData, prices: Prices | None = None) -> list[list[float]]:
    return [told(house) for house in by_script(make, data, prices)]


def model(recipe: Recipe, seats: Mapping[str, Any], data: HouseholdData, prices: Prices | None = None) -> list[list[float]]:  # fmt: skip
    """Of the first search of each home."""
    return [told(houses[0]) for houses in by_model(seats, recipe.agent, data, prices)]  # type: ignore[arg-type]


def measure_scripts() -> Found:
    """Each on held-out homes, at several prices, and on those that they are tuned on."""
    makers = scripted()
    found: Found = {
        "tuning": {name: mean(script(make, TUNING), "with_failures") for name, make in makers.items()},
        "held-out": {name: script(make, HELD_OUT) for name, make in makers.items()},
        "front": {
            place: {name: summary(script(make, FRONT_HOMES, prices)) for name, make in makers.items()}
            for place, prices in FRONT.items()
        },
    }  # fmt: skip
    found["held-out"]["planner"] = script(Planner, HELD_OUT)
    found["held-out"]["oracle"] = script(SEARCHERS["oracle"], HELD_OUT)
    for name, some in found["held-out"].items():
        print(f"{name:22}", summary(some), flush=True)
    return found


def mean(some: Sequence[Sequence[float]], name: str) -> float:
    return float(np.mean([one[NAMES.index(name)] for one in some]))


def summary(some: Sequence[Sequence[float]]) -> dict[str, float]:
    return {name: round(mean(some, name), 4) for name in NAMES}


def experiments(seed: int) -> dict[str, Recipe]:
    recipe = replace(load_recipe("esearch"), seed=seed)
    [stage] = recipe.stages
    free = {"metres": 0.0, "asked": 0.0, "memory": 0.0}
    return {
        "rl": recipe,
        "linear": replace(recipe, stages=(replace(stage, gate=""),)),
        "react": replace(
            recipe,
            agent=replace(recipe.agent, costs=False),
            stages=(replace(stage, rewards=free, entropy=0.0),),  # type: ignore[type-var]
        ),
    }


def learnt(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Greedy seats of a run that has been.

    Raises:
        KeyError: it has not.
    """
    if not (folder / "policies" / "seeker").exists():
        raise KeyError(folder.name)
    return greedy_seats(recipe.models, folder)


def sources() -> str:
    """Changes with what searches and is searched."""
    root = Path("src/memorist")
    home = [file for file in sorted((root / "tasks" / "household").glob("*.py")) if file.stem not in ASIDE]
    files = [*home, *sorted((root / "agents").glob("search_*.py")),
             root / "agents" / "esearch.py", root / "agents" / "components" / "household_prompts.py"]  # fmt: skip
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def trained(name: str, seed: int) -> Found:
    recipe, folder = experiments(seed)[name], RUNS / f"esearch-{name}-{seed}"
    train(recipe, folder, resume=True, progress=line(folder.name, 5))
    found = judged(recipe, learnt(recipe, folder))
    steps = [json.loads(one) for one in (folder / "metrics.jsonl").read_text().splitlines()]
    return found | {"seconds": sum(step["seconds"] for step in steps)}


def judged(recipe: Recipe, seats: Mapping[str, Any]) -> Found:
    found: Found = {"held-out": model(recipe, seats, HELD_OUT)}
    print(summary(found["held-out"]), flush=True)
    found["front"] = {
        place: [summary(model(recipe, seats, FRONT_HOMES, replace(prices, failure=one))) for one in FAILURES]
        for place, prices in FRONT.items()
    }
    return found


def in_turn(seed: int) -> Found:
    """What the second and third searches of a home cost, with failures, where what was seen before is remembered and
    where only what was known at first is."""
    recipe, folder = experiments(seed)["rl"], RUNS / f"esearch-rl-{seed}"
    seats, found = learnt(recipe, folder), {}
    for notes in ("all", "none"):
        settings = replace(recipe.agent, notes=notes)  # type: ignore[type-var]
        found[notes] = [[told(house) for house in houses[1:]] for houses in by_model(seats, settings, IN_TURN)]  # type: ignore[arg-type]
    return found


def thorough(seed: int) -> Found:
    """Where the policy is told that a failure costs most; costs are counted as everywhere."""
    recipe = experiments(seed)["rl"]
    found = model(recipe, learnt(recipe, RUNS / f"esearch-rl-{seed}"), HELD_OUT, THOROUGH)
    print(summary(found), flush=True)
    return {"held-out": found}


def untrained() -> Found:
    recipe = experiments(0)["rl"]
    return judged(recipe, greedy_seats(recipe.models))


# Rows.


def of(name: str, what: str, seeds: Sequence[int] = SEEDS) -> dict[int, dict[str, list[float]]]:
    """A measure of each held-out search, by seed."""
    place = NAMES.index(what)
    if name in (*ARMS, "thorough"):
        return {seed: by_home(KEPT.read(f"{name}-{seed}")["held-out"], place) for seed in seeds}
    if name == "base":
        return {0: by_home(KEPT.read("base")["held-out"], place)}
    return {0: by_home(KEPT.read("scripts")["held-out"][name], place)}


def by_home(some: Sequence[Sequence[float]], place: int) -> dict[str, list[float]]:
    return {str(i): [one[place]] for i, one in enumerate(some)}


def best_script() -> str:
    """The one that costs least, failures counted, on the homes that scripts are tuned on."""
    tuned = KEPT.read("scripts")["tuning"]
    return str(min(tuned, key=lambda name: tuned[name]))


def points(some: Mapping[int, Mapping[str, Sequence[float]]]) -> dict[int, dict[str, list[float]]]:
    return {seed: {who: [100 * v for v in own] for who, own in run.items()} for seed, run in some.items()}


def front_share(every: bool) -> Found:
    """Of the scripts' points of half success and more, the share for which the policy, told some price of a failure,
    finds as much for no more; of every point, or of those alone that no other script's point is as good as."""
    scripts, won, count = KEPT.read("scripts")["front"], 0, 0
    for seed in SEEDS:
        ours = KEPT.read(f"rl-{seed}")["front"]
        for place, theirs in scripts.items():
            for name, one in theirs.items():
                others = [other for who, other in theirs.items() if who != name]
                if one["success"] >= 0.5 and (every or not any(_as_good(other, one) for other in others)):
                    count += 1
                    won += any(_as_good(mine, one) for mine in ours[place])
    return {"value": won / count, "n": count // len(SEEDS), "seeds": len(SEEDS)}


def _as_good(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one["success"] >= other["success"] and one["cost"] <= other["cost"]


def later(notes: str, what: str) -> dict[int, dict[str, list[float]]]:
    """A measure of the second and third searches of each home, by seed."""
    place = NAMES.index(what)
    return {
        seed: {str(i): [one[place] for one in own] for i, own in enumerate(KEPT.read(f"homes-{seed}")[notes])}
        for seed in SEEDS
    }


def gap() -> Interval:
    """Success weighted by cost: how far below the planner's, as a share of it."""
    return ratio_of_means(difference(of("planner", "swc"), of("rl", "swc")), of("planner", "swc"))


def difference(ours: Mapping[int, Any], theirs: Mapping[int, Any]) -> dict[int, dict[str, list[float]]]:
    return {
        seed: {who: [ours.get(seed, ours[0])[who][0] - own[0]] for who, own in run.items()}
        for seed, run in theirs.items()
    }  # fmt: skip


def minutes() -> Found:
    return {"value": max(KEPT.read(f"rl-{seed}")["seconds"] for seed in SEEDS) / 60, "seeds": len(SEEDS)}


def table() -> None:
    def cheaper(than: str) -> Callable[[], Interval]:
        return lambda: ratio_of_means(of(than, "with_failures"), of("rl", "with_failures"))

    rows = [
        row("esearch.cost-with-failures-vs-memory-ask", "ratio", interval(cheaper("memory-and-ask"), 3)),
        row("esearch.success-minus-memory-ask", "points",
            interval(lambda: paired_difference(points(of("rl", "success")), points(of("memory-and-ask", "success"))), 3)),
        row("esearch.cost-with-failures-vs-best-scripted", "ratio", interval(lambda: cheaper(best_script())(), 3)),
        row("esearch.swc-gap-to-planner", "share", interval(gap, 3)),
        row("esearch.cost-vs-react", "ratio",
            interval(lambda: ratio_of_means(of("react", "cost"), of("thorough", "cost")), 3)),
        row("esearch.success-minus-react", "points",
            interval(lambda: paired_difference(points(of("thorough", "success")), points(of("react", "success"))), 3)),
        row("esearch.at-default-prices.cost-vs-react", "ratio",
            interval(lambda: ratio_of_means(of("react", "cost"), of("rl", "cost")), 3)),
        row("esearch.at-default-prices.success-minus-react", "points",
            interval(lambda: paired_difference(points(of("rl", "success")), points(of("react", "success"))), 3)),
        row("esearch.gated-minus-linear", "swc",
            interval(lambda: paired_difference(of("rl", "swc", MORE), of("linear", "swc", MORE)), len(MORE))),
        row("esearch.gated-minus-linear.three-seeds", "swc",
            interval(lambda: paired_difference(of("rl", "swc"), of("linear", "swc")), 3)),
        row("esearch.front-share", "share", partial(front_share, True)),
        row("esearch.front-share.of-undominated", "share", partial(front_share, False)),
        row("esearch.remembering.cost-with-failures-saved", "cost", interval(
            lambda: paired_difference(later("none", "with_failures"), later("all", "with_failures")), 3)),
        *(row(f"esearch.{name}.{what}", unit,
              interval(partial(lambda name, what: hierarchical_bootstrap(of(name, what)), name, what), 3 if name in (*ARMS, "thorough") else 1))
          for name in ("rl", "thorough", "linear", "react", "base", "memory-and-ask", "planner")
          for what, unit in (("success", "share"), ("with_failures", "cost"), ("cost", "cost"), ("swc", "share"))
          if (name, what) != ("thorough", "with_failures")),  # at another price of a failure than the others'
        row("esearch.training-run.minutes", "minutes", minutes),
    ]  # fmt: skip
    Path("results/household.json").write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    args = asked_for(__doc__, "scripts, base, rl, thorough, linear, react, homes", MORE)
    quiet_libraries()
    if not args.write:
        homes = {"homes": str(HELD_OUT), "front": f"{FRONT} {FAILURES} {FRONT_HOMES}", "sources": sources()}
        learnt_from = homes | {"base": base("bundled-seeker")}
        measures: dict[str, tuple[dict[str, str], Callable[[], Found]]] = {
            "scripts": (homes | {"tuning": str(TUNING)}, measure_scripts), "base": (learnt_from, untrained)
        }  # fmt: skip
        for seed in args.seeds:
            for name, recipe in experiments(seed).items():
                if seed not in SEEDS and name == "react":
                    continue
                known = learnt_from | {"recipe": recipe.fingerprint()}
                measures[f"{name}-{seed}"] = (known, partial(trained, name, seed))
                if name == "rl" and seed in SEEDS:
                    measures[f"thorough-{seed}"] = (known | {"told": str(THOROUGH)}, partial(thorough, seed))
                    measures[f"homes-{seed}"] = (known | {"in turn": str(IN_TURN)}, partial(in_turn, seed))
        KEPT.keep_all(measures, args.only)
    table()


if __name__ == "__main__":
    main()
