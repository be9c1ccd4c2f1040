"""What a frozen reference costs, of whose log-probabilities a penalty is made: a copy of the weights, a copy of the
adapter alone where the policy is an adapter (the base stands still), or weights divided over processes, of which each
layer is brought together while it computes (FSDP2).

    python benchmarks/reference.py [--json results/lean-reference.json]

The model is that of benchmarks/lean.py. Bytes are those that a process holds for it beside the policy. Speed is tokens
scored a second, two processes in each way, each with rows of its own, one thread each; ways in turn, medians of the
repeats. Log-probabilities of what is divided are compared with the copy's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from lean import policy
from torch.distributed.tensor import DTensor

from memorist.decision import Action
from memorist.models.adapters import with_adapter
from memorist.models.rows import Unit
from memorist.training.devices import Devices

WAYS = ("copy", "lora", "sharded")
PROCESSES = 2
LENGTH, ROWS = 512, 8


def child(way: str, repeats: int) -> None:
    """One process of a way; the first says what was found."""
    torch.set_num_threads(1)
    devices = Devices()
    base = policy(LENGTH, 8, 256)
    if way == "lora":
        base = with_adapter(base, "analyst", rank=8, alpha=32)
    reference = base.frozen("reference")
    if way == "sharded":
        devices.shard(reference)
    numbers = torch.randint(0, 256, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1)).tolist()
    units = [Unit(Action("", tuple(ids[:64]), tuple(ids[64:]), (0.0,) * (LENGTH - 64)), 1.0, 1.0) for ids in numbers]
    told: list[float] = []
    seconds = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            dist.barrier()
            began = perf_counter()
            told = [float(x) for batch in reference.rows(units, 2 * LENGTH) for x in reference.score(batch)]
            dist.barrier()
            seconds.append(perf_counter() - began)
    if devices.first:
        held = list(reference.model.parameters()) if way != "lora" else reference.parameters()
        size = sum((one.to_local() if isinstance(one, DTensor) else one).nbytes for one in held)
        print(json.dumps({"bytes": size, "seconds": seconds[1:], "logprobs": told}))
    dist.destroy_process_group()


def asked(way: str, repeats: int) -> dict[str, Any]:
    """What the processes of a way found."""
    env = os.environ | {"ACCELERATE_USE_FSDP": str(way == "sharded").lower(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={PROCESSES}", "--standalone",
               __file__, "--child", way, "--repeats", str(repeats)]  # fmt: skip
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=600).stdout
    found: dict[str, Any] = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="how often the ways come in turn")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.repeats)
        return
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:
            runs[way].append(asked(way, args.repeats))
    seconds = {way: statistics.median(s for one in own for s in one["seconds"]) for way, own in runs.items()}
    size = {way: own[0]["bytes"] for way, own in runs.items()}
    tokens = PROCESSES * ROWS * (LENGTH - 64)
    kept = {
        "n": args.repeats * args.rounds, "seeds": 1, "peer": "copy", "device": f"{PROCESSES} processes on CPU cores",
        "how": "python benchmarks/reference.py", "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    rows = [
        row
        for way in WAYS[1:]
        for row in (
            {"row": f"lean.reference.{way}.memory-share", "value": size[way] / size["copy"], "unit": "share",
             "peer_value": size["copy"]} | kept,
            {"row": f"lean.reference.{way}.speed-share", "value": seconds["copy"] / seconds[way], "unit": "share",
             "peer_value": tokens / seconds["copy"]} | kept,
        )
    ]  # fmt: skip
    # A new adapter changes nothing, so only what is divided could differ.
    told = zip(runs["copy"][0]["logprobs"], runs["sharded"][0]["logprobs"], strict=True)
    off = max(abs(a - b) for a, b in told)
    rows.append({"row": "lean.reference.sharded.difference", "value": off, "unit": "abs", "peer_value": None} | kept)
    for row in rows:
        print(json.dumps(row))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
