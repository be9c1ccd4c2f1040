"""Which records are meant, by what they carry beside their text.

    {"topic": "food"}                          equal, or among a list's elements
    {"price": {"gte": 10, "lt": 20}}           a range; numbers with numbers, texts with texts
    {"topic": {"in": ["food", "sport"]}}       any of them
    {"note": {"contains": "spicy"}}            part of a text, or an element of a list
    {"price": {"exists": False}}
    {"address.city": "Paris"}                  inside a payload's object
    {"@updated": {"gte": datetime(2026, 1, 1)}}     @created, @updated, @source, @key, @agent, @session of the record
    {"and": [...]}, {"or": [...]}, {"not": {...}}   of such; several fields in one object must all hold

A record without the field does not meet a test of it, save `ne`, `not_in` and `exists: False`. What a filter means is
said here once, over the *facets* of a record; a bank that keeps facets in a table asks the table.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from memorist.errors import FilterError, nearest
from memorist.memory.record import MAX_DEPTH, MemoryRecord, clean_text, instant

Value = str | int | float
Facet = tuple[str, str, Value]
"""Field, type ("s" text, "n" number, "b" truth, "z" null) and value; truths are 0 and 1, null is 0."""

OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "contains", "exists")
JOINS = ("and", "or", "not")
RECORD_FIELDS = ("@agent", "@created", "@key", "@session", "@source", "@updated")
_TIMES = ("@created", "@updated")
_ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


@dataclass(frozen=True, slots=True)
class Test:
    """One field against typed values: `op` is eq, gt, gte, lt, lte, in, contains or exists."""

    field: str
    op: str
    values: tuple[tuple[str, Value], ...] = ()

    def met(self, facets: Sequence[Facet]) -> bool:
        """Whether any of a record's facets of this field passes."""
        return any(field == self.field and self.passes(kind, value) for field, kind, value in facets)

    def passes(self, kind: str, value: Value) -> bool:
        """Whether a facet of this field with this type and value passes."""
        if self.op == "exists":
            return True
        if self.op in ("eq", "in"):
            return (kind, value) in self.values
        ((wanted, bound),) = self.values
        if self.op == "contains":
            return (kind, value) == (wanted, bound) or (kind == wanted == "s" and str(bound) in str(value))
        return kind == wanted and _ORDERED[self.op](value, bound)


@dataclass(frozen=True, slots=True)
class Join:
    """`and`, `or` of several filters, or `not` of one."""

    op: str
    parts: tuple[Filter, ...]

    def met(self, facets: Sequence[Facet]) -> bool:
        """Whether a record's facets pass."""
        if self.op == "not":
            return not self.parts[0].met(facets)
        return (all if self.op == "and" else any)(part.met(facets) for part in self.parts)


Filter = Test | Join


def facets(record: MemoryRecord) -> Iterator[Facet]:
    """What filters can ask of a record, each facet once."""
    about = {"@agent": record.scope.agent, "@session": record.scope.session, "@source": list(record.source)}
    about["@text"] = fingerprint(record.text)  # for finding an equal text; not to be asked for
    times = {"@created": instant(record.created), "@updated": instant(record.updated)}
    key = {} if record.key is None else {"@key": record.key}
    found = dict.fromkeys(_flat("", record.payload, 0))
    for name, value in (about | times | key).items():
        found |= dict.fromkeys(_flat(name, value, 0))
    return iter(found)


def fingerprint(text: str) -> str:
    """Equal for equal texts, and hardly ever for others."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _flat(path: str, value: Any, depth: int) -> Iterator[Facet]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            if path or not name.startswith("@"):  # those are the record's own
                yield from _flat(f"{path}.{name}" if path else name, part, depth + 1)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _flat(path, part, depth + 1)
    elif path and depth <= MAX_DEPTH + 1:
        yield path, *_typed(value)


def _typed(value: object) -> tuple[str, Value]:
    if value is None:
        return "z", 0
    if isinstance(value, bool):
        return "b", int(value)
    if isinstance(value, int) and value.bit_length() > 63:
        return "n", (math.inf if value > 0 else -math.inf) if value.bit_length() > 1023 else float(value)
    if isinstance(value, int | float):
        return "n", value
    if isinstance(value, str):
        return "s", clean_text(value)
    raise FilterError(
        f"a filter compares with {value!r} ({type(value).__name__}); expected a text, a number, true, false or null"
    )


def read_filter(where: Mapping[str, Any] | None) -> Filter | None:
    """The filter that `where` says; None if it says nothing.

    Raises:
        FilterError: it is not of the form that this module describes.
    """
    if where is None or where == {}:
        return None
    return _read(where, 0)


def _read(where: object, depth: int) -> Filter:
    if not isinstance(where, Mapping) or not where:
        raise FilterError(f"a filter is {where!r}; expected fields with what they should be, e.g. {{'topic': 'food'}}")
    if depth > MAX_DEPTH:
        raise FilterError(f"a filter is nested deeper than {MAX_DEPTH} levels")
    parts: list[Filter] = []
    for name, wanted in where.items():
        if not isinstance(name, str):
            raise FilterError(f"a filter names the field {name!r}; expected a text")
        name = clean_text(name)
        if name.lower() in JOINS:
            parts.append(_join(name.lower(), wanted, depth))
        elif name.startswith("@") and name not in RECORD_FIELDS:
            raise FilterError(f"records have no field {name!r}; {nearest(name, RECORD_FIELDS)}")
        elif isinstance(wanted, Mapping):
            parts += [_test(name, op, value) for op, value in _operators(name, wanted)]
        else:
            parts.append(_test(name, "eq", wanted))
    return parts[0] if len(parts) == 1 else Join("and", tuple(parts))


def _join(op: str, wanted: object, depth: int) -> Filter:
    if op == "not":
        return Join("not", (_read(wanted, depth + 1),))
    if not isinstance(wanted, list | tuple) or not wanted:
        raise FilterError(f"{op!r} is given {wanted!r}; expected a list of filters")
    return Join(op, tuple(_read(part, depth + 1) for part in wanted))


def _operators(field: str, wanted: Mapping[object, Any]) -> Iterator[tuple[str, Any]]:
    if not wanted:
        raise FilterError(f"field {field!r} is given {{}}; expected operators of {', '.join(OPERATORS)}")
    for op, value in wanted.items():
        if op not in OPERATORS:
            raise FilterError(f"field {field!r} is given the operator {op!r}; {nearest(str(op), OPERATORS)}")
        yield str(op), value


def _test(field: str, op: str, value: Any) -> Filter:
    if op == "ne":
        return Join("not", (_test(field, "eq", value),))
    if op == "not_in":
        return Join("not", (_test(field, "in", value),))
    if op == "exists":
        if not isinstance(value, bool):
            raise FilterError(f"field {field!r}: exists is {value!r}; expected True or False")
        return Test(field, op) if value else Join("not", (Test(field, op),))
    if op == "in":
        if not isinstance(value, list | tuple | set | frozenset):
            raise FilterError(f"field {field!r}: in is {value!r}; expected a list of values")
        return Test(field, op, tuple(_bound(field, one) for one in value))
    bound = _bound(field, value)
    if op in _ORDERED and bound[0] not in "sn":
        raise FilterError(f"field {field!r}: {op} is {value!r}; expected a number, a text or a time")
    return Test(field, op, (bound,))


def _bound(field: str, value: Any) -> tuple[str, Value]:
    if field in _TIMES:
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise FilterError(f"field {field!r}: {value!r} is not a time; expected e.g. '2026-01-31'") from None
        if isinstance(value, datetime):
            return "n", instant(value)
        raise FilterError(f"field {field!r} is compared with {value!r}; expected a time")
    return _typed(value.isoformat() if isinstance(value, datetime) else value)
