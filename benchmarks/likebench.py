"""LikeBench's own rows: how long forty people take, whether its orderings hold, whether cheats are liked.

    python benchmarks/likebench.py [--json results/likebench.json]

Seconds are of all seven assistants, offline, in one process; the bound is none: it is Python over short texts. The
joined assistant, which computes a sentence encoder's vectors and a chooser's decisions, is measured apart, with people
of three seeds; how strongly it reacts was chosen with people of others.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from pathlib import Path
from typing import Any

from memorist.evaluation.likebench.assistants import BASELINES
from memorist.evaluation.likebench.bench import SIZES, Outcome, Size, bench
from memorist.evaluation.likebench.joined import ASSISTANTS
from memorist.evaluation.likebench.metrics import adaptability
from memorist.evaluation.statistics import paired_difference

SEEDS = (7, 8, 9)
"""Of the people that the joined assistant is measured with."""


def row(name: str, value: float, unit: str, target: float | None, **more: Any) -> dict[str, Any]:
    found = {"row": name, "value": value, "unit": unit, "target": target, "peer": None, "peer_value": None,
             "how": "python benchmarks/likebench.py", "device": "2 CPU cores",
             "date": datetime.date.today().isoformat()}  # fmt: skip
    return found | more


def with_people_of_all_seeds(name: str) -> list[Outcome]:
    return [bench(ASSISTANTS[name], name, SIZES["forty"], seed=seed) for seed in SEEDS]


def joined_rows() -> list[dict[str, Any]]:
    """Likability minus that of adaptive, person by person; the share of its profile's lines that are right, over that
    of perfect memory (which is 1 by construction)."""
    ours, theirs, perfect = (with_people_of_all_seeds(name) for name in ("joined", "adaptive", "memory-only"))
    people = [
        {
            seed: {f"{seed}/{one.persona.id}": [one.likability] for one in outcome.people}
            for seed, outcome in zip(SEEDS, some, strict=True)
        }
        for some in (ours, theirs)
    ]
    gain = paired_difference(*people)
    share = {}
    for name, some in (("joined", ours), ("memory-only", perfect), ("adaptive", theirs)):
        share[name] = {
            key: sum(outcome.memory[key] for outcome in some) / len(some) for key in ("accuracy", "recall", "probe")
        }
    liked = sum(outcome.likability for outcome in ours) / len(ours)
    return [
        row("likebench.joined.likability", liked, "points of 5", None, n=len(ours) * 40, seeds=len(SEEDS)),
        row("likebench.joined-minus-adaptive", gain.value, "points of 5", None, low=gain.low, high=gain.high, n=gain.n,
            seeds=len(SEEDS)),
        row("likebench.joined-memory-share", share["joined"]["accuracy"] / share["memory-only"]["accuracy"], "share",
            0.95, n=len(ours) * 40, seeds=len(SEEDS)),
        *(row(f"likebench.joined.{key}", share["joined"][key], "share", None, seeds=len(SEEDS), peer="adaptive",
              peer_value=share["adaptive"][key]) for key in ("recall", "probe")),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    began = time.perf_counter()
    found = {name: bench(make, name, SIZES["forty"]) for name, make in BASELINES.items()}
    seconds = time.perf_counter() - began
    noisy = bench(BASELINES["adaptive"], "adaptive", Size(40, noise=0.4))
    liked = {name: one.likability for name, one in found.items()}
    slope = {name: adaptability(one.curve).slope for name, one in found.items()}
    held = [
        liked["static"] < liked["memory-only"],
        liked["memory-only"] < liked["style-only"],
        liked["style-only"] < liked["oracle"],
        liked["static"] < liked["adaptive"] < liked["oracle"],
        slope["adaptive"] > 0.03 > abs(slope["static"]),
        adaptability(noisy.curve).slope < slope["adaptive"],
    ]
    cheats = sum(liked[name] < liked["static"] for name in ("flattery", "word-salad"))
    rows = [
        row("likebench.seconds", seconds, "s", 20.0, n=len(found)),
        row("likebench.orderings-held", sum(held) / len(held), "share", 1.0, n=len(held)),
        row("likebench.cheats-below-static", cheats, "count", 2),
        *(
            row(f"likebench.{name}.likability", one.likability, "points of 5", None,
                low=one.interval()[0], high=one.interval()[1], n=len(one.people)) for name, one in found.items()
        ),
    ]  # fmt: skip
    rows += joined_rows()
    print(json.dumps(rows, indent=1))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
