"""Whatever a Manager writes becomes operations with result codes; nothing that it writes raises."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorist.agents.components.operations import read_json, read_operations
from memorist.agents.memory_r1 import MemoryR1, Outcome
from memorist.conversation import Message
from memorist.decision import Observation
from memorist.memory.record import Code, Operation, Result, Scope
from memorist.memory.scratch import ScratchBank
from memorist.memory.sqlite import SQLiteBank
from memorist.models.scripted import ScriptedSampler
from memorist.tasks.dialogue import DialogueTask
from memorist.tasks.locomo import Question
from memorist.training.rollout import Run, Seat, play

AT = datetime(2023, 5, 8)
ANNA = Scope("anna")


def kennel() -> ScratchBank:
    """The bank of the vectors: m7 and m9, shown as 0 and 1."""
    names = iter(["m7", "m9"])
    bank = ScratchBank(ids=lambda commit, index: next(names, f"new{commit}.{index}"))
    texts = ["Andrew adopted a dog named Buddy", "Andrew enjoys walks with Buddy"]
    bank.apply([Operation("ADD", text) for text in texts], ANNA, at=AT)
    return bank


def applied(text: str, bank: ScratchBank | None = None) -> tuple[list[Result], ScratchBank, bool]:
    bank = bank or kennel()
    read = read_operations(text, bank.list(ANNA))
    return bank.apply(read.operations, ANNA, at=AT), bank, read.well_formed


def codes(text: str) -> list[Code]:
    return [result.code for result in applied(text)[0]]


class TestForm:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "   \n",
            "I would add nothing.",
            "{",
            "[",
            '{"memory": [{"event": "ADD", "text": "a"}, {"event"',
            "null",
            "5",
            "true",
            '"ADD"',
            "[1, 2]",
            '["ADD"]',
            '{"memory": "x"}',
            '{"memory": null}',
            '{"memory": {"event": "ADD"}}',
            '{"memory": [1]}',
            '{"operations": "x"}',
            '{"operations": [{"op": "ADD"}]}',
            "{}",
            "<json>",
        ],
    )
    def test_what_is_not_a_list_of_operations_is_malformed_and_changes_nothing(self, text: str) -> None:
        results, bank, well_formed = applied(text)
        assert not well_formed and not results and bank.commit == 1

    @pytest.mark.parametrize(
        "text",
        [
            '[{"event": "ADD", "text": "Andrew sings"}]',
            '{"memory": [{"event": "ADD", "text": "Andrew sings"}]}',
            '{"event": "ADD", "text": "Andrew sings"}',
            '```json\n[{"event": "ADD", "text": "Andrew sings"}]\n```',
            'Let me see. {"memory": [{"event": " add ", "text": " Andrew sings "}]}',
            'As memory [0] says {so}: [{"event": "ADD", "text": "Andrew sings"}]',
            '[{"event": "ADD", "text": "Andrew sings"}] and that is [all] {there is}.',
            '[{"id": "0", "event": "ADD", "text": "Andrew sings", "old_memory": "x", "more": {"a": [1]}}]',
        ],
    )
    def test_fences_prose_and_both_shapes_are_read(self, text: str) -> None:
        results, bank, well_formed = applied(text)
        assert well_formed and [r.code for r in results] == [Code.APPLIED]
        assert bank.list(ANNA)[-1].text == "Andrew sings"
        assert bank.list(ANNA)[-1].id not in ("m7", "m9")

    def test_an_empty_list_is_well_formed_and_does_nothing(self) -> None:
        assert applied("[]")[2] and applied('{"memory": []}')[2]
        assert codes("[]") == []

    @pytest.mark.parametrize("event", ["NONE", "none", "NOOP", "NO-OP"])
    def test_nothing_to_do_has_several_spellings(self, event: str) -> None:
        assert codes(json.dumps([{"event": event}])) == [Code.UNCHANGED]

    @pytest.mark.parametrize("event", ["null", "5", "true", "[]", '["ADD"]', '{"ADD": 1}', '""', '"MERGE"'])
    def test_an_event_of_the_wrong_type_or_name_is_refused(self, event: str) -> None:
        assert codes(f'[{{"event": {event}, "id": "0", "text": "x"}}]') == [Code.UNKNOWN_KIND]

    def test_a_missing_event_is_refused(self) -> None:
        assert codes('[{"id": "0", "text": "x"}]') == [Code.UNKNOWN_KIND]

    @pytest.mark.parametrize("text", ["null", "5", "[]", '["a"]', '{"a": 1}', '""', '"  "', '"\\u0000"', '"\\ud800"'])
    def test_a_text_that_says_nothing_is_refused(self, text: str) -> None:
        assert codes(f'[{{"event": "ADD", "text": {text}}}]') == [Code.EMPTY_TEXT]

    def test_ten_megabytes_are_malformed_at_once(self) -> None:
        for text in ("[" * 10_000_000, '{"event": "ADD", "text": "' + "a" * 10_000_000 + '"}', " " * 10_000_000):
            assert not applied(text)[2]

    @pytest.mark.parametrize("opening", ["[", '{"a":', '{"memory":[{"event":'])
    def test_ten_thousand_levels_are_malformed(self, opening: str) -> None:
        assert not applied(opening * 10_000)[2]
        assert read_json(opening * 10_000) is None

    def test_depth_within_an_operation_never_raises(self) -> None:
        for depth in (10, 100, 500, 900, 990, 1000, 5000):
            deep = "[" * depth + "]" * depth
            for field in ("event", "id", "text", "more"):
                for code in codes(f'[{{"event": "ADD", "{field}": {deep}}}]'):
                    assert not code.accepted or field in ("id", "more")


class TestIds:
    @pytest.mark.parametrize("given", ['"1"', "1", '" 1 "', '"01"'])
    def test_a_shown_number_names_its_memory(self, given: str) -> None:
        results, bank, _ = applied(f'[{{"event": "DELETE", "id": {given}}}]')
        assert [r.code for r in results] == [Code.APPLIED]
        assert [r.id for r in bank.list(ANNA)] == ["m7"]

    @pytest.mark.parametrize(
        "given",
        ['"5"', "5", "-1", '"-1"', "1.0", "true", "null", "[1]", '{"a": 1}', '""', '"x"', '"¹"', '"１"', "9" * 4000],
    )
    def test_any_other_is_unknown(self, given: str) -> None:
        for event in ("UPDATE", "DELETE"):
            assert codes(f'[{{"event": "{event}", "id": {given}, "text": "x"}}]') == [Code.UNKNOWN_ID]

    def test_a_record_that_was_not_shown_cannot_be_named_by_its_real_id(self) -> None:
        bank = kennel()
        secret = bank.apply([Operation("ADD", "not shown")], ANNA, at=AT)[0].record
        assert secret is not None
        for record_id in (secret.id, f" {secret.id}", "m7"):
            reply = json.dumps([{"event": "DELETE", "id": record_id}])
            read = read_operations(reply, bank.list(ANNA)[:1])
            assert [r.code for r in bank.apply(read.operations, ANNA, at=AT)] == [Code.UNKNOWN_ID]
        assert len(bank.list(ANNA)) == 3

    def test_nul_and_surrogates_in_every_field_reach_a_durable_bank_unharmed(self, tmp_path: Path) -> None:
        with SQLiteBank(tmp_path / "bank.db") as bank:
            bank.apply([Operation("ADD", "first")], ANNA, at=AT)
            reply = json.dumps(
                [
                    {"event": "ADD", "text": "a\0b\ud800c"},
                    {"event": "DELETE", "id": "\ud800"},
                    {"event": "UPDATE", "id": "\0", "text": "x"},
                    {"event": "\ud800\0", "text": "x"},
                ]
            )
            found = bank.apply(read_operations(reply, bank.list(ANNA)).operations, ANNA, at=AT)
            expected = [Code.APPLIED, Code.UNKNOWN_ID, Code.UNKNOWN_ID, Code.UNKNOWN_KIND]
            assert [r.code for r in found] == expected
            assert [r.text for r in bank.list(ANNA)] == ["first", "abc"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KINDS = st.sampled_from(["ADD", "UPDATE", "DELETE", "NONE", "add", "DEL"])
NEARLY = st.lists(
    st.dictionaries(st.sampled_from(["event", "id", "text", "x"]), VALUES | KINDS | st.sampled_from(["0", 1, "m7"])),
    max_size=4,
)
REPLIES = (
    st.text(max_size=60)
    | VALUES.map(json.dumps)
    | NEARLY.map(json.dumps)
    | NEARLY.map(lambda ops: json.dumps({"memory": ops}))
    | st.text(alphabet='[]{}":,0 ADetnvx\\', max_size=60)
)


@settings(deadline=None)
@given(REPLIES)
def test_any_reply_becomes_codes(text: str) -> None:
    results, bank, well_formed = applied(text)
    assert all(isinstance(result.code, Code) for result in results)
    assert well_formed or not results
    changed = sum(result.code is Code.APPLIED for result in results)
    assert len(bank.changes(ANNA)) == 2 + changed
    assert all(record.text.strip() for record in bank.list(ANNA))


@settings(deadline=None)
@given(NEARLY)
def test_only_shown_memories_are_ever_touched(operations: list[dict[str, object]]) -> None:
    bank = kennel()
    read = read_operations(json.dumps(operations), bank.list(ANNA)[:1])
    bank.apply(read.operations, ANNA, at=AT)
    untouched = bank.get("m9", ANNA)
    assert untouched is not None and untouched.text == "Andrew enjoys walks with Buddy"


# Vectors T6 of the specification: Memory-R1 with a scripted Manager, and an Answer Agent that counts dogs.


@dataclass(frozen=True)
class Names:
    known: tuple[str, ...] = ("Buddy", "Scout")

    def __call__(self, observation: Observation) -> str:
        memories = observation.prompt.split("Question:")[0]
        count = sum(name in memories for name in self.known)
        return f"**Answer:** {['none', 'one', 'two'][count]}"


def visit(reply: str, questions: tuple[Question, ...] = (Question("How many dogs has Andrew?", "two", 4, ()),)) -> Run:
    bank = kennel()
    message = Message("anna", "…", "D1:1", datetime(2023, 6, 1), statements=("Andrew adopted another dog, Scout",))
    task = DialogueTask("kennel", ("anna",), (message,), questions, bank)
    seats = {"manager": Seat(ScriptedSampler([reply])), "answerer": Seat(ScriptedSampler(Names()))}
    return play(lambda **given: MemoryR1(**given, style="full"), [task], seats)[0][0]


def test_t6a_an_update_replaces_the_text_and_keeps_the_old_one_in_the_history() -> None:
    new = "Andrew adopted two dogs, Buddy and Scout"
    run = visit(json.dumps({"memory": [{"id": "0", "event": "UPDATE", "text": new, "old_memory": "…"}]}))
    assert {r.id: r.text for r in run.bank.list(ANNA)} == {"m7": new, "m9": "Andrew enjoys walks with Buddy"}
    changes = run.bank.history("m7", ANNA)
    assert len(changes) == 2  # what it was born with, and one update
    assert changes[1].before is not None and changes[1].before.text == "Andrew adopted a dog named Buddy"
    assert run.bank.list(ANNA)[0].source == ("D1:1",)
    assert run.bank.list(ANNA)[0].updated == datetime(2023, 6, 1)
    assert run.reward == 1.0


def test_t6b_delete_and_add_loses_what_the_old_memories_said() -> None:
    operations = [
        {"id": "0", "event": "DELETE"},
        {"id": "1", "event": "DELETE"},
        {"id": "0", "event": "ADD", "text": "Andrew adopted Scout"},
    ]
    run = visit(json.dumps({"memory": operations}))
    records = run.bank.list(ANNA)
    assert [r.text for r in records] == ["Andrew adopted Scout"]
    assert records[0].id not in ("m7", "m9", "0")
    assert run.reward == 0.0


def test_t6c_an_unknown_id_is_counted_and_the_rest_applies() -> None:
    operations = [
        {"id": "5", "event": "UPDATE", "text": "Andrew sings"},
        {"id": "1", "event": "DELETE"},
        {"id": "1", "event": "DELETE"},
    ]
    run = visit(json.dumps(operations))
    assert [r.code for r in run.outcome.results[0]] == [Code.UNKNOWN_ID, Code.APPLIED, Code.UNKNOWN_ID]
    assert [r.id for r in run.bank.list(ANNA)] == ["m7"]


def test_t6d_adding_nothing_is_refused() -> None:
    run = visit('[{"event": "ADD", "text": " "}, {"event": "ADD", "text": "Andrew sings"}]')
    assert [r.code for r in run.outcome.results[0]] == [Code.EMPTY_TEXT, Code.APPLIED]


@pytest.mark.parametrize("reply", ["I think I should add it.", "", "[1]", "[" * 10_000])
def test_t6e_what_is_no_json_changes_nothing_and_earns_nothing(reply: str) -> None:
    one = (Question("How many dogs has Andrew?", "one", 4, ()),)
    run = visit(reply, one)
    assert [[r.code for r in results] for results in run.outcome.results] == [[Code.MALFORMED]]
    assert run.bank.commit == 1 and len(run.bank.list(ANNA)) == 2
    assert run.outcome.answers[0].text == "one"  # right, and yet:
    assert run.reward == 0.0
    assert visit('[{"event": "NONE"}]', one).reward == 1.0


def test_t6f_several_questions_earn_their_mean() -> None:
    asked = tuple(Question("How many dogs?", gold, 4, ()) for gold in ("two", "three", "two"))
    add = '[{"event": "ADD", "text": "Andrew adopted Scout"}]'
    assert visit(add, asked).reward == pytest.approx(0.666667, abs=1e-6)


def test_the_same_agent_serves_people() -> None:
    """No recorder, no task: the agent is an ordinary program."""

    async def serve() -> Outcome:
        bank = kennel()
        manager, answerer = ScriptedSampler(['[{"event": "NONE"}]']), ScriptedSampler(Names())
        agent = MemoryR1(bank=bank, manager=Direct(manager), answerer=Direct(answerer), style="full")
        message = Message("anna", "hm", "D1:1", AT, statements=("Andrew hums",))
        results = tuple([r async for r in agent.observe([message])])
        return Outcome(results, (await agent.answer("How many dogs?", [ANNA]),))

    outcome = asyncio.run(serve())
    assert [r.code for r in outcome.results[0]] == [Code.UNCHANGED]
    assert outcome.answers[0].text == "one"


@dataclass(frozen=True)
class Direct:
    """An actor straight on a sampler."""

    sampler: ScriptedSampler

    async def act(self, observation: Observation):  # type: ignore[no-untyped-def]
        from memorist.decision import Distribution
        from memorist.models.sampler import Request

        return self.sampler.sample([Request(observation, Distribution(), 0)])[0]
