"""What the bundled base can express, on people and values that it never saw: does it choose, point, read, copy?

Greedy replies to the prompts of test dialogues, half of whose lists stand in random order, beside what the two
heuristics say without errors; in the grammar that it knows and in the one that it does not. Writes results/base.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections import Counter
from pathlib import Path
from typing import Any

from make_base import Setting, examples

from memorist.agents.components.operations import read_json
from memorist.decision import Distribution
from memorist.evaluation.statistics import hierarchical_bootstrap
from memorist.models.registry import open_policy
from memorist.models.sampler import Request

UNITS = {
    "readable": "replies in the form that was asked for",
    "kind": "operations of the kind that the heuristic chooses",
    "point": "UPDATEs of both that name the same memory",
    "memory": "answers that name the memory that the heuristic names",
    "value": "answers that name the same memory and copy the same value",
}


def judge(said: str, meant: str, found: dict[str, list[float]]) -> str:
    """Note how a reply compares with the heuristic's; its kind."""
    ours, theirs = read_json(said), json.loads(meant)
    manages = isinstance(theirs, list)
    good = isinstance(ours, list) and len(ours) == 1 if manages else isinstance(ours, dict) and "answer" in ours
    found["readable"].append(good)
    if not good:
        return "unreadable"
    if not manages:
        same = ours.get("memories") == theirs["memories"]
        found["memory"].append(same)
        if same and theirs["memories"]:
            found["value"].append(ours["answer"] == theirs["answer"])
        return "answer"
    kind = str(ours[0].get("event"))
    found["kind"].append(kind == theirs[0]["event"])
    if kind == theirs[0]["event"] == "UPDATE":
        found["point"].append(ours[0].get("id") == theirs[0]["id"])
    return kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--dialogues", type=int, default=12)
    args = parser.parse_args()
    policy, rows = open_policy(args.model), []
    for grammar, name in (("a", "base"), ("b", "base.unseen-phrasing")):
        per: dict[str, dict[str, list[float]]] = {what: {} for what in UNITS}
        kinds: Counter[str] = Counter()
        for index in range(args.dialogues):
            pairs = examples(index, Setting(), split="test", grammar=grammar)
            asked = [Request(observation, Distribution(temperature=0.0), 0) for observation, _ in pairs]
            found: dict[str, list[float]] = {what: [] for what in UNITS}
            for (_, meant), action in zip(pairs, policy.sample(asked), strict=True):
                kinds[judge(action.text, meant, found)] += 1
            for what in UNITS:
                if found[what]:
                    per[what][str(index)] = found[what]
        rows += [row(f"{name}.{what}", what, per[what]) for what in UNITS if per[what]]
        print(dict(kinds))
    if args.model == "bundled":
        Path("results").mkdir(exist_ok=True)
        Path("results/base.json").write_text(json.dumps(rows, indent=1) + "\n")


def row(name: str, what: str, values: dict[str, list[float]]) -> dict[str, Any]:
    found = {
        "row": name,
        **hierarchical_bootstrap({0: values}).to_json(),
        "seeds": 1,
        "unit": "share",
        "of": UNITS[what],
    }
    found |= {"peer": None, "peer_value": None, "how": "python scripts/measure_base.py", "device": "2 CPU cores"}
    print(name, found["value"], found["n"])
    return found | {"date": datetime.date.today().isoformat()}


if __name__ == "__main__":
    main()
