"""LongMemEval and MSC's questions as dialogues (arXiv 2410.10813; MSC-Self-Instruct of arXiv 2310.08560).

Written after descriptions of both files and tested on made-up rows of that form: **unverified on the real files**,
which no machine of ours has seen. Where a real row differs, the error says which line and field.

LongMemEval has a history for each question, so each item is a dialogue with one question; histories of its "oracle"
file are not in the order of time, and are put in it. A question that history does not answer (its id ends in "_abs")
stays in its type. MSC has five earlier sessions and one question.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from memorist.conversation import Conversation, Message, Session
from memorist.errors import DataError
from memorist.tasks.locomo import Category, Dialogue, Question
from memorist.tasks.public import read_rows

TYPES = {
    11: "single-session-user", 12: "single-session-preference", 13: "single-session-assistant", 14: "multi-session",
    15: "knowledge-update", 16: "temporal-reasoning",
}  # fmt: skip
"""LongMemEval's question types; Memory-R1 calls the third "open domain"."""
MSC_CATEGORY = 21
NAMES: dict[int, Category] = {
    **{number: Category(name, "Open Domain" if number == 13 else name) for number, name in TYPES.items()},
    MSC_CATEGORY: Category("deep memory retrieval", "deep memory retrieval"),
}
_NUMBERS = {name: number for number, name in TYPES.items()}
_DATE = "%Y/%m/%d (%a) %H:%M"


def load_longmemeval(file: str | Path) -> list[Dialogue]:
    """The items of a LongMemEval file, a JSON list.

    Raises:
        DataError: the file is not to be found, is no JSON, or an item has another form.
    """
    path = Path(file)
    if not path.exists():
        raise DataError(str(path), "-", "-", "does not exist; give the path of a LongMemEval JSON file")
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(str(path), "-", "-", f"is no JSON ({error})") from error
    if not isinstance(items, list):
        raise DataError(str(path), "-", "-", f"is a JSON {type(items).__name__}; expected a list of questions")
    found = []
    for number, item in enumerate(items):
        try:
            found.append(_longmemeval(item))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(str(path), f"item {number}", "-", f"{type(error).__name__} {error}") from error
    return found


def _longmemeval(item: Mapping[str, Any]) -> Dialogue:
    name, kind = str(item["question_id"]), str(item["question_type"])
    if kind not in _NUMBERS:
        raise ValueError(f"question_type is {kind!r}; expected one of {', '.join(_NUMBERS)}")
    rows = list(zip(item["haystack_session_ids"], item["haystack_dates"], item["haystack_sessions"], strict=True))
    rows.sort(key=lambda row: _time(row[1]))
    sessions, evidence = [], []
    for at, date, turns in rows:
        time, messages = _time(date), []
        for place, turn in enumerate(turns, 1):
            message = Message(str(turn["role"]), str(turn["content"]), f"{at}:{place}", time)
            messages.append(message)
            if turn.get("has_answer"):
                evidence.append(message.id)
        sessions.append(Session(str(at), tuple(messages), time))
    day = _time(item["question_date"])
    asked = f"{item['question']} (asked on {day.day} {day:%B %Y})"
    question = Question(asked, str(item["answer"]), _NUMBERS[kind], tuple(evidence))
    return Dialogue(Conversation(name, ("user", "assistant"), tuple(sessions)), (question,))


def _time(text: str) -> datetime:
    return datetime.strptime(str(text), _DATE)


def load_msc(file: str | Path) -> list[Dialogue]:
    """The rows of a file of MSC-Self-Instruct, a JSON object a line.

    Raises:
        DataError: the file is not to be found, or a row has another form.
    """
    rows = read_rows(file, "a row with previous_dialogs and self_instruct", lambda row: row)
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(_msc(f"msc-{number}", row))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(str(file), f"line {number}", "-", f"{type(error).__name__} {error}") from error
    return found


def _msc(name: str, row: Mapping[str, Any]) -> Dialogue:
    sessions = []
    for number, earlier in enumerate(row["previous_dialogs"], 1):
        # Who speaks is not in the rows: they take turns.
        messages = [
            Message(str(turn.get("id") or f"Speaker {1 + place % 2}"), str(turn["text"]), f"{number}:{place + 1}")
            for place, turn in enumerate(earlier["dialog"])
        ]
        sessions.append(Session(str(number), tuple(messages)))
    asked = row["self_instruct"]
    question = Question(str(asked["B"]), str(asked["A"]), MSC_CATEGORY, ())
    return Dialogue(Conversation(name, ("Speaker 1", "Speaker 2"), tuple(sessions)), (question,))
