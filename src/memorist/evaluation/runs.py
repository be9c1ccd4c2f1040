"""From a recipe to a finished run: data, agent, trainer, progress. Used by the command line, the demo and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memorist.agents.memory_r1 import MemoryR1Settings
from memorist.errors import PolicyError, RecipeError
from memorist.models.registry import open_role
from memorist.recipe import Recipe, load_recipe
from memorist.tasks.dialogue import TRAINED_CATEGORIES
from memorist.tasks.locomo import Dialogue
from memorist.training.rollout import Seat
from memorist.training.trainer import Trainer


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    progress: Callable[[Mapping[str, Any]], None] = lambda m: None,
    say: Callable[[str], None] = lambda text: None,
) -> Trainer:
    """Run a recipe in a folder."""
    trainer = Trainer(recipe, recipe.agent.build, recipe.data.tasks(recipe.seed), folder, progress, say)
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


def talking_agent(recipe: Recipe) -> MemoryR1Settings:
    """The settings of an agent that observes what people say and answers what they ask.

    Raises:
        RecipeError: the recipe's agent does something else.
    """
    if not isinstance(recipe.agent, MemoryR1Settings):
        raise RecipeError(f"agent {recipe.agent.name!r} does not observe and answer; expected 'memory-r1'")
    return recipe.agent


def greedy_seats(models: Mapping[str, str], run: Path | None = None) -> dict[str, Seat]:
    """Greedy seats for the roles; those that a run has trained come from it."""
    seats = {}
    for role, name in models.items():
        trained = run / "policies" / role if run is not None else None
        seats[role] = Seat(open_role(str(trained) if trained is not None and trained.exists() else name))
    return seats


def categories_of(dialogues: Sequence[Dialogue]) -> tuple[int, ...]:
    """The categories that carry exact-match scores, of those that occur."""
    present = {question.category for dialogue in dialogues for question in dialogue.questions}
    return tuple(c for c in TRAINED_CATEGORIES if c in present)
