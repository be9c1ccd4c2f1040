"""Agents that recipes put together: combinations train, wrong ones are refused, packages add parts."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from choosers import tiny_chooser
from memorist.agents.composed import PARTS
from memorist.catalogue import BUILT_IN
from memorist.decision import Action, Decision, Distribution, Observation, Reward, Trajectory
from memorist.errors import PolicyError, RecipeError
from memorist.evaluation.runs import train
from memorist.memory.embed import HashedEmbedder
from memorist.models.choices import RerankerPolicy
from memorist.models.registry import open_role
from memorist.models.reranker import LinearReranker
from memorist.models.rows import Unit
from memorist.models.sampler import Request
from memorist.recipe import Stage, load_recipe, read_recipe
from memorist.tasks.world import generate
from memorist.training.credit import How, credit
from memorist.training.devices import Devices
from memorist.training.learner import Learner
from memorist.training.metrics import MEASURED
from memorist.training.rollout import Run

ROLES = {"manager": "manager", "merge": "updater", "topics": "extractor", "model": "extractor", "learned": "reranker",
         "distilling": "answerer", "citing": "answerer", "chooser": "chooser"}  # fmt: skip


def composed(  # type: ignore[no-untyped-def]
    stage: dict[str, object] | None = None, data: dict[str, object] | None = None, chooser: str = "", **parts: str
):
    """A recipe of one step; every model is the bundled base, a reranker is linear, a chooser lies in a folder."""
    roles = [ROLES[name] for name in {"updater": "add", "answerer": "distilling", **parts}.values() if name in ROLES]
    models = {role: {"reranker": "linear@0.1", "chooser": chooser}.get(role, "bundled") for role in roles}
    wanted = {"role": roles[0], "cut": "whole", "steps": 1, "tasks": 2, "siblings": 2, "rule": "grpo"}
    return read_recipe(
        {
            "agent": {"name": "composed", "style": "compact", "shown": 3, "found": 6, "reply": 8, **parts},
            "models": models,
            "data": {"kind": "dialogues", **(data or {})},
            "stages": [wanted | (stage or {})],
        }
    )


def sampled(count: int) -> list[dict[str, str]]:
    """Combinations in which something learns, the same in every run."""
    names = [list(BUILT_IN[f"{part}s"]) for part in PARTS]
    every = [dict(zip(PARTS, chosen, strict=True)) for chosen in product(*names)]
    return random.Random(0).sample([c for c in every if any(name in ROLES for name in c.values())], count)


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with two dialogues of three turns and two questions."""
    found = generate("train", 2)
    for sample in found:
        talk = sample["conversation"]
        sample["conversation"] = {
            k: v for k, v in talk.items() if not k.startswith("session_") or k.startswith("session_1_")
        }
        sample["conversation"]["session_1"] = talk["session_1"][:3]
        sample["qa"] = sample["qa"][:2]
    file = tmp_path_factory.mktemp("short") / "short.json"
    file.write_text(json.dumps(found))
    return str(file)


@pytest.mark.promise
@pytest.mark.parametrize("parts", sampled(12), ids=lambda parts: "-".join(parts.values()))
def test_combinations_train_a_step(parts: dict[str, str], tmp_path: Path, short: str) -> None:
    tiny_chooser().save(tmp_path / "chooser")
    trainer = train(composed(data={"file": short}, chooser=str(tmp_path / "chooser"), **parts), tmp_path)
    [metrics] = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert metrics["step"] == 1
    assert (tmp_path / "policies" / trainer.recipe.stages[0].role).exists()


class TestRefused:
    @pytest.mark.parametrize(
        ("parts", "given", "message"),
        [
            ({"extractor": "statments"}, {}, "'statements'"),
            ({"reranker": "learned"}, {"models": {"manager": "bundled"}}, "'composed': reranker, answerer"),
            ({}, {"data": {"kind": "dialogues", "rewards": ["citations"]}}, r"agent\.reranker: learned"),
            ({}, {"data": {"kind": "dialogues", "rewards": []}}, "at least one"),
            ({}, {"data": {"kind": "dialogues", "bank": "minlm"}}, "'minilm'"),
            ({}, {"data": {"kind": "long-document"}}, "dialogues"),
            ({"reranker": "learned", "shown": 30}, {}, "no more than are found"),
        ],
    )
    def test_what_does_not_fit_is_said_before_anything_runs(self, parts, given, message) -> None:  # type: ignore[no-untyped-def]
        plain = {"agent": {"name": "composed", **parts}, "models": {"answerer": "bundled"}, **given}
        with pytest.raises(RecipeError, match=message):
            read_recipe(plain)

    def test_an_extractor_of_sessions_is_not_memory_r1s(self) -> None:
        with pytest.raises(RecipeError, match="reads whole sessions or asks a model"):
            read_recipe({"agent": {"name": "memory-r1", "extract": "topics"}})

    def test_a_reranker_has_no_adapters(self, tmp_path: Path, short: str) -> None:
        recipe = composed({}, {"rewards": ["evidence"], "file": short}, reranker="learned", answerer="silent")
        with pytest.raises(RecipeError, match=r"weights\.lora"):
            train(replace(recipe, weights=replace(recipe.weights, lora=4)), tmp_path)

    @pytest.mark.parametrize("stage", [{"rule": "ppo"}, {"entropy": 0.1}])
    def test_a_reranker_does_not_learn_as_text_does(self, stage: dict[str, object], tmp_path: Path, short: str) -> None:
        parts = {"updater": "add", "reranker": "learned", "answerer": "silent"}
        with pytest.raises(RecipeError, match="writes no tokens"):
            train(composed(stage, {"rewards": ["evidence"], "file": short}, **parts), tmp_path)


def test_memory_r1_rmm_and_the_style_of_memfactory_are_recipes() -> None:
    for name, parts in (
        ("memory-r1-composed", ("statements", "manager", "nearest", "keep", "distilling")),
        ("rmm", ("turns", "add", "nearest", "learned", "silent")),
        ("rmm-full", ("topics", "merge", "nearest", "learned", "citing")),
        ("memfactory", ("model", "manager", "fused", "learned", "distilling")),
    ):
        agent = load_recipe(name).agent
        assert tuple(getattr(agent, part) for part in PARTS) == parts, name


@pytest.mark.promise
def test_memory_r1_put_together_learns_as_memory_r1_does(tmp_path: Path) -> None:
    seen = []
    for name in ("memory-r1-demo", "memory-r1-composed"):
        recipe = load_recipe(name)
        stage = replace(recipe.stages[0], steps=1, tasks=4, leads=10, dialogues=2)
        train(replace(recipe, stages=(stage,), data=replace(recipe.data, dialogues=2)), tmp_path / name)  # type: ignore[type-var]
        [line] = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        seen.append({k: v for k, v in json.loads(line).items() if k not in MEASURED})
    assert seen[0] == seen[1]


def ask(policy: RerankerPolicy, seed: int, options: tuple[str, ...] = ("tea", "a dog", "Rome", "rain")) -> Decision:
    seen = Observation("what does Anna drink?", options=options, choose=2)
    [action] = policy.sample([Request(seen, Distribution(), seed)])
    return Decision("reranker", policy.name, seen, action)


def made(size: int = 12) -> RerankerPolicy:
    return RerankerPolicy(LinearReranker(HashedEmbedder(size), tau=0.3), "r")


class TestChoices:
    def test_a_choice_is_scored_as_it_was_drawn(self) -> None:
        policy = made()
        with torch.no_grad():
            policy._weights["query"] += 0.1 * torch.randn(12, 12, dtype=torch.float64)
        decisions = [ask(policy, seed) for seed in range(6)]
        units = [Unit(d.action, 1.0, 0.5, seen=d.observation) for d in decisions]
        [batch] = policy.rows(units, 100)
        assert policy.score(batch).tolist() == pytest.approx(batch.old.tolist(), abs=1e-6)
        assert [len(b.units) for b in policy.rows(units, 5)] == [2, 2, 2]

    def test_a_step_of_the_trainer_is_the_rerankers_own(self) -> None:
        policy, alone = made(), LinearReranker(HashedEmbedder(12), tau=0.3)
        decisions = [ask(policy, seed) for seed in range(4)]
        values = [[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]
        runs = [
            [Run(None, Trajectory("t", 0, (d,), tuple(Reward("c", v, 0, (i, i + 1)) for i, v in enumerate(own))))]
            for d, own in zip(decisions, values, strict=True)
        ]
        stage = Stage(role="reranker", rule="fixed", baseline=0.5, siblings=1, optimizer="sgd", lr=0.4, warmup=1,
                      grad_norm=1e9)  # fmt: skip
        Learner(stage, policy, {}, Devices()).update(0, runs, 0)
        seen = [
            (d.observation.prompt, d.observation.options, d.action.choice, v)
            for d, v in zip(decisions, values, strict=True)
        ]
        # The trainer takes the mean over draws, the reranker over questions: two draws each.
        alone.learn(seen, rate=0.2, baseline=0.5)
        assert np.abs(policy.reranker.query).max() > 1e-3
        assert policy.reranker.query == pytest.approx(alone.query, abs=1e-8)
        assert policy.reranker.memory == pytest.approx(alone.memory, abs=1e-8)

    def test_what_earned_nothing_teaches_nothing(self) -> None:
        run = Run(None, Trajectory("t", 0, (ask(made(), 0),), ()))
        [unit] = credit([[run]], "reranker", how=How("fixed", baseline=0.5)).units
        assert unit.advantage == 0

    def test_a_twin_learns_on_its_own_and_a_frozen_one_not(self) -> None:
        policy = made()
        twin, frozen = policy.twin("twin"), policy.frozen("frozen")
        with torch.no_grad():
            twin._weights["query"] += 1
        assert not policy.reranker.query.any()
        assert frozen.parameters() == []
        policy.restore(twin.state())
        assert policy.reranker.query.all()

    def test_imitation_names_options(self) -> None:
        seen = Observation("q", options=("a", "b", "c"), choose=2)
        assert made().encode(seen, "2 0").choice == (2, 0)
        for wrong in ("2 2", "3", "a", "-1"):
            with pytest.raises(PolicyError, match="3 options"):
                made().encode(seen, wrong)

    def test_a_choice_that_is_not_known_is_refused(self) -> None:
        with pytest.raises(PolicyError, match="observation"):
            made().rows([Unit(Action("0", tokens=(0,), logprobs=(0.0,)), 1.0, 1.0)], 10)

    def test_a_run_saves_a_reranker_that_opens_again(self, tmp_path: Path) -> None:
        train(
            composed({"lr": 0.1}, {"rewards": ["evidence"]}, updater="add", reranker="learned", answerer="silent"),
            tmp_path,
        )
        again = open_role(str(tmp_path / "policies" / "reranker"))
        assert again.reranker.tau == 0.1


@pytest.mark.promise
def test_a_package_that_pip_installed_adds_a_part(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "picky").mkdir(parents=True)
    (package / "picky" / "__init__.py").write_text(
        '"""Parts."""\n\n\nclass Nothing:\n    """Remembers nothing at all."""\n\n    roles = ()\n\n'
        "    async def write(self, facts, bank, scope):\n        return []\n"
    )
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "picky"\nversion = "1"\n[tool.setuptools]\npackages = ["picky"]\n'
        '[project.entry-points."memorist.updaters"]\nnothing = "picky:Nothing"\n'
    )
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, str(package)], check=True, capture_output=True)
    code = (
        "from memorist.recipe import read_recipe\n"
        "from memorist.cli.components import components\n"
        "components('updaters')\n"
        "agent = {'name': 'composed', 'updater': 'nothing'}\n"
        "print(read_recipe({'agent': agent, 'models': {'answerer': 'bundled'}}).agent)"
    )
    path = f"{target}:{Path(__file__).parent.parent / 'src'}"
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert "nothing  Remembers nothing at all. [from picky]" in run.stdout
    assert "updater='nothing'" in run.stdout
