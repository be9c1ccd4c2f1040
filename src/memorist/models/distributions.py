"""From logits to the distribution that an action is drawn from and scored under, and drawing from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from memorist.decision import Distribution

Legal = Sequence[tuple[int, ...] | None]
"""What each of some tokens is limited to (None: all)."""


def limit(logits: torch.Tensor, legal: Legal) -> torch.Tensor:
    """Logits of shape (N, V) with minus infinity for what the row's legal set leaves out."""
    if not any(allowed is not None for allowed in legal):
        return logits
    left_out = torch.zeros(logits.shape, dtype=torch.bool)
    for row, allowed in enumerate(legal):
        if allowed is not None:
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
    logits = limit(logits, legal)
    if distribution.temperature not in (0.0, 1.0):
        logits = logits / distribution.temperature
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
        logp = warp(some, distribution, [distribution.legal_at(position)] * len(some))
        if distribution.greedy:
            chosen = logp.argmax(-1)
        else:
            cumulative = logp.double().exp().cumsum(-1)
            point = points[rows] * cumulative[:, -1:]
            chosen = torch.searchsorted(cumulative, point, right=True)[:, 0].clamp(max=logp.shape[-1] - 1)
        tokens[rows] = chosen
        logprobs[rows] = logp.gather(1, chosen[:, None])[:, 0]
    return tokens, logprobs


def log_probability(logp: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of each target, shape (N,), under log-probabilities of shape (N, V)."""
    return logp.gather(1, targets[:, None])[:, 0]


def log_probability_and_entropy(logp: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of each target, and the entropy of what it was drawn from in nats, shape (N, 2)."""
    finite = logp.masked_fill(logp == -torch.inf, 0.0)  # what is excluded adds nothing
    return torch.stack([log_probability(logp, targets), -(finite.exp() * finite).sum(-1)], dim=1)
