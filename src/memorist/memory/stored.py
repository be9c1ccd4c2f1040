"""A bank in a database: every acknowledged commit is on disk, and every past one can be read again.

Records are rows with the commits they lived in, so history, reads as of a commit and snapshots come from the
same tables. What holds at the newest commit is kept in memory too, as an `Overlay` over blocks of whole
users that follows the database: each read first looks whether another thread or process has committed.
"""

from __future__ import annotations

import builtins
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

from memorist.errors import ArgumentError, BankError, RoomError, nearest
from memorist.memory.bank import (
    Block,
    Guard,
    Hit,
    IdSource,
    Snapshot,
    embed_by_text,
    need_commit,
    need_scope,
    query_vector,
)
from memorist.memory.embed import Embedder, Vectors
from memorist.memory.filters import Filter, read_filter
from memorist.memory.fusion import MODES, weights_for
from memorist.memory.overlay import Overlay
from memorist.memory.record import (
    Change,
    Code,
    Kind,
    MemoryRecord,
    Operation,
    Result,
    Scope,
    clean_text,
    readable,
)
from memorist.memory.scratch import ScratchBank, decide
from memorist.memory.stored_find import Ask, ByVector, ByWords, VectorSource, View, found, near_twins, scope_filter
from memorist.memory.stored_jobs import Jobs, need_job
from memorist.memory.stored_search import Database, twins
from memorist.memory.stored_snapshot import StoredSnapshot
from memorist.memory.stored_tables import Tables
from memorist.memory.stored_words import WordIndex
from memorist.memory.words import asked

NOTHING = Operation("NOOP")
ROOM: ContextVar[tuple[str, int] | None] = ContextVar("ROOM", default=None)
"""For whoever writes: what names of users begin with, and how many live records these may have."""

REPIN = 128
"""Changes after which the blocks in memory are renewed."""


class StoredBank(Jobs, ABC):
    """A durable bank in the tables of a database. Implements `MemoryBank`; threads and processes may share them.

    An `apply` that has returned is on disk, and one that has not is there as a whole or not at all.

    Args:
        tables: where it is stored.
        vectors: makes what finds nearest vectors, of their size.
        embedder: what makes the vectors; None for the `HashedEmbedder` that the tables were made with.
        ids: gives new records their ids.
        guard: asked before an ADD or UPDATE is written; a text that it returns is why it is refused.
    """

    def __init__(
        self,
        tables: Tables,
        vectors: Callable[[int], VectorSource],
        *,
        embedder: Embedder | None,
        ids: IdSource,
        guard: Guard | None,
    ) -> None:
        self._tables = tables
        try:
            self.embedder = tables.prepare(embedder)
        except BaseException:
            tables.close()
            raise
        self._ids, self._guard = ids, guard
        self._snapshots: WeakValueDictionary[int, StoredSnapshot] = WeakValueDictionary()
        self._blocks: StoredSnapshot | None = None
        self._newest: Overlay | None = None
        self._vectors = vectors(self.embedder.size)
        self._words = WordIndex()
        self._wiped: set[int] = set()  # erasures whose vectors this bank has taken out of the indexes
        if not self.read_only:
            self.settle(0)

    @property
    def read_only(self) -> bool:
        """Whether writing is refused."""
        return self._tables.read_only

    @property
    def commit(self) -> int:
        """Number of the newest commit."""
        return self._tables.newest()

    def apply(
        self,
        operations: Sequence[Operation],
        scope: Scope,
        *,
        at: datetime,
        source: Sequence[str] = (),
        ids: IdSource | None = None,
        once: bool = False,
        near: float | None = None,
        whole: bool = False,
    ) -> list[Result]:
        """Apply operations in order as one commit; one result each. It is on disk when this returns.

        Args:
            operations: what to do.
            scope: where.
            at: when it was said.
            source: ids of messages that it came from.
            ids: gives this call's new records their ids, instead of the bank's own source.
            once: an ADD of a text that exactly this scope holds, with equal metadata and expiry (and key, where it has
                one), changes nothing.
            near: with `once`, nor does one whose vector has this cosine or more with that of such a record.
            whole: where one operation is refused, none is applied.
        """
        need_scope(scope)
        self._tables.need_writable()
        operations = tuple(operations)
        # Guard and embedder before the transaction: they may be slow, and others wait for the lock.
        refused = self._refused(operations, scope)
        read = [op for op in map(readable, operations) if isinstance(op, Operation)]
        vectors = embed_by_text([op.text for op in read if op.kind in (Kind.ADD, Kind.UPDATE)], self.embedder)
        with self._tables.turn(), self._tables.lock:
            with self._tables.writing() as db:
                newest = self._current()
                room = ROOM.get()
                live = self._tables.live(room[0]) if room else 0  # before others' rows are out of sight
                self._tables.narrow(db, scope.user)
                need_job(db)
                held = twins(db, operations, scope) if once else {}
                if once and near is not None:
                    view = self._view(db, scope, None, newest.commit, None)
                    held |= near_twins(view, self._tables, operations, held, vectors, near, at)
                asked = [NOTHING if n in held or n in refused else op for n, op in enumerate(operations)]
                results, changes = decide(newest, ids or self._ids, asked, scope, at, source)
                for n, twin in held.items():
                    record = results[twin].record if isinstance(twin, int) else newest.get(twin)
                    results[n] = Result(operations[n], Code.UNCHANGED, record)
                for n, result in refused.items():
                    results[n] = result
                if whole and not all(result.code.accepted for result in results):
                    changes = []
                if room:
                    _need_room(live, sum((c.after is not None) - (c.before is not None) for c in changes), room[1])
                entries = [(c, vectors[c.after.text] if c.after else None) for c in changes]
                if entries:
                    self._tables.insert(entries, at)
            if entries:
                newest.extend(entries)
        return results

    def _refused(self, operations: Sequence[Operation], scope: Scope) -> dict[int, Result]:
        """What the guard refuses, with its reasons, by place."""
        found = {}
        for place, op in enumerate(operations if self._guard is not None else ()):
            reason = self._guard(op, scope) if self._guard and op.kind in (Kind.ADD, Kind.UPDATE) else None
            if not isinstance(reason, str | None):
                raise BankError(f"the guard returned {reason!r}; expected why it refuses as a text, or None to allow")
            if reason is not None:
                found[place] = Result(replace(op, reason=reason), Code.REFUSED)
        return found

    def search(self, query: str | Vectors, scope: Scope, *, k: int = 5, as_of: int | None = None) -> list[Hit]:
        """The `k` records nearest to `query`; ties by age, oldest first."""
        hits = self.find(query, scope, k=k, mode="vector", as_of=as_of)
        return [Hit(hit.record, hit.score) for hit in hits]

    def find(
        self,
        query: str | Vectors,
        scope: Scope,
        *,
        k: int = 10,
        mode: str = "fused",
        where: Mapping[str, Any] | None = None,
        vector: Vectors | None = None,
        now: datetime | None = None,
        half_life: timedelta | None = None,
        as_of: int | datetime | None = None,
    ) -> builtins.list[Hit]:
        """The `k` records that answer `query` best, ties by age, oldest first.

        Args:
            query: text, or a vector of shape (size,), which can only be searched by vector.
            scope: whose records.
            k: how many.
            mode: "lexical" by the words they share with the query (BM25), "vector" by nearness (cosine), or "fused":
                both, weighted (`memory.fusion`).
            where: a filter; see `memorist.memory.filters`.
            vector: the query's vector, where it is at hand.
            now: hides what has expired by then.
            half_life: with `now`, a record that was updated so long ago counts half as much.
            as_of: a commit to read instead of the newest; or a time: what was said by then and held at that time,
                whenever it was written down.

        Raises:
            ScopeError: `scope` is not a Scope.
            FilterError: `where` is not a filter.
            ValueError: an unknown mode, or a vector of another shape or with numbers that are not finite.
        """
        need_scope(scope)
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; {nearest(mode, MODES)}")
        wanted = read_filter(where)
        text = query if isinstance(query, str) else None
        if text is None and mode != "vector":
            raise ValueError(f"mode {mode!r} needs a text, and the query is a vector; give mode='vector'")
        asks: dict[str, Ask] = {}
        # Before the file is read: an embedder may be slow.
        if mode != "lexical":
            asks["vector"] = ByVector(query_vector(query if vector is None else vector, self.embedder))
        if text is not None and mode != "vector":
            asks["lexical"] = ByWords(asked(clean_text(text)))
        with self._tables.moment(scope.user) as (db, newest):
            view = self._view(db, scope, wanted, newest, as_of)
            return found(view, self._tables, asks, k, weights_for(text or "", self.embedder), now, half_life)

    def get(self, record_id: str, scope: Scope, *, as_of: int | None = None) -> MemoryRecord | None:
        """The record if it is live and `scope` covers it."""
        need_scope(scope)
        return self.fork(as_of).get(record_id, scope)

    def holder(self, record_id: str) -> Scope | None:
        """The scope that has, or had, a record with this id."""
        found = self._tables.entries("c.id = ?", (record_id,)) if clean_text(record_id) == record_id else []
        return found[-1][0].scope if found else None

    def list(self, scope: Scope, *, as_of: int | None = None) -> builtins.list[MemoryRecord]:
        """All live records that `scope` covers, oldest first."""
        need_scope(scope)
        return self.fork(as_of).list(scope)

    def history(self, record_id: str, scope: Scope) -> builtins.list[Change]:
        """Every change of a record that `scope` covers, oldest first; deleted ones too."""
        need_scope(scope)
        if clean_text(record_id) != record_id:
            return []
        found = self._tables.entries("c.id = ? AND c.user = ?", (record_id, scope.user), user=scope.user)
        return [change for change, _ in found if scope.covers(change.scope)]

    def changes(self, scope: Scope, *, after: int = 0) -> builtins.list[Change]:
        """Every change in commits later than `after`, oldest first."""
        need_scope(scope)
        found = self._tables.entries("c.user = ? AND c.number > ?", (scope.user, after), user=scope.user)
        return [change for change, _ in found if scope.covers(change.scope)]

    def snapshot(self, as_of: int | None = None) -> Snapshot:
        """The bank as it stands, or stood at a commit; later commits do not change it.

        It reads what it has not read yet, so this bank must stay open; what is erased
        before it was read is gone.
        """
        return self._at(as_of).freeze()

    def fork(self, as_of: int | None = None) -> ScratchBank:
        """A writable overlay of this bank in memory; writing to it never touches what is stored."""
        return ScratchBank.of(self._at(as_of), self._ids)

    def erase(self, scope: Scope, *, ids: Sequence[str] | None = None) -> int:
        """Remove all records that `scope` covers, or of these only some, with history and vectors."""
        need_scope(scope)
        with self._tables.turn(), self._tables.lock:
            with self._tables.writing() as db:
                self._tables.narrow(db, scope.user)
                gone, live = self._tables.delete(scope, ids)
            self._newest = self._blocks = None
            self._snapshots.clear()
            self._vectors.forget()
            self._words.forget()
            if gone.user is not None:
                self._vectors.wipe(gone.user, gone.versions)
            self._wiped.add(gone.number)
        self.settle(0)
        return live

    def settle(self, timeout: float = 10.0) -> tuple[str, ...]:
        """Finish what was erased; returns who still reads older pages after `timeout` seconds, () if all is gone.

        What is left is finished by the next who opens or closes it.
        """
        pending = self._tables.pending()
        if not pending:
            return ()
        if not self._wiped.issuperset(pending):
            self._vectors.clear()  # whoever was to wipe them may have been killed
        return self._tables.settle(timeout, pending)

    def page(
        self,
        scope: Scope,
        *,
        where: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int | None = None,
        now: datetime | None = None,
        as_of: int | datetime | None = None,
    ) -> builtins.list[MemoryRecord]:
        """Records that `scope` covers and a filter means, oldest first, from the one after `after` on.

        Raises:
            ArgumentError: there is no record `after`, or `limit` is negative.
        """
        need_scope(scope)
        if limit is not None and limit < 0:
            raise ArgumentError(f"limit is {limit}; expected 0 or more, or None for all")
        wanted = read_filter(where)
        with self._tables.moment(scope.user) as (db, newest):
            view = self._view(db, scope, wanted, newest, as_of)
            records = view.records(self._tables)
            if now is not None:
                records = [record for record in records if not record.has_expired(now)]
            if after is not None:
                before = self._tables.born_until(after, scope)
                records = [record for record in records if record.id not in before]
        return records[:limit]

    @abstractmethod
    def backup(self, path: str | os.PathLike[str], *, at: datetime) -> None:
        """Write a whole copy of what is stored, while others go on writing.

        Raises:
            BankError: there is a file at `path`, or it cannot be written.
        """

    def times(self, first: int, last: int) -> dict[int, str]:
        """When commits were made, in the form of ISO 8601; those of erasures have no time."""
        return self._tables.times(first, last)

    def live(self, prefix: str) -> int:
        """How many live records users have whose name begins so."""
        return self._tables.live(prefix)

    def note_copy(self, path: str | os.PathLike[str], kind: str, *, at: datetime) -> None:
        """Remember that records were copied to a file that erasing here does not reach."""
        self._tables.note_copy(str(Path(path).absolute()), kind, at)

    def own_log(self, path: str | os.PathLike[str], scope: Scope) -> None:
        """Take a file for the bank's own: it is removed with whatever is erased of the scope's user next."""
        self._tables.own_log(str(Path(path).resolve()), need_scope(scope).user)

    def copies(self) -> builtins.list[str]:
        """Paths of the exports and backups that were made."""
        return list(dict.fromkeys(path for path, _, _ in self._tables.copies()))

    def export(self, scope: Scope) -> Iterator[dict[str, Any]]:
        """Live records that `scope` covers, as plain objects."""
        return (record.to_json() for record in self.list(scope))

    def close(self) -> None:
        """Close it. Snapshots and forks keep what they have read."""
        if self._tables.own and not self.read_only:
            with suppress(BankError):  # who opens it next finishes it
                self.settle(0)
        self._tables.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _view(
        self, db: Database, scope: Scope, wanted: Filter | None, newest: int, as_of: int | datetime | None
    ) -> View:
        if isinstance(as_of, int):
            need_commit(as_of, newest)
        filters = [f for f in (wanted, scope_filter(scope)) if f is not None]
        return View(db, self._vectors, self._words, scope, filters, newest, newest if as_of is None else as_of)

    def _at(self, as_of: int | None) -> Overlay:
        with self._tables.lock:
            newest = self._current()
            if as_of is None or as_of == newest.commit:
                return newest.copy().pin()
            return Overlay(self._pinned(need_commit(as_of, newest.commit)))

    def _current(self) -> Overlay:
        """The newest commit in memory, brought up to the stored one; call it with the lock held."""
        commit = self._tables.newest()
        newest, blocks = self._newest, self._blocks
        if newest is not None and newest.commit != commit:
            followed = self._tables.since(newest.commit, commit) if commit - newest.commit <= REPIN else None
            if followed is None:
                newest = None
                self._snapshots.clear()  # what was erased must not be seen in them
            else:
                newest.extend(followed)
        if newest is not None and newest.size <= REPIN:
            return newest
        known = {} if newest is None or blocks is None else {u: newest.block(u) for u in blocks.loaded}
        self._blocks = self._pinned(commit, known)
        self._newest = Overlay(self._blocks)
        return self._newest

    def _pinned(self, commit: int, blocks: Mapping[str, Block] | None = None) -> StoredSnapshot:
        found = self._snapshots.get(commit)
        if found is None:
            found = StoredSnapshot(self._tables, self.embedder, commit, blocks or {})
            self._snapshots[commit] = found
        return found


def _need_room(live: int, more: int, most: int) -> None:
    """Refuse what would be too many records.

    Raises:
        RoomError: it would.
    """
    if more > 0 and live + more > most:
        raise RoomError(f"there is no room for {more} more records: {most} may be kept; erase some first")
