"""Notes in the third person: cases that say what is right about each."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from memorist.errors import RecipeError
from memorist.tasks.observed import observed_cases, things


def test_cases_are_the_same_every_time_and_of_all_kinds() -> None:
    some = list(observed_cases(400, seed=3))
    assert some == list(observed_cases(400, seed=3)) and some != list(observed_cases(400, seed=4))
    counts = {kind: sum(case.operation == kind for case in some) for kind in ("ADD", "NOOP", "UPDATE")}
    assert counts["ADD"] > counts["NOOP"] > counts["UPDATE"] > 0 and sum(counts.values()) == 400


def test_what_is_new_is_not_held_and_what_is_known_or_joined_is() -> None:
    for case in islice(observed_cases(split="validation"), 500):
        assert not re.search(r"[{}]", case.statement + "".join(case.memories))
        assert (case.target is not None) == (case.operation == "UPDATE") == case.joins
        assert case.statement not in case.memories or case.operation == "NOOP"
        if case.operation == "NOOP":
            assert case.memories
        if case.target is not None:
            assert case.memories[case.target].split()[0] == case.statement.split()[0]


def test_splits_share_no_thing() -> None:
    assert len(things()) > 80 and all(len(one.wordings) >= 2 for one in things())
    with pytest.raises(RecipeError, match="split"):
        next(observed_cases(split="other"))
