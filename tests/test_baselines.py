"""BM25 over turns finds evidence as well as the published prototype did."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from memorist.conversation import Conversation, Message, Session
from memorist.evaluation.baselines import (
    bm25_turns,
    evidence_recall_at,
    evidence_recall_values,
    top_turns,
)
from memorist.tasks.locomo import Dialogue, Question, load, locomo_path

SMALL = Path(__file__).parent / "fixtures" / "locomo_small.json"
REAL = locomo_path()
SIX = {"conv-26", "conv-30", "conv-41", "conv-42", "conv-43", "conv-44"}


def dialogue(*texts: str) -> Dialogue:
    messages = tuple(Message("Ana", text, f"D1:{i}", datetime(2024, 1, 1)) for i, text in enumerate(texts, 1))
    return Dialogue(
        Conversation("made-up", ("Ana", "Ben"), (Session("session_1", messages),)),
        (Question("Which violin?", "the old one", 4, ("D1:2",)),),
    )


def test_the_turn_that_shares_words_with_the_question_comes_first() -> None:
    found = bm25_turns(load(SMALL)[0]).search(["Who paints?", "Where is the kayak?"], 2)
    assert found[0][0].id == "D2:3"
    assert {m.id for m in found[1]} == {"D1:3", "D2:2"}  # One of them only in the caption.


def test_top_turns_come_in_the_order_of_the_questions() -> None:
    found = top_turns(load(SMALL)[0], 3)
    assert len(found) == 10
    assert all(len(turns) == 3 for turns in found)
    assert found[3][0].id == "D2:2"


def test_ties_and_turns_without_a_shared_word_come_by_age() -> None:
    found = bm25_turns(dialogue("green", "violin", "red", "violin")).search(["violin", "zzz", "", "the"], 4)
    assert [[m.id for m in row] for row in found] == [
        ["D1:2", "D1:4", "D1:1", "D1:3"],
        *[["D1:1", "D1:2", "D1:3", "D1:4"]] * 3,
    ]


def test_dialogues_without_words_or_turns_are_searched_without_an_error() -> None:
    assert bm25_turns(dialogue()).search(["violin"], 5) == [[]]
    silent = Dialogue(Conversation("c", ("A", "I"), (Session("session_1", (Message("a", "the", "D1:1"),)),)), ())
    assert [m.id for m in bm25_turns(silent).search(["the"], 5)[0]] == ["D1:1"]
    assert top_turns(silent, 5) == []


def test_recall_is_the_share_of_evidence_found_and_skips_questions_without() -> None:
    first = load(SMALL)[0]
    values = evidence_recall_values([first], ks=(1, 8))
    assert len(values[1]["conv-26"]) == 7  # Ten questions, less two of category 5 and one without evidence.
    assert values[8]["conv-26"] == [1.0] * 7
    assert evidence_recall_at([first], ks=(8,)) == {8: 1.0}


def test_recall_never_falls_when_more_turns_are_read() -> None:
    found = evidence_recall_at(load(SMALL), ks=(1, 2, 3, 5, 8))
    assert list(found.values()) == sorted(found.values())


def test_no_evidence_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="no question"):
        evidence_recall_at([])


def test_a_missing_bm25s_is_told_with_what_to_type() -> None:
    code = (
        "import sys; sys.modules['bm25s'] = None\n"
        "from memorist.evaluation.baselines import TurnIndex\n"
        "try: TurnIndex(())\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'memorist[eval]'" in done.stdout


@pytest.mark.skipif(REAL is None, reason="real LoCoMo data: MEMORIST_DATA names no folder with locomo/")
def test_recall_on_the_first_six_real_dialogues_equals_the_prototypes() -> None:
    assert REAL is not None
    values = evidence_recall_values([d for d in load(REAL) if d.id in SIX])
    flat = {k: [x for recalls in by.values() for x in recalls] for k, by in values.items()}
    assert {k: len(v) for k, v in flat.items()} == {5: 883, 10: 883, 30: 883}
    means = {k: sum(v) / len(v) for k, v in flat.items()}
    assert means == pytest.approx({5: 0.439, 10: 0.515, 30: 0.638}, abs=0.01)
