"""Several banks, threads and processes on one file; and what erasing leaves in it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from memorist.errors import BankError
from memorist.memory import sqlite_file, stored
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Code, Operation, Scope
from memorist.memory.scratch import ScratchBank
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


# Erasing


def test_erased_bytes_are_gone_from_all_files(path: Path) -> None:
    secret = "zweitausendsechsundvierzig"
    scopes = [Scope(f"user{i % 7}", f"agent{i % 3}") for i in range(40)]
    with SQLiteBank(path) as bank:
        for i, scope in enumerate(scopes):
            mark = secret if scope.user == "user3" else "nothing"
            for _ in range(3):
                bank.apply(add(f"{mark} {i} " + "x" * 70 * (i % 5), reason=mark), scope, at=AT, source=[mark])
            for record in bank.list(scope)[:2]:
                bank.apply([Operation("UPDATE", f"changed {mark}", record.id)], scope, at=AT)
            bank.apply([Operation("DELETE", id=bank.list(scope)[0].id)], scope, at=AT)
        vector = bank.embedder.embed([f"changed {secret}"])[0].tobytes()
        others = {u: bank.list(Scope(u)) for u in ("user0", "user6")}

        def found() -> list[str]:
            files = {p.name: p.read_bytes() for p in path.parent.iterdir()}
            return [n for n, b in files.items() if secret.encode() in b or vector in b or b"user3" in b]

        assert found()
        assert bank.erase(Scope("user3")) > 0
        assert found() == []
        assert {u: bank.list(Scope(u)) for u in others} == others
    assert found() == []


def test_erasing_reaches_banks_in_other_processes_at_once(path: Path) -> None:
    with SQLiteBank(path) as one, SQLiteBank(path) as other:
        one.apply(add("secret"), ANNA, at=AT)
        one.apply(add("kept"), Scope("ben"), at=AT)
        held = other.snapshot(1)
        assert texts(other) == ["secret"]
        assert one.erase(ANNA) == 1
        one.apply(add("kept too"), Scope("ben"), at=AT)
        assert texts(other) == texts(other, as_of=1) == []
        assert other.search("secret", ANNA) == []
        assert texts(ScratchBank(held)) == [], "it had not been read in this snapshot"
        assert texts(other, Scope("ben")) == ["kept", "kept too"]
        assert other.apply(add("new"), ANNA, at=AT)[0].code is Code.APPLIED
        assert texts(one) == ["new"]


# Sharing


def test_two_banks_on_one_file_see_each_other(path: Path) -> None:
    with SQLiteBank(path) as one, SQLiteBank(path) as other:
        for i in range(6):
            writer, reader = (one, other) if i % 2 else (other, one)
            writer.apply(add(f"statement {i}"), ANNA, at=AT)
            assert texts(reader) == [f"statement {j}" for j in range(i + 1)]
            assert reader.search(f"statement {i}", ANNA, k=1)[0].record.text == f"statement {i}"
            assert reader.commit == i + 1
        assert one.changes(ANNA) == other.changes(ANNA)


@pytest.mark.parametrize("at_once", [1, 40])
def test_memory_follows_the_file_over_many_commits(path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(stored, "REPIN", 5)
    with SQLiteBank(path) as one, SQLiteBank(path) as other:
        for i in range(24):
            one.apply(add(*(f"statement {i} {j}" for j in range(at_once))), ANNA, at=AT)
            records = one.list(ANNA)
            one.apply([Operation("UPDATE", f"new {i}", records[i % len(records)].id)], ANNA, at=AT)
            if i % 7 == 0:
                one.apply([Operation("DELETE", id=one.list(ANNA)[-1].id)], ANNA, at=AT)
            if i % 5 == 0:
                assert other.list(ANNA) == one.list(ANNA)
                assert other.search("statement", ANNA, k=9) == one.search("statement", ANNA, k=9)
        with SQLiteBank(path) as fresh:
            assert fresh.list(ANNA) == one.list(ANNA) == other.list(ANNA)
            assert fresh.changes(ANNA) == one.changes(ANNA)
            assert fresh.search("new", ANNA, k=50) == one.search("new", ANNA, k=50)


def test_snapshots_of_one_commit_share_what_was_read(path: Path) -> None:
    with SQLiteBank(path) as bank:
        bank.apply(add("one"), ANNA, at=AT)
        bank.apply(add("two"), ANNA, at=AT)
        held = bank.fork(1)
        assert held.snapshot().block("anna") is bank.fork(1).snapshot().block("anna")
        del held
        gc.collect()
        assert texts(bank, as_of=1) == ["one"]


def test_threads_share_a_bank(path: Path) -> None:
    errors: list[BaseException] = []

    def work(name: str) -> None:
        scope = Scope(name)
        try:
            for i in range(15):
                bank.apply(add(f"{name} {i}", f"{name} {i} more"), scope, at=AT)
                assert len(bank.list(scope)) == 2 * i + 2
                assert all(h.record.scope == scope for h in bank.search("3", scope, k=9))
        except Exception as error:  # noqa: BLE001 - any of them fails the test
            errors.append(error)

    with SQLiteBank(path) as bank:
        threads = [threading.Thread(target=work, args=(f"user{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert bank.commit == 60
    with SQLiteBank(path) as bank:
        assert [len(bank.list(Scope(f"user{i}"))) for i in range(4)] == [30] * 4


WRITER = """
import sys
from datetime import datetime
from memorist.memory.record import Operation, Scope
from memorist.memory.sqlite import SQLiteBank
path, name = sys.argv[1:]
with SQLiteBank(path) as bank:
    for i in range(20):
        # Everybody counts up the same record: none of the steps may get lost.
        mine = bank.apply([Operation("ADD", f"{name} {i}")], Scope(name), at=datetime(2023, 1, 1))
        assert mine[0].code == "applied", mine
        while True:
            before = bank.commit
            (counter,) = bank.list(Scope("all"), as_of=before)
            ops = [Operation("ADD", "step", key=f"step after {counter.text}"),
                   Operation("UPDATE", str(int(counter.text) + 1), counter.id)]
            first = bank.apply(ops[:1], Scope("steps"), at=datetime(2023, 1, 1))
            if first[0].code == "applied":  # the key is taken by one process only
                bank.apply(ops[1:], Scope("all"), at=datetime(2023, 1, 1))
                break
"""


def start(code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.PIPE, text=True)


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


def test_processes_share_a_file(path: Path) -> None:
    with SQLiteBank(path) as bank:
        bank.apply(add("0"), Scope("all"), at=AT)
        finish([start(WRITER, str(path), f"user{i}") for i in range(3)])
        assert texts(bank, Scope("all")) == ["60"]
        assert len(bank.list(Scope("steps"))) == 60
        for i in range(3):
            assert texts(bank, Scope(f"user{i}")) == [f"user{i} {j}" for j in range(20)]


def test_processes_that_create_the_file_together(path: Path) -> None:
    code = (
        "import sys; from datetime import datetime; from memorist.memory.record import Operation, Scope\n"
        "from memorist.memory.sqlite import SQLiteBank\n"
        "with SQLiteBank(sys.argv[1]) as b: b.apply([Operation('ADD', 'x')], Scope('a'), at=datetime(2023, 1, 1))"
    )
    finish([start(code, str(path)) for _ in range(4)])
    with SQLiteBank(path) as bank:
        assert texts(bank, Scope("a")) == ["x"] * 4


def test_a_file_kept_locked_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.05)
    with SQLiteBank(path) as bank, SQLiteBank(path) as other, other._file.writing():
        assert texts(bank) == [], "readers do not wait"
        with pytest.raises(BankError, match=r"bank\.db.*locked"):
            bank.apply(add("one"), ANNA, at=AT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_bank_is_not_used_in_a_forked_process(path: Path) -> None:
    with SQLiteBank(path) as bank:
        bank._file._process -= 1  # as it looks from the child
        with pytest.raises(BankError, match="another process"):
            bank.list(ANNA)
        bank._file._process += 1
