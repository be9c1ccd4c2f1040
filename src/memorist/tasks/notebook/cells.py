"""Runs in the sandbox, as a program of its own: cells of notebooks, each time in a fresh child of this process.

It imports nothing of Memorist, and is started from its text. A request on standard input is a line of JSON: files,
cells, and how many seconds and characters each has; the answer is a line of JSON with what each cell gave. Libraries
that are slow to import are imported once, before the children are made.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import ctypes
import importlib
import io
import json
import linecache
import os
import platform
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

LINES = 15
"""Of a traceback that are told."""
SHOWN = 4
"""Of an error's text that is kept, times what is kept of output."""


class Late(BaseException):
    """A cell has no time left. No cell catches it by catching `Exception`."""


class Kept(io.TextIOBase):
    """Text of which the beginning and the end are kept, whatever is written (`ran.Kept` on the other side)."""

    def __init__(self, most: int) -> None:
        self.first = most * 3 // 5
        self.last = most - self.first
        self.head, self.tail, self.dropped = "", "", 0

    def writable(self) -> bool:
        """It is there to be written to."""
        return True

    def write(self, text: str) -> int:
        """Keep what there is room for."""
        text = str(text)
        room = self.first - len(self.head)
        self.head += text[:room]
        rest = self.tail + text[room:]
        cut = max(0, len(rest) - self.last)
        self.dropped += cut
        self.tail = rest[cut:]
        return len(text)

    def told(self) -> str:
        """What was kept, with how much was not."""
        middle = f"\n... {self.dropped} characters left out ...\n" if self.dropped else ""
        return f"{self.head}{middle}{self.tail}"


def late(number: int, frame: Any) -> None:
    """The timer's signal."""
    raise Late


def shown(code: str, name: str, space: dict[str, Any]) -> None:
    """Run a cell; the value of a last expression is printed, as notebooks do."""
    tree = ast.parse(code, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), space)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), name, "eval"), space)
        if value is not None:
            print(repr(value))


def ran(number: int, code: str, space: dict[str, Any], seconds: float, most: int) -> dict[str, Any]:
    """What a cell gave."""
    name, out, error, kind = f"<cell {number}>", Kept(most), "", ""
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    began = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            shown(code, name, space)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Late:
            kind = "Timeout"
        except BaseException as raised:  # noqa: BLE001  (it is the cell's)
            signal.setitimer(signal.ITIMER_REAL, 0)
            kind, error = f"raised {type(raised).__name__}", told(raised)
    return {"output": out.told(), "error": error[-SHOWN * most :], "kind": kind, "seconds": time.monotonic() - began}


def told(raised: BaseException) -> str:
    """The last lines of a traceback, from the cell on."""
    place: TracebackType | None = raised.__traceback__
    while place is not None and not place.tb_frame.f_code.co_filename.startswith("<cell"):
        place = place.tb_next
    text = "".join(traceback.format_exception(type(raised), raised, place))
    return "\n".join(text.strip().splitlines()[-LINES:])


def limit(what: int, value: int) -> None:
    """Set a limit of this process. By the system call itself: what the C library calls is denied in the sandbox, for it
    can set those of other processes too."""
    number = {"x86_64": 160, "aarch64": 164}[platform.machine()]
    if ctypes.CDLL(None).syscall(number, what, (ctypes.c_ulong * 2)(value, value)):
        raise OSError(f"limit {what} cannot be set")


def emptied(folder: Path) -> None:
    """Remove all that lies in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def in_child(asked: dict[str, Any], answer: BinaryIO) -> None:
    """All cells of a notebook, one after the other, up to the first whose time is up."""
    for name, coded in asked["files"].items():
        Path(name).write_bytes(base64.b64decode(coded))
    limit(resource.RLIMIT_AS, asked["memory"])
    limit(resource.RLIMIT_FSIZE, asked["file"])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, late)
    space: dict[str, Any] = {"__name__": "__main__"}
    found: list[dict[str, Any]] = []
    for number, code in enumerate(asked["cells"], 1):
        found.append(ran(number, code, space, asked["seconds"], asked["characters"]))
        if found[-1]["kind"] == "Timeout":
            break
    answer.write(json.dumps(found).encode() + b"\n")
    answer.flush()


def main() -> None:
    """Serve requests until there are no more."""
    requests, answer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    for name in sys.argv[1:]:
        importlib.import_module(name)
    answer.write(b"ready\n")
    answer.flush()
    for line in requests:
        emptied(Path())
        child = os.fork()
        if child == 0:
            try:
                requests.close()
                in_child(json.loads(line), answer)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        answer.write(b"ended\n")
        answer.flush()
        # What a cell cannot have said before: that this request is over.
        answer.write(requests.readline())
        answer.flush()


if __name__ == "__main__":
    main()
