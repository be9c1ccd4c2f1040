"""Hand-written statements and what a memory should do about them."""

from __future__ import annotations

from collections import Counter

import pytest

from memorist.errors import DataError, RecipeError
from memorist.tasks.statements import SETS, cases, read_cases


def test_the_short_form_is_read() -> None:
    one, two, three, four, five = read_cases("# plans\n= I ski. ;; I sing.\nA x y\nN hm\n\nU1 I dance.\nJ0 well\nD1 no")
    assert one.kind == "plans" and one.memories == ("I ski.", "I sing.") and one.statement == "x y"
    assert [c.operation for c in (one, two, three, four, five)] == ["ADD", "NOOP", "UPDATE", "UPDATE", "DELETE"]
    assert [c.target for c in (one, two, three, four, five)] == [None, None, 1, 0, 1]
    assert [c.joins for c in (three, four)] == [False, True]


@pytest.mark.parametrize(
    ("line", "message"), [("X what", "is no case"), ("U2 what", "expected 0 to 1"), ("A", "is no case")]
)
def test_what_has_another_form_is_named_with_its_line(line: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as told:
        read_cases(f"= a ;; b\n{line}", "mine.txt")
    assert "mine.txt" in str(told.value) and "line 2" in str(told.value)


def test_the_sets_are_large_varied_and_share_nothing() -> None:
    found = {name: cases(name) for name in SETS}
    assert len(found["development"]) + len(found["final"]) >= 150 and len(found["training"]) >= 1000
    said = [case.statement for name in SETS for case in found[name]]
    # "lol" and the like may come twice; hardly anything else does.
    assert len(set(said)) > 0.99 * len(said)
    assert not {c.statement for c in found["final"]} & {c.statement for c in found["training"] + found["development"]}
    for name in SETS:
        counts = Counter(case.operation for case in found[name])
        assert min(counts.values()) >= 7 and set(counts) == {"ADD", "NOOP", "UPDATE", "DELETE"}
    kinds = {name: {case.kind for case in found[name]} for name in ("development", "final")}
    assert kinds["development"] == kinds["final"] and len(kinds["final"]) >= 11
    with pytest.raises(RecipeError, match="cases"):
        cases("finale")
