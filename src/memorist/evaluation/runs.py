"""From a recipe to a finished run: data, agent, trainer, progress. Used by the command line, the demo and results."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memorist.agents.build import builder
from memorist.errors import PolicyError
from memorist.models.registry import open_policy
from memorist.recipe import DataSettings, Recipe, load_recipe
from memorist.tasks.dialogue import TRAINED_CATEGORIES, DialogueTask
from memorist.tasks.locomo import Dialogue, load
from memorist.tasks.world import dialogues
from memorist.training.rollout import Seat
from memorist.training.trainer import Trainer


def read_data(data: DataSettings) -> list[Dialogue]:
    """The dialogues that a recipe names."""
    if data.file:
        return load(data.file)
    return dialogues(data.split, data.dialogues, seed=data.seed, difficulty=data.difficulty, grammar=data.grammar)


def training_tasks(data: DataSettings, seed: int) -> list[DialogueTask]:
    """Whole-dialogue tasks with at most `data.questions` questions in all, spread evenly."""
    tasks = [DialogueTask.of(dialogue) for dialogue in read_data(data)]
    if not data.questions:
        return tasks
    rng = random.Random(seed)
    kept, room = [], data.questions
    for task in tasks:
        if not room:
            break
        questions = task.questions if len(task.questions) <= room else tuple(rng.sample(task.questions, room))
        kept.append(replace(task, questions=questions))
        room -= len(questions)
    return kept


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    progress: Callable[[Mapping[str, Any]], None] = lambda m: None,
) -> Trainer:
    """Run a recipe in a folder."""
    tasks = training_tasks(recipe.data, recipe.seed)
    trainer = Trainer(recipe, builder(recipe.agent), tasks, folder, progress)
    trainer.run(resume=resume)
    return trainer


def recipe_of(run: Path | None) -> Recipe:
    """The recipe of a run's folder, so that an agent is judged and served as it was trained; without one, the default.

    Raises:
        PolicyError: there is no such run.
    """
    if run is None:
        return Recipe()
    if not (run / "recipe.yaml").exists():
        raise PolicyError(f"{run} holds no run (no recipe.yaml); give a folder that `memorist train` wrote")
    return load_recipe(run / "recipe.yaml")


def greedy_seats(models: Mapping[str, str], run: Path | None = None) -> dict[str, Seat]:
    """Greedy seats for the roles; those that a run has trained come from it."""
    seats = {}
    for role, name in models.items():
        trained = run / "policies" / role if run is not None else None
        seats[role] = Seat(open_policy(str(trained) if trained is not None and trained.exists() else name))
    return seats


def categories_of(dialogues: Sequence[Dialogue]) -> tuple[int, ...]:
    """The categories that carry exact-match scores, of those that occur."""
    present = {question.category for dialogue in dialogues for question in dialogue.questions}
    return tuple(c for c in TRAINED_CATEGORIES if c in present)
