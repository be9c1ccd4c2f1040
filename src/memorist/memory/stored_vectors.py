"""The vectors of a stored bank's users in memory: exact nearest neighbours, following the tables commit by commit."""

from __future__ import annotations

import json
import shutil
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from memorist.errors import BankError
from memorist.memory.bank import nearest_rows
from memorist.memory.embed import Vectors
from memorist.memory.stored_find import Nearest
from memorist.memory.stored_search import Database, Versions
from memorist.memory.vector_index import VectorIndex, open_index, write_index

BIG = 20_000
"""Records from which on a user has an index; below, and what is newer than the index, is searched exactly."""

KEPT_BYTES = 256 * 2**20
"""Vectors of users that are kept in memory, those used last."""


@dataclass(frozen=True, slots=True)
class UserVectors:
    """A user's live versions at a commit, by age, with their vectors; never written, so that threads may share it."""

    commit: int
    versions: npt.NDArray[np.int64]
    births: npt.NDArray[np.int64]
    vectors: Vectors

    def nearest(self, query: Vectors, k: int, allowed: Versions | None = None) -> list[tuple[int, float]]:
        """The `k` versions nearest to a unit vector: (version, cosine), best first, ties by age."""
        if allowed is not None:
            rows = np.flatnonzero(np.isin(self.versions, allowed))
            part = replace(self, versions=self.versions[rows], births=self.births[rows], vectors=self.vectors[rows])
            return part.nearest(query, k)
        scores = self.vectors @ query
        found = nearest_rows(scores, lambda rows: self.vectors[rows], query, k)
        return [(int(self.versions[row]), score) for row, score in found]


def load(db: Database, user: str, commit: int | None, size: int) -> UserVectors:
    """What was live at a commit, or with None all that ever was, from the file."""
    query = "SELECT version, birth, vector FROM versions JOIN vectors USING (version) WHERE user = ?"
    if commit is None:
        return _made(0, db.execute(f"{query} ORDER BY birth, version", (user,)).fetchall(), size)
    query += " AND from_commit <= ? AND (to_commit IS NULL OR to_commit > ?) ORDER BY birth"
    return _made(commit, db.execute(query, (user, commit, commit)).fetchall(), size)


def _made(commit: int, rows: Sequence[tuple[int, int, bytes]], size: int) -> UserVectors:
    versions = np.array([row[0] for row in rows], np.int64)
    births = np.array([row[1] for row in rows], np.int64)
    return UserVectors(commit, versions, births, _matrix([row[2] for row in rows], size))


def _matrix(blobs: Sequence[bytes], size: int) -> Vectors:
    joined = b"".join(blobs)
    if len(joined) != 4 * len(blobs) * size:
        raise BankError("a bank holds vectors of the wrong length: its file is damaged; restore a backup")
    return np.frombuffer(joined, "<f4").astype(np.float32, copy=False).reshape(len(blobs), size)


@dataclass(frozen=True, slots=True)
class IndexedVectors:
    """A user of many records: an index of what was live when it was made, and what has come since, exactly.

    `dead` are rows of the index that are not live any more. What is found is computed from the vectors in the file.
    """

    commit: int
    index: VectorIndex
    dead: npt.NDArray[np.bool_]
    tail: UserVectors

    def nearest(
        self, query: Vectors, k: int, allowed: Versions | None, db: Database, user: str
    ) -> list[tuple[int, float]]:
        """The `k` versions nearest to a unit vector: (version, cosine), best first, ties by age."""
        among = None
        if allowed is not None:
            places = np.searchsorted(self.index.versions, allowed)
            places, allowed_there = places[places < len(self.dead)], allowed[places < len(self.dead)]
            among = places[self.index.versions[places] == allowed_there]
        rows = self.index.shortlist(query, k, self.dead, among)
        near = [version for version, _ in self.tail.nearest(query, k, allowed)]
        wanted = [*self.index.versions[rows].tolist(), *near]
        best = _made(self.commit, _rows(db, user, wanted), query.shape[0])
        return best.nearest(query, k)


def among(db: Database, user: str, versions: Sequence[int], commit: int, size: int) -> UserVectors:
    """Those of some versions of a user that are live, from the tables."""
    return _made(commit, _rows(db, user, versions), size)


def _rows(db: Database, user: str, versions: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Live versions of a user with their vectors, by age."""
    # Joined in this order: SQLite would rather walk through all that the user has, which are in the order of birth.
    query = """SELECT version, birth, vector
        FROM json_each(?) wanted CROSS JOIN versions ON version = wanted.value CROSS JOIN vectors USING (version)
        WHERE user = ? AND to_commit IS NULL ORDER BY birth"""
    return db.execute(query, (json.dumps(list(versions)), user)).fetchall()


class VectorCache:
    """Users' vectors at the newest commit. Call it with the connection's lock held, in one transaction.

    Args:
        size: numbers of a vector.
        folder: where indexes of big users are kept; None to do without.
        room: bytes of vectors that are kept in memory.
    """

    def __init__(self, size: int, folder: Path | None = None, room: int = KEPT_BYTES) -> None:
        self.size, self.folder, self.room = size, folder, room
        self._kept: OrderedDict[str, UserVectors | IndexedVectors] = OrderedDict()

    def forget(self) -> None:
        """Drop all: something was erased, or the vectors were made anew."""
        self._kept.clear()

    def at(self, db: Database, user: str, newest: int, as_of: int | datetime) -> Nearest:
        """What finds a user's nearest vectors at a commit; with a time, among all that ever were."""
        if as_of != newest:
            return load(db, user, None if isinstance(as_of, datetime) else as_of, self.size).nearest
        found = self.current(db, user, newest)
        return found.nearest if isinstance(found, UserVectors) else partial(found.nearest, db=db, user=user)

    def current(self, db: Database, user: str, commit: int) -> UserVectors | IndexedVectors:
        """A user's vectors at the newest commit."""
        kept = self._kept.pop(user, None)
        found = None if kept is None else self._followed(db, user, kept, commit)
        if found is None or self._grown(found):
            found = self._loaded(db, user, commit)
        self._kept[user] = found
        total = sum(map(_bytes, self._kept.values()))
        while total > self.room and len(self._kept) > 1:
            total -= _bytes(self._kept.popitem(last=False)[1])
        return found

    def wipe(self, number: int, versions: Versions) -> None:
        """Overwrite what an index holds of some versions."""
        path = self._path(number)
        index = open_index(path) if path is not None and path.exists() else None
        if path is not None and index is not None:
            index.wipe(path, versions)
        elif path is not None:
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all indexes; they are made anew when they are needed."""
        self.forget()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _grown(self, found: UserVectors | IndexedVectors) -> bool:
        if self.folder is None:
            return False
        if isinstance(found, UserVectors):
            return len(found.versions) > BIG
        return len(found.tail.versions) > max(BIG, len(found.index.versions) // 4)

    def _path(self, number: int | None) -> Path | None:
        return None if self.folder is None or number is None else self.folder / f"user{number}.vectors"

    def _loaded(self, db: Database, user: str, commit: int) -> UserVectors | IndexedVectors:
        row = db.execute("SELECT number, live FROM users WHERE name = ?", (user,)).fetchone()
        path = None if row is None else self._path(row[0])
        if path is None or row[1] <= BIG:
            return load(db, user, commit, self.size)
        index = open_index(path)
        if index is not None and index.about["size"] == self.size and _is_of(index, db):
            found = self._over(db, user, commit, index)
            if not self._grown(found):
                return found
        try:
            index = _build(db, user, path, self.size)
        except OSError:  # a full or a read-only disk: then without
            index = None
        return load(db, user, commit, self.size) if index is None else self._over(db, user, commit, index)

    def _over(self, db: Database, user: str, commit: int, index: VectorIndex) -> IndexedVectors:
        """An index with what has changed since it was made."""
        rows = db.execute("SELECT version FROM versions WHERE user = ? AND to_commit IS NULL", (user,))
        live = np.fromiter((version for (version,) in rows), np.int64)
        dead = ~np.isin(index.versions, live, assume_unique=True)
        new = np.setdiff1d(live, index.versions, assume_unique=True)
        return IndexedVectors(commit, index, dead, _made(commit, _rows(db, user, new.tolist()), self.size))

    def _followed(
        self, db: Database, user: str, kept: UserVectors | IndexedVectors, commit: int
    ) -> UserVectors | IndexedVectors | None:
        """`kept` with what later commits changed; None where it must be read anew."""
        if kept.commit == commit:
            return kept
        query = "SELECT coalesce(max(erasure), 0) FROM commits WHERE number > ?"
        if commit < kept.commit or db.execute(query, (kept.commit,)).fetchone()[0]:
            return None
        query = "SELECT before, after FROM changes WHERE user = ? AND number > ? ORDER BY number, position"
        changes = db.execute(query, (user, kept.commit)).fetchall()
        gone = np.array([before for before, _ in changes if before is not None], np.int64)
        new = [after for _, after in changes if after is not None]
        if isinstance(kept, UserVectors):
            return self._changed(db, user, kept, gone, new, commit)
        dead = kept.dead | np.isin(kept.index.versions, gone) if len(gone) else kept.dead
        return IndexedVectors(commit, kept.index, dead, self._changed(db, user, kept.tail, gone, new, commit))

    def _changed(
        self,
        db: Database,
        user: str,
        kept: UserVectors,
        gone: npt.NDArray[np.int64],
        new: Sequence[int],
        commit: int,
    ) -> UserVectors:
        if not len(gone) and not new:
            return replace(kept, commit=commit)
        added = _made(commit, _rows(db, user, new), self.size)  # those that are live still
        stay = ~np.isin(kept.versions, gone)
        versions = np.concatenate([kept.versions[stay], added.versions])
        births = np.concatenate([kept.births[stay], added.births])
        order = np.argsort(births, kind="stable")
        vectors = np.concatenate([kept.vectors[stay], added.vectors])
        return UserVectors(commit, versions[order], births[order], vectors[order])


def _bytes(kept: UserVectors | IndexedVectors) -> int:
    return kept.vectors.nbytes if isinstance(kept, UserVectors) else kept.tail.vectors.nbytes + kept.dead.nbytes


def _build(db: Database, user: str, path: Path, size: int) -> VectorIndex | None:
    """An index of all that a user has now."""
    (count,) = db.execute("SELECT count(*) FROM versions WHERE user = ? AND to_commit IS NULL", (user,)).fetchone()
    rows = db.execute(
        """SELECT version, birth, vector FROM versions JOIN vectors USING (version)
        WHERE user = ? AND to_commit IS NULL ORDER BY version""",
        (user,),
    )
    marks: list[tuple[int, int]] = []

    def blocks() -> Iterator[tuple[list[int], list[int], Vectors]]:
        while some := rows.fetchmany(8192):
            marks.append((some[0][0], zlib.crc32(some[0][2])))
            yield [row[0] for row in some], [row[1] for row in some], _matrix([row[2] for row in some], size)

    return write_index(path, lambda: {"marks": marks}, count, size, blocks())


def _is_of(index: VectorIndex, db: Database) -> bool:
    """Whether the vectors that were marked are still what the file has under their versions, as far as it has them."""
    for version, mark in index.about["marks"]:
        row = db.execute("SELECT vector FROM vectors WHERE version = ?", (version,)).fetchone()
        if row is not None and zlib.crc32(row[0]) != mark:
            return False
    return True
