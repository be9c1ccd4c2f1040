"""UAV-VL-R1: questions about pictures go through the same agent interface, stages and trainer as all else."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL")

from memorist.agents.annotations import Annotations
from memorist.agents.uav import UavSettings, UavVl
from memorist.decision import Action, Distribution, Observation
from memorist.errors import PolicyError, RecipeError
from memorist.evaluation.runs import train
from memorist.evaluation.stages import write_stages
from memorist.memory.scratch import ScratchBank
from memorist.models.registry import bundled_folder, open_role
from memorist.models.sampler import Request
from memorist.recipe import Recipe, Stage, load_recipe, read_recipe
from memorist.tasks.aerial.data import AerialData, AerialTask
from memorist.training.metrics import read_metrics
from memorist.training.rollout import Seat, play
from memorist.training.stages import EVALUATIONS, PICTURES, digest
from memorist.training.trainer import Trainer
from seeing import tiny
from test_trainer import Killed, killed_after

WEIGHTS = {"near": 0.0, "length": 1.0}
"""Random weights answer nothing, but some of them in fewer characters."""
STAGE = Stage(
    role="viewer", cut="whole", steps=2, tasks=3, siblings=4, lr=1e-3, rewards=WEIGHTS,
    data=AerialData(questions=12, stages=(1,)),
)  # fmt: skip
RECIPE = Recipe(
    name="uav", seed=3, agent=UavSettings(style="compact", reply=12), models={"viewer": "tiny"},
    data=AerialData(questions=24), checkpoint_every=1, log_every=1,
    stages=(STAGE, replace(STAGE, data=AerialData(questions=12, stages=(2,)), replay=0.34)),
    evaluations={"all": AerialData(split="validation", questions=16)},
)  # fmt: skip


class Says:
    def __init__(self, text: str) -> None:
        self.text, self.seen = text, list[Observation]()

    async def act(self, observation: Observation) -> Action:
        self.seen.append(observation)
        return Action(self.text)


def answered(task: AerialTask, text: str, style: str = "full") -> tuple[dict[str, float], Observation]:
    viewer = Says(text)
    outcome = asyncio.run(UavVl(bank=ScratchBank(), viewer=viewer, style=style).run(task))
    return {reward.name: reward.value for reward in task.score(outcome)} | task.measures(outcome), viewer.seen[0]


def run(folder: Path, **how: Any) -> Trainer:
    policies = {"viewer": tiny()}
    return Trainer(RECIPE, RECIPE.agent.build, RECIPE.data.tasks(0), folder, policies=policies, **how)


class TestAnswers:
    @pytest.mark.parametrize("style", ["full", "compact"])
    def test_a_right_answer_in_its_form_is_worth_all(self, style: str) -> None:
        for task in AerialData(questions=16).tasks(0):
            worth, seen = answered(
                task, f"<think>{task.question.rationale}</think><answer>{task.question.answer}</answer>", style
            )
            assert worth["accuracy"] == worth["form"] == worth["near"] == worth[f"correct-{task.question.task}"] == 1
            assert task.asked in seen.prompt and seen.pictures == task.pictures and seen.ends == ("</answer>",)

    def test_what_is_wrong_or_has_no_form_is_not(self) -> None:
        [task] = AerialData(questions=1, names=("count",)).tasks(0)
        gold = int(task.question.answer)
        assert answered(task, str(gold))[0] == {
            "accuracy": 0.0, "form": 0.0, "near": 0.0, "length": -0.01, "correct": 0.0, "correct-count": 0.0,
            "format": 0.0, "answered": 0.0,
        }  # fmt: skip
        off, _ = answered(task, f"<think>x</think><answer>{gold + 1}</answer>")
        assert off["accuracy"] == 0 and off["form"] == 1
        assert 0 < off["near"] < 1 or gold <= 1

    def test_splits_and_unlike_scenes_have_no_picture_in_common(self) -> None:
        seen = [
            {task.pictures[0].digest for task in AerialData(split=split, questions=40, unseen=unseen).tasks(0)}
            for split in ("train", "validation", "test", "base") for unseen in (False, True)
        ]  # fmt: skip
        assert sum(map(len, seen)) - len(set().union(*seen)) <= 2  # empty places look alike

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"agent": {"name": "uav-vl-r1", "style": "ful"}}, "full"),
            ({"agent": {"name": "uav-vl-r1", "reply": 0}}, "1 or more"),
            ({"data": {"kind": "aerial", "names": ["counting"]}}, "count"),
            ({"data": {"kind": "aerial", "side": 10}}, "56 to"),
            ({"data": {"kind": "aerial", "stages": [4]}}, "no task is in both"),
            ({"data": {"kind": "aerial", "questions": 0}}, "1 or more"),
            ({"data": {"kind": "aerial", "split": "dev"}}, "validation"),
            ({"data": {"kind": "notebook"}}, "aerial"),
        ],
    )  # fmt: skip
    def test_wrong_settings_are_refused(self, wrong: dict[str, Any], said: str) -> None:
        plain = {"agent": {"name": "uav-vl-r1"}, "models": {"viewer": "tiny"}, "data": {"kind": "aerial"}}
        assert isinstance(read_recipe(plain).agent, UavSettings)
        with pytest.raises(RecipeError, match=said):
            read_recipe(plain | wrong)


ONLY_RIGHT = {"near": 0.0, "length": 0.0}


class TestAnnotations:
    def test_a_stage_imitates_what_is_written_about_pictures(self, tmp_path: Path) -> None:
        imitate = replace(
            STAGE, kind="sft", teacher="annotations", siblings=1, steps=30, tasks=4, lr=3e-3, rewards=ONLY_RIGHT
        )
        recipe = replace(RECIPE, agent=UavSettings(style="compact", reply=60), stages=(imitate,), evaluations={})
        policies = {"viewer": tiny()}
        Trainer(recipe, recipe.agent.build, recipe.data.tasks(0), tmp_path, policies=policies).run()
        rows = list(read_metrics(tmp_path / "metrics.jsonl"))
        assert all(row["reward"] == 2 for row in rows), "what they say is right, and in its form"
        assert rows[-1]["loss_1"] < 0.6 * rows[0]["loss_1"]

    def test_with_replay_those_of_earlier_stages_are_known(self, tmp_path: Path) -> None:
        imitate = replace(STAGE, kind="sft", teacher="annotations", siblings=1, rewards=ONLY_RIGHT)
        later = replace(imitate, data=AerialData(questions=8, stages=(2,)), replay=0.34)
        recipe = replace(RECIPE, agent=UavSettings(style="compact", reply=60), stages=(imitate, later), evaluations={})
        Trainer(recipe, recipe.agent.build, recipe.data.tasks(0), tmp_path, policies={"viewer": tiny()}).run()
        assert len(list(read_metrics(tmp_path / "metrics.jsonl"))) == 4

    def test_what_nobody_annotated_is_refused(self) -> None:
        tasks = AerialData(questions=8).tasks(0)
        known = Annotations(tasks)
        for task in tasks:
            seen = UavVl(bank=ScratchBank(), viewer=Says("")).asked(task)
            assert known.sample([Request(seen, Distribution(), 0)])[0].text == task.annotation
        with pytest.raises(PolicyError, match="no annotation of 1 pictures"):
            Annotations().sample([Request(seen, Distribution(), 0)])
        with pytest.raises(PolicyError, match="no annotation of 0 pictures"):
            known.sample([Request(Observation("How many?"), Distribution(), 0)])


class TestTraining:
    def test_stages_run_are_evaluated_by_task_and_logged_without_pixels(self, tmp_path: Path) -> None:
        steps: list[Any] = []
        run(tmp_path, progress=steps.append).run()
        assert [step["stage"] for step in steps] == [0, 0, 1, 1]
        assert all(step["ratio_error_1"] < 1e-5 for step in steps if step["flat_groups"] < step["groups"])
        assert sum(step["flat_groups"] < step["groups"] for step in steps) >= 3
        rows = list(read_metrics(tmp_path / EVALUATIONS))
        assert [row["after"] for row in rows] == [0, 1, 2]
        assert {f"correct-{name}" for name in ("colour", "count", "relation")} <= rows[-1]["measures"].keys()
        asked = rows[0]["examples"]
        assert len(asked) == 16 and [one["task"] for one in asked] == [one["task"] for one in rows[-1]["examples"]]
        assert all((tmp_path / PICTURES / one["pictures"][0]).is_file() for one in asked)
        page = write_stages(tmp_path)
        assert page is not None
        text = page.read_text()
        assert text.count("data:image/png;base64,") == 16 and text.count("<small>after 2</small>") == 16
        assert "img-src data:" in text and "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
        [first, *_] = sorted((tmp_path / "trajectories").glob("*"))
        text = first.read_text()
        told = json.loads(text.splitlines()[0])["decisions"][0]["observation"]["pictures"]
        assert told[0].keys() == {"size", "digest"} and len(text) < 200_000

    def test_a_killed_run_goes_on_to_the_same_numbers(self, tmp_path: Path) -> None:
        whole = run(tmp_path / "whole")
        whole.run()
        with pytest.raises(Killed):
            run(tmp_path / "killed", progress=killed_after(3)).run()
        again = run(tmp_path / "killed")
        again.run(resume=True)
        assert digest(whole.policies["viewer"].state()) == digest(again.policies["viewer"].state())


class TestBundled:
    """The base that comes with the package, and the recipe that it is for."""

    def test_it_is_small_and_answers_as_its_card_says(self) -> None:
        folder = bundled_folder("bundled-viewer")
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 2_000_000
        tasks = AerialData(split="validation", questions=160).tasks(0)
        runs = play(UavSettings(style="compact", reply=40).build, tasks, {"viewer": Seat(open_role("bundled-viewer"))})
        measured = [run.trajectory.facts["measures"] for (run,) in runs]
        assert sum(one["format"] for one in measured) / 160 > 0.97
        assert 0.54 < sum(one["correct"] for one in measured) / 160 < 0.72, "0.63 of 800"

    def test_its_recipe_goes_through_all_its_stages(self, tmp_path: Path) -> None:
        whole = load_recipe("uav")
        few = replace(whole.evaluations["validation"], questions=8)
        stages = tuple(
            replace(stage, steps=1, tasks=8, siblings=min(2, stage.siblings), replay=min(stage.replay, 0.25))
            for stage in whole.stages
        )
        train(replace(whole, stages=stages, evaluations={"validation": few}), tmp_path)
        metrics = list(read_metrics(tmp_path / "metrics.jsonl"))
        assert [step["kind"] for step in metrics] == ["sft", "rl", "rl", "rl"]
        assert all(step["tokens"] > 0 for step in metrics)
        assert len((tmp_path / EVALUATIONS).read_text().splitlines()) == 5
        page = write_stages(tmp_path)
        assert page is not None and "data:image/png" in page.read_text()
