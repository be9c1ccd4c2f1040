"""A bank in memory: empty, or an overlay of a commit of any bank. Rollouts write here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from memorist.errors import BankError
from memorist.memory.bank import (
    Block,
    Hit,
    IdSource,
    Snapshot,
    best,
    make_block,
    need_commit,
    need_scope,
    query_vector,
    sequential_ids,
)
from memorist.memory.embed import Embedder, HashedEmbedder, Vectors
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
    """Copy-on-write overlay: a pinned base, the records that differ from it, and the changes made since.

    Forking copies only the overlay, so siblings of a rollout cost what they change. Implements `MemoryBank`,
    and `Snapshot` for overlays of overlays.
    """

    def __init__(
        self,
        base: Snapshot | None = None,
        *,
        embedder: Embedder | None = None,
        ids: IdSource = sequential_ids,
    ) -> None:
        self._base = base if base is not None else EmptySnapshot(embedder or HashedEmbedder())
        self.embedder = self._base.embedder
        self._ids = ids
        self._commit = self._base.commit
        self._changes: list[Change] = []
        # Records that differ from the base (None: deleted or erased), with the vectors of the live ones.
        self._overlay: dict[str, MemoryRecord | None] = {}
        self._vectors: dict[str, Vectors] = {}
        self._erased: list[Scope] = []
        self._frozen = False

    @property
    def commit(self) -> int:
        """Number of the newest commit."""
        return self._commit

    def apply(
        self, operations: Sequence[Operation], scope: Scope, *, at: datetime, source: Sequence[str] = ()
    ) -> list[Result]:
        """Apply operations in order as one commit; one result each."""
        if self._frozen:
            raise BankError("this bank is a snapshot and cannot be written; call .fork() for a writable one")
        results, changes = judge(
            tuple(operations),
            scope=need_scope(scope),
            commit=self._commit + 1,
            at=at,
            source=tuple(source),
            new_id=self._ids,
            find=self._find,
            find_key=self.find_key,
        )
        if changes:
            self._commit += 1
            self._write(changes)
        return results

    def _write(self, changes: Sequence[Change]) -> None:
        self._changes.extend(changes)
        for change in changes:
            self._overlay[change.record_id] = change.after
            if change.after is None:
                self._vectors.pop(change.record_id, None)
            elif change.before is None or change.before.text != change.after.text:
                self._vectors[change.record_id] = self.embedder.embed([change.after.text])[0]
            elif change.record_id not in self._vectors:
                block = self._base.block(change.after.scope.user)
                self._vectors[change.record_id] = block.vectors[block.position[change.record_id]]

    def _hidden(self, scope: Scope) -> bool:
        return any(erased.covers(scope) for erased in self._erased)

    def _find(self, record_id: str) -> MemoryRecord | None:
        if record_id in self._overlay:
            return self._overlay[record_id]
        record = self._base.get(record_id)
        return None if record is None or self._hidden(record.scope) else record

    def find_key(self, scope: Scope, key: str) -> MemoryRecord | None:
        """The record that holds `key` in exactly this scope."""
        for record in self._overlay.values():
            if record is not None and record.scope == scope and record.key == key:
                return record
        record = self._base.find_key(scope, key)
        if record is None or record.id in self._overlay or self._hidden(scope):
            return None
        return record

    def search(
        self, query: str | Vectors, scope: Scope, *, k: int = 5, as_of: int | None = None
    ) -> list[Hit]:
        """The `k` records nearest to `query`; ties by age, oldest first."""
        if as_of is not None and as_of != self._commit:
            return self.fork(as_of).search(query, scope, k=k)
        need_scope(scope)
        vector = query_vector(query, self.embedder)
        base = self._base.block(scope.user)
        mine = [r for r in self._overlay.values() if r is not None and scope.covers(r.scope)]
        scores = np.empty(len(base.records) + len(mine), np.float32)
        scores[: len(base.records)] = base.vectors @ vector
        for record_id in self._overlay:
            if record_id in base.position:
                scores[base.position[record_id]] = -np.inf
        if scope.agent or scope.session or self._erased:
            for i, record in enumerate(base.records):
                if not scope.covers(record.scope) or self._hidden(record.scope):
                    scores[i] = -np.inf
        if mine:
            scores[len(base.records) :] = np.stack([self._vectors[r.id] for r in mine]) @ vector
        count = len(base.records)
        return [
            Hit(base.records[i] if i < count else mine[i - count], float(scores[i])) for i in best(scores, k)
        ]

    def get(self, record_id: str, scope: Scope, *, as_of: int | None = None) -> MemoryRecord | None:
        """The record if it is live and `scope` covers it."""
        need_scope(scope)
        bank = self if as_of is None else self.fork(as_of)
        record = bank._find(record_id)
        return record if record is not None and scope.covers(record.scope) else None

    def list(self, scope: Scope, *, as_of: int | None = None) -> list[MemoryRecord]:
        """All live records that `scope` covers, oldest first."""
        need_scope(scope)
        bank = self if as_of is None else self.fork(as_of)
        return [record for record in bank.block(scope.user).records if scope.covers(record.scope)]

    def block(self, user: str) -> Block:
        """All live records of a user, those of the base first."""
        base = self._base.block(user)
        kept = [
            i for i, r in enumerate(base.records) if r.id not in self._overlay and not self._hidden(r.scope)
        ]
        mine = [r for r in self._overlay.values() if r is not None and r.scope.user == user]
        rows = [base.vectors[kept]] + [self._vectors[r.id][None] for r in mine]
        return make_block([base.records[i] for i in kept] + mine, np.concatenate(rows))

    def users(self) -> list[str]:
        """All users that have live records, sorted."""
        names = set(self._base.users()) | {r.scope.user for r in self._overlay.values() if r is not None}
        return sorted(name for name in names if self.block(name).records)

    def history(self, record_id: str, scope: Scope | None = None) -> list[Change]:
        """Every change of one record, oldest first; with a scope, only what it covers."""
        found = [c for c in self.all_changes() if c.record_id == record_id]
        return found if scope is None else [c for c in found if scope.covers(_scope_of(c))]

    def changes(self, scope: Scope | None = None, *, after: int = 0) -> list[Change]:
        """Every change in commits later than `after`, oldest first; with a scope, only what it covers."""
        return [
            c for c in self.all_changes() if c.commit > after and (scope is None or scope.covers(_scope_of(c)))
        ]

    def all_changes(self) -> list[Change]:
        """The base's changes and this overlay's, without what was erased."""
        return [c for c in self._base.changes() if not self._hidden(_scope_of(c))] + self._changes

    def snapshot(self, as_of: int | None = None) -> ScratchBank:
        """This bank as it stands, or stood at a commit of its own; not writable."""
        copy = self.fork(as_of)
        copy._frozen = True
        return copy

    def fork(self, as_of: int | None = None) -> ScratchBank:
        """A writable overlay with the same base; writing to it never touches this one.

        Raises:
            BankError: `as_of` is not a commit, or is older than the base that this overlay is pinned to.
        """
        copy = ScratchBank(self._base, ids=self._ids)
        copy._erased = list(self._erased)
        if as_of is None or as_of == self._commit:
            copy._commit = self._commit
            copy._changes = list(self._changes)
            copy._overlay = dict(self._overlay)
            copy._vectors = dict(self._vectors)
            return copy
        need_commit(as_of, self._commit)
        if as_of < self._base.commit:
            raise BankError(
                f"commit {as_of} is older than {self._base.commit}, which this overlay is pinned to; "
                "fork the underlying bank instead"
            )
        copy._commit = as_of
        copy._write([change for change in self._changes if change.commit <= as_of])
        return copy

    def erase(self, scope: Scope) -> int:
        """Hide all records that `scope` covers, with their history; the base is not touched."""
        need_scope(scope)
        if self._frozen:
            raise BankError("this bank is a snapshot and cannot be written; call .fork() for a writable one")
        live = self.list(scope)
        gone = [c.record_id for c in self._changes if scope.covers(_scope_of(c))]
        self._changes = [c for c in self._changes if not scope.covers(_scope_of(c))]
        for record_id in {*gone, *(r.id for r in live)}:
            in_base = self._base.get(record_id) is not None
            self._overlay.pop(record_id, None)
            self._vectors.pop(record_id, None)
            if in_base:
                self._overlay[record_id] = None
        # Later records of the scope must stay visible, so the base's are hidden one by one, its history by scope.
        self._erased.append(scope)
        self._commit += 1
        return len(live)

    def export(self, scope: Scope) -> Iterator[dict[str, Any]]:
        """Live records that `scope` covers, as plain objects."""
        for record in self.list(scope):
            yield record.to_json()


def _scope_of(change: Change) -> Scope:
    record = change.after or change.before
    assert record is not None
    return record.scope
