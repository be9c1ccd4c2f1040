"""The loss on packed rows: clipped policy gradient with an optional KL term, and imitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from memorist.models.rows import RowBatch


@dataclass(frozen=True, slots=True)
class Clip:
    """Bounds of the importance ratio; `dual` bounds what a negative advantage may cost (0: off)."""

    low: float = 0.2
    high: float = 0.2
    dual: float = 3.0


def surrogate(ratio: torch.Tensor, advantage: torch.Tensor, clip: Clip) -> torch.Tensor:
    """Per-token gain to maximise: min(r·A, clip(r)·A), and at least dual·A where A < 0 (arXiv 1707.06347,
    1912.09729)."""
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip.low, 1 + clip.high) * advantage)
    if clip.dual:
        gain = torch.where(advantage < 0, torch.maximum(gain, clip.dual * advantage), gain)
    return gain


def k3(logp: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Per-token estimate of KL(policy ‖ reference): exp(d) - d - 1 with d = reference - logp, at most 10."""
    difference = reference - logp
    return (difference.exp() - difference - 1).clamp(-10, 10)


def policy_loss(
    logp: torch.Tensor, batch: RowBatch, clip: Clip, *, beta: float = 0.0, reference: torch.Tensor | None = None
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of a batch, already weighted (batches of a step add up), and sums worth logging.

    Args:
        logp: log-probabilities now, shape (N,).
        batch: the rows, with log-probabilities when drawn, advantages and weights.
        clip: ratio bounds.
        beta: weight of the KL term.
        reference: log-probabilities of the reference, shape (N,), where beta > 0.
    """
    device = logp.device
    old, advantage, weight = (torch.from_numpy(x).to(device) for x in (batch.old, batch.advantage, batch.weight))
    ratio = (logp - old).exp()
    loss = -(weight * surrogate(ratio, advantage, clip)).sum()
    facts: dict[str, float] = {}
    with torch.no_grad():
        outside = ((ratio < 1 - clip.low) & (advantage < 0)) | ((ratio > 1 + clip.high) & (advantage > 0))
        facts["clip_fraction"] = float((weight * outside).sum())
        facts["entropy_estimate"] = float(-(weight * logp).sum())
        facts["ratio_error"] = float((weight * (ratio - 1).abs()).sum())
    if beta and reference is not None:
        divergence = (weight * k3(logp, reference)).sum()
        loss = loss + beta * divergence
        facts["kl"] = float(divergence.detach())
    return loss, facts


def imitation_loss(logp: torch.Tensor, batch: RowBatch) -> tuple[torch.Tensor, dict[str, Any]]:
    """Weighted negative log-likelihood."""
    weight = torch.from_numpy(batch.weight).to(logp.device)
    loss = -(weight * logp).sum()
    return loss, {"nll": float(loss.detach())}
