"""Invented lives: statements with what is right about each, and streams with what holds at the end."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from memorist.errors import DataError, RecipeError
from memorist.tasks.lives import KINDS, SPLITS, Life, life_cases, read_subjects, rough, shown, subjects, talk, typo
from memorist.tasks.statements import cases, read_cases
from memorist.tasks.streams import LivesData, stream

FORM = "[pet] many\nv: a dog; a cat\nd: it barks\nask: What do I keep?\nstate: I have {v}."


def test_subjects_have_what_they_need() -> None:
    assert len(subjects()) > 40
    for one in subjects():
        assert len(one.values) >= 4 and one.asks and one.details
        assert "state" in one.forms or "plan" in one.forms
        for kind, templates in one.forms.items():
            for template in templates:
                names = {"{v}", "{o}", "{d}", "{r}"} & set(template.replace("}", "} ").replace("{", " {").split())
                allowed = {"more": {"{d}"}, "other": {"{v}", "{r}"}, "change": {"{v}", "{o}"}, "moved": {"{v}", "{o}"}}
                assert names <= allowed.get(kind, {"{v}"}), template
                assert template.count("{") == template.count("}")


def test_a_line_of_another_form_is_refused() -> None:
    assert read_subjects(FORM)[0].values == ("a dog", "a cat")
    with pytest.raises(DataError, match="line 6"):
        read_subjects(FORM + "\nwhat is this")


def test_cases_are_as_statements_are_held_against_memories() -> None:
    some = list(life_cases(400))
    assert {case.operation for case in some} == {"ADD", "NOOP", "UPDATE", "DELETE"}
    assert any(case.joins for case in some)
    for case in some:
        assert (case.target is None) == (case.operation in ("ADD", "NOOP"))
        assert case.target is None or case.target < len(case.memories)
        assert "{" not in case.statement + "".join(case.memories)
    assert list(life_cases(50)) == some[:50]
    assert list(life_cases(50, seed=1)) != some[:50]


def test_they_can_be_written_down_and_read_again() -> None:
    some = [case for case in life_cases(60) if case.memories and "\n" not in case.statement]
    again = read_cases(shown(some))
    assert [(c.operation, c.target, c.joins, c.memories) for c in again] == [
        (c.operation, c.target, c.joins, c.memories) for c in some
    ]


def test_splits_share_no_values() -> None:
    for subject in subjects():
        sets = []
        for split in SPLITS:
            life = Life(random.Random(0), split=split)
            sets.append(set(life._values(subject)))
        assert sets[0] and sets[1] and not sets[0] & sets[1]


def test_no_case_that_is_developed_or_judged_with_is_told_in_lives() -> None:
    held = {case.statement for name in ("development", "final") for case in cases(name)}
    assert not held & {case.statement for case in islice(life_cases(0), 1500)}


def test_a_life_goes_on_from_what_was() -> None:
    life = Life(random.Random(3), rough=0.0, subjects_=4)
    said = [one for _ in range(300) if (one := life.step(KINDS))]
    assert {one.operation for one in said} == {"ADD", "NOOP", "UPDATE", "DELETE"}
    assert all(len(life._held(f.person, f.subject, f.form)) == 1 for f in life.facts if not f.subject.many)


def test_how_people_type_keeps_most_of_what_they_say() -> None:
    rng = random.Random(0)
    for _ in range(300):
        assert len(rough("I live in Porto.", rng)) > 8 and len(typo("ab", rng)) == 2
    assert len(talk().idle) > 60


def test_a_stream_knows_what_holds() -> None:
    for number in range(20):
        task = stream(f"s{number}", 30)
        ids = [message.id for message in task.messages]
        assert len(ids) == len(set(ids)) == 30 and task.worth <= set(ids)
        for question in task.questions:
            told = {one for group in question.told for one in group}
            assert told | set(question.stale) <= {message.text for message in task.messages}
            assert not told & set(question.stale)
            assert question.evidence and set(question.evidence) <= set(ids)
    assert stream("s0", 30) == stream("s0", 30)


def test_data_is_refused_where_it_cannot_work() -> None:
    with pytest.raises(RecipeError, match="statements is 0"):
        LivesData(statements=0).check()
    with pytest.raises(RecipeError, match="split"):
        LivesData(split="test").check()
    assert len(LivesData(lives=2, statements=5).tasks(0)) == 2
