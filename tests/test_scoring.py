"""Metrics give the values that mem0's and LoCoMo's own scorers give."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorist.scoring import (
    _nltk_words,
    _stem,
    bleu1,
    boxed,
    boxed_match,
    evidence_recall,
    exact_match,
    locomo_abstains,
    locomo_f1,
    mem0_f1,
    squad_f1,
    sub_exact_match,
)

LONG_YES = (
    "Yes, John and James studied together, as they were part of the same online programming group, "
    "as implied by the memories above."
)

MEM0 = [
    ("Yes", "Yes", 1, 1),
    ("7 May, 2023", "7 May 2023", 1, 0.75),
    ("May 7, 2023", "7 May 2023", 1, 0.75),
    ("the beach", "beach", 0.666667, 0.5),
    ("She is researching adoption agencies.", "Adoption agencies", 0.571429, 0.333333),
    ("swimming, camping", "pottery, camping, painting, swimming", 0.666667, math.exp(1 - 7 / 3)),
    ("dogs dogs dogs", "dogs", 1, 0.333333),
    ("beach house", "a beach house near town", 0.571429, math.exp(1 - 5 / 2)),
    ("Likely no; she doesn't", "Likely no", 0.333333, 0.333333),
    (LONG_YES, "Yes", 0.095238, 0.038462),
    ("", "Yes", 0, 0),
    ("...", "Yes", 0, 0),
]

# Answers of every shape: words of the world, punctuation of all sorts, and whatever else unicode has.
answers = st.one_of(
    st.lists(st.sampled_from(["the", "a", "Dog", "dogs", "7", "May,", "isn't", "u.s.", ";", "?", "and"])).map(" ".join),
    st.text(max_size=40),
)
categories = st.sampled_from([1, 2, 3, 4, 5])


@pytest.mark.parametrize(("pred", "gold", "f1", "b1"), MEM0)
def test_mem0_f1_and_bleu1_equal_the_reference(pred: str, gold: str, f1: float, b1: float) -> None:
    assert mem0_f1(pred, gold) == pytest.approx(f1, abs=1e-6)
    assert bleu1(pred, gold) == pytest.approx(b1, abs=1e-6)


@pytest.mark.parametrize(
    ("pred", "gold", "mode", "value"),
    [
        ("the beach", "beach", "squad", 1),
        ("7 May, 2023", "7 May 2023", "squad", 1),
        ("May 7, 2023", "7 May 2023", "squad", 0),
        ("2022", 2022, "squad", 1),
        ("the beach", "beach", "mem0", 0),
        ("7 May, 2023", "7 May 2023", "mem0", 0),
        (" Beach ", "beach", "mem0", 1),
        ("May 7, 2023", "7 May 2023", "locomo_set", 1),
        ("dogs dogs dogs", "dogs", "locomo_set", 1),
        ("salt and pepper", "pepper salt", "locomo_set", 1),
        ("dogs", "cats", "locomo_set", 0),
    ],
)
def test_exact_match_normalises_as_its_mode_says(pred: str, gold: object, mode: str, value: float) -> None:
    assert exact_match(pred, gold, mode) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["squad", "mem0", "locomo_set"])
def test_an_empty_answer_never_matches_exactly(mode: str) -> None:
    assert exact_match("", "", mode) == 0  # type: ignore[arg-type]
    assert exact_match("  ", "the", mode) == 0  # type: ignore[arg-type]


def test_an_unknown_mode_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'fuzzy'.*'squad', 'mem0' or 'locomo_set'"):
        exact_match("a", "b", "fuzzy")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pred", "gold", "category", "value"),
    [
        ("the beach", "beach", 4, 1),
        ("dogs dogs dogs", "dogs", 4, 0.5),
        ("Likely no; she doesn't", "Likely no", 4, 0.666667),
        (LONG_YES, "Yes", 4, 0.1),
        (LONG_YES, "Yes", 1, 1),
        ("swimming, camping", "pottery, camping, painting, swimming", 1, 0.5),
        ("7 May, 2023", "7 May 2023", 1, 0.8),
        ("7 May, 2023", "7 May 2023", 2, 1),
        ("Likely yes", "Likely yes; she owns a kayak", 3, 1),
        ("Likely yes", "Likely yes; she owns a kayak", 4, 0.571429),
        ("2022", 2022, 2, 1),
        ("Not mentioned in the dialogue.", "", 5, 1),
        ("June 2022", "", 5, 0),
    ],
)
def test_locomo_f1_follows_the_rule_of_each_category(pred: str, gold: object, category: int, value: float) -> None:
    assert locomo_f1(pred, gold, category) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("word", "stem"),
    [
        ("studies", "studi"),
        ("certification", "certif"),
        ("agencies", "agenc"),
        ("dying", "die"),
        ("news", "news"),
    ],
)
def test_words_are_stemmed_by_the_extended_porter_stemmer(word: str, stem: str) -> None:
    assert _stem(word) == stem


def test_an_unknown_category_is_an_error() -> None:
    with pytest.raises(ValueError, match="category is 6"):
        locomo_f1("a", "a", 6)


@pytest.mark.parametrize(
    ("pred", "abstains"),
    [("No information available", True), ("This is NOT MENTIONED anywhere", True), ("I do not know", False)],
)
def test_abstention_is_told_by_two_phrases(pred: str, abstains: bool) -> None:
    assert locomo_abstains(pred) is abstains


def test_a_period_inside_a_sentence_stays_with_its_word_and_one_at_its_end_does_not() -> None:
    # "u.s." and "dr." end no sentence, "stayed." does: the gold's tokens are all found but for nothing else.
    assert bleu1("stayed", "Dr. Smith stayed. Then he left.") == pytest.approx(math.exp(1 - 8))
    assert bleu1("dr.", "Dr. Smith stayed. Then he left.") == pytest.approx(math.exp(1 - 8 / 2) / 2)
    assert bleu1("army", "He joined the u.s. army. He left.") == pytest.approx(math.exp(1 - 9))


def test_bleu1_equals_the_one_of_nltk() -> None:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    for pred, gold, _, _ in MEM0[:-2]:
        expected = sentence_bleu(
            [_nltk_words(gold.lower())],
            _nltk_words(pred.lower()),
            weights=(1, 0, 0, 0),
            smoothing_function=SmoothingFunction().method1,
        )
        assert bleu1(pred, gold) == pytest.approx(expected)


def test_evidence_recall_counts_each_id_once_and_is_full_without_evidence() -> None:
    assert evidence_recall(["D1:1", "D1:1", "D2:2"], ("D1:1", "D3:3", "D3:3")) == 0.5
    assert evidence_recall([], ("D1:1",)) == 0
    assert evidence_recall([], ()) == 1


@settings(max_examples=40)
@given(pred=answers, gold=answers, category=categories)
def test_every_metric_lies_between_0_and_1(pred: str, gold: str, category: int) -> None:
    values = [mem0_f1(pred, gold), bleu1(pred, gold), locomo_f1(pred, gold, category)]
    values += [exact_match(pred, gold, mode) for mode in ("squad", "mem0", "locomo_set")]
    assert all(0 <= value <= 1 + 1e-12 for value in values)


@given(pred=answers, gold=answers)
def test_the_f1s_and_exact_match_are_symmetric(pred: str, gold: str) -> None:
    assert mem0_f1(pred, gold) == mem0_f1(gold, pred)
    assert locomo_f1(pred, gold, 4) == locomo_f1(gold, pred, 4)
    assert exact_match(pred, gold) == exact_match(gold, pred)


@given(words=st.lists(st.sampled_from(["dog", "May", "isn't", "7", "u.s."]), min_size=1))
def test_an_answer_equal_to_the_gold_is_perfect_everywhere(words: list[str]) -> None:
    text = " ".join(words)
    assert mem0_f1(text, text) == bleu1(text, text) == locomo_f1(text, text, 4) == 1
    assert exact_match(text, text) == exact_match(text, text, "mem0") == exact_match(text, text, "locomo_set") == 1


@pytest.mark.parametrize(
    "answer", ["y" * 100_000, ".." + " " * 100_000 + "x", "a. " * 2_000, "[" * 20_000, '"' * 20_000]
)
def test_answers_of_any_length_and_shape_are_scored(answer: str) -> None:
    assert 0 <= bleu1(answer, "yes") + mem0_f1(answer, "yes") + locomo_f1(answer, "yes", 1) <= 3


@pytest.mark.parametrize(
    ("reply", "golds", "right"),
    [
        (r"\boxed{greenwich village,new york city}", ["Greenwich Village, New York City"], 1),
        (r"\boxed{Greenwich Village}", ["Greenwich Village, New York City"], 0),
        (r"\boxed{The Beatles}", ["Beatles"], 0),
        (r"\boxed{A} and \boxed{B}", ["a"], 0),
        (r"\boxed{A} and \boxed{B}", ["b", "c"], 1),
        (r"\boxed{yes}" + "x" * 300, ["yes"], 0),
        (r"\boxed{yes.}", ["yes"], 0),
        ("yes", ["yes"], 0),
        (r"\boxed{\dfrac{1}{2}}", [r"\frac{1}{2}"], 1),
        (r"\boxed{.5}", ["0.5"], 1),
        (r"$\boxed 7$ it is", ["7"], 1),
        (r"\fbox{yes}", ["yes"], 0),
        (r"\boxed{yes", ["yes"], 0),
    ],
)
def test_vector_8_of_memagent(reply: str, golds: list[str], right: int) -> None:
    assert boxed_match(reply, golds) == right


def test_a_question_without_a_gold_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        boxed_match(r"\boxed{x}", [])


@given(st.text(alphabet=r"\boxed{} $a", max_size=40))
def test_the_last_box_is_found_in_anything(text: str) -> None:
    inside = boxed(text)
    assert inside is None or inside in text
    assert boxed(text + r"\boxed{a{b}c}") == "a{b}c" or r"\boxed " in text


@pytest.mark.parametrize(
    ("pred", "gold", "sub", "f1"),
    [
        ("The Greenwich Village, New York City", "Greenwich Village", 1, 0.5714),
        ("New York", "New York City", 1, 0.8),
        ("the", "Mumbai", 0, 0),  # in the original an answer of nothing but an article is right
        ("yes", "no", 0, 0),
        ("yes it is", "yes", 1, 0),
        ("", "x", 0, 0),
        ("a b b", "b b", 1, 0.8 / 0.8),
    ],
)
def test_vector_9_of_memagent(pred: str, gold: str, sub: float, f1: float) -> None:
    assert sub_exact_match(pred, gold) == sub
    assert squad_f1(pred, gold) == pytest.approx(f1, abs=1e-4)


def test_a_missing_nltk_is_told_with_what_to_type() -> None:
    code = (
        "import sys; sys.modules['nltk'] = None\n"
        "from memorist.scoring import bleu1, mem0_f1\n"
        "assert mem0_f1('a', 'a') == 1\n"
        "try: bleu1('a', 'a')\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'memorist[eval]'" in done.stdout
