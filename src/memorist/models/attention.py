"""Attention for training on CPUs, by blocks of queries: each reads only the keys that some query in it sees.

Of the pairs of a row under a causal mask half are never seen, and in a tree row no sibling sees another; attention with
a dense mask computes them all the same, forward and backward. Here they are left out in whole blocks. What a block
sees is read off the mask, so trees, windows and padding need nothing of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

BLOCKS = "memorist_blocks"
"""The name that transformers knows it by."""
QUERIES, KEYS = 128, 64
"""Queries of a block; keys that are read or left out together."""


def seen(mask: torch.Tensor) -> list[list[int]]:
    """For each block of queries the chunks of keys that one of them sees, of at least one row.

    Args:
        mask: what is added to the scores, shape (B, 1, Q, K); what is below zero is not seen.
    """
    allowed = (mask >= 0).any(0)[0]
    queries, keys = allowed.shape
    pad = (0, -keys % KEYS, 0, -queries % QUERIES)
    tiles = torch.nn.functional.pad(allowed, pad).view(-(-queries // QUERIES), QUERIES, -(-keys // KEYS), KEYS)
    return [row.nonzero()[:, 0].tolist() or [0] for row in tiles.any(3).any(1)]


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers' eager attention gives, at every query that sees a key.

    Args:
        query: shape (B, heads, Q, width).
        key, value: shape (B, heads for keys, K, width).
        attention_mask: shape (B, 1, Q, K), 0 or the least number.

    Returns:
        Shape (B, Q, heads, width); no weights.
    """
    strange = [name for name in ("softcap", "s_aux") if kwargs.get(name) is not None]
    if strange or dropout or attention_mask is None:
        raise NotImplementedError(f"attention by blocks with {strange or 'dropout or without a mask'}")
    batch, heads, queries, width = query.shape
    shared = key.shape[1]
    scaled = (query * scaling).view(batch, shared, heads // shared, queries, width)
    keys, values, masks = key.split(KEYS, 2), value.split(KEYS, 2), attention_mask.split(KEYS, 3)
    found = []
    for block, chunks in enumerate(seen(attention_mask)):
        some = slice(block * QUERIES, (block + 1) * QUERIES)
        asked = scaled[:, :, :, some].flatten(2, 3)
        read = torch.cat([keys[chunk] for chunk in chunks], 2)
        hidden = torch.cat([masks[chunk][:, :, some] for chunk in chunks], 3)
        scores = (asked @ read.transpose(2, 3)).unflatten(2, (heads // shared, -1)).add_(hidden[:, :, None])
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype).flatten(2, 3)
        read = torch.cat([values[chunk] for chunk in chunks], 2)
        found.append((weights @ read).unflatten(2, (heads // shared, -1)))
    return torch.cat(found, 3).flatten(1, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register(BLOCKS, attend)
AttentionMaskInterface.register(BLOCKS, eager_mask)


@contextmanager
def attending(model: Any, kind: str) -> Iterator[None]:
    """With another attention for a while."""
    usual = model.config._attn_implementation
    model.set_attn_implementation(kind)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def alike(model: Any, found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two ways to compute what a model gives differ by rounding only."""
    allowed = (1e-4 if model.dtype == torch.float32 else 0.05) * expected.abs().max()
    return bool(((found - expected).abs() <= allowed).all())


def may_block(model: Any) -> bool:
    """Whether attention by blocks gives what the model's own gives, which is tried."""
    config = model.config.get_text_config()
    length = min(config.max_position_embeddings, 2 * QUERIES + 1)
    ids = (torch.arange(length, device=model.device) * 7919 % config.vocab_size)[None]
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    with torch.no_grad():
        expected = model.base_model(**given).last_hidden_state
        try:
            with attending(model, BLOCKS):
                return alike(model, model.base_model(**given).last_hidden_state, expected)
        except NotImplementedError:
            return False
