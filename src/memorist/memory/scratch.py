"""A bank in memory: empty, or an overlay of a commit of any bank. Rollouts write here and nowhere else."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np

from memorist.memory.bank import (
    Block,
    Hit,
    IdSource,
    Snapshot,
    embed_by_text,
    make_block,
    need_scope,
    query_vector,
    sequential_ids,
    source_ids,
)
from memorist.memory.embed import Embedder, HashedEmbedder, Remembering, Vectors
from memorist.memory.overlay import Overlay
from memorist.memory.record import Change, MemoryRecord, Operation, Result, Scope, judge


class EmptySnapshot:
    """Commit 0 of every bank."""

    commit = 0

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._block = make_block((), np.zeros((0, embedder.size), np.float32))

    def get(self, record_id: str) -> MemoryRecord | None:
        """No record."""
        return None

    def find_key(self, scope: Scope, key: str) -> MemoryRecord | None:
        """No record."""
        return None

    def block(self, user: str) -> Block:
        """No records."""
        return self._block

    def history(self, record_id: str) -> list[Change]:
        """No changes."""
        return []

    def changes(self) -> list[Change]:
        """No changes."""
        return []

    def users(self) -> list[str]:
        """Nobody."""
        return []


class ScratchBank:
    """A bank in memory over a snapshot of any bank, or over none; implements `MemoryBank`.

    Forking copies what differs from the snapshot, so siblings of a rollout cost what they change.
    """

    def __init__(
        self,
        base: Snapshot | None = None,
        *,
        embedder: Embedder | None = None,
        ids: IdSource = sequential_ids,
    ) -> None:
        self._state = Overlay(base if base is not None else EmptySnapshot(embedder or HashedEmbedder()))
        self._ids = ids
        self.embedder = self._state.embedder

    @classmethod
    def of(cls, state: Overlay, ids: IdSource) -> ScratchBank:
        """A bank that goes on writing `state`."""
        bank = cls.__new__(cls)
        bank._state, bank._ids, bank.embedder = state, ids, state.embedder
        return bank

    @property
    def commit(self) -> int:
        """Number of the newest commit."""
        return self._state.commit

    def apply(
        self, operations: Sequence[Operation], scope: Scope, *, at: datetime, source: Sequence[str] = ()
    ) -> list[Result]:
        """Apply operations in order as one commit; one result each."""
        results, changes = decide(self._state, self._ids, operations, scope, at, source)
        vectors = embed_by_text([c.after.text for c in changes if c.after is not None], self.embedder)
        if changes:
            self._state.extend([(c, vectors[c.after.text] if c.after else None) for c in changes])
        return results

    def search(self, query: str | Vectors, scope: Scope, *, k: int = 5, as_of: int | None = None) -> list[Hit]:
        """The `k` records nearest to `query`; ties by age, oldest first."""
        need_scope(scope)
        return self._at(as_of).search(query_vector(query, self.embedder), scope, k)

    def get(self, record_id: str, scope: Scope, *, as_of: int | None = None) -> MemoryRecord | None:
        """The record if it is live and `scope` covers it."""
        need_scope(scope)
        record = self._at(as_of).get(record_id)
        return record if record is not None and scope.covers(record.scope) else None

    def list(self, scope: Scope, *, as_of: int | None = None) -> builtins.list[MemoryRecord]:
        """All live records that `scope` covers, oldest first."""
        need_scope(scope)
        return [record for record in self._at(as_of).records(scope.user) if scope.covers(record.scope)]

    def history(self, record_id: str, scope: Scope) -> builtins.list[Change]:
        """Every change of a record that `scope` covers, oldest first; deleted ones too."""
        need_scope(scope)
        return [change for change in self._state.history(record_id) if scope.covers(change.scope)]

    def changes(self, scope: Scope, *, after: int = 0) -> builtins.list[Change]:
        """Every change in commits later than `after`, oldest first."""
        need_scope(scope)
        return [change for change in self._state.changes(after) if scope.covers(change.scope)]

    def snapshot(self, as_of: int | None = None) -> Snapshot:
        """This bank as it stands, or stood at a commit of its own; later commits do not change it."""
        return self._state.copy(as_of).freeze()

    def fork(self, as_of: int | None = None) -> ScratchBank:
        """A writable copy over the same base; writing to it never touches this one.

        Raises:
            BankError: `as_of` is not a commit, or is older than the base that this bank is pinned to.
        """
        return ScratchBank.of(self._state.copy(as_of), self._ids)

    def erase(self, scope: Scope) -> int:
        """Hide all records that `scope` covers, with their history; the base is not touched."""
        return self._state.erase(need_scope(scope))

    def export(self, scope: Scope) -> Iterator[dict[str, Any]]:
        """Live records that `scope` covers, as plain objects."""
        return (record.to_json() for record in self.list(scope))

    def _at(self, as_of: int | None) -> Overlay:
        return self._state if as_of is None or as_of == self.commit else self._state.copy(as_of)


def decide(
    state: Overlay,
    ids: IdSource,
    operations: Sequence[Operation],
    scope: Scope,
    at: datetime,
    source: Sequence[str],
) -> tuple[list[Result], list[Change]]:
    """What applying operations to `state` gives, without writing it."""
    return judge(
        tuple(operations),
        scope=need_scope(scope),
        commit=state.commit + 1,
        at=at,
        source=source_ids(source),
        new_id=ids,
        find=state.get,
        find_key=state.find_key,
    )


def hashed_bank() -> ScratchBank:
    """An empty bank whose vectors say which words texts share: nothing is loaded."""
    return ScratchBank()


def minilm_bank() -> ScratchBank:
    """An empty bank whose vectors say what texts mean, by the bundled encoder; all such banks share one."""
    return ScratchBank(embedder=_minilm())


@lru_cache
def _minilm() -> Embedder:
    from memorist.memory.minilm import MiniLM

    return Remembering(MiniLM())
