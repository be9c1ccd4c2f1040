"""What a stored bank keeps beside its records so that they are found: users, words, facets.

All of it follows from the versions, changes in the same transactions, and can be made anew. Dead versions are kept too,
for reads as of earlier commits; what is found is looked up in the versions before it is shown.

The words are in a plain table, by user, instead of in FTS5: there one tenant's texts would change another's order, a
word in more than half of a few texts would count nothing, and removed words would stay until the index is merged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from memorist.memory.embed import Vectors
from memorist.memory.filters import Filter, Join, Test, Value, facets, fingerprint
from memorist.memory.record import Kind, MemoryRecord, Operation, Scope, instant, payload_json, readable
from memorist.memory.words import VERSION, words


class Rows(Protocol):
    """What a statement found."""

    def fetchone(self) -> Any:
        """The next row; None behind the last."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...

    def fetchmany(self, size: int = ..., /) -> list[Any]:
        """The next rows; () behind the last."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """A connection. Statements are in SQLite's words, values stand for their question marks."""

    def execute(self, query: str, values: Any = ..., /) -> Rows:
        """Run a statement."""
        ...

    def executemany(self, query: str, rows: Any, /) -> object:
        """Run a statement for each row of values."""
        ...

    def keep_vector(self, version: int, vector: Vectors) -> None:
        """Store a vector, shape (size,), beside its version."""
        ...

    def keep_facets(self, rows: Sequence[tuple[int, str, str, Value, int]]) -> None:
        """Store what filters can ask: user's number, field, type, value, version."""
        ...

    def facet(self, value: Value) -> object:
        """A facet's field or value as it is stored, so that it compares as filters say."""
        ...


Versions = npt.NDArray[np.int64]
"""Version numbers in ascending order, each once."""

_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def create(db: Database) -> None:
    """Make the tables, empty."""
    for statement in (
        """CREATE TABLE users (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
            live INTEGER NOT NULL, versions INTEGER NOT NULL, words INTEGER NOT NULL)""",
        """CREATE TABLE words (
            user INTEGER NOT NULL, word TEXT NOT NULL, version INTEGER NOT NULL,
            count INTEGER NOT NULL, length INTEGER NOT NULL, PRIMARY KEY (user, word, version)) WITHOUT ROWID""",
        """CREATE TABLE facets (
            user INTEGER NOT NULL, field TEXT NOT NULL, type TEXT NOT NULL, value NOT NULL, version INTEGER NOT NULL,
            PRIMARY KEY (user, field, type, value, version)) WITHOUT ROWID""",
        "CREATE TABLE searchable (words INTEGER NOT NULL)",
    ):
        db.execute(statement)
    db.execute("INSERT INTO searchable VALUES (?)", (VERSION,))


def current(db: Database) -> bool:
    """Whether the words in the table are those that this version of Memorist sees in a text."""
    return bool(db.execute("SELECT words FROM searchable").fetchone()[0] == VERSION)


def clear(db: Database) -> None:
    """Empty the tables, to be filled again. Users keep their numbers: vectors and indexes are named by them."""
    for table in ("words", "facets"):
        db.execute(f"DELETE FROM {table}")
    db.execute("UPDATE users SET live = 0, versions = 0, words = 0")
    db.execute("UPDATE searchable SET words = ?", (VERSION,))


def user_number(db: Database, name: str) -> int | None:
    """The number of a user who has, or had, records."""
    row = db.execute("SELECT number FROM users WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def add(db: Database, version: int, record: MemoryRecord) -> None:
    """Make a version findable."""
    said = words(record.text)
    query = """INSERT INTO users (name, live, versions, words) VALUES (?, 0, 1, ?) ON CONFLICT (name)
        DO UPDATE SET versions = users.versions + 1, words = users.words + excluded.words RETURNING number"""
    ((user,),) = db.execute(query, (record.scope.user, len(said))).fetchall()
    rows = [(user, word, version, count, len(said)) for word, count in Counter(said).items()]
    db.executemany("INSERT INTO words VALUES (?, ?, ?, ?, ?)", rows)
    db.keep_facets([(user, field, kind, value, version) for field, kind, value in facets(record)])


def count_live(db: Database, user: str, change: int) -> None:
    """Add to a user's number of live records."""
    db.execute("UPDATE users SET live = live + ? WHERE name = ?", (change, user))


def remove(db: Database, version: int, record: MemoryRecord) -> None:
    """Forget a version; with the last one the user too."""
    user, said = user_number(db, record.scope.user), words(record.text)
    gone = [(user, word, version) for word in set(said)]
    db.executemany("DELETE FROM words WHERE user = ? AND word = ? AND version = ?", gone)
    about = [(user, db.facet(field), kind, db.facet(value), version) for field, kind, value in facets(record)]
    db.executemany("DELETE FROM facets WHERE (user, field, type, value, version) = (?, ?, ?, ?, ?)", about)
    db.execute("UPDATE users SET versions = versions - 1, words = words - ? WHERE number = ?", (len(said), user))
    db.execute("DELETE FROM users WHERE number = ? AND versions = 0", (user,))


def twins(db: Database, operations: Sequence[Operation], scope: Scope) -> dict[int, int | str]:
    """Which ADDs say what exactly this scope holds: their places, with its record's id or the first one's place."""
    found: dict[int, int | str] = {}
    first: dict[tuple[str, str | None, str, datetime | None], int] = {}
    query = """SELECT v.id, v.key, v.payload, v.expires
        FROM users u CROSS JOIN facets f ON f.user = u.number CROSS JOIN versions v USING (version)
        WHERE u.name = ? AND f.field = '@text' AND f.type = 's' AND f.value = ? AND to_commit IS NULL
        AND v.text = ? AND v.user = ? AND v.agent = ? AND v.session = ? ORDER BY v.birth"""
    place = (scope.user, scope.agent, scope.session)
    for number, given in enumerate(operations):
        op = readable(given)
        if not isinstance(op, Operation) or op.kind != Kind.ADD:
            continue
        payload = payload_json(op.payload or {})
        alike = (op.text, op.key, payload, op.expires)
        if alike in first:
            found[number] = first[alike]
            continue
        first[alike] = number
        expires = None if op.expires is None else op.expires.isoformat()
        for record_id, key, *about in db.execute(query, (scope.user, fingerprint(op.text), op.text, *place)):
            if about == [payload, expires] and op.key in (None, key):
                found[number] = record_id
                break
    return found


def held(db: Database, user: str, time: datetime) -> Versions:
    """A user's versions that held at a time: said by then, and not yet replaced or deleted by what was said by then."""
    query = """SELECT v.version, v.updated, coalesce(n.updated, c.at) FROM versions v
        LEFT JOIN changes h ON h.user = v.user AND h.before = v.version
        LEFT JOIN versions n ON n.version = h.after LEFT JOIN commits c ON c.number = h.number WHERE v.user = ?"""
    moment = instant(time)
    rows = (
        (version,)
        for version, updated, ended in db.execute(query, (user,))
        if instant(datetime.fromisoformat(updated)) <= moment
        and (ended is None or instant(datetime.fromisoformat(ended)) > moment)
    )
    return _numbers(rows)


def matching(db: Database, user: int, wanted: Filter) -> Versions:
    """A user's versions, live or not, that meet a filter."""
    if isinstance(wanted, Join):
        found = [matching(db, user, part) for part in wanted.parts]
        if wanted.op == "not":
            return np.setdiff1d(_all(db, user), found[0], assume_unique=True)
        combined = found[0]
        for part in found[1:]:
            combined = np.intersect1d(combined, part, True) if wanted.op == "and" else np.union1d(combined, part)
        return combined
    return _passing(db, user, wanted)


def _passing(db: Database, user: int, test: Test) -> Versions:
    query = "SELECT DISTINCT version FROM facets WHERE user = ? AND field = ?"

    def ask(more: str, *values: object) -> Versions:
        return _numbers(db.execute(query + more, (user, db.facet(test.field), *values)))

    if test.op == "exists":
        return ask("")
    if test.op in ("eq", "in"):
        # One by one: each is a walk along the index.
        found = [
            ask(" AND type = ? AND value = ?", kind, db.facet(value)) for kind, value in dict.fromkeys(test.values)
        ]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    ((kind, value),) = test.values
    if test.op == "contains" and kind == "s":
        return ask(" AND type = 's' AND instr(value, ?) > 0", value)
    return ask(f" AND type = ? AND value {_SIGNS.get(test.op, '=')} ?", kind, db.facet(value))


def _all(db: Database, user: int) -> Versions:
    query = "SELECT version FROM versions WHERE user = (SELECT name FROM users WHERE number = ?)"
    return _numbers(db.execute(query, (user,)))


def _numbers(rows: Iterable[tuple[int]]) -> Versions:
    found = np.fromiter((version for (version,) in rows), np.int64)
    found.sort()
    return found
