"""Long documents: what is asked for is in them, at random places, and only rules decide whether an answer is right."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.errors import DataError, RecipeError
from memorist.recipe import read_recipe
from memorist.tasks.long_document import (
    KINDS,
    LongDocumentData,
    LongDocumentTask,
    contained,
    hotpot,
    listed_f1,
    synthetic,
)


def outcome(reply: str, *memories: str) -> Any:
    return SimpleNamespace(reply=reply, memories=memories)


def value(task: LongDocumentTask, reply: str) -> float:
    return task.score(outcome(reply))[0].value


class TestSynthetic:
    @pytest.mark.parametrize("kind", KINDS)
    @given(seed=st.integers(0, 10_000), words=st.integers(200, 1500))
    def test_the_gold_answer_is_in_the_document_and_right(self, kind: str, seed: int, words: int) -> None:
        [task] = synthetic(kind, 1, words, seed)
        boxed = rf"\boxed{{{', '.join(task.answers)}}}"
        assert value(task, boxed) == 1.0 and value(task, "") == 0.0 and value(task, r"\boxed{nothing}") == 0.0
        assert contained(task.document, task.answers) == contained(task.document, task.evidence) == 1.0
        assert 0.9 * words <= len(task.document.split()) <= 1.2 * words + 120
        assert synthetic(kind, 1, words, seed) == [task]

    @pytest.mark.parametrize("kind", ["needle", "multi-key"])
    def test_what_matters_is_anywhere(self, kind: str) -> None:
        where = [
            task.document.index(task.evidence[0]) / len(task.document) for task in synthetic(kind, 300, 600, seed=1)
        ]
        counts = Counter(int(10 * place) for place in where)
        assert set(counts) == set(range(10)) and max(counts.values()) < 90

    def test_variables_are_followed_and_the_chains_of_others_are_not(self) -> None:
        for task in synthetic("variables", 20, 400):
            values: dict[str, str] = {}
            for line in task.document.split("."):
                if line.strip().startswith("VAR "):
                    name, _, given_ = line.strip().removeprefix("VAR ").partition(" = ")
                    values[name] = values[given_.removeprefix("VAR ")] if given_.startswith("VAR ") else given_
            asked = task.question.split()[-1].strip("?")
            assert {name for name, found in values.items() if found == asked} == set(task.answers)
            assert len(values) == 15 and len(task.answers) == 5

    def test_frequent_words_are_the_most_frequent(self) -> None:
        for task in synthetic("frequent-words", 20, 500):
            assert {word for word, _ in Counter(task.document.split()).most_common(3)} == set(task.answers)

    def test_an_unknown_kind(self) -> None:
        with pytest.raises(RecipeError, match="'needle'"):
            synthetic("needles", 1, 100)


class TestScore:
    TASK = LongDocumentTask("t", "q", "d", ("7", "8"), ("7", "8"), all_of=True)

    @pytest.mark.parametrize(
        ("reply", "f1"),
        [
            (r"\boxed{8, 7}", 1),
            (r"\boxed{7 and 8.}", 1),
            (r"\boxed{7}", 2 / 3),
            (r"\boxed{1, 2, 3, 4, 5, 6, 7, 8}", 0.4),  # to list everything is not to know
            ("7, 8", 0),
            (r"\boxed{}", 0),
            (r"\boxed{77, 88}", 0),
        ],
    )
    def test_of_several_answers_both_misses_and_inventions_cost(self, reply: str, f1: float) -> None:
        assert value(self.TASK, reply) == pytest.approx(f1)
        assert listed_f1(reply, self.TASK.answers) == pytest.approx(f1)

    def test_evidence_in_the_memory_is_measured_and_rewarded_only_where_asked(self) -> None:
        read = outcome("the 7", "nothing", "it is 7")
        assert [term.name for term in self.TASK.score(read)] == ["answer"]
        rewarded = replace(self.TASK, reward_evidence=True).score(read)
        assert [(term.name, term.value) for term in rewarded] == [("answer", 0.0), ("evidence_recall", 0.5)]
        assert self.TASK.measures(read) == {"contained": 0.5, "evidence_recall": 0.5, "memory_changes": 2.0}
        assert self.TASK.recall(outcome("")) == 0.0


def row(number: int, **changes: Any) -> dict[str, Any]:
    context = [[f"Title {number} {n}", [f"First of {number} {n}.", " Second."]] for n in range(10)]
    gold = [[f"Title {number} 3", 0], [f"Title {number} 7", 1], [f"Title {number} 7", 0]]
    return {"_id": f"q{number}", "question": f"Q{number}?", "answer": f"A{number}", "context": context,
            "supporting_facts": gold} | changes  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hotpot.jsonl"
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(20)))
    return path


class TestHotpot:
    def test_a_document_holds_its_own_paragraphs_and_others_once_each(self, file: Path) -> None:
        tasks = hotpot(file, 40)
        assert len(tasks) == 20
        for number, task in enumerate(tasks):
            blocks = task.document.split("\n\n")
            titles = [block.split("\n")[1] for block in blocks]
            assert [block.split("\n")[0] for block in blocks] == [f"Document {n}:" for n in range(1, 41)]
            assert len(set(titles)) == 40 and {f"Title {number} {n}" for n in range(10)} <= set(titles)
            assert task.evidence == (f"Title {number} 3", f"Title {number} 7") and task.answers == (f"A{number}",)

    def test_gold_paragraphs_stand_somewhere_else_in_each_document(self, file: Path) -> None:
        """Pitfall 1 of memagent.md: in the original they are at the same places for every question."""
        places = Counter(task.document.split("\n\n").index(block)
                         for n, task in enumerate(hotpot(file, 40))
                         for block in task.document.split("\n\n") if f"Title {n} 3\n" in block)  # fmt: skip
        assert len(places) > 10 and hotpot(file, 40) == hotpot(file, 40) != hotpot(file, 40, seed=1)

    def test_of_too_small_a_pool_all_is_taken(self, file: Path) -> None:
        assert hotpot(file, 1000)[0].document.count("\n\n") == 199
        assert hotpot(file, 3, count=2)[1].document.count("\n\n") == 9  # its own are never left out

    @pytest.mark.parametrize("line", ["{", "[]", '{"question": "q"}', json.dumps(row(1, context=[["t"]]))])
    def test_a_broken_row_is_named(self, file: Path, line: str) -> None:
        with file.open("a") as out:
            out.write(line + "\n")
        with pytest.raises(DataError, match="line 21"):
            hotpot(file, 10)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            hotpot(tmp_path / "none.jsonl", 10)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"task": "needles"}, "data.task is 'needles'; did you mean 'needle'?"),
        ({"words": 0}, "data.words is 0; expected 1 or more"),
        ({"documents": -1}, "data.documents is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(data: dict[str, Any], message: str) -> None:
    whole = {"agent": {"name": "memagent"}, "data": {"kind": "long-document"} | data, "models": {"reader": "bundled"}}
    with pytest.raises(RecipeError) as caught:
        read_recipe(whole)
    assert message in str(caught.value)


def test_settings_make_tasks(file: Path) -> None:
    tasks = LongDocumentData(documents=3, words=100, reward_evidence=True).tasks(0)
    assert len(tasks) == 3 and all(task.reward_evidence for task in tasks)
    assert [task.answers for task in LongDocumentData(file=str(file), documents=2).tasks(0)] == [("A0",), ("A1",)]
