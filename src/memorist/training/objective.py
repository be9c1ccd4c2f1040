"""The loss on packed rows: clipped policy gradient with a divergence, an entropy term and a guard against drift, and
imitation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from memorist.models.rows import RowBatch

MOST_DIVERGENCE = 10.0
"""Per token; where a truncated distribution excludes what was drawn, its log-probability is minus infinity."""


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


def k1(logp: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Per-token estimate of KL(policy ‖ reference): logp - reference. Without bias; as a loss its gradient is 0 on
    average, so it belongs into the reward (http://joschu.net/blog/kl-approx.html)."""
    return (logp - reference).clamp(-MOST_DIVERGENCE, MOST_DIVERGENCE)


def k2(logp: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Per-token estimate: (logp - reference)² / 2; as a loss, its gradient is that of KL(policy ‖ reference)."""
    return ((logp - reference) ** 2 / 2).clamp(max=MOST_DIVERGENCE)


def k3(logp: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Per-token estimate: exp(d) - d - 1 with d = reference - logp; never negative, little variance, without bias."""
    difference = reference - logp
    return (difference.exp() - difference - 1).clamp(max=MOST_DIVERGENCE)


DIVERGENCES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
PLACES = ("loss", "reward")


@dataclass(frozen=True, slots=True)
class Objective:
    """What a step descends.

    beta: weight of the divergence from the reference, estimated by `kl`, `kl_in` the loss or the reward (then it lowers
    each token's advantage, without a gradient of its own). entropy: weight of the entropy that is kept. cap: where
    samplers drift from the policy that learns, a token counts by exp(policy's - sampler's log-probability), at most
    this (truncated importance sampling); 0: samplers are trusted.
    """

    clip: Clip = Clip()
    beta: float = 0.0
    kl: str = "k3"
    kl_in: str = "loss"
    entropy: float = 0.0
    cap: float = 0.0


def policy_loss(
    logp: torch.Tensor,
    batch: RowBatch,
    objective: Objective | None = None,
    *,
    reference: torch.Tensor | None = None,
    start: torch.Tensor | None = None,
    entropy: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of a batch, already weighted (batches of a step add up), and sums worth logging.

    Args:
        logp: log-probabilities now, shape (N,).
        batch: the rows, with log-probabilities when drawn, advantages and weights.
        objective: what counts for how much.
        reference: log-probabilities of the reference, shape (N,), where `beta` > 0.
        start: log-probabilities of the policy before the step's first update, shape (N,), where `cap` > 0.
        entropy: of the distribution at each token, shape (N,), in nats, where `entropy` > 0.
    """
    how, device = objective or Objective(), logp.device
    old, advantage, weight = (torch.from_numpy(x).to(device) for x in (batch.old, batch.advantage, batch.weight))
    facts: dict[str, float] = {}
    if how.cap and start is not None:
        drift = (start - old).exp()
        facts["drift"] = float((weight * (drift - 1).abs()).sum())
        weight, old = weight * drift.clamp(max=how.cap), start
    divergence = DIVERGENCES[how.kl]
    if how.beta and reference is not None and how.kl_in == "reward":
        advantage = advantage - how.beta * divergence(old, reference)
    ratio = (logp - old).exp()
    loss = -(weight * surrogate(ratio, advantage, how.clip)).sum()
    with torch.no_grad():
        outside = ((ratio < 1 - how.clip.low) & (advantage < 0)) | ((ratio > 1 + how.clip.high) & (advantage > 0))
        facts["clip_fraction"] = float((weight * outside).sum())
        facts["entropy_estimate"] = float(-(weight * logp).sum())
        facts["ratio_error"] = float((weight * (ratio - 1).abs()).sum())
    if how.beta and reference is not None:
        far = (weight * divergence(logp, reference)).sum()
        facts["kl"] = float(far.detach())
        if how.kl_in == "loss":
            loss = loss + how.beta * far
    if how.entropy and entropy is not None:
        kept = (weight * entropy).sum()
        facts["entropy"] = float(kept.detach())
        loss = loss - how.entropy * kept
    return loss, facts


def imitation_loss(logp: torch.Tensor, batch: RowBatch) -> tuple[torch.Tensor, dict[str, Any]]:
    """Weighted negative log-likelihood."""
    weight = torch.from_numpy(batch.weight).to(logp.device)
    loss = -(weight * logp).sum()
    return loss, {"nll": float(loss.detach())}
