"""From logits to the distribution that an action is drawn from and scored under, and drawing from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from memorist.decision import Distribution

Legal = Sequence[tuple[int, ...] | torch.Tensor | None]
"""What each of some tokens is limited to: ids, or for each of the vocabulary whether it is allowed (None: all)."""


def limit(logits: torch.Tensor, legal: Legal) -> torch.Tensor:
    """Logits of shape (N, V) with minus infinity for what the row's legal set leaves out."""
    if not any(allowed is not None for allowed in legal):
        return logits
    left_out = torch.zeros(logits.shape, dtype=torch.bool)
    for row, allowed in enumerate(legal):
        if isinstance(allowed, torch.Tensor):
            left_out[row] = ~allowed
        elif allowed is not None:
            left_out[row] = True
            left_out[row, list(allowed)] = False
    return logits.masked_fill(left_out.to(logits.device), -torch.inf)


def warp(
    logits: torch.Tensor, distribution: Distribution, legal: Legal = (), taken: torch.Tensor | None = None
) -> torch.Tensor:
    """Log-probabilities of shape (N, V) under a distribution; greedy ones are scored at temperature 1. The rows' legal
    sets come first: temperature, top-k and top-p work on what they leave.

    Args:
        taken: tokens, shape (N,), that top-k and top-p never leave out: what was drawn was among the likely ones then,
            and its probability is not 0 because weights, or the last digits of a product, are others now.
    """
    logits = _tempered(limit(logits, legal), distribution)
    if 0 < distribution.top_k < logits.shape[-1]:
        least = logits.topk(distribution.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(_but(logits < least, taken), -torch.inf)
    logp = torch.log_softmax(logits, dim=-1)
    if distribution.top_p < 1.0:
        order = logp.sort(dim=-1, descending=True)
        before = order.values.exp().cumsum(-1) - order.values.exp()
        dropped = torch.zeros_like(logp, dtype=torch.bool).scatter(-1, order.indices, before >= distribution.top_p)
        logp = torch.log_softmax(logp.masked_fill(_but(dropped, taken), -torch.inf), dim=-1)
    return logp


def _tempered(logits: torch.Tensor, distribution: Distribution) -> torch.Tensor:
    return logits if distribution.temperature in (0.0, 1.0) else logits / distribution.temperature


def few(distribution: Distribution, vocabulary: int) -> bool:
    """Whether all that a distribution leaves is its `top_k` likeliest tokens, so that no others need computing."""
    return 0 < distribution.top_k < vocabulary and distribution.top_p >= 1.0


def likely(
    logits: torch.Tensor, distribution: Distribution, legal: Legal, wanted: torch.Tensor, keep: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that `few` is about: what `warp` says of every one, it says by these.

    Args:
        logits: shape (N, V).
        wanted: tokens, shape (N,), that are asked for.
        keep: whether those count that are not among the likeliest (`taken` of `warp`).

    Returns:
        Ids, shape (N, 1 + top_k), each row's `wanted` first; and which of them count: none twice.
    """
    logits = limit(logits, legal)
    top = logits.topk(distribution.top_k, dim=-1, sorted=False)
    same = top.indices == wanted[:, None]
    first = logits.gather(1, wanted[:, None]) > -torch.inf
    first = first if keep else first & same.any(1, keepdim=True)
    ids = torch.cat([wanted[:, None], top.indices], dim=1)
    return ids, torch.cat([first, ~same & (top.values > -torch.inf)], dim=1)


def warp_few(logits: torch.Tensor, distribution: Distribution, counts: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the tokens that `likely` found, by their logits; shape (N, 1 + top_k) each."""
    return torch.log_softmax(_tempered(logits, distribution).masked_fill(~counts, -torch.inf), dim=-1)


def finished(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """What a model makes of its head's logits: scaled (Cohere, Granite), capped (Gemma 2).

    Args:
        config: transformers' configuration of the text model.
    """
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    logits = logits if scale == 1.0 else logits * scale
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def by_rows(head: torch.nn.Module | None) -> bool:
    """Whether some of the vocabulary's logits can be had without the others."""
    return head is not None and type(head) is torch.nn.Linear and not isinstance(head.weight, DTensor)


def logits_of(head: torch.nn.Linear, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Of each state, shape (N, width), the logits of its own tokens, shape (N, K)."""
    found = (torch.nn.functional.embedding(ids, head.weight) @ states[:, :, None])[:, :, 0]
    return found if head.bias is None else found + head.bias[ids]


def _but(left_out: torch.Tensor, taken: torch.Tensor | None) -> torch.Tensor:
    """What is left out, save what was taken."""
    return left_out if taken is None else left_out.scatter(1, taken[:, None], False)


def draw(
    logits: torch.Tensor,
    distributions: Sequence[Distribution],
    uniform: np.ndarray[Any, np.dtype[np.float64]],
    position: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token and its log-probability per row, by inverting the cumulative distribution at `uniform`.

    Args:
        position: of the tokens in their actions, for legal sets.
    """
    different = dict.fromkeys(distributions)
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    logprobs = torch.empty(len(logits), device=logits.device)
    points = torch.from_numpy(uniform).to(logits.device)[:, None]
    for distribution in different:
        rows: torch.Tensor | slice = slice(None)
        if len(different) > 1:
            rows = torch.tensor([i for i, d in enumerate(distributions) if d == distribution], device=logits.device)
        some = logits[rows]
        legal = [distribution.legal_at(position)] * len(some)
        ids: torch.Tensor | None = None
        if few(distribution, some.shape[-1]):
            top = limit(some, legal).topk(distribution.top_k, dim=-1, sorted=False)
            ids, order = top.indices.sort(dim=-1)  # what a point draws does not depend on how likely others are
            logp = torch.log_softmax(_tempered(top.values.gather(1, order), distribution), dim=-1)
        else:
            logp = warp(some, distribution, legal)
        if distribution.greedy:
            chosen = logp.argmax(-1)
        else:
            cumulative = logp.double().exp().cumsum(-1)
            point = points[rows] * cumulative[:, -1:]
            chosen = torch.searchsorted(cumulative, point, right=True)[:, 0].clamp(max=logp.shape[-1] - 1)
        tokens[rows] = chosen if ids is None else ids.gather(1, chosen[:, None])[:, 0]
        logprobs[rows] = logp.gather(1, chosen[:, None])[:, 0]
    return tokens, logprobs


def log_probability(logp: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of each target, shape (N,), under log-probabilities of shape (N, V)."""
    return logp.gather(1, targets[:, None])[:, 0]


def log_probability_and_entropy(logp: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of each target, and the entropy of what it was drawn from in nats, shape (N, 2)."""
    finite = logp.masked_fill(logp == -torch.inf, 0.0)  # what is excluded adds nothing
    return torch.stack([log_probability(logp, targets), -(finite.exp() * finite).sum(-1)], dim=1)
