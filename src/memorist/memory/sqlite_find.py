"""How an `SQLiteBank` answers a query: candidates from words and vectors, looked up in the versions, fused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property, reduce

import numpy as np

from memorist.memory import sqlite_search as search
from memorist.memory.bank import Hit
from memorist.memory.embed import Vectors
from memorist.memory.filters import Filter, Join, Test
from memorist.memory.fusion import fuse
from memorist.memory.record import MemoryRecord, Scope, instant
from memorist.memory.sqlite_file import BankFile
from memorist.memory.sqlite_search import Versions
from memorist.memory.sqlite_vectors import IndexedVectors, UserVectors, VectorCache, load

Ranked = list[tuple[int, float]]
Ask = Callable[["View", int], Ranked]
FEWEST = 50
"""Candidates of each kind that are fused at least."""


def scope_filter(scope: Scope) -> Filter | None:
    """A filter for the parts of a scope below its user; None if there are none."""
    tests = [
        Test(f"@{name}", "eq", (("s", value),))
        for name, value in (("agent", scope.agent), ("session", scope.session))
        if value
    ]
    return Join("and", tuple(tests)) if len(tests) > 1 else tests[0] if tests else None


class View:
    """One user's searchable state at a commit or a time, inside a transaction."""

    def __init__(
        self,
        db: sqlite3.Connection,
        cache: VectorCache,
        scope: Scope,
        filters: Sequence[Filter],
        newest: int,
        as_of: int | datetime,
    ) -> None:
        self._db, self._cache = db, cache
        self.scope, self._filters, self._newest, self.as_of = scope, filters, newest, as_of
        self.user = search.user_number(db, scope.user)

    @cached_property
    def allowed(self) -> Versions | None:
        """The versions that pass the filters; None if all do."""
        if self.user is None:
            return None
        found = [search.matching(self._db, self.user, part) for part in self._filters]
        if isinstance(self.as_of, datetime):
            found.append(search.held(self._db, self.scope.user, self.as_of))
        if not found:
            return None
        return reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), found)

    @cached_property
    def _vectors(self) -> UserVectors | IndexedVectors:
        if self.as_of == self._newest:
            return self._cache.at(self._db, self.scope.user, self._newest)
        return load(
            self._db, self.scope.user, None if isinstance(self.as_of, datetime) else self.as_of, self._cache.size
        )

    def live(self, versions: Sequence[int], file: BankFile) -> dict[int, MemoryRecord]:
        """Those that may be shown, by age."""
        found = file.by_version(versions, None if isinstance(self.as_of, datetime) else self.as_of)
        return {version: record for version, record in found.items() if self.scope.covers(record.scope)}

    def records(self, file: BankFile) -> list[MemoryRecord]:
        """All that may be shown, oldest first."""
        commit = None if isinstance(self.as_of, datetime) else self.as_of
        return [r for r in file.of_user(self.scope.user, commit, self.allowed) if self.scope.covers(r.scope)]

    def nearest(self, vector: Vectors, limit: int) -> Ranked:
        """By vector: (version, cosine)."""
        if self.user is None:
            return []
        if isinstance(self._vectors, UserVectors):
            return self._vectors.nearest(vector, limit, self.allowed)
        return self._vectors.nearest(vector, limit, self.allowed, self._db, self.scope.user)

    def by_words(self, terms: Sequence[str], limit: int) -> Ranked:
        """By words: (version, BM25)."""
        return [] if self.user is None else search.by_words(self._db, self.user, terms, limit, self.allowed)


def found(
    view: View, file: BankFile, asks: Mapping[str, Ask], k: int, now: datetime | None, half_life: timedelta | None
) -> list[Hit]:
    """The `k` best hits. What turns out to be dead or expired takes no place: then more candidates are asked for."""
    limit = max(FEWEST, 4 * k) if len(asks) > 1 else k
    moment = None if now is None else instant(now)
    while k > 0:
        lists = {name: ask(view, limit) for name, ask in asks.items()}
        versions = list({version for ranked in lists.values() for version, _ in ranked})
        records = view.live(versions, file)
        if now is not None:
            records = {version: record for version, record in records.items() if not record.has_expired(now)}
        hits = fuse(lists, records, now=moment, half_life=half_life)
        if len(hits) >= k or all(len(ranked) < limit for ranked in lists.values()):
            return hits[:k]
        limit *= 4
    return []
