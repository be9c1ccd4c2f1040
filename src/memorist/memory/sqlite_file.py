"""The file of an `SQLiteBank`: its tables, its migrations, one connection to it, and every SQL statement."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np

from memorist.errors import ArgumentError, BankError
from memorist.memory import sqlite_search as search
from memorist.memory.bank import Block, make_block
from memorist.memory.embed import Embedder, HashedEmbedder
from memorist.memory.embedders import known_embedder
from memorist.memory.overlay import Entry
from memorist.memory.readers import readers_of
from memorist.memory.record import MemoryRecord, Scope, clean_text
from memorist.memory.sqlite_rows import FIELDS, RECORD, columns_of, entry_of, record_of
from memorist.memory.sqlite_search import Versions
from memorist.memory.sqlite_tables import APPLICATION, MIGRATIONS, fill_search

BUSY_SECONDS = 60.0
"""How long a call waits for another process that is writing."""

_ADVICE = {
    "SQLITE_FULL": "the disk is full, and nothing of this call was stored; free some space and try again",
    "SQLITE_READONLY": "the file cannot be written; check its permissions, or open it with read_only=True",
    "SQLITE_CANTOPEN": "the file cannot be opened; check that its folder exists and may be written",
    "SQLITE_NOTADB": "this is not a bank, or a damaged one; check the path, or restore a backup",
    "SQLITE_CORRUPT": "the file is damaged; restore a backup, or salvage it with `sqlite3 FILE .recover`",
    "SQLITE_BUSY": f"another process has kept the file locked for {BUSY_SECONDS:.0f} s; try again",
    "SQLITE_IOERR": "the disk cannot be read or written; nothing of this call was acknowledged",
}


_STORED = f"version, birth, {', '.join(FIELDS)}, from_commit"
_LIVE = "from_commit <= ? AND (to_commit IS NULL OR to_commit > ?)"


def claim(path: Path) -> None:
    """Make an empty file, for a copy of what a bank holds.

    Raises:
        BankError: there is one, or none can be made there.
    """
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        raise BankError(f"{path}: there is a file already; give a path that is free") from None
    except OSError as error:
        raise BankError(f"{path}: cannot be written ({error.strerror}); give a path whose folder is there") from error


class Gone(NamedTuple):
    """One erasure: the commit that it is, the user's number, and the versions."""

    number: int
    user: int | None
    versions: Versions


class BankFile:
    """One connection to the file, shared by threads under a lock; all errors are `BankError`."""

    def __init__(self, path: Path, read_only: bool) -> None:
        self.path, self.read_only = path, read_only
        self.lock = RLock()
        self._process = os.getpid()
        self._made_with: str | None = None
        self._identity: tuple[int, int] | None = None
        self._db: sqlite3.Connection | None = None
        with self._explained():
            self._db = sqlite3.connect(
                self._uri(), uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )

    def _uri(self) -> str:
        mode = "ro" if self.read_only else "rwc"
        folder, log = self.path.absolute().parent, Path(f"{self.path}-wal")
        # A file with a write-ahead log is read through a file beside it. Where that cannot be made, nobody
        # can be writing either.
        fixed = self.read_only and not os.access(folder, os.W_OK) and not log.exists()
        return f"{self.path.absolute().as_uri()}?mode={mode}{'&immutable=1' if fixed else ''}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            advice = next((text for code, text in _ADVICE.items() if name.startswith(code)), "")
            raise BankError(f"{self.path}: {error}" + (f": {advice}" if advice else "")) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for statements that only read."""
        with self.lock, self._explained():
            if self._db is None:
                raise BankError(f"{self.path}: the bank is closed; open it again")
            if os.getpid() != self._process:
                raise BankError(f"{self.path}: opened by another process; open it again in this one")
            yield self._db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction: on disk when the block ends, undone if it raises."""
        with self.reading() as db:
            self.need_writable()
            self._need_same_file()
            db.execute("BEGIN IMMEDIATE")
            try:
                self._need_same_embedder(db)
                yield db
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # some errors have undone it already
                    db.execute("ROLLBACK")
                raise

    def _need_same_file(self) -> None:
        """Raise if the file is not that which was opened: what is written would be gone when it is closed."""
        now = self.path.stat() if self.path.exists() else None
        if self._identity is None and now is not None:
            self._identity = (now.st_dev, now.st_ino)
        elif now is None or (now.st_dev, now.st_ino) != self._identity:
            raise BankError(f"{self.path}: the file was removed or replaced since it was opened; open it again")

    def need_writable(self) -> None:
        """Raise if the file was opened for reading."""
        if self.read_only:
            raise BankError(f"{self.path}: opened with read_only=True; open it without to write, or fork it")

    def prepare(self, embedder: Embedder | None) -> Embedder:
        """Bring the tables up to date; returns the embedder that the file was made with."""
        self.bring_up_to_date(embedder)
        with self.reading() as db:
            return self._embedder(db, embedder)

    def bring_up_to_date(self, embedder: Embedder | None) -> None:
        """Make the tables, or those that an older version did not have; a new file is for this embedder."""
        with self.reading() as db:
            if self.path.exists():
                self._need_same_file()
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
                raise BankError(f"{self.path}: an SQLite file, but not of a bank; give another path")
            if not tables and self.read_only:
                raise BankError(f"{self.path}: there is no bank in this file; open it without read_only first")
            if not self.read_only:
                self._use_log(db)
            if not tables or self._version(db) < len(MIGRATIONS):
                self._migrate(embedder)
            if self._version(db) > len(MIGRATIONS):
                raise BankError(
                    f"{self.path}: made by a newer version of Memorist (tables {self._version(db)}, this one "
                    f"knows {len(MIGRATIONS)}); update with `pip install -U memorist`"
                )
            if not self.read_only and not search.current(db):
                with self.writing():
                    search.clear(db)
                    fill_search(db)

    def _use_log(self, db: sqlite3.Connection) -> None:
        """Turn on the write-ahead log. SQLite does not wait for others here, so this does."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
                if not busy or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _version(self, db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchone()[0])

    def _migrate(self, embedder: Embedder | None) -> None:
        with self.writing() as db:
            db.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL)")
            done = self._version(db)
            for number, step in enumerate(MIGRATIONS, 1):
                if number > done:
                    step(db)
                    db.execute("INSERT INTO migrations VALUES (?, ?)", (number, step.__name__.lstrip("_")))
            if not done:
                made_with = embedder or HashedEmbedder()
                db.execute("INSERT INTO embedder VALUES (?, ?)", (made_with.name, made_with.size))

    def _embedder(self, db: sqlite3.Connection, given: Embedder | None) -> Embedder:
        name, size = db.execute("SELECT name, size FROM embedder").fetchone()
        embedder = given or known_embedder(name, size)
        if (embedder.name, embedder.size) == (name, size):
            self._made_with = name
            return embedder
        asked = f"opened with {given.name!r} ({given.size})" if given else "opened without one"
        raise BankError(
            f"{self.path}: made with embedder {name!r} (vectors of {size}), {asked}; open it with the first, "
            f"or make its vectors anew with `memorist reembed NAME --file {self.path}`"
        )

    def _need_same_embedder(self, db: sqlite3.Connection) -> None:
        if self._made_with is not None:
            name = db.execute("SELECT name FROM embedder").fetchone()[0]
            if name != self._made_with:
                raise BankError(
                    f"{self.path}: opened with embedder {self._made_with!r}, and since then its vectors were made anew "
                    f"with {name!r}; open it again"
                )

    @property
    def own(self) -> bool:
        """Whether it is open, and was opened by this process."""
        return self._db is not None and os.getpid() == self._process

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        with self.lock, self._explained():
            if self._db is not None:
                self._db.close()
                self._db = None

    def settle(self, timeout: float, pending: Sequence[int]) -> tuple[str, ...]:
        """Finish some erasures: move the log into the file and empty it, so that no older page is left anywhere.

        Returns who still reads older pages after `timeout` seconds; () if all is done.
        """
        until = time.monotonic() + timeout
        with self.reading() as db:
            db.execute("PRAGMA busy_timeout = 100")
            try:
                while True:
                    busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                    left = self._remove_logs(db)
                    if left and not busy:
                        return left
                    if not busy:  # what others erase meanwhile is theirs to finish
                        query = "DELETE FROM erasures WHERE number IN (SELECT value FROM json_each(?))"
                        db.execute(query, (json.dumps(list(pending)),))
                        return ()
                    if time.monotonic() >= until:
                        return readers_of(self.path)
            except sqlite3.OperationalError as error:
                if not getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
                    raise
                return readers_of(self.path)
            finally:
                db.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")

    def _remove_logs(self, db: sqlite3.Connection) -> tuple[str, ...]:
        """Remove the logs of what was erased; those that cannot be, with the reason."""
        left = []
        for (path,) in db.execute("SELECT DISTINCT path FROM logs WHERE doomed").fetchall():
            try:
                Path(path).unlink(missing_ok=True)
                db.execute("DELETE FROM logs WHERE path = ?", (path,))
            except OSError as error:
                left.append(f"{path} ({error.strerror}; remove it, then close or open the memory)")
        return tuple(left)

    def own_log(self, path: str, user: str) -> None:
        """Take a file that holds a user's text for this file's own: it goes when something of the user's is erased."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO logs VALUES (?, ?, 0)", (path, user))

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

    def copy_to(self, path: Path) -> None:
        """A whole copy of the file as it stands now, while others go on writing."""
        with self.reading() as db, closing(sqlite3.connect(path)) as copy:
            db.backup(copy)
            with copy:
                copy.execute("DELETE FROM logs")  # they are the original's

    def newest(self) -> int:
        """Number of the newest commit."""
        with self.reading() as db:
            return int(db.execute("SELECT coalesce(max(number), 0) FROM commits").fetchone()[0])

    def born_until(self, record_id: str, scope: Scope) -> set[str]:
        """Ids of a user's records that are not younger than one of them.

        Raises:
            ArgumentError: there is no such record in the scope.
        """
        with self.reading() as db:
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

    def entries(self, where: str, values: Sequence[object], *, vectors: bool = False) -> list[Entry]:
        """Changes, oldest first; with the vectors after them if asked."""
        query = f"""SELECT c.number, c.kind, c.reason, {RECORD.format("b")}, {RECORD.format("a")},
                {"v.vector" if vectors else "NULL"}
            FROM changes c LEFT JOIN versions b ON b.version = c.before
                LEFT JOIN versions a ON a.version = c.after
                {"LEFT JOIN vectors v ON v.version = c.after" if vectors else ""}
            WHERE {where} ORDER BY c.number, c.position"""
        with self.reading() as db:
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
        with self.reading() as db:
            rows = db.execute(query, (user, commit, commit)).fetchall()
        joined = b"".join(row[len(FIELDS)] for row in rows)
        if len(joined) != 4 * len(rows) * size:
            raise BankError(f"{self.path}: vectors of the wrong length; {_ADVICE['SQLITE_CORRUPT']}")
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
                    db.execute("INSERT INTO vectors VALUES (?, ?)", (version, vector.astype("<f4").tobytes()))
                    search.add(db, version, change.after)
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
            values.append(json.dumps(list(ids)))
        count, gone = 0, []
        with self.reading() as db:
            made_anew = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'new_vectors'").fetchone() is not None
            user = search.user_number(db, scope.user)
            for version, live, *row in db.execute(query, values).fetchall():
                record = record_of(row)
                if not scope.covers(record.scope):
                    continue
                db.execute("DELETE FROM vectors WHERE version = ?", (version,))
                if made_anew:
                    db.execute("DELETE FROM new_vectors WHERE version = ?", (version,))
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
        return Gone(number, user, np.array(gone, np.int64)), count

    @contextmanager
    def moment(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """The connection and the newest commit, in a transaction: what is read in it belongs together."""
        with self.reading() as db:
            db.execute("BEGIN")
            try:
                self._need_same_embedder(db)
                yield db, self.newest()
            finally:
                db.execute("ROLLBACK")

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
