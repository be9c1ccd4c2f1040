"""Time to fork a bank of 10,000 records, apply one operation and search by a given vector.

    python benchmarks/bank.py [--json FILE] [--repeats 400]

Prints one row per bank and vector size. The search reads the whole matrix once, so its bound is the bytes of
the matrix over the speed at which this machine reads a matrix of that size, which is measured here.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np

from memorist.memory.bank import MemoryBank
from memorist.memory.embed import HashedEmbedder, Vectors
from memorist.memory.record import Code, Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.memory.sqlite import SQLiteBank

RECORDS = 10_000
SCOPE = Scope("anna")
AT = datetime(2023, 5, 8, 13, 56)


class RandomEmbedder(HashedEmbedder):
    """Random unit vectors by text, as dense as those of a neural embedder; made faster than hashed ones."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.name = f"random-{size}"

    def _embed_one(self, text: str) -> Vectors:
        vector = np.random.default_rng(list(text.encode())).standard_normal(self.size).astype(np.float32)
        return vector / np.float32(np.linalg.norm(vector))


def fill(bank: MemoryBank) -> None:
    """Put the records in, in commits of a hundred."""
    for start in range(0, RECORDS, 100):
        adds = [Operation("ADD", f"Statement {i} about topic {i % 97}") for i in range(start, start + 100)]
        results = bank.apply(adds, SCOPE, at=AT)
        assert all(result.code is Code.APPLIED for result in results)


def time_one(bank: MemoryBank, query: Vectors, text: str) -> float:
    """Milliseconds for fork, one operation and a search."""
    start = perf_counter()
    fork = bank.fork()
    fork.apply([Operation("ADD", text)], SCOPE, at=AT)
    hits = fork.search(query, SCOPE, k=30)
    elapsed = perf_counter() - start
    assert len(hits) == 30
    return elapsed * 1000


def measure(make: Callable[[], float], repeats: int) -> tuple[float, float, float]:
    """Median of `repeats` calls and its 95% interval from order statistics."""
    for _ in range(10):
        make()
    times = sorted(make() for _ in range(repeats))
    half = 0.98 * repeats**0.5
    low, high = int(repeats / 2 - half), min(repeats - 1, int(repeats / 2 + half) + 1)
    return statistics.median(times), times[max(low, 0)], times[high]


def read_ms(size: int, repeats: int) -> float:
    """Milliseconds to read a matrix of (RECORDS, size) once: the dot product of its two halves."""
    matrix = np.random.default_rng(0).standard_normal((2, RECORDS * size // 2)).astype(np.float32)

    def once() -> float:
        start = perf_counter()
        np.dot(matrix[0], matrix[1])
        return (perf_counter() - start) * 1000

    return measure(once, repeats)[0]


def row(name: str, bank: MemoryBank, size: int, repeats: int) -> dict[str, object]:
    """Measure one bank."""
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((repeats + 10, size)).astype(np.float32)
    texts = [f"A new statement, number {i}" for i in range(len(queries))]
    # Embedding time is not the bank's; so the texts' vectors are there before.
    bank.embedder.embed(texts)
    given = iter(zip(queries, texts, strict=True))
    value, low, high = measure(lambda: time_one(bank, *next(given)), repeats)
    bound = read_ms(size, repeats)
    return {
        "row": name,
        "value": round(value, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "n": repeats,
        "seeds": 1,
        "unit": "ms",
        "peer": None,
        "peer_value": None,
        "how": "python benchmarks/bank.py",
        "device": f"1 thread, {platform.machine()} CPU",
        "date": datetime.now(UTC).date().isoformat(),
        "bound": round(bound, 3),
        "bound_how": f"{RECORDS * size * 4} bytes at {RECORDS * size * 4 / bound / 1e6:.1f} GB/s",
        "bound_share": round(bound / value, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--repeats", type=int, default=400)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in (256, 384):
            suffix = "" if size == 256 else f"-{size}"
            with SQLiteBank(Path(folder) / f"{size}.db", embedder=RandomEmbedder(size)) as bank:
                fill(bank)
                rows.append(row(f"bank.fork-op-search-10k{suffix}.ms", bank, size, args.repeats))
            scratch = ScratchBank(embedder=RandomEmbedder(size))
            fill(scratch)
            rows.append(row(f"bank.fork-op-search-10k-scratch{suffix}.ms", scratch, size, args.repeats))
    for one in rows:
        print(json.dumps(one))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
