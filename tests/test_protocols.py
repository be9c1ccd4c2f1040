"""Protocols score what their papers score, weigh questions alike, and say which version they are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorist.evaluation.protocols import (
    LOCOMO_V1,
    MEM0_V1,
    PROTOCOLS,
    Prediction,
    question_weighted,
)

PREDICTIONS = [
    Prediction("conv-26", "What does Ines do?", 1, "pottery, swimming", "swimming", ("D2:1",), ("D2:1",), 1.0),
    Prediction(
        "conv-26",
        "When did Pixel arrive?",
        2,
        "November 2022",
        "In November 2022",
        ("D9:1", "D9:2"),
        ("D9:1",),
        0.5,
    ),
    Prediction("conv-26", "Would Oskar row?", 3, "Likely yes; he owns a kayak", "Likely yes", (), (), None),
    Prediction("conv-30", "What did Kim get?", 4, "a telescope", "telescope", ("D1:1",), (), 0.0),
    Prediction("conv-30", "What did Kim get?", 4, "a telescope", "nothing", ("D1:1",), (), 0.0),
    Prediction("conv-30", "When did Lou get it?", 5, "", "It is not mentioned.", ("D1:1",)),
    Prediction("conv-30", "Did Lou get it?", 5, "No", "No", ("D1:1",)),
]


def test_the_overall_of_the_paper_is_the_question_weighted_mean_of_its_columns() -> None:
    means = {1: 35.73, 3: 35.65, 4: 47.42, 2: 49.86}
    counts = {1: 239, 3: 83, 4: 727, 2: 258}
    assert question_weighted(means, counts) == pytest.approx(45.02, abs=0.005)
    assert sum(means.values()) / 4 == pytest.approx(42.165)


def test_scores_of_the_papers_size_aggregate_to_its_overall() -> None:
    wanted = {1: (35.73, 239), 3: (35.65, 83), 4: (47.42, 727), 2: (49.86, 258)}
    predictions = [
        Prediction(f"conv-{i % 8}", f"q{i}", c, "right", "right" if i < round(mean / 100 * n) else "wrong")
        for c, (mean, n) in wanted.items()
        for i in range(n)
    ]
    scores = MEM0_V1.score(predictions)
    overall = scores.overall["em"]
    assert overall.n == 1307
    assert 100 * overall.value == pytest.approx(45.02, abs=0.2)
    means = {c: s.means["em"].value for c, s in scores.categories.items()}
    counts = {c: s.n for c, s in scores.categories.items()}
    assert overall.value == pytest.approx(question_weighted(means, counts))


def test_weights_of_other_categories_than_the_means_are_an_error() -> None:
    for means, counts in (({1: 0.5}, {2: 3}), ({}, {}), ({1: 0.5}, {1: 0})):
        with pytest.raises(ValueError, match="expected equal ones"):
            question_weighted(means, counts)


def test_mem0_scores_three_metrics_and_skips_category_5() -> None:
    scores = MEM0_V1.score(PREDICTIONS)
    assert scores.skipped == 2
    assert sorted(scores.categories) == [1, 2, 3, 4]
    assert set(scores.overall) == {"f1", "bleu1", "em"}
    first = scores.questions[0].values
    assert first["f1"] == pytest.approx(2 / 3)
    assert scores.categories[3].means["f1"].value < 1  # mem0 keeps what stands behind the semicolon.
    assert scores.overall["f1"].n == 5


def test_locomo_scores_category_5_by_abstention_apart_from_the_overall() -> None:
    scores = LOCOMO_V1.score(PREDICTIONS)
    assert scores.skipped == 0
    assert scores.categories[3].means["f1"].value == 1
    assert scores.categories[5].means["f1"].value == 0.5
    assert scores.overall["f1"].n == 5
    assert [s.values["f1"] for s in scores.questions] == pytest.approx([0.5, 0.8, 1, 1, 0, 1, 0])


def test_repeated_questions_count_once_in_the_deduplicated_mean() -> None:
    scores = LOCOMO_V1.score(PREDICTIONS)
    assert scores.deduplicated["f1"].n == 4
    assert scores.deduplicated["f1"].value == pytest.approx((0.5 + 0.8 + 1 + 1) / 4)
    assert scores.overall["f1"].value == pytest.approx((0.5 + 0.8 + 1 + 1 + 0) / 5)


def test_evidence_is_counted_where_there_is_some() -> None:
    evidence = MEM0_V1.score(PREDICTIONS).evidence
    assert {name: (found.value, found.n) for name, found in evidence.items()} == {
        "in_candidates": ((1 + 0.5 + 0 + 0) / 4, 4),
        "in_used": ((1 + 0.5 + 0 + 0) / 4, 4),
    }


def test_categories_carry_both_names() -> None:
    found = MEM0_V1.score(PREDICTIONS).categories[1]
    assert (found.locomo_name, found.mem0_name, found.n) == ("multi-hop", "Single Hop", 1)


def test_the_json_names_protocol_and_data_and_holds_a_row_per_question_on_request() -> None:
    scores = LOCOMO_V1.score(PREDICTIONS)
    found = json.loads(json.dumps(scores.to_json("abc123def456", questions=True)))
    assert (found["protocol"], found["data"]) == ("locomo-v1", "abc123def456")
    assert found["categories"]["4"]["f1"]["n"] == 2
    assert set(found["overall"]["f1"]) == {"value", "low", "high", "n"}
    assert found["questions"][0]["answer"] == "swimming"
    assert len(found["questions"]) == 7
    assert "questions" not in scores.to_json("abc123def456")


def test_values_by_dialogue_leave_category_5_to_itself() -> None:
    assert {d: len(v) for d, v in LOCOMO_V1.score(PREDICTIONS).values("f1").items()} == {
        "conv-26": 3,
        "conv-30": 2,
    }


def test_protocols_are_found_by_name_and_version() -> None:
    assert PROTOCOLS == {"mem0-v1": MEM0_V1, "locomo-v1": LOCOMO_V1}


def test_no_predictions_give_empty_scores() -> None:
    scores = MEM0_V1.score(PREDICTIONS[-2:])
    assert (scores.overall, scores.deduplicated, scores.categories, scores.skipped) == ({}, {}, {}, 2)


@pytest.mark.parametrize("protocol", [MEM0_V1, LOCOMO_V1])
def test_an_unknown_category_is_an_error(protocol: object) -> None:
    with pytest.raises(ValueError, match="category is 6 in conv-1"):
        protocol.score([Prediction("conv-1", "q", 6, "a", "a")])  # type: ignore[attr-defined]


@settings(max_examples=20)
@given(order=st.permutations(PREDICTIONS[:4] + PREDICTIONS[5:]))
def test_scores_do_not_depend_on_the_order_of_predictions(order: list[Prediction]) -> None:
    for protocol in PROTOCOLS.values():
        first, second = (protocol.score(p).to_json("x") for p in (PREDICTIONS[:4] + PREDICTIONS[5:], order))
        assert json.dumps(_rounded(first), sort_keys=True) == json.dumps(_rounded(second), sort_keys=True)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return round(value, 9) if isinstance(value, float) else value
