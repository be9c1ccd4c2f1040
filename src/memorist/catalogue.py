"""What a recipe can name: what is built in, and what installed packages add by entry point.

A package adds to a kind by an entry point of the group "memorist.KIND" (docs/training.md). Things are loaded when they
are named, so this module imports none of them.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from memorist.errors import RecipeError, nearest

BUILT_IN: dict[str, dict[str, str]] = {
    "agents": {
        "memory-r1": "memorist.agents.memory_r1:MemoryR1Settings",
        "memagent": "memorist.agents.memagent:MemAgentSettings",
        "memsearcher": "memorist.agents.memsearcher:MemSearcherSettings",
    },
    "data": {
        "dialogues": "memorist.tasks.dialogue:DialogueData",
        "long-document": "memorist.tasks.long_document:LongDocumentData",
        "multihop": "memorist.tasks.searching:MultihopData",
    },
    "extractors": {
        "statements": "memorist.agents.components.extractors:statements",
        "sentences": "memorist.agents.components.extractors:sentences",
    },
    "teachers": {
        "similarity": "memorist.agents.heuristics:SimilarityManager",
        "add-only": "memorist.agents.heuristics:AddOnlyManager",
    },
}
"""By kind and name, where it is defined."""


def offered(kind: str) -> dict[str, EntryPoint]:
    """All things of a kind by name; nothing that is built in can be replaced."""
    group = f"memorist.{kind}"
    added = {point.name: point for point in entry_points(group=group)}
    return added | {name: EntryPoint(name, where, group) for name, where in BUILT_IN[kind].items()}


def find(kind: str, name: str, place: str) -> Any:
    """The thing of this kind that has this name.

    Args:
        place: where the name stands, for the message.

    Raises:
        RecipeError: there is none, or the package that offers it cannot be imported.
    """
    known = offered(kind)
    if name not in known:
        raise RecipeError(f"{place} is {name!r}; {nearest(name, known)}")
    try:
        return known[name].load()
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"{place} is {name!r}, which {known[name].value} should be: {error}") from error
