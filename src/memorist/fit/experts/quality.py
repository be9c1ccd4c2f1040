"""How far a choice of experts takes a model from itself, on samples that it was not calibrated on.

Kullback–Leibler divergence of the next token's distribution, full model against masked one: what picks a scorer and a
number of experts, and the gate before a pruned model is used. It is no measure of a task: that is an evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from memorist.errors import ExpertsError
from memorist.fit.experts.scores import Array, Ids
from memorist.fit.experts.simulate import masked

ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(full ‖ masked) in nats per token with its 95 % interval over samples; agreement: same most likely token."""

    kl: float
    low: float
    high: float
    agreement: float
    samples: int
    tokens: int


def divergences(
    model: Any, samples: Sequence[Sequence[int]], choices: Mapping[str, Ids], mode: str = "global", seed: int = 0
) -> dict[str, Divergence]:
    """Each choice of experts against the whole model.

    Args:
        model: loaded by transformers, of a known architecture.
        samples: token ids, held out from calibration.
        choices: kept experts by name, each [L, M].
        mode: what becomes of the router's groups, as for `prune`.
        seed: of the bootstrap.

    Raises:
        ExpertsError: there are no samples, or a choice is not for this model.
    """
    if not samples or not all(samples):
        raise ExpertsError("no samples, or an empty one; give samples that were held out from calibration")
    sums: dict[str, list[tuple[float, float, int]]] = {name: [] for name in choices}
    for sample in samples:
        whole = _log_probabilities(model, sample)
        for name, keep in choices.items():
            with masked(model, keep, mode):
                less = _log_probabilities(model, sample)
            kl = float((whole.exp() * (whole - less)).sum())
            same = float((whole.argmax(-1) == less.argmax(-1)).sum())
            sums[name].append((kl, same, len(sample)))
    return {name: _summed(np.array(rows, dtype=np.float64), seed) for name, rows in sums.items()}


def _log_probabilities(model: Any, sample: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(sample)]), use_cache=False).logits[0]
    return logits.double().log_softmax(dim=-1)


def _summed(rows: Array, seed: int) -> Divergence:
    """From (KL, agreements, tokens) of each sample."""
    kl, same, tokens = rows.sum(axis=0)
    drawn = np.random.default_rng(seed).integers(0, len(rows), (ROUNDS, len(rows)))
    low, high = np.quantile(rows[drawn, 0].sum(axis=1) / rows[drawn, 2].sum(axis=1), (0.025, 0.975))
    return Divergence(kl / tokens, float(low), float(high), same / tokens, len(rows), int(tokens))
