"""From tensors on disk to modules in memory: a model without weights, into which just what is needed is read.

On disk most architectures keep each expert on its own; in memory transformers holds all of a layer in two tensors,
gate above up. Experts are read straight into their slots of those, so that nothing is held twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from memorist.errors import ExpertsError
from memorist.fit.experts.checkpoint import Checkpoint, is_expert
from memorist.fit.experts.shards import Reader, Stored, Written

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_HALVES = {"gate_up_proj": (("gate_proj", "w1"), ("up_proj", "w3")), "down_proj": (("down_proj", "w2"),)}
_FUSED = re.compile(r"^(.*\.mlp\.experts\.)(gate_up_proj|down_proj)$")
_SLICED = re.compile(r"\.mlp\.(?:gate|router)\.(?:weight|bias|e_score_correction_bias)$")


def skeleton(checkpoint: Checkpoint, experts: int) -> Any:
    """The transformers model with so many experts per layer and no weights; its rotary frequencies are computed.

    Raises:
        ExpertsError: the checkpoint is quantised: its weights are no numbers to compute with.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if checkpoint.config.get("quantization_config"):
        raise ExpertsError(
            f"{checkpoint.folder} is quantised; running it layer by layer needs weights of 16 or 32 bits: give a "
            "dequantised copy (pruning itself works on the quantised one, its routers are the same)"
        )
    fields = {key: value for key, value in checkpoint.config.items() if key not in ("model_type", "pruning")}
    present = [key for key in checkpoint.family.counts if key in fields] or [checkpoint.family.counts[0]]
    config = AutoConfig.for_model(checkpoint.kind, **(fields | dict.fromkeys(present, experts)))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    # Frequencies are in no checkpoint: made again where there is memory for them.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return model


def read_tensor(reader: Reader, wanted: Written) -> torch.Tensor:
    """A tensor, or rows of it."""
    if wanted.stored.dtype not in _TYPES:
        raise ExpertsError(f"{wanted.stored.file}: holds {wanted.stored.dtype}, which cannot be computed with")
    made = torch.empty(wanted.shape, dtype=_TYPES[wanted.stored.dtype])
    reader.fill(wanted, _bytes_of(made))
    return made


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())


def stored_as(checkpoint: Checkpoint, name: str) -> Stored | None:
    """The tensor on disk that a module's parameter is; None where it is put together from experts."""
    for known in (name, name.replace(".mlp.", ".block_sparse_moe.")):
        if known in checkpoint.tensors:
            return checkpoint.tensors[known]
    return None


def put(module: Any, name: str, tensor: torch.Tensor) -> None:
    """Set a parameter or buffer by its dotted name."""
    *path, leaf = name.split(".")
    for part in path:
        module = getattr(module, part)
    if leaf in module._buffers:
        module._buffers[leaf] = tensor
    else:
        module._parameters[leaf] = torch.nn.Parameter(tensor, requires_grad=False)


def fill(module: Any, prefix: str, checkpoint: Checkpoint, reader: Reader, rows: tuple[int, ...] | None = None) -> None:
    """Read all that a module holds but its experts.

    Args:
        module: without weights.
        prefix: of its names in the checkpoint, ending with a dot or empty.
        checkpoint: what to read.
        reader: reads it.
        rows: of routers; None for all.

    Raises:
        ExpertsError: a tensor is not in the checkpoint.
    """
    for name in module.state_dict():
        full = prefix + name
        if ".experts." in f".{full}":
            continue
        stored = stored_as(checkpoint, full)
        if stored is None:
            raise ExpertsError(f"{checkpoint.folder}: {full} is not in the checkpoint; fetch it again")
        tensor = read_tensor(reader, Written(stored, rows if _SLICED.search(f".{full}") else None))
        put(module, name, as_computed(checkpoint, full, tensor))


def as_computed(checkpoint: Checkpoint, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """In the type of the experts, which are read as they are; correction biases in 32 bits, as transformers has them.

    Files may hold routers or norms in a wider type than all else, and no layer multiplies two types.
    """
    if not tensor.is_floating_point():
        return tensor
    if name.endswith("e_score_correction_bias"):
        return tensor.float()
    experts = next(one.dtype for at, one in checkpoint.tensors.items() if is_expert(at))
    return tensor.to(_TYPES.get(experts, tensor.dtype))


def make_room(layer: Any, number: int, checkpoint: Checkpoint) -> None:
    """Give a layer's experts memory, in the type that they have on disk."""
    for name, tensor in list(layer.mlp.experts.state_dict().items()):
        full = f"model.layers.{number}.mlp.experts.{name}"
        stored = stored_as(checkpoint, full) or _pieces(checkpoint, full, 0)[0]
        put(layer.mlp.experts, name, torch.empty(tensor.shape, dtype=_TYPES[stored.dtype]))


def fill_experts(
    layer: Any,
    number: int,
    checkpoint: Checkpoint,
    reader: Reader,
    slots: Mapping[int, int] | Iterable[tuple[int, int]],
) -> int:
    """Read experts into slots of a layer, {slot: expert}; returns the bytes of them."""
    before = reader.bytes_read
    wanted = dict(slots)
    for name, tensor in layer.mlp.experts.state_dict().items():
        full = f"model.layers.{number}.mlp.experts.{name}"
        fused = stored_as(checkpoint, full)
        # In the order of the file: experts lie there by number.
        for slot, expert in sorted(wanted.items(), key=lambda pair: pair[1]):
            into = _bytes_of(tensor[slot])
            if fused is not None:
                reader.fill(Written(fused, (expert,)), into)
                continue
            at = 0
            for piece in _pieces(checkpoint, full, expert):
                reader.fill(Written(piece), into[at : at + piece.size])
                at += piece.size
    return reader.bytes_read - before


def _pieces(checkpoint: Checkpoint, full: str, expert: int) -> list[Stored]:
    """The tensors on disk that follow each other in an expert's slot."""
    match = _FUSED.match(full)
    found = []
    for spellings in _HALVES[match[2]] if match else ():
        names = (f"{match[1]}{expert}.{word}.weight" for word in spellings) if match else ()
        found += [stored for name in names if (stored := stored_as(checkpoint, name)) is not None][:1]
    if not match or len(found) != len(_HALVES[match[2]]):
        raise ExpertsError(f"{checkpoint.folder}: {full} of expert {expert} is not in the checkpoint; fetch it again")
    return found
