"""One token more for every row of a batch, again and again.

Rows that go on from the same prompt read its keys and values together. On GPUs a step of a small model is bound by the
starting of its kernels: where keys and values stand in buffers that do not move, a step is recorded once as a CUDA
graph and then replayed.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

from memorist.models.attention import alike, attending
from memorist.models.masks import FULL

SHARED_FROM = 128
"""Prompt tokens from which reading a prompt once for all its rows pays."""
LEAST_RECORDED = 16
"""Tokens to write from which recording a step (some four steps' time) pays."""


class _Roomy(DynamicLayer):
    """Of one layer, with room for what will be appended: appending by concatenation, which copies the prompt for every
    token, was measured to take a third of the time of writing 40 tokens after 600.

    Args:
        before: the layer to go on from.
        rows: for each row, which row of `before` it is, shape (B,).
        room: tokens that each row may get.
    """

    def __init__(self, before: DynamicLayer, rows: torch.Tensor, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = before.dtype, before.device, True
        self.wide = tuple(self._copied(kept, rows, kept.shape[2] + room) for kept in (before.keys, before.values))
        self._show(before.keys.shape[2])
        before.keys = before.values = None  # of a long prompt there is not room for all twice

    def _copied(self, kept: torch.Tensor, rows: torch.Tensor, width: int) -> torch.Tensor:
        wide = kept.new_empty((len(rows), kept.shape[1], width, kept.shape[3]))
        torch.index_select(kept, 0, rows, out=wide[:, :, : kept.shape[2]])
        return wide

    def _show(self, filled: int) -> None:
        self.keys, self.values = (wide[:, :, :filled] for wide in self.wide)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Append, shape (B, heads, T, width) each; all keys and values so far."""
        filled = self.keys.shape[2]
        end = filled + key_states.shape[2]
        for wide, states in zip(self.wide, (key_states, value_states), strict=True):
            wide[:, :, filled:end] = states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Go on with some of the rows only."""
        width, filled = self.wide[0].shape[2], self.keys.shape[2]
        self.wide = tuple(self._copied(kept, indices, width) for kept in (self.keys, self.values))
        self._show(filled)


def select(layer: Any, rows: torch.Tensor) -> None:
    """Go on with some rows of one layer's cache, some several times. Layers with a state have another name for it, and
    those that have keys too would leave the state as it is under the first one."""
    if hasattr(layer, "recurrent_states"):
        layer.reorder_cache(rows)
    else:
        layer.batch_select_indices(rows)


class Growing:
    """Keys and values are appended; rows that have ended are dropped.

    Args:
        cache: of the prompts; it is used up.
        rows: for each row to write, which prompt it goes on from, shape (B,).
        mask: which columns of the rows' prompts are no padding, shape (B, longest).
        at: position of the last prompt token, shape (B,).
        room: tokens that each row may get.
    """

    def __init__(
        self, model: Any, cache: DynamicCache, rows: torch.Tensor, mask: torch.Tensor, at: torch.Tensor, room: int
    ) -> None:
        self.model, self.cache, self.mask, self.at = model, cache, mask, at
        for place, layer in enumerate(cache.layers):
            if type(layer) is DynamicLayer and layer.get_seq_length():
                cache.layers[place] = _Roomy(layer, rows, room)
            else:  # a window that slides, a state
                select(layer, rows)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the rows only."""
        for layer in self.cache.layers:
            select(layer, rows)
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


SIBLINGS = "memorist_siblings"
"""The attention of `Siblings`, by the name that transformers knows it by."""


class Siblings:
    """The keys and values of each prompt are read once for all rows that go on from it; each row's own are appended.

    The model's attention must be `SIBLINGS` meanwhile.

    Args:
        cache, rows, mask, at, room: as for `Growing`; rows of one prompt are neighbours.
    """

    def __init__(
        self, model: Any, cache: DynamicCache, rows: torch.Tensor, mask: torch.Tensor, at: torch.Tensor, room: int
    ) -> None:
        self.model, self.cache, self.at = model, cache, at
        self.prompts = [(layer.keys, layer.values) for layer in cache.layers]
        first = torch.searchsorted(rows, torch.arange(int(rows[-1]) + 1, device=rows.device))
        self.hidden = torch.zeros(mask[first].shape, device=mask.device)
        self.hidden = self.hidden.masked_fill_(mask[first] == 0, torch.finfo(torch.float32).min)[:, None, None]
        for place, layer in enumerate(cache.layers):
            layer.keys, layer.values = layer.keys[:, :, :0], layer.values[:, :, :0]
            cache.layers[place] = _Roomy(layer, rows, room)
        self._stand(rows)

    def _stand(self, rows: torch.Tensor) -> None:
        """Each row gets a place among those of its prompt; prompts that no row goes on from are dropped."""
        used, self.rows, counts = rows.unique_consecutive(return_inverse=True, return_counts=True)
        if len(used) < len(self.hidden):
            self.hidden = self.hidden[used]
            self.prompts = [(keys[used], values[used]) for keys, values in self.prompts]
        self.most = int(counts.max())
        among = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[self.rows]
        self.place = self.rows * self.most + among

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the rows only, in their order."""
        self.cache.batch_select_indices(rows)
        self.at = self.at[rows]
        self._stand(self.rows[rows])

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits after each row's next token, shape (B, V)."""
        self.at = self.at + 1
        out = self.model(
            input_ids=tokens[:, None],
            position_ids=self.at[:, None],
            past_key_values=self.cache,
            use_cache=True,
            siblings=self,
        )
        found: torch.Tensor = out.logits[:, -1].float()
        return found

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """To the prompt and to what the row wrote, each with a softmax of its own; then weighed by their sums.

        Args:
            query: scaled, shape (B, heads for keys, queries of each, width).
            key, value: of what the rows wrote, shape (B, heads for keys, T, width).
        """
        keys, values = self.prompts[layer]
        own, own_sum = _attended(query, key, value)
        asked = query.new_zeros((len(keys) * self.most, *query.shape[1:]))
        asked[self.place] = query
        # Shape (P, heads for keys, rows of a prompt times queries of each, width).
        asked = asked.unflatten(0, (-1, self.most)).transpose(1, 2).flatten(2, 3)
        shared, shared_sum = (
            found.unflatten(2, (self.most, -1)).transpose(1, 2).flatten(0, 1)[self.place]
            for found in _attended(asked, keys, values, self.hidden)
        )
        return torch.lerp(own, shared, (shared_sum - own_sum).sigmoid().to(own.dtype))


def _attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention, and the logarithm of the sum that its softmax divides by, shape (…, 1)."""
    scores = (query @ key.transpose(2, 3)).float()
    if hidden is not None:
        scores += hidden
    total = scores.logsumexp(-1, keepdim=True)
    return (scores - total).exp_().to(value.dtype) @ value, total


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    siblings: Siblings | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    if siblings is None:
        raise NotImplementedError("a model that does not hand on to its attention what it is called with")
    found = siblings.attend(module.layer_idx, (query * scaling).unflatten(1, (key.shape[1], -1)).squeeze(3), key, value)
    return found.flatten(1, 2)[:, None], None


AttentionInterface.register(SIBLINGS, _attend)


class _Buffers(StaticLayer):
    """Of one layer. Under autocast rotated keys are float32 again; attention takes what products are made in."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().update(key_states.to(self.dtype), value_states.to(self.dtype), *args, **kwargs)


class Recorded:
    """Keys and values are written into buffers; rows that have ended are computed on, but not read.

    Args:
        cache, rows, mask, at, room: as for `Growing`.

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


def may_share(model: Any) -> bool:
    """Whether `Siblings` writes what `Growing` does, which is tried on two prompts of different lengths."""
    tokens = torch.arange(32, device=model.device).view(4, 8) * 7919 % model.config.get_text_config().vocab_size
    rows, last = torch.tensor([0, 0, 1], device=model.device), torch.tensor([3, 3, 1], device=model.device)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]], device=model.device)
    found: list[torch.Tensor] = []
    with torch.inference_mode():
        for way in (Growing, Siblings):
            cache = DynamicCache(config=model.config)
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            given = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache, "use_cache": True}
            model(input_ids=tokens[:2, :4], **given)
            if not all(type(layer) is DynamicLayer for layer in cache.layers):
                return False
            step: Growing | Siblings = way(model, cache, rows, mask[rows], last, 2)
            try:
                with attending(model, SIBLINGS) if way is Siblings else nullcontext():
                    step(tokens[2, :3])
                    found.append(step(tokens[3, :3]))
            except NotImplementedError:
                return False
    return alike(model, *found)


def why_not_written(model: Any) -> str:
    """Why what a model would be scored by is not what its tokens would be drawn from, token by token after prompts of
    different lengths; empty where it is. Some recurrent layers let what fills up into their state, without an error."""
    size = model.config.get_text_config().vocab_size
    ids = torch.arange(24, device=model.device).view(2, 12) * 7919 % size
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        before = {"attention_mask": mask[:, :8], "position_ids": positions[:, :8], "past_key_values": cache}
        try:
            model(input_ids=ids[:, :8], **before)
        except (NotImplementedError, ValueError, TypeError) as error:
            return f"its own way to keep what it has read is not known here ({error})"
        rows = torch.tensor([1, 0, 1], device=model.device)  # in another order, and one that ends early
        step = Growing(model, cache, rows, mask[rows, :8], positions[rows, 7], 4)
        first = step(ids[rows, 8])
        step.keep(rows[:2])
        rest = [step(ids[:, place]) for place in range(9, 12)]
        drawn = torch.stack([first[rows[:2]], *rest], 1)
        plain = torch.cat([ids[1:, 4:], ids[1:, :4]], 1)  # as rows of decisions are: what fills up comes last
        other = torch.cat([mask[1:, 4:], mask[1:, :4]], 1)
        given = {"position_ids": torch.arange(12, device=model.device)[None], "use_cache": False}
        first = model(input_ids=ids[:1], attention_mask=mask[:1], **given).logits[:, 8:].float()
        second = model(input_ids=plain, attention_mask=other, **given).logits[:, 4:8].float()
    scored = torch.cat([first, second])
    if alike(model, drawn, scored):
        return ""
    return f"logits differ by {float((drawn - scored).abs().max()):.2g} between tokens in turn and all at once"


P = TypeVar("P", bound=Sized)


def batches(prompts: Sequence[P], most: int) -> list[list[P]]:
    """Consecutive prompts, sorted by length, in batches of at most `most` padded tokens."""
    found: list[list[P]] = []
    for prompt in prompts:
        if found and (len(found[-1]) + 1) * len(prompt) <= most:
            found[-1].append(prompt)
        else:
            found.append([prompt])
    return found
