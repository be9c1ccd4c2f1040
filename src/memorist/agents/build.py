"""From a recipe's agent settings to a function that builds the agent around a bank and its models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memorist.agents.components.extractors import Extractor, by_model, sentences, statements
from memorist.agents.components.prompts import STYLES
from memorist.agents.heuristics import AddOnlyManager, SimilarityManager
from memorist.agents.memory_r1 import MemoryR1
from memorist.errors import need_known
from memorist.memory.bank import MemoryBank
from memorist.models.registry import open_policy
from memorist.models.sampler import Actor, Sampler
from memorist.recipe import AgentSettings

AGENTS: dict[str, type[MemoryR1]] = {"memory-r1": MemoryR1}
TEACHERS: dict[str, Callable[[], Sampler]] = {"similarity": SimilarityManager, "add-only": AddOnlyManager}
EXTRACTORS: dict[str, Extractor] = {"statements": statements, "sentences": sentences}


def builder(settings: AgentSettings) -> Callable[..., MemoryR1]:
    """A function of `bank` and one actor per role.

    Raises:
        RecipeError: the settings name something that does not exist.
    """
    need_known("agent.name", settings.name, AGENTS)
    need_known("agent.style", settings.style, STYLES)
    need_known("agent.extract", settings.extract, EXTRACTORS)

    def build(**given: Any) -> MemoryR1:
        return AGENTS[settings.name](
            **given,
            extract=EXTRACTORS[settings.extract],
            style=settings.style,
            k=settings.k,
            candidates=settings.candidates,
        )

    return build


def by_one_model(actor: Actor) -> Callable[[MemoryBank], MemoryR1]:
    """Memory-R1 with an instruct model in every role: it extracts facts, decides operations and answers."""

    def build(bank: MemoryBank) -> MemoryR1:
        return MemoryR1(bank=bank, manager=actor, answerer=actor, extract=by_model(actor), style="full")

    return build


def reply_forms(settings: AgentSettings) -> dict[str, Callable[[str], bool]]:
    """By role, whether the agent can read a reply: what must survive when its model is made smaller.

    Raises:
        RecipeError: the settings name something that does not exist.
    """
    need_known("agent.name", settings.name, AGENTS)
    need_known("agent.style", settings.style, STYLES)
    return AGENTS[settings.name].reply_forms(settings.style)


def open_teacher(name: str) -> Sampler:
    """A heuristic by name, or a local model."""
    return TEACHERS[name]() if name in TEACHERS else open_policy(name)
