"""RMM: topics are merged and lose nothing, citations become rewards of their own draws, and odd replies are
survived."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.agents.components.rerankers import Keep, Learned
from memorist.agents.components.retrievers import Nearest
from memorist.agents.composed import Composed
from memorist.agents.rmm import Citing, Merging, Topics, read_citations, read_merge, read_topics
from memorist.conversation import Message
from memorist.decision import Action, Observation
from memorist.memory.embed import HashedEmbedder
from memorist.memory.record import Code, Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.models.reranker import LinearReranker
from memorist.models.scripted import ScriptedSampler
from memorist.tasks.dialogue import DialogueTask
from memorist.tasks.locomo import Question
from memorist.tasks.rewards import oracle
from memorist.training.rollout import Run, Seat, play

MAY, JUNE = datetime(2023, 5, 1), datetime(2023, 6, 1)
FIRST = (
    Message("Anna", "I play the cello.", "D1:1", MAY),
    Message("Ben", "I have a dog called Rex.", "D1:2", MAY),
    Message("Anna", "We had rain.", "D1:3", MAY),
)
SECOND = (Message("Anna", "I bought a new cello.", "D2:1", JUNE),)


class Says:
    """An actor that replies by a function, and remembers what it was asked."""

    def __init__(self, write: Callable[[Observation], str]) -> None:
        self.write, self.asked = write, list[Observation]()

    async def act(self, observation: Observation) -> Action:
        self.asked.append(observation)
        return Action(self.write(observation))


def topics(observation: Observation) -> str:
    """What Anna says of her cello, what Ben says of his dog."""
    lines = observation.prompt.split("\n")
    word = "cello" if "about Anna" in observation.system else "dog"
    found = [int(line.split(".")[0]) for line in lines if word in line]
    whole = [{"summary": f"Has a {word}", "reference": found}] if found else []
    return json.dumps({"extracted_memories": whole}) if whole else "NO_TRAIT"


def agent(bank: ScratchBank, *, update: str = "Merge(0, Plays the cello and has a new one)", reply: str = "Rex [0]"):  # type: ignore[no-untyped-def]
    updater, answerer = Says(lambda o: update), Says(lambda o: reply)
    made = Composed(
        bank=bank, extractor=Topics(Says(topics)), updater=Merging(updater), retriever=Nearest(), reranker=Keep(),
        answerer=Citing(answerer),
    )  # fmt: skip
    return made, updater, answerer


def observe(made: Composed, messages: tuple[Message, ...]):  # type: ignore[no-untyped-def]
    async def run():  # type: ignore[no-untyped-def]
        return [results async for results in made.observe(messages)]

    return asyncio.run(run())


class TestProspectiveReflection:
    def test_each_person_has_topics_with_their_turns(self) -> None:
        bank = ScratchBank()
        observe(agent(bank)[0], FIRST)
        [cello], [dog] = bank.list(Scope("Anna")), bank.list(Scope("Ben"))
        assert (cello.text, cello.source, cello.payload["turns"]) == (
            "Has a cello",
            ("D1:1",),
            ["Anna: I play the cello."],
        )
        assert (dog.text, dog.source) == ("Has a dog", ("D1:2",))

    def test_a_merge_keeps_the_record_and_all_turns(self) -> None:
        bank = ScratchBank()
        made, updater, _ = agent(bank)
        observe(made, (*FIRST, *SECOND))
        [cello] = bank.list(Scope("Anna"))
        assert cello.text == "Plays the cello and has a new one"
        assert cello.source == ("D1:1", "D2:1")
        assert cello.payload["turns"] == ["Anna: I play the cello.", "Anna: I bought a new cello."]
        assert str(bank.history(cello.id, Scope("Anna"))[0].after).count("Has a cello") == 1
        assert len(updater.asked) == 1  # nothing was like the first ones

    @pytest.mark.parametrize("update", ["Add()", "Merge(9, x)", "Merge(0, )", "", "I would merge them"])
    def test_what_is_no_merge_adds(self, update: str) -> None:
        bank = ScratchBank()
        observe(agent(bank, update=update)[0], (*FIRST, *SECOND))
        assert len(bank.list(Scope("Anna"))) == 2

    def test_a_session_of_which_nothing_can_be_read_is_a_result(self) -> None:
        bank = ScratchBank()
        made = Composed(
            bank=bank, extractor=Topics(Says(lambda o: "well")), updater=Merging(Says(str)), retriever=Nearest(),
            reranker=Keep(), answerer=Citing(Says(str)),
        )  # fmt: skip
        [[result]] = observe(made, FIRST)
        assert result.code is Code.MALFORMED
        assert not bank.list(Scope("Anna"))


class TestReading:
    @pytest.mark.parametrize(
        ("reply", "wanted"),
        [("It is tea [0, 2]", {0, 2}), ("[1] and [3].", {1, 3}), ("so [7]", None), ("Nobody said. [NO_CITE]", set()),
         ("It is tea", None), ("[1] [NO_CITE]", {1}), ("[a, 1]", None), ("[99999999999]", None)],
    )  # fmt: skip
    def test_vector_6_citations(self, reply: str, wanted: set[int] | None) -> None:
        assert read_citations(reply, 5) == wanted

    @pytest.mark.parametrize(
        ("reply", "wanted"),
        [("Merge(0, likes (hot) tea, daily)", (0, "likes (hot) tea, daily")), ("Add()", None), ("Merge(9, x)", None),
         ("Add()\nMerge(1, both)\nMerge(0, other)", (1, "both"))],
    )  # fmt: skip
    def test_vector_7_updates(self, reply: str, wanted: tuple[int, str] | None) -> None:
        assert read_merge(reply, 3) == wanted

    def test_topics(self) -> None:
        reply = '{"extracted_memories": [{"summary": " Sails ", "reference": [1, 1, 9, "2"]}, {"summary": ""}, 3]}'
        assert read_topics(reply, 5) == [("Sails", (1,))]
        assert read_topics("NO_TRAIT", 5) == []
        assert read_topics("[]", 5) is None

    @given(st.text())
    def test_any_reply_is_survived(self, reply: str) -> None:
        cited, merged, topics = read_citations(reply, 3), read_merge(reply, 3), read_topics(reply, 3)
        assert cited is None or cited <= {0, 1, 2}
        assert merged is None or (merged[0] < 3 and merged[1])
        assert topics is None or all(summary for summary, _ in topics)


class TestAnswering:
    def test_cited_memories_are_named_with_the_answer(self) -> None:
        bank = ScratchBank()
        bank.apply([Operation("ADD", "Has a dog", payload={"turns": ["Ben: my dog Rex"]})], Scope("Ben"), at=MAY)
        made, _, answerer = agent(bank)
        answer = asyncio.run(made.answer("What is the dog called?", [Scope("Ben")]))
        assert answer.text == "Rex"
        assert [record.text for record in answer.used] == ["Has a dog"]
        assert "[0] Has a dog\n    Ben: my dog Rex" in answerer.asked[0].prompt

    def test_vector_9_from_an_empty_bank_nothing_is_reranked(self) -> None:
        reranker = Says(lambda o: pytest.fail("asked"))
        hits, action = asyncio.run(Learned(reranker).choose("a?", [], 5))
        assert (hits, action) == ([], None)


def task(rewards: tuple[str, ...] = ("citations",)) -> DialogueTask:
    bank = ScratchBank()
    for number, text in enumerate(("the dog is Rex", "the cat is Tom", "rain")):
        bank.apply([Operation("ADD", text, source=(f"D1:{number}",))], Scope("c"), at=MAY)
    return DialogueTask("t", ("c",), (), (Question("who is the dog?", "Rex", 4, ("D1:0",)),), bank, rewards)


def run(reply: str, rewards: tuple[str, ...] = ("citations",), *, number: int = 0) -> Run:
    def build(*, bank, reranker, answerer):  # type: ignore[no-untyped-def]
        return Composed(
            bank=bank, extractor=Topics(answerer), updater=Merging(answerer), retriever=Nearest(),
            reranker=Learned(reranker), answerer=Citing(answerer), shown=2,
        )  # fmt: skip

    seats = {
        "reranker": Seat(LinearReranker(HashedEmbedder())),
        "answerer": Seat(ScriptedSampler(lambda observation: reply)),
    }
    [[found]] = play(build, [task(rewards)], seats, seed=number)
    return found


class TestRewards:
    def test_each_citation_is_the_reward_of_its_draw(self) -> None:
        rewards = run("Rex [1]").trajectory.rewards
        assert [(r.name, r.value, r.decision, r.span) for r in rewards] == [
            ("citations", -1.0, 0, (0, 1)), ("citations", 1.0, 0, (1, 2))
        ]  # fmt: skip

    def test_citing_nothing_is_a_reward_and_what_cannot_be_read_is_none(self) -> None:
        assert [r.value for r in run("no [NO_CITE]").trajectory.rewards] == [-1.0, -1.0]
        assert run("no").trajectory.rewards == ()

    def test_a_perfect_oracle_cites_the_evidence(self) -> None:
        found = run("", ("oracle",))
        shown = [record.source[0] for record in found.outcome.answers[0].candidates]
        assert [r.value for r in found.trajectory.rewards] == [1.0 if one == "D1:0" else -1.0 for one in shown]

    def test_an_oracle_at_nine_tenths_is_right_at_that_rate(self) -> None:
        term = oracle(0.9, 0.9, "o")
        right = given_ = wanted = 0
        for number in range(3000):
            # One of ten that are shown is evidence.
            useful = number % 2 == 0
            found = run_of(useful, number)
            values = [reward.value > 0 for reward in term(*found)]
            right += values[0] and useful
            given_ += sum(values)
            wanted += useful
        assert right / wanted == pytest.approx(0.9, abs=0.03)
        assert right / given_ == pytest.approx(0.9, abs=0.04)


def run_of(useful: bool, number: int):  # type: ignore[no-untyped-def]
    """A task, an outcome of five memories of which the first is evidence or not, and its decision."""
    from types import SimpleNamespace

    from memorist.decision import Decision

    action = Action(str(number), tokens=(0, 1, 2, 3, 4), choice=(0, 1, 2, 3, 4))
    shown = [SimpleNamespace(source=(f"D{i}",)) for i in range(5)]
    question = SimpleNamespace(text="q", evidence=("D0",) if useful else ("D9",))
    outcome = SimpleNamespace(answers=[SimpleNamespace(candidates=shown)], choices=(action,))
    return (
        SimpleNamespace(id="t", questions=(question,)),
        outcome,
        [Decision("reranker", "r", Observation("q"), action)],
    )
