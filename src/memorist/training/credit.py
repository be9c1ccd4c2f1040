"""From the rewards of runs to an advantage for every token that a policy wrote, and from reductions to its weight.

Credit is computed per trajectory before rows are made, so how decisions are merged changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from memorist.decision import Decision, Trajectory
from memorist.errors import RecipeError, need_known
from memorist.models.rows import Unit, written_by_policy
from memorist.training.rollout import Group, Run

Numbers = npt.NDArray[np.float64]
EPSILON = 1e-6
LEAST_WORTH = 0.1
"""What a start is held to be worth at least where estimates are taken relative to it."""


def grpo(rewards: Numbers, epsilon: float = EPSILON) -> Numbers:
    """(r - mean) / (sample std + epsilon); a group without variance gets exactly zero (arXiv 2402.03300; n - 1 as
    in verl)."""
    if rewards.max() == rewards.min():
        return np.zeros_like(rewards)
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + epsilon)


def grpo_no_std(rewards: Numbers, epsilon: float = 0.0) -> Numbers:
    """r - mean: large differences count more (arXiv 2503.20783)."""
    if rewards.max() == rewards.min():
        return np.zeros_like(rewards)
    return rewards - rewards.mean()


def leave_one_out(rewards: Numbers, epsilon: float = 0.0) -> Numbers:
    """r minus the mean of the others (arXiv 2402.14740)."""
    return grpo_no_std(rewards) * len(rewards) / (len(rewards) - 1)


def by_mean(rewards: Numbers, epsilon: float = EPSILON) -> Numbers:
    """(r - mean) / (mean + epsilon), for rewards of 0 and more: the group's gradient of log E[r] instead of E[r]. What
    succeeds rarely counts as much as what succeeds often; with E[r] it would count in proportion to how often it is
    tried, and what is right in few situations is unlearnt by all others before it is learnt."""
    if rewards.max() == rewards.min():
        return np.zeros_like(rewards)
    return (rewards - rewards.mean()) / (rewards.mean() + epsilon)


RULES: dict[str, Callable[[Numbers, float], Numbers]] = {
    "grpo": grpo,
    "grpo-no-std": grpo_no_std,
    "leave-one-out": leave_one_out,
    "by-mean": by_mean,
}
"""Rules that compare the siblings of a group."""
ALL_RULES = (*RULES, "components", "reinforce", "fixed", "counterfactual", "ppo")
REDUCTIONS = ("token", "trajectory", "decision")
SHARES = ("all", "last")


def gae(rewards: Numbers, values: Numbers, gamma: float = 1.0, gae_lambda: float = 1.0) -> Numbers:
    """Generalised advantage estimates along one trajectory, shape (T,) like both arguments: the sum of the later
    r_t + gamma·V_{t+1} - V_t, each step off by a factor gamma·gae_lambda; the value after the last token is 0 (arXiv
    1506.02438, eq. 16)."""
    after = np.append(values[1:], 0.0)
    found, ahead = np.zeros_like(values), 0.0
    for at in reversed(range(len(values))):
        ahead = rewards[at] + gamma * after[at] - values[at] + gamma * gae_lambda * ahead
        found[at] = ahead
    return found


@dataclass(frozen=True, slots=True)
class Worth:
    """What a trajectory's terms are worth.

    weights: by name; terms without one count 1. gate: a term; where it is 0 or less, no term lowers the worth, so costs
    rank successes and never make failing cheaply better than failing (arXiv 2512.18571; the spec's `gated`); and where
    it is w, costs s above w/2 leave w²/4s of it: what was won dearly is worth less and never nothing. Without that a
    dear success was worth less than a failure, which is 0 whatever it cost, and a policy learnt to walk about.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    gate: str = ""

    def __call__(self, trajectory: Trajectory) -> float:
        """The sum of the terms on the whole trajectory.

        Raises:
            RecipeError: no term has the gate's name.
        """
        terms = [(r.name, self.weights.get(r.name, 1.0) * r.value) for r in trajectory.rewards if r.decision is None]
        if not self.gate:
            return sum(value for _, value in terms)
        if self.gate not in (name for name, _ in terms):
            need_known("gate", self.gate, {name for name, _ in terms})
        won = sum(value for name, value in terms if name == self.gate)
        gained = sum(value for _, value in terms if value > 0)
        spent = -sum(value for _, value in terms if value < 0)
        if won <= 0:
            return gained
        return gained - spent if spent <= won / 2 else gained - won + won * won / (4 * spent)


@dataclass(frozen=True, slots=True)
class Credited:
    """Units ready for rows, and what is worth knowing about the groups."""

    units: list[Unit]
    groups: int
    flat_groups: int
    tokens: int


@dataclass(frozen=True, slots=True)
class How:
    """How credit is given.

    rule: one of `ALL_RULES`. "components": the terms on whole runs are each compared within the group, in deviations of
    their own, and then added by their weights (after arXiv 2512.18571); `floors`, by name, are the least that a
    deviation counts as: without one a term that hardly differs weighs as much as one that does. "reinforce": r minus
    the mean of all other runs of the step. "fixed": what a token earned, by itself and with its run, minus `baseline`
    (REINFORCE as arXiv 2503.08026 has it). "counterfactual": per decision, r minus what the same run earned with that
    decision replaced by one that changes nothing. "ppo": estimates along the whole trajectory from a critic's values.
    epsilon: beside the divisor of a rule that has one. gamma, gae_lambda: of `gae`. relative: whether its estimates
    are divided by what the trajectory's start is held to be worth (`LEAST_WORTH` or more; for rewards of 0 and more):
    the gradient of log E[r], which "by-mean" takes from siblings. whiten: whether estimates then get mean 0 and
    deviation 1 over the step's tokens. baseline: of "fixed". share: "all" decisions of a run have its advantage, or
    those in its "last" window alone (an ablation: what was remembered before is not learnt).
    """

    rule: str = "grpo"
    reduction: str = "token"
    epsilon: float = EPSILON
    gamma: float = 1.0
    gae_lambda: float = 1.0
    relative: bool = False
    whiten: bool = True
    worth: Worth = Worth()
    baseline: float = 0.0
    share: str = "all"
    floors: Mapping[str, float] = field(default_factory=dict)


def decisions_of(run: Run, role: str) -> list[Decision]:
    """A run's decisions in a role that carry loss."""
    return [d for d in run.trajectory.decisions if d.role == role and d.policy_tokens]


def is_flat(group: Group, worth: Worth = Worth()) -> bool:
    """Whether a group's runs are worth the same, and so are all terms on their decisions, so that siblings teach
    nothing."""
    found = [worth(run.trajectory) for run in group]
    placed: dict[str, set[float]] = {}
    for run in group:
        for term in run.trajectory.rewards:
            if term.decision is not None:
                placed.setdefault(term.name, set()).add(term.value)
    return max(found) == min(found) and all(len(values) == 1 for values in placed.values())


def credit(
    groups: Sequence[Group], role: str, *, how: How = How(), values: Sequence[Sequence[Numbers]] | None = None
) -> Credited:
    """One unit per decision of `role`, with an advantage for its tokens.

    Weights sum to 1 over all policy tokens of all groups, those without variance included, so a step's scale does
    not depend on luck. Units with advantage 0 are left in: a KL term may need them.

    A reward on a decision or on a span of it counts on those tokens alone, beside what the whole run gives: compared,
    by the rule, with all terms of its name in the group. Under "ppo" it is earned where it stands.

    Args:
        values: for "ppo", for every run and each of its `decisions_of` what its policy tokens' states are worth.

    Raises:
        RecipeError: unknown rule or reduction, or a group of one where siblings are needed.
    """
    need_known("credit rule", how.rule, ALL_RULES)
    need_known("reduction", how.reduction, REDUCTIONS)
    need_known("share", how.share, SHARES)
    runs = _runs(groups)
    trajectories = [decisions_of(run, role) for run in runs]
    if how.rule == "ppo":
        advantages, returns = _ppo(runs, trajectories, how, values or [])
    else:
        advantages, returns = _compared(groups, trajectories, how), None
    if how.share == "last":
        for own, found in zip(trajectories, advantages, strict=True):
            begins = max((k for k, decision in enumerate(own) if not decision.observation.after), default=0)
            found[:begins] = [np.zeros_like(a) for a in found[:begins]]
    weights, tokens = _weights(trajectories, how.reduction)
    units = [
        Unit(
            decision.action, _plain(advantages[i][k]), weights[i][k],
            *(((), ()) if returns is None or values is None else (_floats(values[i][k]), _floats(returns[i][k]))),
            seen=decision.observation if decision.observation.options else None,
        )
        for i, decisions in enumerate(trajectories) for k, decision in enumerate(decisions)
    ]  # fmt: skip
    return Credited(units, len(groups), sum(is_flat(group, how.worth) for group in groups), tokens)


Advantages = list[list[Numbers]]
"""For every run and each of its decisions, one number per policy token."""


def _compared(groups: Sequence[Group], trajectories: Sequence[Sequence[Decision]], how: How) -> Advantages:
    """Rules that compare runs."""
    earned = [np.array([how.worth(run.trajectory) for run in group], np.float64) for group in groups]
    found: Advantages = []
    if how.rule in (*RULES, "components"):
        for group, rewards in zip(groups, earned, strict=True):
            if len(group) < 2:
                raise RecipeError(
                    f"credit {how.rule!r} compares siblings and got a group of one; set siblings to 2 or more"
                )
            own = _by_component(group, how) if how.rule == "components" else RULES[how.rule](rewards, how.epsilon)
            found += _spread(own, trajectories[len(found) :])
    else:
        flat = np.concatenate(earned) if earned else np.zeros(0)
        if how.rule == "reinforce":
            if len(flat) == 1:
                raise RecipeError("credit 'reinforce' compares the step's runs and got one; set tasks to 2 or more")
            found = _spread(leave_one_out(flat) if len(flat) else flat, trajectories)
        elif how.rule == "fixed":
            found = _spread(
                np.array([_above(run, r, how) for run, r in zip(_runs(groups), flat, strict=True)]), trajectories
            )
        else:
            runs = _runs(groups)
            found = [
                [np.full(d.policy_tokens, r - without) for d, without in zip(own, run.without, strict=True)]
                for r, own, run in zip(flat, trajectories, runs, strict=True)
            ]
    start = 0
    for group in groups:
        _add_terms(group, found[start : start + len(group)], trajectories[start : start + len(group)], how)
        start += len(group)
    return found


def _by_component(group: Group, how: How) -> Numbers:
    """The sum over terms of how many deviations each run is above the group's mean."""
    every = [{r.name: r.value for r in run.trajectory.rewards if r.decision is None} for run in group]
    found = np.zeros(len(group))
    for name in dict.fromkeys(name for terms in every for name in terms):
        values = np.array([terms.get(name, 0.0) for terms in every], np.float64)
        if values.max() > values.min():
            deviation = max(values.std(ddof=1) + how.epsilon, how.floors.get(name, 0.0))
            found += how.worth.weights.get(name, 1.0) * (values - values.mean()) / deviation
    return found


def _runs(groups: Sequence[Group]) -> list[Run]:
    return [run for group in groups for run in group]


def _earns_whole(run: Run) -> bool:
    return any(reward.decision is None for reward in run.trajectory.rewards)


def _above(run: Run, worth: float, how: How) -> float:
    """What a run earned above the baseline; nothing where it earned nothing, neither good nor bad."""
    return worth - how.baseline if _earns_whole(run) else 0.0


def _spread(per_run: Numbers, trajectories: Sequence[Sequence[Decision]]) -> Advantages:
    """A run's number on all its tokens."""
    return [[np.full(d.policy_tokens, a) for d in own] for a, own in zip(per_run, trajectories, strict=False)]


def _add_terms(group: Group, found: Advantages, trajectories: Sequence[Sequence[Decision]], how: How) -> None:
    """Add what rewards on decisions and spans give their own tokens."""
    terms: dict[str, list[tuple[float, int, int, npt.NDArray[np.bool_]]]] = {}
    for i, (run, own) in enumerate(zip(group, trajectories, strict=True)):
        for name, value, k, tokens in _placed(run, own):
            terms.setdefault(name, []).append((how.worth.weights.get(name, 1.0) * value, i, k, tokens))
    rule = RULES.get(how.rule, grpo_no_std)
    for placed in terms.values():
        if how.rule == "fixed":
            for value, i, k, tokens in placed:
                found[i][k][tokens] += value - (0.0 if _earns_whole(group[i]) else how.baseline)
        elif len(placed) > 1:
            numbers = rule(np.array([value for value, *_ in placed], np.float64), how.epsilon)
            for number, (_, i, k, tokens) in zip(numbers, placed, strict=True):
                found[i][k][tokens] += number


def _placed(run: Run, own: Sequence[Decision]) -> list[tuple[str, float, int, npt.NDArray[np.bool_]]]:
    """A run's terms on decisions of the role: name, value, which of them, and which of its policy tokens."""
    index = {id(decision): k for k, decision in enumerate(own)}
    found = []
    for term in run.trajectory.rewards:
        if term.decision is not None:
            k = index.get(id(run.trajectory.decisions[term.decision]))
            if k is not None:
                at = np.flatnonzero(written_by_policy(own[k].action))
                start, end = term.span or (0, len(own[k].action.tokens))
                found.append((term.name, term.value, k, (at >= start) & (at < end)))
    return found


def _ppo(
    runs: Sequence[Run], trajectories: Sequence[Sequence[Decision]], how: How, values: Sequence[Sequence[Numbers]]
) -> tuple[Advantages, Advantages]:
    """Estimates, and what the states turned out to be worth (their sum with the values)."""
    advantages: Advantages = []
    returns: Advantages = []
    for run, own, known in zip(runs, trajectories, values, strict=True):
        ends = np.cumsum([d.policy_tokens for d in own])
        if not own:
            advantages.append([])
            returns.append([])
            continue
        rewards, along = np.zeros(ends[-1]), np.concatenate(known)
        rewards[-1] += how.worth(run.trajectory)
        for name, value, k, tokens in _placed(run, own):
            if tokens.any():
                start = ends[k] - own[k].policy_tokens
                rewards[start + np.flatnonzero(tokens)[-1]] += how.worth.weights.get(name, 1.0) * value
        found = gae(rewards, along, how.gamma, how.gae_lambda)
        scale = max(along[0], LEAST_WORTH) if how.relative else 1.0
        advantages.append(np.split(found / scale, ends[:-1]))
        returns.append(np.split(found + along, ends[:-1]))
    if how.whiten:
        every = np.concatenate([a for own in advantages for a in own]) if any(advantages) else np.zeros(1)
        mean, deviation = every.mean(), every.std()
        advantages = [[(a - mean) / (deviation + 1e-8) for a in own] for own in advantages]
    return advantages, returns


def _plain(advantage: Numbers) -> float | tuple[float, ...]:
    """One number where all tokens have the same."""
    return float(advantage[0]) if (advantage == advantage[0]).all() else _floats(advantage)


def _floats(numbers: Numbers) -> tuple[float, ...]:
    return tuple(float(number) for number in numbers)


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
