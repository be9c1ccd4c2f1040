"""What lexical search counts as the words of a text: nothing that people write is silently missed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.memory.words import asked, words


@pytest.mark.parametrize(
    ("said", "looked_for"),
    [
        ("Anna lives in Zürich", "ZURICH"),
        ("Anna lives in Zu\u0308rich", "Zürich"),
        ("le café de José", "cafe jose"),
        ("Он живёт в Москве", "москве живет"),
        ("她住在北京市", "北京"),
        ("她住在北京市", "京市"),
        ("東京に住んでいます", "東京"),
        ("ﾄｳｷｮｳ", "トウキョウ"),
        ("ผมอยู่กรุงเทพ", "กรุงเทพ"),
        ("저는 서울에 살아요", "살아요"),
        ("वह हिन्दी पढ़ती है", "हिन्दी"),
        ("مرحبا بالعالم", "بالعالم"),
        ("she drives buses", "driving bus"),
        ("straße", "STRASSE"),
        ("the ﬁrst", "first"),
        ("snake_case 42", "snake_case 42"),
        ("Łódź", "lodz"),
        ("Smørrebrød", "smorrebrod"),
        ("كَتَبَ", "كتب"),
        ("القاهرة", "القاهره"),
        ("שָׁלוֹם", "שלום"),
        ("我养了一只猫在家", "猫"),
    ],
)  # fmt: skip
def test_found(said: str, looked_for: str) -> None:
    assert set(asked(looked_for)) <= set(words(said))


def test_one_letter_of_a_script_without_spaces() -> None:
    assert words("猫") == ["猫"]
    assert words("A猫B") == ["a", "猫", "b"]
    assert words("北京市") == ["北京", "京市", "北", "京", "市"] and asked("北京市") == ["北京", "京市"]


def test_function_words_are_not_looked_for_unless_there_is_nothing_else() -> None:
    assert asked("Where does she live?") == ["liv"]
    assert asked("who are you") == ["who", "are", "you"]
    assert asked("?!") == []


def test_marks_belong_to_their_letters() -> None:
    assert words("हिन्दी") == ["हिन्दी"]
    assert words("か\u3099") == words("が") != words("か")


@given(st.text())
def test_any_text_has_words_without_spaces(text: str) -> None:
    found = words(text)
    assert all(word and not any(c.isspace() for c in word) for word in found)
    assert set(asked(text)) <= set(found)


@given(st.text())
def test_forms_of_one_text_have_the_same_words(text: str) -> None:
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))


@given(st.text(st.characters(categories=["Lu", "Ll"])))
def test_case_does_not_matter(text: str) -> None:
    if text.upper().casefold() == text.casefold():
        assert words(text.upper()) == words(text)
