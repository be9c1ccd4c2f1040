"""Questions about pictures in files, as records of one JSON object a line (section 2.2 of the specification of
UAV-VL-R1); HRVQA's two files, in the form of VQA, are turned into such records. Neither was tried on HRVQA itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from memorist.decision import Picture
from memorist.errors import DataError, RecipeError, need_known
from memorist.models.pictures import read_picture
from memorist.tasks.aerial.data import AerialTask
from memorist.tasks.aerial.questions import STAGES, Question
from memorist.tasks.aerial.rules import one_number, whole

SPLITS = ("sft", "rl", "val", "test")
KINDS = ("choice", "yesno", "int", "cell", "float")
TYPES = {
    "number": ("count", "int"), "yes/no": ("presence", "yesno"), "yesno": ("presence", "yesno"),
    "location": ("location", "choice"), "colour": ("colour", "choice"), "color": ("colour", "choice"),
    "shape": ("shape", "choice"), "size": ("size", "choice"), "transportation": ("transport", "choice"),
    "scene": ("scene", "choice"), "sports": ("sports", "choice"), "area": ("area", "choice"),
}  # fmt: skip
"""HRVQA's types of questions, as tasks and kinds of answers. Areas are told as texts with units."""
FOLDER = "images"


@dataclass(frozen=True)
class FileTask(AerialTask):
    """A question about a picture in a file."""

    image: Path = Path()

    @cached_property
    def pictures(self) -> tuple[Picture, ...]:
        """What is seen.

        Raises:
            DataError: there is no such picture, or it is broken.
        """
        return (read_picture(self.image),)


@dataclass(frozen=True)
class PictureData:
    """Questions of a file.

    file: records. split: which of them. questions: how many at most (0: all). names, stages: as of `AerialData`.
    """

    kind: str = "pictures"
    file: str = ""
    split: str = "rl"
    questions: int = 0
    names: tuple[str, ...] = ()
    stages: tuple[int, ...] = ()

    exercise: ClassVar[str] = "pictures"

    def check(self, where: str = "data") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: there is no such file or split, or a number is below 0.
        """
        need_known(f"{where}.split", self.split, SPLITS)
        if self.questions < 0:
            raise RecipeError(f"{where}.questions is {self.questions}; expected 0 (all) or more")
        if not Path(self.file).is_file():
            raise RecipeError(
                f"{where}.file is {self.file!r}, which is no file; expected records, one JSON object a line"
            )

    def tasks(self, seed: int) -> list[FileTask]:
        """The questions, in the file's order; `seed`, the run's, changes nothing of them.

        Raises:
            DataError: a record is malformed.
            RecipeError: none is of this split, these tasks and stages.
        """
        found = [
            task
            for split, task in load(self.file)
            if split == self.split
            and (not self.names or task.question.task in self.names)
            and (not self.stages or task.question.stage in self.stages)
        ]
        if not found:
            raise RecipeError(
                f"data.file {self.file!r} has no questions of split {self.split!r}, names {list(self.names) or 'all'} "
                f"and stages {list(self.stages) or 'all'}"
            )
        return found[: self.questions or None]


def load(file: str | Path) -> list[tuple[str, FileTask]]:
    """The records of a file, each with its split; pictures are looked for beside the file, read when shown.

    Raises:
        DataError: a record is malformed, two have the same id, or a picture is of two splits.
        OSError: the file cannot be read.
    """
    path = Path(file)
    found: dict[str, tuple[str, FileTask]] = {}
    splits: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(str(path), f"line {number}", "(none)", f"not JSON: {error}") from error
        split, task = _task(record, _Reader(str(path), f"line {number}"), path.parent)
        if task.id in found:
            raise DataError(str(path), task.id, "id", "appears twice in this file")
        image = str(record["image"])
        if splits.setdefault(image, split) != split:
            raise DataError(
                str(path), task.id, "split",
                f"is {split!r}, and {image!r} is also in {splits[image]!r}; expected each picture in one split alone",
            )  # fmt: skip
        found[task.id] = split, task
    return list(found.values())


@dataclass(frozen=True)
class _Reader:
    file: str
    record: str

    def text(self, given: Mapping[str, Any], name: str, default: str | None = None) -> str:
        value = given.get(name, default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if value is None and default is not None:
            value = default
        if not isinstance(value, str) or not (value.strip() or default is not None):
            raise self.error(name, f"is {value!r}; expected a text that is not empty")
        return value

    def one_of(self, given: Mapping[str, Any], name: str, known: Sequence[str]) -> str:
        value = self.text(given, name)
        if value not in known:
            raise self.error(name, f"is {value!r}; expected one of {', '.join(known)}")
        return value

    def error(self, field: str, problem: str) -> DataError:
        return DataError(self.file, self.record, field, problem)


def _task(record: Any, reader: _Reader, folder: Path) -> tuple[str, FileTask]:
    if not isinstance(record, dict):
        raise reader.error("(none)", f"is {record!r:.60}; expected an object")
    reader = _Reader(reader.file, reader.text(record, "id"))
    kind = reader.one_of(record, "answer_type", KINDS)
    answer = reader.text(record, "answer")
    choices = record.get("choices") or ()
    if not isinstance(choices, list | tuple) or not all(isinstance(one, str) for one in choices):
        raise reader.error("choices", f"are {choices!r:.60}; expected texts, or null")
    if kind in ("int", "float") and (whole if kind == "int" else one_number)(answer) is None:
        raise reader.error("answer", f"is {answer!r}, and answer_type {kind!r}; expected one such number")
    image = Path(reader.text(record, "image"))
    if image.is_absolute() or ".." in image.parts:
        raise reader.error("image", f"is {str(image)!r}; expected a path below the file's folder")
    asked = Question(
        reader.text(record, "task"), reader.text(record, "question"), answer, kind, tuple(choices),
        reader.text(record, "rationale", ""), stage_given=_stage(record, reader),
    )  # fmt: skip
    return reader.one_of(record, "split", SPLITS), FileTask(reader.record, asked, image=folder / image)


def _stage(record: Mapping[str, Any], reader: _Reader) -> int:
    stage = record.get("stage", STAGES.get(str(record.get("task")), max(STAGES.values())))
    if not isinstance(stage, int) or stage < 1:
        raise reader.error("stage", f"is {stage!r}; expected 1 or more")
    return stage


def hrvqa_records(questions: str | Path, annotations: str | Path, split: str) -> Iterator[dict[str, Any]]:
    """Records from HRVQA's file of questions and its file of answers; pictures are expected in `images`.

    Args:
        questions: {"questions": [{"question_id", "image_id", "question"}, …]}.
        annotations: {"annotations": [{"question_id", "question_type", "answer" or "multiple_choice_answer"}, …]}.
        split: of all of them.

    Raises:
        DataError: a file or a record is malformed, or a question has no answer.
    """
    answers: dict[str, Mapping[str, Any]] = {}
    for one in _listed(annotations, "annotations"):
        answers[str(one.get("question_id"))] = one
    for one in _listed(questions, "questions"):
        reader = _Reader(str(questions), f"question {one.get('question_id')}")
        number = reader.text(one, "question_id")
        if number not in answers:
            raise reader.error("question_id", f"has no answer in {annotations}")
        found = answers[number]
        answer = reader.text(found, "multiple_choice_answer" if "multiple_choice_answer" in found else "answer")
        task, kind = TYPES.get(reader.text(found, "question_type").lower(), (found["question_type"], "choice"))
        if kind == "int" and not answer.strip().isdigit():
            kind = "choice"  # "more than ten"
        name = reader.text(one, "image_id")
        yield {
            "id": number, "image": f"{FOLDER}/{name if Path(name).suffix else f'{name}.png'}", "task": task,
            "question": reader.text(one, "question"), "answer": answer, "answer_type": kind, "split": split,
        }  # fmt: skip


def _listed(file: str | Path, name: str) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(str(file), "(whole file)", "(none)", f"not JSON in UTF-8: {error}") from error
    listed = found.get(name) if isinstance(found, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise DataError(str(file), "(whole file)", name, "is no list of objects")
    return listed
