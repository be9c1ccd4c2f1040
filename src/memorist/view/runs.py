"""A run's folder, read a piece at a time: a file is opened when somebody looks at it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from memorist.decision import Reward
from memorist.errors import DataError, RecipeError
from memorist.log import read_trajectory
from memorist.recipe import Recipe, load_recipe
from memorist.view.curves import curves, rows_of, scores
from memorist.view.lines import Lines, unreadable
from memorist.view.shown import decision_shown, reward_shown
from memorist.view.spelling import Spellers

PAGE = 100
"""Trajectories on a page."""
STEP = re.compile(r"stage-(\d+)-step-(\d+)")
LONGEST_FACT = 300


def is_run(folder: Path) -> bool:
    """Whether a folder holds what training or an evaluation writes."""
    named = ("recipe.yaml", "metrics.jsonl", "trajectories")
    return any((folder / name).exists() for name in named) or any(folder.glob("*-trajectories.jsonl"))


class Run:
    """What there is to see of a run.

    Args:
        folder: that `memorist train` or `memorist eval --out` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.resolve().name
        self._lines: dict[str, Lines] = {}
        self._curves: tuple[object, list[dict[str, Any]]] | None = None

    # What is shown first, and so must not read any trajectory.

    def overview(self) -> dict[str, Any]:
        """The recipe as text, and which files there are."""
        return {
            "name": self.name,
            "recipe": self._text("recipe.yaml"),
            "files": [self._file(name, file) for name, file in self.files().items()],
            "measured": (self.folder / "metrics.jsonl").is_file(),
            "evaluated": (self.folder / "evaluations.jsonl").is_file(),
            "scored": bool(self._answers()),
        }

    def files(self) -> dict[str, Path]:
        """Files of trajectories by the name under which pages ask for them."""
        found = sorted((self.folder / "trajectories").glob("*.jsonl"))
        beside = sorted(self.folder.glob("*-trajectories.jsonl"))
        broken = [file for file in (self.folder / "offending.jsonl",) if file.is_file()]
        return {file.stem: file for file in (*found, *beside, *broken)}

    def curves(self) -> list[dict[str, Any]]:
        """The stages with their series; see `memorist.view.curves`."""
        file = self.folder / "metrics.jsonl"
        now = (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None
        if self._curves is None or self._curves[0] != now:
            self._curves = (now, curves(rows_of(file)))
        return self._curves[1]

    def evaluations(self) -> list[dict[str, Any]]:
        """What every evaluation gave, before the first stage and after each."""
        rows = rows_of(self.folder / "evaluations.jsonl")
        return [{name: row.get(name) for name in ("name", "after", "measures")} for row in rows]

    def scores(self) -> list[dict[str, Any]]:
        """For a folder that an evaluation wrote: means by benchmark, system and protocol."""
        return [
            {"benchmark": name, **row} for name, file in self._answers().items() for row in scores(rows_of(file))
        ]  # fmt: skip

    # Trajectories.

    def page(self, name: str, number: int) -> dict[str, Any]:
        """A page of a file, from 0: what each trajectory was about and earned, siblings of a task together.

        Raises:
            DataError: there is no such file, or it cannot be read.
        """
        lines, weights = self._open(name), self._weights(name)
        first = number * PAGE
        shown = [_line(first + n, line, weights) for n, line in enumerate(lines.read(first, PAGE))]
        groups: list[dict[str, Any]] = []
        for one in shown:
            if not groups or groups[-1]["task"] != one["task"]:
                groups.append({"task": one["task"], "runs": []})
            groups[-1]["runs"].append(one)
        return {"file": name, "page": number, "pages": -(-len(lines) // PAGE), "all": len(lines), "groups": groups}

    def one(self, name: str, number: int) -> dict[str, Any]:
        """A trajectory of a file, by its line, with all that was seen and done.

        Raises:
            DataError: there is no such file or line, or the line is no trajectory.
        """
        lines = self._open(name)
        found = lines.read(number, 1)
        if not found:
            raise DataError(name, str(number + 1), "line", f"does not exist; the file has {len(lines)} trajectories")
        trajectory = read_trajectory(found[0], f"{name}.jsonl", str(number + 1))
        weights, learner = self._weights(name), self._learner(name)
        return {
            "file": name, "number": number, "all": len(lines), "page": number // PAGE, "task": trajectory.task,
            "seed": str(trajectory.seed), "total": trajectory.total(weights), "gate": self._gate(name),
            "rewards": [reward_shown(one, weights) for one in trajectory.rewards],
            "decisions": [
                decision_shown(one, self._spellers.of(one.role, one.policy), learner) for one in trajectory.decisions
            ],
            "learner": learner, "facts": trajectory.facts,
        }  # fmt: skip

    # Inside.

    def _text(self, name: str) -> str | None:
        file = self.folder / name
        try:
            return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
        except OSError as error:
            raise unreadable(file, error) from error

    def _file(self, name: str, file: Path) -> dict[str, Any]:
        found = STEP.fullmatch(name)
        stage, step = (int(found[1]), int(found[2])) if found else (None, None)
        return {"name": name, "stage": stage, "step": step, "bytes": file.stat().st_size}

    def _answers(self) -> dict[str, Path]:
        """Files with a row for each question of an evaluation, by benchmark."""
        names = [file.name.removesuffix("-trajectories.jsonl") for file in self.folder.glob("*-trajectories.jsonl")]
        return {name: file for name in sorted(names) if (file := self.folder / f"{name}.jsonl").is_file()}

    def _open(self, name: str) -> Lines:
        # Only names that are listed open anything.
        file = self.files().get(name)
        if file is None:
            raise DataError(self.name, "-", "file", f"{name!r} is not among this run's files of trajectories")
        return self._lines.setdefault(name, Lines(file))

    @cached_property
    def _recipe(self) -> Recipe | None:
        try:
            return load_recipe(self.folder / "recipe.yaml")
        except RecipeError:  # no training, or one by a version that knew other settings
            return None

    def _stage(self, name: str) -> Any:
        found, recipe = STEP.fullmatch(name), self._recipe
        if found is None or recipe is None or int(found[1]) >= len(recipe.stages):
            return None
        return recipe.stages[int(found[1])]

    def _weights(self, name: str) -> Mapping[str, float]:
        """What each reward term counted at the step of a file."""
        stage, found = self._stage(name), STEP.fullmatch(name)
        return {} if stage is None or found is None else stage.rewards_at(int(found[2]) - 1)

    def _gate(self, name: str) -> str:
        stage = self._stage(name)
        return "" if stage is None else stage.gate

    def _learner(self, name: str) -> str | None:
        """The role that learns from a file's trajectories; None where none does, as in evaluations."""
        stage = self._stage(name)
        return None if stage is None else stage.role

    @cached_property
    def _spellers(self) -> Spellers:
        return Spellers(self.folder, {} if self._recipe is None else self._recipe.models)


def _line(number: int, line: str, weights: Mapping[str, float]) -> dict[str, Any]:
    """What a list shows of one trajectory; its tokens are left alone, for there may be very many."""
    try:
        row = json.loads(line)
        rewards = [Reward(str(r["name"]), float(r["value"]), r.get("decision")) for r in row["rewards"]]
        whole = [one for one in rewards if one.decision is None]
        terms: dict[str, float] = {}
        for one in whole:
            terms[one.name] = terms.get(one.name, 0.0) + one.value
        return {
            "number": number, "task": str(row["task"]), "seed": str(row["seed"]), "decisions": len(row["decisions"]),
            "total": sum(weights.get(one.name, 1.0) * one.value for one in whole), "terms": terms,
            "said": _said(row["decisions"]),
        }  # fmt: skip
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return {
            "number": number,
            "task": "",
            "problem": f"this line is no trajectory ({type(error).__name__}: {error})",
        }


def _said(decisions: list[dict[str, Any]]) -> str:
    """What the last decision was, cut short."""
    if not decisions:
        return ""
    asked, done = decisions[-1]["observation"], decisions[-1]["action"]
    options, choice = asked.get("options") or (), done.get("choice") or ()
    text = ", ".join(str(options[n]) for n in choice) if options else str(done.get("text", ""))
    return text if len(text) <= LONGEST_FACT else text[:LONGEST_FACT] + " …"
