"""Writing a checkpoint with fewer experts: a standard one, that stock loaders open as any other.

Shard by shard and byte by byte, in one buffer of memory. Survivors are renumbered in ascending order; router weight,
bias and correction bias are sliced with them; the configuration's own keys are changed. Everything is written into an
unfinished folder beside the target, index last, checked, and only then renamed: what has the target's name is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memorist.errors import ExpertsError
from memorist.fit.experts.checkpoint import INDEX, SINGLE, Checkpoint, layer_of, open_checkpoint, place_of, renamed
from memorist.fit.experts.scores import Ids
from memorist.fit.experts.select import Routing, check_keep
from memorist.fit.experts.shards import Reader, Written, write_shard
from memorist.fit.folders import check_new, whole_folder

_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}
SPARE = 2**20
"""Bytes beside the tensors: headers, tokenizer, configuration."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was written. bytes_read, bytes_written: of tensors; bytes_before: of the whole source."""

    folder: Path
    keep: int
    bytes_before: int
    bytes_read: int
    bytes_written: int
    dropped_layers: tuple[int, ...]


def check_choice(keep: Ids, checkpoint: Checkpoint, mode: str) -> Ids:
    """The choice in ascending order.

    Raises:
        ExpertsError: not [L, M] different experts of the model, or a choice that the groups forbid.
    """
    routing, layers = Routing.of(checkpoint), len(checkpoint.moe_layers)
    if keep.ndim != 2 or len(keep) != layers:
        raise ExpertsError(f"a choice of shape {keep.shape}; expected {layers} layers with as many experts each")
    check_keep(routing, keep.shape[1], mode)
    ordered = np.sort(keep, axis=1)
    if ordered.min() < 0 or ordered.max() >= routing.experts or (np.diff(ordered, axis=1) == 0).any():
        raise ExpertsError(f"a choice that names an expert twice, or none of 0 to {routing.experts - 1}")
    if mode == "balanced" and routing.groups > 1:
        size, quota = routing.experts // routing.groups, keep.shape[1] // routing.groups
        if (ordered // size != np.repeat(np.arange(routing.groups), quota)).any():
            raise ExpertsError(f"a choice without {quota} experts of each of {routing.groups} groups; use global")
    return ordered


def layout(checkpoint: Checkpoint, keep: Ids) -> dict[str, dict[str, Written]]:
    """What each shard will hold. Multi-token prediction is dropped: no scores say which of its experts to keep."""
    rows = {layer: tuple(map(int, chosen)) for layer, chosen in zip(checkpoint.moe_layers, keep, strict=True)}
    shards: dict[str, dict[str, Written]] = {name: {} for name in checkpoint.shards}
    for name, stored in checkpoint.tensors.items():
        place, shard = place_of(name), shards[stored.file.name]
        if layer_of(name) in checkpoint.extra_layers:
            continue
        if place is None or place.layer not in rows:
            shard[name] = Written(stored)
        elif place.expert is None:
            shard[name] = Written(stored, rows[place.layer])
        elif place.expert in rows[place.layer]:
            shard[renamed(name, rows[place.layer].index(place.expert))] = Written(stored)
    return {name: held for name, held in shards.items() if held}


def patched_config(checkpoint: Checkpoint, keep: Ids, mode: str, note: Mapping[str, Any]) -> dict[str, Any]:
    """The source's configuration with the keys changed that it has, and a note of where it comes from.

    Groups in mode "global" become one of all experts. Left as they were, they would be cut at other experts, and where
    their number does not divide the kept ones, routing is silently wrong.
    """
    config, family = dict(checkpoint.config), checkpoint.family
    present = [key for key in family.counts if key in config] or [family.counts[0]]
    config |= dict.fromkeys(present, int(keep.shape[1]))
    if mode == "global" and family.least:
        config |= {"n_group": 1, "topk_group": 1}
        if checkpoint.kind == "deepseek_v2":
            config["topk_method"] = "greedy"
    if checkpoint.extra_layers:
        config["num_nextn_predict_layers"] = 0
    config["pruning"] = {
        "experts_before": checkpoint.experts,
        "source_fingerprint": checkpoint.fingerprint,
        "moe_layers": list(checkpoint.moe_layers),
        "keep": keep.tolist(),
        "groups": mode,
        **note,
    }
    return config


def prune(
    checkpoint: Checkpoint, keep: Ids, out: Path, *, mode: str = "global", note: Mapping[str, Any] | None = None
) -> Pruned:
    """Write the checkpoint with only the chosen experts.

    Args:
        checkpoint: the source; it is only read.
        keep: ids of the chosen experts of each layer with experts, [L, M].
        out: a folder that does not exist yet.
        mode: what becomes of the router's groups, see `select.choose`.
        note: what to say of the choice in config.json (scorer, tasks).

    Raises:
        ExpertsError: the choice cannot work, the folder exists, or the disk is full; then nothing is left behind.
    """
    check_new(out, ExpertsError)
    ordered = check_choice(keep, checkpoint, mode)
    shards = layout(checkpoint, ordered)
    size = sum(tensor.size for held in shards.values() for tensor in held.values())
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    if free < size + SPARE:
        raise ExpertsError(f"{out}: needs {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; choose another disk")
    with whole_folder(out, ExpertsError) as work:
        with Reader() as reader:
            written = _write(checkpoint, shards, work, reader)
        (work / "config.json").write_text(
            json.dumps(patched_config(checkpoint, ordered, mode, note or {}), indent=2) + "\n", encoding="utf-8"
        )
        _finish(work, shards, ordered.shape[1], written)
    return Pruned(out, ordered.shape[1], checkpoint.bytes, reader.bytes_read, written, checkpoint.extra_layers)


def _write(checkpoint: Checkpoint, shards: Mapping[str, Mapping[str, Written]], work: Path, reader: Reader) -> int:
    """Shards, then the files beside them; never the source's index, which names experts that are gone."""
    total = sum(write_shard(work / name, held, reader) for name, held in shards.items())
    for file in sorted(checkpoint.folder.iterdir()):
        known = file.name in {"config.json", INDEX} or file.name.endswith(".index.json")
        if file.is_file() and not known and file.suffix not in _WEIGHTS and not file.name.startswith("."):
            shutil.copyfile(file, work / file.name)
    return total


def _finish(work: Path, shards: Mapping[str, Mapping[str, Written]], keep: int, written: int) -> None:
    """Index last, then a second look at all that was written."""
    if set(shards) != {SINGLE}:
        places = {tensor: shard for shard, held in shards.items() for tensor in held}
        index = {"metadata": {"total_size": written}, "weight_map": dict(sorted(places.items()))}
        (work / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    found = open_checkpoint(work)
    if found.experts != keep or found.bytes != written:
        raise ExpertsError(
            f"{work}: {found.experts} experts and {found.bytes} bytes were written, expected {keep} and {written}; "
            "report this"
        )
