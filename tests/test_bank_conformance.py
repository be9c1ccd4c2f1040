"""What every memory bank does with operations, scopes and keys; run over all kinds of bank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banks import ANNA, AT, KINDS, LATER, SCOPES, MakeBank, add, codes, texts
from memorist.errors import ScopeError
from memorist.memory.bank import MemoryBank
from memorist.memory.record import MAX_TEXT, Code, Kind, Operation, Scope


@pytest.fixture(params=KINDS)
def make_bank(request: pytest.FixtureRequest) -> Iterator[MakeBank]:
    with ExitStack() as stack:
        yield lambda **options: KINDS[request.param](stack, **options)


@pytest.fixture
def bank(make_bank: MakeBank) -> MemoryBank:
    return make_bank()


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
        ("x" + " " * (MAX_TEXT - 2) + "y", "x" + " " * (MAX_TEXT - 2) + "y"),
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
