"""Search by words: the published vectors, and what odd corpora and queries give."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("bm25s")

from memorist.errors import DataError
from memorist.tasks.corpus import Corpus, Document

DOCUMENTS = [
    Document("d0", "Arvo Lind was born in Kestra"),
    Document("d1", "Kestra is a city in Noria"),
    Document("d2", "Noria has capital Velm"),
]


@pytest.mark.parametrize(
    ("query", "scores"),
    [
        ("Where was Arvo Lind born", {"d0": 3.8325}),
        ("country of Kestra", {"d0": 0.4591, "d1": 0.4591}),
        ("capital of Noria", {"d2": 1.5230, "d1": 0.4591}),
        ("capital of the country where Arvo Lind was born", {"d0": 3.8325, "d2": 1.0296}),
        ("Noria noria", {"d2": 2 * 0.4934, "d1": 2 * 0.4591}),  # a word counts each time that it is asked for
    ],
)
def test_vector_8_of_memsearcher(query: str, scores: dict[str, float]) -> None:
    found = Corpus(DOCUMENTS).search(query, 5)
    assert [one.document.id for one in found] == list(scores)
    assert {one.document.id: one.score for one in found} == pytest.approx(scores, abs=1e-4)


def test_ties_go_to_the_lesser_id_whatever_the_order() -> None:
    found = Corpus([Document(name, "same words") for name in ("c", "a", "b")]).search("words", 2)
    assert [one.document.id for one in found] == ["a", "b"]
    assert [one.document.contents for one in found] == ["same words", "same words"]


def test_odd_corpora() -> None:
    with pytest.raises(DataError, match="occurs twice"):
        Corpus([*DOCUMENTS, Document("d1", "again")])
    assert Corpus([]).search("x", 3) == Corpus([Document("e", " ")]).search("x", 3) == []
    mixed = Corpus([Document("e", ""), *DOCUMENTS])
    assert [one.document.id for one in mixed.search("Velm", 9)] == ["d2"]


@given(st.text(max_size=30), st.integers(-1, 5))
def test_any_query(query: str, k: int) -> None:
    found = Corpus(DOCUMENTS).search(query, k)
    assert len(found) <= max(0, k) and all(one.score > 0 for one in found)


def test_a_file_is_read_or_its_line_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": 1, "contents": "one"}\n{"id": "2", "contents": "two"}\n')
    assert list(Corpus.read(path).by_id) == ["1", "2"]
    path.write_text('{"id": 1, "contents": "one"}\n{"id": 2}\n')
    with pytest.raises(DataError, match="line 2"):
        Corpus.read(path)
    with pytest.raises(DataError, match="does not exist"):
        Corpus.read(tmp_path / "none")
