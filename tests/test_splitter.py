"""From messages to statements, without a model."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.agents.components.splitter import LONGEST, MOST, splitter, splitter_named, statements_in
from memorist.conversation import Message


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("I live in Porto. Do you like it?", ["I live in Porto."]),
        ("btw I quit smoking, I feel great", ["I quit smoking", "I feel great"]),
        ("Oh wow, thanks! I moved to Porto, and my sister helped me.", ["I moved to Porto", "My sister helped me."]),
        ("My little brother and I live together.", ["My little brother and I live together."]),
        ("If it rains, I stay in.", ["If it rains, I stay in."]),
        ("Milk, eggs and bread are in the fridge.", ["Milk, eggs and bread are in the fridge."]),
        ("My son plays handball; my daughter swims.", ["My son plays handball", "My daughter swims."]),
        ("Hey! Good morning! That sounds great.", []),
        ("ok", []),
        ("", []),
        ("- I have a dog\n- I have a cat", ["- I have a dog", "- I have a cat"]),
    ],
)
def test_statements_are_found(said: str, found: list[str]) -> None:
    assert statements_in(said) == found


def test_a_speaker_can_be_named() -> None:
    message = Message("Ada", "I moved to Porto and my sister helped me. The weather is fine here.")
    assert asyncio.run(splitter(message))[0] == "I moved to Porto"
    told = asyncio.run(splitter_named(message))
    assert told == ["Ada moved to Porto", "Ada's sister helped them.", "Ada: The weather is fine here."]


def test_a_megabyte_gives_statements_of_bounded_number_and_length() -> None:
    found = statements_in("my dog ate " * 100_000)
    assert len(found) == MOST and all(len(one) <= LONGEST for one in found)


@given(st.text(max_size=300))
def test_any_text_can_be_split(text: str) -> None:
    for one in statements_in(text):
        assert one and not one.endswith("?")
