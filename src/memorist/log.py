"""Trajectories on disk: JSON Lines, one run of an agent each, written by the trainer and by evaluations.

People read them (every prompt and reply is there as text, so reward hacking can be looked for); programs replay them,
branch from them, or calibrate on them: token ids, log-probabilities and distributions come back exactly as they were.
Values that are the default are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from memorist.decision import (
    Action,
    Author,
    Decision,
    Distribution,
    Media,
    Observation,
    Picture,
    Reward,
    Span,
    Stop,
    Trajectory,
)
from memorist.errors import DataError
from memorist.plain import without_defaults


def write_trajectories(file: Path, trajectories: Iterable[Trajectory]) -> int:
    """Write a file anew, complete or not at all; returns the number of lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished, count = file.with_name(file.name + ".new"), 0
    # A lone surrogate, which UTF-8 cannot hold, becomes the escape by which JSON spells it.
    with open(unfinished, "w", encoding="utf-8", errors="backslashreplace") as out:
        for trajectory in trajectories:
            out.write(json.dumps(without_defaults(trajectory), ensure_ascii=False) + "\n")
            count += 1
    unfinished.replace(file)
    return count


def read_trajectories(place: Path) -> Iterator[Trajectory]:
    """The trajectories of a file, or of all `*.jsonl` files of a folder in the order of their names.

    Raises:
        DataError: there is no such file, the folder holds none, or a line is no trajectory; the message names file,
            line and field.
    """
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    if not files:
        raise DataError(str(place), "-", "-", "no *.jsonl in this folder; give one that holds logged trajectories")
    for file in files:
        try:
            with open(file, encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield read_trajectory(line, str(file), str(number))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(str(file), "-", "-", f"cannot be read ({error}); give a log of trajectories") from error


def read_trajectory(line: str, file: str = "-", record: str = "-") -> Trajectory:
    """One line.

    Raises:
        DataError: it is no trajectory.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(file, record, "line", f"no JSON ({error})") from error
    return trajectory_from(row, file, record)


def trajectory_from(row: Any, file: str = "-", record: str = "-") -> Trajectory:
    """A trajectory from its plain object.

    Raises:
        DataError: a field is missing or of another type than it should be.
    """
    at = ["trajectory"]
    try:
        decisions = []
        for i, one in enumerate(row["decisions"]):
            at.append(f"decisions[{i}]")
            decisions.append(_decision(one))
            at.pop()
        at.append("rewards")
        rewards = tuple(Reward(**{**r, "span": _pair(r.get("span"))}) for r in row["rewards"])
        at.pop()
        return Trajectory(str(row["task"]), int(row["seed"]), tuple(decisions), rewards, dict(row.get("facts", {})))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        problem = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            file, record, at[-1], f"{problem}; expected a logged trajectory, as runs write into trajectories/"
        ) from error


def _decision(row: Mapping[str, Any]) -> Decision:
    return Decision(str(row["role"]), str(row["policy"]), _observation(row["observation"]), _action(row["action"]))


def _observation(row: Mapping[str, Any]) -> Observation:
    after = tuple((_observation(asked), _action(done)) for asked, done in row.get("after", ()))
    listed = {name: tuple(row.get(name, ())) for name in ("options", "ends")}
    pictures = tuple(Picture(_pair(one["size"]) or (0, 0), str(one["digest"])) for one in row.get("pictures", ()))
    return Observation(**{**row, **listed, "after": after, "pictures": pictures})


def _action(row: Mapping[str, Any]) -> Action:
    done = dict(row)
    drawn = dict(done.pop("distribution", {}))
    if drawn.get("legal") is not None:
        drawn["legal"] = tuple(None if ids is None else tuple(ids) for ids in drawn["legal"])
    spans = [{**span, "author": Author(span.get("author", Author.POLICY))} for span in done.pop("spans", ())]
    pictures = done.pop("media", ())
    for name, kind in (("prompt", int), ("tokens", int), ("logprobs", float), ("choice", int)):
        done[name] = tuple(map(kind, done.get(name, ())))
    return Action(
        **{**done, "stop": Stop(done.get("stop", Stop.END))},
        distribution=Distribution(**drawn),
        spans=tuple(Span(**span) for span in spans),
        media=tuple(Media(**{**media, "grid": _pair(media.get("grid")) or (1, 1)}) for media in pictures),
    )


def _pair(span: Any) -> tuple[int, int] | None:
    return None if span is None else (int(span[0]), int(span[1]))
