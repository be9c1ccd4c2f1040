"""What every memory bank shows of its commits, forks and snapshots, and how it searches; run over all kinds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import pytest

from banks import ANNA, AT, KINDS, LATER, MakeBank, add, codes, texts
from memorist.errors import BankError
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Code, MemoryRecord, Operation, Scope
from memorist.memory.scratch import ScratchBank


@pytest.fixture(params=KINDS)
def make_bank(request: pytest.FixtureRequest) -> Iterator[MakeBank]:
    with ExitStack() as stack:
        yield lambda **options: KINDS[request.param](stack, **options)


@pytest.fixture
def bank(make_bank: MakeBank) -> MemoryBank:
    return make_bank()


# Commits


@dataclass
class Past:
    """What a bank showed at each commit."""

    start: int
    shown: dict[int, list[MemoryRecord]] = field(default_factory=dict)


def live_a_little(bank: MemoryBank) -> Past:
    past = Past(bank.commit, {bank.commit: bank.list(ANNA)})
    for step in range(12):
        records = bank.list(ANNA)
        operations = [add(f"statement {step}")]
        if step % 3 == 1:
            operations.append(Operation("UPDATE", f"changed {step}", records[0].id))
        if step % 4 == 3:
            operations.append(Operation("DELETE", id=records[1].id))
        bank.apply(operations, ANNA, at=AT + timedelta(days=step))
        past.shown[bank.commit] = bank.list(ANNA)
    return past


def test_as_of_every_commit(bank: MemoryBank) -> None:
    past = live_a_little(bank)
    assert sorted(past.shown) == list(range(past.start, bank.commit + 1))
    for commit, records in past.shown.items():
        assert bank.list(ANNA, as_of=commit) == records
        hits = bank.search("statement 3", ANNA, k=99, as_of=commit)
        assert sorted(h.record.id for h in hits) == sorted(r.id for r in records)
        assert [bank.get(r.id, ANNA, as_of=commit) for r in records] == records
        assert bank.fork(commit).list(ANNA) == records
        assert bank.fork(commit).commit == bank.snapshot(commit).commit == commit
        assert list(bank.snapshot(commit).block("anna").records) == records


@pytest.mark.parametrize("commit", [-1, 10**30])
def test_a_commit_that_does_not_exist_is_named(bank: MemoryBank, commit: int) -> None:
    for call in (bank.fork, bank.snapshot, lambda c: bank.list(ANNA, as_of=c)):
        with pytest.raises(BankError, match="does not exist"):
            call(commit)


def test_changes_tell_the_whole_story(bank: MemoryBank) -> None:
    past = live_a_little(bank)
    state: dict[str, MemoryRecord] = {}
    for commit in range(past.start + 1, bank.commit + 1):
        for change in bank.changes(ANNA, after=past.start):
            if change.commit != commit:
                continue
            assert state.get(change.record_id) == change.before
            if change.after is None:
                del state[change.record_id]
            else:
                state[change.record_id] = change.after
        assert sorted(state) == sorted(r.id for r in past.shown[commit])
    assert bank.changes(ANNA, after=bank.commit) == []
    for record in bank.list(ANNA):
        assert bank.history(record.id, ANNA) == [c for c in bank.changes(ANNA) if c.record_id == record.id]


def test_a_fork_does_not_touch_the_bank_nor_the_bank_the_fork(bank: MemoryBank) -> None:
    bank.apply([add("one"), add("two")], ANNA, at=AT)
    first, second = (r.id for r in bank.list(ANNA))
    fork, sibling = bank.fork(), bank.fork()
    fork.apply([Operation("UPDATE", "uno", first), Operation("DELETE", id=second)], ANNA, at=AT)
    sibling.apply([add("three")], ANNA, at=AT)
    bank.apply([add("four"), Operation("UPDATE", "dos", second)], ANNA, at=AT)
    assert texts(fork.list(ANNA)) == ["uno"]
    assert texts(fork.fork().list(ANNA)) == ["uno"]
    assert texts(sibling.list(ANNA)) == ["one", "two", "three"]
    assert texts(bank.list(ANNA)) == ["one", "dos", "four"]
    assert len(fork.history(first, ANNA)) == 2
    assert fork.erase(ANNA) == 1
    assert texts(bank.list(ANNA)) == ["one", "dos", "four"]
    assert bank.history(first, ANNA)


def test_a_snapshot_stays_as_it_is(bank: MemoryBank) -> None:
    bank.apply([add("one", key="k"), add("two")], ANNA, at=AT)
    read, unread = bank.snapshot(), bank.snapshot()
    first, second = (r.id for r in bank.list(ANNA))
    before = (read.block("anna").records, read.get(first), read.history(first), read.changes(), read.users())
    bank.apply([Operation("DELETE", id=first), Operation("UPDATE", "dos", second)], ANNA, at=AT)
    bank.apply([add("three", key="k")], ANNA, at=AT)
    bank.apply([add("four")], Scope("ben"), at=AT)
    for snapshot in (read, unread):
        shown = (
            snapshot.block("anna").records,
            snapshot.get(first),
            snapshot.history(first),
            snapshot.changes(),
            snapshot.users(),
        )
        assert shown == before
        assert snapshot.find_key(ANNA, "k") == snapshot.get(first)
        assert len(snapshot.block("ben").records) == 0
        assert texts(ScratchBank(snapshot).list(ANNA)) == ["one", "two"]
        with pytest.raises(ValueError, match="read-only"):
            snapshot.block("anna").vectors[0, 0] = 1.0


def test_a_snapshot_that_was_read_survives_erasure(bank: MemoryBank) -> None:
    bank.apply([add("one", key="k")], ANNA, at=AT)
    snapshot = bank.snapshot()
    (record,) = snapshot.block("anna").records
    bank.erase(ANNA)
    assert snapshot.block("anna").records == (record,)
    assert snapshot.get(record.id) == snapshot.find_key(ANNA, "k") == record


def test_order_is_by_age_also_after_updates_and_across_forks(bank: MemoryBank) -> None:
    bank.apply([add("one"), add("two")], ANNA, at=AT)
    bank.apply([add("three")], ANNA, at=AT - timedelta(days=9))
    fork = bank.fork()
    fork.apply([add("four")], ANNA, at=AT)
    for record in reversed(fork.list(ANNA)):
        fork.apply([Operation("UPDATE", f"{record.text}!", record.id)], ANNA, at=LATER)
    for view in (fork, fork.fork(), ScratchBank(fork.snapshot())):
        assert texts(view.list(ANNA)) == ["one!", "two!", "three!", "four!"]
        assert texts(list(view.snapshot().block("anna").records)) == ["one!", "two!", "three!", "four!"]


def test_erase_takes_records_and_their_past_and_is_a_commit(bank: MemoryBank) -> None:
    gone, kept = Scope("anna", "x"), Scope("anna", "y")
    bank.apply([add("secret", key="k"), add("more")], gone, at=AT)
    bank.apply([add("harmless")], kept, at=AT)
    start = bank.commit
    mine = bank.list(gone)[0].id
    bank.apply([Operation("UPDATE", "new secret", mine)], gone, at=AT)
    assert bank.erase(gone) == 2
    assert bank.commit == start + 2
    assert bank.list(gone) == []
    assert bank.get(mine, gone) is None
    assert bank.history(mine, gone) == []
    assert bank.changes(gone) == []
    assert bank.search("secret", gone) == []
    assert bank.list(gone, as_of=start) == bank.list(gone, as_of=start + 1) == []
    assert texts(bank.list(kept, as_of=start)) == texts(bank.list(ANNA)) == ["harmless"]
    assert codes(bank.apply([Operation("UPDATE", "x", mine)], gone, at=AT)) == [Code.UNKNOWN_ID]
    bank.apply([add("afterwards", key="k")], gone, at=AT)
    assert texts(bank.list(gone)) == ["afterwards"]
    assert len(bank.changes(gone)) == 1
    assert bank.erase(Scope("nobody")) == 0


def test_export_reads_back(bank: MemoryBank) -> None:
    bank.apply([add("one", key="k", payload={"a": [1]}), add("two")], ANNA, at=AT, source=["D1:1"])
    assert [MemoryRecord.from_json(r) for r in bank.export(ANNA)] == bank.list(ANNA)


# Search


def test_search_finds_the_nearest_and_ties_go_by_age(bank: MemoryBank) -> None:
    bank.apply([add("Buddy is a dog"), add("same words"), add("Anna plays the piano")], ANNA, at=AT)
    bank.apply([add("same words"), add("same words")], ANNA, at=AT)
    hits = bank.search("the dog called Buddy", ANNA, k=1)
    assert hits[0].record.text == "Buddy is a dog"
    ids = [r.id for r in bank.list(ANNA) if r.text == "same words"]
    for _ in range(3):
        assert [h.record.id for h in bank.search("same words", ANNA, k=3)] == ids
    assert [h.score for h in bank.search("same words", ANNA, k=3)] == [pytest.approx(1)] * 3
    fork = bank.fork()
    fork.apply([add("same words"), Operation("DELETE", id=ids[1])], ANNA, at=AT)
    fork.apply([Operation("UPDATE", "same words", fork.list(ANNA)[0].id)], ANNA, at=AT)
    tied = [r.id for r in fork.list(ANNA) if r.text == "same words"]
    assert [h.record.id for h in fork.search("same words", ANNA, k=4)] == tied


def test_search_by_vector_is_cosine_and_checks_the_vector(bank: MemoryBank) -> None:
    bank.apply([add("one"), add("two")], ANNA, at=AT)
    vector = bank.embedder.embed(["one"])[0]
    assert bank.search(vector, ANNA) == bank.search("one", ANNA)
    scaled = bank.search(vector * 5, ANNA)
    assert [h.record for h in scaled] == [h.record for h in bank.search("one", ANNA)]
    assert [h.score for h in scaled] == pytest.approx([1, 0])
    assert all(-1 <= hit.score <= 1 for hit in bank.search(vector * 5, ANNA))
    with pytest.raises(ValueError, match="shape"):
        bank.search(vector[:-1], ANNA)
    with pytest.raises(ValueError, match="finite"):
        bank.search(np.full_like(vector, np.nan), ANNA)
    for k in (0, -1):
        assert bank.search("one", ANNA, k=k) == []
    assert len(bank.search("", ANNA, k=5)) == len(bank.search("\ud800", ANNA, k=5)) == 2


def test_a_bank_that_grows_big_forks_and_searches_the_same(bank: MemoryBank) -> None:
    for start in range(0, 900, 90):
        bank.apply([add(f"number {i}", key=f"k{i}") for i in range(start, start + 90)], ANNA, at=AT)
        bank.search("number 3", ANNA)
    records = bank.list(ANNA)
    fork = bank.fork()
    changes = [Operation("DELETE", id=r.id) for r in records[100:500]]
    changes += [Operation("UPDATE", f"now {r.text}", r.id) for r in records[500:]]
    middle = fork.commit
    fork.apply(changes, ANNA, at=AT)
    for view in (fork, fork.fork(), ScratchBank(fork.snapshot())):
        shown = view.list(ANNA)
        assert [r.id for r in shown] == [r.id for r in records[:100] + records[500:]]
        assert {h.record.id for h in view.search("number 3", ANNA, k=999)} == {r.id for r in shown}
        assert view.search("now number 777", ANNA, k=1)[0].record.text == "now number 777"
        assert view.snapshot().find_key(ANNA, "k200") is None
        assert view.snapshot().find_key(ANNA, "k700") == shown[300]
        assert view.snapshot().users().count("anna") == 1
    assert fork.list(ANNA, as_of=middle) == records == bank.list(ANNA)
    assert fork.erase(ANNA) == 500
    assert fork.list(ANNA) == []
