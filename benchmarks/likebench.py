"""LikeBench's own rows: how long forty people take, whether its orderings hold, whether cheats are liked.

    python benchmarks/likebench.py [--json results/likebench.json]

Seconds are of all seven assistants, offline, in one process; the bound is none: it is Python over short texts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from pathlib import Path
from typing import Any

from memorist.evaluation.likebench.assistants import BASELINES
from memorist.evaluation.likebench.bench import SIZES, Size, bench
from memorist.evaluation.likebench.metrics import adaptability


def row(name: str, value: float, unit: str, target: float | None, **more: Any) -> dict[str, Any]:
    found = {"row": name, "value": value, "unit": unit, "target": target, "peer": None, "peer_value": None,
             "how": "python benchmarks/likebench.py", "device": "2 CPU cores",
             "date": datetime.date.today().isoformat()}  # fmt: skip
    return found | more


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
    print(json.dumps(rows, indent=1))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
