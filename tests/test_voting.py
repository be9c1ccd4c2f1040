"""Votes within a budget: nobody is asked in vain, and time is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.errors import ArgumentError
from memorist.evaluation.voting import Budget, leading, voted

ANSWERS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=9)


def asked(replies: Sequence[Sequence[str | None]], budget: Budget, seconds: float = 0.0) -> list[list[str | None]]:
    """What each question got, where answers are known and each round takes so long."""
    now = [0.0]

    def ask(numbers: Sequence[int], number: int) -> list[str | None]:
        now[0] += seconds
        return [replies[i][number] for i in numbers]

    return voted(len(replies), ask, budget, says=lambda one: one, tokens=lambda one: 10, clock=lambda: now[0])


@given(ANSWERS)
def test_stopping_early_never_changes_what_most_say(replies: list[str | None]) -> None:
    [own] = asked([replies], Budget(votes=len(replies)))
    assert own == replies[: len(own)]
    counts = Counter(one for one in replies if one is not None)
    top = [what for what, count in counts.items() if count == max(counts.values())]
    if len(top) == 1:
        assert leading(own, lambda one: one) == top[0]
    if len(own) < len(replies):  # whatever else had come
        [(_, most), *others] = Counter(one for one in own if one is not None).most_common()
        assert most - (others[0][1] if others else 0) > len(replies) - len(own)


def test_of_equals_the_first_leads_and_nothing_is_no_answer() -> None:
    assert leading(["b", "a", None, "a", "b"], lambda one: one) == "b"
    assert leading([None, None], lambda one: one) is None


def test_tokens_end_a_question_alone() -> None:
    replies = [["a", "b", "a", "b", "a"], ["a", "a", "a", "a", "a"]]
    assert [len(own) for own in asked(replies, Budget(votes=5, tokens=20))] == [2, 2]
    assert [len(own) for own in asked(replies, Budget(votes=5))] == [5, 3]


def test_a_round_that_would_end_too_late_is_not_begun() -> None:
    torn = [["a", "b", "c", "a", "b", "c"]]
    for limit, rounds in ((1.0, 1), (4.0, 1), (6.1, 2), (9.0, 3), (0.0, 6)):
        [own] = asked(torn, Budget(votes=6, seconds=limit), seconds=3.0)
        assert len(own) == rounds


@pytest.mark.parametrize("wrong", [{"votes": 0}, {"tokens": -1}, {"seconds": -0.1}])
def test_impossible_budgets_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match="1 or more votes"):
        Budget(**wrong)
