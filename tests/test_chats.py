"""LongMemEval and MSC on made-up rows of their forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memorist.errors import DataError
from memorist.evaluation.protocols import CHATS_V1, Prediction
from memorist.tasks.chats import MSC_CATEGORY, load_longmemeval, load_msc

ITEM: dict[str, Any] = {
    "question_id": "q1_abs",
    "question_type": "knowledge-update",
    "question": "Where do I live?",
    "answer": 7,
    "question_date": "2023/06/01 (Thu) 10:00",
    "haystack_session_ids": ["s2", "s1"],
    "haystack_dates": ["2023/05/30 (Tue) 08:10", "2023/05/20 (Sat) 02:21"],
    "haystack_sessions": [
        [
            {"role": "user", "content": "I moved to York.", "has_answer": True},
            {"role": "assistant", "content": "Nice."},
        ],
        [{"role": "user", "content": "I live in Hull.", "has_answer": False}],
    ],
    "answer_session_ids": ["s2"],
}
ROW = {
    "previous_dialogs": [
        {"dialog": [{"text": "I have a dog."}, {"text": "Cool."}]},
        {"dialog": [{"text": "Hi.", "id": "Speaker 2"}]},
    ],
    "self_instruct": {"B": "What pet do I have?", "A": "a dog"},
}


def test_longmemeval_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    file = tmp_path / "lme.json"
    file.write_text(json.dumps([ITEM]))
    [dialogue] = load_longmemeval(file)
    assert dialogue.id == "q1_abs" and [s.id for s in dialogue.conversation.sessions] == ["s1", "s2"]
    assert [m.text for m in dialogue.conversation.messages()] == ["I live in Hull.", "I moved to York.", "Nice."]
    [question] = dialogue.questions
    assert question.text == "Where do I live? (asked on 1 June 2023)"
    assert (question.answer, question.category, question.evidence) == ("7", 15, ("s2:1",))


def test_msc_is_read(tmp_path: Path) -> None:
    file = tmp_path / "msc.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    [dialogue] = load_msc(file)
    assert [m.speaker for m in dialogue.conversation.messages()] == ["Speaker 1", "Speaker 2", "Speaker 2"]
    assert dialogue.questions[0].answer == "a dog" and dialogue.questions[0].category == MSC_CATEGORY


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question_type": "riddle"}, "riddle"),
        ({"haystack_dates": ["yesterday", "2023/05/20 (Sat) 02:21"]}, "yesterday"),
        ({"haystack_dates": []}, "item 0"),
        ({"question": None, "haystack_sessions": 3}, "item 0"),
    ],
)
def test_other_forms_are_refused_by_place(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = tmp_path / "lme.json"
    file.write_text(json.dumps([ITEM | change]))
    with pytest.raises(DataError, match=said):
        load_longmemeval(file)


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_longmemeval(tmp_path / "none")
    file = tmp_path / "x"
    file.write_text("{}")
    with pytest.raises(DataError, match="expected a list"):
        load_longmemeval(file)
    file.write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        load_longmemeval(file)
    file.write_text('{"previous_dialogs": [{"dialog": [{}]}]}')
    with pytest.raises(DataError, match="line 1"):
        load_msc(file)


def test_their_protocol_has_their_types() -> None:
    found = CHATS_V1.score([Prediction("q1", "?", 13, "York", "in York"), Prediction("q2", "?", 15, "7", "8")])
    assert found.categories[13].mem0_name == "Open Domain" and found.categories[15].means["em"].value == 0
    assert found.overall["f1"].value == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="category is 1"):
        CHATS_V1.score([Prediction("q1", "?", 1, "York", "in York")])
