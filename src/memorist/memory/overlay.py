"""What differs from a commit of some bank, in memory: the state behind a scratch bank and its snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from memorist.errors import BankError
from memorist.memory.bank import Block, Hit, Snapshot, make_block, nearest_rows, need_commit
from memorist.memory.embed import Embedder, Vectors
from memorist.memory.record import Change, MemoryRecord, Scope

SETTLE = 256
"""Records an overlay may hold before a copy or a search makes blocks of them."""

Entry = tuple[Change, Vectors | None]
"""A change with the vector of the record after it; None for DELETE."""


class Overlay:
    """A pinned snapshot, the records that differ from it, and the changes made since. Implements `Snapshot`.

    A copy costs what differs; an overlay that has grown big is first made into blocks that all copies share.
    One that is pinned itself, or handed out as a snapshot, is frozen and not written any more.
    """

    def __init__(self, pinned: Snapshot) -> None:
        self.embedder: Embedder = pinned.embedder
        self.commit = self._oldest = pinned.commit
        self._pinned = pinned
        self._log: list[Entry] = []
        self._erased: list[Scope] = []
        # Where records are read that the overlay does not hold: what is pinned, or blocks made of that and of
        # an overlay that had grown big.
        self._base: _Records = pinned
        # Records that differ from the base (None: deleted or erased); vectors and keys of the live ones.
        self._overlay: dict[str, MemoryRecord | None] = {}
        self._vectors: dict[str, Vectors] = {}
        self._keys: dict[tuple[Scope, str], str] = {}
        self._frozen = False
        self._merged: dict[str, Block] = {}

    @property
    def size(self) -> int:
        """Number of changes since the commit that it is pinned to."""
        return len(self._log)

    def get(self, record_id: str) -> MemoryRecord | None:
        """The record with this id, whatever its scope."""
        return self._overlay[record_id] if record_id in self._overlay else self._base.get(record_id)

    def find_key(self, scope: Scope, key: str) -> MemoryRecord | None:
        """The record that holds `key` in exactly this scope."""
        if (scope, key) in self._keys:
            return self._overlay[self._keys[scope, key]]
        record = self._base.find_key(scope, key)
        return None if record is None or record.id in self._overlay else record

    def history(self, record_id: str) -> list[Change]:
        """Changes of one record, oldest first."""
        found = self._kept(self._pinned.history(record_id))
        return found + [change for change, _ in self._log if change.record_id == record_id]

    def changes(self, after: int = 0) -> list[Change]:
        """All changes in commits later than `after`, oldest first."""
        found = self._kept(self._pinned.changes()) if after < self._pinned.commit else []
        return [c for c in found + [change for change, _ in self._log] if c.commit > after]

    def _kept(self, changes: Sequence[Change]) -> list[Change]:
        return [c for c in changes if not any(erased.covers(c.scope) for erased in self._erased)]

    def users(self) -> list[str]:
        """All users that have live records, sorted."""
        names = set(self._base.users()) | {r.scope.user for r in self._overlay.values() if r is not None}
        return sorted(name for name in names if self.records(name))

    def records(self, user: str) -> list[MemoryRecord]:
        """All live records of a user, oldest first."""
        block = self._base.block(user)
        mine, gone, end = self._placed(block, Scope(user))
        records: list[MemoryRecord | None] = [*block.records, *[None] * (end - len(block.records))]
        for row, record in mine.items():
            records[row] = record
        for row in gone:
            records[row] = None
        return [record for record in records if record is not None]

    def block(self, user: str) -> Block:
        """All live records of a user, oldest first, with their vectors."""
        if user in self._merged:
            return self._merged[user]
        block = self._base.block(user)
        mine, gone, end = self._placed(block, Scope(user))
        if mine or gone:
            vectors = np.empty((end, self.embedder.size), np.float32)
            vectors[: len(block.records)] = block.vectors
            for row, record in mine.items():
                vectors[row] = self._vectors[record.id]
            block = make_block(self.records(user), np.delete(vectors, gone, axis=0) if gone else vectors)
        if self._frozen:
            self._merged[user] = block
        return block

    def search(self, vector: Vectors, scope: Scope, k: int) -> list[Hit]:
        """The `k` records in `scope` nearest to a unit vector; ties by age, oldest first."""
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

        nearest = nearest_rows(scores, rows, vector, k)
        return [Hit(mine[i] if i in mine else block.records[i], score) for i, score in nearest]

    def _placed(self, block: Block, scope: Scope) -> tuple[dict[int, MemoryRecord], list[int], int]:
        """Records in `scope` that differ, by place in the order of age; the places of those gone; the end."""
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

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take over changes, up to the commit of the last."""
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
        self.commit = entries[-1][0].commit

    def erase(self, scope: Scope) -> int:
        """Hide all records that `scope` covers, with their history; returns how many were live."""
        live = self._hide(scope)
        self._log = [entry for entry in self._log if not scope.covers(entry[0].scope)]
        # Later records of the scope must stay visible: the base's records are hidden one by one, and only its
        # history, which does not grow, by scope.
        self._erased.append(scope)
        self.commit += 1
        return live

    def _hide(self, scope: Scope) -> int:
        records = [record for record in self.records(scope.user) if scope.covers(record.scope)]
        for record in records:
            self._overlay[record.id] = None
            self._vectors.pop(record.id, None)
            if record.key is not None:
                self._keys.pop((record.scope, record.key), None)
        return len(records)

    def copy(self, as_of: int | None = None) -> Overlay:
        """A copy that can be written, as of now or of a commit of its own.

        Raises:
            BankError: `as_of` is not a commit, or is older than what is pinned.
        """
        copy = Overlay(self._pinned)
        copy._oldest = self._oldest
        copy._erased = list(self._erased)
        if as_of is None or as_of == self.commit:
            self._settle()
            copy.commit, copy._log, copy._base = self.commit, list(self._log), self._base
            copy._overlay, copy._vectors = dict(self._overlay), dict(self._vectors)
            copy._keys = dict(self._keys)
            return copy
        need_commit(as_of, self.commit)
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
        copy.commit = as_of
        return copy

    def pin(self) -> Overlay:
        """This overlay without a past: commits before the newest can no longer be asked for."""
        self._oldest = self.commit
        return self

    def freeze(self) -> Overlay:
        """This overlay, not to be written any more; blocks that are asked for are kept."""
        self._settle()
        self._frozen = True
        return self

    def _settle(self) -> None:
        """Make a big overlay into blocks, once: copies then share it, and a search is one matrix product."""
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
