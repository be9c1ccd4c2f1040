"""Fewer experts: equality, memory and bytes of pruning and lazy loading, throughput, and a tiny bed of two domains.

    python benchmarks/experts.py [--json FILE] [--only PREFIX] [--quick] [--folder FOLDER]

Files: a random Qwen3-MoE of 4 GB in 1 GB shards is written into `--folder` (on a disk, not in memory; 12 GB free) and
dropped from the page cache before it is read; bytes are the kernel's (/proc/self/io). Each of these runs in a process
of its own. Tiny bed: two domains on shared symbols, specialists planted in training, five seeds. `--quick` tries the
procedure on small sizes. Roles: a tiny mixture of experts is made and trained as Memory-R1 (half an hour), and kept in
`--folder`/roles. `--only experts.tiny` measures just those rows; the others stay as they are in `--json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from beds import roles
from beds.two_domains import tiny_seed

from memorist.evaluation.statistics import hierarchical_bootstrap
from memorist.fit.experts import lazy as lazy_module
from memorist.fit.experts.checkpoint import INDEX, Checkpoint, open_checkpoint
from memorist.fit.experts.lazy import LazyModel
from memorist.fit.experts.prune import prune
from memorist.fit.experts.scores import Ids
from memorist.fit.experts.select import Routing, choose, random_scores
from memorist.fit.experts.shards import Reader, Written
from memorist.fit.experts.simulate import masked
from memorist.models.registry import quiet_libraries
from moe import KINDS, save_moe, some_experts

ROWS = {
    "experts.equivalence.max-difference": "abs logit",
    "experts.prune.peak-over-largest-shard": "MB",
    "experts.prune.bytes-read-over-needed": "ratio",
    "experts.lazy.bytes-read-over-needed": "ratio",
    "experts.lazy.load-speedup-of-bound": "share",
    "experts.throughput-at-equal-memory": "ratio",
    "experts.tiny.easyep.in-domain": "share",
    "experts.tiny.peu.in-domain": "share",
    "experts.tiny.tcess.in-domain": "share",
    "experts.tiny.random.in-domain": "share",
    "experts.tiny.retrieval": "of 20",
    "experts.role.kl-at-half": "nats",
}
LARGE = {
    "vocab_size": 32000, "hidden_size": 1024, "moe_intermediate_size": 768, "intermediate_size": 768, "head_dim": 64,
    "num_hidden_layers": 14, "num_attention_heads": 16, "num_key_value_heads": 4, "num_experts": 64,
    "num_experts_per_tok": 8, "tie_word_embeddings": False, "max_position_embeddings": 4096,
}  # fmt: skip
SMALL = LARGE | {"hidden_size": 64, "moe_intermediate_size": 64, "num_hidden_layers": 3, "vocab_size": 500}
DECODER = LARGE | {
    "hidden_size": 512, "moe_intermediate_size": 256, "num_hidden_layers": 8, "num_key_value_heads": 2,
    "vocab_size": 4000,
}  # fmt: skip
SEQUENCES, CONTEXT = 8, 2048


# Files: what is read, how much memory it takes, how long it takes when nothing is in the page cache.


def write_large(folder: Path, sizes: dict[str, Any], shard: int) -> None:
    """A random checkpoint in 16 bits, per-expert names, one shard in memory at a time."""
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True)
    config = AutoConfig.for_model("qwen3_moe", **sizes)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "qwen3_moe", "dtype": "bfloat16", "architectures": ["Qwen3MoeForCausalLM"], **sizes})
    )
    with torch.device("meta"):
        state = AutoModelForCausalLM.from_config(config).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in state.items():
        if not name.endswith(("gate_up_proj", "down_proj")) or ".experts." not in name:
            shapes[name] = tuple(tensor.shape)
            continue
        head, _, kind = name.rpartition(".")
        for expert in range(tensor.shape[0]):
            rows, width = tensor.shape[1:]
            for piece in ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",):
                height = rows // 2 if kind == "gate_up_proj" else rows
                shapes[f"{head}.{expert}.{piece}.weight"] = (height, width)
    places: dict[str, str] = {}
    torch.manual_seed(0)
    held: dict[str, torch.Tensor] = {}
    number = 1

    def close() -> None:
        nonlocal held, number
        file = f"model-{number:05}.safetensors"
        save_file(held, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(held, file))
        held, number = {}, number + 1

    for name, shape in shapes.items():
        held[name] = (torch.randn(shape) * 0.02).to(torch.bfloat16)
        if sum(tensor.nbytes for tensor in held.values()) >= shard:
            close()
    if held:
        close()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_by_kernel() -> int:
    """Bytes that this process had fetched from storage."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def peak_resident() -> int:
    """The most bytes that this process held; unlike `getrusage`, without what its parent held before the exec."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def half(checkpoint: Checkpoint, part: int = 2) -> Ids:
    keep = checkpoint.experts // part
    return choose(random_scores(len(checkpoint.moe_layers), checkpoint.experts, 1), keep, Routing.of(checkpoint))


def measure_prune(folder: Path) -> dict[str, Any]:
    """In this process: bytes and memory of pruning to half."""
    checkpoint = open_checkpoint(folder)
    forget(folder)
    before = read_by_kernel()
    base = peak_resident()
    began = perf_counter()
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        found = prune(checkpoint, half(checkpoint), Path(out) / "half")
        seconds = perf_counter() - began
    return {
        "read": read_by_kernel() - before,
        "needed": found.bytes_written,
        "peak": peak_resident(),
        "base": base,
        "shard": max(file.stat().st_size for file in folder.glob("*.safetensors")),
        "seconds": seconds,
    }


def measure_lazy(folder: Path, part: int) -> dict[str, Any]:
    """In this process: bytes and seconds of loading one of `part` experts; part 1 loads all."""
    checkpoint = open_checkpoint(folder)
    keep = half(checkpoint, part)
    # What is imported and built on first use is no part of loading.
    with tempfile.TemporaryDirectory() as tiny:
        save_moe(Path(tiny), "qwen3_moe")
        LazyModel(Path(tiny), some_experts(2)).close()
    forget(folder)
    before, began = read_by_kernel(), perf_counter()
    with LazyModel(folder, keep) as lazy:
        seconds = perf_counter() - began
        needed = checkpoint.bytes - checkpoint.expert_bytes * (part - 1) // part
        counted = lazy.bytes_read
    share = checkpoint.expert_bytes / checkpoint.bytes
    return {
        "read": read_by_kernel() - before, "counted": counted, "needed": needed, "seconds": seconds, "share": share
    }  # fmt: skip


class Recording(Reader):
    """A reader that remembers what it read: file, start, size."""

    ranges: ClassVar[list[tuple[Path, int, int]]] = []

    def fill(self, wanted: Written, into: memoryview) -> None:
        self.ranges.extend((wanted.stored.file, start, size) for start, size in wanted.ranges())
        super().fill(wanted, into)


def measure_storage(folder: Path, part: int) -> dict[str, Any]:
    """In this process: seconds in which storage alone gives the bytes of `measure_lazy`, in the same order."""
    lazy_module.Reader = Recording  # type: ignore[misc]
    LazyModel(folder, half(open_checkpoint(folder), part)).close()
    files = {file: os.open(file, os.O_RDONLY) for file, _, _ in Recording.ranges}
    room = memoryview(bytearray(max(size for _, _, size in Recording.ranges)))
    forget(folder)
    for descriptor in files.values():
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    began = perf_counter()
    for file, start, size in Recording.ranges:
        while size:
            got = os.preadv(files[file], [room[:size]], start)
            start, size = start + got, size - got
    return {"seconds": perf_counter() - began, "read": sum(size for _, _, size in Recording.ranges)}


def apart(name: str, *arguments: str) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    out = subprocess.run(
        [sys.executable, __file__, "--one", name, *arguments], check=True, capture_output=True, text=True
    )
    return dict(json.loads(out.stdout.splitlines()[-1]))


def file_rows(folder: Path, quick: bool) -> list[dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        model = Path(made) / "model"
        write_large(model, SMALL if quick else LARGE, 2**21 if quick else 10**9)
        options = ["--folder", str(model)]
        pruned = apart("prune", *options)
        rounds, storage = [], []
        for turn in range(1 if quick else 4):
            order = (1, 4) if turn % 2 else (4, 1)  # who reads after whom changes: storage may tire
            done = {part: (apart(f"lazy{part}", *options), apart(f"storage{part}", *options)) for part in order}
            rounds.append([done[1][0], done[4][0]])
            storage.append([done[1][1]["seconds"], done[4][1]["seconds"]])
    whole, quarter = (median(pair[at]["seconds"] for pair in rounds) for at in (0, 1))
    lazy = rounds[0][1]
    bound = 1 / (1 - 0.75 * lazy["share"])
    over = (pruned["peak"] - pruned["shard"]) / 1e6
    # A kernel that saw nothing fetched did not drop its cache: then there is no number.
    cached = "the page cache could not be dropped: the kernel counts fewer bytes fetched than are needed"
    rows = [row("experts.prune.peak-over-largest-shard", over, 1, **pruned)]
    for name, one in (("prune", pruned), ("lazy", lazy)):
        ratio = one["read"] / one["needed"]
        kept = ratio if ratio >= 0.99 else None
        why = {} if kept else {"why": cached}
        rows.append(
            row(f"experts.{name}.bytes-read-over-needed", kept, 1, kernel=one["read"], needed=one["needed"], **why)
        )
    alone = [median(pair[at] for pair in storage) for at in (0, 1)]
    more = {
        "speedup": whole / quarter, "bound": bound, "seconds": [whole, quarter], "expert_share": lazy["share"],
        "storage_alone_seconds": alone, "storage_alone_speedup": alone[0] / alone[1],
    }  # fmt: skip
    cold = all(one["read"] >= 0.99 * one["needed"] for pair in rounds for one in pair)
    value, why = (whole / quarter / bound, {}) if cold else (None, {"why": cached})
    return [*rows, row("experts.lazy.load-speedup-of-bound", value, len(rounds), **more, **why)]


# Equality and throughput.


def equivalence_rows(folder: Path, quick: bool) -> list[dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    tokens, found = torch.randint(0, 32, (2, 24), generator=torch.Generator().manual_seed(0)), {}
    unmasked: list[float] = []
    for kind in KINDS:
        for form, options in (("one", {}), ("several", {"shard": "6KB"}), ("fused", {"fused": True})):
            with tempfile.TemporaryDirectory() as made, torch.no_grad():
                source = save_moe(Path(made) / "full", kind, **options)
                checkpoint = open_checkpoint(Path(made) / "full")
                keep = half(checkpoint)
                prune(checkpoint, keep, Path(made) / "half")
                pruned = AutoModelForCausalLM.from_pretrained(Path(made) / "half")
                with masked(source, keep):
                    wanted = source(tokens).logits
                found[f"{kind}, {form}"] = float((pruned(tokens).logits - wanted).abs().max())
                unmasked.append(float((source(tokens).logits - wanted).abs().max()))
    worst = max(found, key=lambda name: found[name])
    return [
        row(
            "experts.equivalence.max-difference",
            found[worst],
            len(found),
            worst=worst,
            least_without_masks=min(unmasked),
        )
    ]


def decoding(sizes: dict[str, Any], context: int) -> Callable[[int, int], Callable[[], float]]:
    """(experts, batch) → a function that decodes one token for the whole batch and gives its seconds."""
    from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

    def prepared(experts: int, batch: int) -> Callable[[], float]:
        torch.manual_seed(0)
        config = AutoConfig.for_model("qwen3_moe", **(sizes | {"num_experts": experts}))
        model = AutoModelForCausalLM.from_config(config).eval()
        cache = DynamicCache(config=config)
        shape = (batch, sizes["num_key_value_heads"], context, sizes["head_dim"])
        for layer in range(sizes["num_hidden_layers"]):
            cache.update(torch.randn(shape), torch.randn(shape), layer)
        tokens = torch.randint(0, sizes["vocab_size"], (batch, 1))

        def step() -> float:
            with torch.no_grad():
                began = perf_counter()
                model(tokens, past_key_values=cache, use_cache=True)
                seconds = perf_counter() - began
                cache.crop(-1)
            return seconds

        return step

    return prepared


def throughput_rows(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Budget: full weights and the caches of 8 sequences of 2048 tokens; what half the experts free holds sequences."""
    sizes, context = (SMALL, 64) if quick else (DECODER, CONTEXT)
    experts = sizes["num_experts"]
    each = 4 * 3 * sizes["hidden_size"] * sizes["moe_intermediate_size"] + 4 * sizes["hidden_size"]
    freed = sizes["num_hidden_layers"] * experts // 2 * each
    sequence = 4 * 2 * sizes["num_hidden_layers"] * sizes["num_key_value_heads"] * sizes["head_dim"] * context
    batch = SEQUENCES + freed // sequence
    prepare = decoding(sizes, context)
    runs = {SEQUENCES: prepare(experts, SEQUENCES), batch: prepare(experts // 2, batch)}
    for step in runs.values():
        step()
    times = {size: median(step() for _ in range(2 if quick else 15)) for size, step in runs.items()}
    rates = {size: size / seconds for size, seconds in times.items()}
    more = {"batches": [SEQUENCES, batch], "tokens_per_second": [rates[SEQUENCES], rates[batch]]}
    return [row("experts.throughput-at-equal-memory", rates[batch] / rates[SEQUENCES], 15, **more)]


# The tiny bed.


def tiny_rows(folder: Path, quick: bool) -> list[dict[str, Any]]:
    seeds = range(1 if quick else 5)
    runs = {seed: tiny_seed(seed, 30 if quick else 900) for seed in seeds}
    rows = []
    for name in (name for name in ROWS if name.startswith("experts.tiny.")):
        key = name.split(".")[2]
        values = {seed: {str(at): [one] for at, one in enumerate(run[key])} for seed, run in runs.items()}
        interval = hierarchical_bootstrap(values)
        more: dict[str, Any] = {"by_seed": {seed: run[key] for seed, run in runs.items()}}
        if off := [run.get(f"{key} off-domain") for run in runs.values() if f"{key} off-domain" in run]:
            more["off_domain"] = float(np.mean(off))
        more["full"] = float(np.mean([run["full"] for run in runs.values()]))
        made = row(name, interval.value, interval.n, **more)
        rows.append(made | {"low": round(interval.low, 6), "high": round(interval.high, 6), "seeds": len(seeds)})
    return rows


def role_rows(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Own experts of each role, half of all, on replies that were held out; the mean of both roles."""
    place = folder / ("roles-quick" if quick else "roles")
    found = roles.measured(place, ("easyep", "peu", "tcess", "frequency", "random"), quick)
    kl = {
        f"{scorer}, {mode}": {role: said["kl"] for role, said in one["modes"][mode]["roles"].items()}
        for scorer, one in found.items()
        for mode in ("specialist", "generalist")
    }
    own = found["easyep"]["modes"]["specialist"]["roles"]
    valid = {role: [said["valid_before"], said["valid_after"]] for role, said in own.items()}
    replies = sum(said["samples"] for said in own.values())
    more = {"kl": kl, "valid_before_and_after": valid, "common": found["easyep"]["common"]}
    return [row("experts.role.kl-at-half", float(np.mean([said["kl"] for said in own.values()])), replies, **more)]


MEASURES: dict[str, Callable[[Path, bool], list[dict[str, Any]]]] = {
    "experts.equivalence": equivalence_rows,
    "experts.prune experts.lazy": file_rows,
    "experts.throughput": throughput_rows,
    "experts.tiny": tiny_rows,
    "experts.role": role_rows,
}


def row(name: str, value: float | None, n: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "row": name, "value": None if value is None else float(f"{value:.6g}"), "low": None, "high": None,
        **({"n": n, "seeds": 1} if n else {}), "unit": ROWS[name], "peer": None, "peer_value": None,
        "how": "make bench-experts", "device": device(), "date": datetime.now(UTC).date().isoformat(), **more,
    }  # fmt: skip


def device() -> str:
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads > 1 else ''}, {platform.machine()} CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--json", type=Path, help="write all rows to this file; what is not measured keeps its row there"
    )
    parser.add_argument("--only", default="", help="only rows that begin with this")
    parser.add_argument("--quick", action="store_true", help="only try the procedure")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the large checkpoint is written for a while")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    quiet_libraries()
    if args.one:
        name, part = args.one.rstrip("0123456789"), args.one.lstrip("abcdefghijklmnopqrstuvwxyz")
        measure = {"prune": measure_prune, "lazy": measure_lazy, "storage": measure_storage}[name]
        print(json.dumps(measure(args.folder, *([int(part)] if part else []))))
        return
    found: dict[str, dict[str, Any]] = {}
    if args.json and args.json.exists():
        found = {one["row"]: one for one in json.loads(args.json.read_text()) if one["value"] is not None}
    for names, measure in MEASURES.items():
        if any(name.startswith(args.only) and name.startswith(tuple(names.split())) for name in ROWS):
            for one in measure(args.folder, args.quick):
                print(json.dumps(one), flush=True)
                found[one["row"]] = one
    why = "needs a machine that does nothing else; not measured yet"
    rows = [found.get(name) or row(name, None, why=why) for name in ROWS]
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
