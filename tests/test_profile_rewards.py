"""Rewards of a listener's edits: the vectors of the specification, and what no edit can earn."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.memory.profile_edits import Edit
from memorist.memory.profile_schema import Schema
from memorist.memory.profile_tree import ProfileTree
from memorist.memory.record import Scope
from memorist.memory.scratch import ScratchBank
from memorist.tasks.profile_rewards import form, graded, state, strict

NAME, JOB, NEW = "Basic.Identity.Name", "Basic.Work.Job", "Path.To.Key"
SOFT, HOBBIES = "Skills.Soft_Skills", "Skills.Interests_and_Hobbies"
EDITS = st.builds(
    Edit,
    st.sampled_from(["ADD", "UPDATE", "DELETE", "NO_OP"]),
    st.sampled_from([NAME, JOB, SOFT]),
    st.sampled_from("ab"),
)


def test_official_one() -> None:
    both = [Edit("ADD", NAME, "Mary"), Edit("UPDATE", JOB, "nurse")]
    assert strict(both, both) == graded(both, both) == 1.0


def test_official_two() -> None:
    right = [Edit("ADD", NEW, "OnlyGT")]
    given = [*right, Edit("ADD", "Path.To.Garbage", "Redundant info")]
    assert strict(right, given) == graded(right, given) == 0.0


def test_official_three() -> None:
    partner = "Family.Partner.Ex"
    right = [
        Edit("ADD", NAME, "Kanoa Manu"),
        Edit("UPDATE", "Goals.Long_Term", "Create a music fusion app"),
        Edit("DELETE", partner),
        Edit("ADD", "Body.Age", "32"),
    ]
    given = [
        Edit("ADD", NAME, "Mr. Kanoa Manu"),
        Edit("ADD", "Goals.Long_Term", "Build an app for music"),
        Edit("DELETE", partner),
    ]
    assert strict(right, given) == 0.0
    assert graded(right, given) == pytest.approx(0.52)


def test_nothing_to_do_and_too_much_done() -> None:
    add, other = Edit("ADD", NAME, "a"), Edit("ADD", JOB, "b")
    nothing = [Edit("NO_OP")]
    assert strict(nothing, nothing) == 1.0 and strict(nothing, [add, other]) == -1.0
    assert strict([add], nothing) == -0.5
    assert strict([add, other], [add, other, Edit("ADD", "X.Y", "z")]) == 0.5


def test_state() -> None:
    tree = ProfileTree(ScratchBank(), Scope("anna"), Schema("small", (SOFT, HOBBIES)))
    tree.apply([Edit("ADD", SOFT, "mentoring")], at=datetime(2025, 1, 1, tzinfo=UTC))
    hobby = Edit("ADD", HOBBIES, "weekly chess")
    right = [Edit("UPDATE", SOFT, "mentoring and public speaking"), hobby]
    assert state(tree, right, [Edit("UPDATE", SOFT, "public speaking"), hobby]) == pytest.approx(2 / 3)
    assert state(tree, right, [Edit("NO_OP")]) == pytest.approx(-0.6)
    assert state(tree, right, [Edit("ADD", SOFT, "mentoring and public speaking"), hobby]) == 1.0
    assert state(tree, [], []) == 1.0 and tree.leaves() == {SOFT: "mentoring"}


def test_form() -> None:
    assert form("NO_OP()") == 1 and form("") == form("hello") == -1
    assert form("NO_OP()\nhello\nworld\nDELETE(A)") == 0


@given(st.lists(EDITS, max_size=5), st.lists(EDITS, max_size=5))
def test_nothing_is_above_what_is_right(right: list[Edit], found: list[Edit]) -> None:
    for reward in (strict, graded):
        assert -1 <= reward(right, found) <= 1
    wanted = [edit for edit in right if edit.kind != "NO_OP"]
    if len({edit.path for edit in wanted}) == len(wanted):
        assert strict(right, right) == 1 and graded(right, right) == pytest.approx(1)
