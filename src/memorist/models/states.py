"""What a model keeps of what it has read: it can be put aside, gone on from several times, and brought back.

Of attention layers those are keys and values, of recurrent layers a state of constant size; the state cannot be cut
back to an earlier token, so what may be needed again is put aside before it is gone on from. Some families of models
start again from nothing where several tokens follow what was read, without an error: whoever goes on is tried first.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache

from memorist.errors import PolicyError
from memorist.models.attention import alike
from memorist.models.causal import CausalPolicy

TRIED = (7, 5, 1, 1)
"""Tokens that a model is tried on: it reads the first, then goes on."""
_TRIED: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


class State:
    """Tokens that a model has read.

    Args:
        policy: whose model reads.

    Raises:
        PolicyError: the model gives something else where it goes on than where it reads all at once.
    """

    def __init__(self, policy: CausalPolicy) -> None:
        if why := why_not_continued(policy):
            raise PolicyError(f"{policy.name!r} cannot go on from what it has read: {why}; let it read all at once")
        self.policy, self.tokens = policy, tuple[int, ...]()
        self.logits: torch.Tensor | None = None
        self._cache = DynamicCache(config=policy.model.config)

    def append(self, tokens: Sequence[int]) -> torch.Tensor:
        """Read more; logits of what may come next, shape (V,).

        Raises:
            PolicyError: there are no tokens, or more than the model's window takes.
        """
        length = len(self.tokens) + len(tokens)
        if not tokens or length > self.policy.window:
            held, window = len(self.tokens), self.policy.window
            raise PolicyError(f"{len(tokens)} tokens after {held}; expected at least one, and at most {window} in all")
        self.policy.take_place()
        self.logits = _read(self.policy.model, self._cache, tokens, len(self.tokens))
        self.tokens = (*self.tokens, *tokens)
        return self.logits

    def fork(self, count: int = 1) -> list[State]:
        """As many that go on from here on their own; this one stays as it is."""
        found = []
        for _ in range(count):
            other = copy.copy(self)
            other._cache = copy.deepcopy(self._cache)
            found.append(other)
        return found

    @property
    def bytes(self) -> int:
        """That are kept."""
        return sum(part.nbytes for layer in self._cache.layers for part in _kept(layer))


def _kept(layer: Any) -> list[torch.Tensor]:
    states = [*getattr(layer, "conv_states", {}).values(), *getattr(layer, "recurrent_states", {}).values()]
    every = [*states, getattr(layer, "keys", None), getattr(layer, "values", None)]
    return [part for part in every if isinstance(part, torch.Tensor)]


def _read(model: Any, cache: DynamicCache, tokens: Sequence[int], before: int) -> torch.Tensor:
    end = before + len(tokens)
    with torch.inference_mode():
        out = model(
            input_ids=torch.tensor([list(tokens)], device=model.device),
            attention_mask=torch.ones((1, end), dtype=torch.long, device=model.device),
            # Told, since some models count them wrongly by themselves.
            position_ids=torch.arange(before, end, device=model.device)[None],
            past_key_values=cache,
            use_cache=True,
        )
    found: torch.Tensor = out.logits[0, -1].float()
    return found


def why_not_continued(policy: CausalPolicy) -> str:
    """Why what a model gives when it goes on is not what it gives when it reads all at once; empty where it is, which
    is tried once for each model."""
    if policy.model not in _TRIED:
        policy.take_place()
        _TRIED[policy.model] = _tried(policy.model)
    return _TRIED[policy.model]


def _tried(model: Any) -> str:
    ids = [int(i) * 7919 % model.config.get_text_config().vocab_size for i in range(sum(TRIED))]
    try:
        cache, before = DynamicCache(config=model.config), 0
        for count in TRIED:
            found = _read(model, cache, ids[before : before + count], before)
            before += count
            expected = _read(model, DynamicCache(config=model.config), ids[:before], 0)
            if not alike(model, found, expected):
                off = float((found - expected).abs().max())
                return f"after {before - count} tokens the next {count} are off by {off:.2g} in logits"
    except (NotImplementedError, ValueError, TypeError, IndexError) as error:
        return f"its own way to keep what it has read is not known here ({error})"
    return ""
