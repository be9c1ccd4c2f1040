"""MemAgent and MemSearcher in the compact style: prompts that data cannot forge, heuristics, and the bundled base."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("bm25s")

from memorist.agents.components.chunks import chunks, word_starts
from memorist.agents.components.fields import NOTHING, fields, read_fields
from memorist.agents.memagent import UNCHANGED, MemAgentSettings, Outcome
from memorist.agents.memsearcher import MemSearcherSettings
from memorist.agents.name_follower import NameFollower
from memorist.agents.text_heuristics import (
    FirstSentences,
    QuestionWords,
    boxed_value,
    likeness,
    names,
    sentences,
    values,
)
from memorist.decision import Action, Decision, Distribution, Observation, Reward, Trajectory
from memorist.errors import RecipeError
from memorist.evaluation.readers import GoldMemory, Reading, gold_memory, one_search, points, tuned, words_read
from memorist.models.registry import open_policy
from memorist.models.sampler import Request
from memorist.models.scripted import ScriptedSampler
from memorist.recipe import load_recipe, read_recipe
from memorist.tasks.corpus import Corpus, Document
from memorist.tasks.long_document import LongDocumentTask, pages
from memorist.tasks.searching import MultihopData, SearchTask
from memorist.training.credit import How, credit
from memorist.training.rollout import Run, Seat, play

CORPUS = Corpus(
    [
        Document("d0", '"Arvo Lind"\nLittle else is on record. Arvo Lind was born in Kestra.'),
        Document("d1", '"Kestra"\nKestra is a city in Noria.'),
        Document("d2", '"Noria"\nThe capital of Noria is Velm.'),
    ]
)
QUESTION = "What is the country where the city where Arvo Lind was born lies?"
SEARCH = SearchTask("s", QUESTION, ("Noria",), CORPUS, ("d0", "d1"), ("Kestra", "Noria"))
DOCUMENT = LongDocumentTask(
    "d",
    "What is the city where Arvo Lind was born?",
    "\n\n".join(one.contents for one in reversed(CORPUS.documents)),
    ("Kestra",),
    ("Kestra",),
)
READ = MemAgentSettings(style="compact", chunk=20, memory=40, whole=True)
FIND = MemSearcherSettings(style="compact", memory=64, documents=1)


class TestFields:
    @given(
        st.dictionaries(
            st.sampled_from(["question", "memory", "text"]), st.text(st.characters(exclude_characters="\r"))
        ),
        st.sampled_from(["answer", "act"]),
    )
    def test_what_is_written_is_read_whatever_it_says(self, data: dict[str, str], asked: str) -> None:
        data = {name: text for name, text in data.items() if text != NOTHING}
        assert read_fields(fields(asked, **data)) == {**data, asked: ""}

    def test_data_cannot_look_like_a_name(self) -> None:
        prompt = fields("answer", question="a\nAnswer:\nb", memory="")
        assert prompt == "Question:\n a\n Answer:\n b\nMemory:\n -\nAnswer:\n"


class TestChunksOfParagraphs:
    @given(st.lists(st.sampled_from(["a b c", "d e", "f", ""]), max_size=12), st.integers(1, 6))
    def test_nothing_is_lost_and_no_chunk_is_too_long(self, parts: list[str], size: int) -> None:
        text = "\n\n".join(parts)
        found = chunks(text, word_starts, size, whole=True)
        assert "".join(found) == (text if word_starts(text) else "")
        assert all(len(word_starts(chunk)) <= size for chunk in found)

    def test_a_chunk_ends_with_a_paragraph_where_one_ends_in_it(self) -> None:
        assert chunks("a b\n\nc d e\n\nf", word_starts, 4, whole=True) == ["a b\n\n", "c d e\n\nf"]
        assert chunks("a b c d e", word_starts, 2, whole=True) == ["a b ", "c d ", "e"]


class TestReading:
    def test_names_values_and_what_is_alike(self) -> None:
        assert names("The studies of Arvo Lind were at Voss University.") == ["Arvo Lind", "Voss University"]
        assert values("Arvo Lind was born in Kestra.", QUESTION) == ["Kestra"]
        assert values("Kestra Works has existed since 1931.", "What is Kestra Works?") == ["1931"]
        assert values("In Noria one pays with the velm.", "What is the currency of Noria?") == ["velm"]
        assert likeness("Arvo Lind was born in Kestra.", QUESTION) == 3
        assert sentences('"Title"\nOne. Two!\nThree') == ["One.", "Two!"]

    def test_an_answer_is_what_the_likest_sentence_says(self) -> None:
        assert boxed_value(DOCUMENT.question, "Noria is big. Arvo Lind was born in Kestra.") == "\\boxed{ Kestra}"
        assert boxed_value(DOCUMENT.question, "") == "\\boxed{ none}"

    def test_keeping_the_first_sentences(self) -> None:
        [[run]] = play(READ.build, [DOCUMENT], {"reader": Seat(FirstSentences())})
        assert run.outcome.memories[-1] == "The capital of Noria is Velm. Little else is on record."
        [[chosen]] = play(READ.build, [DOCUMENT], {"reader": Seat(FirstSentences(shared=3))})
        assert (chosen.outcome.answer, chosen.reward) == (" Kestra", 1.0)

    def test_errors_are_other_ways_to_act(self) -> None:
        asked = Observation(fields("new memory", question="Who?", text="A b. C d. E f.", memory="G."))
        heuristic = FirstSentences(error=1.0)
        wrote = {heuristic.sample([Request(asked, Distribution(), seed)])[0].text for seed in range(60)}
        assert {UNCHANGED, " G. C d.", " E f."} <= wrote

    def test_an_apt_error_keeps_what_is_about_a_name_of_the_question_and_nothing_else(self) -> None:
        heuristic = FirstSentences(error=1.0, apt=1.0)

        def wrote(text: str, memory: str = "G.") -> set[str]:
            asked = Observation(fields("new memory", question=QUESTION, text=text, memory=memory))
            return {heuristic.sample([Request(asked, Distribution(), seed)])[0].text for seed in range(200)}

        about = "Noria lies south. Arvo Lind was born in Kestra. Arvo Lind is tall. Arvo Vell was born in Noria."
        assert wrote(about) == {" G. Arvo Lind was born in Kestra.", " G. Arvo Lind is tall."}
        assert wrote("Noria lies south. Arvo Vell was born in Noria.") == {UNCHANGED}
        assert wrote("Arvo Lind is tall.", "Arvo Lind is tall.") == {UNCHANGED}

    def test_one_window_sees_the_document_whole(self) -> None:
        seen: list[str] = []

        def write(observation: Observation) -> str:
            seen.append(observation.prompt)
            return "\\boxed{Kestra}"

        for style in ("compact", "full"):
            settings_ = MemAgentSettings(style=style, window="all")
            [[run]] = play(settings_.build, [DOCUMENT], {"reader": Seat(ScriptedSampler(write))})
            assert run.reward == 1.0 and len(run.trajectory.decisions) == 1
        assert all("Arvo Lind was born in Kestra." in prompt for prompt in seen)


class TestSearching:
    def test_searching_the_questions_words(self) -> None:
        [[run]] = play(FIND.build, [SEARCH], {"searcher": Seat(QuestionWords())})
        assert run.outcome.queries == (QUESTION.rstrip("?"),)
        assert run.outcome.well_formed

    def test_following_names_finds_what_one_search_does_not(self) -> None:
        follower = QuestionWords(2, query="newest", shared=1)
        [[run]] = play(FIND.build, [SEARCH], {"searcher": Seat(follower)})
        assert run.outcome.queries == ("Arvo Lind", "Kestra")
        assert run.outcome.read == (("d0",), ("d1",))

    def test_in_one_window_all_stays_in_sight(self) -> None:
        for style in ("compact", "full"):
            asked: list[Observation] = []

            def write(observation: Observation, asked: list[Observation] = asked) -> str:
                asked.append(observation)
                call = '<tool_call>{"name": "s", "arguments": {"query": "Kestra"}}</tool_call>'
                return call if len(observation.after) < 2 else "\\boxed{Noria}"

            settings_ = MemSearcherSettings(style=style, window="all")
            [[run]] = play(settings_.build, [SEARCH], {"searcher": Seat(ScriptedSampler(write))})
            assert run.reward == 1.0
            # What it holds is what it read, so that a ReAct policy can be paid for it as one with a memory is.
            assert run.trajectory.facts["measures"]["bridge_recall"] == 1.0
            assert len(asked[-1].after) == 2 and "Kestra is a city" in asked[-1].prompt
            assert "memory" not in asked[0].prompt or style == "compact"

    def test_without_repeats_a_search_shows_what_is_new(self) -> None:
        def write(observation: Observation) -> str:
            if observation.after:
                return "<memory>x</memory>"
            return '<tool_call>{"name": "s", "arguments": {"query": "Noria Kestra", "top_n": 1}}</tool_call>'

        for repeats, wanted in ((True, [("d1",)] * 3), (False, [("d1",), ("d2",), ("d0",)])):
            settings_ = MemSearcherSettings(style="compact", turns=3, repeats=repeats)
            [[run]] = play(settings_.build, [SEARCH], {"searcher": Seat(ScriptedSampler(write))})
            assert list(run.outcome.read) == wanted

    def test_what_is_remembered_can_be_rewarded(self) -> None:
        [task] = MultihopData(questions=1, hops=1, reward_bridges=True).tasks(0)
        [[run]] = play(FIND.build, [task], {"searcher": Seat(QuestionWords())})
        assert {reward.name for reward in run.trajectory.rewards} == {"answer", "bridges"}

    TURNS = (
        '<tool_call>{"name": "s", "arguments": {"query": "Arvo"}}</tool_call>', "<memory> Kestra</memory>",
        '<tool_call>{"name": "s", "arguments": {"query": "Kestra"}}</tool_call>', "<memory> Kestra Noria</memory>",
        "\\boxed{Noria}",
    )  # fmt: skip

    def rewards(
        self, turns: int = 3, said: Sequence[str] = TURNS, **changes: object
    ) -> list[tuple[str, float, int | None]]:
        """Of a run that finds one bridge a turn."""
        replies = iter(said)
        task = replace(SEARCH, bridges=("Kestra", "Noria"), reward="exact")
        task = replace(task, **changes)  # type: ignore[arg-type]
        build = replace(FIND, turns=turns).build
        [[run]] = play(build, [task], {"searcher": Seat(ScriptedSampler(lambda _: next(replies)))})
        return [(r.name, r.value, r.decision) for r in run.trajectory.rewards]

    def test_what_is_remembered_is_paid_for_in_runs_that_answer_alone(self) -> None:
        assert self.rewards(reward_bridges=True) == [("answer", 1.0, None), ("bridges", 1.0, None)]
        assert self.rewards(turns=2, reward_bridges=True) == [("answer", 0.0, None), ("bridges", 0.0, None)]

    def test_each_turn_can_earn_what_its_memory_gained(self) -> None:
        first = [("search-0-from-0.00", 0.5, 0), ("memory-0-from-0.00", 0.5, 1)]
        second = [("search-1-from-0.50", 0.5, 2), ("memory-1-from-0.50", 0.5, 3)]
        last = ("search-2-from-1.00", 0.0, 4)
        assert self.rewards(reward_turns=True) == [("answer", 1.0, None), *first, *second, last]
        # Where no turn is left to answer in, the last one loses what was held.
        lost = [(name, -0.5, at) for name, _, at in second]
        assert self.rewards(turns=2, reward_turns=True) == [("answer", 0.0, None), *first, *lost]
        # A reply that cannot be read loses it itself: the turn before it did well.
        unread = (*self.TURNS[:4], "Noria")
        unread_last = (last[0], -1.0, last[2])
        assert self.rewards(reward_turns=True, said=unread) == [("answer", 0.0, None), *first, *second, unread_last]
        assert self.rewards() == [("answer", 1.0, None)]
        assert {value for _, value, at in self.rewards(reward_turns=True, bridges=()) if at is not None} == {0.0}

    def test_a_question_can_begin_with_its_first_hop_in_memory(self) -> None:
        tasks = MultihopData(questions=30, hops=2, begun=1.0, reward_turns=True).tasks(0)
        assert {bool(task.memory) for task in tasks if task.size == 1} == {False}
        for task in (task for task in tasks if task.size == 2):
            assert task.bridges[0] in task.memory and task.memory in task.corpus.by_id[task.support[0]].contents
        seen: list[str] = []

        def answer(observation: Observation) -> str:
            seen.append(observation.prompt)
            return "\\boxed{ x}"

        [[run]] = play(FIND.build, [task], {"searcher": Seat(ScriptedSampler(answer))})
        assert f"Memory:\n {task.memory}" in seen[0]
        assert [(r.name, r.value) for r in run.trajectory.rewards][1:] == [("search-0-from-0.50", 0.0)]
        assert task.measures(run.outcome)["bridge_recall"] == 0.5
        some = MultihopData(questions=200, hops=2, begun=0.5).tasks(0)
        assert 0.3 < sum(bool(t.memory) for t in some if t.size == 2) / sum(t.size == 2 for t in some) < 0.7
        with pytest.raises(RecipeError, match="begun is 2"):
            MultihopData(begun=2).check()

    def test_in_one_window_a_search_earns_what_it_was_shown(self) -> None:
        calls = (self.TURNS[0], self.TURNS[2], self.TURNS[4])
        task = replace(SEARCH, bridges=("Kestra", "Noria"), reward="exact", reward_turns=True)
        for replies in (calls, calls[:1] + calls[2:], calls[2:]):
            said = iter(replies)
            build = replace(FIND, window="all").build
            [[run]] = play(build, [task], {"searcher": Seat(ScriptedSampler(lambda _, said=said: next(said)))})
            told = [(r.name, r.value, r.decision) for r in run.trajectory.rewards if r.decision is not None]
            assert [at for _, _, at in told] == list(range(len(replies)))
            assert told[-1][0].startswith(f"search-{len(replies) - 1}-from-") and told[-1][1] == 0.0
            assert sum(value for _, value, _ in told) == task.measures(run.outcome)["bridge_recall"]
        said = iter((self.TURNS[0] + self.TURNS[2], self.TURNS[2], self.TURNS[4]))  # which search was which turn's?
        [[run]] = play(build, [task], {"searcher": Seat(ScriptedSampler(lambda _: next(said)))})
        assert len(run.outcome.read) == 3 and all(r.decision is None for r in run.trajectory.rewards)


class TestFollowingNames:
    def test_names_that_were_read_are_searched_and_none_twice(self) -> None:
        settings_ = MemSearcherSettings(style="compact", turns=6, repeats=False)
        [[run]] = play(settings_.build, [SEARCH], {"searcher": Seat(NameFollower(first=1, names=1))})
        assert run.outcome.queries[0] == QUESTION
        assert run.outcome.queries[1].startswith("Kestra ")
        assert len(set(run.outcome.queries)) == len(run.outcome.queries)
        assert run.outcome.well_formed

    def test_equal_words_are_compared(self) -> None:
        assert words_read(CORPUS, ["d1", "d1"]) == 14
        assert one_search(SEARCH, 1) == {"d0"}
        assert one_search(SEARCH, 10**6) == {"d0", "d1", "d2"}

    @settings(max_examples=40)
    @given(st.text(), st.text())
    def test_any_text_is_survived(self, question: str, found: str) -> None:
        asked = Observation(fields("act", question=question, memory=""))
        first = NameFollower().sample([Request(asked, Distribution(), 0)])[0]
        then = asked.then(first, fields("new memory", found=found))
        second = NameFollower().sample([Request(then, Distribution(), 0)])[0]
        assert "<tool_call>" in first.text and second.text.startswith("<memory>") and "</memory>" in second.text


class TestLastWindow:
    def run(self, reward: float) -> Run:
        first = Observation("a")
        then = first.then(Action("x"), "b")
        actions = [Action("x", (1,), (2, 3), (0.0, 0.0)) for _ in range(3)]
        seen = (first, then, Observation("c"))
        decisions = tuple(Decision("r", "p", o, a) for o, a in zip(seen, actions, strict=True))
        return Run(None, Trajectory("t", 0, decisions, (Reward("answer", reward),)))

    @pytest.mark.parametrize(("share", "wanted"), [("all", [0.5, 0.5, 0.5]), ("last", [0.0, 0.0, 0.5])])
    def test_the_advantage_goes_to_all_windows_or_the_last(self, share: str, wanted: list[float]) -> None:
        found = credit([[self.run(1.0), self.run(0.0)]], "r", how=How("grpo-no-std", share=share))
        assert [unit.advantage for unit in found.units[:3]] == wanted


class TestPages:
    def test_what_answers_is_somewhere_in_each_document_and_nowhere_in_particular(self) -> None:
        tasks = pages("train", 60, 300)
        places = []
        for task in tasks:
            assert task.answers[0] in task.document
            places.append(task.document.index(task.answers[0]) / len(task.document))
        assert min(places) < 0.2 and max(places) > 0.8
        assert all(len(task.document.split()) <= 300 for task in tasks)

    def test_lengths_can_differ(self) -> None:
        lengths = [len(task.document.split()) for task in pages("train", 60, 300, least=60)]
        assert min(lengths) < 120 and max(lengths) > 240

    def test_splits_ask_of_other_things(self) -> None:
        asked = {split: {task.question for task in pages(split, 100, 60)} for split in ("train", "validation", "test")}
        assert not asked["train"] & asked["test"] and not asked["train"] & asked["validation"]

    def test_gold_memories_answer(self) -> None:
        task = pages("test", 1, 200)[0]
        assert task.answers[0] in gold_memory(task)
        seat = Seat(ScriptedSampler(lambda o: boxed_value(task.question, read_fields(o.prompt)["memory"])))

        def build(**given: Any) -> GoldMemory:
            return GoldMemory(**given, style="compact")

        assert points(play(build, [task], {"reader": seat})) == {task.id: [100.0]}

    def test_leaving_the_memory_alone_can_be_rewarded(self) -> None:
        kept = LongDocumentTask("t", "q", "d", ("x",), reward_writes=True)
        for memories, wanted in (((), 0.0), (("a", "a", "a", "a"), -0.25), (("a", "b", "b", "c"), -0.75)):
            rewards = kept.score(Outcome(memories=memories, reply="\\boxed{x}"))
            assert {reward.name: reward.value for reward in rewards} == {"answer": 1.0, "writes": wanted}

    def test_each_chunk_can_earn_what_its_reading_gained(self) -> None:
        def write(observation: Observation) -> str:
            return UNCHANGED if "Noria" in observation.prompt.split("Memory:")[0] else " Arvo Lind was born in Kestra."

        task = replace(DOCUMENT, reward_chunks=True)
        [[run]] = play(READ.build, [task], {"reader": Seat(ScriptedSampler(write))})
        changed = [a != b for a, b in zip(("", *run.outcome.memories), run.outcome.memories, strict=False)]
        terms = [reward for reward in run.trajectory.rewards if reward.decision is not None]
        gained = [reward for reward in terms if reward.name != "writing"]
        assert [reward.name for reward in gained] == [f"chunk-{i}" for i in range(len(changed))]
        assert sorted(reward.value for reward in gained) == [0.0] * (len(changed) - 1) + [1.0]
        writing = [reward for reward in terms if reward.name == "writing"]
        assert [reward.value for reward in writing] == [-float(one) for one in changed]
        for placed in (gained, writing):
            assert [reward.decision for reward in placed] == list(range(len(changed)))

    @pytest.mark.parametrize("wrong", [{"hops": 5}, {"least": 999}, {"split": "unseen"}, {"task": "page"}])
    def test_impossible_ones_are_refused(self, wrong: dict[str, object]) -> None:
        data = {"kind": "long-document", "task": "pages", "words": 100, **wrong}
        with pytest.raises(RecipeError):
            read_recipe({"agent": {"name": "memagent"}, "models": {"reader": "bundled"}, "data": data})


def test_a_heuristic_is_tuned_and_a_model_may_have_its_last_word() -> None:
    weak, strong = FirstSentences(), FirstSentences(shared=3)
    assert tuned(READ.build, "reader", [DOCUMENT], [weak, strong]) is strong
    answerer = ScriptedSampler(lambda o: "\\boxed{Kestra}")
    reading = tuned(READ.build, "reader", [DOCUMENT], [weak], answerer)
    assert isinstance(reading, Reading)
    assert points(play(READ.build, [DOCUMENT], {"reader": Seat(reading)})) == {"d": [100.0]}


@lru_cache
def reader() -> Any:
    return open_policy("bundled-reader")


def test_memagents_recipe_trains_on_two_to_four_chunks() -> None:
    recipe = load_recipe("memagent")
    size = recipe.agent.chunk  # type: ignore[attr-defined]
    found = {len(chunks(task.document, word_starts, size, whole=True)) for task in recipe.data.tasks(0)}
    assert found == {2, 3, 4}


class TestTheBundledBases:
    """What they can express, before anything is learnt."""

    def test_it_answers_from_what_is_remembered(self) -> None:
        def build(**given: Any) -> GoldMemory:
            return GoldMemory(**given, style="compact", answer=24)

        found = points(play(build, pages("validation", 20, 60), {"reader": Seat(reader())}))
        assert sum(v[0] for v in found.values()) / len(found) >= 85

    def test_it_copies_sentences_and_writes_well_formed_calls(self) -> None:
        tasks = MultihopData(split="validation", questions=10, hops=1).tasks(0)
        settings_ = MemSearcherSettings(style="compact", memory=64, reply=48, documents=1)
        groups = play(settings_.build, tasks, {"searcher": Seat(open_policy("bundled-searcher"))})
        assert sum(group[0].outcome.well_formed for group in groups) >= 8
        told = {one for task in tasks for d in task.corpus.documents for one in sentences(d.contents)}
        kept = [one for group in groups for one in sentences(group[0].outcome.memories[-1])]
        assert sum(one in told for one in kept) / len(kept) >= 0.7
        assert json.dumps(groups[0][0].outcome.queries)
