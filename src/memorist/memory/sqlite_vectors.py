"""The vectors of an `SQLiteBank`'s users in memory: exact nearest neighbours, following the file commit by commit."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from memorist.errors import BankError
from memorist.memory.bank import nearest_rows
from memorist.memory.embed import Vectors
from memorist.memory.sqlite_search import Versions

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


def load(db: sqlite3.Connection, user: str, commit: int | None, size: int) -> UserVectors:
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


class VectorCache:
    """Users' vectors at the newest commit. Call it with the connection's lock held, in one transaction."""

    def __init__(self, size: int, room: int = KEPT_BYTES) -> None:
        self.size, self.room = size, room
        self._kept: OrderedDict[str, UserVectors] = OrderedDict()

    def forget(self) -> None:
        """Drop all: something was erased, or the vectors were made anew."""
        self._kept.clear()

    def at(self, db: sqlite3.Connection, user: str, commit: int) -> UserVectors:
        """A user's vectors at the newest commit."""
        kept = self._kept.pop(user, None)
        found = None if kept is None else self._followed(db, user, kept, commit)
        if found is None:
            found = load(db, user, commit, self.size)
        self._kept[user] = found
        total = sum(one.vectors.nbytes for one in self._kept.values())
        while total > self.room and len(self._kept) > 1:
            total -= self._kept.popitem(last=False)[1].vectors.nbytes
        return found

    def _followed(self, db: sqlite3.Connection, user: str, kept: UserVectors, commit: int) -> UserVectors | None:
        """`kept` with what later commits changed; None where it must be read anew."""
        if kept.commit == commit:
            return kept
        query = "SELECT coalesce(max(erasure), 0) FROM commits WHERE number > ?"
        if commit < kept.commit or db.execute(query, (kept.commit,)).fetchone()[0]:
            return None
        changes = db.execute("SELECT before, after FROM changes WHERE user = ? AND number > ?", (user, kept.commit))
        before, after = zip(*changes.fetchall() or [(None, None)], strict=True)
        gone = {version for version in before if version is not None}
        new = [version for version in after if version is not None and version not in gone]
        if not gone and not new:
            return replace(kept, commit=commit)
        rows = [
            db.execute(
                "SELECT version, birth, vector FROM versions JOIN vectors USING (version) WHERE version = ?", (v,)
            ).fetchone()
            for v in new
        ]
        added = _made(commit, rows, self.size)
        stay = ~np.isin(kept.versions, np.fromiter(gone, np.int64))
        versions = np.concatenate([kept.versions[stay], added.versions])
        births = np.concatenate([kept.births[stay], added.births])
        order = np.argsort(births, kind="stable")
        vectors = np.concatenate([kept.vectors[stay], added.vectors])
        return UserVectors(commit, versions[order], births[order], vectors[order])
