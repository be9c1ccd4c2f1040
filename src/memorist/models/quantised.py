"""Models whose weights are 8-bit integers, for inference in less memory: bitsandbytes rounds each row of a matrix to
255 steps of its own (LLM.int8(), arXiv 2208.07339); embeddings, norms and the head are kept in bfloat16."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from memorist.errors import PolicyError
from memorist.models.tensors import best_device


def loaded_as(int8: bool, name: str) -> dict[str, Any]:
    """What a model is opened with: float32 weights, or integers where that is wanted.

    Raises:
        PolicyError: bitsandbytes is not installed.
    """
    if not int8:
        return {"dtype": torch.float32}
    if find_spec("bitsandbytes") is None:
        raise PolicyError(f"'int8:{name}' needs bitsandbytes: pip install 'memorist[int8]'")
    # It says of each product on CPUs that its numbers go through another type.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    config = BitsAndBytesConfig(load_in_8bit=True)
    return {"dtype": torch.bfloat16, "quantization_config": config, "device_map": {"": best_device()}}


def settled(model: Any, int8: bool) -> Any:
    """The model where it computes; integers are there already, and learn no more."""
    return model.requires_grad_(False) if int8 else model.to(best_device())


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of a model's weights, tied ones once, integers with their scales."""
    parts: dict[int, torch.Tensor] = {id(value): value for value in model.parameters()}
    scales = [scale for module in model.modules() if (scale := _scale(module)) is not None]
    return sum(part.nbytes for part in (*parts.values(), *scales))


def _scale(module: torch.nn.Module) -> torch.Tensor | None:
    """Of an integer matrix: it goes from the weight to the layer when that is first used."""
    held = [getattr(getattr(module, place, None), "SCB", None) for place in ("weight", "state")]
    return next((scale for scale in held if scale is not None), None)
