"""Stages that follow each other: their own data, what is replayed, what is evaluated in between, what they require."""
# ruff: noqa: F811

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

pytest.importorskip("torch")
pytest.importorskip("transformers")

from memorist.decision import Observation
from memorist.errors import RecipeError, TrainingError
from memorist.evaluation.stages import write_stages
from memorist.models.causal import CausalPolicy
from memorist.recipe import Recipe, Stage, read_recipe
from memorist.training.distillation import divergence
from memorist.training.metrics import read_metrics
from memorist.training.reward_model import RewardModel
from memorist.training.stages import EVALUATIONS, MANIFEST, Exercises, digest
from memorist.training.trainer import Trainer
from test_trainer import LEVERS, RL, Killed, Lever, Puller, base, fresh, killed_after, taught  # noqa: F401

FIRST, SECOND = "first", "second"


@dataclass(frozen=True)
class Levers:
    """Data of levers."""

    kind: str = "levers"
    name: str = FIRST
    count: int = 4

    exercise: ClassVar[str] = "lever"

    def check(self, where: str = "data") -> None:
        """Anything goes."""

    def tasks(self, seed: int) -> list[Lever]:
        return [Lever(f"{self.name} {i}") for i in range(self.count)]


STAGE = replace(RL, steps=2)
RECIPE = Recipe(
    name="levers", seed=1, models={"arm": "tiny", "advisor": "tiny"}, checkpoint_every=1, log_every=0,
    stages=(replace(STAGE, data=Levers()), replace(STAGE, data=Levers(name=SECOND), replay=0.5, tasks=4)),
    evaluations={FIRST: Levers(), SECOND: Levers(name=SECOND)},
)  # fmt: skip


def run(base: CausalPolicy, folder: Path, recipe: Recipe = RECIPE, **how: Any) -> Trainer:
    policies = {"arm": fresh(base), "advisor": fresh(base)}
    return Trainer(recipe, Puller, LEVERS, folder, policies=policies, **how)


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(read_metrics(folder / EVALUATIONS))


class TestData:
    def test_a_stage_draws_from_its_own_data_and_a_share_from_that_of_those_before(self) -> None:
        exercises = Exercises(RECIPE, LEVERS)
        first = [task.id for step in range(9) for task in exercises.drawn(0, RECIPE.stages[0], step, 4)]
        second = [task.id for step in range(9) for task in exercises.drawn(1, RECIPE.stages[1], step, 4)]
        assert set(first) == {f"{FIRST} {i}" for i in range(4)}
        assert sum(name.startswith(FIRST) for name in second) == 18 and set(first) < set(second)
        own = [name for name in second if name.startswith(SECOND)]
        assert all(own.count(name) in (4, 5) for name in own)  # passes over its own
        assert second == [task.id for step in range(9) for task in exercises.drawn(1, RECIPE.stages[1], step, 4)]

    def test_without_data_of_its_own_a_stage_has_the_recipe_s(self) -> None:
        assert Exercises(RECIPE, LEVERS).of(0, RL) is LEVERS


class TestEvaluations:
    def test_all_are_made_before_the_first_stage_and_after_each(self, base: CausalPolicy, tmp_path: Path) -> None:
        said: list[str] = []
        run(base, tmp_path, say=said.append).run()
        assert [(row["after"], row["name"]) for row in rows(tmp_path)] == [
            (after, name) for after in range(3) for name in (FIRST, SECOND)
        ]
        assert all(row["tasks"] == 4 and 0 <= row["measures"]["won"] <= 1 for row in rows(tmp_path))
        assert said[0] == "evaluating first before the first stage" and said[-1] == "evaluating second after stage 2"

    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_a_killed_run_has_the_same_ones_in_the_end(self, base: CausalPolicy, tmp_path: Path, steps: int) -> None:
        run(base, tmp_path / "whole").run()
        with pytest.raises(Killed):
            run(base, tmp_path / "killed", progress=killed_after(steps)).run()
        with open(tmp_path / "killed" / EVALUATIONS, "a") as torn:
            torn.write('{"after": 0, "na')
        run(base, tmp_path / "killed").run(resume=True)
        assert rows(tmp_path / "whole") == rows(tmp_path / "killed")
        whole, killed = (json.loads((tmp_path / name / MANIFEST).read_text()) for name in ("whole", "killed"))
        for manifest in (whole, killed):
            for stage in manifest["stages"]:
                assert stage.pop("seconds") > 0
        assert whole == killed

    def test_one_that_is_killed_between_stages_makes_up_for_what_is_missing(
        self, base: CausalPolicy, tmp_path: Path
    ) -> None:
        def killed(text: str) -> None:
            if text == "evaluating second after stage 1":
                raise Killed

        with pytest.raises(Killed):
            run(base, tmp_path, say=killed).run()
        assert [(row["after"], row["name"]) for row in rows(tmp_path)][-1] == (1, FIRST)
        run(base, tmp_path).run(resume=True)
        assert len(rows(tmp_path)) == 6

    def test_the_manifest_says_what_was_done(self, base: CausalPolicy, tmp_path: Path) -> None:
        policies = run(base, tmp_path).run()
        manifest = json.loads((tmp_path / MANIFEST).read_text())
        assert manifest["recipe"] == RECIPE.fingerprint() and manifest["name"] == "levers"
        first, second = manifest["stages"]
        assert (first["stage"], first["kind"], first["role"], first["steps"], first["tasks"]) == (1, "rl", "arm", 2, 4)
        assert first["data"]["name"] == FIRST and second["data"]["name"] == SECOND
        assert second["weights"] == digest(policies["arm"].state()) != first["weights"]
        assert second["evaluations"][FIRST] == rows(tmp_path)[-2]["measures"]

    def test_a_page_shows_what_every_stage_did_to_every_task(self, base: CausalPolicy, tmp_path: Path) -> None:
        assert write_stages(tmp_path) is None
        run(base, tmp_path).run()
        shown = write_stages(tmp_path)
        assert shown is not None
        text = shown.read_text(encoding="utf-8")
        assert (
            text.count("<svg") == 1 and text.count("<h2>") == 2 and "after 2" in text and "default-src 'none'" in text
        )


class TestRequire:
    def test_a_stage_that_does_not_reach_it_ends_the_run_and_again_when_it_goes_on(
        self,
        base: CausalPolicy,
        tmp_path: Path,
    ) -> None:
        stages = (replace(RECIPE.stages[0], require={"first.won": 1.1}), RECIPE.stages[1])
        for resume in (False, True):
            with pytest.raises(TrainingError, match=r"stage 1 requires first\.won to be 1\.1 or more, and it is"):
                run(base, tmp_path, replace(RECIPE, stages=stages)).run(resume=resume)
        assert {row["stage"] for row in read_metrics(tmp_path / "metrics.jsonl")} == {0}

    def test_what_is_not_measured_is_named(self, base: CausalPolicy, tmp_path: Path) -> None:
        stages = (replace(RECIPE.stages[0], require={"first.right": 0.0}),)
        with pytest.raises(TrainingError, match=r"is not measured \(known: won"):
            run(base, tmp_path, replace(RECIPE, stages=stages)).run()

    def test_one_that_reaches_it_goes_on(self, base: CausalPolicy, tmp_path: Path) -> None:
        stages = (replace(RECIPE.stages[0], require={"first.won": 0.0}), RECIPE.stages[1])
        run(base, tmp_path, replace(RECIPE, stages=stages)).run()
        assert {row["stage"] for row in read_metrics(tmp_path / "metrics.jsonl")} == {0, 1}


class TestReference:
    def test_the_start_can_be_that_of_the_run(self, base: CausalPolicy, tmp_path: Path) -> None:
        """A strong pull to the start of the run leads back to it; one to the start of the stage does not."""
        far = replace(STAGE, steps=6, lr=1e-2, warmup=1)
        found: dict[str, float] = {}
        for reference in ("stage", "run"):
            back = replace(far, beta=20.0, kl="k2", reference=reference, rewards={"won": 0.0}, lr=1e-2, steps=40)
            recipe = replace(RECIPE, stages=(far, back), evaluations={})
            seen: list[Mapping[str, Any]] = []
            run(base, tmp_path / reference, recipe, progress=seen.append).run()
            assert seen[6]["kl_1"] == pytest.approx(0, abs=1e-6) if reference == "stage" else seen[6]["kl_1"] > 0.01
            found[reference] = seen[-1]["kl_1"]
        assert found["run"] < 0.5 * seen[6]["kl_1"]

    def test_a_run_that_goes_on_has_the_same_start(self, base: CausalPolicy, tmp_path: Path) -> None:
        stage = replace(STAGE, beta=0.5, reference="run", steps=3)
        recipe = replace(RECIPE, stages=(STAGE, stage), evaluations={})
        whole = run(base, tmp_path / "whole", recipe).run()
        with pytest.raises(Killed):
            run(base, tmp_path / "killed", recipe, progress=killed_after(4)).run()
        again = run(base, tmp_path / "killed", recipe).run(resume=True)
        assert digest(whole["arm"].state()) == digest(again["arm"].state())


@pytest.mark.parametrize(
    ("stage", "more", "said"),
    [
        ({"replay": 0.2}, {}, "expected 0 in a first stage"), ({"replay": 1.0}, {}, "below 1"),
        ({"reference": "base"}, {}, "stage"), ({"require": {"won": 1}}, {}, "EVALUATION.MEASURE"),
        ({"require": {"held-out.won": 1}}, {}, "the recipe has none"),
        ({"require": {"held.won": 1}}, {"evaluations": {"held-out": {"split": "validation"}}}, "held-out"),
        ({}, {"evaluations": {"held-out": {"kind": "household"}}}, "expected data.kind dialogues"),
        ({"data": {"kind": "household"}}, {}, "expected data.kind dialogues"),
        ({"data": {"dialogues": 0}}, {}, "dialogues"),
        ({"kind": "distill", "teacher": "similarity"}, {}, "a heuristic"),
        ({"paths": "teacher"}, {}, "are of kind 'distill'"),
        ({"kind": "distill", "teacher": "bundled", "align": 1.0}, {}, "paths 'teacher'"),
        ({"kind": "distill", "teacher": "bundled", "divergence": "forward"}, {}, "paths 'teacher'"),
        ({"kind": "distill", "teacher": "bundled", "divergence": "foreward"}, {}, "did you mean 'forward'"),
        ({"kind": "distill", "teacher": "bundled", "paths": "others"}, {}, "paths"),
        ({"data": 5}, {}, "expected keys and values"), ({"rewards_from": -1}, {}, "0 .at once"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_with_what_is_right(stage: dict[str, Any], more: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_recipe({"stages": [stage], **more})


def test_a_stage_s_own_data_is_read_and_written() -> None:
    read = read_recipe({"stages": [{"data": {"dialogues": 7}}, {}], "evaluations": {"a": {"dialogues": 3}}})
    assert read.stages[0].data.dialogues == 7 and read.stages[1].data is None  # type: ignore[union-attr]
    assert isinstance(read.stages[0], Stage) and read.evaluations["a"].dialogues == 3  # type: ignore[attr-defined]


class TestJudges:
    """A judge learns from pairs in a stage of its own, and its opinion is a reward term from then on."""

    def recipe(self, steps: int = 6) -> Recipe:
        pairs, held_out = PairsOfLevers(), PairsOfLevers(first=500, count=40)
        judge = Stage(kind="reward", role="judge", data=pairs, steps=steps, tasks=8, lr=1e-2, warmup=1)
        return replace(
            RECIPE, judges={"judge": "arm"}, evaluations={"pairs": held_out, FIRST: Levers()},
            stages=(judge, replace(STAGE, data=Levers(), rewards={"won": 0.0})),
        )  # fmt: skip

    def test_what_it_learnt_becomes_a_term_of_later_stages(self, base: CausalPolicy, tmp_path: Path) -> None:
        seen: list[Mapping[str, Any]] = []
        trained = run(base, tmp_path, self.recipe(40), progress=seen.append)
        policies = trained.run()
        first, *_, after_judge, _, _, _ = [row["measures"] for row in rows(tmp_path)]
        assert first == {} and after_judge["judge"] >= 0.9
        assert (
            seen[0]["steps"] == 40
            and seen[0]["kind"] == "reward"
            and seen[39]["reward"] > 0.9
            and "judge" not in seen[39]["terms"]
        )
        assert 0 < seen[40]["terms"]["judge"] < 1 and seen[40]["reward"] == pytest.approx(seen[40]["terms"]["judge"])
        assert "judge" in rows(tmp_path)[-1]["measures"]
        manifest = json.loads((tmp_path / MANIFEST).read_text())["stages"]
        assert manifest[0]["kind"] == "reward" and manifest[0]["weights"] == digest(
            trained.judges.models["judge"].state()
        )
        again = RewardModel.load(tmp_path / "judges" / "judge")
        assert digest(again.state()) == manifest[0]["weights"] and policies.keys() == {"arm", "advisor"}

    @pytest.mark.parametrize("steps", [2, 5, 6, 7])
    def test_a_killed_run_goes_on_to_the_same_numbers(self, base: CausalPolicy, tmp_path: Path, steps: int) -> None:
        whole = run(base, tmp_path / "whole", self.recipe())
        whole.run()
        with pytest.raises(Killed):
            run(base, tmp_path / "killed", self.recipe(), progress=killed_after(steps)).run()
        again = run(base, tmp_path / "killed", self.recipe())
        again.run(resume=True)
        assert rows(tmp_path / "whole") == rows(tmp_path / "killed")
        for one, other in (
            (whole.policies["arm"], again.policies["arm"]),
            (whole.judges.models["judge"], again.judges.models["judge"]),
        ):
            assert digest(one.state()) == digest(other.state())

    def test_a_stage_can_require_that_it_ranks_pairs(self, base: CausalPolicy, tmp_path: Path) -> None:
        recipe = self.recipe(1)
        hard = replace(recipe, stages=(replace(recipe.stages[0], require={"pairs.judge": 1.1}), recipe.stages[1]))
        with pytest.raises(TrainingError, match=r"requires pairs\.judge"):
            run(base, tmp_path, hard).run()

    @pytest.mark.parametrize(("asked", "said"), [("plain.judge", "on data of pairs"), ("pairs.won", "judge-steps")])
    def test_what_no_evaluation_measures_cannot_be_required(self, asked: str, said: str) -> None:
        notebook = {"agent": {"name": "datarus"}, "models": {"analyst": "bundled"}, "data": {"kind": "notebook"}}
        stage = {"kind": "reward", "role": "judge", "data": {"kind": "notebook-pairs"}, "require": {asked: 0.5}}
        tried = {"plain": {"kind": "notebook"}, "pairs": {"kind": "notebook-pairs"}}
        with pytest.raises(RecipeError, match=said):
            read_recipe(notebook | {"judges": {"judge": "analyst"}, "evaluations": tried, "stages": [stage]})

    @pytest.mark.parametrize(
        ("recipe", "said"),
        [
            ({"stages": [{"kind": "reward", "role": "judge"}]}, "none yet"),
            ({"judges": {"judge": "manager"}, "stages": [{"kind": "reward", "role": "judge"}]}, "data of pairs"),
            ({"judges": {"judge": "boss"}}, "manager"),
            ({"judges": {"judge": "manager"}, "stages": [{"rule": "counterfactual"}]}, "no stage of kind 'reward'"),
            ({"judges": {"manager": "manager"}, "stages": [{"kind": "reward", "role": "manager"}]}, "is a role's name"),
            ({"stages": [{"cut": "whole"}, {"cut": "whole", "replay": 0.01}]}, "a share of one task or more"),
            ({"stages": [{"cut": "turns"}, {"cut": "whole", "replay": 0.5}]}, "whose tasks are whole"),
        ],
    )
    def test_wrong_settings_are_refused(self, recipe: dict[str, Any], said: str) -> None:
        with pytest.raises(RecipeError, match=said):
            read_recipe(recipe)


DISTILL = Stage(kind="distill", role="arm", cut="whole", data=Levers())


class TestDistillation:
    def teacher(self, base: CausalPolicy, folder: Path) -> Path:
        """One that always pulls what is right."""
        policy = fresh(base)
        taught(policy, [f"{FIRST} {i}:" for i in range(8)], ("right",), steps=40)
        policy.save(folder)
        return folder

    def test_a_policy_comes_to_do_what_its_teacher_would(self, base: CausalPolicy, tmp_path: Path) -> None:
        teacher = self.teacher(base, tmp_path / "teacher")
        stage = replace(DISTILL, teacher=str(teacher), steps=25, tasks=4, siblings=4, lr=1e-2)
        recipe = replace(RECIPE, stages=(stage,), evaluations={FIRST: Levers(count=8)})
        seen: list[Mapping[str, Any]] = []
        run(base, tmp_path / "run", recipe, progress=seen.append).run()
        assert seen[-1]["kl_1"] < 0.3 * seen[0]["kl_1"] and seen[0]["kl_1"] > 0.2
        before, after = (row["measures"]["won"] for row in rows(tmp_path / "run"))
        assert after == 1.0 > before or after == before == 1.0
        sampled = [row["terms"]["won"] for row in seen]
        assert sum(sampled[-5:]) / 5 > sum(sampled[:5]) / 5 + 0.2

    def test_a_run_that_goes_on_gives_the_same(self, base: CausalPolicy, tmp_path: Path) -> None:
        teacher = self.teacher(base, tmp_path / "teacher")
        stage = replace(DISTILL, teacher=str(teacher), steps=4, tasks=2, siblings=1)
        recipe = replace(RECIPE, stages=(stage,), evaluations={})
        whole = run(base, tmp_path / "whole", recipe).run()
        with pytest.raises(Killed):
            run(base, tmp_path / "killed", recipe, progress=killed_after(3)).run()
        again = run(base, tmp_path / "killed", recipe).run(resume=True)
        assert digest(whole["arm"].state()) == digest(again["arm"].state())

    @pytest.mark.parametrize("which", ["reverse", "forward"])
    def test_along_a_teachers_path_a_policy_comes_to_hold_for_likely_what_it_does(
        self, base: CausalPolicy, tmp_path: Path, which: str
    ) -> None:
        teacher = self.teacher(base, tmp_path / "teacher")
        stage = replace(
            DISTILL, teacher=str(teacher), paths="teacher", divergence=which, steps=25, tasks=4, siblings=1, lr=1e-2
        )
        recipe = replace(RECIPE, stages=(stage,), evaluations={FIRST: Levers(count=8)})
        seen: list[Mapping[str, Any]] = []
        run(base, tmp_path / "run", recipe, progress=seen.append).run()
        assert all(row["terms"]["won"] == 1.0 for row in seen)  # the teacher acted
        assert seen[-1]["divergence_1"] < 0.2 * seen[0]["divergence_1"] and seen[0]["divergence_1"] > 0.2
        before, after = (row["measures"]["won"] for row in rows(tmp_path / "run"))
        assert after == 1.0 > before or after == before == 1.0

    def test_layers_can_be_brought_together(self, base: CausalPolicy, tmp_path: Path) -> None:
        teacher = self.teacher(base, tmp_path / "teacher")
        found = {}
        for align in (0.0, 10.0):
            stage = replace(
                DISTILL, teacher=str(teacher), paths="teacher", align=align, steps=12, tasks=4, siblings=1, lr=3e-3
            )
            seen: list[Mapping[str, Any]] = []
            recipe = replace(RECIPE, stages=(stage,), evaluations={})
            run(base, tmp_path / f"run-{align}", recipe, progress=seen.append).run()
            found[align] = seen
        assert found[10.0][-1]["distance_1"] < 0.5 * found[10.0][0]["distance_1"]
        assert found[10.0][0]["loss_1"] > found[10.0][0]["divergence_1"] == pytest.approx(found[0.0][0]["divergence_1"])

    def test_a_teachers_path_goes_on_with_the_same_numbers(self, base: CausalPolicy, tmp_path: Path) -> None:
        teacher = self.teacher(base, tmp_path / "teacher")
        stage = replace(DISTILL, teacher=str(teacher), paths="teacher", steps=4, tasks=2, siblings=1)
        recipe = replace(RECIPE, stages=(stage,), evaluations={})
        whole = run(base, tmp_path / "whole", recipe).run()
        with pytest.raises(Killed):
            run(base, tmp_path / "killed", recipe, progress=killed_after(3)).run()
        again = run(base, tmp_path / "killed", recipe).run(resume=True)
        assert digest(whole["arm"].state()) == digest(again["arm"].state())

    @pytest.mark.parametrize(("forward", "value"), [(False, 0.099273), (True, 0.116622)])
    def test_divergences_are_those_of_the_specification(self, forward: bool, value: float) -> None:
        """Vector 6 of M1's, of (.7, .2, .1) and (.5, .25, .25); and 0 of itself."""
        policy = torch.tensor([[0.7, 0.2, 0.1, 0.0]]).log().requires_grad_()
        teacher = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log()
        found = divergence(teacher, policy) if forward else divergence(policy, teacher)
        assert float(found.detach()) == pytest.approx(value, abs=1e-6)
        found.sum().backward()
        assert policy.grad is not None and bool(policy.grad.isfinite().all()) and float(policy.grad[0, 3]) == 0.0
        assert float(divergence(policy.detach(), policy.detach())) == 0.0

    def test_a_teacher_with_other_tokens_is_refused(self, base: CausalPolicy, tmp_path: Path, make_tiny: Any) -> None:
        make_tiny(words=("other",)).save(tmp_path / "teacher")
        stage = replace(DISTILL, teacher=str(tmp_path / "teacher"))
        with pytest.raises(RecipeError, match="has other tokens"):
            run(base, tmp_path / "run", replace(RECIPE, stages=(stage,), evaluations={})).run()


@dataclass(frozen=True)
class Messages:
    """An episode of one or two messages."""

    messages: tuple[tuple[Observation, str], ...]
    right: tuple[bool, ...]


@dataclass(frozen=True)
class PairsOfLevers:
    """Pairs: to pull what is right is better."""

    kind: str = "pairs-of-levers"
    first: int = 0
    count: int = 60

    exercise: ClassVar[str] = "lever"

    def check(self, where: str = "data") -> None:
        """Anything goes."""

    def tasks(self, seed: int) -> list[Lever]:
        return [Lever(f"lever {self.first + i}") for i in range(self.count)]

    def pairs(self, agent: Any, seed: int) -> list[Any]:
        def episode(task: Lever, *arms: str) -> Messages:
            seen = [Observation(f"{task.id}:"), *(Observation("again:") for _ in arms[1:])]
            return Messages(tuple(zip(seen, arms, strict=True)), tuple(arm == "right" for arm in arms))

        return [
            SimpleNamespace(better=episode(task, "right", "right"), worse=episode(task, "wrong", "right"))
            for task in self.tasks(seed)
        ]
