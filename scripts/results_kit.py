"""What scripts that measure learning share: outcomes in files that are measured again only if what made them changed, rows."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from memorist.evaluation.statistics import Interval

Found = dict[str, Any]
Right = dict[str, list[float]]
"""Points by conversation, document or question."""


class Kept:
    """Outcomes in a folder, a file each."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def keep(self, name: str, made_by: Mapping[str, str], measure: Callable[[], Found]) -> None:
        """What `measure` gives, kept with what it was made by; measured again only if that has changed."""
        place = self.folder / f"{name}.json"
        if place.exists() and json.loads(place.read_text())["made_by"] == made_by:
            return
        found = {"made_by": dict(made_by), "date": datetime.date.today().isoformat()} | measure()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_suffix(".new").write_text(json.dumps(found) + "\n")
        place.with_suffix(".new").rename(place)

    def keep_all(
        self, measures: Mapping[str, tuple[Mapping[str, str], Callable[[], Found]]], only: Sequence[str] | None
    ) -> None:
        """Those that are asked for, by their names or by what stands before their last hyphen; None for all."""
        for name, (made_by, measure) in measures.items():
            if only is None or name in only or name.rpartition("-")[0] in only:
                print(name, flush=True)
                self.keep(name, made_by, measure)

    def read(self, name: str) -> Found:
        """What has been measured under a name; a KeyError says what is missing."""
        place = self.folder / f"{name}.json"
        if not place.exists():
            raise KeyError(name)
        found: Found = json.loads(place.read_text())
        return found


def base(name: str | Path = "bundled") -> str:
    """Twelve hex digits that change with a base, a bundled one or a folder."""
    folder = name if isinstance(name, Path) else resources.files("memorist") / "models" / name
    weights = folder / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:12]


def row(name: str, unit: str, measure: Callable[[], Found], how: str) -> Found:
    """One row of a results file; null and a reason where something was not measured."""
    found: Found = {"row": name, "value": None, "unit": unit, "peer": None, "peer_value": None}
    found |= {"how": how, "device": "2 CPU cores", "date": datetime.date.today().isoformat()}
    try:
        found |= measure()
    except KeyError as missing:
        found["why"] = f"{missing} has not been run yet"
    print(name, found["value"], found.get("low"), found.get("high"))
    return found


def interval(measure: Callable[[], Interval], seeds: int) -> Callable[[], Found]:
    """What a row needs of an interval."""
    return lambda: measure().to_json() | {"seeds": seeds}


def line(name: str, every: int = 20) -> Callable[[Mapping[str, Any]], None]:
    """A progress function that prints some steps."""

    def show(m: Mapping[str, Any]) -> None:
        if m["step"] % every == 0:
            print(f"{name} {m['role']} step {m['step']}/{m['steps']} reward {m['reward']:.3f}", flush=True)

    return show


def asked_for(what: str | None, names: str, seeds: Sequence[int]) -> argparse.Namespace:
    """What the command line asks for: `only` (names, or None for all), `seeds`, and `write` (nothing is measured).

    Args:
        what: the script's own words.
        names: what can be measured.
        seeds: of trained runs.
    """
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help=f"measure these alone: {names}")
    parser.add_argument("--seed", type=int, choices=seeds, help="of trained runs this one alone")
    parser.add_argument("--write", action="store_true", help="only write the rows")
    args = parser.parse_args()
    args.seeds = seeds if args.seed is None else [args.seed]
    return args
