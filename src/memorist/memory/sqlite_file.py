"""The file of an `SQLiteBank`: one connection to it, transactions, migrations, and what erasing leaves to do."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import RLock

from memorist.errors import BankError
from memorist.memory import stored_search as search
from memorist.memory.embed import Embedder, HashedEmbedder, Vectors
from memorist.memory.filters import Value
from memorist.memory.readers import readers_of
from memorist.memory.sqlite_tables import APPLICATION, MIGRATIONS
from memorist.memory.stored_search import Database
from memorist.memory.stored_tables import Tables, fill_search

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


def claim(path: Path) -> None:
    """Make an empty file, for a copy of what a bank holds.

    Raises:
        BankError: there is one, or none can be made there.
    """
    try:
        path.touch(mode=0o600, exist_ok=False)  # what is remembered is personal
    except FileExistsError:
        raise BankError(f"{path}: there is a file already; give a path that is free") from None
    except OSError as error:
        raise BankError(f"{path}: cannot be written ({error.strerror}); give a path whose folder is there") from error


class Connection(sqlite3.Connection):
    """A connection that keeps vectors as bytes, and values as they are: SQLite compares them as filters say."""

    def keep_vector(self, version: int, vector: Vectors) -> None:
        """Store a vector beside its version."""
        self.execute("INSERT INTO vectors VALUES (?, ?)", (version, vector.astype("<f4").tobytes()))

    def keep_facets(self, rows: Sequence[tuple[int, str, str, Value, int]]) -> None:
        """Store what filters can ask."""
        self.executemany("INSERT INTO facets VALUES (?, ?, ?, ?, ?)", rows)

    def facet(self, value: Value) -> object:
        """A facet's field or value as it is stored."""
        return value


class BankFile(Tables):
    """One connection to the file, shared by threads under a lock; all errors are `BankError`."""

    _unreadable = _ADVICE["SQLITE_CORRUPT"]

    def __init__(self, path: Path, read_only: bool) -> None:
        self.path, self.name, self.read_only = path, str(path), read_only
        self.lock = RLock()
        self._process = os.getpid()
        self._identity: tuple[int, int] | None = None
        self._db: Connection | None = None
        if not read_only:
            with suppress(BankError):  # it is there, or what is wrong is told by who opens it
                claim(path)
        with self._explained():
            self._db = sqlite3.connect(
                self._uri(),
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                factory=Connection,
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
    def reading(self, user: str | None = None) -> Iterator[Connection]:
        """The connection, for statements that only read."""
        with self.lock, self._explained():
            if self._db is None:
                raise BankError(f"{self.path}: the bank is closed; open it again")
            if os.getpid() != self._process:
                raise BankError(f"{self.path}: opened by another process; open it again in this one")
            yield self._db

    @contextmanager
    def writing(self) -> Iterator[Connection]:
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

    def narrow(self, db: Database, user: str) -> None:
        """SQLite knows no rows that are somebody's."""

    def drop_vector(self, db: Database, version: int) -> None:
        """Forget the vector of a version, that one too which is being made anew."""
        super().drop_vector(db, version)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'new_vectors'").fetchone() is not None:
            db.execute("DELETE FROM new_vectors WHERE version = ?", (version,))

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

    def copy_to(self, path: Path) -> None:
        """A whole copy of the file as it stands now, while others go on writing."""
        with self.reading() as db, closing(sqlite3.connect(path)) as copy:
            db.backup(copy)
            with copy:
                copy.execute("DELETE FROM logs")  # they are the original's

    @contextmanager
    def moment(self, user: str) -> Iterator[tuple[Connection, int]]:
        """The connection and the newest commit, in a transaction: what is read in it belongs together."""
        with self.reading() as db:
            db.execute("BEGIN")
            try:
                self._need_same_embedder(db)
                yield db, self.newest()
            finally:
                db.execute("ROLLBACK")
