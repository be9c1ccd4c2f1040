"""How an `SQLiteBank` answers a query: candidates from words and vectors, looked up in the versions, fused."""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, reduce
from typing import Protocol

import numpy as np

from memorist.memory import sqlite_search as search
from memorist.memory.bank import Hit
from memorist.memory.embed import Vectors
from memorist.memory.filters import Filter, Join, Test
from memorist.memory.fusion import fuse
from memorist.memory.record import Kind, MemoryRecord, Operation, Scope, instant, payload_json, readable
from memorist.memory.sqlite_file import BankFile
from memorist.memory.sqlite_search import Versions
from memorist.memory.sqlite_vectors import IndexedVectors, UserVectors, VectorCache, load
from memorist.memory.sqlite_words import WordIndex
from memorist.memory.words import words

Ranked = list[tuple[int, float]]
FEWEST = 20
"""Candidates of each kind that are fused at least. What one kind found has its score of the other computed, so few are
enough: on conversations 20 order the first ten as 200 do."""


NEAR = 8
"""Records that are looked at for one that a new text nearly repeats."""


class Ask(Protocol):
    """One kind of question to a view."""

    def best(self, view: View, limit: int) -> Ranked:
        """The best versions, best first."""
        ...

    def of(self, view: View, versions: Versions) -> Ranked:
        """The scores of some versions; what has none is left out."""
        ...


@dataclass(frozen=True, slots=True)
class ByVector:
    """By nearness to a unit vector: cosines."""

    vector: Vectors

    def best(self, view: View, limit: int) -> Ranked:
        """The best versions, best first."""
        return view.nearest(self.vector, limit, view.allowed)

    def of(self, view: View, versions: Versions) -> Ranked:
        """The scores of some versions."""
        return view.nearest(self.vector, len(versions), versions)


@dataclass(frozen=True, slots=True)
class ByWords:
    """By words in common: BM25."""

    terms: Sequence[str]

    def best(self, view: View, limit: int) -> Ranked:
        """The best versions, best first."""
        return view.by_words(self.terms, limit, view.allowed)

    def of(self, view: View, versions: Versions) -> Ranked:
        """The scores of some versions."""
        return view.by_words(self.terms, len(versions), versions)


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
        words: WordIndex,
        scope: Scope,
        filters: Sequence[Filter],
        newest: int,
        as_of: int | datetime,
    ) -> None:
        self._db, self._cache, self._words = db, cache, words
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

    def nearest(self, vector: Vectors, limit: int, allowed: Versions | None) -> Ranked:
        """By vector: (version, cosine)."""
        if self.user is None:
            return []
        if isinstance(self._vectors, UserVectors):
            return self._vectors.nearest(vector, limit, allowed)
        return self._vectors.nearest(vector, limit, allowed, self._db, self.scope.user)

    def by_words(self, terms: Sequence[str], limit: int, allowed: Versions | None) -> Ranked:
        """By words: (version, BM25)."""
        if self.user is None:
            return []
        return self._words.search(self._db, self.user, terms, limit, allowed, self._newest)


def found(
    view: View,
    file: BankFile,
    asks: Mapping[str, Ask],
    k: int,
    weights: Mapping[str, float],
    now: datetime | None,
    half_life: timedelta | None,
) -> list[Hit]:
    """The `k` best hits. What turns out to be dead or expired takes no place: then more candidates are asked for."""
    limit = max(FEWEST, 2 * k) if len(asks) > 1 else k
    moment = None if now is None else instant(now)
    while k > 0:
        lists = {name: dict(ask.best(view, limit)) for name, ask in asks.items()}
        records = view.live(sorted(set().union(*lists.values())), file)
        if now is not None:
            records = {version: record for version, record in records.items() if not record.has_expired(now)}
        scores = {name: _completed(view, asks[name], known, records) for name, known in lists.items()}
        hits = fuse(scores, records, weights=weights, now=moment, half_life=half_life)
        if len(hits) >= k or all(len(known) < limit for known in lists.values()):
            return hits[:k]
        limit *= 4
    return []


def _completed(view: View, ask: Ask, known: dict[int, float], versions: Iterable[int]) -> dict[int, float]:
    """Scores of all these versions; those that another kind of question found are computed."""
    missing = np.array(sorted(version for version in versions if version not in known), np.int64)
    if not len(missing):
        return known
    return dict.fromkeys(missing.tolist(), 0.0) | known | dict(ask.of(view, missing))


def near_twins(
    view: View,
    file: BankFile,
    operations: Sequence[Operation],
    known: Container[int],
    vectors: Mapping[str, Vectors],
    near: float,
    at: datetime,
) -> dict[int, int | str]:
    """Which ADDs say nearly what exactly this scope holds, with equal metadata and expiry: their places, with its
    record's id or the place of the first one."""
    found: dict[int, int | str] = {}
    first: list[tuple[int, Operation, Vectors]] = []
    for place, given in enumerate(operations):
        op = readable(given)
        if place in known or not isinstance(op, Operation) or op.kind != Kind.ADD or op.key is not None:
            continue
        vector = vectors[op.text]
        alike = (payload_json(op.payload or {}), op.expires)
        versions = [version for version, cosine in view.nearest(vector, NEAR, view.allowed) if cosine >= near]
        for record in view.live(versions, file).values():
            same = record.scope == view.scope and record.key is None and not record.has_expired(at)
            if same and _alike(op.text, record.text) and (payload_json(record.payload), record.expires) == alike:
                found[place] = record.id
                break
        for earlier, other, its in first if place not in found else ():
            if (
                float(vector @ its) >= near
                and _alike(op.text, other.text)
                and (payload_json(other.payload or {}), other.expires) == alike
            ):
                found[place] = earlier
                break
        if place not in found:
            first.append((place, op, vector))
    return found


def _alike(text: str, other: str) -> bool:
    """Whether two texts have the same numbers and at least half of their words in common: vectors do not see numbers,
    and take all texts of a script that the embedder does not know for one."""
    one, two = set(words(text)), set(words(other))
    numbers = {word for word in one ^ two if any(letter.isdigit() for letter in word)}
    return not numbers and 2 * len(one & two) >= len(one | two)
