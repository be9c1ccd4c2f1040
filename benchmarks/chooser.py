"""How long the bundled chooser takes, by 2 threads: a decision about a statement beside ten memories whose vectors are
stored, and the whole of `observe` of one statement, written to the disk.

    python benchmarks/chooser.py [--json results/chooser-speed.json] [--records 1000] [--processes 8]

Statements and memories are those of the hand-written development cases. The rules that `observe` asks take turns with
the chooser in the second row. The first row is of several processes, one after the other, since one whose second core
is busy takes much longer: `each` has their medians, low and high the least and most of them. Bound of a decision:
eleven pairs of some 25 tokens through six layers of 384 are 2 * 11 * 25 * 6 * 12 * 384^2 = 5.8 GFLOP.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memorist import Memory, Scope
from memorist.agents.offline import OfflineAgent
from memorist.agents.rules import RuleAgent
from memorist.models.chooser import Chooser, logits
from memorist.tasks.statements import cases

Row = dict[str, Any]
CANDIDATES = 10
ROUNDS = 150
SOMEONE = Scope("someone")


def row(name: str, taken: list[float], target: float, **more: Any) -> Row:
    order = sorted(taken)
    half, middle = int(0.98 * len(order) ** 0.5), len(order) // 2
    found = {"row": name, "value": statistics.median(order), "unit": "ms", "low": order[middle - half],
             "high": order[middle + half], "n": len(order), "peer": None, "peer_value": None, "target": target,
             "how": "python benchmarks/chooser.py", "device": "2 CPU cores",
             "date": datetime.date.today().isoformat()}  # fmt: skip
    return found | more


def decisions() -> list[float]:
    """Milliseconds of each decision."""
    some = cases("development")
    memories = list(dict.fromkeys(m for case in some for m in case.memories))
    chooser, taken = Chooser(), []
    for number, case in zip(range(ROUNDS + 10), itertools.cycle(some), strict=False):
        beside = [memories[(7 * number + i) % len(memories)] for i in range(CANDIDATES)]
        began = time.perf_counter()
        logits(chooser.outputs(case.statement, beside)).argmax()
        taken.append(1000 * (time.perf_counter() - began))
    return taken[10:]


def by_process(processes: int) -> Row:
    """The row of decisions: the median of each process, and of these."""
    command = [sys.executable, __file__, "--decisions"]
    every = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(processes)
    ]
    each = [statistics.median(taken) for taken in every]
    taken = [one for process in every for one in process]
    spread = {"value": statistics.median(each), "low": min(each), "high": max(each), "each": each}
    return row("chooser.decision-ms", taken, 15.0, candidates=CANDIDATES) | spread


def observed(records: int) -> dict[str, list[float]]:
    """Milliseconds of each observation of one statement, by the chooser and by rules, in turns."""
    some = cases("development")
    taken: dict[str, list[float]] = {"chooser": [], "rules": []}
    with tempfile.TemporaryDirectory() as folder:
        agents: dict[str, Any] = {"chooser": OfflineAgent, "rules": RuleAgent}
        memories = {name: Memory(Path(folder) / f"{name}.db", agent=agent) for name, agent in agents.items()}
        texts = [f"{case.memories[0]} ({i})" for i, case in zip(range(records), itertools.cycle(some), strict=False)]
        for memory in memories.values():
            memory.add_many(texts, SOMEONE)
        for number, case in zip(range(ROUNDS + 10), itertools.cycle(some), strict=False):
            for name, memory in memories.items():
                began = time.perf_counter()
                memory.observe(f"{case.statement.rstrip('.')} (no. {number}).", SOMEONE)
                taken[name].append(1000 * (time.perf_counter() - began))
        for memory in memories.values():
            memory.close()
    return {name: times[10:] for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=8, help="in which decisions are measured")
    parser.add_argument("--decisions", action="store_true", help="print one process's milliseconds alone")
    args = parser.parse_args()
    if args.decisions:
        print(json.dumps(decisions()))
        return
    whole = observed(args.records)
    rows = [
        by_process(args.processes),
        row("chooser.observe-ms", whole["chooser"], 40.0, peer="rules", peer_value=statistics.median(whole["rules"])),
    ]
    print(json.dumps(rows, indent=1))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
