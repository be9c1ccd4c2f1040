"""What listeners without a language model are worth on invented histories: by rules, by the chooser, by saying nothing.

    python benchmarks/listening.py [--histories 60] [--json results/listening.json]

The state reward of each message, from the right tree before it (1: the tree is as it should be), and the share of
clauses that say what holds of somebody else where all is listened to from an empty tree. Histories are of the
validation split.
"""

from __future__ import annotations

import argparse
import datetime
import json
from functools import partial
from pathlib import Path
from typing import Any

from memorist.agents.personatree import PersonaTree
from memorist.agents.profile_heuristics import RuleListener
from memorist.agents.profile_offline import OfflineListener
from memorist.evaluation.listening import judged
from memorist.evaluation.statistics import hierarchical_bootstrap
from memorist.memory.bank import MemoryBank
from memorist.memory.scratch import minilm_bank
from memorist.models.sampler import Greedy
from memorist.models.scripted import ScriptedSampler
from memorist.tasks.profiles import history


def _agent(actor: Greedy, bank: MemoryBank) -> PersonaTree:
    return PersonaTree(bank=bank, listener=actor, answerer=actor, branches=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=60)
    parser.add_argument("--messages", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    told = [history(f"p{i}", args.messages, split="validation") for i in range(args.histories)]
    listeners: dict[str, Any] = {
        "nothing": ScriptedSampler(lambda request: "NO_OP()"),
        "rules": RuleListener(),
        "offline": OfflineListener(embedder=minilm_bank().embedder),
    }
    rows = []
    for name, listener in listeners.items():
        make = partial(_agent, Greedy(listener))
        found = judged(make, told)
        worth = hierarchical_bootstrap({0: {f"p{i}": list(one.states) for i, one in enumerate(found)}})
        clauses, foreign = sum(one.clauses for one in found), sum(one.foreign for one in found)
        base = {"target": None, "peer": None, "peer_value": None, "how": "python benchmarks/listening.py",
                "device": "2 CPU cores", "date": datetime.date.today().isoformat(), "n": len(told)}  # fmt: skip
        rows.append({"row": f"personatree.{name}.state", "value": worth.value, "unit": "state reward",
                     "low": worth.low, "high": worth.high, **base})  # fmt: skip
        rows.append(
            {"row": f"personatree.{name}.contamination", "value": foreign / max(1, clauses), "unit": "share", **base}
        )
        print(json.dumps(rows[-2:], indent=1), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
