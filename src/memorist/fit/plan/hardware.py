"""What a device has: profiles as data files, each number with its unit and its source; and how this one was measured.

A profile gives bounds, which nothing exceeds. A `Calibration` gives what this machine reached on reference models.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from memorist.errors import PlanError, nearest

UNITS = {
    "memory": {"GB": 1e9, "GiB": 2.0**30, "bytes": 1.0},
    "memory_bandwidth": {"TB/s": 1e12, "GB/s": 1e9},
    "compute": {"PFLOP/s": 1e15, "TFLOP/s": 1e12, "GFLOP/s": 1e9},
    "scale_up": {"TB/s": 1e12, "GB/s": 1e9},
    "scale_out": {"TB/s": 1e12, "GB/s": 1e9},
    "node": {"devices": 1.0},
}
"""The quantities of a profile, and in what they may be given."""
NEEDED = ("memory", "memory_bandwidth", "compute")
HERE = "here"
ASSUMED_SHARE = 0.35
"""Share of the compute peak that an estimate assumes where nothing was measured; V3's training reached 0.39."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds per operation, byte moved, layer and call, whose sum is a step; fitted to reference models."""

    flop: float
    byte: float
    layer: float
    call: float

    def seconds(self, flops: float, moved: float, layers: float, calls: float) -> float:
        """Time of so much work."""
        return self.flop * flops + self.byte * moved + self.layer * layers + self.call * calls


@dataclass(frozen=True, slots=True)
class Calibration:
    """What this machine reached.

    update, decode: the trainer's update and one decode step of the local policy. activation: measured activation
    bytes over the formula's. base: bytes of the process before any model. scores: whether attention writes them out.
    """

    device: str
    date: str
    update: Rates
    decode: Rates
    activation: float
    base: float
    scores: bool


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device, in bytes, bytes/s and FLOP/s (16-bit, dense).

    scale_up, scale_out: bandwidth to devices of the same node and of others, one direction; None: there is none.
    node: devices of a node.
    """

    name: str
    memory: float
    memory_bandwidth: float
    compute: float
    scale_up: float | None = None
    scale_out: float | None = None
    node: int = 1
    sources: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None


def shipped_hardware() -> dict[str, Path]:
    """Profiles that come with the package, by name."""
    folder = Path(str(resources.files("memorist"))) / "fit" / "plan" / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def open_hardware(name_or_path: str | Path) -> Hardware:
    """A profile's file, a shipped one by name, or "here": this machine, once it is calibrated.

    Raises:
        PlanError: there is none, or a quantity lacks its unit or source, or is impossible.
    """
    path, known = Path(name_or_path), shipped_hardware()
    if str(name_or_path) == HERE:
        path = calibration_file()
        if not path.is_file():
            raise PlanError("this machine is not calibrated; type: memorist plan --calibrate")
    elif not path.is_file():
        name = str(name_or_path).lower()
        if name not in known:
            hint = nearest(str(name_or_path), [*known, HERE])
            raise PlanError(f"hardware {str(name_or_path)!r} is neither a file nor shipped; {hint}")
        path = known[name]
    try:
        return read_hardware(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: not YAML: {error}") from error


def read_hardware(data: Any, where: str = "hardware") -> Hardware:
    """A profile from plain objects.

    Raises:
        PlanError: as `open_hardware`.
    """
    if not isinstance(data, Mapping):
        raise PlanError(f"{where}: expected quantities by name, got {type(data).__name__}")
    known = ("name", *UNITS, "calibration")
    for key in data:
        if key not in known:
            raise PlanError(f"{where}: unknown quantity {key!r}; {nearest(str(key), known)}")
    for key in ("name", *NEEDED):
        if key not in data:
            raise PlanError(f"{where}: {key!r} is missing; a profile has name, {', '.join(NEEDED)}")
    found = {key: _quantity(data[key], key, where) for key in UNITS if key in data}
    node = int(found.pop("node", 1))
    sources = {key: str(data[key]["source"]) for key in UNITS if key in data}
    return Hardware(str(data["name"]), **found, node=node, sources=sources, calibration=_calibration(data, where))


def _quantity(given: Any, key: str, where: str) -> float:
    form = f"{key}: {{value: 80, unit: {next(iter(UNITS[key]))}, source: where it stands}}"
    if not isinstance(given, Mapping):
        raise PlanError(f"{where}: {key} is {given!r}, without a unit; write {form}")
    for part in ("value", "unit", "source"):
        if part not in given:
            raise PlanError(f"{where}: {key} has no {part}; write {form}")
    if given["unit"] not in UNITS[key]:
        raise PlanError(f"{where}: {key} has unit {given['unit']!r}; {nearest(str(given['unit']), UNITS[key])}")
    value = given["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise PlanError(f"{where}: {key} is {value!r}; expected a number over 0")
    return float(value * UNITS[key][given["unit"]])


def _calibration(data: Mapping[str, Any], where: str) -> Calibration | None:
    kept = data.get("calibration")
    if kept is None:
        return None
    try:
        update, decode = Rates(**kept["update"]), Rates(**kept["decode"])
        return Calibration(**{**kept, "update": update, "decode": decode})
    except (TypeError, KeyError) as error:
        raise PlanError(f"{where}: calibration cannot be read ({error}); type: memorist plan --calibrate") from error


def calibration_file() -> Path:
    """Where this user's calibration is kept: MEMORIST_CACHE, or the platform's cache folder."""
    if named := os.environ.get("MEMORIST_CACHE"):
        return Path(named) / "hardware.yaml"
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "memorist" / "hardware.yaml"


def save_calibrated(hardware: Hardware) -> Path:
    """Keep this machine's profile for `open_hardware("here")`."""
    if hardware.calibration is None:
        raise PlanError(f"{hardware.name} was not calibrated; measure it with memorist.fit.plan.calibrate.calibrate")
    plain: dict[str, Any] = {"name": hardware.name}
    for key in NEEDED:
        unit = next(iter(UNITS[key]))
        value = float(getattr(hardware, key) / UNITS[key][unit])
        plain[key] = {"value": value, "unit": unit, "source": hardware.sources[key]}
    plain["calibration"] = dataclasses.asdict(hardware.calibration)
    path = calibration_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    return path
