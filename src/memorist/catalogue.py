"""What a recipe can name: what is built in, and what installed packages add by entry point.

A package adds to a kind by an entry point of the group "memorist.KIND" (docs/training.md). Things are loaded when they
are named, so this module imports none of them.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from memorist.errors import RecipeError, nearest

BUILT_IN: dict[str, dict[str, str]] = {
    "agents": {
        "memory-r1": "memorist.agents.memory_r1:MemoryR1Settings",
        "personatree": "memorist.agents.personatree:PersonaTreeSettings",
        "composed": "memorist.agents.composed:ComposedSettings",
        "memagent": "memorist.agents.memagent:MemAgentSettings",
        "memsearcher": "memorist.agents.memsearcher:MemSearcherSettings",
        "esearch": "memorist.agents.esearch:ESearchSettings",
        "datarus": "memorist.agents.datarus:DatarusSettings",
        "uav-vl-r1": "memorist.agents.uav:UavSettings",
    },
    "data": {
        "dialogues": "memorist.tasks.dialogue:DialogueData",
        "long-document": "memorist.tasks.long_document:LongDocumentData",
        "multihop": "memorist.tasks.searching:MultihopData",
        "lives": "memorist.tasks.streams:LivesData",
        "profiles": "memorist.tasks.profiles:ProfilesData",
        "household": "memorist.tasks.household.searching:HouseholdData",
        "notebook": "memorist.tasks.notebook.episodes:NotebookData",
        "notebook-pairs": "memorist.agents.datarus_pairs:NotebookPairsData",
        "aerial": "memorist.tasks.aerial.data:AerialData",
        "pictures": "memorist.tasks.aerial.files:PictureData",
    },
    "openers": {
        "embedder": "memorist.memory.embedders:open_embedder",
    },
    "grammars": {
        "profile-edits": "memorist.memory.profile_grammar:profile_grammar",
        "letters": "memorist.agents.components.household_prompts:one_letter",
        "some-letters": "memorist.agents.components.household_prompts:some_letters",
    },
    "extractors": {
        "statements": "memorist.agents.components.extractors:statements",
        "sentences": "memorist.agents.components.extractors:sentences",
        "turns": "memorist.agents.components.extractors:turns",
        "splitter": "memorist.agents.components.splitter:splitter",
        "splitter-named": "memorist.agents.components.splitter:splitter_named",
        "model": "memorist.agents.components.extractors:ByModel",
        "topics": "memorist.agents.rmm:Topics",
    },
    "updaters": {
        "add": "memorist.agents.components.updaters:AddAll",
        "manager": "memorist.agents.components.updaters:Managed",
        "chooser": "memorist.agents.components.updaters:Choosing",
        "merge": "memorist.agents.rmm:Merging",
    },
    "retrievers": {
        "nearest": "memorist.agents.components.retrievers:Nearest",
        "fused": "memorist.agents.components.retrievers:Fused",
    },
    "rerankers": {
        "keep": "memorist.agents.components.rerankers:Keep",
        "learned": "memorist.agents.components.rerankers:Learned",
    },
    "answerers": {
        "distilling": "memorist.agents.components.answerers:Distilling",
        "citing": "memorist.agents.rmm:Citing",
        "silent": "memorist.agents.components.answerers:Silent",
    },
    "banks": {
        "hashed": "memorist.memory.scratch:hashed_bank",
        "minilm": "memorist.memory.scratch:minilm_bank",
    },
    "rewards": {
        "exact_match": "memorist.tasks.rewards:exact",
        "token_f1": "memorist.tasks.rewards:overlap",
        "evidence": "memorist.tasks.rewards:evidence",
        "citations": "memorist.tasks.rewards:citations",
        "current": "memorist.tasks.streams:current",
        "profile_state": "memorist.tasks.profiles:profile_state",
        "profile_strict": "memorist.tasks.profiles:profile_strict",
        "profile_graded": "memorist.tasks.profiles:profile_graded",
        "profile_form": "memorist.tasks.profiles:profile_form",
        "profile_asked": "memorist.tasks.profiles:profile_asked",
        "oracle": "memorist.tasks.rewards:oracle_perfect",
        "oracle-0.9": "memorist.tasks.rewards:oracle_90",
    },
    "teachers": {
        "similarity": "memorist.agents.heuristics:SimilarityManager",
        "add-only": "memorist.agents.heuristics:AddOnlyManager",
        "first-sentences": "memorist.agents.text_heuristics:FirstSentences",
        "question-words": "memorist.agents.text_heuristics:QuestionWords",
        "listening-rules": "memorist.agents.profile_heuristics:RuleListener",
        "nearest-clause": "memorist.agents.profile_offline:OfflineAnswerer",
        "annotations": "memorist.agents.annotations:Annotations",
    },
}
"""By kind and name, where it is defined. "openers" open by name what another part of the package has."""


@lru_cache
def _added(group: str, places: tuple[str, ...]) -> dict[str, EntryPoint]:
    """What installed packages add. Reading what is installed takes 20 ms, and agents are built by the thousand."""
    return {point.name: point for point in entry_points(group=group)}


def offered(kind: str) -> dict[str, EntryPoint]:
    """All things of a kind by name; nothing that is built in can be replaced."""
    group = f"memorist.{kind}"
    return dict(_added(group, tuple(sys.path))) | {
        name: EntryPoint(name, where, group) for name, where in BUILT_IN[kind].items()
    }


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
