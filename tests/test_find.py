"""Search in a durable bank: by words, by vector, by both; what it shows and what it must not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banks import ANNA, AT, DURABLE, LATER, SCOPES, add, reopened
from memorist.errors import ScopeError
from memorist.memory import stored_search, stored_vectors, words
from memorist.memory.bank import Hit
from memorist.memory.fusion import fuse
from memorist.memory.record import MemoryRecord, Operation, Scope
from memorist.memory.sqlite import SQLiteBank
from memorist.memory.stored import StoredBank
from memorist.memory.stored_words import WordIndex

BEN = Scope("ben")


@pytest.fixture(params=DURABLE)
def bank(request: pytest.FixtureRequest) -> Iterator[StoredBank]:
    with ExitStack() as stack:
        yield DURABLE[request.param](stack)


def said(hits: list[Hit]) -> list[str]:
    return [hit.record.text for hit in hits]


def filled(bank: StoredBank, *texts: str, scope: Scope = ANNA) -> list[MemoryRecord]:
    return [r.record for r in bank.apply([add(text) for text in texts], scope, at=AT) if r.record is not None]


@pytest.mark.parametrize("mode", ["lexical", "vector", "fused"])
class TestModes:
    def test_the_best_comes_first(self, bank: StoredBank, mode: str) -> None:
        filled(bank, "Anna lives in Paris", "Anna has a dog", "The dog of Anna is called Rex and barks")
        assert said(bank.find("What is the dog called?", ANNA, mode=mode))[0].startswith("The dog")

    def test_nobody_elses(self, bank: StoredBank, mode: str) -> None:
        filled(bank, "Ben has a dog", scope=BEN)
        assert bank.find("dog", ANNA, mode=mode) == []
        filled(bank, "Anna has a dog")
        assert said(bank.find("dog", ANNA, mode=mode)) == ["Anna has a dog"]

    def test_a_session_is_read_alone_and_a_user_as_a_whole(self, bank: StoredBank, mode: str) -> None:
        filled(bank, "one dog", scope=Scope("anna", session="1"))
        filled(bank, "two dogs", scope=Scope("anna", "butler", "2"))
        assert said(bank.find("dog", Scope("anna", session="1"), mode=mode)) == ["one dog"]
        assert said(bank.find("dog", Scope("anna", "butler"), mode=mode)) == ["two dogs"]
        assert len(bank.find("dog", ANNA, mode=mode)) == 2
        assert bank.find("dog", Scope("anna", session="3"), mode=mode) == []

    def test_what_was_replaced_is_not_found_and_is_as_of_then(self, bank: StoredBank, mode: str) -> None:
        (record,) = filled(bank, "The dog is called Rex")
        bank.apply([Operation("UPDATE", "The dog is called Bello", id=record.id)], ANNA, at=LATER)
        assert said(bank.find("Rex dog", ANNA, mode=mode)) == ["The dog is called Bello"]
        assert said(bank.find("Bello dog", ANNA, mode=mode, as_of=1)) == ["The dog is called Rex"]
        bank.apply([Operation("DELETE", id=record.id)], ANNA, at=LATER)
        assert bank.find("dog", ANNA, mode=mode) == []
        assert said(bank.find("dog", ANNA, mode=mode, as_of=2)) == ["The dog is called Bello"]

    def test_what_held_at_a_time_whenever_it_was_written(self, bank: StoredBank, mode: str) -> None:
        day = [datetime(2023, 1, 1) + timedelta(days=n) for n in range(6)]
        (record,) = [r.record for r in bank.apply([add("The dog is called Rex")], ANNA, at=day[1])]
        assert record is not None
        bank.apply([Operation("UPDATE", "The dog is called Bello", id=record.id)], ANNA, at=day[3])
        bank.apply([add("The dog came from Spain", at=day[0])], ANNA, at=day[5])  # told later
        bank.apply([Operation("DELETE", id=record.id)], ANNA, at=day[5])

        def at(time: datetime) -> set[str]:
            return {text.split()[-1] for text in said(bank.find("dog", ANNA, mode=mode, as_of=time))}

        assert at(day[0] - timedelta(seconds=1)) == set()
        assert at(day[0]) == {"Spain"}
        assert at(day[1]) == at(day[2]) == {"Spain", "Rex"}
        assert at(day[3]) == at(day[4]) == {"Spain", "Bello"}
        assert at(day[5]) == {"Spain"}

    def test_the_dead_take_no_places(self, bank: StoredBank, mode: str) -> None:
        old = filled(bank, *(f"dog number {i}" for i in range(300)))
        filled(bank, "a dog at last, among many other animals that were once here and are not any more")
        bank.apply([Operation("DELETE", id=record.id) for record in old], ANNA, at=LATER)
        assert len(bank.find("dog number", ANNA, k=3, mode=mode)) == 1

    def test_what_has_expired_is_hidden_to_the_second(self, bank: StoredBank, mode: str) -> None:
        filled(bank, "the dog stays")
        bank.apply([add("the dog is here until then", expires=LATER)], ANNA, at=AT)
        assert len(bank.find("dog", ANNA, mode=mode)) == 2
        assert len(bank.find("dog", ANNA, mode=mode, now=LATER - timedelta(seconds=1))) == 2
        assert said(bank.find("dog", ANNA, mode=mode, now=LATER)) == ["the dog stays"]

    def test_equals_come_by_age(self, bank: StoredBank, mode: str) -> None:
        ids = [record.id for record in filled(bank, *["the same dog"] * 5)]
        assert [hit.record.id for hit in bank.find("dog", ANNA, mode=mode, k=3)] == ids[:3]

    def test_what_is_new_counts_more_where_asked(self, bank: StoredBank, mode: str) -> None:
        bank.apply([add("Anna lives in Paris")], ANNA, at=AT)
        bank.apply([add("Anna lives in Rome")], ANNA, at=LATER)
        hits = bank.find("where Anna lives", ANNA, mode=mode, now=LATER, half_life=timedelta(days=1))
        assert said(hits) == ["Anna lives in Rome", "Anna lives in Paris"]
        assert hits[0].parts["recency"] == 1

    def test_a_question_without_words(self, bank: StoredBank, mode: str) -> None:
        filled(bank, "a dog", "a cat")
        assert len(bank.find("?!", ANNA, mode=mode)) == (0 if mode == "lexical" else 2)  # all are equally near
        assert bank.find("dog", ANNA, mode=mode, k=0) == []

    def test_erased_is_erased(self, bank: StoredBank, mode: str) -> None:
        one, _two = filled(bank, "a dog called Xanthippus", "a dog called Rex")
        bank.find("dog", ANNA, mode=mode)
        assert bank.erase(ANNA, ids=[one.id]) == 1
        assert said(bank.find("Xanthippus dog", ANNA, mode=mode)) == ["a dog called Rex"]
        assert bank.history(one.id, ANNA) == []
        if isinstance(bank, SQLiteBank):
            assert not any(b"anthippus" in file.read_bytes() for file in bank.path.parent.iterdir())
        assert bank.erase(BEN, ids=[_two.id]) == 0
        assert bank.erase(ANNA) == 1
        assert bank.find("dog", ANNA, mode=mode) == []


def test_words_of_any_language_are_found(bank: StoredBank) -> None:
    filled(bank, "她住在北京市", "Она живёт в Москве", "Elle habite à Zürich", "彼は東京に住んでいます")
    for query, start in (("北京", "她"), ("москве", "Она"), ("zurich", "Elle"), ("東京", "彼")):
        assert said(bank.find(query, ANNA, mode="lexical"))[0].startswith(start)


def test_the_parts_of_a_score(bank: StoredBank) -> None:
    filled(bank, "Anna has a dog", "Anna has a cat")
    first, second = bank.find("the dog of Anna", ANNA)  # both words are in more than half of all texts, and count
    assert first.score == pytest.approx(1.0)
    assert {"vector", "lexical"} == first.parts.keys()
    assert first.parts["lexical"] > second.parts["lexical"] > 0


def test_a_vector_is_searched_by_vector(bank: StoredBank) -> None:
    filled(bank, "Anna has a dog", "Anna has a cat")
    vector = bank.embedder.embed(["a cat"])[0]
    assert said(bank.find(vector, ANNA, mode="vector"))[0] == "Anna has a cat"
    assert said(bank.find("dog", ANNA, mode="vector", vector=vector))[0] == "Anna has a cat"
    with pytest.raises(ValueError, match="needs a text"):
        bank.find(vector, ANNA)
    with pytest.raises(ValueError, match="shape"):
        bank.find("dog", ANNA, vector=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"mode is 'vectr'; did you mean 'vector'\?"):
        bank.find("dog", ANNA, mode="vectr")
    with pytest.raises(ScopeError):
        bank.find("dog", "anna")  # type: ignore[arg-type]


def test_another_process_s_commits_are_found(tmp_path: Path) -> None:
    with SQLiteBank(tmp_path / "b.db") as one, SQLiteBank(tmp_path / "b.db") as two:
        (record,) = filled(one, "a dog")
        assert said(two.find("dog", ANNA)) == ["a dog"]
        one.apply([Operation("UPDATE", "a dog and a cat", id=record.id), add("a dogfish")], ANNA, at=LATER)
        assert set(said(two.find("dog", ANNA))) == {"a dog and a cat", "a dogfish"}
        one.erase(ANNA)
        assert two.find("dog", ANNA) == []


def test_an_index_of_older_words_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SQLiteBank(tmp_path / "b.db") as bank:
        filled(bank, "Elle habite à Zürich")
    monkeypatch.setattr(stored_search, "VERSION", words.VERSION + 1)
    monkeypatch.setattr(stored_search, "words", lambda text: ["other"])
    with SQLiteBank(tmp_path / "b.db") as bank, bank._file.reading() as db:
        assert WordIndex().search(db, 1, ["other"], 5, None, 1)
        assert not WordIndex().search(db, 1, ["zurich"], 5, None, 1)


def bm25(texts: list[str], query: list[str]) -> list[float]:
    """Ten lines that say what the table of words must give."""
    said = [words.words(text) for text in texts]
    mean = sum(map(len, said)) / len(said)
    scores = [0.0] * len(texts)
    for word in set(query):
        having = sum(word in one for one in said)
        weight = math.log(1 + (len(said) - having + 0.5) / (having + 0.5))
        for i, one in enumerate(said):
            count = one.count(word)
            scores[i] += weight * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(one) / mean))
    return scores


TEXTS = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9).map(" ".join), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(
    TEXTS,
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True),
    st.integers(1, 8),
    st.sampled_from([1, 10, 1000]),
)
def test_the_best_by_words_are_those_of_bm25(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], query: list[str], limit: int, kept: int
) -> None:
    with SQLiteBank(tmp_path_factory.mktemp("bank") / "b.db") as bank:
        filled(bank, "a b c a b c", scope=BEN)  # counts for nothing
        filled(bank, *texts)
        with bank._file.reading() as db:
            index = WordIndex(kept=kept)
            assert index.search(db, 2, query, limit, None, 2) == (found := index.search(db, 2, query, limit, None, 2))
        scores = bm25(texts, query)
        order = sorted((i for i, score in enumerate(scores) if score), key=lambda i: (-round(scores[i], 9), i))
        assert [score for _, score in found] == pytest.approx([scores[i] for i in order[:limit]])
        assert [version - 2 for version, _ in found] == order[:limit]


class TestFusion:
    def records(self, count: int) -> dict[int, MemoryRecord]:
        return {i: MemoryRecord(f"m{i}", ANNA, "", AT, AT) for i in range(count)}

    def test_scores_are_combined_by_where_they_lie_between_the_least_possible_and_the_most_found(self) -> None:
        scores = {"lexical": {0: 4.0, 1: 2.0, 2: 0.0}, "vector": {0: 0.0, 1: 0.6, 2: -1.0}}
        hits = fuse(scores, self.records(3))
        assert [hit.record.id for hit in hits] == ["m1", "m0", "m2"]
        assert [hit.score for hit in hits] == pytest.approx([0.2 * 0.5 + 0.8, 0.2 + 0.8 / 1.6, 0.0])
        assert hits[0].parts == {"lexical": 2.0, "vector": 0.6}

    def test_what_is_not_shown_counts_for_nothing(self) -> None:
        records = self.records(3)
        del records[0]
        scores = {"lexical": {0: 9.0, 1: 3.0, 2: 0.0}, "vector": {0: 1.0, 1: 0.0, 2: 0.0}}
        assert [hit.score for hit in fuse(scores, records)] == pytest.approx([0.2 + 0.8, 0.8])

    def test_where_no_word_is_shared_meaning_decides(self) -> None:
        scores = {"lexical": {0: 0.0, 1: 0.0}, "vector": {0: 0.1, 1: 0.2}}
        assert [hit.record.id for hit in fuse(scores, self.records(2))] == ["m1", "m0"]

    def test_one_kind_keeps_its_scores(self) -> None:
        assert [h.score for h in fuse({"vector": {0: 9.0, 1: 8.0}}, self.records(2))] == [9.0, 8.0]

    @pytest.mark.parametrize("big", [False, True])
    def test_what_one_kind_found_has_its_score_of_the_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, big: bool
    ) -> None:
        if big:
            monkeypatch.setattr(stored_vectors, "BIG", 50)
        with SQLiteBank(tmp_path / "bank.db") as bank:
            filled(bank, *(f"number {i} lives in {'Paris' if i % 7 == 0 else 'Rome'}" for i in range(200)))
            by_kind = {
                mode: {hit.record.id: hit.score for hit in bank.find("who lives in Paris", ANNA, k=200, mode=mode)}
                for mode in ("lexical", "vector")
            }
            hits = bank.find("who lives in Paris", ANNA, k=10)
            assert len(hits) == 10
            for hit in hits:
                assert hit.parts["lexical"] == pytest.approx(by_kind["lexical"].get(hit.record.id, 0.0))
                if not big:
                    assert hit.parts["vector"] == pytest.approx(by_kind["vector"][hit.record.id])


NAMES = st.sampled_from(["dog", "cat", "Paris", "Rome", "日本", "é"])
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "update", "delete", "erase"]),
        st.sampled_from(SCOPES),
        st.lists(NAMES, min_size=1, max_size=3).map(" ".join),
        st.integers(0, 5),
    ),
    max_size=14,
)


@pytest.mark.parametrize("kind", DURABLE)
@settings(max_examples=60, deadline=None)
@given(calls=CALLS, scope=st.sampled_from(SCOPES), query=NAMES, mode=st.sampled_from(["lexical", "vector", "fused"]))
def test_search_shows_live_records_of_its_scope_and_all_that_share_a_word(
    kind: str,
    calls: list[tuple[str, Scope, str, int]],
    scope: Scope,
    query: str,
    mode: str,
) -> None:
    with ExitStack() as stack:
        bank = DURABLE[kind](stack)
        for number, (what, where, text, which) in enumerate(calls):
            at = datetime(2023, 1, 1) + timedelta(days=number)
            records = bank.list(where)
            if what == "erase":
                bank.erase(where)
            elif what == "add" or not records:
                bank.apply([add(text)], where, at=at)
            else:
                bank.apply([Operation(what.upper(), text, id=records[which % len(records)].id)], where, at=at)
            bank.find(query, where, mode=mode)  # what is kept in memory must follow
        live = bank.list(scope)
        hits = bank.find(query, scope, k=100, mode=mode)
        ids = [hit.record.id for hit in hits]
        assert len(ids) == len(set(ids))
        sharing = {r.id for r in live if set(words.asked(query)) & set(words.words(r.text))}
        assert set(ids) == (sharing if mode == "lexical" else {r.id for r in live})
        assert all(hit.record in live for hit in hits)
        assert hits == bank.find(query, scope, k=100, mode=mode)
        with reopened(bank) as fresh:
            assert hits == fresh.find(query, scope, k=100, mode=mode)
        exact = bank.fork().search(query, scope, k=100)
        assert bank.search(query, scope, k=100) == exact
        commit = bank.commit
        assert [h.record.id for h in bank.find(query, scope, k=100, mode=mode, as_of=commit)] == ids
