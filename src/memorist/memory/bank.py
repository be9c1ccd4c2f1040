"""The memory bank protocol: records in numbered commits.

One `apply` is one commit: all of its accepted operations or, if the process dies, none. Commits count from 1;
commit 0 is the empty bank. Nothing here reads the wall clock or draws random ids: times come with each call
and ids from an `IdSource`, so that a run is a function of what it was given. Order is by age everywhere: a
record keeps its place when it is updated.

Three banks implement the protocol and pass one conformance suite: `SQLiteBank` (one durable file), `PostgresBank`
(a database; both are `StoredBank`s, over other tables) and `ScratchBank` (an overlay in memory, empty or pinned to a
commit of any bank; its base is never touched).
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from memorist.errors import BankError, CommitError, ScopeError
from memorist.memory.embed import Embedder, Vectors
from memorist.memory.record import Change, MemoryRecord, Operation, Result, Scope, clean_text

Mask = npt.NDArray[np.bool_]

IdSource = Callable[[int, int], str]
"""`(commit, index of the operation in it) -> record id`, unique within a bank."""


Guard = Callable[[Operation, Scope], str | None]
"""Before an ADD or UPDATE is written: the reason to refuse it, or None."""


def sequential_ids(commit: int, index: int) -> str:
    """The default id source: `m<commit>.<index>`, unique because commits are."""
    return f"m{commit}.{index}"


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result: the record and its score: by vector alone the cosine to the query, in [-1, 1].

    `parts` says how the score came about where that was asked for.
    """

    record: MemoryRecord
    score: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """One user's live records at a commit, oldest first, with their vectors: one row each."""

    records: tuple[MemoryRecord, ...]
    vectors: Vectors
    position: dict[str, int] = field(default_factory=dict)
    _covered: dict[Scope, Mask] = field(default_factory=dict, repr=False, compare=False)

    def covered(self, scope: Scope) -> Mask | None:
        """Which records `scope` covers, as a mask; None if it is all of them."""
        if not scope.agent and not scope.session:
            return None
        mask = self._covered.get(scope)
        if mask is None:
            # A walk over all records costs as much as a search, so a few answers are kept.
            if len(self._covered) >= 64:
                self._covered.clear()
            mask = np.array([scope.covers(r.scope) for r in self.records], np.bool_)
            self._covered[scope] = mask
        return mask


class Snapshot(Protocol):
    """A bank as it stood at one commit; immutable, cheap to hold, what overlays are pinned to."""

    @property
    def commit(self) -> int:
        """Number of the commit."""
        ...

    @property
    def embedder(self) -> Embedder:
        """What made the vectors."""
        ...

    def get(self, record_id: str) -> MemoryRecord | None:
        """The record with this id, whatever its scope."""
        ...

    def find_key(self, scope: Scope, key: str) -> MemoryRecord | None:
        """The record that holds `key` in exactly this scope."""
        ...

    def block(self, user: str) -> Block:
        """All live records of a user."""
        ...

    def history(self, record_id: str) -> list[Change]:
        """Changes of one record, oldest first."""
        ...

    def changes(self) -> list[Change]:
        """All changes, oldest first."""
        ...

    def users(self) -> list[str]:
        """All users that have live records, sorted."""
        ...


class MemoryBank(Protocol):
    """Holds records in numbered commits."""

    embedder: Embedder

    @property
    def commit(self) -> int:
        """Number of the newest commit."""
        ...

    def apply(
        self, operations: Sequence[Operation], scope: Scope, *, at: datetime, source: Sequence[str] = ()
    ) -> list[Result]:
        """Apply operations in order as one commit; one result each. No commit is made if nothing changed.

        Raises:
            ScopeError: `scope` is not a Scope.
            BankError: the bank is closed or cannot be written.
            ValueError: the id source gave an id that is in use.
        """
        ...

    def search(self, query: str | Vectors, scope: Scope, *, k: int = 5, as_of: int | None = None) -> list[Hit]:
        """The `k` records nearest to `query` (text, or a vector of shape (size,)); ties by age, oldest first.

        Raises:
            ValueError: a vector of another shape, or one with numbers that are not finite.
        """
        ...

    def get(self, record_id: str, scope: Scope, *, as_of: int | None = None) -> MemoryRecord | None:
        """The record if it is live and `scope` covers it."""
        ...

    def list(self, scope: Scope, *, as_of: int | None = None) -> list[MemoryRecord]:
        """All live records that `scope` covers, oldest first."""
        ...

    def history(self, record_id: str, scope: Scope) -> builtins.list[Change]:
        """Every change of a record that `scope` covers, oldest first; deleted ones too."""
        ...

    def changes(self, scope: Scope, *, after: int = 0) -> builtins.list[Change]:
        """Every change in commits later than `after`, oldest first."""
        ...

    def snapshot(self, as_of: int | None = None) -> Snapshot:
        """The bank as it stands now, or as it stood at a commit."""
        ...

    def fork(self, as_of: int | None = None) -> MemoryBank:
        """A writable overlay of this bank; writing to it never touches this bank."""
        ...

    def erase(self, scope: Scope) -> int:
        """Remove all records that `scope` covers, with their history; returns how many were live.

        This is a commit of its own that no history shows; reads as of earlier commits do not show the records
        either. Snapshots and forks taken before keep what they hold in memory.
        """
        ...

    def export(self, scope: Scope) -> Iterator[dict[str, Any]]:
        """Live records that `scope` covers, as plain objects."""
        ...


def need_scope(scope: object) -> Scope:
    """`scope` if it is one.

    Raises:
        ScopeError: it is not.
    """
    if not isinstance(scope, Scope):
        raise ScopeError(f"scope is {scope!r} ({type(scope).__name__}); expected Scope, e.g. Scope('anna')")
    return scope


def need_commit(as_of: int, newest: int) -> int:
    """`as_of` if a bank whose newest commit is `newest` has it.

    Raises:
        CommitError: there is no such commit.
    """
    if not 0 <= as_of <= newest:
        raise CommitError(f"commit {as_of} does not exist; this bank has commits 0 to {newest}")
    return as_of


def source_ids(source: Sequence[str]) -> tuple[str, ...]:
    """Ids of messages as a tuple; a lone string is one id, not its letters."""
    return (source,) if isinstance(source, str) else tuple(source)


def query_vector(query: str | Vectors, embedder: Embedder) -> Vectors:
    """The query as a vector of shape (embedder.size,) and length 1, or 0 if it says nothing.

    Raises:
        ValueError: a vector of another shape was given, or one with numbers that are not finite.
    """
    if isinstance(query, str):
        vector = embed_texts([clean_text(query)], embedder)[0]
    else:
        vector = np.asarray(query, dtype=np.float32)
    if vector.shape != (embedder.size,):
        raise ValueError(
            f"query vector has shape {vector.shape}; expected ({embedder.size},), "
            f"the size of embedder {embedder.name!r}"
        )
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(norm):
        raise ValueError("query vector has numbers that are not finite")
    return vector if norm in (0.0, 1.0) else (vector / norm).astype(np.float32)


OFF = 1e-3
"""How far from 1 a vector's length may be and still be taken as it is."""


def embed_texts(texts: Sequence[str], embedder: Embedder) -> Vectors:
    """Vectors of `texts`, one row each, of length 1 (0 for what says nothing).

    Raises:
        BankError: the embedder gave something else than finite numbers of the shape that it promises.
    """
    vectors: Vectors = np.asarray(embedder.embed(texts), dtype=np.float32)
    if vectors.shape != (len(texts), embedder.size) or not np.isfinite(vectors).all():
        raise BankError(
            f"embedder {embedder.name!r} gave shape {vectors.shape} for {len(texts)} texts; "
            f"expected ({len(texts)}, {embedder.size}) finite numbers"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Each row by itself: a text has one vector, whatever is beside it.
    off = (np.abs(lengths - 1) > OFF) & (lengths > 0)
    return np.where(off, vectors / np.where(off, lengths, 1), vectors) if off.any() else vectors


def embed_by_text(texts: Sequence[str], embedder: Embedder) -> dict[str, Vectors]:
    """The vector of each text, each asked for once."""
    once = list(dict.fromkeys(texts))
    return dict(zip(once, embed_texts(once, embedder), strict=True)) if once else {}


def make_block(records: Sequence[MemoryRecord], vectors: Vectors) -> Block:
    """A block whose vectors are in the order of `records`; they cannot be written from here on."""
    vectors.flags.writeable = False
    return Block(tuple(records), vectors, {record.id: i for i, record in enumerate(records)})


def best(scores: npt.NDArray[np.floating[Any]], k: int, slack: float = 0.0) -> list[int]:
    """Indices of the `k` largest scores, largest first, ties by smaller index; exact and deterministic.

    Those within `slack` of the last one are listed too. A score of minus infinity is never listed.
    """
    if k <= 0 or len(scores) == 0:
        return []
    if k < len(scores):
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= threshold - slack)
    else:
        candidates = np.arange(len(scores))
    order = np.argsort(-scores[candidates], kind="stable")
    ranked = candidates[order] if slack else candidates[order][:k]
    return [int(i) for i in ranked if scores[i] > -np.inf]


def nearest_rows(
    scores: Vectors, rows: Callable[[Sequence[int]], Vectors], query: Vectors, k: int
) -> list[tuple[int, float]]:
    """The `k` largest (index, cosine) of `scores`, the products of rows with `query`, ties by smaller index.

    A matrix product rounds a row differently by its place in the matrix and by the machine, which would make
    ties and near ties a matter of luck. So those within rounding of the best are computed once more, each by
    itself and in double precision.
    """
    near = sorted(best(scores, k, slack=2.0**-23 * len(query)))
    if not near:
        return []
    exact = (rows(near).astype(np.float64) * query).sum(axis=1)
    return [(near[i], min(1.0, max(-1.0, float(exact[i])))) for i in best(exact, k)]
