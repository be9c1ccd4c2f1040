"""One text that an agent keeps in its bank and overwrites."""

from __future__ import annotations

from datetime import UTC, datetime

from memorist.memory.bank import MemoryBank
from memorist.memory.record import MemoryRecord, Operation, Result, Scope

UNDATED = datetime(1970, 1, 1, tzinfo=UTC)
KEY = "memory"


class Notes:
    """The text that stands under one key of a scope; what it was before is in the bank's history."""

    def __init__(self, bank: MemoryBank, scope: Scope) -> None:
        self.bank, self.scope = bank, scope

    @property
    def text(self) -> str:
        """As it is now; empty before anything was written."""
        record = self._record()
        return record.text if record else ""

    def write(self, text: str, reason: str = "") -> tuple[Result, ...]:
        """Put another text in its place."""
        old = self._record()
        operation = (
            Operation("UPDATE", text, old.id, reason=reason) if old else Operation("ADD", text, key=KEY, reason=reason)
        )
        return self._apply(operation)

    def leave(self, reason: str = "") -> tuple[Result, ...]:
        """Leave it as it is."""
        return self._apply(Operation("NOOP", reason=reason))

    def _record(self) -> MemoryRecord | None:
        return next((record for record in self.bank.list(self.scope) if record.key == KEY), None)

    def _apply(self, operation: Operation) -> tuple[Result, ...]:
        return tuple(self.bank.apply([operation], self.scope, at=UNDATED))
