"""A bank in memory: empty, or an overlay of a commit of any bank. Rollouts write here and nowhere else."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from memorist.errors import BankError
from memorist.memory.bank import (
    Block,
    Hit,
    IdSource,
    Snapshot,
    embed_texts,
    make_block,
    nearest_rows,
    need_commit,
    need_scope,
    query_vector,
    sequential_ids,
    source_ids,
)
from memorist.memory.embed import Embedder, HashedEmbedder, Vectors
from memorist.memory.record import Change, MemoryRecord, Operation, Result, Scope, judge

SETTLE = 256
"""Records an overlay may hold before a fork or a search makes blocks of them."""

Entry = tuple[Change, Vectors | None]
"""A change with the vector of the record after it; None for DELETE."""


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

    Forking copies only the overlay, so siblings of a rollout cost what they change; an overlay that has grown
    big is first made into blocks that all forks share. Implements `MemoryBank`, and `Snapshot` for overlays
    of overlays.
    """

    def __init__(
        self,
        base: Snapshot | None = None,
        *,
        embedder: Embedder | None = None,
        ids: IdSource = sequential_ids,
    ) -> None:
        if isinstance(base, ScratchBank):
            base = base.snapshot()  # a base never changes; itself, if it is one already
        self._pinned: Snapshot = base if base is not None else EmptySnapshot(embedder or HashedEmbedder())
        self.embedder = self._pinned.embedder
        self._ids = ids
        self._commit = self._oldest = self._pinned.commit
        self._log: list[Entry] = []
        self._erased: list[Scope] = []
        # Where records are read that the overlay does not hold: what is pinned, or blocks made of that and of
        # an overlay that had grown big.
        self._base: _Records = self._pinned
        # Records that differ from the base (None: deleted or erased); vectors and keys of the live ones.
        self._overlay: dict[str, MemoryRecord | None] = {}
        self._vectors: dict[str, Vectors] = {}
        self._keys: dict[tuple[Scope, str], str] = {}
        self._frozen = False
        self._merged: dict[str, Block] = {}

    @property
    def commit(self) -> int:
        """Number of the newest commit."""
        return self._commit

    def apply(
        self, operations: Sequence[Operation], scope: Scope, *, at: datetime, source: Sequence[str] = ()
    ) -> list[Result]:
        """Apply operations in order as one commit; one result each."""
        self._need_writable()
        results, changes = self.decide(operations, scope, at=at, source=source)
        if changes:
            texts = list(dict.fromkeys(c.after.text for c in changes if c.after is not None))
            vectors = dict(zip(texts, embed_texts(texts, self.embedder), strict=True)) if texts else {}
            self.extend([(c, None if c.after is None else vectors[c.after.text]) for c in changes])
        return results

    def decide(
        self, operations: Sequence[Operation], scope: Scope, *, at: datetime, source: Sequence[str]
    ) -> tuple[list[Result], list[Change]]:
        """What `apply` would do, without doing it."""
        return judge(
            tuple(operations),
            scope=need_scope(scope),
            commit=self._commit + 1,
            at=at,
            source=source_ids(source),
            new_id=self._ids,
            find=self._find,
            find_key=self.find_key,
        )

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take over changes that were decided, up to the commit of the last; for banks built on this one."""
        for change, vector in entries:
            record_id, before, after = change.record_id, change.before, change.after
            self._overlay[record_id] = after
            if before is not None and before.key is not None:
                self._keys.pop((before.scope, before.key), None)
            if after is None or vector is None:
                self._vectors.pop(record_id, None)
                continue
            self._vectors[record_id] = vector
            if after.key is not None:
                self._keys[after.scope, after.key] = record_id
        self._log.extend(entries)
        self._commit = entries[-1][0].commit

    @property
    def size(self) -> int:
        """Number of changes since the commit that it is pinned to."""
        return len(self._log)

    def _find(self, record_id: str) -> MemoryRecord | None:
        return self._overlay[record_id] if record_id in self._overlay else self._base.get(record_id)

    def find_key(self, scope: Scope, key: str) -> MemoryRecord | None:
        """The record that holds `key` in exactly this scope."""
        if (scope, key) in self._keys:
            return self._overlay[self._keys[scope, key]]
        record = self._base.find_key(scope, key)
        return None if record is None or record.id in self._overlay else record

    def search(
        self, query: str | Vectors, scope: Scope, *, k: int = 5, as_of: int | None = None
    ) -> list[Hit]:
        """The `k` records nearest to `query`; ties by age, oldest first."""
        if as_of is not None and as_of != self._commit:
            return self.fork(as_of).search(query, scope, k=k)
        need_scope(scope)
        vector = query_vector(query, self.embedder)
        self._settle()
        block = self._base.block(scope.user)
        mine, gone, end = self._placed(block, scope)
        count = len(block.records)
        scores = np.full(end, -np.inf, np.float32)
        np.matmul(block.vectors, vector, out=scores[:count])
        covered = block.covered(scope)
        if covered is not None:
            scores[:count][~covered] = -np.inf
        scores[gone] = -np.inf
        if mine:
            scores[list(mine)] = np.stack([self._vectors[r.id] for r in mine.values()]) @ vector

        def rows(indices: Sequence[int]) -> Vectors:
            return np.stack([self._vectors[mine[i].id] if i in mine else block.vectors[i] for i in indices])

        return [
            Hit(mine[i] if i in mine else block.records[i], score)
            for i, score in nearest_rows(scores, rows, vector, k)
        ]

    def _placed(self, block: Block, scope: Scope) -> tuple[dict[int, MemoryRecord], builtins.list[int], int]:
        """Overlay records in `scope` by place in the order of age; the places of those gone; the end."""
        mine: dict[int, MemoryRecord] = {}
        gone: list[int] = []
        end = len(block.records)  # a record of the block keeps its place, new ones come after it
        for record_id, record in self._overlay.items():
            row = block.position.get(record_id)
            if record is None or not scope.covers(record.scope):
                if row is not None:
                    gone.append(row)
            elif row is not None:
                mine[row] = record
            else:
                mine[end] = record
                end += 1
        return mine, gone, end

    def get(self, record_id: str, scope: Scope, *, as_of: int | None = None) -> MemoryRecord | None:
        """The record if it is live and `scope` covers it."""
        need_scope(scope)
        record = (self if as_of is None else self.fork(as_of))._find(record_id)
        return record if record is not None and scope.covers(record.scope) else None

    def list(self, scope: Scope, *, as_of: int | None = None) -> builtins.list[MemoryRecord]:
        """All live records that `scope` covers, oldest first."""
        need_scope(scope)
        bank = self if as_of is None else self.fork(as_of)
        return [record for record in bank._records(scope.user) if scope.covers(record.scope)]

    def _records(self, user: str) -> builtins.list[MemoryRecord]:
        block = self._base.block(user)
        mine, gone, end = self._placed(block, Scope(user))
        records: list[MemoryRecord | None] = [*block.records, *[None] * (end - len(block.records))]
        for row, record in mine.items():
            records[row] = record
        for row in gone:
            records[row] = None
        return [record for record in records if record is not None]

    def block(self, user: str) -> Block:
        """All live records of a user, oldest first."""
        if user in self._merged:
            return self._merged[user]
        block = self._base.block(user)
        mine, gone, end = self._placed(block, Scope(user))
        if mine or gone:
            vectors = np.empty((end, self.embedder.size), np.float32)
            vectors[: len(block.records)] = block.vectors
            for row, record in mine.items():
                vectors[row] = self._vectors[record.id]
            block = make_block(self._records(user), np.delete(vectors, gone, axis=0) if gone else vectors)
        if self._frozen:
            self._merged[user] = block
        return block

    def users(self) -> builtins.list[str]:
        """All users that have live records, sorted."""
        names = set(self._base.users()) | {r.scope.user for r in self._overlay.values() if r is not None}
        return sorted(name for name in names if self._records(name))

    def history(self, record_id: str, scope: Scope | None = None) -> builtins.list[Change]:
        """Every change of one record, oldest first; with a scope, only what it covers."""
        scope = None if scope is None else need_scope(scope)
        found = self._kept(self._pinned.history(record_id))
        found += [change for change, _ in self._log if change.record_id == record_id]
        return [c for c in found if scope is None or scope.covers(c.scope)]

    def changes(self, scope: Scope | None = None, *, after: int = 0) -> builtins.list[Change]:
        """Every change in commits later than `after`, oldest first; with a scope, only what it covers."""
        scope = None if scope is None else need_scope(scope)
        found = self._kept(self._pinned.changes()) if after < self._pinned.commit else []
        found += [change for change, _ in self._log]
        return [c for c in found if c.commit > after and (scope is None or scope.covers(c.scope))]

    def _kept(self, changes: Sequence[Change]) -> builtins.list[Change]:
        return [c for c in changes if not any(erased.covers(c.scope) for erased in self._erased)]

    def snapshot(self, as_of: int | None = None) -> ScratchBank:
        """This bank as it stands, or stood at a commit of its own; not writable."""
        if self._frozen and as_of in (None, self._commit):
            return self
        copy = self.fork(as_of)
        copy._settle()
        copy._frozen = True
        return copy

    def fork(self, as_of: int | None = None) -> ScratchBank:
        """A writable overlay with the same base; writing to it never touches this one.

        Raises:
            BankError: `as_of` is not a commit, or is older than the base that this overlay is pinned to.
        """
        copy = ScratchBank(self._pinned, ids=self._ids)
        copy._oldest = self._oldest
        copy._erased = list(self._erased)
        if as_of is None or as_of == self._commit:
            self._settle()
            copy._commit, copy._log, copy._base = self._commit, list(self._log), self._base
            copy._overlay, copy._vectors = dict(self._overlay), dict(self._vectors)
            copy._keys = dict(self._keys)
            return copy
        need_commit(as_of, self._commit)
        if as_of < self._oldest:
            raise BankError(
                f"commit {as_of} is older than {self._oldest}, which this overlay is pinned to; "
                "fork the underlying bank instead"
            )
        for scope in self._erased:
            copy._hide(scope)
        entries = [entry for entry in self._log if entry[0].commit <= as_of]
        if entries:
            copy.extend(entries)
        copy._commit = as_of
        return copy

    def pin(self) -> ScratchBank:
        """This bank, from now on without a past: its commits before the newest can no longer be asked for."""
        self._oldest = self._commit
        return self

    def erase(self, scope: Scope) -> int:
        """Hide all records that `scope` covers, with their history; the base is not touched."""
        need_scope(scope)
        self._need_writable()
        live = self._hide(scope)
        self._log = [entry for entry in self._log if not scope.covers(entry[0].scope)]
        # Later records of the scope must stay visible: the base's records are hidden one by one, and only its
        # history, which does not grow, by scope.
        self._erased.append(scope)
        self._commit += 1
        return live

    def _hide(self, scope: Scope) -> int:
        """Take every live record that `scope` covers out of sight; returns how many there were."""
        records = [record for record in self._records(scope.user) if scope.covers(record.scope)]
        for record in records:
            self._overlay[record.id] = None
            self._vectors.pop(record.id, None)
            if record.key is not None:
                self._keys.pop((record.scope, record.key), None)
        return len(records)

    def export(self, scope: Scope) -> Iterator[dict[str, Any]]:
        """Live records that `scope` covers, as plain objects."""
        for record in self.list(scope):
            yield record.to_json()

    def _need_writable(self) -> None:
        if self._frozen:
            raise BankError("this bank is a snapshot and cannot be written; call .fork() for a writable one")

    def _settle(self) -> None:
        """Make a big overlay into blocks, once: forks then share it, and a search is one matrix product."""
        if self._frozen or len(self._overlay) <= SETTLE:
            return
        records = [r or self._base.get(record_id) for record_id, r in self._overlay.items()]
        blocks = {user: self.block(user) for user in {r.scope.user for r in records if r is not None}}
        self._base = _Settled(self._base, self._pinned, self._overlay, self._keys, blocks)
        self._overlay, self._vectors, self._keys = {}, {}, {}


class _Records(Protocol):
    """The part of a snapshot that says how things stand, not how they came to be so."""

    def get(self, record_id: str) -> MemoryRecord | None: ...
    def find_key(self, scope: Scope, key: str) -> MemoryRecord | None: ...
    def block(self, user: str) -> Block: ...
    def users(self) -> list[str]: ...


class _Settled:
    """What is pinned with all changes of settled overlays in it; immutable."""

    def __init__(
        self,
        below: _Records,
        pinned: _Records,
        overlay: Mapping[str, MemoryRecord | None],
        keys: Mapping[tuple[Scope, str], str],
        blocks: Mapping[str, Block],
    ) -> None:
        self._pinned = pinned
        self._changed: dict[str, MemoryRecord | None] = dict(overlay)
        self._keys: dict[tuple[Scope, str], str] = dict(keys)
        self._blocks: dict[str, Block] = dict(blocks)
        if isinstance(below, _Settled):
            # Always one layer above what is pinned, so that reading does not slow down as overlays settle.
            self._changed = {**below._changed, **overlay}
            self._keys = {k: i for k, i in below._keys.items() if i not in overlay} | self._keys
            self._blocks = {**below._blocks, **blocks}

    def get(self, record_id: str) -> MemoryRecord | None:
        return self._changed[record_id] if record_id in self._changed else self._pinned.get(record_id)

    def find_key(self, scope: Scope, key: str) -> MemoryRecord | None:
        if (scope, key) in self._keys:
            return self._changed[self._keys[scope, key]]
        record = self._pinned.find_key(scope, key)
        return None if record is None or record.id in self._changed else record

    def block(self, user: str) -> Block:
        return self._blocks[user] if user in self._blocks else self._pinned.block(user)

    def users(self) -> list[str]:
        return [*self._pinned.users(), *self._blocks]
