"""Intervals resample what is independent, and say what they should."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorist.evaluation.statistics import (
    Interval,
    hierarchical_bootstrap,
    paired_difference,
    ratio_headroom,
    ratio_of_means,
)

Values = dict[int, dict[str, list[float]]]

runs = st.dictionaries(
    st.integers(0, 5),
    st.dictionaries(
        st.sampled_from("abcdefgh"), st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1, max_size=6
    ),
    min_size=1,
    max_size=3,
)


def world(seeds: int, dialogues: int, questions: int, rng: np.random.Generator, spread: float = 0.3) -> Values:
    """Values whose dialogues differ: the same dialogues under every seed."""
    means = rng.normal(0.5, spread, dialogues)
    return {s: {f"d{i}": list(m + rng.normal(0, 0.1, questions)) for i, m in enumerate(means)} for s in range(seeds)}


def test_the_value_is_the_question_weighted_mean() -> None:
    found = hierarchical_bootstrap({0: {"a": [1.0], "b": [0.0, 0.0, 0.0]}, 1: {"a": [1.0]}})
    assert found.value == pytest.approx(2 / 5)
    assert found.n == 5


@settings(max_examples=40)
@given(values=runs)
def test_an_interval_contains_its_value_and_stays_in_range(values: Values) -> None:
    found = hierarchical_bootstrap(values, rounds=50)
    assert found.low <= found.value <= found.high
    assert found.low >= -1e-9 and found.high <= 1 + 1e-9


@settings(max_examples=40)
@given(values=runs)
def test_the_order_of_dialogues_and_questions_does_not_matter(values: Values) -> None:
    turned = {s: {d: run[d][::-1] for d in reversed(run)} for s, run in values.items()}
    found, same = (hierarchical_bootstrap(v, rounds=50) for v in (values, turned))
    assert (found.value, found.low, found.high) == pytest.approx((same.value, same.low, same.high))


def test_the_same_values_give_the_same_interval_every_time() -> None:
    values = world(3, 10, 4, np.random.default_rng(1))
    assert hierarchical_bootstrap(values) == hierarchical_bootstrap(values)
    assert hierarchical_bootstrap(values) != hierarchical_bootstrap(values, seed=1)


def test_one_seed_resamples_dialogues_alone() -> None:
    found = hierarchical_bootstrap({0: {"a": [0.0] * 10, "b": [1.0] * 10}})
    assert (found.low, found.high) == (0, 1)
    assert hierarchical_bootstrap({0: {"a": [0.0, 1.0]}}) == Interval(0.5, 0.5, 0.5, 2)


def test_seeds_are_resampled_too() -> None:
    found = hierarchical_bootstrap({0: {"a": [0.0], "b": [0.0]}, 1: {"a": [1.0], "b": [1.0]}})
    assert (found.low, found.high) == (0, 1)


def test_more_questions_in_the_same_dialogues_do_not_narrow_the_interval() -> None:
    few = world(1, 20, 5, np.random.default_rng(0))
    many = {s: {d: v * 50 for d, v in run.items()} for s, run in few.items()}
    narrow, wide = hierarchical_bootstrap(many), hierarchical_bootstrap(few)
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low, rel=1e-6)


def test_more_seeds_on_the_same_dialogues_do_not_average_out_their_luck() -> None:
    one = world(1, 30, 5, np.random.default_rng(0))
    three = dict.fromkeys(range(3), one[0])
    alone, together = hierarchical_bootstrap(one), hierarchical_bootstrap(three)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_cover_the_truth_about_as_often_as_they_say(seeds: int) -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        found = hierarchical_bootstrap(world(seeds, 30, 4, rng), rounds=300)
        hits += found.low <= 0.5 <= found.high
    assert hits / 200 >= 0.88


def test_dialogues_without_questions_are_left_out_and_no_questions_at_all_is_an_error() -> None:
    assert hierarchical_bootstrap({0: {"a": [1.0], "b": []}}).value == 1
    empty: list[Values] = [{}, {0: {}}, {0: {"a": []}}]
    for nothing in empty:
        with pytest.raises(ValueError, match="no values"):
            hierarchical_bootstrap(nothing)


def test_any_function_of_totals_and_counts_is_a_statistic() -> None:
    values = world(1, 10, 3, np.random.default_rng(2))
    points = hierarchical_bootstrap(values, lambda totals, counts: 100 * totals / counts)
    share = hierarchical_bootstrap(values)
    assert (points.value, points.low, points.high) == pytest.approx(
        (100 * share.value, 100 * share.low, 100 * share.high)
    )


def test_a_paired_difference_is_narrower_than_the_values_it_pairs() -> None:
    theirs = world(3, 20, 5, np.random.default_rng(0))
    ours = {s: {d: [x + 0.1 for x in v] for d, v in run.items()} for s, run in theirs.items()}
    found = paired_difference(ours, theirs)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.n == 300


def test_a_frozen_system_stands_beside_every_seed() -> None:
    ours: Values = {1: {"a": [1.0, 0.0]}, 2: {"a": [1.0, 1.0]}}
    assert paired_difference(ours, {0: {"a": [0.0, 0.0]}}).value == pytest.approx(0.75)
    assert paired_difference({0: {"a": [0.0, 0.0]}}, ours).value == pytest.approx(-0.75)


def test_a_system_paired_with_itself_differs_by_nothing() -> None:
    values = world(2, 5, 3, np.random.default_rng(0))
    assert paired_difference(values, values) == Interval(0, 0, 0, 30)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({0: {"a": [1.0]}, 3: {"a": [1.0]}}, "seeds 0, 1 and 0, 3"),
        ({0: {"a": [1.0]}, 1: {"b": [1.0]}}, "seed 1, dialogues a, b"),
        ({0: {"a": [1.0]}, 1: {"a": [1.0, 1.0]}}, "seed 1, dialogues a"),
    ],
)
def test_systems_that_answered_different_questions_cannot_be_paired(theirs: Values, message: str) -> None:
    ours: Values = {0: {"a": [1.0]}, 1: {"a": [1.0]}}
    with pytest.raises(ValueError, match=message):
        paired_difference(ours, theirs)


def test_headroom_is_the_share_of_the_way_from_base_to_gold() -> None:
    rng = np.random.default_rng(0)
    base = world(1, 20, 5, rng)
    gold = {0: {d: [x + 0.4 for x in v] for d, v in base[0].items()}}
    trained = {s: {d: [x + 0.3 for x in v] for d, v in base[0].items()} for s in range(3)}
    found = ratio_headroom(base, trained, gold)
    assert (found.value, found.low, found.high) == pytest.approx((0.75, 0.75, 0.75))
    assert found.n == 300


def test_headroom_of_the_base_is_0_and_of_gold_1() -> None:
    rng = np.random.default_rng(0)
    base, gold = world(1, 20, 5, rng), {0: {f"d{i}": [2.0] * 5 for i in range(20)}}
    assert ratio_headroom(base, base, gold).value == 0
    assert ratio_headroom(base, gold, gold) == Interval(1, 1, 1, 100)


def test_headroom_joins_the_three_systems_on_the_same_resampled_dialogues() -> None:
    # Dialogues differ far more than base and gold do, so that apart they would tell nothing.
    rng = np.random.default_rng(0)
    base = world(1, 40, 5, rng, spread=3)
    shift = rng.normal(0.2, 0.05, 40)
    gold = {0: {d: [x + 0.4 for x in v] for d, v in base[0].items()}}
    trained = {0: {d: [x + s for x in v] for s, (d, v) in zip(shift, base[0].items(), strict=True)}}
    found = ratio_headroom(base, trained, gold)
    assert found.high - found.low < 0.15


def test_no_headroom_is_an_error_and_uncertain_headroom_an_endless_interval() -> None:
    with pytest.raises(ValueError, match=r"gold \(0\.5000\) is not above base \(0\.5000\)"):
        ratio_headroom({0: {"a": [0.5]}}, {0: {"a": [1.0]}}, {0: {"a": [0.5]}})
    base: Values = {0: {"a": [0.0], "b": [0.5]}}
    found = ratio_headroom(base, {0: {"a": [1.0], "b": [1.0]}}, {0: {"a": [1.0], "b": [0.5]}})
    assert found.high == math.inf
    assert found.value == 1.5


def test_three_seeds_of_sixty_dialogues_take_well_under_a_second() -> None:
    values = world(3, 60, 15, np.random.default_rng(0))
    start = time.perf_counter()
    hierarchical_bootstrap(values)
    assert time.perf_counter() - start < 1


def test_an_interval_prints_with_its_count() -> None:
    assert str(Interval(0.5, 0.25, 0.75, 12)) == "0.500 [0.250, 0.750] (n=12)"
    assert Interval(0.5, 0.25, 0.75, 12).to_json() == {"value": 0.5, "low": 0.25, "high": 0.75, "n": 12}


def test_a_ratio_of_means_is_paired_and_refuses_nothing_below() -> None:
    rng = np.random.default_rng(0)
    theirs = {0: {str(i): [float(v)] for i, v in enumerate(rng.uniform(5, 50, 200))}}
    ours = {seed: {d: [v[0] / 1.25] for d, v in theirs[0].items()} for seed in range(3)}
    found = ratio_of_means(theirs, ours)
    assert found.value == pytest.approx(1.25) and found.low == pytest.approx(1.25) and found.n == 600
    unlike = {0: {str(i): [float(v)] for i, v in enumerate(rng.uniform(5, 50, 200))}}
    wide = ratio_of_means(theirs, unlike)
    assert wide.low < wide.value < wide.high
    with pytest.raises(ValueError, match="expected more than 0"):
        ratio_of_means(theirs, {0: {d: [0.0] for d in theirs[0]}})
    with pytest.raises(ValueError, match="different questions"):
        ratio_of_means(theirs, {0: {"0": [1.0]}})
