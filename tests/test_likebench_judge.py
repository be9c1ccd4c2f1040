"""LikeBench's offline judge and its numbers, by the vectors of the spec (§6)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.evaluation.likebench.judge import (
    DIMENSIONS,
    Alluded,
    Known,
    Liking,
    Moment,
    callback,
    emotion,
    formality,
    humor,
    knowledge,
    length,
    rate,
    reference,
    turn_score,
)
from memorist.evaluation.likebench.metrics import (
    adaptability,
    pearson,
    scaled,
    session_means,
    spearman,
    weighted_kappa,
)
from memorist.evaluation.likebench.text import LEXICON, PRAISE, Text, text


@pytest.mark.parametrize(
    ("said", "tokens", "value", "ratings"),
    [
        ("Hey! That's awesome, gonna look into it.", 7, 1 / 7, [5, 2, 1]),
        (
            "I appreciate the question. However, I recommend a second option; furthermore, consider the cost.",
            14,
            5 / 6,
            [1, 3, 5],
        ),
        ("The train leaves at nine.", 5, 0.5, [3, 5, 3]),
    ],
)
def test_formality(said: str, tokens: int, value: float, ratings: list[int]) -> None:
    assert len(text(said).tokens) == tokens and text(said).formality == pytest.approx(value)
    assert [formality(text(said), wanted) for wanted in (0.2, 0.5, 0.8)] == ratings


def test_length() -> None:
    words = [0, 8, 9, 12, 16, 20, 40, 50, 70, 100, 101]
    assert [length(n, 20, 40) for n in words] == [1, 2, 2, 3, 4, 5, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("said", "ratings"),
    [
        ("Overfitting falls when regularization raises bias and cuts variance.", [1, 2, 5]),
        ("Basically, the model memorizes. In other words, it does badly on new data.", [5, 2, 1]),
    ],
)
def test_knowledge(said: str, ratings: list[int]) -> None:
    assert [knowledge(text(said), "machine learning", e) for e in (0.1, 0.5, 0.9)] == ratings


@pytest.mark.parametrize(
    ("said", "sad", "glad"),
    [
        ("I'm sorry, that sounds exhausting. You could try one small step tonight.", [5, 5, 5], [1, 3, 3]),
        ("You could try a plan: step one, sleep. Step two, call them.", [2, 4, 4], [2, 4, 4]),
        ("Congratulations! Great news.", [1, 1, 3], [5, 3, 5]),
    ],
)
def test_emotion(said: str, sad: list[int], glad: list[int]) -> None:
    for valence, ratings in ((-0.8, sad), (0.7, glad)):
        assert [emotion(text(said), valence, how, 40) for how in ("validate", "solve", "space")] == ratings
    assert emotion(text(said), 0.1, "solve", 40) is None


@pytest.mark.parametrize(
    ("said", "rating"),
    [
        ("See you at the Blue Door then.", 5),
        ("A coffee shop is perfect for that.", 4),
        ("Which one is the usual place?", 3),
        ("Sounds good.", 2),
        ("The Red Lion it is.", 1),
    ],
)
def test_reference(said: str, rating: int) -> None:
    cafe = Alluded(("the usual place",), ("blue door cafe", "blue door"), ("cafe", "coffee shop"), ("red lion",))
    assert reference(text(said), cafe) == rating and reference(text(said), None) is None


@pytest.mark.parametrize(
    ("said", "ratings"),
    [
        ("Here is the schedule.", [5, 5, None, 2, 3]),
        ("Another meeting. Shocking.", [2, 2, 4, 5, 5]),
        ("Haha, plot twist!", [1, 1, 2, 3, 3]),
        ("Shocking. Groundbreaking. Truly a mystery.", [1, 1, 2, 3, 3]),
    ],
)
def test_humor(said: str, ratings: list[int | None]) -> None:
    moments = [(0.1, 0.0, False), (0.8, -0.8, False), (0.4, 0.0, False), (0.8, 0.0, True), (0.8, 0.0, False)]
    assert [humor(text(said), h, "dry", v, joked) for h, v, joked in moments] == ratings


def test_callback() -> None:
    known = {"f1": Known(("biscuit",), ("rex",)), "f2": Known(("lisbon",))}

    def rated(said: str, awaited: tuple[str, ...] = ("f1",), kappa: float = 0.8, before: int = 0) -> int | None:
        return callback(text(said), known, awaited, kappa, [text("Biscuit!")] * before)

    said = [
        "How is Biscuit doing?",
        "How is Biscuit after Lisbon?",
        "How is your dog?",
        "How is Rex?",
        "How was Lisbon?",
    ]
    assert [rated(one) for one in said] == [5, 4, 2, 1, 3]
    assert [rated("How was Lisbon?", (), kappa) for kappa in (0.8, 0.2)] == [3, 2] and rated("Sure.", ()) is None
    assert [rated("How is Biscuit doing?", before=n) for n in (2, 3)] == [5, 3]


def test_a_turn_is_the_mean_of_what_applies() -> None:
    given_ = {"emo": 4, "form": 5, "know": None, "ref": None, "len": 3, "humor": 5, "call": None}
    assert turn_score(given_) == 4.25


@pytest.mark.parametrize(
    ("sessions", "slope", "intercept", "r2", "percent"),
    [
        ([3.0, 3.2, 3.4, 3.6, 3.8], 0.2, 2.8, 1.0, 26.67),
        ([3.0, 3.5, 3.1, 3.9, 3.5], 0.14, 2.98, 0.3769, 17.95),
        ([3.0] * 5, 0.0, 3.0, 0.0, 0.0),
        ([4.2, 4.4, 4.1, 3.9, 3.6], -0.17, 4.55, 0.7769, -15.53),
        ([3.5], 0.0, 3.5, 0.0, 0.0),
    ],
)
def test_adaptability(sessions: list[float], slope: float, intercept: float, r2: float, percent: float) -> None:
    found = adaptability(sessions)
    assert (found.slope, found.intercept) == (pytest.approx(slope), pytest.approx(intercept))
    assert found.r2 == pytest.approx(r2, abs=1e-4) and found.percent == pytest.approx(percent, abs=0.005)


def test_agreement_and_correlation() -> None:
    assert weighted_kappa([5, 4, 3, 2, 1, 3], [5, 4, 4, 2, 1, 2]) == pytest.approx(0.9091, abs=1e-4)
    assert weighted_kappa([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]) == pytest.approx(-1)
    memory, liked = [0.86, 0.93, 0.90, 0.78], [3.9, 3.05, 4.1, 3.4]
    assert pearson(memory, liked) == pytest.approx(-0.0309, abs=1e-4) and pearson(memory, [1.0] * 4) == 0
    assert spearman([1, 2, 2, 9], [10, 20, 20, 30]) == pytest.approx(1.0)
    assert [scaled(x) for x in (1, 3.655, 4.221, 5)] == pytest.approx([0, 66.375, 80.525, 100])
    with pytest.raises(ValueError, match="expected equally many"):
        weighted_kappa([1], [])
    assert session_means({(2, 1): {"form": 2}, (1, 1): {"form": 5}, (1, 2): {"form": 4}}) == [4.5, 2.0]


LIKING = Liking(0.5, 5, 100, "validate", 0.8, "dry", {"cooking": 0.9}, 0.8)


class TestGuard:
    def test_a_list_of_the_judges_words_is_poor(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(20):
            salad = " ".join(rng.choice(LEXICON, 15))
            assert set(rate(salad, Moment(LIKING, 0.7, "cooking", joked=True)).values()) <= {1, 2, None}

    def test_praise_again_and_again_is_poor(self) -> None:
        flattery = "What a brilliant thought, you are amazing and I love how you put it."
        assert max(r for r in rate(flattery, Moment(LIKING, 0.7)).values() if r is not None) <= 2
        once = "That is a fine plan, impressive even."
        assert rate(once, Moment(LIKING))["len"] == 5 and rate(once, Moment(LIKING, before=[once] * 3))["len"] == 2

    @pytest.mark.parametrize(
        "said",
        [
            "I'm sorry, that sounds exhausting. You could try one small step tonight.",
            "Overfitting falls when regularization raises bias and cuts variance.",
            "I appreciate the question. However, I recommend a second option; furthermore, consider the cost.",
            "Congratulations! Great news.",
        ],
    )
    def test_what_is_said_to_somebody_is_not_touched(self, said: str) -> None:
        assert not text(said).degenerate and max(r for r in rate(said, Moment(LIKING)).values() if r is not None) > 2


@given(st.text(max_size=200), st.floats(-1, 1), st.lists(st.sampled_from(PRAISE), max_size=3))
def test_any_reply_is_rated(said: str, valence: float, before: list[str]) -> None:
    known = {"a": Known(("biscuit",), ("rex",))}
    found = rate(said, Moment(LIKING, valence, "cooking", Alluded(("x",), ("y",)), True, known, ("a",), before))
    assert tuple(found) == DIMENSIONS and all(r is None or r in range(1, 6) for r in found.values())
    assert 1 <= turn_score(found) <= 5 and 0 < Text(said).formality < 1
