"""PersonaMem: questions with four options about what a person has told, each asked at a point of a long dialogue.

Written after a description of both files (arXiv 2504.14225 has the benchmark) and tested on made-up rows of that form:
**unverified on the real files**, which no machine of ours has seen. Where a real row differs, the error says which one.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorist.conversation import Message
from memorist.errors import DataError

TYPES = {
    "track_full_preference_evolution": "Pref-Evol", "recall_user_shared_facts": "Recall-User",
    "recalling_the_reasons_behind_previous_updates": "Recall-Reason", "suggest_new_ideas": "New-Ideas",
    "generalizing_to_new_scenarios": "Gen-New", "provide_preference_aligned_recommendations": "Pref-Rec",
    "recalling_facts_mentioned_by_the_user": "Recall-Facts",
}  # fmt: skip
"""Question types, with the short names of the paper's tables."""
LETTERS = "abcd"
_OPTION = re.compile(r"\(([a-d])\)", re.IGNORECASE)
_BARE = re.compile(r"\b([a-d])\b")
_LONGEST_LIST = 100_000


@dataclass(frozen=True, slots=True)
class PersonaQuestion:
    """One question. options: four texts, without their letters. answer: the right one's letter. context: which
    dialogue; end: how many of its messages come before the question."""

    id: str
    kind: str
    text: str
    options: tuple[str, ...]
    answer: str
    context: str
    end: int
    topic: str = ""

    @property
    def choices(self) -> tuple[str, ...]:
        """The options with their letters."""
        return tuple(f"({letter}) {text}" for letter, text in zip(LETTERS, self.options, strict=True))


Dialogues = Mapping[str, Sequence[Message]]


def load_personamem(questions: str | Path, contexts: str | Path) -> tuple[list[PersonaQuestion], Dialogues]:
    """The questions of a CSV file, and the dialogues of a JSON Lines file that they are asked in.

    Raises:
        DataError: a file is not to be found, a row has another form, or a question is of a dialogue that is not there
            or shorter.
    """
    dialogues = _dialogues(Path(contexts))
    path = Path(questions)
    if not path.exists():
        raise DataError(str(path), "-", "-", "does not exist; give the path of PersonaMem's questions, a CSV file")
    found = []
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                question = _question(row)
            except (KeyError, ValueError, TypeError, SyntaxError, RecursionError) as error:
                raise DataError(str(path), f"row {number}", "-", f"{type(error).__name__} {error}") from error
            there = len(dialogues.get(question.context, ()))
            if not 0 <= question.end <= there:
                problem = f"is asked after {question.end} messages of {question.context!r}, which has {there}"
                raise DataError(str(path), f"row {number}", "end_index_in_shared_context", problem)
            found.append(question)
    return found, dialogues


def _question(row: Mapping[str, Any]) -> PersonaQuestion:
    answer = _OPTION.fullmatch(str(row["correct_answer"]).strip())
    if answer is None:
        raise ValueError(f"correct_answer is {row['correct_answer']!r}; expected one of (a) to (d)")
    raw = str(row["all_options"])
    options = ast.literal_eval(raw) if len(raw) <= _LONGEST_LIST else None
    if not isinstance(options, list) or len(options) != len(LETTERS) or not all(isinstance(o, str) for o in options):
        raise ValueError("all_options is no list of four strings")
    texts = []
    for letter, option in zip(LETTERS, options, strict=True):
        if not option.lower().lstrip().startswith(f"({letter})"):
            raise ValueError(f"option {option[:20]!r} does not begin with ({letter})")
        texts.append(option.lstrip()[3:].strip())
    return PersonaQuestion(
        str(row["question_id"]), str(row["question_type"]), str(row["user_question_or_message"]), tuple(texts),
        answer[1].lower(), str(row["shared_context_id"]), int(row["end_index_in_shared_context"]),
        str(row.get("topic") or ""),
    )  # fmt: skip


def _dialogues(path: Path) -> dict[str, tuple[Message, ...]]:
    if not path.exists():
        raise DataError(str(path), "-", "-", "does not exist; give the path of PersonaMem's contexts, JSON Lines")
    found: dict[str, tuple[Message, ...]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            for name, messages in json.loads(line).items():
                found[str(name)] = tuple(
                    Message(str(m["role"]), str(m["content"]), f"{name}:{i}") for i, m in enumerate(messages)
                )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(str(path), f"line {number}", "-", f"{type(error).__name__} {error}") from error
    return found


def chosen(reply: str) -> str:
    """The letter that a reply gives, as the released scorer reads it, or "" where it gives none or several: what stands
    in brackets after the last <final_answer>, else the bare letters there, else the same of the whole reply."""
    _, marker, last = reply.rpartition("<final_answer>")
    for text in (last.partition("</final_answer>")[0] if marker else "", reply):
        letters = {found.lower() for found in _OPTION.findall(text)} or set(
            _BARE.findall(text.lower()) if marker else ()
        )
        if letters:
            return letters.pop() if len(letters) == 1 else ""
    return ""
