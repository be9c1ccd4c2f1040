"""A PostgreSQL database of a `PostgresBank`: connection, transactions, migrations, whose rows a transaction may see.

Statements come in SQLite's words (`stored_tables`), and the few that PostgreSQL says otherwise are said otherwise here.
Row-level security shows a transaction that is about one user (`reading(user)`, `moment`, `narrow`) that user's rows and
no others, whatever the statement asks for; a connection that says neither who it is about nor that it is about everyone
sees nothing. PostgreSQL does not hold superusers to it, so a server should not be one.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from threading import RLock
from typing import TYPE_CHECKING, Any

from memorist.errors import BankError
from memorist.memory import stored_search as search
from memorist.memory.embed import Embedder, HashedEmbedder, Vectors
from memorist.memory.filters import Value
from memorist.memory.postgres_tables import MIGRATIONS
from memorist.memory.stored_search import Database, Rows
from memorist.memory.stored_tables import Tables, fill_search

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger("memorist.memory")

BUSY_SECONDS = 60
"""How long a call waits for another process that is writing."""

LONG = 400
"""Characters of a facet's field or value that are compared; of longer ones the rest is compared by its digest."""

_ADVICE = {
    "08": "the server cannot be reached; check that it runs and that the address is right",
    "28": "the server does not let this user in; check name and password",
    "3D": "there is no such database; make it with `createdb`",
    "42501": "this user may not do that; let the owner of the database open it once, or grant it",
    "53100": "the server's disk is full, and nothing of this call was stored; free some space and try again",
    "53300": "the server has too many connections; raise max_connections, or run fewer processes",
    "54000": "a user's, agent's or session's name is longer than PostgreSQL's indexes hold (about 2,700 bytes)",
    "55P03": f"another process has been writing for {BUSY_SECONDS} s; try again",
    "57P": "the server is stopping or starting; try again",
}

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
        """Run a statement."""
        return self.db.execute(translated(query), values)

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
    return isinstance(value, str) and len(value) > LONG


class BankServer(Tables):
    """One connection to the tables in a database, shared by threads under a lock; all errors are `BankError`.

    A connection that broke is made anew at the next call.

    Args:
        url: `postgresql://USER@HOST/DATABASE`.
        schema: in which the tables lie.
        read_only: refuse to write, and make no tables.
    """

    def __init__(self, url: str, schema: str, read_only: bool) -> None:
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as error:
            raise BankError(f"PostgreSQL needs `pip install 'memorist[postgres]'` ({error})") from error
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
            raise BankError(f"the schema is {schema!r}; expected small letters, digits and _, beginning with a letter")
        self._psycopg, self._url, self._schema, self.read_only = psycopg, url, schema, read_only
        self.lock = RLock()
        self._process = os.getpid()
        self._inside = self._closed = False
        self._db: Connection | None = None
        try:
            parts = conninfo_to_dict(url)
        except psycopg.Error as error:
            raise BankError("the address is none of PostgreSQL's; expected postgresql://USER@HOST/DATABASE") from error
        # Without the password: it is in messages.
        self.name = f"postgresql://{parts.get('host') or 'localhost'}/{parts.get('dbname') or ''}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            code = error.sqlstate or ("08" if isinstance(error, self._psycopg.OperationalError) else "")
            advice = next((text for start, text in _ADVICE.items() if code.startswith(start)), "")
            said = str(error).strip().split("\n")[0]
            raise BankError(f"{self.name}: {said}" + (f": {advice}" if advice else "")) from error

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of its own, outside of any transaction."""
        db = self._psycopg.connect(self._url, autocommit=True, connect_timeout=10, application_name="memorist")
        db.execute("SELECT set_config('search_path', %s || ', public', false)", (f'"{self._schema}"',))
        db.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'")
        db.execute("SET memorist.everyone = 'on'")
        if self.read_only:
            db.execute("SET default_transaction_read_only = on")
        return db

    def _ready(self) -> Connection:
        """The connection; a new one where it broke."""
        if self._db is None or self._db.db.broken or self._db.db.closed:
            self._db = Connection(self.connect())
            self._understand(self._db.db)
        return self._db

    def _understand(self, db: psycopg.Connection[Any]) -> None:
        """Read vectors as bytes and write them from arrays; nothing where the extension is not made yet."""
        from pgvector.psycopg import register_vector
        from pgvector.psycopg.vector import VectorBinaryLoader, VectorLoader
        from psycopg.types import TypeInfo

        info = TypeInfo.fetch(db, "vector")
        if info is None:
            return
        register_vector(db)

        class Bytes(VectorLoader):
            def load(self, data: Any) -> Any:
                return super().load(data).to_numpy().astype("<f4").tobytes()  # type: ignore[union-attr]

        class BinaryBytes(VectorBinaryLoader):
            def load(self, data: Any) -> Any:
                return super().load(data).to_numpy().astype("<f4").tobytes()  # type: ignore[union-attr]

        for loader in (Bytes, BinaryBytes):
            db.adapters.register_loader(info.oid, loader)
        db.execute("SET hnsw.iterative_scan = strict_order")
        db.execute("SET hnsw.ef_search = 100")

    @contextmanager
    def reading(self, user: str | None = None) -> Iterator[Connection]:
        """The connection, for statements that only read; of one user alone where one is given."""
        with self.lock, self._explained():
            if self._closed:
                raise BankError(f"{self.name}: the bank is closed; open it again")
            if os.getpid() != self._process:
                raise BankError(f"{self.name}: opened by another process; open it again in this one")
            if user is None or self._inside:
                yield self._db if self._inside and self._db is not None else self._ready()
            else:
                with self._transaction("BEGIN READ ONLY") as db:
                    self.narrow(db, user)
                    yield db

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        db = self._ready()
        db.execute(begin)
        self._inside = True
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            with suppress(self._psycopg.Error):  # some errors have undone it already
                db.execute("ROLLBACK")
            raise
        finally:
            self._inside = False

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The connection in a transaction: on disk when the block ends, undone if it raises."""
        with self.reading():
            self.need_writable()
            with self._transaction("BEGIN") as db:
                db.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 0))")
                self._need_same_embedder(db)
                yield db

    @contextmanager
    def moment(self, user: str) -> Iterator[tuple[Connection, int]]:
        """The connection and the newest commit, in a transaction: what is read in it of a user belongs together."""
        with self.reading(), self._transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as db:
            self.narrow(db, user)
            self._need_same_embedder(db)
            yield db, self.newest()

    def narrow(self, db: Database, user: str) -> None:
        """From here on the transaction sees one user's rows alone, and writes no others."""
        query = "SELECT set_config('memorist.everyone', '', true), set_config('memorist.whose', ?, true)"
        db.execute(query, (user,))

    def prepare(self, embedder: Embedder | None) -> Embedder:
        """Bring the tables up to date; returns the embedder that they were made with."""
        made_with = embedder or HashedEmbedder()
        with self.reading() as db:
            done = self.migrated()
            if not done and self.read_only:
                raise BankError(f"{self.name}: there is no bank in this database; open it without read_only first")
            if not self.read_only and done < len(MIGRATIONS):
                done = self._migrate(db, made_with)
            if done > len(MIGRATIONS):
                raise BankError(
                    f"{self.name}: made by a newer version of Memorist (tables {done}, this one knows "
                    f"{len(MIGRATIONS)}); update with `pip install -U memorist`"
                )
            self._understand(db.db)
            if not self.read_only and not search.current(db):
                with self.writing() as changed:
                    search.clear(changed)
                    fill_search(changed)
            return self._embedder(db, embedder)

    def migrated(self) -> int:
        """How many migrations have run; 0 where there are no tables."""
        with self.reading() as db:
            return self._done(db)

    def _done(self, db: Connection) -> int:
        there = db.execute("SELECT to_regclass(?) IS NOT NULL", (f'"{self._schema}".migrations',)).fetchone()[0]
        return self._version(db) if there else 0

    def _migrate(self, db: Connection, made_with: Embedder) -> int:
        with self._transaction("BEGIN"):
            db.execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 1))", (self._schema,))
            db.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
            self._need_pgvector(db)
            db.execute("CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY, name TEXT NOT NULL)")
            done = self._version(db)
            for number, step in enumerate(MIGRATIONS, 1):
                if number > done:
                    step(db.db, made_with.size)
                    db.execute("INSERT INTO migrations VALUES (?, ?)", (number, step.__name__.lstrip("_")))
            if not done:
                db.execute("INSERT INTO embedder VALUES (?, ?)", (made_with.name, made_with.size))
            return self._version(db)

    def _need_pgvector(self, db: Connection) -> None:
        try:
            db.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        except self._psycopg.Error as error:
            raise BankError(
                f"{self.name}: the database has no extension pgvector, and it cannot be made "
                f"({str(error).splitlines()[0]}); install it on the server, then let a superuser say "
                "CREATE EXTENSION vector in this database"
            ) from error

    def bypasses(self) -> bool:
        """Whether PostgreSQL does not hold this user to row-level security."""
        with self.reading() as db:
            query = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
            return bool(db.execute(query).fetchone()[0])

    def settle(self, timeout: float, pending: Sequence[int]) -> tuple[str, ...]:
        """Finish some erasures: let the server clear what is dead from its pages."""
        with self.reading() as db:
            left = self._remove_logs(db)
            if left:
                return left
            for table in ("versions", "vectors", "changes", "words", "facets", "users", "jobs"):
                db.execute(f"VACUUM {table}")
            db.execute("DELETE FROM erasures WHERE number = ANY(?)", (list(pending),))
        return ()

    def index_big(self, user: str, big: int) -> None:
        """Make an index of a user's vectors, where there are more than so many and it has none.

        What was written before is written whatever becomes of it: what goes wrong is logged, and tried again.
        """
        with self.reading() as db:
            row = db.execute("SELECT number, live FROM users WHERE name = ?", (user,)).fetchone()
            if row is None or row[1] <= big or has_index(db, row[0]):
                return
            (size,) = db.execute("SELECT size FROM embedder").fetchone()
        if size > MOST_INDEXED:
            return
        try:
            with self.connect() as own:  # others go on meanwhile
                lock = "SELECT pg_try_advisory_lock(hashtextextended(current_schema(), %s))"
                if not own.execute(lock, (1 + row[0],)).fetchone()[0]:  # type: ignore[index]
                    return  # another process makes it
                own.execute(f"DROP INDEX CONCURRENTLY IF EXISTS near_{row[0]}")  # of one that was killed
                own.execute(
                    f"CREATE INDEX CONCURRENTLY near_{row[0]} ON vectors USING hnsw (vector vector_ip_ops) "
                    f"WHERE owner = {row[0]}"
                )
        except self._psycopg.Error as error:
            log.warning("%s: no index was made of a user's vectors (%s)", self.name, error)

    @property
    def own(self) -> bool:
        """Whether it is open, and was opened by this process."""
        return not self._closed and os.getpid() == self._process

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        with self.lock:
            if self._db is not None:
                self._db.db.close()
            self._db, self._closed = None, True


MOST_INDEXED = 2000
"""Numbers of a vector that pgvector's index can have."""


def has_index(db: Database, number: int) -> bool:
    """Whether a user's vectors have an index that is whole."""
    query = """SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relname = ? AND c.relnamespace = current_schema()::regnamespace AND i.indisvalid"""
    return bool(db.execute(query, (f"near_{number}",)).fetchone()[0])


def near(db: Database, number: int, query: Vectors, k: int, allowed: Sequence[int] | None) -> list[int]:
    """The `k` live versions of a user that an index gives as nearest.

    A length of 1 makes the inner product the cosine, and what says nothing has 0 of both: to that all are equally near,
    and the oldest come first.
    """
    order, last = ("v.vector <#> ?", (query,)) if query.any() else ("r.birth", ())
    some, values = ("", ()) if allowed is None else (" AND version = ANY(?)", (list(allowed),))
    found = db.execute(
        f"""SELECT version FROM vectors v JOIN versions r USING (version)
        WHERE v.owner = {int(number)} AND r.to_commit IS NULL{some} ORDER BY {order} LIMIT ?""",
        (*values, *last, k),
    )
    return [version for (version,) in found]
