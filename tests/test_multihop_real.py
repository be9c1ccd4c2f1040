"""The three public forms of multi-hop questions, over one corpus."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bm25s")

from memorist.errors import DataError
from memorist.tasks.corpus import Corpus
from memorist.tasks.multihop_real import read_multihop

HOTPOT = {
    "_id": "h", "question": "Q?", "answer": "yes", "supporting_facts": [["B", 0], ["A", 1]],
    "context": [["A", ["One.", " Two."]], ["B", ["Three."]], ["C", ["Four."]]],
}  # fmt: skip
MUSIQUE = {
    "id": "m", "question": "Q?", "answer": "Stanley", "answer_aliases": ["Stan"],
    "paragraphs": [
        {"idx": 0, "title": "A", "paragraph_text": "Not it.", "is_supporting": False},
        {"idx": 1, "title": "A", "paragraph_text": "It.", "is_supporting": True},
    ],
}  # fmt: skip


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_paragraphs_of_all_questions_are_one_corpus(tmp_path: Path) -> None:
    other = HOTPOT | {
        "_id": "o",
        "context": [["A", ["One.", " Two."]], ["D", ["Five."]]],
        "supporting_facts": [["D", 0]],
    }
    first, second = read_multihop(written(tmp_path / "h.jsonl", HOTPOT, other))
    assert first.corpus is second.corpus and isinstance(first.corpus, Corpus)
    assert [d.contents for d in first.corpus.documents] == ['"A"\nOne. Two.', '"B"\nThree.', '"C"\nFour.', '"D"\nFive.']
    assert (first.id, first.answers, first.support) == ("h/h", ("yes",), ("000000", "000001"))
    assert second.support == ("000003",)


def test_musique_tells_paragraphs_of_one_title_apart(tmp_path: Path) -> None:
    [task] = read_multihop(written(tmp_path / "m.jsonl", MUSIQUE))
    assert task.answers == ("Stanley", "Stan") and task.support == ("000001",)


@pytest.mark.parametrize("row", ["{", "[]", {"id": "x"}, HOTPOT | {"context": [["A"]]}, MUSIQUE | {"paragraphs": [{}]}])
def test_what_has_none_of_the_forms_is_named(tmp_path: Path, row: Any) -> None:
    with pytest.raises(DataError, match="line 2"):
        read_multihop(written(tmp_path / "x.jsonl", HOTPOT, row))
    with pytest.raises(DataError, match="does not exist"):
        read_multihop(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "count"), [("hotpotqa_dev100", 100), ("musique_dev100", 100), ("2wikimultihopqa_dev82", 82)]
)
def test_the_real_files(name: str, count: int) -> None:
    file = Path(os.environ.get("MEMORIST_DATA", "")) / "multihop" / f"{name}.jsonl"
    if not file.is_file():
        pytest.skip(f"needs MEMORIST_DATA with multihop/{name}.jsonl")
    tasks = read_multihop(file)
    assert len(tasks) == count and all(1 <= len(task.support) <= 4 for task in tasks)
