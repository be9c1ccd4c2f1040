"""How many acts a second the household takes on one core, by scripts: homes made anew, and homes that are known.

    python benchmarks/household.py [--json results/household-speed.json] [--homes 300]

A step has to walk the floor once from wherever one stands: about 380 cells. Each repeat makes its homes anew; the
median counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from memorist.agents.search_heuristics import SEARCHERS, searched
from memorist.tasks.household.episode import Episode, episode

SCRIPTS = ("brute-force", "memory-only", "ask-then-sweep", "memory-and-ask")


def rate(searches: list[Episode], began: float) -> float:
    """Acts a second since then."""
    steps = sum(searched(search, SEARCHERS[name]()).steps for search in searches for name in SCRIPTS)
    return steps / (perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--homes", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    fresh, known = [], []
    for repeat in range(args.repeats):
        began = perf_counter()
        searches = [episode(repeat * args.homes + n, n % 4 + 1) for n in range(args.homes)]
        fresh.append(rate(searches, began))
        known.append(rate(searches, perf_counter()))
    kept = {
        "n": args.repeats, "unit": "1/s", "seeds": 1, "peer": None, "peer_value": None, "device": "one CPU core",
        "how": "python benchmarks/household.py", "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    rows = [
        {"row": name, "value": statistics.median(found), "low": min(found), "high": max(found)} | kept
        for name, found in (("household.steps-per-second", fresh), ("household.known-homes.steps-per-second", known))
    ]
    for row in rows:
        print(json.dumps(row))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
