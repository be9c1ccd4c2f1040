"""What is installed, what the machine has, what is missing, and what to type for it.

Looks only: nothing is installed, downloaded or imported, except torch when a deep look is asked for.
Works in the base install, and where the base install itself is broken: it needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from memorist._version import __version__

BASE = "base"
PURPOSES = {
    BASE: "everything",
    "train": "local models: the demo, training, chat with the bundled model",
    "eval": "scoring benchmarks and their BM25 baselines",
    "report": "curves and bars in reports",
    "track": "metrics in TensorBoard",
    "endpoint": "models and embedders behind an endpoint",
    "vision": "pictures: scenes from above, homes",
    "int8": "models whose weights are 8-bit integers, in half the memory",
    "household": "the household as a Gymnasium environment, and pictures of it",
    "thor": "homes of AI2-THOR",
    "serve": "the memory over HTTP, and as tools of models (MCP)",
    "postgres": "a memory in a PostgreSQL database",
    "langgraph": "a memory as LangGraph's store",
    "llama-index": "a memory as a block of LlamaIndex's",
    "openai-agents": "a memory as a session of the OpenAI Agents SDK",
    "crewai": "a memory as CrewAI's storage",
    "notebook": "notebooks whose cells run in a sandbox (Linux)",
    "dev": "the project's own checks (make test)",
}
"""What each extra is for. Extras that only gather others are not listed, so that nothing is shown twice."""

BUNDLED = Path(__file__).parent / "models" / "bundled"
DATA_VARIABLE = "MEMORIST_DATA"
THREADS_VARIABLE = "OMP_NUM_THREADS"


@dataclass(frozen=True, slots=True)
class Package:
    """One requirement of the base install or of an extra. `version` is None where it is not installed."""

    name: str
    extra: str
    needs: str
    version: str | None

    @property
    def good(self) -> bool:
        """Whether it is there and new enough."""
        return self.version is not None and _numbers(self.version) >= _numbers(self.needs)


@dataclass(frozen=True, slots=True)
class Device:
    """What computes. `checked`: torch was asked; otherwise `accelerator` is what the machine shows."""

    cores: int
    threads: int
    accelerator: str | None
    checked: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that is not there: what it would be for, and what to type."""

    what: str
    purpose: str
    command: str


@dataclass(frozen=True, slots=True)
class Findings:
    """All that `examine` found. `data` is the folder of real benchmark data, `data_sets` what lies in it."""

    memorist: str
    python: str
    platform: str
    sqlite: str
    packages: tuple[Package, ...]
    device: Device
    bundled_models: tuple[str, ...]
    data: str | None
    data_sets: tuple[str, ...]
    missing: tuple[Missing, ...]


def examine(*, deep: bool = False) -> Findings:
    """Look at this machine. `deep` imports torch, if it is installed, to ask it for the device."""
    packages = _packages(_requirements())
    models = tuple(sorted(str(file.parent.relative_to(BUNDLED)) for file in BUNDLED.rglob("*.safetensors")))
    data, data_sets = _data()
    return Findings(
        memorist=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        sqlite=sqlite3.sqlite_version,
        packages=packages,
        device=_device(ask_torch=deep and _installed("torch") is not None),
        bundled_models=models,
        data=data,
        data_sets=data_sets,
        missing=tuple(_missing(packages, models, data, data_sets)),
    )


def render(findings: Findings) -> str:
    """The findings for people."""
    device = findings.device
    data_sets = ", ".join(findings.data_sets) or "nothing"
    accelerator = device.accelerator or "none"
    if device.accelerator and not device.checked:
        accelerator += " (torch was not asked)"
    rows = [
        ("memorist", findings.memorist),
        ("python", f"{findings.python} on {findings.platform}"),
        ("sqlite", findings.sqlite),
        ("cpu", f"{device.cores} cores, {device.threads} threads"),
        ("accelerator", accelerator),
        ("bundled model", ", ".join(findings.bundled_models) or "missing"),
        (
            "data",
            f"{findings.data}: {data_sets}" if findings.data else "none",
        ),
    ]
    for extra in dict.fromkeys(package.extra for package in findings.packages):
        shown = [_shown(package) for package in findings.packages if package.extra == extra]
        rows.append((extra, ", ".join(shown)))
    lines = [f"{name:<15}{value}" for name, value in rows]
    if not findings.missing:
        return "\n".join([*lines, "", "Nothing is missing."])
    lines += ["", "Missing:"]
    for missing in findings.missing:
        lines += [f"  {missing.what}", f"      for   {missing.purpose}", f"      type  {missing.command}"]
    return "\n".join(lines)


def to_json(findings: Findings) -> str:
    """The findings for programs."""
    return json.dumps(asdict(findings), indent=2)


def _requirements() -> list[str]:
    """What the installed package declares; nothing where it runs from its sources, not installed."""
    try:
        return metadata.requires("memorist") or []
    except metadata.PackageNotFoundError:
        return []


def _packages(requirements: Iterable[str]) -> tuple[Package, ...]:
    """Each requirement with the version that is installed, once, under the first extra that brings it."""
    packages: dict[str, Package] = {}
    order = list(PURPOSES)
    for requirement in requirements:
        specifier, _, marker = requirement.partition(";")
        parts = re.match(r"\s*([\w.-]+)", specifier)
        if parts is None or parts[1] == "memorist":
            continue
        found = re.search(r"extra\s*==\s*['\"]([\w-]+)", marker)
        lowest = re.search(r">=\s*([\w.]+)", specifier)
        name, extra, needs = parts[1], found[1] if found else BASE, lowest[1] if lowest else ""
        if extra not in order:
            order.append(extra)
        if name not in packages or order.index(extra) < order.index(packages[name].extra):
            packages[name] = Package(name, extra, needs, _installed(name))
    return tuple(sorted(packages.values(), key=lambda package: order.index(package.extra)))


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparing: 2.13.0+cpu gives (2, 13)."""
    release = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _shown(package: Package) -> str:
    if package.version is None:
        return f"{package.name} missing"
    return f"{package.name} {package.version}" + ("" if package.good else f" (too old: {package.needs} is needed)")


def _device(ask_torch: bool) -> Device:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if ask_torch:
        return _device_of_torch(cores)
    set_threads = os.environ.get(THREADS_VARIABLE, "")
    threads = int(set_threads) if set_threads.isdecimal() and int(set_threads) else cores
    if shutil.which("nvidia-smi"):
        return Device(cores, threads, "an NVIDIA GPU", checked=False)
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Device(cores, threads, "Apple GPU (mps)", checked=False)
    return Device(cores, threads, None, checked=False)


def _device_of_torch(cores: int) -> Device:
    import torch

    accelerator = None
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        accelerator = f"cuda: {', '.join(names)}"
    elif torch.backends.mps.is_available():
        accelerator = "mps"
    return Device(cores, torch.get_num_threads(), accelerator, checked=True)


def _data() -> tuple[str | None, tuple[str, ...]]:
    """The folder that the environment names, if it is one, and the data sets in it."""
    named = os.environ.get(DATA_VARIABLE)
    if not named or not Path(named).is_dir():
        return named or None, ()
    return named, tuple(sorted(entry.name for entry in Path(named).iterdir() if entry.is_dir()))


def _missing(
    packages: Iterable[Package], models: tuple[str, ...], data: str | None, data_sets: tuple[str, ...]
) -> Iterable[Missing]:
    """Each thing that is not there, the packages of one extra together."""
    lacking: dict[str, list[str]] = {}
    for package in packages:
        if not package.good:
            lacking.setdefault(package.extra, []).append(package.name)
    if not packages:
        yield Missing("memorist itself, as an installed package", PURPOSES[BASE], "pip install memorist")
    for extra, names in lacking.items():
        command = "pip install --upgrade memorist" if extra == BASE else f"pip install 'memorist[{extra}]'"
        yield Missing(", ".join(names), PURPOSES.get(extra, f"the extra {extra}"), command)
    if not models:
        purpose = "the demo and chat without a model of your own"
        yield Missing("the bundled model", purpose, "pip install --force-reinstall --no-deps memorist")
    if not data_sets:
        what = f"real data: {DATA_VARIABLE} is " + (f"{data}, which holds none" if data else "not set")
        yield Missing(what, "memorist eval locomo", f"export {DATA_VARIABLE}=FOLDER  (the one that holds locomo/)")
