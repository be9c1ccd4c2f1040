"""One peer of the memory library, in an environment of its own: Mem0, LanceDB or Chroma at its own defaults.

Started by benchmarks/memory.py, which hands over texts, vectors and queries in a .npz file and texts in JSON. For each
line that it reads ("fill N", "add", "search", "batch") it prints one number: seconds. So both sides can take turns.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"MEM0_TELEMETRY": "False", "ANONYMIZED_TELEMETRY": "False", "HF_HUB_OFFLINE": "1"}

import numpy as np


class Chroma:
    """Embedded, on disk."""

    def __init__(self, folder: Path, size: int) -> None:
        import chromadb

        client = chromadb.PersistentClient(str(folder / "chroma"))
        space = {"hnsw:space": "cosine"}
        self.collection = client.create_collection("memories", metadata=space, embedding_function=None)

    def add(self, ids: list[str], texts: list[str], vectors: np.ndarray) -> None:
        about = [{"user": "anna"} for _ in ids]
        self.collection.add(ids=ids, documents=texts, embeddings=vectors.tolist(), metadatas=about)

    def search(self, vector: np.ndarray) -> list[str]:
        found = self.collection.query(query_embeddings=[vector.tolist()], n_results=10, where={"user": "anna"})
        return [str(one) for one in found["ids"][0]]


class Lance:
    """Embedded, on disk; searched without an index, as it is after adding."""

    def __init__(self, folder: Path, size: int) -> None:
        import lancedb
        import pyarrow as pa

        fields = [
            pa.field("id", pa.string()), pa.field("user", pa.string()), pa.field("text", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), size)),
        ]  # fmt: skip
        self.table = lancedb.connect(str(folder / "lance")).create_table("m", schema=pa.schema(fields))

    def add(self, ids: list[str], texts: list[str], vectors: np.ndarray) -> None:
        rows = zip(ids, texts, vectors, strict=True)
        self.table.add([{"id": i, "user": "anna", "text": text, "vector": vector} for i, text, vector in rows])

    def search(self, vector: np.ndarray) -> list[str]:
        found = self.table.search(vector).metric("cosine").where("user = 'anna'", prefilter=True).limit(10).to_list()
        return [str(one["id"]) for one in found]


class Mem0:
    """`infer=False`, embedded Qdrant; the embedder looks vectors up, so that embedding takes no time."""

    def __init__(self, folder: Path, size: int) -> None:
        os.environ["MEM0_DIR"] = str(folder / "mem0")
        os.environ["OPENAI_API_KEY"] = "none"
        from mem0 import Memory

        store = {"path": str(folder / "qdrant"), "embedding_model_dims": size, "on_disk": True, "collection_name": "m"}
        self.memory = Memory.from_config(
            {
                "vector_store": {"provider": "qdrant", "config": store},
                "embedder": {"provider": "openai", "config": {"embedding_dims": size}},
                "history_db_path": str(folder / "history.db"),
            }
        )
        self.known: dict[str, list[float]] = {}
        self.memory.embedding_model.embed = lambda text, *more, **named: self.known[text]
        self.memory.embedding_model.embed_batch = lambda texts, *more, **named: [self.known[text] for text in texts]

    def add(self, ids: list[str], texts: list[str], vectors: np.ndarray) -> None:
        for text, vector in zip(texts, vectors, strict=True):
            self.known[text] = vector.tolist()
            self.memory.add(text, user_id="anna", infer=False)

    def search(self, vector: np.ndarray) -> list[str]:
        self.known["?"] = vector.tolist()
        found = self.memory.search("?", filters={"user_id": "anna"}, top_k=10)
        return [str(one["id"]) for one in found["results"]]


def main() -> None:
    name, folder, data = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    arrays = np.load(data)
    vectors, queries = arrays["vectors"], arrays["queries"]
    texts = json.loads(data.with_suffix(".json").read_text())
    kinds: dict[str, Any] = {"chroma": Chroma, "lancedb": Lance, "mem0ai": Mem0}
    peer = kinds[name](folder, vectors.shape[1])
    at = asked = 0
    print("@0", flush=True)
    for line in sys.stdin:
        what, _, more = line.strip().partition(" ")
        if what == "search":
            vector = queries[asked % len(queries)]
            asked += 1
            began = time.perf_counter()
            found = peer.search(vector)
            taken = time.perf_counter() - began
            assert len(found) == 10
        else:
            total = {"add": 1, "batch": 1000}.get(what) or int(more)
            together = 1 if what == "add" else 1000
            taken = 0.0
            for start in range(at, at + total, together):
                end = min(at + total, start + together)
                ids = [str(n) for n in range(start, end)]
                began = time.perf_counter()
                peer.add(ids, texts[start:end], vectors[start:end])
                taken += time.perf_counter() - began
            at += total
        print(f"@{taken}", flush=True)


if __name__ == "__main__":
    main()
