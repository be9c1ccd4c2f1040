"""The library: remember, be told, find, forget. Offline; the file goes away with its folder."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

from memorist import Memory, Scope

anna = Scope("anna")
with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "memory.db") as memory:
    memory.add("Anna is allergic to nuts", anna, metadata={"topic": "health"})
    memory.add("Anna's visitor pass is 4711", anna, expires=timedelta(days=1))
    for result in memory.observe("I live in Paris. I no longer live in Paris, I live in Lyon now.", anna):
        print(f"{result.operation.kind:<6} {result.operation.text}  ({result.operation.reason})")
    best = memory.search("What may she eat?", anna, mode="vector")[0]
    print(f"found  {best.record.text}")
    print(memory.context("Where does she live?", anna, max_tokens=120).text)
    print(f"erased {memory.erase(anna).records} records")
