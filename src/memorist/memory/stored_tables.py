"""The tables of a bank in a database, and every SQL statement that both kinds of database understand.

What one of them says in another way, a `Database` does: how a vector is kept, how a filter's value is kept so that it
compares rightly. What else differs (connections, transactions, locks, migrations) is in `sqlite_file` and
`postgres_server`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np

from memorist.errors import ArgumentError, BankError
from memorist.memory import stored_search as search
from memorist.memory.bank import Block, make_block
from memorist.memory.embed import Embedder
from memorist.memory.embedders import known_embedder
from memorist.memory.overlay import Entry
from memorist.memory.record import MemoryRecord, Scope, clean_text
from memorist.memory.stored_rows import FIELDS, RECORD, columns_of, entry_of, record_of
from memorist.memory.stored_search import Database, Versions

_STORED = f"version, birth, {', '.join(FIELDS)}, from_commit"
_LIVE = "from_commit <= ? AND (to_commit IS NULL OR to_commit > ?)"


class Gone(NamedTuple):
    """One erasure: the commit that it is, the user's number, and the versions."""

    number: int
    user: int | None
    versions: Versions


class Tables(ABC):
    """One connection to the tables, shared by threads under a lock; all errors are `BankError`.

    name: what messages call the database. read_only: whether writing is refused.
    """

    name: str
    read_only: bool
    lock: RLock
    _made_with: str | None = None
    _unreadable: str = "restore a backup"

    @abstractmethod
    def reading(self, user: str | None = None) -> AbstractContextManager[Database]:
        """The connection, for statements that only read, of one user alone where one is given."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for others to have written, before the lock is taken, so that nobody who reads waits too. Where the
        database can only wait inside a transaction it does nothing."""
        yield

    @abstractmethod
    def writing(self) -> AbstractContextManager[Database]:
        """The connection in a transaction, which no other writer shares: on disk when the block ends, undone if it
        raises."""

    @abstractmethod
    def moment(self, user: str) -> AbstractContextManager[tuple[Database, int]]:
        """The connection and the newest commit, in a transaction: what is read in it of a user belongs together."""

    @abstractmethod
    def narrow(self, db: Database, user: str) -> None:
        """From here on the transaction is about one user alone, as far as the database can be told."""

    @abstractmethod
    def prepare(self, embedder: Embedder | None) -> Embedder:
        """Bring the tables up to date; returns the embedder that they were made with."""

    @abstractmethod
    def settle(self, timeout: float, pending: Sequence[int]) -> tuple[str, ...]:
        """Finish some erasures; returns who stands in the way after `timeout` seconds, () if all is done."""

    @property
    @abstractmethod
    def own(self) -> bool:
        """Whether it is open, and was opened by this process."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; a second time does nothing."""

    def _version(self, db: Database) -> int:
        return int(db.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchone()[0])

    def _embedder(self, db: Database, given: Embedder | None) -> Embedder:
        name, size = db.execute("SELECT name, size FROM embedder").fetchone()
        embedder = given or known_embedder(name, size)
        if (embedder.name, embedder.size) == (name, size):
            self._made_with = name
            return embedder
        asked = f"opened with {given.name!r} ({given.size})" if given else "opened without one"
        raise BankError(
            f"{self.name}: made with embedder {name!r} (vectors of {size}), {asked}; open it with the first, "
            f"or make its vectors anew with `memorist reembed NAME --file {self.name}`"
        )

    def _need_same_embedder(self, db: Database) -> None:
        if self._made_with is not None:
            name = db.execute("SELECT name FROM embedder").fetchone()[0]
            if name != self._made_with:
                raise BankError(
                    f"{self.name}: opened with embedder {self._made_with!r}, and since then its vectors were made anew "
                    f"with {name!r}; open it again"
                )

    def own_log(self, path: str, user: str) -> None:
        """Take a file that holds a user's text for this file's own: it goes when something of the user's is erased."""
        with self.writing() as db:
            query = "INSERT INTO logs VALUES (?, ?, 0) ON CONFLICT (path, user) DO UPDATE SET doomed = 0"
            db.execute(query, (path, user))

    def _remove_logs(self, db: Database) -> tuple[str, ...]:
        """Remove the logs of what was erased; those that cannot be, with the reason."""
        left = []
        for (path,) in db.execute("SELECT DISTINCT path FROM logs WHERE doomed = 1").fetchall():
            try:
                Path(path).unlink(missing_ok=True)
                db.execute("DELETE FROM logs WHERE path = ?", (path,))
            except OSError as error:
                left.append(f"{path} ({error.strerror}; remove it, then close or open the memory)")
        return tuple(left)

    def pending(self) -> list[int]:
        """The erasures whose older pages may still be there."""
        with self.reading() as db:
            return [number for (number,) in db.execute("SELECT number FROM erasures")]

    def note_copy(self, path: str, kind: str, at: datetime) -> None:
        """Remember that what is here was copied elsewhere."""
        with self.writing() as db:
            db.execute("INSERT INTO copies VALUES (?, ?, ?)", (path, kind, at.isoformat()))

    def copies(self) -> list[tuple[str, str, str]]:
        """(path, kind, time) of the copies that were made."""
        with self.reading() as db:
            return db.execute("SELECT path, kind, at FROM copies ORDER BY rowid").fetchall()

    def newest(self) -> int:
        """Number of the newest commit."""
        with self.reading() as db:
            return int(db.execute("SELECT coalesce(max(number), 0) FROM commits").fetchone()[0])

    def born_until(self, record_id: str, scope: Scope) -> set[str]:
        """Ids of a user's records that are not younger than one of them.

        Raises:
            ArgumentError: there is no such record in the scope.
        """
        with self.reading(scope.user) as db:
            query = "SELECT birth, user, agent, session FROM versions WHERE id = ? AND user = ? LIMIT 1"
            row = db.execute(query, (clean_text(record_id), scope.user)).fetchone()
            if row is None or not scope.covers(Scope(*row[1:])):
                raise ArgumentError(
                    f"after is {record_id!r}, and there is no such record in this scope (was it removed?); give the id "
                    "of one that is there"
                )
            query = "SELECT DISTINCT id FROM versions WHERE user = ? AND birth <= ?"
            return {found for (found,) in db.execute(query, (scope.user, row[0]))}

    def since(self, after: int, upto: int) -> list[Entry] | None:
        """What commits later than `after` changed; None if something was erased, or they are not later."""
        with self.reading() as db:
            found = self.entries("c.number > ? AND c.number <= ?", (after, upto), vectors=True)
            # Asked second, so that it knows of every erasure that the first could not see the changes of.
            query = "SELECT max(erasure) FROM commits WHERE number > ?"
            return found if db.execute(query, (after,)).fetchone()[0] == 0 else None

    def entries(
        self, where: str, values: Sequence[object], *, vectors: bool = False, user: str | None = None
    ) -> list[Entry]:
        """Changes, oldest first; with the vectors after them if asked. user: of one alone."""
        query = f"""SELECT c.number, c.kind, c.reason, {RECORD.format("b")}, {RECORD.format("a")},
                {"v.vector" if vectors else "NULL"}
            FROM changes c LEFT JOIN versions b ON b.version = c.before
                LEFT JOIN versions a ON a.version = c.after
                {"LEFT JOIN vectors v ON v.version = c.after" if vectors else ""}
            WHERE {where} ORDER BY c.number, c.position"""
        with self.reading(user) as db:
            return [entry_of(row) for row in db.execute(query, tuple(values))]

    def records(self, where: str, values: Sequence[object], commit: int) -> list[MemoryRecord]:
        """Records that were live at a commit, oldest first."""
        query = f"SELECT {RECORD.format('r')} FROM versions r WHERE {where} AND {_LIVE} ORDER BY birth"
        with self.reading() as db:
            return [record_of(row) for row in db.execute(query, (*values, commit, commit))]

    def block(self, user: str, commit: int, size: int) -> Block:
        """A user's records that were live at a commit, with their vectors."""
        query = f"""SELECT {RECORD.format("r")}, v.vector FROM versions r JOIN vectors v USING (version)
            WHERE user = ? AND {_LIVE} ORDER BY birth"""
        with self.reading(user) as db:
            rows = db.execute(query, (user, commit, commit)).fetchall()
        joined = b"".join(row[len(FIELDS)] for row in rows)
        if len(joined) != 4 * len(rows) * size:
            raise BankError(f"{self.name}: vectors of the wrong length; {self._unreadable}")
        vectors = np.frombuffer(joined, "<f4").astype(np.float32, copy=False).reshape(len(rows), size)
        return make_block([record_of(row) for row in rows], vectors)

    def users(self, commit: int) -> list[str]:
        """Users that had live records at a commit, sorted."""
        with self.reading() as db:
            rows = db.execute(f"SELECT DISTINCT user FROM versions WHERE {_LIVE}", (commit, commit))
            return sorted(user for (user,) in rows)

    def insert(self, entries: Sequence[Entry], at: datetime) -> None:
        """Write one commit's changes; call it in a transaction."""
        with self.reading() as db:
            commit = entries[0][0].commit
            db.execute("INSERT INTO commits VALUES (?, ?, 0)", (commit, at.isoformat()))
            version = db.execute("SELECT version FROM numbers").fetchone()[0]
            for position, (change, vector) in enumerate(entries):
                before, birth = None, version + 1
                if change.before is not None:
                    query = "SELECT version, birth FROM versions WHERE id = ? AND to_commit IS NULL"
                    before, birth = db.execute(query, (change.record_id,)).fetchone()
                    db.execute("UPDATE versions SET to_commit = ? WHERE version = ?", (commit, before))
                if change.after is not None and vector is not None:
                    version += 1
                    row = (version, birth, *columns_of(change.after), commit)
                    db.execute(f"INSERT INTO versions ({_STORED}) VALUES ({', '.join('?' * len(row))})", row)
                    search.add(db, version, change.after)
                    db.keep_vector(version, vector)
                search.count_live(db, change.scope.user, (change.after is not None) - (change.before is not None))
                after = None if change.after is None else version
                named = (commit, position, change.kind.value, change.record_id, change.scope.user)
                row = (*named, before, after, change.reason)
                db.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            db.execute("UPDATE numbers SET version = ?", (version,))

    def delete(self, scope: Scope, ids: Sequence[str] | None = None) -> tuple[Gone, int]:
        """Delete all that `scope` covers, or of that only some records. Call it in a transaction.

        Returns what is gone, and how many of it were live.
        """
        query = f"SELECT r.version, r.to_commit IS NULL, {RECORD.format('r')} FROM versions r WHERE user = ?"
        values: list[object] = [scope.user]
        if ids is not None:
            query += " AND id IN (SELECT value FROM json_each(?))"
            values.append(json.dumps([one for one in ids if clean_text(one) == one]))
        count, gone = 0, []
        with self.reading() as db:
            user = search.user_number(db, scope.user)
            for version, live, *row in db.execute(query, values).fetchall():
                record = record_of(row)
                if not scope.covers(record.scope):
                    continue
                self.drop_vector(db, version)
                db.execute("DELETE FROM versions WHERE version = ?", (version,))
                db.execute("DELETE FROM changes WHERE id = ?", (record.id,))
                search.count_live(db, scope.user, -live)
                search.remove(db, version, record)
                gone.append(version)
                count += live
            db.execute("INSERT INTO commits SELECT coalesce(max(number), 0) + 1, NULL, 1 FROM commits")
            (number,) = db.execute("SELECT max(number) FROM commits").fetchone()
            db.execute("INSERT INTO erasures VALUES (?)", (number,))
            db.execute("UPDATE logs SET doomed = 1 WHERE user = ?", (scope.user,))
            _delete_jobs(db, scope, ids is not None)
        return Gone(number, user, np.array(gone, np.int64)), count

    def drop_vector(self, db: Database, version: int) -> None:
        """Forget the vector of a version."""
        db.execute("DELETE FROM vectors WHERE version = ?", (version,))

    def times(self, first: int, last: int) -> dict[int, str]:
        """When commits were made, in the form of ISO 8601; those of erasures have no time."""
        with self.reading() as db:
            query = "SELECT number, at FROM commits WHERE number >= ? AND number <= ? AND at IS NOT NULL"
            return {int(number): str(at) for number, at in db.execute(query, (first, last))}

    def live(self, prefix: str) -> int:
        """How many live records users have whose name begins so; it ends in an ASCII letter or mark."""
        with self.reading() as db:
            query = "SELECT coalesce(sum(live), 0) FROM users WHERE name >= ? AND name < ?"
            return int(db.execute(query, (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))).fetchone()[0])

    def by_version(self, versions: Sequence[int], commit: int | None) -> dict[int, MemoryRecord]:
        """Those of some versions that were live at a commit, or with None all of them, by age."""
        live, values = ("", ()) if commit is None else (f"AND {_LIVE}", (commit, commit))
        query = f"""SELECT r.version, {RECORD.format("r")} FROM versions r
            WHERE version IN (SELECT value FROM json_each(?)) {live} ORDER BY birth, version"""
        with self.reading() as db:
            rows = db.execute(query, (json.dumps(list(versions)), *values)).fetchall()
        return {int(version): record_of(row) for version, *row in rows}

    def of_user(self, user: str, commit: int | None, allowed: Versions | None) -> list[MemoryRecord]:
        """A user's records that were live at a commit, oldest first; of the allowed versions, with None whenever."""
        if allowed is not None:
            return list(self.by_version(allowed.tolist(), commit).values())
        if commit is None:
            raise ValueError("all versions of a user are never asked for")
        return self.records("user = ?", (user,), commit)

    def need_writable(self) -> None:
        """Raise if the file was opened for reading."""
        if self.read_only:
            raise BankError(f"{self.name}: opened with read_only=True; open it without to write, or fork it")


def _delete_jobs(db: Database, scope: Scope, some: bool) -> None:
    """Forget jobs of a scope; where only some records go, those that may tell of them because they ended."""
    query, values = "DELETE FROM jobs WHERE user = ?", [scope.user]
    for name, value in (("agent", scope.agent), ("session", scope.session)):
        if value and not some:
            query, values = f"{query} AND {name} = ?", [*values, value]
    db.execute(query + (" AND state IN ('done', 'failed')" if some else ""), values)


def fill_search(db: Database) -> None:
    """Make every version findable; the tables of search are empty."""
    for version, live, *row in db.execute(
        f"SELECT r.version, r.to_commit IS NULL, {RECORD.format('r')} FROM versions r ORDER BY r.version"
    ).fetchall():
        record = record_of(row)
        search.add(db, version, record)
        search.count_live(db, record.scope.user, int(live))
