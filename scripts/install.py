"""Create .venv and install Memorist with all that its checks need.

`make` runs this once and again when pyproject.toml or constraints.txt change. Only the standard library, and
syntax that older Pythons can read, so that the version check is what speaks there.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".installed"
LOG = VENV / "install.log"
CONSTRAINTS = ROOT / "constraints.txt"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
OLDEST = (3, 11)
PROBE_SECONDS = 2.0
SILENCE_SECONDS = 10.0
FETCHED = re.compile(r"(?:Downloading|Using cached|Processing) (?:\S*/)?([^-\s]+-[^-\s]+)\S*(?: \((\d.*B)\))?")


class InstallError(Exception):
    """One line that says what is wrong and what to do."""


def check_python() -> None:
    """Stop where this Python is too old or cannot make virtual environments."""
    if sys.version_info[:2] < OLDEST:
        found = [f"python3.{n}" for n in range(20, OLDEST[1] - 1, -1) if shutil.which(f"python3.{n}")]
        todo = f"run: make PYTHON={found[0]}" if found else "install one, then run: make PYTHON=python3.11"
        raise InstallError(f"Python 3.11 or newer is needed, {sys.executable} is {platform.python_version()}; {todo}")
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise InstallError(
            f"{sys.executable} cannot make virtual environments: its venv module is missing "
            "(Debian, Ubuntu: apt-get install python3-venv)"
        )


def make_venv() -> None:
    """Create .venv, or keep the one that is there and works."""
    works = "import pip, sys; sys.exit(sys.version_info[:2] < (3, 11))"
    if PYTHON.exists() and subprocess.run([PYTHON, "-c", works], capture_output=True).returncode == 0:
        return
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", VENV],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if made.returncode:
        raise InstallError(f"{sys.executable} could not create .venv: {complaint(made.stdout)}")


def torch_requirement() -> str:
    """The pin of torch, as constraints.txt has it."""
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("torch=="):
            return line.strip()
    raise InstallError("constraints.txt has no line that starts with torch==")


def answers(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a server answers within this time; a name look-up that hangs counts as no."""
    result: list[bool] = []

    def probe() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as reply:
                result.append(reply.status == 200)
        except (OSError, ValueError):
            result.append(False)

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(result and result[0])


def install_torch() -> None:
    """Torch first: from PyTorch's CPU index if that answers at once, else by plain pip (also on macOS)."""
    torch = torch_requirement()
    if platform.system() == "Linux" and answers(f"{TORCH_CPU_INDEX}/torch/"):
        step(2, f"{torch}, CPU build, from PyTorch's own index")
        try:
            # Only torch itself: what it depends on comes from PyPI, in the next step.
            pip("--no-deps", "--index-url", TORCH_CPU_INDEX, "--retries", "0", "--timeout", "3", torch)
        except InstallError as error:
            detail(f"not to be had there ({error})")
        else:
            return
    step(2, f"{torch} by plain pip")
    pip(torch)


def pip(*arguments: str) -> None:
    """Run `pip install` under the constraints, with a line for each thing that it fetches."""
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--constraint", str(CONSTRAINTS), *arguments]
    environment = {**os.environ, "PIP_USER": "0", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output = follow(process)
    if process.wait():
        raise InstallError(
            f"{complaint(output)} (pip needs PyPI or a mirror, PIP_INDEX_URL; its log: .venv/{LOG.name})"
        )


def follow(process: subprocess.Popen[str]) -> str:
    """Show what pip does while it does it, log everything, and return it."""
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    stdout = process.stdout

    def read() -> None:
        for line in stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    said: list[str] = []
    began = time.monotonic()
    with LOG.open("a", encoding="utf-8") as log:
        while True:
            try:
                line = lines.get(timeout=SILENCE_SECONDS)
            except queue.Empty:
                detail(f"still at it ({time.monotonic() - began:.0f} s)")
                continue
            if line is None:
                return "".join(said)
            said.append(line)
            log.write(line)
            show(line.strip())


def show(line: str) -> None:
    """A line of pip's output in short, if it tells that something moved."""
    moved = FETCHED.match(line)
    if moved:
        detail(" ".join(part for part in moved.groups() if part))
    elif line.startswith("Installing collected packages: "):
        detail(f"Installing {line.count(',') + 1} packages")


def complaint(output: str) -> str:
    """The line in which pip or venv says what went wrong: its first error, else what it said last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line[len("ERROR:") :].strip() for line in lines if line.startswith("ERROR:")]
    if not errors or errors[0] == "Exception:":
        return lines[-1] if lines else "it said nothing"
    return errors[0]


def step(number: int, text: str) -> None:
    """Announce one of the three steps."""
    print(f"[{number}/3] {text}", flush=True)


def detail(text: str) -> None:
    """Tell something inside a step."""
    print(f"      {text}", flush=True)


def main() -> int:
    """Run the three steps; one line and status 1 where one cannot be done."""
    began = time.monotonic()
    try:
        check_python()
        step(1, f".venv with Python {platform.python_version()}")
        make_venv()
        LOG.write_text("", encoding="utf-8")
        install_torch()
        step(3, "Memorist and the tools of its checks")
        pip("--editable", ".[dev]")
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"install: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("install: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    STAMP.write_text("", encoding="utf-8")
    print(f"Installed in {time.monotonic() - began:.0f} s.", flush=True)
    if shutil.which("nvidia-smi"):
        print("For torch with CUDA: .venv/bin/python -m pip install --force-reinstall " + torch_requirement())
    return 0


if __name__ == "__main__":
    sys.exit(main())
