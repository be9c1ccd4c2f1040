"""Credit: from a group's rewards to advantages, from reductions to weights."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.decision import Action, Author, Decision, Observation, Reward, Span, Trajectory
from memorist.errors import RecipeError
from memorist.memory.scratch import ScratchBank
from memorist.training.credit import (
    LEAST_WORTH,
    REDUCTIONS,
    RULES,
    How,
    Worth,
    by_mean,
    credit,
    gae,
    grpo,
    grpo_no_std,
    leave_one_out,
)
from memorist.training.rollout import Group, Run

REWARDS = st.lists(st.floats(-10, 10, allow_nan=False, width=32), min_size=2, max_size=12)


def decision(tokens: int, role: str = "manager", spans: tuple[Span, ...] = ()) -> Decision:
    action = Action("x", (1, 2), tuple(range(tokens)), (-1.0,) * tokens, spans=spans)
    return Decision(role, "p", Observation("x"), action)


def run(reward: float, *decisions: Decision) -> Run:
    return Run(None, Trajectory("t", 0, decisions, (Reward("r", reward),)), None, ScratchBank())


def group(*rewards: float, tokens: int = 3) -> Group:
    return [run(reward, decision(tokens)) for reward in rewards]


def advantages(*rewards: float, rule: str = "grpo") -> list[float]:
    return [unit.advantage for unit in credit([group(*rewards)], "manager", how=How(rule)).units]


# Vectors T4 of memory-r1.md and 1 of memfactory.md
@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1, 0, 0, 0], [1.5, -0.5, -0.5, -0.5]),
        ([1, 1, 0, 0], [0.8660, 0.8660, -0.8660, -0.8660]),
        ([1, 0, 0.5, 0.5], [1.2247, -1.2247, 0, 0]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([1, 1, 1, 0, 0, 0, 0, 0], [1.2076] * 3 + [-0.7246] * 5),
        ([0.5, 0, 0.5, 0.5], [0.5, -1.5, 0.5, 0.5]),
        ([0.5] * 4, [0, 0, 0, 0]),
    ],
)
def test_grpo_divides_by_the_sample_deviation(rewards: list[float], expected: list[float]) -> None:
    assert advantages(*rewards) == pytest.approx(expected, abs=1e-4)


def test_the_other_rules() -> None:
    assert advantages(1, 0, 0, 0, rule="grpo-no-std") == [0.75, -0.25, -0.25, -0.25]
    assert advantages(1, 0, 0, 0, rule="leave-one-out") == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    assert advantages(1, 0, 0, 0, rule="by-mean") == pytest.approx([3, -1, -1, -1], abs=1e-4)
    assert advantages(1, 1, 1, 0, rule="by-mean") == pytest.approx([1 / 3, 1 / 3, 1 / 3, -1], abs=1e-4)


@given(st.lists(st.booleans(), min_size=2, max_size=16).filter(lambda rs: len(set(rs)) == 2))
def test_by_mean_a_rare_success_counts_as_much_as_a_frequent_one(rewards: list[bool]) -> None:
    """The pull of all failures is as strong as their share, whatever the rate of success."""
    found = by_mean(np.array(rewards, np.float64))
    assert found[~np.array(rewards)] == pytest.approx(-1, abs=1e-4)
    assert found[np.array(rewards)].sum() == pytest.approx(len(rewards) - sum(rewards), rel=1e-4)


@pytest.mark.parametrize("rule", RULES)
@given(value=st.floats(-1e6, 1e6), count=st.integers(2, 16))
def test_a_group_without_variance_gets_exactly_zero(rule: str, value: float, count: int) -> None:
    assert RULES[rule](np.full(count, value)).tolist() == [0.0] * count


@given(REWARDS)
def test_rules_are_what_their_papers_say(rewards: list[float]) -> None:
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    given_ = np.array(rewards)
    flat = len(set(rewards)) == 1
    for found, expected in (
        (grpo(given_), [(r - mean) / (deviation + 1e-6) for r in rewards]),
        (grpo_no_std(given_), [r - mean for r in rewards]),
        (leave_one_out(given_), [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards]),
    ):
        assert found.tolist() == pytest.approx([0] * len(rewards) if flat else expected, abs=1e-6, rel=1e-6)
        assert abs(found.sum()) < 1e-4


@given(REWARDS, st.floats(0.5, 4), st.floats(-5, 5))
def test_grpo_does_not_care_about_the_scale_of_rewards(rewards: list[float], scale: float, shift: float) -> None:
    given_ = np.array(rewards, np.float64)
    if given_.std() > 0.01:
        assert grpo(given_ * scale + shift).tolist() == pytest.approx(grpo(given_).tolist(), abs=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_a_group_of_one_is_refused(rule: str) -> None:
    with pytest.raises(RecipeError, match="group of one"):
        credit([group(1, 0), group(1)], "manager", how=How(rule))


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="'grpo'"):
        credit([group(1, 0)], "manager", how=How("gropo"))
    with pytest.raises(RecipeError, match="'token'"):
        credit([group(1, 0)], "manager", how=How(reduction="tokens"))


GROUPS = st.lists(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=2, max_size=4), min_size=1, max_size=4)


class TestWeights:
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    @given(shapes=GROUPS)
    def test_they_sum_to_one_over_all_tokens_of_the_policy(self, reduction: str, shapes: list[list[list[int]]]) -> None:
        groups = [[run(i, *map(decision, counts)) for i, counts in enumerate(runs)] for runs in shapes]
        credited = credit(groups, "manager", how=How(reduction=reduction))
        total = sum(unit.weight * len(unit.action.tokens) for unit in credited.units)
        tokens = sum(sum(counts) for runs in shapes for counts in runs)
        assert credited.tokens == tokens and credited.groups == len(shapes)
        assert total == pytest.approx(1.0 if tokens else 0.0)

    def test_each_reduction_weighs_what_its_name_says(self) -> None:
        runs = [run(1, decision(1), decision(3)), run(0, decision(4))]
        weights = {
            reduction: [unit.weight for unit in credit([runs], "manager", how=How(reduction=reduction)).units]
            for reduction in REDUCTIONS
        }
        assert weights["token"] == pytest.approx([1 / 8] * 3)
        assert weights["trajectory"] == pytest.approx([1 / 8] * 3)  # two runs of four tokens each
        assert weights["decision"] == pytest.approx([1 / 3, 1 / 9, 1 / 12])
        uneven = [run(1, decision(1)), run(0, decision(3), decision(1))]
        assert [u.weight for u in credit([uneven], "manager", how=How(reduction="trajectory")).units] == pytest.approx(
            [1 / 2, 1 / 8, 1 / 8]
        )

    def test_a_tool_s_tokens_do_not_count(self) -> None:
        mixed = decision(5, spans=(Span(0, 2), Span(2, 5, Author.TOOL)))
        credited = credit([[run(1, mixed), run(0, decision(2))]], "manager")
        assert credited.tokens == 4 and [u.weight for u in credited.units] == [1 / 4, 1 / 4]
        only = decision(3, spans=(Span(0, 3, Author.TOOL),))
        assert credit([[run(1, only), run(0, only)]], "manager").units == []

    def test_groups_without_variance_keep_their_share(self) -> None:
        """Else a step would be larger the less there is to learn from."""
        credited = credit([group(1, 1), group(1, 0)], "manager")
        assert [u.weight for u in credited.units] == [1 / 12] * 4
        assert [u.advantage for u in credited.units][:2] == [0.0, 0.0]
        assert credited.flat_groups == 1 and credited.groups == 2


def test_all_decisions_of_a_role_share_their_run_s_advantage_and_other_roles_get_none() -> None:
    runs = [
        run(1, decision(2), decision(1, "answerer"), decision(3)),
        run(0, decision(1, "answerer"), decision(1)),
    ]
    found = credit([runs], "manager")
    assert [len(u.action.tokens) for u in found.units] == [2, 3, 1]
    assert [u.advantage for u in found.units] == pytest.approx([0.7071, 0.7071, -0.7071], abs=1e-4)
    assert [len(u.action.tokens) for u in credit([runs], "answerer").units] == [1, 1]


def test_credit_looks_at_the_trajectory_s_own_terms() -> None:
    terms = (Reward("em", 1.0), Reward("format", 0.5), Reward("of a decision", 9.0, decision=0))
    trajectory = Trajectory("t", 0, (decision(1),), terms)
    assert trajectory.total() == 1.5 and trajectory.total({"format": 0.0, "em": 2.0}) == 2.0


class TestProcessRewards:
    """Terms on a decision or a span count on their own tokens, beside what the run gives."""

    def runs(self, *terms: tuple[Reward, ...]) -> Group:
        return [
            Run(None, Trajectory("t", 0, (decision(2), decision(3)), (Reward("won", 1.0), *own)), None, ScratchBank())
            for own in terms
        ]

    def test_they_land_on_their_own_tokens(self) -> None:
        group = self.runs((Reward("valid", 1.0, 1, (1, 3)),), (Reward("valid", 0.0, 1, (0, 2)),))
        found = [u.advantage for u in credit([group], "manager", how=How("grpo-no-std")).units]
        assert found == [0.0, (0.0, 0.5, 0.5), 0.0, (-0.5, -0.5, 0.0)]

    def test_a_whole_decision_is_a_span_and_weights_count(self) -> None:
        group = self.runs((Reward("valid", 1.0, 0),), (Reward("valid", 0.0, 0),))
        how = How("leave-one-out", worth=Worth({"valid": 3.0}))
        assert [u.advantage for u in credit([group], "manager", how=how).units] == [3.0, 0.0, -3.0, 0.0]

    def test_a_term_that_nothing_can_be_compared_with_gives_nothing(self) -> None:
        group = self.runs((Reward("valid", 5.0, 0),), ())
        assert [u.advantage for u in credit([group], "manager").units] == [0.0] * 4

    def test_a_span_counts_tokens_of_the_whole_action_the_tool_s_included(self) -> None:
        mixed = decision(5, spans=(Span(0, 1), Span(1, 3, Author.TOOL), Span(3, 5)))
        group = [
            Run(None, Trajectory("t", 0, (mixed,), (Reward("valid", v, 0, (3, 4)),)), None, ScratchBank())
            for v in (1.0, 0.0)
        ]
        found = [u.advantage for u in credit([group], "manager", how=How("grpo-no-std")).units]
        assert found == [(0.0, 0.5, 0.0), (0.0, -0.5, 0.0)]


class TestWorth:
    """Vectors 3 and 4 of esearch-r1.md, with the cost as a term of its own."""

    def runs(self, *won_and_cost: tuple[float, float], share: float = 0.5, most: float = 20.0) -> Group:
        return [
            Run(
                None,
                Trajectory("t", 0, (decision(1),), (Reward("won", w), Reward("cost", -share * min(1.0, c / most)))),
                None,
                ScratchBank(),
            )
            for w, c in won_and_cost
        ]

    def test_where_all_fail_none_is_better_for_being_cheap(self) -> None:
        group = self.runs((0, 0), (0, 5), (0, 10.25), (0, 12))
        linear = credit([group], "manager").units
        assert linear[0].advantage > 1  # giving up at once would be reinforced
        gated = credit([group], "manager", how=How(worth=Worth(gate="won")))
        assert [u.advantage for u in gated.units] == [0.0] * 4 and gated.flat_groups == 1

    def test_costs_rank_successes(self) -> None:
        group = self.runs((1, 7.55), (1, 9.5), (0, 3), (0, 0))
        worth = Worth(gate="won")
        assert [worth(run.trajectory) for run in group] == pytest.approx([0.81125, 0.7625, 0, 0])
        found = [u.advantage for u in credit([group], "manager", how=How(worth=worth)).units]
        assert found == pytest.approx([0.9188, 0.8116, -0.8652, -0.8652], abs=2e-3)

    def test_what_was_won_dearly_is_worth_less_and_never_as_little_as_a_failure(self) -> None:
        worth = Worth(gate="won")
        dear = [
            worth(run.trajectory)
            for run in self.runs(*((1, cost) for cost in (199, 200, 201, 400, 800, 2000)), share=5, most=2000)
        ]
        assert dear[1] == pytest.approx(0.5) and dear[3] == pytest.approx(0.25)
        assert dear == sorted(dear, reverse=True) and dear[-1] > 0
        assert dear[0] - dear[1] == pytest.approx(dear[1] - dear[2], rel=0.02)  # no bend where the rule changes

    def test_components_are_compared_each_in_its_own_deviations_which_have_floors(self) -> None:
        """Vector 5: without floors the dearer of two successes is ahead, for one look at memory."""
        names, weights = ("won", "nav", "ask", "mem"), {"nav": 0.2, "ask": 0.1, "mem": 0.05}
        spent = [(1, 7, 0.5, 0.05), (1, 9, 0.5, 0), (0, 0, 0, 0), (0, 9, 1.25, 0)]
        group = [
            Run(None, Trajectory("t", 0, (decision(2),), tuple(
                Reward(name, value if name == "won" else -value) for name, value in zip(names, terms, strict=True)
            )), None, ScratchBank())
            for terms in spent
        ]  # fmt: skip
        plain = credit([group], "manager", how=How("components", worth=Worth(weights)))
        assert [u.advantage for u in plain.units] == pytest.approx([0.7680, 0.7744, -0.4393, -1.1032], abs=1e-4)
        floors = {"nav": 1.0, "ask": 0.5, "mem": 0.5}
        right = credit([group], "manager", how=How("components", worth=Worth(weights), floors=floors))
        assert [u.advantage for u in right.units] == pytest.approx([0.8393, 0.7507, -0.4630, -1.1269], abs=1e-4)
        with pytest.raises(RecipeError, match="siblings to 2 or more"):
            credit([group[:1]], "manager", how=How("components"))

    def test_weights_and_unknown_gates(self) -> None:
        (run_,) = self.runs((1, 10))
        assert Worth({"cost": 2.0})(run_.trajectory) == 0.5
        with pytest.raises(RecipeError, match="'won'"):
            Worth(gate="wonn")(run_.trajectory)


class TestReinforce:
    @given(st.lists(REWARDS, min_size=1, max_size=4))
    def test_the_baseline_is_the_mean_of_all_other_runs_of_the_step(self, rewards: list[list[float]]) -> None:
        flat = [r for group in rewards for r in group]
        found = [u.advantage for u in credit([group(*g) for g in rewards], "manager", how=How("reinforce")).units]
        expected = [r - (sum(flat) - r) / (len(flat) - 1) for r in flat]
        assert found == pytest.approx(expected, abs=1e-6, rel=1e-6)

    def test_groups_of_one_will_do_but_not_a_single_run(self) -> None:
        assert [u.advantage for u in credit([group(1), group(0)], "manager", how=How("reinforce")).units] == [1, -1]
        with pytest.raises(RecipeError, match="compares the step's runs and got one"):
            credit([group(1)], "manager", how=How("reinforce"))


def test_counterfactual_is_the_difference_that_a_decision_made() -> None:
    runs = [run(1, decision(2), decision(3)), run(0, decision(1))]
    priced = [replace(runs[0], without=(0.25, 1.0)), replace(runs[1], without=(0.5,))]
    found = credit([priced], "manager", how=How("counterfactual"))
    assert [u.advantage for u in found.units] == [0.75, 0.0, -0.5]


class TestGae:
    def test_vector_t5_of_the_spec(self) -> None:
        found = gae(np.array([0.0, 0.0, 1.0]), np.array([0.2, 0.5, 0.4]))
        assert found.tolist() == pytest.approx([0.8, 0.5, 0.6])

    @given(
        st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=8),
        st.floats(0, 1),
        st.floats(0, 1),
    )
    def test_it_is_the_sum_of_the_paper_s_equation_16(
        self, steps: list[tuple[float, float]], gamma: float, gae_lambda: float
    ) -> None:
        rewards, values = [r for r, _ in steps], [v for _, v in steps]
        deltas = [r + gamma * (values[t + 1] if t + 1 < len(values) else 0) - values[t] for t, r in enumerate(rewards)]
        expected = [
            sum((gamma * gae_lambda) ** n * delta for n, delta in enumerate(deltas[t:])) for t in range(len(deltas))
        ]
        found = gae(np.array(rewards), np.array(values), gamma, gae_lambda)
        assert found.tolist() == pytest.approx(expected, abs=1e-9)

    def test_it_runs_along_the_whole_trajectory_and_rewards_stand_where_they_are_earned(self) -> None:
        terms = (Reward("won", 1.0), Reward("valid", 0.5, 0))
        one = Run(None, Trajectory("t", 0, (decision(2), decision(1)), terms), None, ScratchBank())
        values = [[np.array([0.2, 0.5]), np.array([0.4])]]
        how = How("ppo", whiten=False)
        found = credit([[one]], "manager", how=how, values=values)
        assert found.units[0].advantage == pytest.approx((1.3, 1.0)) and found.units[1].advantage == pytest.approx(0.6)
        assert found.units[0].returns == pytest.approx((1.5, 1.5)) and found.units[0].values == (0.2, 0.5)
        assert found.units[1].returns == pytest.approx((1.0,))

    def test_relative_estimates_are_divided_by_what_the_start_is_worth_and_returns_are_not(self) -> None:
        one = Run(None, Trajectory("t", 0, (decision(2),), (Reward("won", 1.0),)), None, ScratchBank())
        how = How("ppo", relative=True, whiten=False)
        for start, divisor in ((0.25, 0.25), (0.001, LEAST_WORTH), (-1.0, LEAST_WORTH)):
            values = [[np.array([start, 0.5])]]
            (unit,) = credit([[one]], "manager", how=how, values=values).units
            assert unit.advantage == pytest.approx(((1 - start) / divisor, 0.5 / divisor))
            assert unit.returns == pytest.approx((1.0, 1.0))

    def test_whitened_estimates_have_mean_0_and_deviation_1_over_the_step(self) -> None:
        groups = [group(1, 0, tokens=3), group(0, 0, tokens=2)]
        values = [[np.linspace(0, 1, run_.trajectory.decisions[0].policy_tokens)] for g in groups for run_ in g]
        units = credit(groups, "manager", how=How("ppo"), values=values).units
        every = np.concatenate([np.broadcast_to(u.advantage, len(u.action.tokens)) for u in units])
        assert every.mean() == pytest.approx(0, abs=1e-9) and every.std() == pytest.approx(1)


def test_the_epsilon_beside_the_deviation_is_a_parameter() -> None:
    found = credit([group(1, 0)], "manager", how=How("grpo", epsilon=1.0)).units
    assert found[0].advantage == pytest.approx(0.5 / (0.5**0.5 + 1.0))


def test_no_groups_no_units() -> None:
    credited = credit([], "manager")
    assert (credited.units, credited.groups, credited.tokens) == ([], 0, 0)
