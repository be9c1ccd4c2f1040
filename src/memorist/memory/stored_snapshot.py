"""A `StoredBank` as it stood at one commit."""

from __future__ import annotations

from collections.abc import Mapping

from memorist.memory.bank import Block
from memorist.memory.embed import Embedder
from memorist.memory.record import Change, MemoryRecord, Scope, clean_text
from memorist.memory.stored_tables import Tables


class StoredSnapshot:
    """The tables as of one commit, read user by user when asked for; what was read is kept."""

    def __init__(self, tables: Tables, embedder: Embedder, commit: int, blocks: Mapping[str, Block]) -> None:
        self.commit = commit
        self.embedder = embedder
        self._tables = tables
        self.loaded: dict[str, Block] = {}
        self._records: dict[str, MemoryRecord] = {}
        self._keys: dict[tuple[Scope, str], MemoryRecord] = {}
        for user, block in blocks.items():
            self._keep(user, block)

    def _keep(self, user: str, block: Block) -> Block:
        self._records.update({record.id: record for record in block.records})
        self._keys.update({(r.scope, r.key): r for r in block.records if r.key is not None})
        self.loaded[user] = block
        return block

    def get(self, record_id: str) -> MemoryRecord | None:
        """The record with this id, whatever its scope."""
        if record_id in self._records:
            return self._records[record_id]
        if clean_text(record_id) != record_id:
            return None  # no stored id holds what SQLite cannot be asked for
        found = self._tables.records("id = ?", (record_id,), self.commit)
        return found[0] if found else None

    def find_key(self, scope: Scope, key: str) -> MemoryRecord | None:
        """The record that holds `key` in exactly this scope."""
        if scope.user in self.loaded or clean_text(key) != key:
            return self._keys.get((scope, key))
        found = self._tables.records("user = ? AND key = ?", (scope.user, key), self.commit)
        return next((record for record in found if record.scope == scope), None)

    def block(self, user: str) -> Block:
        """All live records of a user, oldest first."""
        block = self.loaded.get(user)
        if block is not None:
            return block
        with self._tables.lock:
            return self.loaded.get(user) or self._keep(user, self._tables.block(user, self.commit, self.embedder.size))

    def history(self, record_id: str) -> list[Change]:
        """Changes of one record, oldest first."""
        if clean_text(record_id) != record_id:
            return []
        where = "c.id = ? AND c.number <= ?"
        return [change for change, _ in self._tables.entries(where, (record_id, self.commit))]

    def changes(self) -> list[Change]:
        """All changes, oldest first."""
        return [change for change, _ in self._tables.entries("c.number <= ?", (self.commit,))]

    def users(self) -> list[str]:
        """All users that have live records, sorted."""
        return self._tables.users(self.commit)
