"""Listeners on histories whose right tree is known: who knows all is worth 1, who does nothing is never foreign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from memorist.agents.personatree import PersonaTreeSettings
from memorist.agents.profile_heuristics import HOBBIES, RuleListener, heard_in, known_in
from memorist.agents.profile_offline import OfflineAnswerer
from memorist.decision import Action
from memorist.evaluation.listening import Worth, judged, truncated
from memorist.memory.embed import HashedEmbedder
from memorist.memory.profile_edits import Edit
from memorist.models.sampler import Request
from memorist.tasks.profiles import ProfilesData, history

TOLD = [history(f"person-{i}", 15) for i in range(4)]


class Knowing:
    """Writes what is right."""

    name = "knowing"

    def __init__(self) -> None:
        self.edits = {h.message.text: h.edits for one in TOLD for h in one}

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        return [Action("\n".join(map(str, self.edits[heard_in(r.observation.prompt)[0]]))) for r in requests]


class Silent:
    """Writes nothing."""

    name = "silent"

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        return [Action("NO_OP()") for _ in requests]


class Parrot:
    """Keeps all that is said in one leaf."""

    name = "parrot"

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        prompts = [request.observation.prompt for request in requests]
        texts = ("; ".join([*known_in(prompt).values(), *heard_in(prompt)]) for prompt in prompts)
        return [Action(str(Edit("UPDATE", HOBBIES, text))) for text in texts]


DATA = ProfilesData(people=4, statements=15)
FULL = PersonaTreeSettings(pairs=1, guard="off", branches=1, budget=10_000)


def words(text: str) -> int:
    return len(text.split())


def heard(listener: Any, settings: PersonaTreeSettings = FULL) -> Worth:
    return judged(listener, OfflineAnswerer(HashedEmbedder()), settings, DATA, words)


def mean(points: Mapping[str, Sequence[float]]) -> float:
    every = [value for values in points.values() for value in values]
    return sum(every) / len(every)


def test_who_knows_all_is_worth_one_and_who_does_nothing_less() -> None:
    best, nothing, all_ = heard(Knowing()), heard(Silent()), heard(Parrot())
    assert mean(best.states) == 1.0 and best.foreign == 0 < best.clauses
    assert mean(nothing.states) < 0.5 and nothing.clauses == nothing.foreign == 0
    assert mean(all_.states) < mean(nothing.states)
    assert all_.foreign > 0, "what holds of others is counted where it is kept"


def test_both_styles_of_prompts_lead_to_the_same_trees() -> None:
    compact = replace(FULL, style="compact")
    assert heard(RuleListener()).states == heard(RuleListener(), compact).states


def test_answers_from_the_tree_and_from_the_end_of_the_dialogue_at_equal_tokens() -> None:
    best, nothing = heard(Knowing()), heard(Silent())
    assert mean(best.answers["fast"]) > mean(nothing.answers["fast"]) == 0.0
    assert mean(best.shown["agentic"]) > mean(best.shown["fast"])
    answerer = OfflineAnswerer(HashedEmbedder())
    room = {name: [10_000.0] * len(points) for name, points in best.shown["fast"].items()}
    assert mean(truncated(answerer, DATA, words, room)) > 0.0
    nowhere = {name: [0.0] * len(points) for name, points in room.items()}
    assert mean(truncated(answerer, DATA, words, nowhere)) == 0.0
