"""The numbers of a run's steps as series: one for each reward term, measure, loss and so on, by stage."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from memorist.view.lines import unreadable

POINTS = 600
"""Points of a series at most; of more steps, each point is the mean of some that follow each other."""
LAST = 10
"""Steps at a stage's end whose mean is the stage's final value."""
ABOUT = ("stage", "kind", "role", "step", "steps")
"""What a row says about its step and does not measure."""

Point = tuple[float, float]


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """Objects of a file of JSON lines; none where there is no file. A line that a kill has torn is passed over.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict):
                    yield row
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(file, error) from error


def curves(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A run's stages, each with its series by name and their final values.

    A series is a list of (step, value). `each`: how many steps one point stands for. Of a step that was done twice,
    because a run was stopped and went on, the later numbers count.
    """
    stages: dict[int, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        stage, step = row.get("stage", 0), row.get("step")
        if isinstance(stage, int) and isinstance(step, int):
            stages.setdefault(stage, {})[step] = row
    return [_stage(number, steps) for number, steps in sorted(stages.items())]


def _stage(number: int, steps: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    series: dict[str, list[Point]] = {}
    for step, row in sorted(steps.items()):
        for name, value in measured(row):
            series.setdefault(name, []).append((step, value))
    each = max(1, math.ceil(len(steps) / POINTS))
    last = steps[max(steps)]
    return {
        "stage": number,
        "kind": str(last.get("kind", "")),
        "role": str(last.get("role", "")),
        "steps": last.get("steps"),
        "done": max(steps),
        "each": each,
        "series": {name: thinned(points, each) for name, points in series.items()},
        "final": {name: sum(v for _, v in points[-LAST:]) / len(points[-LAST:]) for name, points in series.items()},
        "last": LAST,
    }


def measured(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The finite numbers of a step by name; those in groups as "terms.NAME". Counts of rewards are left out."""
    for name, value in row.items():
        if name in ABOUT or name == "histogram":
            continue
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", float(one)) for inner, one in value.items() if _number(one))
        elif _number(value):
            yield name, float(value)


def _number(value: object) -> bool:
    # Whole numbers of any size can be in JSON; those that no float can hold cannot be drawn.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 if isinstance(value, int) else math.isfinite(value)


def thinned(points: Sequence[Point], each: int) -> list[Point]:
    """Means of every `each` points; a point's step is the last of those it stands for."""
    if each == 1:
        return list(points)
    parts = [points[n : n + each] for n in range(0, len(points), each)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def scores(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means of what an evaluation wrote down for each question, by system and protocol."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if "system" in row:
            found.setdefault((str(row["system"]), str(row.get("protocol", ""))), []).append(row)
    table = []
    for (system, protocol), own in found.items():
        names = dict.fromkeys(name for row in own for name, value in row.items() if _scored(name, value))
        values = {name: [float(row[name]) for row in own if _scored(name, row.get(name))] for name in names}
        means = {name: sum(numbers) / len(numbers) for name, numbers in values.items()}
        table.append({"system": system, "protocol": protocol, "questions": len(own), "means": means})
    return table


def _scored(name: str, value: object) -> bool:
    return name not in ("question", "category", "dialogue") and (isinstance(value, bool) or _number(value))
