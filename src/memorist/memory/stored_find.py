"""How a `StoredBank` answers a query: candidates from words and vectors, looked up in the versions, fused."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, reduce
from typing import Protocol

import numpy as np

from memorist.memory import stored_search as search
from memorist.memory.bank import Hit
from memorist.memory.embed import Vectors
from memorist.memory.filters import Filter, Join, Test
from memorist.memory.fusion import fuse
from memorist.memory.record import Kind, MemoryRecord, Operation, Scope, instant, payload_json, readable
from memorist.memory.stored_search import Versions
from memorist.memory.stored_tables import Tables
from memorist.memory.stored_words import WordIndex
from memorist.memory.words import words

Ranked = list[tuple[int, float]]
FEWEST = 20
"""Candidates of each kind that are fused at least. What one kind found has its score of the other computed, so few are
enough: on conversations 20 order the first ten as 200 do."""


NEAR = 8
"""Records that are looked at for one that a new text nearly repeats."""


Nearest = Callable[[Vectors, int, Versions | None], Ranked]
"""The `k` versions nearest to a unit vector, of the allowed ones: (version, cosine), best first, ties by age."""


class VectorSource(Protocol):
    """Finds nearest vectors. Called with the lock of the tables held, in one transaction."""

    def at(self, db: search.Database, user: str, newest: int, as_of: int | datetime) -> Nearest:
        """Among a user's live versions at a commit; with a time, among all that ever were."""
        ...

    def forget(self) -> None:
        """Drop what is kept in memory: something was erased, or the vectors were made anew."""
        ...

    def wipe(self, number: int, versions: Versions) -> None:
        """Overwrite what is kept elsewhere of some of a user's versions."""
        ...

    def clear(self) -> None:
        """Remove all that is kept; it is made anew when it is needed."""
        ...


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
        db: search.Database,
        source: VectorSource,
        words: WordIndex,
        scope: Scope,
        filters: Sequence[Filter],
        newest: int,
        as_of: int | datetime,
    ) -> None:
        self._db, self._source, self._words = db, source, words
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
    def _nearest(self) -> Nearest:
        return self._source.at(self._db, self.scope.user, self._newest, self.as_of)

    def live(self, versions: Sequence[int], tables: Tables) -> dict[int, MemoryRecord]:
        """Those that may be shown, by age."""
        found = tables.by_version(versions, None if isinstance(self.as_of, datetime) else self.as_of)
        return {version: record for version, record in found.items() if self.scope.covers(record.scope)}

    def records(self, tables: Tables) -> list[MemoryRecord]:
        """All that may be shown, oldest first."""
        commit = None if isinstance(self.as_of, datetime) else self.as_of
        return [r for r in tables.of_user(self.scope.user, commit, self.allowed) if self.scope.covers(r.scope)]

    def nearest(self, vector: Vectors, limit: int, allowed: Versions | None) -> Ranked:
        """By vector: (version, cosine)."""
        if self.user is None:
            return []
        return self._nearest(vector, limit, allowed)

    def by_words(self, terms: Sequence[str], limit: int, allowed: Versions | None) -> Ranked:
        """By words: (version, BM25)."""
        if self.user is None:
            return []
        return self._words.search(self._db, self.user, terms, limit, allowed, self._newest)


def found(
    view: View,
    tables: Tables,
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
        records = view.live(sorted(set().union(*lists.values())), tables)
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
    tables: Tables,
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
        for record in view.live(versions, tables).values():
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
