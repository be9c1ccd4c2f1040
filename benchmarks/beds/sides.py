"""The two sides of a comparison: processes that wait, do what they are told, and print "@" and a number."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path


class Side:
    """A process that answers each line with a number; so several can take turns."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (open as long as the process)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment,
            cwd=cwd,
        )  # fmt: skip
        self._line()  # it is ready

    def ask(self, what: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@"):
                return line[1:].strip()
        self._log.seek(0)
        raise SystemExit(f"a side of the comparison died:\n{self._log.read()[-3000:]}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def environment(folder: Path, name: str, wanted: Sequence[str]) -> str:
    """The Python of an environment in `folder` that has some packages; made once."""
    python = folder / name / "bin" / "python"
    if not (folder / name / "ready").exists():
        print(f"installing {', '.join(wanted)} (once)", file=sys.stderr)
        venv.create(folder / name, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
        (folder / name / "ready").touch()
    return str(python)
