"""Questions about pictures in files: the records of the specification, and HRVQA's two files turned into them. The
fixtures are written here; none is from HRVQA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL")

from memorist.agents.uav import Outcome
from memorist.errors import DataError, RecipeError
from memorist.recipe import read_recipe
from memorist.tasks.aerial.files import FileTask, PictureData, hrvqa_records, load
from memorist.tasks.aerial.questions import question

RECORD = {
    "id": "a", "image": "one.png", "task": "count", "question": "How many cars?", "answer": "3", "answer_type": "int",
    "split": "rl", "rationale": "car car car", "choices": None,
}  # fmt: skip


def written(folder: Path, *records: dict[str, Any]) -> Path:
    for name in ("one.png", "two.png"):
        (folder / name).write_bytes(question("count", len(name)).scene.png())
    file = folder / "records.jsonl"
    file.write_text("\n".join(json.dumps(record) for record in records) + "\n\n", encoding="utf-8")
    return file


def scored(task: FileTask, said: str) -> dict[str, float]:
    text = f"<think>x</think><answer>{said}</answer>"
    return {reward.name: reward.value for reward in task.score(Outcome(text))} | task.measures(Outcome(text))


class TestRecords:
    def test_they_become_tasks_with_the_picture_beside_them(self, tmp_path: Path) -> None:
        other = RECORD | {"id": 7, "image": "two.png", "task": "area", "answer": "2,000.5", "answer_type": "float"}
        [(split, task), (_, area)] = load(written(tmp_path, RECORD, other))
        assert split == "rl" and task.pictures[0].size == (56, 56) and task.size == 2
        assert task.annotation == "<think>car car car</think><answer>3</answer>"
        assert scored(task, "three cars")["correct-count"] == 1 and scored(task, "4")["near"] == pytest.approx(1 / 3)
        assert area.id == "7" and area.size == 3 and scored(area, "2010")["correct"] == 1

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"answer": "some"}, "expected one such number"), ({"answer": ""}, "not empty"), ({"id": None}, "'id'"),
            ({"answer_type": "number"}, "choice, yesno"), ({"split": "dev"}, "sft, rl"),
            ({"image": "/etc/passwd"}, "below the file's folder"), ({"image": "../x.png"}, "below the file's folder"),
            ({"question": True}, "not empty"), ({"choices": "a, b"}, "expected texts"), ({"stage": 0}, "1 or more"),
            ({"stage": "2"}, "1 or more"),
        ],
    )  # fmt: skip
    def test_what_is_malformed_is_named(self, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
        with pytest.raises(DataError, match=said):
            load(written(tmp_path, RECORD | changed))

    @pytest.mark.parametrize(("line", "said"), [("[1]", "expected an object"), ("{", "not JSON")])
    def test_lines_that_are_no_records_too(self, tmp_path: Path, line: str, said: str) -> None:
        (tmp_path / "records.jsonl").write_text(line)
        with pytest.raises(DataError, match=rf"line 1.*{said}"):
            load(tmp_path / "records.jsonl")

    def test_splits_are_disjoint_by_picture_and_ids_occur_once(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="one split alone"):
            load(written(tmp_path, RECORD, RECORD | {"id": "b", "split": "test"}))
        with pytest.raises(DataError, match="twice"):
            load(written(tmp_path, RECORD, RECORD))

    def test_a_missing_picture_is_told_when_it_is_shown(self, tmp_path: Path) -> None:
        [(_, task)] = load(written(tmp_path, RECORD | {"image": "three.png"}))
        with pytest.raises(DataError, match=r"three\.png"):
            _ = task.pictures

    def test_recipes_choose_splits_tasks_and_stages(self, tmp_path: Path) -> None:
        shape = RECORD | {"id": "b", "task": "shape", "answer": "circle", "answer_type": "choice", "rationale": None}
        file = written(tmp_path, RECORD, shape, RECORD | {"id": "c", "image": "two.png", "split": "sft"})
        plain = {"agent": {"name": "uav-vl-r1"}, "models": {"viewer": "tiny"}}
        recipe = read_recipe(plain | {"data": {"kind": "pictures", "file": str(file)}})
        assert [task.id for task in recipe.data.tasks(0)] == ["a", "b"]
        assert [task.id for task in PictureData(file=str(file), stages=(1,)).tasks(0)] == ["b"]
        assert [task.id for task in PictureData(file=str(file), split="sft", questions=1).tasks(0)] == ["c"]
        assert recipe.data.tasks(0)[1].annotation == ""
        with pytest.raises(RecipeError, match="no questions of split 'test'"):
            PictureData(file=str(file), split="test").tasks(0)
        for wrong, said in (({"file": "none"}, "no file"), ({"split": "dev"}, "sft"), ({"questions": -1}, "or more")):
            with pytest.raises(RecipeError, match=said):
                read_recipe(plain | {"data": {"kind": "pictures", "file": str(file)} | wrong})


class TestHrvqa:
    def test_its_files_become_records(self, tmp_path: Path) -> None:
        asked = [{"question_id": 1, "image_id": 5, "question": "How many ships are there?"},
                 {"question_id": 2, "image_id": "6.jpg", "question": "Is there a road?"},
                 {"question_id": 3, "image_id": 5, "question": "How many trees?"}]  # fmt: skip
        told = [{"question_id": 1, "question_type": "Number", "multiple_choice_answer": "2"},
                {"question_id": 2, "question_type": "yes/no", "answer": "yes"},
                {"question_id": 3, "question_type": "number", "answer": "more than ten"}]  # fmt: skip
        (tmp_path / "q.json").write_text(json.dumps({"questions": asked}))
        (tmp_path / "a.json").write_text(json.dumps({"annotations": told}))
        records = list(hrvqa_records(tmp_path / "q.json", tmp_path / "a.json", "test"))
        assert [(r["image"], r["task"], r["answer_type"]) for r in records] == [
            ("images/5.png", "count", "int"),
            ("images/6.jpg", "presence", "yesno"),
            ("images/5.png", "count", "choice"),
        ]  # fmt: skip
        (tmp_path / "all.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        assert [task.question.answer for _, task in load(tmp_path / "all.jsonl")] == ["2", "yes", "more than ten"]
        (tmp_path / "a.json").write_text(json.dumps({"annotations": told[:1]}))
        with pytest.raises(DataError, match="has no answer"):
            list(hrvqa_records(tmp_path / "q.json", tmp_path / "a.json", "test"))
        (tmp_path / "a.json").write_text("[]")
        with pytest.raises(DataError, match="no list of objects"):
            list(hrvqa_records(tmp_path / "q.json", tmp_path / "a.json", "test"))
