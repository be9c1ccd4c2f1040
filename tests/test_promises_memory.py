"""What users of the library trust: written is on disk, many writers lose nothing, gone is gone."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memorist import Memory, Scope
from memorist.memory.stored_vectors import VectorCache

pytestmark = pytest.mark.promise

WRITER = """
import sys
from memorist import Memory, Scope
with Memory(sys.argv[1], embedder="hashed") as memory:
    for number in range(20):
        result = memory.add(f"number {number}", Scope("anna"))
        print(f"acknowledged {result.record.id}", flush=True)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace")
def test_acknowledged_means_synced(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    if subprocess.run(["strace", "-o", str(trace), "true"], capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    command = ["strace", "-f", "-y", "-e", "trace=write,pwrite64,fsync,fdatasync", "-o", str(trace)]
    subprocess.run([*command, sys.executable, "-c", WRITER, str(tmp_path / "m.db")], check=True, capture_output=True)
    synced, acknowledged = True, 0
    for line in trace.read_text(errors="replace").splitlines():
        call = re.search(r"(write|pwrite64|fsync|fdatasync)\((\d+)<([^>]*)>", line)
        if call is None:
            continue
        name, _, file = call.groups()
        if file.endswith("m.db-wal"):
            synced = name in ("fsync", "fdatasync")
        elif '"acknowledged ' in line:
            assert synced, "said to be done while the log had not been synced"
            acknowledged += 1
    assert acknowledged == 20


WORKER = """
import json, sys, threading
from memorist import Memory, Scope
path, worker, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
memory = Memory(path, embedder="hashed")
done, problems = [], []

def work(thread):
    name = f"{worker}.{thread}"
    mine, all = Scope(f"user{name}"), Scope("everybody")
    try:
        own = memory.add(f"secret of {name}", mine).record.id
        shared = memory.list(Scope("everybody"))[0].id
        for number in range(rounds):
            memory.update(own, f"secret of {name}, {number}", mine)
            memory.update(shared, f"{name} was here, {number}", all, reason=f"{name}/{number}")
            memory.add(f"note {number} of {name}", all, metadata={"by": name})
            hits = memory.search(f"secret {number}", mine)
            assert [h.record.text for h in hits] == [f"secret of {name}, {number}"], hits
            found = memory.list(all, where={"by": name})
            assert [r.text for r in found] == [f"note {n} of {name}" for n in range(number + 1)], found
            done.append(f"{name}/{number}")
    except BaseException as error:
        problems.append(f"{name}: {type(error).__name__}: {error}")

threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
memory.close()
print(json.dumps({"done": done, "problems": problems}))
"""


def test_8_processes_of_4_threads_lose_no_update_and_see_no_lock(tmp_path: Path) -> None:
    rounds, path = 12, tmp_path / "m.db"
    everybody = Scope("everybody")
    with Memory(path, embedder="hashed") as memory:
        shared = memory.add("nobody was here", everybody).record
        assert shared is not None
        command = [sys.executable, "-c", WORKER, str(path)]
        workers = [
            subprocess.Popen([*command, str(worker), str(rounds)], stdout=subprocess.PIPE, text=True)
            for worker in range(8)
        ]
        told = [json.loads(worker.communicate()[0]) for worker in workers]
        assert [one["problems"] for one in told] == [[]] * 8
        acknowledged = sorted(name for one in told for name in one["done"])
        assert len(acknowledged) == 8 * 4 * rounds
        changes = memory.history(shared.id, everybody)
        assert sorted(change.reason for change in changes[1:]) == acknowledged, "an update was lost or came twice"
        assert [c.before for c in changes[1:]] == [c.after for c in changes[:-1]], "each replaces the one before it"
        assert len(memory.list(everybody)) == 1 + len(acknowledged)
        for worker in range(8):
            for thread in range(4):
                (own,) = memory.list(Scope(f"user{worker}.{thread}"))
                assert len(memory.history(own.id, own.scope)) == 1 + rounds


def test_10_000_scopes_stay_apart_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    with Memory(tmp_path / "m.db", embedder="hashed") as memory:
        cache = memory._bank._vectors = VectorCache(memory._bank.embedder.size, room=2**20)
        for number in range(10_000):
            memory.add_many([f"the secret of {number} is {number * 7}", "a note"], Scope(f"user{number}"))
        for number in rng.sample(range(10_000), 300):
            hits = memory.search("secret", Scope(f"user{number}"), mode="fused")
            assert [hit.record.text for hit in hits] == [f"the secret of {number} is {number * 7}", "a note"]
        assert sum(one.vectors.nbytes for one in cache._kept.values()) <= 2**20
        assert memory.erase(Scope("user77")).records == 2
        assert len(memory.list(Scope("user78"))) == 2
        # An erased scope leaves nothing; others are not read by it.
        assert not any(b"secret of 77 is" in file.read_bytes() for file in tmp_path.iterdir())


TELLER = """
import sys
from memorist import Memory, Scope
memory = Memory(sys.argv[1], embedder="hashed")
print("open", flush=True)
sys.stdin.readline()
memory.erase(Scope("anna"))
print("erased", flush=True)
"""


def test_an_erasure_that_is_killed_is_finished_by_the_next_who_opens(tmp_path: Path) -> None:
    rng = random.Random(3)
    path = tmp_path / "m.db"
    for round_ in range(12):
        with Memory(path, embedder="hashed") as memory:
            memory.add_many([f"Xanthippus {round_} {n} " + "x" * 500 for n in range(200)], Scope("anna"))
        with subprocess.Popen(
            [sys.executable, "-c", TELLER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as teller:
            assert teller.stdin and teller.stdout and teller.stdout.readline()
            teller.stdin.write(b"\n")
            teller.stdin.flush()
            time.sleep(rng.uniform(0, 0.12))
            teller.kill()
        with Memory(path) as memory:
            left = len(memory.list(Scope("anna")))
            assert left in (0, 200), "an erasure is whole or has not happened"
            if not left:
                assert not any(b"anthippus" in file.read_bytes() for file in tmp_path.iterdir())
            memory.erase(Scope("anna"))
            assert not any(b"anthippus" in file.read_bytes() for file in tmp_path.iterdir())
