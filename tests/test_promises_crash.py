"""An acknowledged operation is never lost, and none is half applied, when the writer is killed at any moment."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memorist.memory import sqlite_tables, stored_search
from memorist.memory.record import Scope
from memorist.memory.sqlite import SQLiteBank

ROUNDS = 200
PER_FILE = 25
SIZE = 5  # records that each commit adds, so that half a commit shows

WRITER = """
import sys
from datetime import datetime
from memorist.memory.record import Operation, Scope
from memorist.memory.sqlite import SQLiteBank

path, round_, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
scope, at = Scope("anna"), datetime(2023, 5, 8)
bank = SQLiteBank(path)
print("open", flush=True)
number = 0
while True:
    texts = [f"{round_} {number} {part}" for part in range(size)]
    operations = [Operation("ADD", text, key=text) for text in texts]
    if number % 3 == 2:
        # The parts of an earlier commit are changed together with it.
        old = [r for r in bank.list(scope) if r.text.startswith(f"{round_} {number - 2} ")]
        operations += [Operation("UPDATE", f"changed {r.text}", r.id) for r in old]
    results = bank.apply(operations, scope, at=at)
    assert all(r.code == "applied" for r in results), results
    print(number, bank.commit, flush=True)
    number += 1
"""


@pytest.mark.promise
def test_acknowledged_operations_survive_kill_9_and_commits_are_whole(tmp_path: Path) -> None:
    rng = random.Random(7)
    acknowledged: dict[int, int] = {}
    counts: list[int] = []
    newest = 0
    for round_ in range(ROUNDS):
        path = tmp_path / f"bank{round_ // PER_FILE}.db"  # a file that only grows would take ever longer to check
        if round_ % PER_FILE == 0:
            acknowledged, newest = {}, 0
        command = [sys.executable, "-c", WRITER, str(path), str(round_), str(SIZE)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            if round_ % 8:  # every eighth is killed while it starts, opens and recovers
                assert writer.stdout.readline() == "open\n"
                time.sleep(rng.uniform(0, 0.25))
            else:
                time.sleep(rng.uniform(0.05, 0.4))
            writer.send_signal(signal.SIGKILL)
            # A line may be torn by the kill; one with its end was written after apply had returned.
            whole = [line for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        done = [tuple(map(int, line.split())) for line in whole if line != "open\n"]
        acknowledged[round_] = len(done)
        counts.append(len(done))
        newest = max([newest, *(commit for _, commit in done)])
        check(path, acknowledged, newest)
    assert sum(counts) > ROUNDS, "too few commits to prove anything"
    assert sum(1 for count in counts if count) > ROUNDS // 2
    print(f"{ROUNDS} rounds, {sum(counts)} acknowledged commits, none lost, none half applied")


def check(path: Path, acknowledged: dict[int, int], newest: int) -> None:
    """Everything acknowledged is there, and of what was not, a whole commit or nothing."""
    with SQLiteBank(path) as bank:
        assert bank.commit >= newest
        with bank._file.reading() as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert search_follows_from_versions(db)
        parts: dict[tuple[int, int], list[bool]] = {}
        for record in bank.list(Scope("anna")):
            changed = record.text.startswith("changed ")
            round_, number, _ = map(int, record.text.removeprefix("changed ").split())
            parts.setdefault((round_, number), []).append(changed)
        for round_, count in acknowledged.items():
            numbers = {number for r, number in parts if r == round_}
            assert numbers in (set(range(count)), set(range(count + 1))), f"round {round_}: {count} acknowledged"
            for number in numbers:
                changed = number % 3 == 0 and number + 2 in numbers
                assert parts[round_, number] == [changed] * SIZE, f"commit {number} of round {round_} is torn"
        assert len(bank.changes(Scope("anna"))) == sum(SIZE * (2 if number % 3 == 2 else 1) for _, number in parts)


def search_follows_from_versions(db: sqlite3.Connection) -> bool:
    """Whether the tables of search are those that would be made anew."""
    tables = ("users", "words", "facets")

    def rows() -> list[list[tuple[object, ...]]]:
        return [sorted(db.execute(f"SELECT * FROM {table}"), key=repr) for table in tables]

    there = rows()
    db.execute("BEGIN")
    stored_search.clear(db)
    sqlite_tables.fill_search(db)
    anew = rows()
    db.execute("ROLLBACK")
    return there == anew


SMALL = ("steps=6", "tasks=3", "siblings=4", "leads=2", "dialogues=1")
TRAIN = [
    sys.executable, "-m", "memorist", "train", "memory-r1-demo", "--set=checkpoint_every=2", "--set=data.dialogues=8",
    *(f"--set=stages.{stage}.{setting}" for stage in (0, 1) for setting in SMALL),
]  # fmt: skip


def lines_of(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def numbers(folder: Path) -> list[dict[str, object]]:
    from memorist.training.metrics import MEASURED

    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in MEASURED} for line in lines]


@pytest.mark.promise
def test_training_that_is_killed_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*TRAIN, "--out", str(whole)], check=True, capture_output=True)
    for line in (1, 4, 7, 9, 11):  # killed in both stages, soon after a checkpoint or long after one
        with subprocess.Popen([*TRAIN, "--out", str(broken), "--resume"], stdout=subprocess.DEVNULL) as run:
            while run.poll() is None and lines_of(broken) < line:
                time.sleep(0.01)
            assert run.poll() is None, "the run ended before it could be killed"
            run.send_signal(signal.SIGKILL)
    assert lines_of(broken) < 12
    subprocess.run([*TRAIN, "--out", str(broken), "--resume"], check=True, capture_output=True)
    assert numbers(broken) == numbers(whole) and len(numbers(whole)) == 12
    for role in ("manager", "answerer"):
        weights = [folder / "policies" / role / "model.safetensors" for folder in (whole, broken)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
