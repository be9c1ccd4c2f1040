"""Attention masks of tree rows, and which models may have any.

A plain 4-D mask is what a layer with full attention needs; a layer that attends to a window needs it cut to that
window, counted along each path. Layers that carry a state from token to token cannot branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from memorist.models.rows import RowBatch

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


def why_not_shared(config: Any) -> str:
    """Why the model that has this configuration must be given a row for each decision; empty where it need not.

    Args:
        config: transformers' configuration of the text model.
    """
    strange = sorted(set(getattr(config, "layer_types", None) or ()) - {FULL, SLIDING})
    if strange:
        return f"layers that take no tree mask: {', '.join(strange)}"
    if getattr(config, "output_router_logits", False):
        return "a router's auxiliary loss would see a shared prompt once instead of once for each decision"
    return ""


def recurrent(config: Any) -> bool:
    """Whether a model has layers that carry a state from token to token.

    Args:
        config: transformers' configuration of the text model.
    """
    return bool(set(getattr(config, "layer_types", None) or ()) - {FULL, SLIDING, CHUNKED})


def tree_masks(config: Any, batch: RowBatch, dtype: torch.dtype, device: torch.device) -> Any:
    """What the model takes as `attention_mask`: shape (B, 1, L, L), 0 or the least number of `dtype`; one for each kind
    of layer where the configuration names kinds."""

    def mask(window: int | None) -> torch.Tensor:
        allowed = torch.from_numpy(batch.attention(window)).to(device)
        found = torch.zeros(allowed.shape, dtype=dtype, device=device)
        return found.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]

    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return mask(window)
    masks = {FULL: mask(None)}
    if SLIDING in kinds:
        masks[SLIDING] = mask(window)
    return masks if len(masks) > 1 or SLIDING in kinds else masks[FULL]


def pairs_per_token(config: Any, parameters: Mapping[str, int]) -> float:
    """How many pairs of tokens in attention cost as many operations as one token in all else.

    Args:
        config: of the text model.
        parameters: numbers of them by name, of all layers, without embedding and head; of experts, those count that a
            token is sent to.
    """
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    share = config.num_experts_per_tok / experts if experts else 1.0
    used = sum(count * (share if ".experts." in name else 1.0) for name, count in parameters.items())
    return used / config.num_hidden_layers / (2 * heads * width)
