"""One token more for every row of a batch, again and again: with a cache that grows, or with buffers of full length.

On GPUs a step of a small model is bound by the starting of its kernels. Where keys and values stand in buffers that
do not move, a step is recorded once as a CUDA graph and then replayed.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, StaticLayer

from memorist.models.masks import FULL

LEAST_RECORDED = 16
"""Tokens to write from which recording a step (some four steps' time) pays."""


class Growing:
    """Keys and values are appended; rows that have ended are dropped.

    Args:
        cache: of the prompts.
        rows: for each row to write, which prompt it goes on from, shape (B,).
        mask: which columns of the rows' prompts are no padding, shape (B, longest).
        at: position of the last prompt token, shape (B,).
    """

    def __init__(self, model: Any, cache: DynamicCache, rows: torch.Tensor, mask: torch.Tensor, at: torch.Tensor):
        self.model, self.cache, self.mask, self.at = model, cache, mask, at
        if rows.tolist() != list(range(len(rows))):  # every prompt has a row
            cache.batch_select_indices(rows)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the rows only."""
        self.cache.batch_select_indices(rows)
        self.mask, self.at = self.mask[rows], self.at[rows]

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits after each row's next token, shape (B, V)."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        self.at = self.at + 1
        out = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.at[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        found: torch.Tensor = out.logits[:, -1].float()
        return found


class _Buffers(StaticLayer):
    """Of one layer. Under autocast rotated keys are float32 again; attention takes what products are made in."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().update(key_states.to(self.dtype), value_states.to(self.dtype), *args, **kwargs)


class Recorded:
    """Keys and values are written into buffers; rows that have ended are computed on, but not read.

    Args:
        cache, rows, mask, at: as for `Growing`; the cache is used up.
        room: tokens that each row may get.

    On CPUs, where nothing can be recorded, each step is computed anew; that gives the same.
    """

    def __init__(
        self, model: Any, cache: DynamicCache, rows: torch.Tensor, mask: torch.Tensor, at: torch.Tensor, room: int
    ) -> None:
        filled, device = mask.shape[1], mask.device
        self.model, self.end = model, filled
        product = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else model.dtype
        self.cache = Cache(layers=[_Buffers(filled + room) for _ in cache.layers])
        for layer, before in zip(self.cache.layers, cache.layers, strict=True):
            keys, values = before.keys.to(product)[rows], before.values.to(product)[rows]
            layer.lazy_initialization(keys, values)
            layer.keys[:, :, :filled].copy_(keys)
            layer.values[:, :, :filled].copy_(values)
            before.keys = before.values = None  # of a long prompt there is not room for all twice
        self.seen = torch.zeros((len(rows), 1, 1, filled + room), dtype=torch.bool, device=device)
        self.seen[:, 0, 0, :filled] = mask.bool()
        self.tokens, self.at = torch.zeros((len(rows), 1), dtype=torch.long, device=device), at[:, None].clone()
        self.live = torch.arange(len(rows), device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self._rewind()
        if device.type == "cuda":
            self._record()

    def _rewind(self) -> None:
        for layer in self.cache.layers:
            layer.cumulative_length.fill_(self.end)

    def _record(self) -> None:
        # What is tried on the way is written into columns that nobody sees before they are written again.
        self.seen[..., self.end] = True
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                self._step()
                self._rewind()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = self._step()
        self._rewind()

    def _step(self) -> torch.Tensor:
        out = self.model(
            input_ids=self.tokens,
            attention_mask=self.seen,
            position_ids=self.at,
            past_key_values=self.cache,
            use_cache=True,
        )
        found: torch.Tensor = out.logits[:, -1].float()
        return found

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the rows only."""
        self.live = self.live[rows]

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits after each row's next token, shape (B, V)."""
        self.tokens[self.live, 0] = tokens
        self.at += 1
        self.seen[..., self.end] = True
        self.end += 1
        if self.graph is None:
            self.logits = self._step()
        else:
            self.graph.replay()
        return self.logits if len(self.live) == len(self.tokens) else self.logits[self.live]


def may_record(model: Any, device: torch.device, room: int) -> bool:
    """Whether a step of this model can be recorded, and it pays."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [FULL])
    windowed = getattr(config, "sliding_window", None) is not None and not getattr(config, "layer_types", None)
    # Which experts a token is sent to is looked at on the CPU, which a recorded step cannot do.
    experts = any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    fused = model.config._attn_implementation == "sdpa"
    plain = kinds == {FULL} and not windowed and not experts
    return device.type == "cuda" and fused and plain and room >= LEAST_RECORDED
