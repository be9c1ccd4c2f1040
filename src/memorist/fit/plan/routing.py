"""Node-limited routing of DeepSeek-V3: experts lie in groups, one group per node, and a token visits few nodes.

Sources: "Insights into DeepSeek-V3" (arXiv 2505.09343) section 4.3; the rule of selection from the DeepSeek-V3
report (arXiv 2412.19437) section 2.1.2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from memorist.errors import PlanError


def route(scores: Any, *, groups: int, nodes: int, k: int, bias: Any = 0.0) -> npt.NDArray[np.int64]:
    """The k experts of each token, on at most `nodes` groups.

    A group's score is the sum of its two best experts; the best groups stay, and the best experts within them win.
    Ties go to the lower index.

    Args:
        scores: affinity of each token to each expert, shape (T, E).
        groups: how many groups, E / groups experts in each.
        nodes: most groups that one token may visit.
        k: experts per token.
        bias: added for choosing only, shape (E,); balances the load.

    Returns:
        chosen experts, best first, shape (T, k).

    Raises:
        PlanError: experts do not divide into the groups, or the nodes hold fewer than k of them.
    """
    biased = np.atleast_2d(np.asarray(scores, np.float64)) + bias
    tokens, experts = biased.shape
    if groups < 1 or experts % groups:
        raise PlanError(f"{experts} experts in {groups} groups; expected groups of equal size")
    each = experts // groups
    if not 1 <= nodes <= groups or not 1 <= k <= nodes * each:
        raise PlanError(f"{k} experts on {nodes} of {groups} groups of {each}; expected at most {nodes * each} experts")
    parted = biased.reshape(tokens, groups, each)
    best_two = np.sort(parted, axis=-1)[..., -2:].sum(axis=-1)
    kept = np.argsort(-best_two, axis=-1, kind="stable")[:, :nodes]
    open_groups = np.zeros((tokens, groups), bool)
    np.put_along_axis(open_groups, kept, True, axis=1)
    masked = np.where(np.repeat(open_groups, each, axis=1), biased, -np.inf)
    return np.argsort(-masked, axis=-1, kind="stable")[:, :k]


def expected_nodes(experts: int, groups: int, k: int) -> float:
    """How many groups k experts touch on average if all are equally likely: 5.295 for V3's 8 of 256 in 8 groups."""
    missed = math.comb(experts - experts // groups, k) / math.comb(experts, k)
    return groups * (1 - missed)
