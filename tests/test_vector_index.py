"""Big users: an index that is a snapshot, an exact rest, and nothing that a user could notice but the speed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banks import ANNA, AT, LATER, add
from memorist.memory import stored_vectors
from memorist.memory.record import Operation, Scope
from memorist.memory.sqlite import SQLiteBank
from memorist.memory.vector_index import SHORTLIST, open_index, write_index

BEN = Scope("ben")


@pytest.fixture(autouse=True)
def big(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_vectors, "BIG", 6)


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[SQLiteBank]:
    with SQLiteBank(tmp_path / "b.db") as opened:
        opened.apply([add(f"dog number {i}, and {i % 7} cats") for i in range(40)], ANNA, at=AT)
        yield opened


def files(bank: SQLiteBank) -> list[Path]:
    return sorted(bank.path.with_name("b.db.index").glob("*"))


def agrees(bank: SQLiteBank, scope: Scope = ANNA, query: str = "dog 7 cats", k: int = 12) -> bool:
    """With the exact search over everything in memory."""
    return bank.search(query, scope, k=k) == bank.fork().search(query, scope, k=k)


def test_it_is_made_when_it_is_needed_and_found_again(bank: SQLiteBank) -> None:
    assert files(bank) == []
    assert agrees(bank)
    (file,) = files(bank)
    made = file.stat().st_mtime_ns
    with SQLiteBank(bank.path) as other:
        assert agrees(other)
    assert file.stat().st_mtime_ns == made
    bank.apply([add("a dog")], BEN, at=AT)
    assert len(bank.search("dog", BEN)) == 1 and files(bank) == [file], "small users are searched exactly"


def test_what_came_later_is_there_at_once_and_what_is_gone_is_not(bank: SQLiteBank) -> None:
    assert agrees(bank)
    records = bank.list(ANNA)
    bank.apply([Operation("DELETE", id=records[7].id)], ANNA, at=LATER)
    bank.apply([Operation("UPDATE", "dog 7 cats", id=records[3].id), add("7 cats, dog")], ANNA, at=LATER)
    assert agrees(bank)
    assert bank.search("dog 7 cats", ANNA)[0].record.id == records[3].id
    with SQLiteBank(bank.path) as other:
        assert agrees(other)


def test_it_is_made_anew_when_much_is_new(bank: SQLiteBank) -> None:
    assert agrees(bank)
    made = files(bank)[0].stat().st_ino
    bank.apply([add(f"new dog {i}") for i in range(40)], ANNA, at=LATER)
    assert agrees(bank)
    assert files(bank)[0].stat().st_ino != made


@pytest.mark.parametrize("trouble", ["missing", "truncated", "empty", "junk", "another bank's"])
def test_an_index_in_trouble_is_made_anew(bank: SQLiteBank, tmp_path: Path, trouble: str) -> None:
    assert agrees(bank)
    (file,) = files(bank)
    whole = file.read_bytes()
    if trouble == "missing":
        shutil.rmtree(file.parent)
    elif trouble == "another bank's":
        with SQLiteBank(tmp_path / "c.db") as other:
            other.apply([add(f"bird {i}") for i in range(40)], ANNA, at=AT)
            other.search("bird", ANNA)
        shutil.copy(tmp_path / "c.db.index" / file.name, file)
    else:
        file.write_bytes({"truncated": whole[:-100], "empty": b"", "junk": b"\x00" * len(whole)}[trouble])
    with SQLiteBank(bank.path) as other:
        assert agrees(other)
    assert files(bank)[0].read_bytes() == whole


def test_where_no_index_can_be_written_the_search_is_exact(bank: SQLiteBank) -> None:
    bank.path.with_name("b.db.index").write_text("in the way")
    assert agrees(bank)
    with SQLiteBank(bank.path, read_only=True) as reader:
        assert agrees(reader)


def test_filters_and_parts_of_a_scope(bank: SQLiteBank) -> None:
    bank.apply([add(f"dog {i}", payload={"n": i}) for i in range(30)], Scope("anna", session="s"), at=LATER)
    assert agrees(bank)
    bank.apply([add("dog 99", payload={"n": 3})], Scope("anna", session="s"), at=LATER)
    assert agrees(bank, Scope("anna", session="s"), k=5)
    found = bank.find("dog", ANNA, mode="vector", where={"n": {"in": [3, 5]}}, k=9)
    assert sorted(hit.record.text for hit in found) == ["dog 3", "dog 5", "dog 99"]
    assert bank.find("dog", ANNA, mode="vector", where={"n": -1}) == []


def test_erased_vectors_are_wiped_in_place(bank: SQLiteBank) -> None:
    assert agrees(bank)
    record = bank.list(ANNA)[5]
    file = files(bank)[0]
    index = open_index(file)
    assert index is not None
    row = index.rows[5].copy()
    assert row.any() and row.tobytes() in file.read_bytes()
    inode = file.stat().st_ino
    with SQLiteBank(bank.path) as other:
        assert agrees(other)
        bank.erase(ANNA, ids=[record.id])
        assert row.tobytes() not in file.read_bytes() and file.stat().st_ino == inode
        assert not index.rows[5].any() and not index.codes[:, 5].any(), "those who have it mapped see it too"
        assert agrees(bank) and agrees(other)
        bank.apply([add("dog number 5, and 5 cats, again")], ANNA, at=LATER)
        assert agrees(bank) and agrees(other)
        bank.erase(ANNA)
        assert bank.search("dog", ANNA) == other.search("dog", ANNA) == []
        assert not any(np.asarray(one).any() for one in (index.rows, index.codes, index.scales))


def test_vectors_whose_eraser_was_killed_are_removed_by_the_next_who_settles(bank: SQLiteBank) -> None:
    assert agrees(bank)
    with bank._file.writing():
        bank._file.delete(ANNA, [bank.list(ANNA)[5].id])  # and no more: the index is as it was
    with SQLiteBank(bank.path) as other:  # who opens the file
        assert files(bank) == [] and other._file.pending() == []
    assert agrees(bank)
    with bank._file.writing():
        bank._file.delete(ANNA, [bank.list(ANNA)[5].id])
    bank.erase(BEN)  # and who has it open, and erases something else
    assert files(bank) == [] and bank._file.pending() == []


def test_equal_vectors_come_by_age(bank: SQLiteBank) -> None:
    bank.apply([add("the same")] * 20, ANNA, at=LATER)
    bank.search("x", ANNA)
    bank.apply([add("the same")] * 3, ANNA, at=LATER)
    hits = bank.search("the same", ANNA, k=22)
    assert [hit.record.id for hit in hits] == [r.id for r in bank.list(ANNA) if r.text == "the same"][:22]


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "update", "delete", "erase"]), st.sampled_from("abcdefgh"), st.integers(0, 30)
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CALLS, st.integers(1, 20))
def test_any_history_gives_what_the_exact_search_gives(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, str, int]], k: int
) -> None:
    path = tmp_path_factory.mktemp("bank") / "b.db"
    with SQLiteBank(path) as bank, SQLiteBank(path) as other:
        bank.apply([add(f"{i} dog") for i in range(8)], ANNA, at=AT)
        for number, (kind, word, which) in enumerate(calls):
            at = datetime(2023, 1, 1) + timedelta(days=number)
            records = bank.list(ANNA)
            if kind == "add" or not records:
                bank.apply([add(f"{word} dog"), add(f"{word} cat")], ANNA if which % 5 else BEN, at=at)
            elif kind == "erase":
                bank.erase(ANNA, ids=[records[which % len(records)].id])
            else:
                bank.apply([Operation(kind.upper(), f"{word} bird", id=records[which % len(records)].id)], ANNA, at=at)
            for one in (bank, other):
                assert one.search("a dog", ANNA, k=k) == one.fork().search("a dog", ANNA, k=k)


def test_the_nearest_of_many_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, 64))
    vectors = (centres[rng.integers(0, 50, 30_000)] + rng.normal(size=(30_000, 64))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = np.arange(len(vectors))
    parts = np.array_split(numbers, 4)
    index = write_index(tmp_path / "i", dict, len(vectors), 64, ((part, part, vectors[part]) for part in parts))
    assert index is not None
    dead = np.zeros(len(vectors), np.bool_)
    found = []
    for query in vectors[:100] + 0.3 * vectors[100:200]:
        query = query / np.linalg.norm(query)
        best = set(np.argsort(-(vectors @ query))[:10].tolist())
        found.append(len(best & set(index.shortlist(query, 10, dead, None).tolist())) / 10)
    assert np.mean(found) >= 0.98
    dead[:SHORTLIST] = True
    assert (index.shortlist(vectors[5], 10, dead, None) >= SHORTLIST).all()
    assert set(index.shortlist(vectors[5], 10, dead, np.arange(500, 1500)).tolist()) <= set(range(1000, 1500))
