"""How much a task needs each expert: the scorers of PreMoe and EASY-EP as functions of plain arrays.

Sources: v1 and v3 of arXiv 2505.17639 (PreMoe; TCESS and PEU), arXiv 2504.06792 (EASY-EP). Everything is computed in
64 bits. T tokens, N experts, k experts per token.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from memorist.errors import ExpertsError, nearest

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

_ROUNDING = 1e-6
"""Where all leaders are equally sure, rounding may put their mean above each of them."""


def _sigmoid(values: Array) -> Array:
    # Written by tanh, which does not overflow for logits far from zero.
    return 0.5 * (1 + np.tanh(0.5 * values))


TRANSFORMS: dict[str, Callable[[Array], Array]] = {
    "logit": lambda s: s,
    "sigmoid": _sigmoid,
    "max": lambda s: np.maximum(s, _sigmoid(s)),
    "exp": np.exp,
}
"""f of PreMoe: what a confident expert's logit counts as. Raw logits (TCESS) may be negative, so that an expert that is
used often can rank below one that never is; PEU's "max" cures that."""


def leaders(logits: Array, count: int) -> tuple[Ids, Array]:
    """The `count` largest logits of each token: their experts and values, both [T, count]; ties go to lower ids."""
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    return ids, np.take_along_axis(logits, ids, axis=1)


def confidence(values: Array) -> Array:
    """Softmax among a token's leaders only, [T, K] → [T, K], whatever the model's own gate is."""
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def adaptive_threshold(values: Array) -> float:
    """r of PEU: how sure of its best expert a token is on average (v3, section 3)."""
    return float(confidence(values).max(axis=1).mean())


def routed_sums(ids: Ids, values: Array, experts: int, *, threshold: float = -1.0, transform: str = "logit") -> Array:
    """Σ over tokens of f(s) of the leaders that are confident enough, [N].

    Args:
        ids: leaders of each token, [T, K].
        values: their raw logits, before gate function and correction bias, [T, K].
        experts: N.
        threshold: least confidence among the leaders that counts; −1 counts all (TCESS without its filter).
        transform: a name in `TRANSFORMS`.

    Divided by T it is TCESS ("logit") or, with the adaptive threshold, PEU ("max").
    """
    if transform not in TRANSFORMS:
        raise ExpertsError(f"transform {transform!r} does not exist; {nearest(transform, TRANSFORMS)}")
    sure = confidence(values) >= threshold - _ROUNDING
    return _sums(ids, np.where(sure, TRANSFORMS[transform](values), 0.0), experts)


def _sums(ids: Ids, values: Array, experts: int) -> Array:
    return np.bincount(ids.ravel(), values.ravel(), experts).astype(np.float64)


def turned(before: Array, added: Array) -> Array:
    """s of EASY-EP: 1 − cos(h, h + r) of each token, [T, H] and [T, H] → [T], in 0 to 2.

    With a = ‖h‖², b = h·r, c = ‖r‖² and D = ‖h‖·‖h + r‖ it is (ac − b²) / (D·(D + a + b)): nothing cancels where the
    two are nearly parallel, as they mostly are.
    """
    a, b, c = ((x * y).sum(axis=1) for x, y in ((before, before), (before, added), (added, added)))
    length = np.sqrt(np.maximum(a * (a + 2 * b + c), 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        near = (a * c - b * b) / (length * (length + a + b))
        far = 1 - (a + b) / length
    found = np.where(a + b > 0, near, far)
    return np.asarray(np.where(length > 0, np.clip(found, 0, 2), 1.0))


def output_aware(ids: Ids, weights: Array, norms: Array, turns: Array, experts: int) -> dict[str, Array]:
    """EASY-EP's score of each expert, its ablations and the two usual baselines, summed over tokens, each [N].

    Args:
        ids: chosen experts, [T, k].
        weights: what their outputs are multiplied with, [T, k].
        norms: of their outputs before that, [T, k].
        turns: how much all of them together turn the token's representation (`turned`), [T].
        experts: N.
    """
    share = turns[:, None]
    of = {
        "easyep": weights * norms * share,
        "easyep-no-token": weights * norms,
        "easyep-no-norm": weights * share,
        "gate": weights,
        "frequency": np.ones_like(weights),
    }
    return {name: _sums(ids, values, experts) for name, values in of.items()}


def by_share(scores: Array) -> Array:
    """Each layer's scores divided by their sum, so that tasks of unequal size mix evenly (EASY-EP)."""
    total = scores.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(scores, total, out=np.zeros_like(scores), where=total != 0))
