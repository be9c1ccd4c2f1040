"""A notebook on a real Jupyter kernel, confined as all are: slower to start than `kernels.Kernels`, the same promises.

Kernel and client speak through sockets in the notebook's folder: there is no network in the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memorist.errors import SandboxError
from memorist.tasks.notebook.kernels import GRACE
from memorist.tasks.notebook.ran import DIED, LINES, NAME, SHOWN, TIMEOUT, Kept, Ran, checked_files, clean, shortened
from memorist.tasks.notebook.sandbox import Limits, confined

MAIN = Path(__file__).parent / "jupyter_main.py"
ZMQ = ("sched_setscheduler",)
"""What its threads call when they start, to stay as they are: so a cell here can change how other processes of the same
user are scheduled, which no cell of `kernels.Kernels` can."""
START = 60.0
"""Seconds that a kernel may take to answer first."""
ADDRESS_SPACE = 4
"""A kernel's threads take so many times the memory that cells may use, most of it addresses alone."""


class JupyterNotebook:
    """Cells and what they gave. A cell that ran out of time or ended its kernel left nothing behind: the cells before
    are run anew on a fresh one. How much it wrote is looked at five times a second: a fast cell can write more than
    `Limits.disk` before it is ended.

    Raises (all that run something):
        SandboxError: there is no sandbox, or no kernel, here.
    """

    def __init__(self, files: Mapping[str, str | bytes] | None = None, limits: Limits | None = None) -> None:
        self.files, self.limits = checked_files(files or {}), limits or Limits()
        self.cells: list[tuple[str, Ran]] = []
        self._folder: Path | None = None
        self._client: Any = None
        self._process: Any = None

    async def run(self, code: str) -> Ran:
        """Run one more cell."""
        code = clean(code)
        if self._client is None:
            await self._start()
            for before, one in self.cells:
                if one.kind not in (TIMEOUT, DIED):
                    await self._ran(before)
        found = await self._ran(code)
        if found.kind in (TIMEOUT, DIED):
            await self.close()
        self.cells.append((code, found))
        return found

    async def close(self) -> None:
        """End the kernel, and all that it wrote."""
        if self._client is not None:
            self._client.stop_channels()
            self._process.kill()
            await asyncio.to_thread(self._process.wait, GRACE)
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._client = self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _start(self) -> None:
        try:
            from jupyter_client.asynchronous.client import AsyncKernelClient
            from jupyter_client.connect import write_connection_file
        except ImportError as error:
            raise SandboxError("no Jupyter here; type: pip install 'memorist[notebook]'") from error
        self._folder = Path(tempfile.mkdtemp(prefix="memorist-jupyter-"))
        own = self._folder / ".kernel"
        own.mkdir()
        for name, data in self.files.items():
            (self._folder / name).write_bytes(data)
        file, _ = write_connection_file(str(own / "connection.json"), ip=str(own / "socket"), transport="ipc")
        limits = (str(ADDRESS_SPACE * self.limits.memory << 20), str(self.limits.file << 20))
        command = [sys.executable, "-c", MAIN.read_text("utf-8"), file, *limits]
        self._process = confined(command, self._folder, self.limits, kept=True, allowed=ZMQ)
        self._client = AsyncKernelClient(connection_file=file)
        self._client.load_connection_file()
        self._client.start_channels()
        await self._answers()

    async def _answers(self) -> None:
        """Wait until the kernel answers."""
        ends = time.monotonic() + START
        while time.monotonic() < ends:
            self._client.kernel_info()
            try:
                await self._client.get_shell_msg(timeout=1)
                return
            except Exception:  # noqa: BLE001  (an empty queue, which is `queue.Empty` or zmq's)
                continue
        await self.close()
        raise SandboxError(f"the Jupyter kernel did not answer in {START:.0f} s")

    async def _ran(self, code: str) -> Ran:
        said = Kept(self.limits.characters)
        raised: dict[str, str] = {}

        def hear(message: Mapping[str, Any]) -> None:
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                said.add(content["text"])
            elif kind == "execute_result":
                said.add(content["data"].get("text/plain", "") + "\n")
            elif kind == "error":
                raised.update(kind=content["ename"][:NAME] or "Exception", text="\n".join(content["traceback"]))

        began = time.monotonic()
        asked = self._client.execute_interactive(
            code, timeout=self.limits.seconds, output_hook=hear, allow_stdin=False, stop_on_error=False
        )
        waiting = asyncio.ensure_future(asked)
        kind = ""
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.2)
            if not waiting.done() and (self._gone() or self._written() > self.limits.disk << 20):
                waiting.cancel()
                kind = DIED
                break
        try:
            await waiting
        except asyncio.CancelledError:
            if not kind:  # it was not cancelled here
                raise
        except TimeoutError:
            kind = TIMEOUT
        error = "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", raised.get("text", "")).strip().splitlines()[-LINES:])
        if not kind and self._written() > self.limits.disk << 20:
            kind = DIED
        name = raised.get("kind", "")
        name = f"{name}Error" if name in (TIMEOUT, DIED) else name
        error = shortened(clean(error), SHOWN * self.limits.characters)
        return Ran(clean(said.told()), error, kind or clean(name), time.monotonic() - began)

    def _gone(self) -> bool:
        return not Path(f"/proc/{self._process.pid}").exists() or _is_zombie(self._process.pid)

    def _written(self) -> int:
        """Bytes in the folder, as far as they can be counted while cells change it."""
        assert self._folder is not None
        total = 0
        for place, _, names in os.walk(self._folder):
            for name in names:
                with contextlib.suppress(OSError):
                    total += (Path(place) / name).lstat().st_size
        return total


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][:1] == "Z"
    except OSError:
        return True
