"""A bank that asks before it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from memorist.memory.bank import Hit, IdSource
from memorist.memory.embed import Vectors
from memorist.memory.record import Code, Kind, MemoryRecord, Operation, Result, Scope
from memorist.memory.sqlite import SQLiteBank

Guard = Callable[[Operation, Scope], str | None]
"""Before an ADD or UPDATE is written: the reason to refuse it, or None."""


class GuardedBank:
    """What the library and its agents write through: a guard may refuse."""

    def __init__(self, bank: SQLiteBank, guard: Guard | None = None) -> None:
        self.bank, self.guard, self.embedder = bank, guard, bank.embedder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bank, name)

    def search(self, query: str | Vectors, scope: Scope, *, k: int = 5, as_of: int | None = None) -> list[Hit]:
        """As the bank's."""
        return self.bank.search(query, scope, k=k, as_of=as_of)

    def get(self, record_id: str, scope: Scope, *, as_of: int | None = None) -> MemoryRecord | None:
        """As the bank's."""
        return self.bank.get(record_id, scope, as_of=as_of)

    def apply(
        self,
        operations: Sequence[Operation],
        scope: Scope,
        *,
        at: datetime,
        source: Sequence[str] = (),
        ids: IdSource | None = None,
        once: bool = False,
        whole: bool = False,
    ) -> list[Result]:
        """As the bank's, with what the guard refuses left out.

        Args:
            operations: what was asked.
            scope: where.
            at: when.
            source: ids of messages.
            ids: see `SQLiteBank.apply`.
            once: see `SQLiteBank.apply`.
            whole: see `SQLiteBank.apply`; what the guard refuses counts.
        """
        refused = {n: self._refusal(op, scope) for n, op in enumerate(operations)}
        told = {n: result for n, result in refused.items() if result is not None}
        if whole and told:
            return list(told.values())
        asked = [n for n in range(len(operations)) if n not in told]
        given = [operations[n] for n in asked]
        applied = self.bank.apply(given, scope, at=at, source=source, ids=ids, once=once, whole=whole)
        told |= dict(zip(asked, applied, strict=True))
        return [told[n] for n in range(len(operations))]

    def _refusal(self, op: Operation, scope: Scope) -> Result | None:
        if self.guard is None or op.kind not in (Kind.ADD, Kind.UPDATE):
            return None
        reason = self.guard(op, scope)
        return None if reason is None else Result(replace(op, reason=reason), Code.REFUSED)
