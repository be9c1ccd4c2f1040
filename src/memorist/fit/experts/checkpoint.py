"""A mixture-of-experts checkpoint on disk: its files, and what each tensor is to the experts of which layer.

Layers with experts are found by the names of their tensors, never by the configuration: families differ in how they
say which layers are dense. Names are those of transformers' checkpoints, per expert and fused.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memorist.errors import ExpertsError, nearest
from memorist.fit.experts.shards import Reader, Stored, Written, read_header

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_BLOCK = r"^(?P<head>.*\blayers\.(?P<layer>\d+)\.(?:mlp|block_sparse_moe)\.)"
_EXPERT = re.compile(_BLOCK + r"experts\.(?P<expert>\d+)\.(?P<tail>.+)$")
_FUSED = re.compile(
    _BLOCK + r"experts\.(?:gate_up_proj|down_proj|gate_proj|up_proj)(?:_bias|_blocks|_scales|_scale_inv|\.weight)?$"
)
_ROUTER = re.compile(_BLOCK + r"(?:gate|router)\.(?P<tail>weight|bias|e_score_correction_bias)$")
_ANY_LAYER = re.compile(r"\blayers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Family:
    """How an architecture chooses experts.

    counts: where config.json may hold the number of experts; the first is written where none does. least: experts
    whose scores make a group's (DeepSeek-V3 sums the best two, V2 takes the best); 0: no groups.
    """

    counts: tuple[str, ...]
    least: int = 0


FAMILIES = {
    "qwen2_moe": Family(("num_experts", "num_local_experts")),
    "qwen3_moe": Family(("num_experts", "num_local_experts")),
    "olmoe": Family(("num_experts", "num_local_experts")),
    "mixtral": Family(("num_local_experts", "num_experts")),
    "deepseek_v2": Family(("n_routed_experts", "num_experts", "num_local_experts"), least=1),
    "deepseek_v3": Family(("n_routed_experts", "num_experts", "num_local_experts"), least=2),
    "gpt_oss": Family(("num_local_experts", "num_experts")),
}


@dataclass(frozen=True, slots=True)
class Place:
    """What a tensor is: part of one expert, or of all experts of a layer in its first dimension."""

    layer: int
    expert: int | None


def place_of(name: str) -> Place | None:
    """Where a tensor belongs among experts and routers; None for all others."""
    if match := _EXPERT.match(name):
        return Place(int(match["layer"]), int(match["expert"]))
    if match := _FUSED.match(name) or _ROUTER.match(name):
        return Place(int(match["layer"]), None)
    return None


def is_expert(name: str) -> bool:
    """Whether a tensor is of routed experts."""
    return bool(_EXPERT.match(name) or _FUSED.match(name))


def renamed(name: str, expert: int) -> str:
    """The name of an expert's tensor under another number."""
    match = _EXPERT.match(name)
    assert match is not None
    return f"{match['head']}experts.{expert}.{match['tail']}"


def layer_of(name: str) -> int | None:
    """The decoder layer of a tensor."""
    match = _ANY_LAYER.search(name)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint with experts.

    tensors: by name. shards: file names in the index's order. moe_layers: decoder layers with experts, ascending,
    without those of multi-token prediction (`extra_layers`). experts, active: N and k of a layer. fingerprint: of
    architecture, N, k and all router weights.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Stored]
    moe_layers: tuple[int, ...]
    extra_layers: tuple[int, ...]
    experts: int
    active: int
    fingerprint: str = ""

    @property
    def kind(self) -> str:
        """The architecture, as config.json names it."""
        return str(self.config["model_type"])

    @property
    def family(self) -> Family:
        """How it chooses."""
        return FAMILIES[self.kind]

    @property
    def shards(self) -> tuple[str, ...]:
        """File names."""
        return tuple(sorted({stored.file.name for stored in self.tensors.values()}))

    @property
    def groups(self) -> tuple[int, int]:
        """(groups, groups that a token may use); (1, 1) where routing is not limited to groups."""
        config = self.config
        if not self.family.least or (self.kind == "deepseek_v2" and config.get("topk_method", "greedy") == "greedy"):
            return 1, 1
        return int(config.get("n_group") or 1), int(config.get("topk_group") or 1)

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(stored.size for stored in self.tensors.values())

    @property
    def expert_bytes(self) -> int:
        """Of all routed experts."""
        return sum(stored.size for name, stored in self.tensors.items() if is_expert(name))


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint: every header is read and checked, no weight but the routers'.

    Raises:
        ExpertsError: something is missing, torn or contradictory; the architecture is unknown; there are no experts.
    """
    config = _config(folder)
    tensors = _tensors(folder)
    found = sorted({place.layer for name in tensors if (place := place_of(name)) and not _ROUTER.match(name)})
    kind = config.get("model_type")
    if not found:
        raise ExpertsError(f"{folder}: {kind!r} has no experts: not a mixture of experts, there is nothing to choose")
    if kind not in FAMILIES:
        raise ExpertsError(f"{folder}: a mixture of experts of unknown architecture {kind!r}; {_known(str(kind))}")
    depth = config.get("num_hidden_layers")
    if not isinstance(depth, int):
        raise ExpertsError(f"{folder / 'config.json'}: num_hidden_layers is {depth!r}; expected a number of layers")
    layers = tuple(layer for layer in found if layer < depth)
    count = _count_experts(folder, tensors, found)
    active = config.get("num_experts_per_tok")
    if not isinstance(active, int) or not 1 <= active <= count:
        raise ExpertsError(f"{folder / 'config.json'}: num_experts_per_tok is {active!r}; expected 1 to {count}")
    extra = tuple(layer for layer in found if layer >= depth)
    made = Checkpoint(folder, config, tensors, layers, extra, count, active)
    return replace(made, fingerprint=_fingerprint(made))


def _known(kind: str) -> str:
    hint = nearest(kind, FAMILIES)
    return hint if hint.startswith("valid") else f"{hint} Known: {', '.join(FAMILIES)}"


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not folder.is_dir():
        raise ExpertsError(f"{folder} is no folder; give the folder of a checkpoint (config.json, *.safetensors)")
    return read_object(file)


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ExpertsError: it cannot be read, or holds something else.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExpertsError(f"{file}: no JSON that can be read ({error})") from error
    if not isinstance(data, dict):
        raise ExpertsError(f"{file}: expected an object of fields, got {type(data).__name__}")
    return data


def _tensors(folder: Path) -> dict[str, Stored]:
    index = folder / INDEX
    if not index.is_file():
        if not (folder / SINGLE).is_file():
            raise ExpertsError(f"{folder}: neither {INDEX} nor {SINGLE}; only safetensors checkpoints can be read")
        return read_header(folder / SINGLE)
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ExpertsError(f"{index}: no weight_map; fetch the index again")
    headers: dict[str, dict[str, Stored]] = {}
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard:
            raise ExpertsError(f"{index}: names {shard!r}, which is not a file of its own folder")
        headers[shard] = read_header(folder / shard)
    absent = [name for name, shard in places.items() if name not in headers[shard]]
    if absent:
        raise ExpertsError(
            f"{index}: names {len(absent)} tensors that are not in their files, first {absent[0]!r} in "
            f"{places[absent[0]]}; index and shards are of different checkpoints"
        )
    return {name: headers[shard][name] for name, shard in places.items()}


def _count_experts(folder: Path, tensors: dict[str, Stored], layers: list[int]) -> int:
    """N, which every layer must have without gaps, in its experts and in its router."""
    seen: dict[int, set[int]] = {layer: set() for layer in layers}
    rows: dict[int, dict[str, int]] = {layer: {} for layer in layers}
    for name, stored in tensors.items():
        place = place_of(name)
        if place is None or place.layer not in seen:
            continue
        if place.expert is not None:
            seen[place.layer].add(place.expert)
        else:
            rows[place.layer][name] = stored.shape[0]
    wanted = max(len(seen[layers[0]]), *(rows[layers[0]].values() or [0]))
    for layer in layers:
        if not any(_ROUTER.match(name) for name in rows[layer]):
            raise ExpertsError(f"{folder}: layer {layer} has experts and no router; the checkpoint is incomplete")
        if seen[layer] and seen[layer] != set(range(wanted)):
            raise ExpertsError(
                f"{folder}: layer {layer} has {len(seen[layer])} of experts 0 to {wanted - 1}; incomplete"
            )
        for name, count in rows[layer].items():
            if count != wanted:
                raise ExpertsError(f"{folder}: {name} is for {count} experts, expected {wanted} as in the other layers")
    return wanted


def _fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 over architecture, N, k and the routers' bytes: what scores of experts are true of."""
    digest = hashlib.sha256(f"{checkpoint.kind} {checkpoint.experts} {checkpoint.active}".encode())
    with Reader() as reader:
        for name in sorted(checkpoint.tensors):
            match = _ROUTER.match(name)
            if match and int(match["layer"]) in checkpoint.moe_layers:
                digest.update(f"{match['layer']} {match['tail']}".encode())
                for chunk in reader.chunks(Written(checkpoint.tensors[name])):
                    digest.update(chunk)
    return digest.hexdigest()
