"""From a group's rewards to one advantage per action, and from reductions to one weight per token.

Credit is computed per trajectory before rows are made, so how decisions are merged changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memorist.decision import Decision
from memorist.errors import RecipeError, nearest
from memorist.models.rows import Unit
from memorist.training.rollout import Group

Rewards = npt.NDArray[np.float64]


def grpo(rewards: Rewards, epsilon: float = 1e-6) -> Rewards:
    """(r - mean) / (sample std + epsilon); a group without variance gets exactly zero (arXiv 2402.03300; n - 1 as
    in verl)."""
    if rewards.max() == rewards.min():
        return np.zeros_like(rewards)
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + epsilon)


def grpo_no_std(rewards: Rewards, epsilon: float = 0.0) -> Rewards:
    """r - mean: large differences count more (arXiv 2503.20783)."""
    if rewards.max() == rewards.min():
        return np.zeros_like(rewards)
    return rewards - rewards.mean()


def leave_one_out(rewards: Rewards, epsilon: float = 0.0) -> Rewards:
    """r minus the mean of the others (arXiv 2402.14740)."""
    return grpo_no_std(rewards) * len(rewards) / (len(rewards) - 1)


def by_mean(rewards: Rewards, epsilon: float = 1e-6) -> Rewards:
    """(r - mean) / (mean + epsilon), for rewards of 0 and more: the group's gradient of log E[r] instead of E[r]. What
    succeeds rarely counts as much as what succeeds often; with E[r] it would count in proportion to how often it is
    tried, and what is right in few situations is unlearnt by all others before it is learnt."""
    if rewards.max() == rewards.min():
        return np.zeros_like(rewards)
    return (rewards - rewards.mean()) / (rewards.mean() + epsilon)


RULES: dict[str, Callable[..., Rewards]] = {
    "grpo": grpo,
    "grpo-no-std": grpo_no_std,
    "leave-one-out": leave_one_out,
    "by-mean": by_mean,
}
REDUCTIONS = ("token", "trajectory", "decision")


@dataclass(frozen=True, slots=True)
class Credited:
    """Units ready for rows, and what is worth knowing about the groups."""

    units: list[Unit]
    groups: int
    flat_groups: int
    tokens: int


def credit(groups: Sequence[Group], role: str, *, rule: str = "grpo", reduction: str = "token") -> Credited:
    """One unit per decision of `role`, with its trajectory's advantage.

    Weights sum to 1 over all policy tokens of all groups, those without variance included, so a step's scale does
    not depend on luck. Units with advantage 0 are left in: a KL term may need them.

    Raises:
        RecipeError: unknown rule or reduction, or a group of one where siblings are needed.
    """
    if rule not in RULES:
        raise RecipeError(f"credit rule {rule!r} does not exist; {nearest(rule, RULES)}")
    if reduction not in REDUCTIONS:
        raise RecipeError(f"reduction {reduction!r} does not exist; {nearest(reduction, REDUCTIONS)}")
    advantages: list[float] = []
    trajectories: list[list[Decision]] = []
    flat = 0
    for group in groups:
        if len(group) < 2:
            raise RecipeError(f"credit {rule!r} compares siblings and got a group of one; set siblings to 2 or more")
        found = RULES[rule](np.array([run.reward for run in group], np.float64))
        flat += not found.any()
        for run, advantage in zip(group, found, strict=True):
            advantages.append(float(advantage))
            trajectories.append([d for d in run.trajectory.decisions if d.role == role and d.policy_tokens])
    weights, tokens = _weights(trajectories, reduction)
    units = [
        Unit(decision.action, advantage, weight)
        for advantage, decisions, ws in zip(advantages, trajectories, weights, strict=True)
        for decision, weight in zip(decisions, ws, strict=True)
    ]
    return Credited(units, len(groups), flat, tokens)


def _weights(trajectories: Sequence[Sequence[Decision]], reduction: str) -> tuple[list[list[float]], int]:
    """Weight per token of each decision, and the number of tokens."""
    counts = [[d.policy_tokens for d in decisions] for decisions in trajectories]
    tokens = sum(map(sum, counts))
    if reduction == "token":
        return [[1 / tokens for _ in c] for c in counts], tokens
    if reduction == "trajectory":
        full = sum(1 for c in counts if c)
        return [[1 / (full * sum(c)) for _ in c] for c in counts], tokens
    total = sum(map(len, counts))
    return [[1 / (total * n) for n in c] for c in counts], tokens
