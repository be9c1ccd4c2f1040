"""What the bundled base can express on unseen people and values: does it copy, does it point, what does it choose?

Decisions are sampled at temperature 1 from the states that the base itself leads to. Writes results/base.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections import Counter
from pathlib import Path
from typing import Any

from memorist.agents.build import builder
from memorist.agents.components.operations import read_json
from memorist.agents.heuristics import read_compact_prompt
from memorist.decision import Distribution
from memorist.evaluation.exam import sit
from memorist.evaluation.statistics import hierarchical_bootstrap
from memorist.memory.embed import HashedEmbedder
from memorist.models.registry import open_policy
from memorist.recipe import AgentSettings
from memorist.tasks.world import dialogues
from memorist.training.rollout import Seat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--dialogues", type=int, default=12)
    args = parser.parse_args()
    policy, embedder = open_policy(args.model), HashedEmbedder()
    hot, cold = Seat(policy, Distribution(temperature=1.0)), Seat(policy)
    exam = sit("base", builder(AgentSettings()), dialogues("test", args.dialogues), {"manager": hot, "answerer": cold})
    kinds: Counter[str] = Counter()
    found: dict[str, dict[str, list[float]]] = {"readable": {}, "copy": {}, "point": {}, "answer-copy": {}}
    for dialogue, run in zip(exam.dialogues, exam.runs, strict=True):
        values: dict[str, list[float]] = {name: [] for name in found}
        for decision in run.trajectory.decisions:
            memories, asked = read_compact_prompt(decision.observation.prompt)
            data = read_json(decision.action.text)
            values["readable"].append(data is not None)
            if decision.role == "answerer":
                said = data.get("answer") if isinstance(data, dict) else None
                values["answer-copy"].append(
                    said == "none" or (bool(said) and str(said) in decision.observation.prompt)
                )
                continue
            item = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
            kinds[str(item.get("event"))] += 1
            if item.get("event") in ("ADD", "UPDATE"):
                values["copy"].append(item.get("text") == asked)
            if item.get("event") in ("UPDATE", "DELETE") and memories:
                vectors = embedder.embed([asked, *memories])
                values["point"].append(item.get("id") == str(int((vectors[1:] @ vectors[0]).argmax())))
        for name, per in found.items():
            per[dialogue.id] = values[name]
    rows: list[dict[str, Any]] = []
    for name, per in found.items():
        rows.append(
            {"row": f"base.{name}", **hierarchical_bootstrap({0: per}).to_json(), "seeds": 1, "unit": "share"}
            | {"peer": None, "peer_value": None, "how": "python scripts/measure_base.py", "device": "2 CPU cores"}
            | {"date": datetime.date.today().isoformat()}
        )
        print(rows[-1]["row"], rows[-1]["value"], rows[-1]["n"])
    print(dict(kinds))
    if args.model == "bundled":
        Path("results").mkdir(exist_ok=True)
        Path("results/base.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
