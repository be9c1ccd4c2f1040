"""Choosing the experts to keep, from scores; and how sure that choice is.

Ties always go to the lower id: a stable sort, because a plain top-k promises nothing. Layers are chosen one by one,
all keep the same number, because a checkpoint's configuration has one number for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memorist.errors import ExpertsError, nearest
from memorist.fit.experts.checkpoint import Checkpoint
from memorist.fit.experts.scores import Array, Ids

GROUP_MODES = ("global", "balanced")


@dataclass(frozen=True, slots=True)
class Routing:
    """What limits a choice: N experts, k per token, groups, groups per token, experts that make a group's score."""

    experts: int
    active: int
    groups: int = 1
    used_groups: int = 1
    least: int = 0

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Routing:
        """As a checkpoint has it."""
        groups, used = checkpoint.groups
        return cls(checkpoint.experts, checkpoint.active, groups, used, checkpoint.family.least)


def ranked(scores: Array) -> Ids:
    """Experts from the best, along the last dimension."""
    return np.argsort(-scores, axis=-1, kind="stable")


def check_keep(routing: Routing, keep: int, mode: str = "global") -> None:
    """Whether so many experts can be kept.

    Raises:
        ExpertsError: too few, too many, or not to be divided among the groups.
    """
    if mode not in GROUP_MODES:
        raise ExpertsError(f"groups {mode!r} do not exist; {nearest(mode, GROUP_MODES)}")
    if not 1 <= keep <= routing.experts:
        raise ExpertsError(f"keep {keep} of {routing.experts} experts; expected 1 to {routing.experts}")
    if keep < routing.active:
        raise ExpertsError(
            f"keep {keep} experts, but each token goes through {routing.active}; keep at least {routing.active}"
        )
    if mode == "global" or routing.groups == 1:
        return
    if routing.experts % routing.groups:
        raise ExpertsError(f"{routing.experts} experts in {routing.groups} groups; the configuration is wrong")
    quota, rest = divmod(keep, routing.groups)
    if rest:
        raise ExpertsError(
            f"keep {keep} is not divisible into {routing.groups} groups; give a multiple of {routing.groups}, or "
            "--groups global"
        )
    if quota < routing.least:
        raise ExpertsError(
            f"keep {keep} leaves {quota} experts in each of {routing.groups} groups, whose score is made of "
            f"{routing.least}; keep at least {routing.least * routing.groups}, or use --groups global"
        )
    if routing.used_groups > routing.groups:
        raise ExpertsError(f"topk_group {routing.used_groups} of {routing.groups} groups; the configuration is wrong")
    if quota * routing.used_groups < routing.active:
        raise ExpertsError(
            f"keep {keep} leaves {quota * routing.used_groups} experts in the {routing.used_groups} groups that a "
            f"token may use, fewer than the {routing.active} it goes through; keep more, or use --groups global"
        )


def choose(scores: Array, keep: int, routing: Routing, mode: str = "global") -> Ids:
    """The experts to keep in each layer, [L, keep], ascending.

    Args:
        scores: [L, N].
        keep: M, the same in every layer.
        routing: what limits the choice.
        mode: "global" takes the best of all; "balanced" as many from each group of the router, so that its groups stay.

    Raises:
        ExpertsError: so many cannot be kept, or scores are not numbers for N experts.
    """
    check_keep(routing, keep, mode)
    if scores.ndim != 2 or scores.shape[1] != routing.experts or not np.isfinite(scores).all():
        raise ExpertsError(f"scores of shape {scores.shape}; expected finite numbers for {routing.experts} experts")
    if mode == "global" or routing.groups == 1:
        return np.sort(ranked(scores)[:, :keep], axis=1)
    size, quota = routing.experts // routing.groups, keep // routing.groups
    grouped = scores.reshape(len(scores), routing.groups, size)
    best = np.sort(ranked(grouped)[:, :, :quota], axis=2) + size * np.arange(routing.groups)[None, :, None]
    return np.asarray(best.reshape(len(scores), keep))


def random_scores(layers: int, experts: int, seed: int) -> Array:
    """Scores that say nothing, [layers, experts]: the baseline that every scorer must beat."""
    return np.random.default_rng(seed).random((layers, experts))


def renumbered(keep: Ids, experts: int) -> Ids:
    """New ids of the old ones in one layer, [N]; −1 where an expert is gone."""
    found = np.full(experts, -1, dtype=np.int64)
    found[keep] = np.arange(len(keep))
    return found


def overlap(first: Ids, second: Ids) -> Array:
    """Share of the kept experts that two choices have in common, per layer, [L]."""
    pairs = zip(first, second, strict=True)
    return np.array([len(np.intersect1d(a, b)) / len(a) for a, b in pairs], dtype=np.float64)


def confidence_of(
    samples: Array, tokens: Ids, keep: int, routing: Routing, *, mode: str = "global", rounds: int = 200, seed: int = 0
) -> Array:
    """How often each expert is kept when the calibration samples are drawn again, [L, N], 0 to 1 (bootstrap).

    Args:
        samples: sums of each sample, [S, L, N].
        tokens: of each sample, [S]; scores are means over tokens.
        keep: M.
        routing: what limits the choice.
        mode: as for `choose`.
        rounds: resamples.
        seed: of the resampling.
    """
    generator, kept = np.random.default_rng(seed), np.zeros(samples.shape[1:])
    for _ in range(rounds):
        drawn = generator.integers(0, len(samples), len(samples))
        chosen = choose(samples[drawn].sum(axis=0) / tokens[drawn].sum(), keep, routing, mode)
        np.put_along_axis(kept, chosen, np.take_along_axis(kept, chosen, axis=1) + 1, axis=1)
    return kept / rounds
