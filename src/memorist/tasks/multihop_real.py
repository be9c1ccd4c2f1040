"""Questions of HotpotQA, 2WikiMultihopQA and MuSiQue, each over the paragraphs of its whole file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memorist.errors import DataError
from memorist.tasks.corpus import Corpus, Document
from memorist.tasks.searching import SearchTask

Paragraph = tuple[str, str]
"""Title and text."""


def read_multihop(file: str | Path) -> list[SearchTask]:
    """The questions of a file in any of the three forms, one a line, over one corpus of all its paragraphs.

    Raises:
        DataError: the file is not to be found, or a row has none of the forms.
    """
    path = Path(file)
    if not path.exists():
        raise DataError(
            str(path), "-", "-", "does not exist; expected HotpotQA, 2WikiMultihopQA or MuSiQue, one a line"
        )
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            name = str(row.get("_id") or row["id"])
            answers = (str(row["answer"]), *map(str, row.get("answer_aliases", ())))
            rows.append((name, str(row["question"]), answers, *_paragraphs(row)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"is of none of the three forms: {type(error).__name__} {error}"
            raise DataError(str(path), f"line {number}", "-", problem) from error
    known = {paragraph: f"{i:06d}" for i, paragraph in enumerate(dict.fromkeys(p for row in rows for p in row[3]))}
    corpus = Corpus(Document(name, f'"{title}"\n{text}') for (title, text), name in known.items())
    return [
        SearchTask(f"{path.stem}/{name}", question, answers, corpus, tuple(sorted(known[p] for p in gold)))
        for name, question, answers, _, gold in rows
    ]


def _paragraphs(row: Mapping[str, Any]) -> tuple[list[Paragraph], set[Paragraph]]:
    """All of a question's own paragraphs, and those that answer it."""
    if "paragraphs" in row:  # MuSiQue
        found = [(str(p["title"]), str(p["paragraph_text"]).strip()) for p in row["paragraphs"]]
        gold = [bool(p["is_supporting"]) for p in row["paragraphs"]]
        return found, {paragraph for paragraph, is_gold in zip(found, gold, strict=True) if is_gold}
    found = [(str(title), "".join(sentences).strip()) for title, sentences in row["context"]]
    titles = {title for title, _ in row["supporting_facts"]}
    return found, {paragraph for paragraph in found if paragraph[0] in titles}
