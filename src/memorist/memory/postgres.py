"""A bank in a PostgreSQL database with pgvector."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from memorist.errors import BankError, ScopeError
from memorist.memory.bank import Guard, IdSource, need_scope, sequential_ids
from memorist.memory.embed import Embedder, Vectors
from memorist.memory.postgres_server import BankServer, has_index, log, near
from memorist.memory.record import Operation, Result, Scope
from memorist.memory.stored import StoredBank
from memorist.memory.stored_find import Nearest, Ranked
from memorist.memory.stored_search import Database, Versions
from memorist.memory.stored_vectors import BIG, VectorCache, among

LONGEST_USER = 2600
"""Bytes of a user's name."""

FEW = 5000
"""Allowed versions up to which all are looked at; of more, those that the index finds."""

MORE = 32
"""Versions that the index is asked for beyond those wanted, since it rounds."""


class PostgresBank(StoredBank):
    """A durable bank in a database (`StoredBank`); threads, processes and machines may share it.

    Vectors are searched exactly; users of more than twenty thousand records have an index (HNSW), whose finds are
    computed anew. What is erased is deleted and vacuumed; the server's write-ahead log, its copies and the free space
    of its pages are its own.

    Args:
        url: `postgresql://USER@HOST/DATABASE`. The tables are made if need be, the database is not. Who connects should
            be no superuser: PostgreSQL holds those to no row-level security.
        embedder: what makes the vectors; None for the `HashedEmbedder` that the tables were made with.
        ids: gives new records their ids.
        guard: asked before an ADD or UPDATE is written; a text that it returns is why it is refused.
        read_only: refuse to write, and do not make the tables.
        schema: in which the tables lie.

    Raises:
        BankError: the server cannot be reached, lacks pgvector, or the tables were made by a newer version or with
            another embedder.
    """

    def __init__(
        self,
        url: str,
        *,
        embedder: Embedder | None = None,
        ids: IdSource = sequential_ids,
        guard: Guard | None = None,
        read_only: bool = False,
        schema: str = "memorist",
    ) -> None:
        self.schema = schema
        self._server = BankServer(url, schema, read_only)
        super().__init__(self._server, ServerVectors, embedder=embedder, ids=ids, guard=guard)
        if self.bypasses_row_security:
            log.warning("%s: who connects is held to no row-level security; let a plain user do it", self._server.name)

    @staticmethod
    def exists(url: str, schema: str = "memorist") -> bool:
        """Whether the database has a bank.

        Raises:
            BankError: the server cannot be reached.
        """
        server = BankServer(url, schema, read_only=True)
        try:
            return server.migrated() > 0
        finally:
            server.close()

    def backup(self, path: str | os.PathLike[str], *, at: datetime) -> None:
        """Refused: a database is copied as a whole by its own tools."""
        raise BankError(f"{self._server.name}: copy a database with pg_dump; `export` writes a scope's records")

    @property
    def bypasses_row_security(self) -> bool:
        """Whether the database does not hold who connects to row-level security, as it holds no superuser."""
        return self._server.bypasses()

    def apply(self, operations: Sequence[Operation], scope: Scope, *, at: datetime, **more: Any) -> list[Result]:
        """Apply operations in order as one commit (`StoredBank.apply`); who has many records by then gets an index."""
        if len(need_scope(scope).user.encode()) > LONGEST_USER:
            raise ScopeError(
                f"Scope.user has {len(scope.user.encode())} bytes; expected {LONGEST_USER} at most, which PostgreSQL's "
                "indexes hold"
            )
        results = super().apply(operations, scope, at=at, **more)
        if any(result.code.accepted for result in results):
            self._server.index_big(scope.user, BIG)
        return results


class ServerVectors(VectorCache):
    """Users' vectors in memory, following the tables; of big ones those that an index in the database finds."""

    def at(self, db: Database, user: str, newest: int, as_of: int | datetime) -> Nearest:
        """What finds a user's nearest vectors at a commit; with a time, among all that ever were."""
        row = db.execute("SELECT number, live FROM users WHERE name = ?", (user,)).fetchone()
        if as_of == newest and row is not None and row[1] > BIG and has_index(db, row[0]):
            return partial(self._by_index, db=db, user=user, number=row[0], live=row[1], commit=newest)
        return super().at(db, user, newest, as_of)

    def _by_index(
        self, query: Vectors, k: int, allowed: Versions | None, *,
        db: Database, user: str, number: int, live: int, commit: int,
    ) -> Ranked:  # fmt: skip
        if allowed is not None and len(allowed) <= FEW:
            return among(db, user, allowed.tolist(), commit, self.size).nearest(query, k)
        found = near(db, number, query, k + MORE, None if allowed is None else allowed.tolist())
        if len(found) < min(k + MORE, live):  # it looked at many, and too few of them were wanted
            if allowed is not None:
                return among(db, user, allowed.tolist(), commit, self.size).nearest(query, k)
            return super().at(db, user, commit, commit)(query, k, None)
        return among(db, user, found, commit, self.size).nearest(query, k)
