"""What managers leave to be found: a turn counts where its statement still stands."""

from __future__ import annotations

import pytest

from memorist.agents.components.updaters import AddAll, Choosing, Updater
from memorist.decision import Action, Observation
from memorist.evaluation.managed import Dropping, Threshold, asked_of, managed, mean, observed, recalled
from memorist.memory.scratch import ScratchBank
from memorist.models.chooser import ABOUT, ALONE
from memorist.tasks.locomo import Dialogue
from memorist.tasks.world import dialogues


@pytest.fixture(scope="module")
def talk() -> Dialogue:
    return dialogues("test", 1)[0]


class Always:
    """Does the same about the nearest memory, whatever is said."""

    def __init__(self, what: str) -> None:
        self.what = what

    async def act(self, observation: Observation) -> Action:
        near = len(observation.options) > len(ALONE)
        return Action("", choice=(len(ALONE) + ABOUT.index(self.what) if near else 0,))


def words(text: str) -> int:
    return len(text.split())


def left(talk: Dialogue, updater: Updater, tokens: int = 10_000) -> tuple[int, float]:
    bank = ScratchBank()
    records = managed(talk, updater, bank)
    return records, mean(recalled(talk, bank, words, tokens))


def test_where_all_is_added_all_is_found(talk: Dialogue) -> None:
    facts = sum(map(len, observed(talk).values()))
    assert left(talk, AddAll()) == (facts, 100.0) and asked_of(talk)
    assert left(talk, AddAll(), tokens=12)[1] < 100.0


def test_what_is_joined_still_stands_and_what_is_replaced_does_not(talk: Dialogue) -> None:
    facts = sum(map(len, observed(talk).values()))
    joined, all_ = left(talk, Choosing(Always("JOIN")))
    assert joined <= facts / 2 and all_ == 100.0  # what would grow too long begins anew
    records, found = left(talk, Choosing(Always("UPDATE")))
    assert records == 2 and found < 40


def test_baselines_leave_out(talk: Dialogue) -> None:
    facts = sum(map(len, observed(talk).values()))
    assert left(talk, Threshold(-1.0))[0] == 2 and left(talk, Threshold(1.01))[0] == facts
    assert 0.2 * facts < left(talk, Dropping(0.5, 1))[0] < 0.8 * facts
    assert left(talk, Dropping(0.0))[0] == 0 and mean({}) == 0.0
    assert left(talk, Dropping(0.5, 1)) == left(talk, Dropping(0.5, 1))
