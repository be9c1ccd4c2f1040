"""Listeners on histories whose right tree is known: who knows all is worth 1, who does nothing is never foreign."""

from __future__ import annotations

from collections.abc import Sequence

from memorist.agents.personatree import PersonaTree
from memorist.agents.profile_heuristics import HOBBIES, heard_in, known_in
from memorist.decision import Action
from memorist.evaluation.listening import judged
from memorist.memory.bank import MemoryBank
from memorist.memory.profile_edits import Edit
from memorist.models.sampler import Greedy, Request
from memorist.tasks.profiles import Heard, history

TOLD = [history(f"p{i}", 15) for i in range(4)]


class Knowing:
    """Writes what is right."""

    name = "knowing"

    def __init__(self, told: Sequence[Sequence[Heard]]) -> None:
        self.edits = {h.message.text: h.edits for one in told for h in one}

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


def mean(listener: object) -> tuple[float, int]:
    def make(bank: MemoryBank) -> PersonaTree:
        actor = Greedy(listener)  # type: ignore[arg-type]
        return PersonaTree(bank=bank, listener=actor, answerer=actor, guard="off", branches=0, budget=10_000)

    found = judged(make, TOLD)
    states = [state for one in found for state in one.states]
    return sum(states) / len(states), sum(one.foreign for one in found)


def test_who_knows_all_is_worth_one_and_who_does_nothing_less() -> None:
    best, foreign = mean(Knowing(TOLD))
    assert best == 1.0 and foreign == 0
    nothing, foreign = mean(Silent())
    assert nothing < 0.5 and foreign == 0
    all_, foreign = mean(Parrot())
    assert all_ < nothing and foreign > 0, "what holds of others is counted where it is kept"
