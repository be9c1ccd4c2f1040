"""GRPO steps of ours beside TRL's, what sharing prompts saves, what share of the machine's products an update reaches.

    python benchmarks/trainer.py [--json results/trainer.json] [--only trainer.shared.speed-vs-trl …] [--quick]

TRL runs in an environment of its own (made once, in --folder) on the same model, prompts, lengths and rewards. Both
sides wait between steps and take turns, so that what else the machine does meets both; each side is first tried at
several micro-batches and then runs at its fastest. A step is sampling, rewards, credit, forward, backward, update.

Bounds: with G siblings of T tokens after a prompt of P, sharing can be at most G·(P + T) / (P + G·T) times faster.
On a machine with a GPU the rows are those of a model of 0.5 B parameters there, named NAME.gpu.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from beds.sides import Side, environment

PEER = Path(__file__).parent / "beds" / "grpo_peer.py"
TRL = "1.16.0"
ATTENTION = {"attention": "eager"}
SHARED = {
    "layers": 4, "width": 256, "vocabulary": 2048, "prompt": 600, "completion": [40, 40], "siblings": 8, "groups": 4,
    **ATTENTION,
}  # fmt: skip
UNSHARED = SHARED | {"prompt": 32, "completion": [16, 128]}
# On a GPU: 0.5 B parameters, products in bfloat16 beside float32 weights on both sides (autocast).
LARGE = {
    "layers": 28, "width": 1024, "vocabulary": 151_936, "prompt": 2048, "completion": [128, 128], "siblings": 16,
    "attention": "sdpa", "bf16": True,
}  # fmt: skip
QUICK = {"layers": 1, "width": 64, "prompt": 40, "siblings": 2, "groups": 2}
Row = dict[str, Any]


def started(python: str, side: str, case: Row, micro: int) -> Side:
    """A process that makes steps when it is told to."""
    command = json.dumps({"side": side, "case": case, "micro": micro, "threads": 2})
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    offline["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    return Side([python, str(PEER), command], environment=offline)


def trl(folder: Path) -> str:
    """A Python that has TRL: this one, or one of its own with our versions of torch and transformers."""
    import torch
    import transformers

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        if importlib.metadata.version("trl") == TRL:
            return sys.executable
    ours = [f"torch=={torch.__version__.split('+')[0]}", f"transformers=={transformers.__version__}"]
    return environment(folder, "trl", [f"trl=={TRL}", *ours])


def fastest(python: str, side: str, cases: list[Row], micros: list[int]) -> tuple[int, str, Side]:
    """The micro-batch (sequences for TRL, tokens for ours) and the attention whose steps take least; its process."""
    best: tuple[float, int, str, Side] | None = None
    for case in cases:
        for micro in micros:
            try:
                process = started(python, side, case, micro)
                seconds = min(process.ask("step") for _ in range(2))
            except SystemExit as died:  # a larger one needs more memory than there is
                print(f"{side} with {micro}: {str(died)[-300:]}", file=sys.stderr)
                continue
            print(f"{side}, {case['attention']}, {micro}: {seconds:.2f} s", file=sys.stderr)
            if best is None or seconds < best[0]:
                if best is not None:
                    best[3].close()
                best = (seconds, micro, case["attention"], process)
            else:
                process.close()
    if best is None:
        raise SystemExit(f"{side} ran at none of the micro-batches {micros}")
    return best[1:]


def against_trl(name: str, case: Row, folder: Path, repeats: int, plan: Row) -> Row:
    peer = trl(folder)
    longest = case["prompt"] + case["completion"][1]
    row = case["prompt"] + case["siblings"] * case["completion"][1]
    rows = case["siblings"] * case["groups"]
    few = (
        [case["siblings"] // 2, case["siblings"]]
        if case.get("bf16")
        else [case["siblings"], 2 * case["siblings"], rows]
    )
    # On CPUs fused attention is slow backward where there is padding, so both kinds are tried.
    kinds = [case | {"attention": kind} for kind in (("sdpa",) if case.get("bf16") else ("sdpa", "eager"))]
    theirs, their_kind, their_side = fastest(peer, "trl", kinds, [n for n in few if n <= rows])
    many = [row, 4 * row] if case.get("bf16") else [row, 2 * row, max(4 * row, 32 * longest // 4)]
    ours, our_kind, our_side = fastest(sys.executable, "ours", [case], many)
    sides = {"ours": our_side, "trl": their_side}
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, process in sides.items():
            taken[side].append(process.ask("step"))
    for process in sides.values():
        process.close()
    medians = {side: statistics.median(found) for side, found in taken.items()}
    ratios = sorted(t / o for t, o in zip(taken["trl"], taken["ours"], strict=True))
    bound = case["siblings"] * longest / row
    return plan | {
        "row": name, "unit": "ratio", "value": medians["trl"] / medians["ours"], "low": ratios[0], "high": ratios[-1],
        "n": repeats, "peer": f"trl {TRL}", "peer_value": medians["trl"], "ours_seconds": medians["ours"],
        "micro": {"ours, tokens": ours, "trl, sequences": theirs},
        "attention": {"ours": our_kind, "trl": their_kind}, "bound_of_sharing": bound,
    }  # fmt: skip


def memory_against_trl(name: str, case: Row, folder: Path, plan: Row) -> Row:
    """Peaks above the idle process, both working on one group at once."""
    row = case["prompt"] + case["siblings"] * case["completion"][1]
    peaks = {}
    for side, python, micro in (("ours", sys.executable, row), ("trl", trl(folder), case["siblings"])):
        process = started(python, side, case | ({"attention": "sdpa"} if side == "trl" else {}), micro)
        idle = process.ask("forget")
        for _ in range(2):
            process.ask("step")
        peaks[side] = (process.ask("memory") - idle) / 1e6
        process.close()
    return plan | {
        "row": name, "unit": "ratio", "value": peaks["trl"] / peaks["ours"], "n": 1,
        "peer": f"trl {TRL}", "peer_value": peaks["trl"], "ours_megabytes": peaks["ours"],
    }  # fmt: skip


def units_of(case: Row) -> list[Any]:
    import numpy as np

    from memorist.decision import Action
    from memorist.models.rows import Unit

    draw = np.random.default_rng(0)
    units = []
    for _ in range(case["groups"]):
        prompt = tuple(map(int, draw.integers(0, case["vocabulary"] - 3, case["prompt"])))
        for _ in range(case["siblings"]):
            tokens = tuple(map(int, draw.integers(0, case["vocabulary"] - 3, case["completion"][1])))
            units.append(Unit(Action("", prompt, tokens, (-1.0,) * len(tokens)), 1.0, 1e-3))
    return units


def updates(case: Row) -> tuple[Any, Callable[[list[Any]], float]]:
    """A policy, and the seconds of a forward and backward pass over batches."""
    import torch

    sys.path.insert(0, str(PEER.parent))
    from grpo_peer import made, settle

    from memorist.models.causal import CausalPolicy
    from memorist.training.objective import policy_loss

    torch.set_num_threads(2)
    model, tokenizer = made(case)
    policy = CausalPolicy(model, tokenizer, "ours")
    policy.precision = "bf16" if case.get("bf16") else "float32"

    def once(batches: list[Any]) -> float:
        began = perf_counter()
        try:
            for batch in batches:
                policy_loss(policy.score(batch), batch)[0].backward()
        except torch.OutOfMemoryError:
            return float("inf")
        model.zero_grad()
        settle()
        return perf_counter() - began

    return policy, once


def trees_against_plain(name: str, case: Row, repeats: int, plan: Row) -> Row:
    from memorist.models.rows import pack

    policy, once = updates(case)
    units = units_of(case)
    row = case["prompt"] + case["siblings"] * case["completion"][1]
    kinds = {
        "trees": [policy.rows(units, budget) for budget in (row, 2 * row, 4 * row)],
        "plain": [pack(units, budget=budget, share=False) for budget in (row, 4 * row, 8 * row)],
    }
    once(kinds["trees"][0])  # a warm-up
    best = {kind: min(options, key=lambda b: min(once(b) for _ in range(3))) for kind, options in kinds.items()}
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, batches in best.items():
            taken[kind].append(once(batches))
    medians = {kind: statistics.median(found) for kind, found in taken.items()}
    ratios = sorted(p / t for p, t in zip(taken["plain"], taken["trees"], strict=True))
    bound = case["siblings"] * (case["prompt"] + case["completion"][1]) / row
    return plan | {
        "row": name, "unit": "ratio", "value": medians["plain"] / medians["trees"],
        "low": ratios[0], "high": ratios[-1], "n": repeats, "peer": "ours, plain rows", "peer_value": medians["plain"],
        "ours_seconds": medians["trees"], "bound_of_sharing": bound,
    }  # fmt: skip


def gemm_share(name: str, case: Row, repeats: int, plan: Row) -> Row:
    """Operations of an update over its time, against this machine's own float32 product in the same run."""
    import torch

    policy, once = updates(case)
    units = units_of(case)
    batches = policy.rows(units, case["prompt"] + case["siblings"] * case["completion"][1])
    tokens = sum(int(batch.length.sum()) for batch in batches)
    actions = sum(len(batch.targets) for batch in batches)
    seen = sum(int(batch.attention().sum()) for batch in batches)
    layers = sum(p.numel() for p in policy.model.base_model.layers.parameters())
    head = case["vocabulary"] * case["width"]
    # Of each pair: two products of head width for all heads, two operations each, three passes.
    attention = 12 * case["layers"] * case["width"] * seen
    flops = 6 * layers * tokens + 6 * head * actions + attention
    a = torch.ones(1024, 1024)
    shares = []
    once(batches)
    for _ in range(repeats):
        products = []
        for _ in range(5):
            began = perf_counter()
            a @ a
            products.append(2 * 1024**3 / (perf_counter() - began))
        shares.append(flops / once(batches) / max(products))
    shares.sort()
    return plan | {
        "row": name, "unit": "share", "value": statistics.median(shares), "low": shares[0],
        "high": shares[-1], "n": repeats, "peer": None, "peer_value": None,
    }  # fmt: skip


def rollout_overhead(name: str, runs: int, repeats: int, plan: Row) -> Row:
    """Share of a rollout's time that is not spent in models: 64 whole dialogues of Memory-R1 at once."""
    import torch

    from memorist.models.registry import open_policy
    from memorist.recipe import load_recipe
    from memorist.tasks.dialogue import DialogueTask
    from memorist.tasks.world import dialogues
    from memorist.training.rollout import Seat, play

    torch.set_num_threads(2)
    recipe = load_recipe("memory-r1")
    policy = open_policy("bundled")
    usual, spent = policy.sample, [0.0]

    def timed(requests: Any) -> Any:
        began = perf_counter()
        found = usual(requests)
        spent[0] += perf_counter() - began
        return found

    policy.sample = timed  # type: ignore[method-assign]
    shares = []
    for repeat in range(repeats):
        tasks = [DialogueTask.of(dialogue) for dialogue in dialogues("train", runs, seed=repeat)]
        seats = {"manager": Seat(policy), "answerer": Seat(policy)}
        spent[0], began = 0.0, perf_counter()
        play(recipe.agent.build, tasks, seats)
        shares.append(1 - spent[0] / (perf_counter() - began))
    shares.sort()
    return plan | {
        "row": name, "unit": "share", "value": statistics.median(shares), "low": shares[0],
        "high": shares[-1], "n": repeats, "peer": None, "peer_value": None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="put the rows into this file, others that it holds stay")
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "memorist-bench")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny shapes: to see that it runs")
    args = parser.parse_args()
    import torch

    quick = QUICK if args.quick else {}
    plan: Row = {
        "how": "make bench-trainer", "device": "2 threads, CPU", "date": datetime.now(UTC).date().isoformat(),
        "seeds": 1,
    }  # fmt: skip
    shared, unshared, end = SHARED | quick, UNSHARED | quick, ""
    if torch.cuda.is_available():
        shared, unshared, end = (
            SHARED | LARGE | quick,
            UNSHARED | LARGE | {"prompt": 32, "completion": [16, 128]} | quick,
            ".gpu",
        )
        plan["device"] = torch.cuda.get_device_name()
    measures: dict[str, Callable[[str], Row]] = {
        "trainer.shared.update-vs-plain-rows": lambda name: trees_against_plain(name, shared, args.repeats, plan),
        "trainer.shared.speed-vs-trl": lambda name: against_trl(name, shared, args.folder, args.repeats, plan),
        "trainer.shared.memory-vs-trl": lambda name: memory_against_trl(name, shared, args.folder, plan),
        "trainer.unshared.speed-vs-trl": lambda name: against_trl(name, unshared, args.folder, args.repeats, plan),
    }
    measures = {name + end: measure for name, measure in measures.items()}
    if not end:
        wide = SHARED | {"layers": 8, "width": 512, "vocabulary": 8192} | quick
        measures["trainer.gemm-share"] = lambda name: gemm_share(name, wide, args.repeats, plan)
        measures["rollout.overhead-share"] = lambda name: rollout_overhead(
            name, 4 if args.quick else 64, args.repeats, plan
        )
    rows: list[Row] = []
    for name in args.only or measures:
        rows.append(measures[name](name))
        gc.collect()
        torch.cuda.empty_cache()  # what follows runs in processes of its own
        print(json.dumps(rows[-1]), flush=True)
        if args.json:
            known = json.loads(args.json.read_text()) if args.json.exists() else []
            kept = [row for row in known if row["row"] not in {new["row"] for new in rows}]
            args.json.write_text(json.dumps(kept + rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
