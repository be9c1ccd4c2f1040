"""The banks that the conformance tests run over, and short names for what they do with them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from memorist.memory.bank import IdSource, MemoryBank, sequential_ids
from memorist.memory.record import Code, MemoryRecord, Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.memory.sqlite import SQLiteBank

AT = datetime(2023, 5, 8, 13, 56)
LATER = datetime(2023, 6, 1)
ANNA = Scope("anna")

MakeBank = Callable[..., MemoryBank]


def sqlite_bank(stack: ExitStack, ids: IdSource = sequential_ids) -> SQLiteBank:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    return stack.enter_context(SQLiteBank(Path(folder) / "bank.db", ids=ids))


def scratch_bank(stack: ExitStack, ids: IdSource = sequential_ids) -> ScratchBank:
    return ScratchBank(ids=ids)


def used(bank: MemoryBank) -> MemoryBank:
    """The bank with a past: records of somebody else, and two that were deleted."""
    bank.apply([add("Not about Anna"), add("Nor this")], Scope("somebody"), at=AT)
    bank.apply([add("Anna was here"), add("and here")], ANNA, at=AT)
    bank.apply([Operation("DELETE", id=r.id) for r in bank.list(ANNA)], ANNA, at=AT)
    return bank


def over_sqlite(stack: ExitStack, ids: IdSource = sequential_ids) -> ScratchBank:
    return ScratchBank(used(sqlite_bank(stack)).fork().snapshot(), ids=ids)


def over_scratch(stack: ExitStack, ids: IdSource = sequential_ids) -> ScratchBank:
    return ScratchBank(used(ScratchBank()).snapshot(), ids=ids)


KINDS = {f.__name__: f for f in (sqlite_bank, scratch_bank, over_sqlite, over_scratch)}


SCOPES = [Scope(u, a, s) for u in ("anna", "ben") for a in ("", "x", "y") for s in ("", "1", "2")]


def add(text: str, **more: object) -> Operation:
    return Operation("ADD", text, **more)  # type: ignore[arg-type]


def codes(results: Sequence[object]) -> list[Code]:
    return [result.code for result in results]  # type: ignore[attr-defined]


def texts(records: Sequence[MemoryRecord]) -> list[str]:
    return [record.text for record in records]
