"""Notebooks whose cells run in confined processes.

`Kernels` is for training: a few pre-started processes serve any number of notebooks. A notebook is the list of its
cells; running one more runs all of them in a fresh child, so nothing has to be held between cells, a process that dies
takes nothing with it, and what a cell gives is what the notebook gives when it is run anew. `jupyter.JupyterNotebook`
keeps the same promises with a real kernel.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import hashlib
import json
import os
import queue
import secrets
import select
import shutil
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from memorist.errors import SandboxError
from memorist.tasks.notebook.ran import DIED, LEFT_OUT, NAME, SHOWN, TIMEOUT, Ran, checked_files, clean, shortened
from memorist.tasks.notebook.sandbox import Limits, confined

CELLS = Path(__file__).parent / "cells.py"
IMPORTED = ("numpy", "pandas")
"""Imported once, before cells run."""
GRACE, START = 1.0, 60.0
"""Seconds that a process has beside its cells', and for its start."""
MOST = 4 * 1024 * 1024
"""Bytes of an answer."""
KNOWN = 4096
"""Answers that the processes of a training run keep."""


Answer = tuple[list[Ran], bool]


class _Process:
    """One confined process that runs notebooks, each in a child of its own."""

    def __init__(self, limits: Limits, imported: Sequence[str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="memorist-notebook-"))
        self.limits, self.read, self.bytes = limits, b"", 0
        try:
            self.process = confined(
                [sys.executable, "-u", "-c", CELLS.read_text("utf-8"), *imported], self.folder, limits
            )
            ready = self._line(time.monotonic() + START) == b"ready"
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        if not ready:
            self.close()
            raise SandboxError(
                f"a process for notebooks did not start in its sandbox; it imports {', '.join(imported)}, which "
                "'pip install memorist[notebook]' installs"
            )

    def run(self, files: Mapping[str, bytes], cells: Sequence[str], seconds: float) -> list[Ran] | None:
        """What each cell gave; None where the process is of no use any more.

        `seconds` is what all cells together may take.
        """
        limits = self.limits
        coded = {name: base64.b64encode(data).decode("ascii") for name, data in files.items()}
        asked = {"files": coded, "cells": list(cells), "seconds": limits.seconds, "characters": limits.characters,
                 "memory": limits.memory << 20, "file": limits.file << 20}  # fmt: skip
        ends, self.bytes = time.monotonic() + seconds + GRACE, 0
        if not self._send(json.dumps(asked).encode()):
            return None
        last = b""
        while (line := self._line(ends)) is not None and line != b"ended":
            last = line
        token = secrets.token_hex(8).encode()
        if line is None or not self._send(token):
            return None
        # All that comes before the token may be what a cell said in its process's name.
        ends = time.monotonic() + GRACE
        while (line := self._line(ends)) != token:
            if line is None:
                return None
        # Whoever gave no answer that can be read may have spoilt the process for others.
        return _read(last, limits) or None

    def close(self) -> None:
        """End it, and all that it wrote."""
        try:
            self.process.kill()
            for stream in (self.process.stdin, self.process.stdout):
                stream.close()
            self.process.wait(GRACE)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self, line: bytes) -> bool:
        try:
            left = memoryview(line + b"\n")
            while left:
                left = left[self.process.stdin.write(left) :]
        except (OSError, ValueError):
            return False
        return True

    def _line(self, ends: float) -> bytes | None:
        """The next line, or None: there is none in time, or this and those before are too long."""
        stream = self.process.stdout.fileno()
        while b"\n" not in self.read:
            left = ends - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                return None
            some = os.read(stream, 1 << 16)
            self.bytes += len(some)
            if not some or self.bytes > MOST:
                return None
            self.read += some
        line, _, self.read = self.read.partition(b"\n")
        return line


def _asked(files: Mapping[str, bytes], cells: Sequence[str]) -> bytes:
    """What is asked for; nothing else is written like it."""
    parts = [f"{len(files)}".encode(), *(part for name in sorted(files) for part in (name.encode(), files[name]))]
    return b"".join(b"%d:%b" % (len(part), part) for part in [*parts, *(cell.encode() for cell in cells)])


def _read(said: bytes, limits: Limits) -> list[Ran]:
    """Answers of a child; [] where they cannot be read. A cell can say anything for itself, so nothing is believed that
    could harm more than its own episode."""
    try:
        return [_one(answer, limits) for answer in json.loads(said)]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return []


def _one(answer: Mapping[str, Any], limits: Limits) -> Ran:
    most, took = limits.characters, float(answer["seconds"])
    kind = clean(str(answer["kind"]))
    if kind != TIMEOUT:
        name = kind.removeprefix("raised ")[:NAME]
        kind = (f"{name}Error" if name in (TIMEOUT, DIED) else name or "Exception") if kind else ""
    output = shortened(clean(str(answer["output"])), most + len(LEFT_OUT))
    took = took if 0 <= took <= limits.seconds else limits.seconds
    return Ran(output, shortened(clean(str(answer["error"])), SHOWN * most), kind, took)


class Kernels:
    """Pre-started processes for notebooks; dead ones are replaced.

    Args:
        count: processes; None for one a core.
        limits: of each cell.
        imported: modules that are there when cells begin, whose import would take long.
        known: how many answers are kept: who asks for the same cells beside the same files again (siblings of a group
            often do) is told what they gave. So what is drawn at random, or by the clock, is drawn once.
    """

    def __init__(
        self, count: int | None = None, limits: Limits | None = None, imported: Sequence[str] = IMPORTED, known: int = 0
    ) -> None:
        self.limits, self.imported = limits or Limits(), tuple(imported)
        self.count = count or os.cpu_count() or 1
        # A sandboxed process ends with the thread that started it.
        self._threads = ThreadPoolExecutor(self.count, "notebook")
        self._free: queue.Queue[_Process | None] = queue.Queue()
        for _ in range(self.count):
            self._free.put(None)
        self.replaced = 0
        self._room, self._known = known, OrderedDict[bytes, Future[Answer]]()
        self._lock = threading.Lock()

    def notebook(self, files: Mapping[str, str | bytes] | None = None, *, fresh: bool = False) -> Notebook:
        """An empty notebook beside some files; a fresh one is told nothing that was known before."""
        return Notebook(self, checked_files(files or {}), fresh=fresh)

    def run(
        self, files: Mapping[str, bytes], cells: Sequence[str], seconds: float, *, fresh: bool = False
    ) -> Future[Answer]:
        """Run cells in a fresh child; what each gave, up to the first that did not end by itself, and whether
        time was up.

        The result raises:
            SandboxError: there is no sandbox here.
        """
        if fresh or not self._room:
            return self._threads.submit(self._run, files, cells, seconds)
        key = hashlib.sha256(_asked(files, cells)).digest()
        with self._lock:
            if (found := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                return found
            found = self._known[key] = self._threads.submit(self._run_known, key, files, cells, seconds)
            if len(self._known) > self._room:
                self._known.popitem(last=False)
        return found

    def _run_known(self, key: bytes, files: Mapping[str, bytes], cells: Sequence[str], seconds: float) -> Answer:
        """As `_run`; of what did not end by itself nothing is known afterwards: another time it may."""
        ended = False
        try:
            found = self._run(files, cells, seconds)
            ended = len(found[0]) == len(cells)
            return found
        finally:
            if not ended:
                with self._lock:
                    self._known.pop(key, None)

    def _run(self, files: Mapping[str, bytes], cells: Sequence[str], seconds: float) -> Answer:
        began, late, process = time.monotonic(), False, self._free.get()
        try:
            if process is None:
                process = _Process(self.limits, self.imported)
            began = time.monotonic()
            found = process.run(files, cells, seconds)
            if found is None:
                late, self.replaced = time.monotonic() - began > seconds, self.replaced + 1
                dead, process, found = process, None, []
                dead.close()
        finally:
            self._free.put(process)
        return found, late

    def close(self) -> None:
        """End all processes, once what is asked of them is done."""
        for _ in range(self.count):
            with contextlib.suppress(queue.Empty):
                process = self._free.get(timeout=START)
                if process is not None:
                    process.close()
        self._threads.shutdown(wait=False)

    def __enter__(self) -> Kernels:
        return self

    def __exit__(self, *what: Any) -> None:
        self.close()


@lru_cache(8)
def shared_kernels(limits: Limits) -> Kernels:
    """The processes that all notebooks of this process with these limits share; they end with it."""
    found = Kernels(limits=limits, known=KNOWN)
    atexit.register(found.close)
    return found


@dataclass
class Notebook:
    """Cells and what they gave. A cell that ran out of time or ended its process left nothing behind: later cells run
    without it."""

    kernels: Kernels
    files: dict[str, bytes] = field(default_factory=dict)
    cells: list[tuple[str, Ran]] = field(default_factory=list)
    fresh: bool = False

    async def run(self, code: str) -> Ran:
        """Run one more cell."""
        future, count = self._next(clean(code))
        # Others may wait for the same answer: who stops waiting does not call it off.
        return self._noted(code, count, await asyncio.shield(asyncio.wrap_future(future)))

    def ran(self, code: str) -> Ran:
        """`run`, for who does not wait in a loop."""
        future, count = self._next(clean(code))
        return self._noted(code, count, future.result())

    def _next(self, code: str) -> tuple[Future[Answer], int]:
        """What the cells before, with one more, will give; and how many there are."""
        before = [(cell, one) for cell, one in self.cells if one.kind not in (TIMEOUT, DIED)]
        limit = self.kernels.limits.seconds
        seconds = limit + sum(min(limit, 2 * one.seconds + 0.1) for _, one in before)
        cells = [*(cell for cell, _ in before), code]
        return self.kernels.run(self.files, cells, seconds, fresh=self.fresh), len(cells)

    def _noted(self, code: str, count: int, answer: Answer) -> Ran:
        found, late = answer
        last = found[-1] if len(found) == count else Ran("", "", TIMEOUT if found or late else DIED)
        self.cells.append((code, last))
        return last

    async def close(self) -> None:
        """As other notebooks are; here nothing is held between cells."""
