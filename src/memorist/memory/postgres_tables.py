"""The tables of a `PostgresBank`, and what makes older ones current. Columns are those of `sqlite_tables`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from memorist.memory.words import VERSION

if TYPE_CHECKING:
    import psycopg

_MINE = "current_setting('memorist.everyone', true) = 'on' OR {0} = current_setting('memorist.whose', true)"
_NUMBER = (
    "current_setting('memorist.everyone', true) = 'on' OR {0} = "
    "(SELECT u.number FROM users u WHERE u.name = current_setting('memorist.whose', true))"
)


def _create_tables(db: psycopg.Connection[Any], size: int) -> None:
    """Texts are compared byte by byte, as SQLite does. Long values of facets are cut (`postgres_server.LONG`)."""
    for statement in (
        "CREATE TABLE embedder (name TEXT NOT NULL, size INTEGER NOT NULL)",
        "CREATE TABLE commits (number BIGINT PRIMARY KEY, at TEXT, erasure INTEGER NOT NULL)",
        """CREATE TABLE versions (
            version BIGINT PRIMARY KEY, birth BIGINT NOT NULL, id TEXT COLLATE "C" NOT NULL,
            "user" TEXT COLLATE "C" NOT NULL, agent TEXT COLLATE "C" NOT NULL, session TEXT COLLATE "C" NOT NULL,
            text TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL, key TEXT COLLATE "C",
            payload TEXT NOT NULL, source TEXT NOT NULL,
            from_commit BIGINT NOT NULL, to_commit BIGINT, expires TEXT)""",
        "CREATE UNIQUE INDEX live_id ON versions (id) WHERE to_commit IS NULL",
        # Keys may be as long as texts, and names are long too, which indexes do not hold themselves.
        """CREATE UNIQUE INDEX live_key ON versions (md5("user"), md5(agent), md5(session), md5(key))
            WHERE to_commit IS NULL AND key IS NOT NULL""",
        "CREATE INDEX version_key ON versions USING hash (key)",
        "CREATE INDEX version_id ON versions (id, from_commit)",
        'CREATE INDEX version_user ON versions ("user", birth, from_commit, to_commit)',
        f"CREATE TABLE vectors (version BIGINT PRIMARY KEY, vector vector({size}) NOT NULL, owner BIGINT NOT NULL)",
        """CREATE TABLE changes (
            number BIGINT NOT NULL, position BIGINT NOT NULL, kind TEXT NOT NULL, id TEXT COLLATE "C" NOT NULL,
            "user" TEXT COLLATE "C" NOT NULL, before BIGINT, after BIGINT, reason TEXT NOT NULL,
            PRIMARY KEY (number, position))""",
        "CREATE INDEX change_id ON changes (id)",
        'CREATE INDEX change_user ON changes ("user", number)',
        "CREATE TABLE erasures (number BIGINT PRIMARY KEY)",
        """CREATE TABLE copies (path TEXT NOT NULL, kind TEXT NOT NULL, at TEXT NOT NULL,
            rowid BIGINT GENERATED ALWAYS AS IDENTITY)""",
        """CREATE TABLE users (number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name TEXT COLLATE "C" NOT NULL UNIQUE, live BIGINT NOT NULL, versions BIGINT NOT NULL,
            words BIGINT NOT NULL)""",
        """CREATE TABLE words (
            "user" BIGINT NOT NULL, word TEXT COLLATE "C" NOT NULL, version BIGINT NOT NULL,
            count BIGINT NOT NULL, length BIGINT NOT NULL, PRIMARY KEY ("user", word, version))""",
        """CREATE TABLE facets (
            "user" BIGINT NOT NULL, field TEXT COLLATE "C" NOT NULL, type TEXT NOT NULL,
            value TEXT COLLATE "C" NOT NULL, version BIGINT NOT NULL, whole TEXT,
            PRIMARY KEY ("user", field, type, value, version))""",
        "CREATE TABLE searchable (words INTEGER NOT NULL)",
        """CREATE TABLE logs (path TEXT NOT NULL, "user" TEXT COLLATE "C" NOT NULL, doomed INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (path, "user"))""",
        "CREATE TABLE numbers (version BIGINT NOT NULL)",
        "INSERT INTO numbers VALUES (0)",
        f"INSERT INTO searchable VALUES ({VERSION})",
    ):
        db.execute(statement)


def _secure_rows(db: psycopg.Connection[Any], size: int) -> None:
    """Who owns the tables is held to it too."""
    for table, meant in (
        ("versions", _MINE.format('"user"')),
        ("changes", _MINE.format('"user"')),
        ("users", _MINE.format("name")),
        ("logs", _MINE.format('"user"')),
        ("words", _NUMBER.format('"user"')),
        ("facets", _NUMBER.format('"user"')),
        ("vectors", _NUMBER.format("owner")),
    ):
        _own_rows(db, table, meant)


def _own_rows(db: psycopg.Connection[Any], table: str, meant: str) -> None:
    db.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    db.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    db.execute(f"CREATE POLICY own_rows ON {table} USING ({meant}) WITH CHECK ({meant})")


def _add_jobs(db: psycopg.Connection[Any], size: int) -> None:
    db.execute(
        """CREATE TABLE jobs (
            id TEXT COLLATE "C" PRIMARY KEY, "user" TEXT COLLATE "C" NOT NULL, agent TEXT COLLATE "C" NOT NULL,
            session TEXT COLLATE "C" NOT NULL, state TEXT NOT NULL, asked TEXT NOT NULL, outcome TEXT NOT NULL,
            made DOUBLE PRECISION NOT NULL, until DOUBLE PRECISION NOT NULL, holder TEXT NOT NULL)"""
    )
    _own_rows(db, "jobs", _MINE.format('"user"'))


MIGRATIONS: tuple[Callable[[psycopg.Connection[Any], int], None], ...] = (_create_tables, _secure_rows, _add_jobs)
"""What makes older tables current, in order, with the numbers of a vector; each runs once and is recorded."""
