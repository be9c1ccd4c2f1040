"""How a `PostgresBank` says SQLite's statements, and keeps values so that they compare as filters say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from memorist.memory.embed import Vectors
from memorist.memory.filters import Value
from memorist.memory.stored_search import Rows

if TYPE_CHECKING:
    import psycopg

LONG = 200
"""Characters of a long field or value of a facet that are compared; the rest is compared by its digest."""
MOST_BYTES = 4 * LONG
"""Of a field or value that is not long: two of them and their numbers fit into a row of an index."""

_SOME_IDS = re.compile(r"(\bid) IN \(SELECT value FROM json_each\(\?\)\)")
_SOME = re.compile(r"(\w+) IN \(SELECT value FROM json_each\(\?\)\)")
_NUMBERS = "json_array_elements_text(?::json) one"


@lru_cache(maxsize=1024)
def translated(query: str) -> str:
    """A statement of SQLite's in PostgreSQL's words."""
    query = _SOME_IDS.sub(rf"\1 = ANY(ARRAY(SELECT one FROM {_NUMBERS}))", query)
    query = _SOME.sub(rf"\1 = ANY(ARRAY(SELECT one::bigint FROM {_NUMBERS}))", query)
    query = query.replace("json_each(?)", f"(SELECT one::bigint AS value FROM {_NUMBERS})")
    query = query.replace("instr(value, ?)", "strpos(coalesce(whole, value), ?)").replace("CROSS JOIN", "JOIN")
    query = re.sub(r"\buser\b", '"user"', query)  # a word of its own there
    return query.replace("%", "%%").replace("?", "%s")


def ordered(number: int | float) -> str:
    """A number as a text; texts are in the order of their numbers, letter by letter, and equal where those are."""
    exact = Decimal(number)
    if not exact:
        return "1"
    if exact.is_infinite():
        return "3" if exact > 0 else "0/"  # below any digit
    digits = "".join(map(str, exact.as_tuple().digits))
    text = f"{exact.adjusted() + 5000:04d}{digits.rstrip('0')}"
    if exact > 0:
        return f"2{text}"
    return f"0{text.translate(_TURNED)}~"  # a longer one is smaller


_TURNED = str.maketrans("0123456789", "9876543210")


class Connection:
    """A connection that takes statements in SQLite's words."""

    def __init__(self, db: psycopg.Connection[Any]) -> None:
        self.db = db

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        """Run a statement. What it finds comes as bytes: vectors as text take seven times as long."""
        return self.db.execute(translated(query), values, binary=True)

    def executemany(self, query: str, rows: Sequence[Sequence[Any]], /) -> None:
        """Run a statement for each row of values."""
        with self.db.cursor() as cursor:
            cursor.executemany(translated(query), rows)

    def keep_vector(self, version: int, vector: Vectors) -> None:
        """Store a vector beside its version."""
        owner = "SELECT u.number FROM users u JOIN versions r ON r.user = u.name WHERE r.version = ?"
        self.execute(f"INSERT INTO vectors VALUES (?, ?, ({owner}))", (version, vector, version))

    def keep_facets(self, rows: Sequence[tuple[int, str, str, Value, int]]) -> None:
        """Store what filters can ask."""
        told = [
            (user, self.facet(field), kind, self.facet(value), version, value if _long(value) else None)
            for user, field, kind, value, version in rows
        ]
        self.executemany("INSERT INTO facets VALUES (?, ?, ?, ?, ?, ?)", told)

    def facet(self, value: Value) -> object:
        """A facet's field or value as it is stored."""
        if not isinstance(value, str):
            return ordered(value)
        return f"{value[:LONG]}\U0010ffff{sha256(value.encode()).hexdigest()}" if _long(value) else value


def _long(value: Value) -> bool:
    return isinstance(value, str) and len(value) > LONG and len(value.encode()) > MOST_BYTES
