"""Histories with the right profile tree at every moment."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memorist.memory.profile_schema import persona_schema
from memorist.memory.profile_tree import ProfileTree
from memorist.memory.record import Scope
from memorist.memory.scratch import ScratchBank
from memorist.tasks.lives import subjects
from memorist.tasks.profile_rewards import state
from memorist.tasks.profiles import LEAVES, history

AT = datetime(2025, 1, 1, tzinfo=UTC)


def test_every_subject_has_a_leaf_of_its_own() -> None:
    assert set(LEAVES) == {subject.name for subject in subjects()}
    assert set(LEAVES.values()) <= persona_schema().known and len(set(LEAVES.values())) == len(LEAVES)


@pytest.mark.parametrize("number", range(12))
def test_its_edits_lead_to_its_trees_and_are_worth_all(number: int) -> None:
    tree = ProfileTree(ScratchBank(), Scope("p"), guard="off", budget=10_000)
    for heard in history(f"p{number}", 30):
        assert state(tree, heard.edits, heard.edits) == 1.0
        assert all(not one.code.rejected for one in tree.apply(heard.edits, at=AT))
        assert tree.leaves() == {path: heard.tree[path] for path in tree.leaves()} and len(tree.leaves()) == len(
            heard.tree
        )


def test_they_have_all_that_a_listener_must_tell_apart() -> None:
    kinds: dict[str, int] = {}
    others = 0
    for number in range(40):
        told = history(f"p{number}", 30, split="validation")
        others += len(told[-1].others)
        for heard in told:
            for edit in heard.edits:
                kinds[edit.kind] = kinds.get(edit.kind, 0) + 1
    assert all(kinds[kind] > 40 for kind in ("ADD", "UPDATE", "DELETE")) and kinds["NO_OP"] > 300 and others > 40


def test_they_are_the_same_every_time_and_differ_by_name_and_split() -> None:
    texts = lambda *a, **k: [h.message.text for h in history(*a, **k)]  # noqa: E731
    assert texts("a", 20) == texts("a", 20) != texts("b", 20)
    assert texts("a", 20) != texts("a", 20, split="validation") and texts("a", 20, seed=1) != texts("a", 20)
