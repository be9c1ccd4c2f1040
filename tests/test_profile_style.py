"""Leaves that say how somebody likes to be answered: written as sentences, read as settings."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from memorist.memory.profile_edits import Edit
from memorist.memory.profile_schema import persona_schema
from memorist.memory.profile_style import DEPTHS, JOKES, LEAVES, LENGTH, REGISTER, SUPPORTED, Style
from memorist.memory.profile_tree import ProfileTree
from memorist.memory.record import Scope
from memorist.memory.scratch import ScratchBank

WORDS = st.from_regex(r"[a-z]{1,8}( [a-z]{1,8}){0,2}", fullmatch=True)
STYLES = st.builds(
    Style,
    st.none() | st.integers(0, 100).map(lambda n: n / 100),
    st.none() | st.integers(0, 9999),
    st.none() | st.integers(0, 9999),
    st.sampled_from(["", *SUPPORTED]),
    st.sampled_from([None, True, False]),
    st.dictionaries(WORDS, st.sampled_from(list(DEPTHS)), max_size=3),
    st.dictionaries(WORDS, WORDS, max_size=3),
)


def test_its_leaves_are_those_of_the_released_schema() -> None:
    assert set(LEAVES) <= persona_schema().known and len(set(LEAVES)) == 6


@given(STYLES)
def test_what_is_written_is_read_again(style: Style) -> None:
    assert Style.of(style.leaves()) == style


def test_it_survives_the_tree_that_keeps_it() -> None:
    tree = ProfileTree(ScratchBank(), Scope("anna"))
    style = Style(0.27, 12, 40, "space", False, {"machine learning": "deep"}, {"the usual place": "blue door cafe"})
    edits = [Edit("ADD", path, text) for path, text in style.leaves().items()]
    assert all(not one.code.rejected for one in tree.apply(edits, at=datetime(2025, 1, 1, tzinfo=UTC)))
    assert Style.of(tree.leaves()) == style


def test_what_others_wrote_there_is_passed_over() -> None:
    assert Style.of({REGISTER: "a bit shy", LENGTH: "hates walls of text", JOKES: "dry wit"}) == Style()
    assert Style.of({JOKES: "likes jokes, above all bad ones"}) == Style(jokes=True)
