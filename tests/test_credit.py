"""Credit: from a group's rewards to advantages, from reductions to weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.decision import Action, Author, Decision, Observation, Reward, Span, Trajectory
from memorist.errors import RecipeError
from memorist.memory.scratch import ScratchBank
from memorist.training.credit import REDUCTIONS, RULES, by_mean, credit, grpo, grpo_no_std, leave_one_out
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
    return [unit.advantage for unit in credit([group(*rewards)], "manager", rule=rule).units]


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
        credit([group(1, 0), group(1)], "manager", rule=rule)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="'grpo'"):
        credit([group(1, 0)], "manager", rule="gropo")
    with pytest.raises(RecipeError, match="'token'"):
        credit([group(1, 0)], "manager", reduction="tokens")


GROUPS = st.lists(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=2, max_size=4), min_size=1, max_size=4)


class TestWeights:
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    @given(shapes=GROUPS)
    def test_they_sum_to_one_over_all_tokens_of_the_policy(self, reduction: str, shapes: list[list[list[int]]]) -> None:
        groups = [[run(i, *map(decision, counts)) for i, counts in enumerate(runs)] for runs in shapes]
        credited = credit(groups, "manager", reduction=reduction)
        total = sum(unit.weight * len(unit.action.tokens) for unit in credited.units)
        tokens = sum(sum(counts) for runs in shapes for counts in runs)
        assert credited.tokens == tokens and credited.groups == len(shapes)
        assert total == pytest.approx(1.0 if tokens else 0.0)

    def test_each_reduction_weighs_what_its_name_says(self) -> None:
        runs = [run(1, decision(1), decision(3)), run(0, decision(4))]
        weights = {
            reduction: [unit.weight for unit in credit([runs], "manager", reduction=reduction).units]
            for reduction in REDUCTIONS
        }
        assert weights["token"] == pytest.approx([1 / 8] * 3)
        assert weights["trajectory"] == pytest.approx([1 / 8] * 3)  # two runs of four tokens each
        assert weights["decision"] == pytest.approx([1 / 3, 1 / 9, 1 / 12])
        uneven = [run(1, decision(1)), run(0, decision(3), decision(1))]
        assert [u.weight for u in credit([uneven], "manager", reduction="trajectory").units] == pytest.approx(
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


def test_no_groups_no_units() -> None:
    credited = credit([], "manager")
    assert (credited.units, credited.groups, credited.tokens) == ([], 0, 0)
