"""Filters: what they mean, that a bank's table agrees, and what is said of one that is wrong."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banks import AT, DURABLE, LATER
from memorist.errors import FilterError
from memorist.memory.filters import OPERATORS, facets, read_filter
from memorist.memory.record import MemoryRecord, Operation, Scope

ANNA = Scope("anna", "butler", "s1")
RECORD = MemoryRecord(
    "m1", ANNA, "Anna likes curry", AT, LATER, key="taste", source=("d1", "d2"),
    payload={"topic": "food", "price": 12, "tags": ["hot", "thai"], "at": {"city": "Paris"}, "sold": True, "by": None},
)  # fmt: skip


def met(where: dict[str, Any]) -> bool:
    found = read_filter(where)
    return found is None or found.met(list(facets(RECORD)))


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"topic": "food"},
        {"topic": {"eq": "food"}},
        {"topic": {"ne": "sport"}},
        {"price": 12.0},
        {"price": {"gte": 12, "lt": 13}},
        {"price": {"gt": 11.5, "lte": 12}},
        {"topic": {"gte": "a"}},
        {"topic": {"in": ["sport", "food"]}},
        {"topic": {"not_in": ["sport"]}},
        {"colour": {"not_in": ["red"]}},
        {"colour": {"ne": "red"}},
        {"topic": {"contains": "oo"}},
        {"tags": "thai"},
        {"tags": {"contains": "thai"}},
        {"at.city": "Paris"},
        {"sold": True},
        {"by": None},
        {"price": {"exists": True}, "colour": {"exists": False}},
        {"and": [{"topic": "food"}, {"price": {"gt": 1}}]},
        {"OR": [{"topic": "sport"}, {"price": {"gt": 1}}]},
        {"not": {"topic": "sport"}},
        {"@key": "taste", "@source": "d2", "@agent": "butler", "@session": "s1"},
        {"@created": AT},
        {"@updated": {"gte": "2023-06-01", "lt": datetime(2023, 6, 2, tzinfo=UTC)}},
    ],
)
def test_met(where: dict[str, Any]) -> None:
    assert met(where)
    assert not where or not met({"not": where})


@pytest.mark.parametrize(
    "where",
    [
        {"topic": "sport"},
        {"topic": 12},
        {"price": "12"},
        {"price": {"gt": "1"}},
        {"sold": 1},
        {"by": 0},
        {"by": False},
        {"topic": {"in": []}},
        {"colour": {"gt": 1}},
        {"colour": {"exists": True}},
        {"price": {"contains": 1}},
        {"topic": "food", "price": 13},
        {"at": "Paris"},
        {"@updated": {"lt": AT}},
    ],
)
def test_not_met(where: dict[str, Any]) -> None:
    assert not met(where)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("topic", "a filter is 'topic'; expected fields"),
        ({"topic": {"contain": 1}}, "field 'topic' is given the operator 'contain'; did you mean 'contains'?"),
        ({"topic": {}}, "field 'topic' is given {}; expected operators of eq, ne"),
        ({"topic": {"in": "food"}}, "in is 'food'; expected a list"),
        ({"topic": {"exists": 1}}, "exists is 1; expected True or False"),
        ({"topic": {"gt": None}}, "gt is None; expected a number, a text or a time"),
        ({"topic": object}, "a filter compares with <class 'object'> (type)"),
        ({"topic": ["a"]}, "a filter compares with ['a'] (list)"),
        ({"and": {"topic": 1}}, "'and' is given {'topic': 1}; expected a list of filters"),
        ({"or": []}, "'or' is given []; expected a list of filters"),
        ({"not": "x"}, "a filter is 'x'"),
        ({"@creatd": AT}, "records have no field '@creatd'; did you mean '@created'?"),
        ({"@created": "yesterday"}, "'yesterday' is not a time"),
        ({"@created": 3}, "field '@created' is compared with 3; expected a time"),
        ({1: 2}, "a filter names the field 1; expected a text"),
    ],
)
def test_what_is_no_filter_is_named(where: Any, said: str) -> None:
    with pytest.raises(FilterError) as raised:
        read_filter(where)
    assert said in str(raised.value)


def test_a_filter_nested_too_deep_is_refused() -> None:
    where: dict[str, Any] = {"a": 1}
    for _ in range(10_000):
        where = {"not": where}
    with pytest.raises(FilterError, match="deeper than 64"):
        read_filter(where)


# The table of facets gives what the facets say.

LONG = "ab" * 5000
PLAIN = st.sampled_from(
    [None, True, False, 0, 1, 2, 1.5, -1, -1.5, 10, -(2**70), 2**1023, 2**62 + 1, "", "a", "ab", "b", "é", "1", LONG]
)
FIELDS = ["x", "y", "z.w"]
PAYLOADS = st.dictionaries(
    st.sampled_from(["x", "y", "z"]), st.one_of(PLAIN, st.lists(PLAIN, max_size=3), st.fixed_dictionaries({"w": PLAIN}))
)
TESTS = st.one_of(
    st.tuples(st.sampled_from(FIELDS), PLAIN).map(lambda t: {t[0]: t[1]}),
    st.tuples(st.sampled_from(FIELDS), st.sampled_from(["eq", "ne", "contains"]), PLAIN).map(
        lambda t: {t[0]: {t[1]: t[2]}}
    ),
    st.tuples(
        st.sampled_from(FIELDS), st.sampled_from(["gt", "gte", "lt", "lte"]), st.sampled_from([0, 1.5, "a", "é"])
    ).map(lambda t: {t[0]: {t[1]: t[2]}}),
    st.tuples(st.sampled_from(FIELDS), st.sampled_from(["in", "not_in"]), st.lists(PLAIN, max_size=3)).map(
        lambda t: {t[0]: {t[1]: t[2]}}
    ),
    st.tuples(st.sampled_from(FIELDS), st.booleans()).map(lambda t: {t[0]: {"exists": t[1]}}),
    st.sampled_from(["", "s1", "s2"]).map(lambda s: {"@session": s}),
)
FILTERS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda f: {"and": f}),
        st.lists(inner, min_size=1, max_size=3).map(lambda f: {"or": f}),
        inner.map(lambda f: {"not": f}),
    ),
    max_leaves=4,
)


@pytest.mark.parametrize("kind", DURABLE)
@settings(max_examples=60, deadline=None)
@given(given_records=st.lists(st.tuples(st.sampled_from(["", "s1", "s2"]), PAYLOADS), max_size=6), where=FILTERS)
def test_a_bank_finds_what_the_filter_means(
    kind: str, given_records: list[tuple[str, dict[str, Any]]], where: dict[str, Any]
) -> None:
    with ExitStack() as stack:
        bank = DURABLE[kind](stack)
        for session, payload in given_records:
            bank.apply([Operation("ADD", "text", payload=payload)], Scope("anna", session=session), at=AT)
        bank.apply([Operation("ADD", "text", payload={"x": 1})], Scope("ben"), at=AT)
        wanted = read_filter(where)
        assert wanted is not None
        expected = {r.id for r in bank.list(Scope("anna")) if wanted.met(list(facets(r)))}
        assert {hit.record.id for hit in bank.find("text", Scope("anna"), k=100, where=where)} == expected


def test_every_operator_is_described() -> None:
    from memorist.memory import filters

    assert filters.__doc__ is not None
    assert all(op in filters.__doc__ for op in OPERATORS if op not in ("eq", "gt", "lte"))


@pytest.mark.parametrize("value", [10**400, -(10**400), "\ud800", "a\0"])
def test_values_that_no_store_can_hold_are_met_by_nothing(value: object) -> None:
    found = read_filter({"x": value})
    assert found is not None and not found.met([("x", "n", 1), ("x", "s", "b")])
