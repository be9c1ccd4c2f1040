"""The memory bank protocol: records in numbered commits.

One `apply` is one commit: all of its accepted operations or, if the process dies, none. Commits count from 1;
commit 0 is the empty bank. Nothing here reads the wall clock or draws random ids: times come with each call and
ids from an `IdSource`, so that a run is a function of what it was given.

Two banks implement the protocol and pass one conformance suite: `SQLiteBank` (one durable file) and
`ScratchBank` (an overlay in memory, empty or pinned to a commit of any bank; its base is never touched).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from memorist.errors import BankError, ScopeError
from memorist.memory.embed import Embedder, Vectors
from memorist.memory.record import Change, MemoryRecord, Operation, Result, Scope

IdSource = Callable[[int, int], str]
"""`(commit, index of the operation in it) -> record id`, unique within a bank."""


def sequential_ids(commit: int, index: int) -> str:
    """The default id source: `m<commit>.<index>`, unique because commits are."""
    return f"m{commit}.{index}"


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result: the record and its cosine similarity to the query, in [-1, 1]."""

    record: MemoryRecord
    score: float


@dataclass(frozen=True, slots=True)
class Block:
    """One user's live records at a commit, with their vectors: shape (len(records), embedder.size)."""

    records: tuple[MemoryRecord, ...]
    vectors: Vectors
    position: dict[str, int] = field(default_factory=dict)


class Snapshot(Protocol):
    """A bank as it stood at one commit; immutable, cheap to hold, what overlays are pinned to."""

    commit: int
    embedder: Embedder

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
        """
        ...

    def search(
        self, query: str | Vectors, scope: Scope, *, k: int = 5, as_of: int | None = None
    ) -> list[Hit]:
        """The `k` records nearest to `query` (text, or a vector of shape (size,)); ties by age, oldest first."""
        ...

    def get(self, record_id: str, scope: Scope, *, as_of: int | None = None) -> MemoryRecord | None:
        """The record if it is live and `scope` covers it."""
        ...

    def list(self, scope: Scope, *, as_of: int | None = None) -> list[MemoryRecord]:
        """All live records that `scope` covers, oldest first."""
        ...

    def history(self, record_id: str, scope: Scope) -> list[Change]:
        """Every change of a record that `scope` covers, oldest first; deleted ones too."""
        ...

    def changes(self, scope: Scope, *, after: int = 0) -> list[Change]:
        """Every change in commits later than `after`, oldest first."""
        ...

    def snapshot(self, as_of: int | None = None) -> Snapshot:
        """The bank as it stands now, or as it stood at a commit."""
        ...

    def fork(self, as_of: int | None = None) -> MemoryBank:
        """A writable overlay of this bank; writing to it never touches this bank."""
        ...

    def erase(self, scope: Scope) -> int:
        """Remove all records that `scope` covers, with their history; returns how many were live."""
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
        BankError: there is no such commit.
    """
    if not 0 <= as_of <= newest:
        raise BankError(f"commit {as_of} does not exist; this bank has commits 0 to {newest}")
    return as_of


def query_vector(query: str | Vectors, embedder: Embedder) -> Vectors:
    """The query as a vector of shape (embedder.size,).

    Raises:
        ValueError: a vector of another shape was given.
    """
    if isinstance(query, str):
        return embedder.embed([query])[0]
    vector: Vectors = np.asarray(query, dtype=np.float32)
    if vector.shape != (embedder.size,):
        raise ValueError(
            f"query vector has shape {vector.shape}; expected ({embedder.size},), the size of embedder {embedder.name!r}"
        )
    return vector


def make_block(records: Sequence[MemoryRecord], vectors: Vectors) -> Block:
    """A block whose vectors are in the order of `records`."""
    return Block(tuple(records), vectors, {record.id: i for i, record in enumerate(records)})


def best(scores: Vectors, k: int) -> list[int]:
    """Indices of the `k` largest scores, largest first, ties by smaller index; exact and deterministic."""
    if k <= 0 or len(scores) == 0:
        return []
    if k < len(scores):
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(len(scores))
    order = np.argsort(-scores[candidates], kind="stable")
    return [int(i) for i in candidates[order][:k] if scores[i] > -np.inf]
