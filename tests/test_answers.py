"""Reading answers and the memories that they name out of replies, in both styles."""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorist.agents.components.answers import Answer, read_compact, read_full
from memorist.memory.record import MemoryRecord, Scope

AT = datetime(2023, 5, 8)


def record(number: int, text: str) -> MemoryRecord:
    return MemoryRecord(f"m{number}", Scope("anna"), text, AT, AT)


SHOWN = [
    record(0, "Anna adopted a dog named Buddy."),
    record(1, "Anna lives in Rome"),
    record(2, "Ben likes tea"),
]


def used(answer: Answer) -> list[str]:
    return [r.id for r in answer.used]


class TestCompact:
    def test_answer_and_memories_are_read(self) -> None:
        answer = read_compact('{"memories":["2","0"],"answer":" Rome "}', SHOWN)
        assert (answer.text, used(answer), answer.invented) == ("Rome", ["m2", "m0"], 0)
        assert answer.well_formed and answer.candidates == tuple(SHOWN) and answer.shown == "Rome"

    @pytest.mark.parametrize(
        ("named", "ids", "invented"),
        [
            ('["0", "0", 0]', ["m0"], 0),
            ('["3", "1"]', ["m1"], 1),
            ('["m0", "-1", 1.0, null, true, [0], {"0": 0}, "٣"]', [], 8),
            ('"0"', [], 0),
            ("null", [], 0),
            ("{}", [], 0),
        ],
    )
    def test_only_shown_numbers_count_and_repeating_is_not_inventing(
        self, named: str, ids: list[str], invented: int
    ) -> None:
        answer = read_compact(f'{{"memories": {named}, "answer": "x"}}', SHOWN)
        assert (used(answer), answer.invented, answer.text) == (ids, invented, "x")

    def test_numbers_are_answers_too(self) -> None:
        assert read_compact('{"answer": 2022}', SHOWN).text == "2022"

    @pytest.mark.parametrize("reply", ["Rome", '{"answer": null}', '{"answer": ["Rome"]}', "[]", '{"memories": []}'])
    def test_a_reply_without_an_answer_earns_nothing_but_is_shown_to_people(self, reply: str) -> None:
        answer = read_compact("Hm.\n" + reply, SHOWN)
        assert answer.text == "" and not answer.well_formed
        assert answer.fallback == reply and answer.shown == reply


class TestFull:
    REPLY = """Memories selected as relevant
- 8 May 2023: Anna adopted a dog named Buddy.
* anna lives in  ROME!
- 8 May 2023: Anna adopted a cat.
1. Anna lives in Rome

**Answer:** **"Rome"**
I hope that helps."""

    def test_the_marked_answer_and_the_copied_memories_are_read(self) -> None:
        answer = read_full(self.REPLY, SHOWN)
        assert answer.text == "Rome" and answer.well_formed
        assert used(answer) == ["m0", "m1"]

    def test_bullets_that_match_no_memory_are_counted(self) -> None:
        assert read_full(self.REPLY, SHOWN).invented == 1
        assert read_full("- a\n- b\n**Answer:** c", SHOWN).invented == 2

    def test_the_last_marker_wins(self) -> None:
        assert read_full("**Answer:** Oslo\nNo.\n**Answer:** Rome", SHOWN).text == "Rome"

    @pytest.mark.parametrize(
        "marker",
        [
            "**Answer:**",
            "**Answer**:",
            "Answer:",
            "answer :",
            "**ANSWER**: ",
            "** Answer:** ",
            "*Answer:*",
            "Answer:\n\n",
        ],
    )
    def test_markers_are_read_leniently(self, marker: str) -> None:
        answer = read_full(f"- Anna lives in Rome\n{marker} Rome", SHOWN)
        assert (answer.text, used(answer), answer.invented) == ("Rome", ["m1"], 0)

    def test_without_a_marker_nothing_is_earned_and_people_see_the_last_line(self) -> None:
        answer = read_full("Memories selected as relevant\n- Anna lives in Rome\nIt is Rome\n\n", SHOWN)
        assert answer.text == "" and not answer.well_formed
        assert answer.shown == "It is Rome"

    def test_an_empty_answer_stays_empty(self) -> None:
        assert read_full("**Answer:**", SHOWN).text == ""
        assert read_full("**Answer:** **", SHOWN).text == ""


@pytest.mark.parametrize("read", [read_compact, read_full])
@pytest.mark.parametrize(
    "reply",
    [
        " " * 200_000,
        "answer" + " " * 190_000,
        "answer" * 30_000,
        "*" * 200_000,
        "- a\n" * 50_000 + "Answer: x",
        "[" * 200_000,
        "a" * 10_000_000,
        "\n" * 10_000_000,
        '{"answer": "x", "memories": ' + "[" * 900 + "]" * 900 + "}",
    ],
    ids=["blanks", "marker-and-blanks", "markers", "stars", "bullets", "brackets", "10MB", "10MB-lines", "deep"],
)
def test_monstrous_replies_are_read_quickly(read, reply: str) -> None:  # type: ignore[no-untyped-def]
    began = time.monotonic()
    assert isinstance(read(reply, SHOWN), Answer)
    assert time.monotonic() - began < 5


@settings(deadline=None)
@given(st.text(max_size=80) | st.text(alphabet='*- answer:\n"{}[]0,memoris', max_size=80))
def test_no_reply_raises_and_nothing_unmarked_earns(reply: str) -> None:
    for read in (read_compact, read_full):
        answer = read(reply, SHOWN)
        assert set(used(answer)) <= {"m0", "m1", "m2"} and answer.invented >= 0
        assert answer.well_formed or answer.text == ""
        assert "\0" not in answer.text
        answer.text.encode()


@given(st.text(max_size=40), st.lists(st.integers(0, 5), max_size=6))
def test_what_compact_writes_it_reads(text: str, numbers: list[int]) -> None:
    answer = read_compact(json.dumps({"memories": [str(n) for n in numbers], "answer": text}), SHOWN)
    assert answer.text == text.replace("\0", "").strip()
    assert used(answer) == [f"m{n}" for n in dict.fromkeys(numbers) if n < 3]
    assert answer.invented == sum(n >= 3 for n in numbers)
