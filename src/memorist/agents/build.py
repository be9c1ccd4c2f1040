"""From a recipe's agent settings to a function that builds the agent around a bank and its models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memorist.agents.components.extractors import Extractor, sentences, statements
from memorist.agents.components.prompts import STYLES
from memorist.agents.memory_r1 import MemoryR1
from memorist.errors import RecipeError, nearest
from memorist.recipe import AgentSettings

AGENTS: dict[str, type[MemoryR1]] = {"memory-r1": MemoryR1}
EXTRACTORS: dict[str, Extractor] = {"statements": statements, "sentences": sentences}


def builder(settings: AgentSettings) -> Callable[..., MemoryR1]:
    """A function of `bank` and one actor per role.

    Raises:
        RecipeError: the settings name something that does not exist.
    """
    for name, given, known in (
        ("agent.name", settings.name, AGENTS),
        ("agent.style", settings.style, STYLES),
        ("agent.extract", settings.extract, EXTRACTORS),
    ):
        if given not in known:
            raise RecipeError(f"{name} is {given!r}; {nearest(given, known)}")

    def build(**given: Any) -> MemoryR1:
        return AGENTS[settings.name](
            **given,
            extract=EXTRACTORS[settings.extract],
            style=settings.style,
            k=settings.k,
            candidates=settings.candidates,
        )

    return build
