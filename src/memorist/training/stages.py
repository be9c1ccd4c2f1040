"""What lies between a recipe's stages: the tasks of each, evaluations after each (so that forgetting shows), what a
stage has to reach before the next one begins, and a manifest of what was done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memorist._version import __version__
from memorist.errors import RecipeError, TrainingError
from memorist.models.pictures import image_of
from memorist.recipe import Recipe, Stage, to_plain
from memorist.training.metrics import read_metrics
from memorist.training.rollout import Group, derive

EVALUATIONS, MANIFEST = "evaluations.jsonl", "manifest.json"
PICTURES = "pictures"
"""Folder of what examples were shown."""
EXAMPLES = 16
"""Tasks of an evaluation, the first ones, of which it is kept what was answered."""
LAST = 10
"""Steps at a stage's end whose mean reward the manifest has."""


@dataclass
class Exercises:
    """The tasks that each stage trains on: those of its own data, or the recipe's.

    Args:
        whole: of the recipe's data.
    """

    recipe: Recipe
    whole: Sequence[Any]
    _own: dict[int, Sequence[Any]] = field(default_factory=dict)

    def all_of(self, number: int, stage: Stage) -> Sequence[Any]:
        """Tasks of a stage, of any size."""
        if stage.data is None:
            return self.whole
        if number not in self._own:
            self._own[number] = stage.data.tasks(self.recipe.seed)
        return self._own[number]

    def of(self, number: int, stage: Stage) -> Sequence[Any]:
        """Tasks of a stage, of the size that it wants."""
        known = self.all_of(number, stage)
        if not (stage.limit or stage.least):
            return known
        return [t for t in known if stage.least <= t.size and (not stage.limit or t.size <= stage.limit)]

    def up_to(self, number: int, stage: Stage) -> list[Any]:
        """All that steps of a stage may draw: its own, and those of the stages before where it takes some of them."""
        stages = range(number if stage.replay else 0)
        return [*self.of(number, stage), *(task for n in stages for task in self.of(n, self.recipe.stages[n]))]

    def drawn(self, number: int, stage: Stage, step: int, count: int) -> list[Any]:
        """Tasks of a step: passes over the stage's, each in a new order, and a share of those of the stages before."""
        again = int(stage.replay * count) if number else 0
        drawn, known = [], self.of(number, stage)
        for place in range(step * (count - again), (step + 1) * (count - again)):
            epoch, index = divmod(place, len(known))
            order = np.random.default_rng(derive(self.recipe.seed, number, epoch, 3)).permutation(len(known))
            drawn.append(known[int(order[index])])
        rng = np.random.default_rng(derive(self.recipe.seed, number, step, 8))
        for _ in range(again):
            before = int(rng.integers(number))
            earlier = self.of(before, self.recipe.stages[before])
            drawn.append(earlier[int(rng.integers(len(earlier)))])
        return drawn

    def others(self, number: int, stage: Stage, count: int, seed: int) -> list[Any]:
        """Tasks in place of those that taught nothing."""
        known = self.of(number, stage)
        return [known[int(i)] for i in np.random.default_rng(seed).integers(0, len(known), count)]

    def check(self, number: int, stage: Stage) -> None:
        """Refuse what no step can draw.

        Raises:
            RecipeError: there are no tasks, or none of the sizes that a stage wants.
        """
        known = self.all_of(number, stage)
        if not known:
            raise RecipeError("the recipe's data has no dialogues to train on; expected at least one")
        asked = f"stages[{number}] wants tasks of size {stage.least} to {stage.limit or 'any'}"
        if (stage.limit or stage.least) and not hasattr(known[0], "size"):
            raise RecipeError(f"{asked}, and tasks of this data have no size; expected limit and least to be 0")
        if not self.of(number, stage):
            sizes = sorted(task.size for task in known)
            raise RecipeError(f"{asked}; this data's have {sizes[0]} to {sizes[-1]}")


@dataclass(frozen=True)
class Evaluations:
    """What the recipe's evaluations gave before the first stage and after each, in a file of the run's folder."""

    recipe: Recipe
    folder: Path

    @property
    def file(self) -> Path:
        """A line for each evaluation and stage."""
        return self.folder / EVALUATIONS

    def found(self, after: int) -> dict[str, dict[str, float]]:
        """Measures by evaluation, after so many stages."""
        return {row["name"]: row["measures"] for row in read_metrics(self.file) if row["after"] == after}

    def missing(self, after: int) -> list[str]:
        """Evaluations that are still to be made."""
        return [name for name in self.recipe.evaluations if name not in self.found(after)]

    def note(self, after: int, name: str, groups: Sequence[Group], tasks: Sequence[Any] = ()) -> None:
        """Write down what an evaluation gave: means of what its tasks measure, and of their reward terms; and of some
        tasks what was asked and answered, with the pictures that were shown (`tasks`, in the groups' order)."""
        sums: dict[str, list[float]] = {}
        for run in (run for group in groups for run in group):
            values = {r.name: r.value for r in run.trajectory.rewards if r.decision is None}
            for measure, value in (values | run.trajectory.facts.get("measures", {})).items():
                sums.setdefault(measure, []).append(value)
        told = [(n, run.trajectory.facts.get("example")) for n, [run, *_] in enumerate(groups[:EXAMPLES])]
        examples = [
            {"task": groups[n][0].trajectory.task, **example, "pictures": self._kept(tasks[n : n + 1])}
            for n, example in told
            if example
        ]
        measures = {measure: float(np.mean(values)) for measure, values in sums.items()}
        self.write(after, name, len(groups), measures, examples)

    def _kept(self, tasks: Sequence[Any]) -> list[str]:
        """Names of the files in which the pictures of tasks are kept, once each."""
        names = []
        for picture in (one for task in tasks for one in getattr(task, "pictures", ())):
            file = self.folder / PICTURES / f"{picture.digest[:16]}.png"
            if not file.exists():
                file.parent.mkdir(exist_ok=True)
                image_of(picture).save(file)
            names.append(file.name)
        return names

    def write(
        self, after: int, name: str, tasks: int, measures: Mapping[str, float], examples: Sequence[Any] = ()
    ) -> None:  # fmt: skip
        """Write down measures, and what some tasks came to."""
        row = {"after": after, "name": name, "tasks": tasks, "measures": measures}
        with open(self.file, "a", encoding="utf-8") as out:
            out.write(json.dumps(row | ({"examples": list(examples)} if examples else {})) + "\n")

    def rewind(self, stage: int) -> None:
        """Drop what later stages gave, which will run again, and a line torn by a kill."""
        if self.file.exists():
            kept = [row for row in read_metrics(self.file) if row["after"] <= stage]
            self.file.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def check(self, after: int) -> None:
        """Refuse to go on where the stage before did not reach what it has to.

        Raises:
            TrainingError: a measure is below what the stage requires.
        """
        stage, found = self.recipe.stages[after - 1], self.found(after)
        for asked, least in stage.require.items():
            name, _, measure = asked.rpartition(".")
            value = found[name].get(measure)
            if value is None or value < least:
                reached = "is not measured" if value is None else f"is {value:.4g}"
                raise TrainingError(
                    f"stage {after} requires {asked} to be {least:g} or more, and it {reached} (known: "
                    f"{', '.join(sorted(found[name]))}). The stage is done and its weights are in {self.folder}; train "
                    "it longer, or require less"
                )


def write_manifest(recipe: Recipe, folder: Path, after: int, tasks: int, weights: Mapping[str, torch.Tensor]) -> None:
    """Add a stage to the run's manifest: what it was, on what, what came of it, and a digest of the weights.

    Args:
        after: stages that are done, the last of which is added.
        tasks: that it could draw from.
    """
    file, stage = folder / MANIFEST, recipe.stages[after - 1]
    known = json.loads(file.read_text(encoding="utf-8"))["stages"] if file.exists() else []
    steps = [row for row in read_metrics(folder / "metrics.jsonl") if row["stage"] == after - 1]
    plain = to_plain(stage)
    entry = {
        "stage": after, "kind": stage.kind, "role": stage.role, "data": plain["data"] or to_plain(recipe.data),
        "tasks": tasks, "steps": len(steps), "seconds": sum(row["seconds"] for row in steps),
        "reward": float(np.mean([row["reward"] for row in steps[-LAST:]])) if steps else None,
        "weights": digest(weights), "evaluations": Evaluations(recipe, folder).found(after),
    }  # fmt: skip
    stages = [one for one in known if one["stage"] < after] + [entry]
    whole = {"memorist": __version__, "name": recipe.name, "recipe": recipe.fingerprint(), "seed": recipe.seed}
    new = file.with_suffix(".new")
    new.write_text(json.dumps(whole | {"stages": stages}, indent=1) + "\n", encoding="utf-8")
    new.replace(file)


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Twelve hex digits of weights."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:12]
