"""What is particular to the bank in a file: reopening, sharing it, and everything that can be wrong with it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from memorist.errors import BankError
from memorist.memory import sqlite_file, stored_search, stored_vectors
from memorist.memory.bank import MemoryBank
from memorist.memory.embed import HashedEmbedder
from memorist.memory.record import Operation, Scope
from memorist.memory.sqlite import SQLiteBank

AT = datetime(2023, 5, 8, 13, 56)
ANNA = Scope("anna")


def add(*texts: str, **more: Any) -> list[Operation]:
    return [Operation("ADD", text, **more) for text in texts]


def texts(bank: MemoryBank, scope: Scope = ANNA, **more: Any) -> list[str]:
    return [record.text for record in bank.list(scope, **more)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.db"


def test_a_bank_reopens_as_it_was(path: Path) -> None:
    with SQLiteBank(path) as bank:
        bank.apply(add("one", key="k", payload={"a": 1}), ANNA, at=AT, source=["D1:1"])
        (record,) = bank.list(ANNA)
        bank.apply([Operation("UPDATE", "two", record.id)], ANNA, at=AT)
        before = (bank.commit, bank.list(ANNA), bank.changes(ANNA), bank.search("two", ANNA))
    assert sorted(p.name for p in path.parent.iterdir()) == ["bank.db"], "nothing else is left behind"
    with SQLiteBank(path) as bank:
        assert (bank.commit, bank.list(ANNA), bank.changes(ANNA), bank.search("two", ANNA)) == before
        assert texts(bank, as_of=1) == ["one"]


def test_a_write_that_returned_was_fsynced(path: Path) -> None:
    with SQLiteBank(path) as bank, bank._file.reading() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA secure_delete").fetchone() == (1,)


def test_odd_paths(tmp_path: Path) -> None:
    for name in ("a b?c=1#d%20.db", "日本.db"):
        with SQLiteBank(str(tmp_path / name)) as bank:
            bank.apply(add("one"), ANNA, at=AT)
        assert (tmp_path / name).exists()


def test_closed(path: Path) -> None:
    bank = SQLiteBank(path)
    bank.apply(add("one"), ANNA, at=AT)
    read, unread = bank.fork(), bank.fork(0)
    assert texts(read) == ["one"]
    bank.close()
    bank.close()
    assert texts(read) == ["one"], "what a fork has read stays"
    for call in (lambda: bank.commit, lambda: bank.list(ANNA), lambda: unread.list(Scope("ben"))):
        with pytest.raises(BankError, match=r"bank\.db.*closed"):
            call()
    with pytest.raises(BankError, match="closed"):
        bank.apply(add("two"), ANNA, at=AT)


def steps(bank: SQLiteBank, call: Callable[[sqlite3.Connection], None]) -> int:
    """How many instructions SQLite runs in a call."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    with bank._file.reading() as db:
        db.set_progress_handler(count, 1)
        try:
            call(db)
        finally:
            db.set_progress_handler(None, 1)
    return counted


def test_looking_for_a_twin_takes_as_many_steps_among_many_records_as_among_few(path: Path) -> None:
    with SQLiteBank(path) as bank:
        bank.apply(add(*(f"number {i}" for i in range(20))), ANNA, at=AT)
        seventh = bank.list(ANNA)[7].id

        def look(db: sqlite3.Connection) -> None:
            assert stored_search.twins(db, add("number 7"), ANNA) == {0: seventh}

        among_few = steps(bank, look)
        bank.apply(add(*(f"number {i}" for i in range(20, 1000))), ANNA, at=AT)
        assert steps(bank, look) <= 2 * among_few


def test_reading_what_an_index_found_takes_as_many_steps_among_many_records(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_vectors, "BIG", 50)
    with SQLiteBank(path) as bank:

        def search(_: object) -> None:
            assert bank.search("number 7", ANNA)

        counts = []
        for some in (range(200), range(200, 2000)):
            bank.apply(add(*(f"number {i}" for i in some)), ANNA, at=AT)
            search(None)  # the index is made
            counts.append(steps(bank, search))
        assert counts[1] <= 2 * counts[0]


# Migrations, embedders


def test_migrations_run_once_and_are_recorded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SQLiteBank(path) as bank:
        bank.apply(add("one"), ANNA, at=AT)
    ran = []

    def add_a_table(db: sqlite3.Connection) -> None:
        ran.append(1)
        db.execute("CREATE TABLE extra (x)")

    first = sqlite_file.MIGRATIONS
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*first, add_a_table))
    for _ in range(2):
        with SQLiteBank(path) as bank, bank._file.reading() as db:
            assert texts(bank) == ["one"]
            recorded = db.execute("SELECT number, name FROM migrations").fetchall()
            assert recorded == [
                (1, "create_tables"),
                (2, "add_search"),
                (3, "add_logs"),
                (4, "number_versions"),
                (5, "add_jobs"),
                (6, "add_a_table"),
            ]
    assert ran == [1]
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", first)
    with pytest.raises(BankError, match=r"newer version.*pip install"):
        SQLiteBank(path)


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SQLiteBank(path).close()

    def fails(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE extra (x)")
        db.execute("no SQL")

    first = sqlite_file.MIGRATIONS
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*first, fails))
    with pytest.raises(BankError, match=r"bank\.db"):
        SQLiteBank(path)
    with pytest.raises(BankError, match="read_only"):
        SQLiteBank(path, read_only=True)
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", first)
    with SQLiteBank(path) as bank, bank._file.reading() as db:
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)


class Named(HashedEmbedder):
    def __init__(self, name: str, size: int) -> None:
        super().__init__(size)
        self.name = name


def test_another_embedder_is_refused(path: Path) -> None:
    SQLiteBank(path, embedder=Named("minilm", 64)).close()
    for embedder in (HashedEmbedder(64), Named("minilm", 128), None):
        with pytest.raises(BankError, match=r"made with embedder 'minilm'.*64.*reembed"):
            SQLiteBank(path, embedder=embedder)
    with SQLiteBank(path, embedder=Named("minilm", 64)) as bank:
        bank.apply(add("one"), ANNA, at=AT)


def test_the_embedder_of_the_file_is_the_default(path: Path) -> None:
    SQLiteBank(path, embedder=HashedEmbedder(32)).close()
    with SQLiteBank(path) as bank:
        assert bank.embedder.size == 32


# Files that are not right


def test_read_only(path: Path) -> None:
    with pytest.raises(BankError, match=r"bank\.db.*cannot be opened"):
        SQLiteBank(path, read_only=True)
    with SQLiteBank(path) as bank:
        bank.apply(add("one"), ANNA, at=AT)
        with SQLiteBank(path, read_only=True) as reader:
            assert texts(reader) == ["one"]
            for write in (
                lambda: reader.apply(add("two"), ANNA, at=AT),
                lambda: reader.erase(ANNA),
            ):
                with pytest.raises(BankError, match="read_only"):
                    write()
            bank.apply(add("two"), ANNA, at=AT)
            assert texts(reader) == ["one", "two"]
            fork = reader.fork()
            fork.apply(add("three"), ANNA, at=AT)
            assert texts(fork) == ["one", "two", "three"]
    path.write_bytes(b"")
    with pytest.raises(BankError, match="no bank"):
        SQLiteBank(path, read_only=True)


def test_read_only_where_nothing_can_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SQLiteBank(path) as bank:
        bank.apply(add("one"), ANNA, at=AT)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with SQLiteBank(path, read_only=True) as bank:
        assert "immutable" in bank._file._uri()
        assert texts(bank) == ["one"]
        assert sorted(p.name for p in path.parent.iterdir()) == ["bank.db"]


def test_a_file_without_write_permission(path: Path) -> None:
    with SQLiteBank(path) as bank:
        bank.apply(add("one"), ANNA, at=AT)
        with bank._file.reading() as db:
            db.execute("PRAGMA query_only = ON")  # the error of a file that this user may not write
        with pytest.raises(BankError, match=r"bank\.db.*cannot be written"):
            bank.apply(add("two"), ANNA, at=AT)
        assert texts(bank) == ["one"]


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BankError, match=r"none/bank\.db.*folder exists"):
        SQLiteBank(tmp_path / "none" / "bank.db")


def test_disk_full_leaves_the_previous_state(path: Path) -> None:
    with SQLiteBank(path) as bank:
        bank.apply(add("one"), ANNA, at=AT)
        before = (bank.commit, bank.changes(ANNA))
        with bank._file.reading() as db:
            pages = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {pages + 3}")
        big = add("small", *(f"{'big ' * 9000}{i}" for i in range(5)))
        with pytest.raises(BankError, match=r"bank\.db.*disk is full.*try again"):
            bank.apply(big, ANNA, at=AT)
        assert (bank.commit, bank.changes(ANNA)) == before
        assert texts(bank) == ["one"]
        with bank._file.reading() as db:
            db.execute("PRAGMA max_page_count = 100000")
        bank.apply(big, ANNA, at=AT)
        assert len(bank.list(ANNA)) == 7
    with SQLiteBank(path) as bank:
        assert len(bank.list(ANNA)) == 7


def test_a_file_that_is_not_a_bank(path: Path) -> None:
    path.write_bytes(b"These are my notes, and nothing else. " * 100)
    content = path.read_bytes()
    with pytest.raises(BankError, match=r"bank\.db.*not a bank"):
        SQLiteBank(path)
    assert path.read_bytes() == content
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(BankError, match=r"bank\.db.*not of a bank"):
        SQLiteBank(path)


@pytest.mark.parametrize("how", ["torn", "scrambled"])
def test_a_damaged_file_is_named(path: Path, how: str) -> None:
    with SQLiteBank(path) as bank:
        bank.apply(add(*(f"statement {i} " * 20 for i in range(300))), ANNA, at=AT)
    content = bytearray(path.read_bytes())
    if how == "torn":
        content = content[: len(content) // 2]
    else:
        content[4096 * 3 :] = b"\xff" * (len(content) - 4096 * 3)
    path.write_bytes(content)
    with pytest.raises(BankError, match=r"bank\.db.*damaged.*backup"), SQLiteBank(path) as bank:
        bank.list(ANNA)
    assert path.read_bytes() == content


def test_vectors_of_another_length_are_damage(path: Path) -> None:
    with SQLiteBank(path) as bank:
        bank.apply(add("one"), ANNA, at=AT)
        with bank._file.writing() as db:
            db.execute("UPDATE vectors SET vector = x'0000'")
    with SQLiteBank(path) as bank, pytest.raises(BankError, match="wrong length"):
        bank.search("one", ANNA)
