"""The synthetic world: LoCoMo's schema, disjoint splits, gold that answers, and the tasks cut from it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from memorist.agents.heuristics import AddOnlyManager, SimilarityManager
from memorist.agents.memory_r1 import MemoryR1, Outcome
from memorist.errors import RecipeError
from memorist.evaluation.exam import known_gold
from memorist.memory.record import MemoryRecord, Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.models.scripted import ScriptedSampler
from memorist.tasks import world
from memorist.tasks.dialogue import DialogueTask
from memorist.tasks.locomo import Dialogue, load
from memorist.tasks.phrasing import GRAMMARS, PEOPLE
from memorist.tasks.world import DIFFICULTIES, SPLITS, dialogues, generate
from memorist.training.rollout import Run, Seat, play


def people(samples: list[dict[str, Any]]) -> set[str]:
    return {s["conversation"][k] for s in samples for k in ("speaker_a", "speaker_b")}


def values(samples: list[dict[str, Any]]) -> set[str]:
    """Every answer that names a thing."""
    plain = [q["answer"] for s in samples for q in s["qa"] if q["category"] in (1, 4) and q["answer"] != "none"]
    tempting = [q["adversarial_answer"] for s in samples for q in s["qa"] if q["category"] == 5]
    return {part for answer in plain + tempting for part in answer.split(", ")}


class TestSplits:
    def test_they_share_neither_people_nor_values(self) -> None:
        made = {split: generate(split, 60) for split in SPLITS}
        for i, first in enumerate(SPLITS):
            for second in SPLITS[i + 1 :]:
                assert not people(made[first]) & people(made[second])
                assert not values(made[first]) & values(made[second]), (first, second)
        assert all(len(values(made[split])) > 200 for split in SPLITS)

    def test_everything_is_a_function_of_its_arguments(self) -> None:
        assert generate("train", 3, seed=1) == generate("train", 3, seed=1)
        assert generate("train", 5)[:3] == generate("train", 3)
        others = [
            generate("train", 1, seed=2), generate("test", 1, seed=1), generate("train", 1, seed=1, grammar="b"),
            generate("train", 1, seed=1, difficulty="medium"),
        ]  # fmt: skip
        texts = [json.dumps(o) for o in [generate("train", 1, seed=1), *others]]
        assert len(set(texts)) == 5

    def test_ids_are_unique_across_all_arguments(self) -> None:
        made = [
            sample["sample_id"]
            for split in SPLITS
            for seed in (0, 1)
            for grammar in GRAMMARS
            for difficulty in ("easy", "medium")
            for sample in generate(split, 2, seed=seed, grammar=grammar, difficulty=difficulty)
        ]
        assert len(set(made)) == len(made)

    @pytest.mark.parametrize("wrong", [{"split": "tests"}, {"difficulty": "harder"}, {"grammar": "c"}])
    def test_an_unknown_name_is_refused_with_those_that_exist(self, wrong: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="expected one of"):
            generate(wrong.pop("split", "train"), 1, **wrong)

    @pytest.mark.parametrize("difficulty", DIFFICULTIES)
    def test_difficulties_are_as_long_as_they_say(self, difficulty: str) -> None:
        sessions, turns = DIFFICULTIES[difficulty]
        (dialogue,) = dialogues("train", 1, difficulty=difficulty)
        assert [len(s) for s in dialogue.conversation.sessions] == [turns] * sessions


class TestGrammars:
    def test_they_share_no_statement_form(self) -> None:
        a, b = GRAMMARS["a"], GRAMMARS["b"]
        forms = [
            {f for pairs in g.statements.values() for pair in pairs for f in pair}
            | {f for pair in g.chat for f in pair}
            for g in (a, b)
        ]
        assert not forms[0] & forms[1]
        assert not {f.base for f in a.frames.values()} & {f.base for f in b.frames.values()}
        for attribute, frame in a.frames.items():
            other = b.frames[attribute]
            for name in ("ask", "ask_other", "ask_plan", "ask_both", "detail", "ask_detail", "likely"):
                asked = getattr(frame, name)
                assert not asked or asked != getattr(other, name)
        assert set(a.statements) == set(b.statements) and set(a.frames) == set(b.frames)

    def test_no_sentence_or_question_of_one_occurs_in_the_other(self) -> None:
        """With names and values taken out, which are the split's and not the grammar's."""
        names = re.compile(r"\b(" + "|".join(PEOPLE) + r")\b")
        shapes = []
        for grammar in ("a", "b"):
            made = dialogues("test", 25, grammar=grammar)
            known = sorted(values(generate("test", 25, grammar=grammar)), key=len, reverse=True)
            value = re.compile(r"\b(" + "|".join(map(re.escape, known)) + r")\b")
            told = {f for d in made for m in d.conversation.messages() for f in m.statements}
            told |= {q.text for d in made for q in d.questions}
            shapes.append({value.sub("V", names.sub("N", text)) for text in told})
        assert not shapes[0] & shapes[1] and min(map(len, shapes)) > 50


class TestQuestions:
    def test_all_five_categories_are_asked(self) -> None:
        counts = Counter(q.category for d in dialogues("train", 40) for q in d.questions)
        assert set(counts) == {1, 2, 3, 4, 5} and counts[4] > 100

    def test_evidence_names_the_turn_that_says_it(self) -> None:
        for dialogue in dialogues("train", 30):
            turns = {m.id: m for m in dialogue.conversation.messages()}
            for question in dialogue.questions:
                assert question.evidence and not question.unresolved
                if question.category == 4 and question.answer != "none":
                    (turn,) = question.evidence
                    assert question.answer in " ".join(turns[turn].statements)
                    assert question.answer in turns[turn].text
                if question.category == 2:
                    time = turns[question.evidence[0]].time
                    assert time is not None and question.answer == f"{time.day} {time:%B %Y}"
                if question.category == 5:
                    assert not question.answer and question.adversarial_answer

    def test_every_turn_carries_one_statement_that_names_its_speaker(self) -> None:
        for grammar in GRAMMARS:
            for dialogue in dialogues("train", 10, grammar=grammar):
                for message in dialogue.conversation.messages():
                    (statement,) = message.statements
                    assert message.speaker in statement

    def test_sessions_follow_each_other_over_months(self) -> None:
        for dialogue in dialogues("train", 20):
            times = [s.time for s in dialogue.conversation.sessions]
            assert times == sorted(t for t in times if t is not None) and len(set(times)) == len(times)

    def test_the_loader_reads_the_same_from_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "world.json"
        path.write_text(json.dumps(generate("train", 3)))
        assert load(path) == dialogues("train", 3)

    def test_a_thousand_dialogues_are_made(self) -> None:
        made = generate("train", 1000)
        assert len({s["sample_id"] for s in made}) == 1000
        assert all(s["qa"] and s["gold_operations"] for s in made)

    def test_things_appear_change_end_and_are_only_wished_for(self) -> None:
        kinds = Counter(g["kind"] for d in dialogues("train", 40) for g in d.gold)
        expected = {"state", "change", "retract", "plan", "done", "maybe", "again", "other", "detail", "chat"}
        assert set(kinds) == expected and min(kinds.values()) > 10


def gold_bank(dialogue: Dialogue) -> tuple[ScratchBank, list[MemoryRecord]]:
    """The bank of the gold operations, and all its records."""
    bank, current = ScratchBank(), dict[str, str]()
    by_turn: dict[str, list[Mapping[str, Any]]] = {}
    for operation in dialogue.gold:
        by_turn.setdefault(operation["dia_id"], []).append(operation)
    for message in dialogue.conversation.messages():
        scope = Scope(message.speaker)
        asked = [
            Operation(
                "NOOP" if g["event"] == "NONE" else g["event"], message.statements[0], current.get(g.get("target", ""))
            )
            for g in by_turn[message.id]
        ]
        assert message.time is not None
        for result in bank.apply(asked, scope, at=message.time, source=[message.id]):
            assert result.code.accepted, (message.id, result)
            if result.operation.kind in ("ADD", "UPDATE"):
                assert result.record is not None
                current[message.id] = result.record.id
    return bank, [r for name in dialogue.conversation.speakers for r in bank.list(Scope(name))]


class TestGold:
    @pytest.mark.parametrize("grammar", GRAMMARS)
    @pytest.mark.parametrize("difficulty", ["easy", "hard"])
    def test_gold_operations_lead_to_a_bank_that_holds_every_answer(self, grammar: str, difficulty: str) -> None:
        for dialogue in dialogues("train", 40 if difficulty == "easy" else 8, grammar=grammar, difficulty=difficulty):
            _, records = gold_bank(dialogue)
            texts = " | ".join(r.text for r in records)
            for question in dialogue.questions:
                if question.category == 4 and question.answer != "none":
                    assert question.answer in texts, (dialogue.id, question)

    def test_gold_of_another_form_is_none(self) -> None:
        (dialogue,) = dialogues("train", 1)
        assert known_gold(dialogue) == dialogue.gold != ()
        other = {"turn": "D1:1", "kind": "ADD", "text": "Oskar lives in Bergen"}
        assert known_gold(replace(dialogue, gold=(*dialogue.gold, other))) == ()

    def test_the_evidence_of_an_answer_is_what_its_memory_came_from(self) -> None:
        for dialogue in dialogues("train", 20):
            _, records = gold_bank(dialogue)
            for question in dialogue.questions:
                if question.category == 4 and question.answer != "none":
                    assert any(question.answer in r.text and question.evidence[0] in r.source for r in records)

    def test_what_was_given_up_is_no_longer_there(self) -> None:
        gone = 0
        for dialogue in dialogues("train", 40):
            bank, _ = gold_bank(dialogue)
            for question in dialogue.questions:
                if question.answer == "none":
                    gone += 1
                    held = {s for n in dialogue.conversation.speakers for r in bank.list(Scope(n)) for s in r.source}
                    assert question.evidence[0] not in held
        assert gone > 10

    def test_gold_does_better_than_keeping_everything(self) -> None:
        """There is something to learn: old values stay beside new ones if nothing is ever changed."""
        for dialogue in dialogues("train", 5):
            _, records = gold_bank(dialogue)
            assert len(records) < sum(len(m.statements) for m in dialogue.conversation.messages()) / 2 + 4

    def test_gold_is_for_diagnosis_and_travels_beside_the_task(self) -> None:
        (dialogue,) = dialogues("train", 1)
        task = DialogueTask.of(dialogue)
        assert not hasattr(task, "gold") and {q.category for q in task.questions} <= {1, 2, 3, 4}


def acted(dialogue: Dialogue, manager: Any = None) -> tuple[DialogueTask, Run]:
    task = DialogueTask.of(dialogue)
    seats = {
        "manager": Seat(manager or AddOnlyManager()),
        "answerer": Seat(ScriptedSampler(lambda o: '{"answer":"x"}')),
    }
    return task, play(lambda **given: MemoryR1(**given, style="compact"), [task.without_questions()], seats)[0][0]


class TestCut:
    def test_questions_are_asked_each_alone_over_the_final_bank(self) -> None:
        task, run = acted(dialogues("train", 1)[0])
        small = task.cut("questions", run.outcome, run.bank)
        assert [t.questions for t in small] == [(q,) for q in task.questions]
        assert all(t.messages == () and t.bank.commit == run.bank.commit for t in small)
        assert len({t.id for t in small}) == len(small)
        run.bank.apply([Operation("ADD", "later")], Scope(task.speakers[0]), at=datetime(2024, 1, 1))
        assert all("later" not in [r.text for r in t.bank.list(Scope(task.speakers[0]))] for t in small)

    def test_turns_start_from_the_bank_as_it_was_and_ask_what_is_settled(self) -> None:
        task, run = acted(dialogues("train", 2)[1], SimilarityManager())
        order = {m.id: i for i, m in enumerate(task.messages)}
        small = task.cut("turns", run.outcome, run.bank, questions=3)
        assert len(small) > 5 and len({t.id for t in small}) == len(small)
        for turn in small:
            (message,) = turn.messages
            assert 1 <= len(turn.questions) <= 3
            assert all(max(order[e] for e in q.evidence) <= order[message.id] for q in turn.questions)
            assert turn.bank.commit == run.outcome.commits[order[message.id]]
            said = {s for name in task.speakers for r in turn.bank.list(Scope(name)) for s in r.source}
            assert all(order[s] < order[message.id] for s in said)

    def test_what_a_turn_settles_is_asked_first(self) -> None:
        task, run = acted(dialogues("train", 1)[0])
        settled = 0
        for turn in task.cut("turns", run.outcome, run.bank, questions=1):
            mine = [q for q in task.questions if q.evidence[-1] == turn.messages[0].id and len(q.evidence) == 1]
            if mine:
                settled += 1
                assert turn.questions[0].evidence[-1] == turn.messages[0].id
        assert settled > 3

    def test_whole_is_the_task_itself_and_other_words_are_refused(self) -> None:
        task, run = acted(dialogues("train", 1)[0])
        assert task.cut("whole", run.outcome, run.bank) == [task]
        with pytest.raises(RecipeError, match="turns"):
            task.cut("turn", run.outcome, run.bank)

    def test_cutting_writes_nothing(self) -> None:
        task, run = acted(dialogues("train", 1)[0])
        before = list(run.bank.export(Scope(task.speakers[0])))
        for how in ("turns", "questions"):
            seats = {"manager": Seat(AddOnlyManager()), "answerer": Seat(ScriptedSampler(lambda o: '{"answer":"x"}'))}
            play(lambda **given: MemoryR1(**given, style="compact"), task.cut(how, run.outcome, run.bank)[:3], seats)
        assert list(run.bank.export(Scope(task.speakers[0]))) == before


def test_scores_are_mean_exact_match_times_the_share_that_could_be_read() -> None:
    from memorist.agents.components.answers import Answer
    from memorist.memory.record import Code, Result

    task = DialogueTask.of(dialogues("train", 1)[0])
    answers = tuple(Answer(q.answer if i % 2 else "wrong") for i, q in enumerate(task.questions))
    right = (len(answers) // 2) / len(answers)
    fine, bad = (Result(Operation("NOOP"), Code.UNCHANGED),), (Result(Operation("?"), Code.MALFORMED),)
    for results, share in (((), 1.0), ((fine, fine), 1.0), ((fine, bad), 0.5), ((bad,), 0.0), (((),), 1.0)):
        (term,) = task.score(Outcome(results, answers, ()))
        assert (term.name, term.value) == ("exact_match", pytest.approx(right * share))
    assert task.without_questions().score(Outcome())[0].value == 0.0


def test_somebody_whose_every_relative_was_talked_about_is_asked_about_no_stranger() -> None:
    odd = world._Writer("train", 5, 175, "hard", "a").sample()  # found among five thousand dialogues
    assert odd["qa"]
