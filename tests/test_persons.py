"""What people say of themselves, told of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.persons import HE, SHE, Person, third_person, told_of

ADA, SISTER = Person("Ada", *SHE), Person("my sister", *SHE)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("I live in Porto.", "Ada lives in Porto."),
        ("We've left Leeds and settled in Porto.", "Ada has left Leeds and settled in Porto."),
        ("I don't eat meat any more, my doctor forbade me.", "Ada doesn't eat meat any more, her doctor forbade her."),
        ("I no longer work there.", "Ada no longer works there."),
        ("I'm a nurse and I still try to read.", "Ada is a nurse and she still tries to read."),
        ("Nothing beats sushi for me.", "Nothing beats sushi for Ada."),
        ("My brother and I live together.", "Ada's brother and she live together."),
        ("I wish I were a nurse.", "Ada wishes she were a nurse."),
        ("We were there.", "Ada was there."),
        ("I'd better go, I'd love to.", "Ada had better go, she would love to."),
        ("Where do I live?", "Where does Ada live?"),
        ("Am I allergic?", "Is Ada allergic?"),
        ("What can't I stand?", "What can't Ada stand?"),
        ("In May I start at Ikea.", "In May Ada starts at Ikea."),
        ("The bike is mine.", "The bike is Ada's."),
        ("I can swim.", "Ada can swim."),
        ("It rains.", "It rains."),
        ("I’ve got a dog", "Ada has got a dog"),
        ("", ""),
    ],
)
def test_pronouns_and_the_verb_after_i_change_and_nothing_else(said: str, told: str) -> None:
    assert told_of(said, ADA) == told


def test_it_can_be_told_of_somebody_without_a_name() -> None:
    assert told_of("I drive a Mini.", SISTER) == "My sister drives a Mini."
    assert told_of("I hurt myself.", Person("Gus", *HE)) == "Gus hurt himself."
    assert told_of("I know myself, it's my way.", Person("Gus")) == "Gus knows themselves, it's their way."


@pytest.mark.parametrize(("verb", "third"), [("go", "goes"), ("try", "tries"), ("play", "plays"), ("have", "has")])
def test_third_person(verb: str, third: str) -> None:
    assert third_person(verb) == third


@given(st.text(max_size=200))
def test_any_text_can_be_told(text: str) -> None:
    assert isinstance(told_of(text, ADA), str)


@given(
    st.lists(st.sampled_from(["i", "I", "we", "my", "and", "me", "am", "don't", "work", "may", "'", ","]), max_size=9)
)
def test_nobody_speaks_of_themselves_afterwards(parts: list[str]) -> None:
    told = told_of(" ".join(parts), ADA)
    assert not {"i", "we", "my", "me"} & set(told.lower().replace(",", " ").split())
