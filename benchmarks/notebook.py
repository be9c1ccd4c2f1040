"""How many cells of notebooks a second confined kernels run: the pool, and a real Jupyter kernel beside it.

    python benchmarks/notebook.py [--json results/notebook-speed.json] [--episodes 60] [--repeats 5]

Episodes are an expert's (load, clean, compute), sixteen at once, each a new notebook. The pool runs all cells of a
notebook for each one more; a Jupyter kernel is started for each episode, whose start counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from memorist.tasks.notebook.episodes import NotebookData, NotebookTask
from memorist.tasks.notebook.experts import Expert
from memorist.tasks.notebook.jupyter import JupyterNotebook
from memorist.tasks.notebook.kernels import Kernels

AT_ONCE = 16


async def episode(notebook: Any, task: NotebookTask) -> int:
    """The cells of an expert's episode; how many."""
    expert, seen = Expert(task), []
    while (move := expert.next(seen)).answer is None:
        seen.append(await notebook.run(move.code))
    await notebook.close()
    return len(seen)


async def cells(tasks: Sequence[NotebookTask], make: Callable[[NotebookTask], Any], at_once: int) -> int:
    """Cells of all episodes, so many of them side by side."""
    left, count = list(tasks), 0

    async def worker() -> None:
        nonlocal count
        while left:
            task = left.pop()
            done = await episode(make(task), task)
            count += done

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return count


def rate(tasks: Sequence[NotebookTask], make: Callable[[NotebookTask], Any], at_once: int) -> float:
    """Cells a second."""
    began = perf_counter()
    return asyncio.run(cells(tasks, make, at_once)) / (perf_counter() - began)


def rate_of_nothing(kernels: Kernels, count: int) -> float:
    """Notebooks of one cell that does nothing, a second: what a cell costs beside itself."""

    async def nothing() -> None:
        left = list(range(count))

        async def worker() -> None:
            while left:
                left.pop()
                await kernels.notebook().run("1")

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))

    began = perf_counter()
    asyncio.run(nothing())
    return count / (perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    tasks = NotebookData(split="validation", questions=args.episodes).tasks(0)
    pool: list[float] = []
    empty: list[float] = []
    jupyter: list[float] = []
    with Kernels() as kernels:
        rate(tasks[:AT_ONCE], lambda task: kernels.notebook(task.files), AT_ONCE)  # processes start
        for _ in range(args.repeats):
            pool.append(rate(tasks, lambda task: kernels.notebook(task.files), AT_ONCE))
            empty.append(rate_of_nothing(kernels, 200))
            jupyter.append(rate(tasks[:4], lambda task: JupyterNotebook(task.files), 2))
    kept = {
        "n": args.repeats, "seeds": 1, "device": f"{os.cpu_count()} CPU cores", "how": "python benchmarks/notebook.py",
        "date": datetime.now(UTC).date().isoformat(), "unit": "1/s",
    }  # fmt: skip
    rows = [
        {"row": name, "value": statistics.median(found), "low": min(found), "high": max(found), "peer": peer,
         "peer_value": peer and statistics.median(jupyter)} | kept
        for name, found, peer in (
            ("notebook.steps-per-second", pool, "a Jupyter kernel for each episode"),
            ("notebook.empty-cell.steps-per-second", empty, None),
        )
    ]  # fmt: skip
    for row in rows:
        print(json.dumps(row))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
