"""Which layers need their attention: what is lost where one alone sees only what is near.

A recurrent layer has no trouble with what is near; what it loses is exact recall from far back. So each layer in turn
is shown the last few tokens alone, and the layers whose replies suffer most keep their attention (M1 keeps every fifth
layer, whatever it does; section 8.5 of its specification).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from memorist.errors import HybridError
from memorist.models.attention import attending

NEAR = 16
"""Tokens that a layer still sees, itself included."""
Replies = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Token ids of prompts, and of what was written after them."""


def recall_costs(
    model: Any, replies: Replies, *, near: int = NEAR, progress: Callable[[int, int], None] = lambda done, all_: None
) -> list[float]:
    """For each layer the nats per token of the replies that are lost where it sees only what is near.

    Args:
        model: a transformers causal LM whose layers have `self_attn`.
        replies: what it is asked for; an agent's own decisions are best.
        near: tokens that a layer still sees.
        progress: told how many layers are done, of how many.

    Raises:
        HybridError: there are no replies, or the layers have no attention that can be narrowed.
    """
    if not any(reply for _, reply in replies):
        raise HybridError("no replies to probe with; expected at least one with a token")
    layers = list(model.base_model.layers)
    if not all(hasattr(layer, "self_attn") for layer in layers):
        raise HybridError(
            f"{type(model).__name__} has layers without attention; expected a model before its conversion"
        )
    with torch.inference_mode(), attending(model, "eager"):
        whole, found = _loss(model, replies), []
        for layer in layers:
            with _narrowed(layer.self_attn, near):
                found.append(_loss(model, replies) - whole)
            progress(len(found), len(layers))
    return found


def choose_layers(costs: Sequence[float], keep: int) -> tuple[int, ...]:
    """The layers that lose most, in order.

    Raises:
        HybridError: so many cannot be kept.
    """
    if not 0 < keep <= len(costs):
        raise HybridError(f"{keep} layers to keep of {len(costs)}; expected 1 to {len(costs)}")
    return tuple(sorted(sorted(range(len(costs)), key=lambda layer: -costs[layer])[:keep]))


def _loss(model: Any, replies: Replies) -> float:
    """Nats per token of the replies."""
    lost, count = 0.0, 0
    for prompt, reply in replies:
        if not reply:
            continue
        ids = torch.tensor([[*prompt, *reply]], device=model.device)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
        expected = ids[0, len(prompt) :]
        lost += float(
            torch.nn.functional.cross_entropy(logits[len(prompt) - 1 : -1].float(), expected, reduction="sum")
        )
        count += len(reply)
    return lost / count


@contextmanager
def _narrowed(attention: torch.nn.Module, near: int) -> Iterator[None]:
    """Let one layer see only the last tokens."""

    def narrow(module: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = given["attention_mask"]
        place = torch.arange(mask.shape[-1], device=mask.device)
        far = place[None, :] <= place[:, None] - near
        return args, given | {"attention_mask": mask.masked_fill(far, torch.finfo(mask.dtype).min)}

    handle = attention.register_forward_pre_hook(narrow, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
