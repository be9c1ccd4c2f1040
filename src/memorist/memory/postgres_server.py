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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING, Any

from memorist.errors import BankError
from memorist.memory import stored_search as search
from memorist.memory.embed import Embedder, HashedEmbedder, Vectors
from memorist.memory.postgres_tables import MIGRATIONS
from memorist.memory.postgres_words import Connection
from memorist.memory.stored_search import Database
from memorist.memory.stored_tables import Tables, fill_search

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger("memorist.memory")

BUSY_SECONDS = 60
"""How long a call waits for another process that is writing."""

STALLED_SECONDS = 600
"""After which the server ends the turn of a process that says nothing any more."""

OLDEST = (0, 8)
"""Version of pgvector from which on an index goes on looking where a filter leaves too little."""

MOST_INDEXED = 2000
"""Numbers of a vector that pgvector's index can have."""

_OTHERS: list[Any] = []
"""Connections of the process that this one was forked from: ending them here would end them there."""

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

_ALIVE: dict[str, Any] = {
    "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000
}  # fmt: skip
"""Of connections: a host that vanished is noticed."""


_WHERE_TO_LOOK = """SELECT set_config('search_path', concat_ws(', ', quote_ident(%s), 'public', (
    SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector'
)), false)"""
"""The tables' own schema; then where pgvector is, for which some services have a schema of its own."""

_OLDER = """SELECT pid, coalesce(nullif(application_name, ''), 'unnamed') FROM pg_stat_activity
    WHERE usesysid IS NOT NULL AND coalesce(backend_type, '') IN ('', 'client backend')
    AND pid <> pg_backend_pid() AND datname = current_database()
    AND age(backend_xmin) > age(%s::xid) ORDER BY pid"""
"""Who reads what was there before a transaction. What kind others' sessions are is hidden from a plain user."""

_ORPHANS = """SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname ~ '^near_[0-9]+$'
    AND NOT EXISTS (SELECT 1 FROM users u WHERE c.relname = 'near_' || u.number)"""
"""Indexes of users who have nothing any more."""


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
        self._turn_lock, self._turns = RLock(), 0
        self._turn_db: psycopg.Connection[Any] | None = None
        try:
            parts = conninfo_to_dict(url)
        except psycopg.Error:  # which says the whole address, password and all
            raise BankError("the address is none of PostgreSQL's; expected postgresql://USER@HOST/DATABASE") from None
        if any(mark in f"{parts.get('dbname') or ''}" for mark in "@/"):
            raise BankError("the address has / or @ where the database's name is; write %2F or %40 in a password")
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
        db = self._psycopg.connect(
            self._url, autocommit=True, connect_timeout=10, application_name="memorist", **_ALIVE
        )
        db.execute(_WHERE_TO_LOOK, (self._schema,))
        db.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'")
        db.execute(f"SET idle_in_transaction_session_timeout = '{STALLED_SECONDS}s'")  # of a process that was stopped
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

    def _need_open(self) -> None:
        if self._closed:
            raise BankError(f"{self.name}: the bank is closed; open it again")
        if os.getpid() != self._process:
            raise BankError(f"{self.name}: opened by another process; open it again in this one")

    @contextmanager
    def reading(self, user: str | None = None) -> Iterator[Connection]:
        """The connection, for statements that only read; of one user alone where one is given."""
        with self.lock, self._explained():
            self._need_open()
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
    def turn(self) -> Iterator[None]:
        """Wait for other writers on a connection of its own, so that nobody who reads waits too.

        It is in a transaction as long as it is this one's turn: where the process stops, the server ends that.
        """
        self.need_writable()
        self._need_open()
        with self._turn_lock:
            if not self._turns:
                with self._explained():
                    if self._turn_db is None or self._turn_db.broken or self._turn_db.closed:
                        self._turn_db = self.connect()
                    self._turn_db.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                    try:
                        self._turn_db.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 0))")
                    except self._psycopg.Error:
                        with suppress(self._psycopg.Error):
                            self._turn_db.execute("ROLLBACK")
                        raise
            self._turns += 1
            try:
                yield
            finally:
                self._turns -= 1
                if not self._turns and self._turn_db is not None:
                    with suppress(self._psycopg.Error):  # a connection that broke has given its turn away
                        self._turn_db.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The connection in a transaction: on disk when the block ends, undone if it raises."""
        with self.turn(), self.reading(), self._transaction("BEGIN ISOLATION LEVEL READ COMMITTED") as db:
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
        with self._transaction("BEGIN ISOLATION LEVEL READ COMMITTED"):
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
            (version,) = db.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        except self._psycopg.Error as error:
            raise BankError(
                f"{self.name}: the database has no extension pgvector, and it cannot be made "
                f"({str(error).splitlines()[0]}); install it on the server, then let a superuser say "
                "CREATE EXTENSION vector in this database"
            ) from error
        if tuple(map(int, version.split(".")[:2])) < OLDEST:
            raise BankError(
                f"{self.name}: pgvector {version} is too old; install 0.8 or newer on the server, then let a superuser "
                "say ALTER EXTENSION vector UPDATE"
            )

    def bypasses(self) -> bool:
        """Whether PostgreSQL does not hold this user to row-level security."""
        with self.reading() as db:
            query = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
            return bool(db.execute(query).fetchone()[0])

    def settle(self, timeout: float, pending: Sequence[int]) -> tuple[str, ...]:
        """Finish some erasures: let the server clear what is dead from its pages, for which nobody may still read it.

        Returns who does after `timeout` seconds, or what else is in the way; () if all is done.
        """
        with self.reading() as db:
            left = self._remove_logs(db)
        try:
            with self.connect() as own:
                own.execute("SET lock_timeout = '1s'")
                left = left or _readers(own, timeout)
                for (name,) in own.execute(_ORPHANS).fetchall():
                    own.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"')
                for table in ("versions", "vectors", "changes", "words", "facets", "users", "jobs"):
                    own.execute(f"VACUUM {table}")
                if not left:
                    own.execute("DELETE FROM erasures WHERE number = ANY(%s)", (list(pending),))
        except self._psycopg.Error as error:  # what was erased is erased: this is tried again
            return (*left, f"the server: {str(error).strip().splitlines()[0]}")
        return left

    def index_big(self, user: str, big: int) -> None:
        """Make an index of a user's vectors, where there are more than so many and it has none.

        What was written before is written whatever becomes of it: what goes wrong is logged, and tried again.
        """
        try:
            with self.reading() as db:
                row = db.execute("SELECT number, live FROM users WHERE name = ?", (user,)).fetchone()
                if row is None or row[1] <= big or has_index(db, row[0]):
                    return
                (size,) = db.execute("SELECT size FROM embedder").fetchone()
            if size <= MOST_INDEXED:
                self._make_index(int(row[0]))
        except (BankError, self._psycopg.Error) as error:
            log.warning("%s: no index was made of a user's vectors (%s)", self.name, error)

    def _make_index(self, number: int) -> None:
        with self.connect() as own:  # others go on meanwhile
            lock = "SELECT pg_try_advisory_lock(hashtextextended(current_schema(), %s))"
            if not own.execute(lock, (1 + number,)).fetchone()[0]:  # type: ignore[index]
                return  # another process makes it
            own.execute(f"DROP INDEX CONCURRENTLY IF EXISTS near_{number}")  # of one that was killed
            own.execute(
                f"CREATE INDEX CONCURRENTLY near_{number} ON vectors USING hnsw (vector vector_ip_ops) "
                f"WHERE owner = {number}"
            )

    @property
    def own(self) -> bool:
        """Whether it is open, and was opened by this process."""
        return not self._closed and os.getpid() == self._process

    def close(self) -> None:
        """Close the connections; a second time does nothing."""
        with self.lock:
            ends = [one for one in (self._db.db if self._db else None, self._turn_db) if one is not None]
            self._db, self._turn_db, self._closed = None, None, True
            if os.getpid() == self._process:
                for db in ends:
                    db.close()
            else:
                _OTHERS.extend(ends)


def has_index(db: Database, number: int) -> bool:
    """Whether a user's vectors have an index that is whole."""
    query = """SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relname = ? AND c.relnamespace = current_schema()::regnamespace AND i.indisvalid"""
    return bool(db.execute(query, (f"near_{number}",)).fetchone()[0])


def _readers(own: psycopg.Connection[Any], timeout: float) -> tuple[str, ...]:
    """Who reads what was there before now, and still does after `timeout` seconds."""
    until = time.monotonic() + timeout
    (now,) = own.execute("SELECT pg_current_xact_id()::xid::text").fetchone()  # type: ignore[misc]
    while True:
        found = own.execute(_OLDER, (now,)).fetchall()
        if not found or time.monotonic() >= until:
            return tuple(f"process {pid} of the server ({name})" for pid, name in found)
        time.sleep(0.1)


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
