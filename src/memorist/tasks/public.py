"""Rows of public question sets: HotpotQA, 2WikiMultihopQA and MuSiQue, in each one's own form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from memorist.errors import DataError

T = TypeVar("T")
Paragraph = tuple[str, str]
"""Title and text."""


@dataclass(frozen=True)
class PublicQuestion:
    """One question with its own paragraphs; `gold` are those that answer it."""

    id: str
    text: str
    answers: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]
    gold: frozenset[Paragraph]


def read_rows(file: str | Path, expected: str, read: Callable[[Any], T]) -> list[T]:
    """What `read` makes of each line's JSON.

    Args:
        expected: what the lines should be, for messages.

    Raises:
        DataError: the file is not to be found, or `read` finds that a line is something else.
    """
    path = Path(file)
    if not path.exists():
        raise DataError(str(path), "-", "-", f"does not exist; expected {expected}, one a line")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(read(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"{type(error).__name__} {error}; expected {expected}"
            raise DataError(str(path), f"line {number}", "-", problem) from error
    return found


def read_public(file: str | Path) -> list[PublicQuestion]:
    """The questions of a file in any of the three forms.

    Raises:
        DataError: the file is not to be found, or a row has none of the forms.
    """
    return read_rows(file, "a question of HotpotQA, 2WikiMultihopQA or MuSiQue", _question)


def _question(row: Mapping[str, Any]) -> PublicQuestion:
    if "paragraphs" in row:  # MuSiQue
        own = [(str(p["title"]), str(p["paragraph_text"]).strip()) for p in row["paragraphs"]]
        gold = {paragraph for paragraph, p in zip(own, row["paragraphs"], strict=True) if p["is_supporting"]}
    else:
        own = [(str(title), "".join(sentences).strip()) for title, sentences in row["context"]]
        titles = {title for title, _ in row["supporting_facts"]}
        gold = {paragraph for paragraph in own if paragraph[0] in titles}
    answers = (str(row["answer"]), *map(str, row.get("answer_aliases", ())))
    return PublicQuestion(str(row.get("_id") or row["id"]), str(row["question"]), answers, tuple(own), frozenset(gold))
