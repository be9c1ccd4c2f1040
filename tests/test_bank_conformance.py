"""What every memory bank does, run over all of them: SQLite, scratch, and scratch over either."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memorist.errors import BankError, ScopeError
from memorist.memory.bank import IdSource, MemoryBank, sequential_ids
from memorist.memory.embed import HashedEmbedder
from memorist.memory.record import MAX_TEXT, Code, Kind, MemoryRecord, Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.memory.sqlite import SQLiteBank

AT = datetime(2023, 5, 8, 13, 56)
LATER = datetime(2023, 6, 1)
ANNA = Scope("anna")

MakeBank = Callable[..., MemoryBank]


def sqlite_bank(stack: ExitStack, ids: IdSource = sequential_ids) -> SQLiteBank:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    return stack.enter_context(SQLiteBank(Path(folder) / "bank.db", ids=ids))


def scratch_bank(stack: ExitStack, ids: IdSource = sequential_ids) -> ScratchBank:
    return ScratchBank(ids=ids)


def used(bank: MemoryBank) -> MemoryBank:
    """The bank with a past: records of somebody else, and two that were deleted."""
    bank.apply([add("Not about Anna"), add("Nor this")], Scope("somebody"), at=AT)
    bank.apply([add("Anna was here"), add("and here")], ANNA, at=AT)
    bank.apply([Operation("DELETE", id=r.id) for r in bank.list(ANNA)], ANNA, at=AT)
    return bank


def over_sqlite(stack: ExitStack, ids: IdSource = sequential_ids) -> ScratchBank:
    return ScratchBank(used(sqlite_bank(stack)).fork().snapshot(), ids=ids)


def over_scratch(stack: ExitStack, ids: IdSource = sequential_ids) -> ScratchBank:
    return ScratchBank(used(ScratchBank()).snapshot(), ids=ids)


KINDS = {f.__name__: f for f in (sqlite_bank, scratch_bank, over_sqlite, over_scratch)}


@pytest.fixture(params=KINDS)
def make_bank(request: pytest.FixtureRequest) -> Iterator[MakeBank]:
    with ExitStack() as stack:
        yield lambda **options: KINDS[request.param](stack, **options)


@pytest.fixture
def bank(make_bank: MakeBank) -> MemoryBank:
    return make_bank()


def add(text: str, **more: object) -> Operation:
    return Operation("ADD", text, **more)  # type: ignore[arg-type]


def codes(results: Sequence[object]) -> list[Code]:
    return [result.code for result in results]  # type: ignore[attr-defined]


def texts(records: Sequence[MemoryRecord]) -> list[str]:
    return [record.text for record in records]


# Test vectors T6 (a) to (d) of the Memory-R1 specification, at the level of the bank.


@pytest.fixture
def buddy(make_bank: MakeBank) -> MemoryBank:
    names = iter(["m7", "m9"])
    bank = make_bank(ids=lambda commit, index: next(names, f"m{10 * commit + index}"))
    bank.apply([add("Andrew adopted a dog named Buddy")], ANNA, at=AT)
    bank.apply([add("Andrew enjoys walks with Buddy")], ANNA, at=AT)
    return bank


def test_t6a_update_replaces_the_text_and_keeps_the_old_one_in_the_history(buddy: MemoryBank) -> None:
    text = "Andrew adopted two dogs, Buddy and Scout"
    results = buddy.apply([Operation("UPDATE", text, "m7")], ANNA, at=LATER, source=["D2:1"])
    assert codes(results) == [Code.APPLIED]
    assert [(r.id, r.text) for r in buddy.list(ANNA)] == [
        ("m7", text),
        ("m9", "Andrew enjoys walks with Buddy"),
    ]
    old = [c for c in buddy.history("m7", ANNA) if c.before is not None]
    assert len(old) == 1
    assert old[0].before is not None
    assert old[0].before.text == "Andrew adopted a dog named Buddy"
    record = buddy.get("m7", ANNA)
    assert record is not None
    assert (record.created, record.updated, record.source) == (AT, LATER, ("D2:1",))


def test_t6b_delete_all_and_add_gives_one_record_with_a_new_id(buddy: MemoryBank) -> None:
    results = buddy.apply(
        [
            Operation("DELETE", id="m7"),
            Operation("DELETE", id="m9"),
            Operation("ADD", "Andrew adopted Scout", id="m7"),
        ],
        ANNA,
        at=LATER,
    )
    assert codes(results) == [Code.APPLIED] * 3
    (record,) = buddy.list(ANNA)
    assert record.id not in {"m7", "m9"}
    assert [r.record.text for r in results if r.record] == [
        "Andrew adopted a dog named Buddy",
        "Andrew enjoys walks with Buddy",
        "Andrew adopted Scout",
    ]


def test_t6c_an_unknown_id_is_refused_and_the_rest_applied(buddy: MemoryBank) -> None:
    results = buddy.apply([Operation("UPDATE", "x", "m5"), add("Andrew has a cat")], ANNA, at=LATER)
    assert codes(results) == [Code.UNKNOWN_ID, Code.APPLIED]
    assert len(buddy.list(ANNA)) == 3


def test_t6d_an_empty_text_is_refused(buddy: MemoryBank) -> None:
    before = buddy.commit
    assert codes(buddy.apply([add(""), add(" \n"), add("\0")], ANNA, at=LATER)) == [Code.EMPTY_TEXT] * 3
    assert buddy.commit == before


# Operations


def test_result_codes(bank: MemoryBank) -> None:
    start = bank.commit
    (first,) = bank.apply([add("one", key="k")], ANNA, at=AT)
    assert first.record is not None
    mine = first.record.id
    results = bank.apply(
        [
            Operation("NOOP"),
            Operation("MERGE", "x"),
            Operation("add", "x"),
            Operation("UPDATE", "one", mine),
            Operation("UPDATE", "one", "nope"),
            Operation("UPDATE", "one", None),
            Operation("UPDATE", "", mine),
            add("x" * (MAX_TEXT + 1)),
            add("two", key="k"),
            Operation("DELETE", id="\ud800\0"),
        ],
        ANNA,
        at=AT,
    )
    assert codes(results) == [
        Code.UNCHANGED,
        Code.UNKNOWN_KIND,
        Code.UNKNOWN_KIND,
        Code.UNCHANGED,
        Code.UNKNOWN_ID,
        Code.UNKNOWN_ID,
        Code.EMPTY_TEXT,
        Code.TOO_LONG,
        Code.DUPLICATE_KEY,
        Code.UNKNOWN_ID,
    ]
    assert results[8].record == first.record
    assert bank.commit == start + 1, "no commit when nothing changed"
    assert bank.apply([], ANNA, at=AT) == []
    assert bank.commit == start + 1


def test_each_operation_sees_those_before_it(bank: MemoryBank) -> None:
    (first,) = bank.apply([add("one")], ANNA, at=AT)
    assert first.record is not None
    mine = first.record.id
    results = bank.apply(
        [
            Operation("UPDATE", "one and a half", mine),
            Operation("DELETE", id=mine),
            Operation("UPDATE", "two", mine),
            Operation("DELETE", id=mine),
        ],
        ANNA,
        at=AT,
    )
    assert codes(results) == [Code.APPLIED, Code.APPLIED, Code.UNKNOWN_ID, Code.UNKNOWN_ID]
    assert bank.list(ANNA) == []
    history = bank.history(mine, ANNA)
    assert [c.kind for c in history] == [Kind.ADD, Kind.UPDATE, Kind.DELETE]
    assert history[2].before == history[1].after
    assert history[1].commit == history[2].commit == bank.commit


def test_an_id_deleted_in_an_earlier_commit_is_unknown_too(bank: MemoryBank) -> None:
    (first,) = bank.apply([add("one")], ANNA, at=AT)
    assert first.record is not None
    bank.apply([Operation("DELETE", id=first.record.id)], ANNA, at=AT)
    assert codes(bank.apply([Operation("UPDATE", "x", first.record.id)], ANNA, at=AT)) == [Code.UNKNOWN_ID]
    assert bank.get(first.record.id, ANNA) is None
    assert len(bank.history(first.record.id, ANNA)) == 2


def test_ids_are_fresh_after_deletion_and_erasure(bank: MemoryBank) -> None:
    seen = set()
    for step in range(6):
        (result,) = bank.apply([add(f"text {step}")], ANNA, at=AT)
        assert result.record is not None
        assert result.record.id not in seen
        seen.add(result.record.id)
        if step == 2:
            bank.apply([Operation("DELETE", id=result.record.id)], ANNA, at=AT)
        if step == 4:
            bank.erase(ANNA)


def test_an_id_source_that_repeats_itself_is_told_so(make_bank: MakeBank) -> None:
    bank = make_bank(ids=lambda commit, index: "same")
    bank.apply([add("one")], ANNA, at=AT)
    before = bank.commit
    with pytest.raises(ValueError, match="in use"):
        bank.apply([add("two"), add("three")], ANNA, at=AT)
    assert (bank.commit, texts(bank.list(ANNA))) == (before, ["one"])


def test_payload_is_kept_replaced_and_comes_back_as_plain_data(bank: MemoryBank) -> None:
    payload = {"when": (1, 2), "naïve": {"x": None, "y": [True, 0.5]}, "nul": "a\0b\ud800"}
    (first,) = bank.apply([add("one", payload=payload)], ANNA, at=AT)
    assert first.record is not None
    plain = {"when": [1, 2], "naïve": {"x": None, "y": [True, 0.5]}, "nul": "ab"}
    assert first.record.payload == plain
    mine = first.record.id
    bank.apply([Operation("UPDATE", "two", mine)], ANNA, at=AT)
    (stored,) = bank.list(ANNA)
    assert (stored.text, stored.payload) == ("two", plain)
    results = bank.apply([Operation("UPDATE", "two", mine, payload={"a": 1})], ANNA, at=AT)
    assert codes(results) == [Code.APPLIED]
    (stored,) = bank.list(ANNA)
    assert stored.payload == {"a": 1}
    assert texts([h.record for h in bank.search("two", ANNA)]) == ["two"]


@pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": object()}, {1: "a"}, ["a"], "a", {"a": 10**400}])
def test_a_payload_that_is_not_plain_data_is_refused(bank: MemoryBank, bad: object) -> None:
    assert codes(bank.apply([add("one", payload=bad), add("two")], ANNA, at=AT)) == [
        Code.MALFORMED,
        Code.APPLIED,
    ]


def test_a_payload_nested_ten_thousand_deep_is_refused(bank: MemoryBank) -> None:
    deep: dict[str, object] = {}
    for _ in range(10_000):
        deep = {"a": deep}
    assert codes(bank.apply([add("one", payload=deep)], ANNA, at=AT)) == [Code.MALFORMED]
    while deep:  # so that freeing it does not recurse
        deep = deep["a"]  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (Operation(["ADD"], "x"), Code.UNKNOWN_KIND),  # type: ignore[arg-type]
        (Operation("ADD", 7), Code.MALFORMED),  # type: ignore[arg-type]
        (Operation("DELETE", id=7), Code.MALFORMED),  # type: ignore[arg-type]
        (Operation("ADD", "x", key=["k"]), Code.MALFORMED),  # type: ignore[arg-type]
        (Operation("ADD", "x", reason=None), Code.MALFORMED),  # type: ignore[arg-type]
    ],
)
def test_parts_of_the_wrong_type_are_refused(bank: MemoryBank, bad: Operation, code: Code) -> None:
    assert codes(bank.apply([bad], ANNA, at=AT)) == [code]


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("a\0b", "ab"),
        ("a\ud800b\udfff", "ab"),
        ("日本語 🎉 e\u0301", "日本語 🎉 e\u0301"),
        ("'; DROP TABLE versions; --", "'; DROP TABLE versions; --"),
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
        (" kept as it is \r\n", " kept as it is \r\n"),
    ],
)
def test_hostile_texts(bank: MemoryBank, text: str, stored: str) -> None:
    (result,) = bank.apply([add(text, key=text, reason=text)], ANNA, at=AT, source=[text])
    assert result.operation.text == text, "the result carries the operation as it was given"
    (record,) = bank.list(ANNA)
    assert (record.text, record.key, record.source) == (stored, stored, (stored,))
    (change,) = bank.history(record.id, ANNA)
    assert change.reason == stored
    assert bank.search(text, ANNA)[0].record == record
    assert codes(bank.apply([add("other", key=text)], ANNA, at=AT)) == [Code.DUPLICATE_KEY]


def test_a_lone_string_as_source_is_one_id(bank: MemoryBank) -> None:
    bank.apply([add("one")], ANNA, at=AT, source="D1:2")
    assert bank.list(ANNA)[0].source == ("D1:2",)


# Scopes and keys


@pytest.mark.parametrize("scope", [None, "anna", ("anna", "", "")])
def test_every_call_needs_a_scope(bank: MemoryBank, scope: Scope) -> None:
    calls: list[Callable[[], object]] = [
        lambda: bank.apply([add("x")], scope, at=AT),
        lambda: bank.search("x", scope),
        lambda: bank.get("x", scope),
        lambda: bank.list(scope),
        lambda: bank.erase(scope),
        lambda: list(bank.export(scope)),
    ]
    for call in calls:
        with pytest.raises(ScopeError, match="Scope"):
            call()


@pytest.mark.parametrize("name", ["", "a\0", "\ud800"])
def test_a_scope_that_no_store_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ScopeError):
        Scope(name)


SCOPES = [Scope(u, a, s) for u in ("anna", "ben") for a in ("", "x", "y") for s in ("", "1", "2")]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    homes=st.lists(st.sampled_from(SCOPES), min_size=1, max_size=12),
    reader=st.sampled_from(SCOPES),
    writer=st.sampled_from(SCOPES),
    erased=st.sampled_from(SCOPES),
)
def test_no_scope_sees_or_touches_anothers_records(
    make_bank: MakeBank, homes: list[Scope], reader: Scope, writer: Scope, erased: Scope
) -> None:
    bank = make_bank()
    ids = {}
    for i, home in enumerate(homes):
        (result,) = bank.apply([add(f"statement {i}", key=f"k{i}")], home, at=AT)
        assert result.record is not None
        ids[result.record.id] = home
    seen = [i for i, home in ids.items() if reader.covers(home)]
    assert [r.id for r in bank.list(reader)] == seen
    assert {h.record.id for h in bank.search("statement", reader, k=99)} == set(seen)
    assert [i for i in ids if bank.get(i, reader)] == seen
    assert [i for i in ids if bank.history(i, reader)] == seen
    added = [c for c in bank.changes(reader) if c.record_id in ids]
    assert [c.record_id for c in added] == seen
    assert [r["id"] for r in bank.export(reader)] == seen
    for i, home in ids.items():
        expected = Code.APPLIED if writer.covers(home) else Code.UNKNOWN_ID
        assert codes(bank.apply([Operation("UPDATE", "changed", i)], writer, at=AT)) == [expected]
    assert bank.erase(erased) == sum(erased.covers(home) for home in homes)
    for scope in SCOPES:
        left = [i for i, home in ids.items() if scope.covers(home) and not erased.covers(home)]
        assert [r.id for r in bank.list(scope)] == left


def test_a_key_is_unique_in_its_scope_and_free_again_when_deleted(bank: MemoryBank) -> None:
    other = Scope("anna", "agent")
    (first,) = bank.apply([add("one", key="city")], ANNA, at=AT)
    assert first.record is not None
    assert codes(bank.apply([add("two", key="city")], other, at=AT)) == [Code.APPLIED]
    results = bank.apply(
        [
            add("three", key="city"),
            Operation("DELETE", id=first.record.id),
            add("four", key="city"),
            add("five", key="city"),
        ],
        ANNA,
        at=AT,
    )
    assert codes(results) == [Code.DUPLICATE_KEY, Code.APPLIED, Code.APPLIED, Code.DUPLICATE_KEY]
    snapshot = bank.snapshot()
    found, elsewhere = snapshot.find_key(ANNA, "city"), snapshot.find_key(other, "city")
    assert found is not None
    assert elsewhere is not None
    assert (found.text, elsewhere.text) == ("four", "two")
    bank.apply([Operation("UPDATE", "four again", found.id)], ANNA, at=AT)
    again = bank.snapshot().find_key(ANNA, "city")
    assert again is not None
    assert again.text == "four again"
    assert bank.snapshot().find_key(ANNA, "\ud800") is None
    bank.erase(ANNA)
    assert bank.snapshot().find_key(other, "city") is None
    assert codes(bank.apply([add("six", key="city")], ANNA, at=AT)) == [Code.APPLIED]


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
    with pytest.raises(BankError, match="snapshot"):
        read.apply([add("x")], ANNA, at=AT)  # type: ignore[attr-defined]


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
    assert bank.search(vector * 5, ANNA) == bank.search("one", ANNA) == bank.search(vector, ANNA)
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


class Failing(HashedEmbedder):
    """An embedder that can be told to fail, or to give another shape than it promises."""

    trouble = ""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if self.trouble == "raise":
            raise ConnectionError("no answer")
        vectors = super().embed(texts)
        return vectors[:, :-1] if self.trouble == "shape" else vectors


@pytest.mark.parametrize("durable", [True, False])
def test_an_embedder_that_fails_leaves_the_bank_as_it_was(tmp_path: Path, durable: bool) -> None:
    embedder = Failing()
    bank: MemoryBank = (
        SQLiteBank(tmp_path / "b.db", embedder=embedder) if durable else ScratchBank(embedder=embedder)
    )
    bank.apply([add("one")], ANNA, at=AT)
    for trouble, error in (("raise", ConnectionError), ("shape", BankError)):
        embedder.trouble = trouble
        with pytest.raises(error):
            bank.apply([add("two"), add("three")], ANNA, at=AT)
        assert (bank.commit, texts(bank.list(ANNA))) == (1, ["one"])
    embedder.trouble = ""
    bank.apply([add("four")], ANNA, at=AT)
    assert texts(bank.list(ANNA)) == ["one", "four"]
    if isinstance(bank, SQLiteBank):
        bank.close()


# Agreement: any sequence of calls gives the same everywhere.

WORDS = ["dog", "Buddy", "piano", "Paris", "same", "\0", "\ud800", "日本"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
OPERATIONS = st.builds(
    Operation,
    st.sampled_from(["ADD", "ADD", "ADD", "UPDATE", "UPDATE", "DELETE", "NOOP", "JUNK"]),
    TEXTS,
    st.integers(-1, 8).map(str),
    st.sampled_from([None, None, "k1", "k2\0"]),
    st.sampled_from([None, None, {"a": 1}, {"b": [1, "x"]}, {"c": float("inf")}]),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["apply"] * 8 + ["erase", "fork"]),
        st.sampled_from(SCOPES[:4] + SCOPES[9:11]),
        st.lists(OPERATIONS, max_size=4),
    ),
    max_size=14,
)


def pointed(operation: Operation, records: Sequence[MemoryRecord]) -> Operation:
    """The operation with its small number replaced by the id of that record, as an agent does it."""
    number = int(operation.id or 0)
    real = records[number].id if 0 <= number < len(records) else f"none-{number}"
    return Operation(operation.kind, operation.text, real, operation.key, operation.payload)


def view(bank: MemoryBank, pasts: Sequence[int]) -> list[object]:
    """Everything that a bank shows."""
    shown: list[object] = [bank.commit]
    for scope in (Scope("anna"), Scope("anna", "x"), Scope("ben")):
        shown += [bank.list(scope), bank.changes(scope), list(bank.export(scope))]
        for query in ("dog Buddy", "same", "?"):
            shown.append(bank.search(query, scope, k=3))
        for past in pasts:
            shown.append((bank.list(scope, as_of=past), bank.search("Paris", scope, k=4, as_of=past)))
    return shown


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_sqlite_and_scratch_agree_on_any_sequence(
    steps: list[tuple[str, Scope, list[Operation]]],
) -> None:
    with ExitStack() as stack:
        durable = sqlite_bank(stack)
        banks: list[MemoryBank] = [durable, ScratchBank(), ScratchBank(ScratchBank())]
        oldest = 0
        for at, (what, scope, operations) in enumerate(steps):
            if what == "erase":
                assert len({bank.erase(scope) for bank in banks}) == 1
            elif what == "fork":
                # The durable bank goes on, the others are replaced by overlays of it and of themselves.
                banks = [durable, durable.fork(), ScratchBank(banks[1].snapshot())]
                oldest = durable.commit
            else:
                known = durable.list(Scope(scope.user))
                given = [pointed(operation, known) for operation in operations]
                results = [bank.apply(given, scope, at=AT + timedelta(at)) for bank in banks]
                assert results[0] == results[1] == results[2]
            pasts = range(oldest, durable.commit + 1)[-3:]
            first, second, third = (view(bank, pasts) for bank in banks)
            assert first == second == third
        reopened = stack.enter_context(SQLiteBank(durable.path))
        assert view(reopened, range(durable.commit + 1)) == view(durable, range(durable.commit + 1))
