"""A storage of CrewAI's memory: `Memory(storage=storage, embedder=storage.embed)` of CrewAI keeps its records here.

    storage = MemoristStorage(memory, user="anna")
    crew_memory = crewai.Memory(storage=storage, embedder=storage.embed)

Vectors are the memory's own, so that its searches and CrewAI's find the same; CrewAI must embed with `embed`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from crewai.memory.types import MemoryRecord as CrewRecord
from crewai.memory.types import ScopeInfo

from memorist.errors import ArgumentError
from memorist.library.memory import Memory
from memorist.library.results import refusal
from memorist.memory.record import MemoryRecord, Operation, Scope

AGENT = "crewai"
"""The agent whose part of a user's memory the records are."""


class MemoristStorage:
    """Implements CrewAI's `StorageBackend`.

    Args:
        memory: where records lie.
        user: whose they are.
    """

    def __init__(self, memory: Memory, *, user: str) -> None:
        self.memory, self._scope = memory, Scope(user, AGENT)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Vectors of texts, as CrewAI's embedder has to give them."""
        return [row.tolist() for row in np.asarray(self.memory.bank.embedder.embed(list(texts)))]

    def save(self, records: list[CrewRecord]) -> None:
        """Keep records, all of them or none; those that are there are replaced.

        Raises:
            RefusedError: one of them cannot be stored; none is.
        """
        known = {record.key: record.id for record in self.memory.list(self._scope)}
        wanted = {record.id: record for record in records}  # of several with one id the last
        operations = [
            Operation("UPDATE", one.content, known[one.id], payload=_about(one))
            if one.id in known
            else Operation("ADD", one.content, key=one.id, payload=_about(one), at=one.created_at)
            for one in wanted.values()
        ]
        results = self.memory.bank.apply(operations, self._scope, at=datetime.now(UTC), whole=True)
        for result in results:
            if not result.code.accepted:
                raise refusal(result, self._scope)

    def search(
        self,
        query_embedding: list[float],
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        min_score: float = 0.0,
    ) -> list[tuple[CrewRecord, float]]:
        """The nearest records, best first; scores are cosines.

        Raises:
            ArgumentError: the vector is not one of `embed`.
        """
        size = self.memory.bank.embedder.size
        if len(query_embedding) != size:
            raise ArgumentError(
                f"the query's vector has {len(query_embedding)} numbers, the memory's have {size}; give CrewAI's "
                "memory embedder=storage.embed"
            )
        hits = self.memory.search(
            "", self._scope, k=limit, mode="vector", vector=np.asarray(query_embedding, np.float32),
            where=_where(scope_prefix, categories, metadata_filter),
        )  # fmt: skip
        return [(_crew(hit.record), hit.score) for hit in hits if hit.score >= min_score]

    def delete(
        self,
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        record_ids: list[str] | None = None,
        older_than: datetime | None = None,
        metadata_filter: dict[str, Any] | None = None,
    ) -> int:
        """Remove records for good; how many there were."""
        found = [
            record
            for record in self._records(scope_prefix, categories, metadata_filter)
            if (record_ids is None or record.key in record_ids)
            and (older_than is None or _aware(record.created) < _aware(older_than))
        ]
        for record in found:
            self.memory.delete(record.id, self._scope)
        return len(found)

    def update(self, record: CrewRecord) -> None:
        """Replace the record with the same id; the old text stays in its history."""
        held = self._held(record.id)
        if held is not None:
            self.memory.update(held.id, record.content, self._scope, metadata=_about(record))

    def get_record(self, record_id: str) -> CrewRecord | None:
        """One record."""
        held = self._held(record_id)
        return None if held is None else _crew(held)

    def list_records(self, scope_prefix: str | None = None, limit: int = 200, offset: int = 0) -> list[CrewRecord]:
        """Records, newest first."""
        found = sorted(self._records(scope_prefix), key=lambda record: _aware(record.created), reverse=True)
        return [_crew(record) for record in found[offset : offset + limit]]

    def get_scope_info(self, scope: str) -> ScopeInfo:
        """What there is under a path."""
        found = self._records(scope)
        times = sorted(_aware(record.created) for record in found)
        return ScopeInfo(
            path=scope, record_count=len(found), categories=sorted(self.list_categories(scope)),
            oldest_record=times[0] if times else None, newest_record=times[-1] if times else None,
            child_scopes=self.list_scopes(scope),
        )  # fmt: skip

    def list_scopes(self, parent: str = "/") -> list[str]:
        """Paths one step under another."""
        base = _parts(parent)
        paths = {tuple(_parts(record.payload["scope"])) for record in self._records(parent)}
        return sorted({"/" + "/".join(path[: len(base) + 1]) for path in paths if len(path) > len(base)})

    def list_categories(self, scope_prefix: str | None = None) -> dict[str, int]:
        """How many records each category has."""
        return dict(Counter(name for record in self._records(scope_prefix) for name in record.payload["categories"]))

    def count(self, scope_prefix: str | None = None) -> int:
        """How many records there are."""
        return len(self._records(scope_prefix))

    def reset(self, scope_prefix: str | None = None) -> None:
        """Remove all records under a path for good."""
        if scope_prefix in (None, "/"):
            self.memory.erase(self._scope)
        else:
            self.delete(scope_prefix)

    async def asave(self, records: list[CrewRecord]) -> None:
        """As `save`, beside the event loop."""
        await asyncio.to_thread(self.save, records)

    async def asearch(self, query_embedding: list[float], **how: Any) -> list[tuple[CrewRecord, float]]:
        """As `search`, beside the event loop."""
        return await asyncio.to_thread(self.search, query_embedding, **how)

    async def adelete(self, **which: Any) -> int:
        """As `delete`, beside the event loop."""
        return await asyncio.to_thread(self.delete, **which)

    def _held(self, record_id: str) -> MemoryRecord | None:
        found = self.memory.list(self._scope, where={"@key": record_id}, limit=1)
        return found[0] if found else None

    def _records(
        self, prefix: str | None = None, categories: list[str] | None = None, metadata: dict[str, Any] | None = None
    ) -> list[MemoryRecord]:
        return self.memory.list(self._scope, where=_where(prefix, categories, metadata))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _about(record: CrewRecord) -> dict[str, Any]:
    parts = _parts(record.scope)
    under = ["/" + "/".join(parts[:n]) for n in range(len(parts) + 1)]
    return {
        "scope": record.scope, "under": under, "categories": list(record.categories), "metadata": dict(record.metadata),
        "importance": record.importance, "accessed": record.last_accessed.isoformat(), "from": record.source,
        "private": record.private,
    }  # fmt: skip


def _crew(record: MemoryRecord) -> CrewRecord:
    told = record.payload
    return CrewRecord(
        id=record.key or record.id, content=record.text, scope=told["scope"], categories=list(told["categories"]),
        metadata=dict(told["metadata"]), importance=told["importance"], created_at=record.created,
        last_accessed=datetime.fromisoformat(told["accessed"]), source=told["from"], private=told["private"],
    )  # fmt: skip


def _where(prefix: str | None, categories: list[str] | None, metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    tests: list[dict[str, Any]] = []
    if prefix not in (None, "", "/"):
        tests.append({"under": "/" + "/".join(_parts(str(prefix)))})
    if categories:
        tests.append({"categories": {"in": categories}})
    tests += [{f"metadata.{name}": value} for name, value in (metadata or {}).items()]
    return {"and": tests} if tests else None


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
