"""Recipes are read strictly: what is wrong is named with its place and what would be right."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from memorist.agents.memory_r1 import MemoryR1Settings
from memorist.errors import RecipeError
from memorist.recipe import Recipe, Stage, available, load_recipe, read_recipe, to_plain
from memorist.tasks.dialogue import DialogueData

FULL = Recipe(
    name="x",
    seed=3,
    agent=MemoryR1Settings(style="full", k=2),
    models={"manager": "bundled", "answerer": "/models/a"},
    data=DialogueData(split="test", questions=152),
    stages=(Stage(lr=1e-3, siblings=4), Stage(kind="rejection", role="answerer", cut="questions")),
)


@pytest.mark.parametrize(
    ("data", "place", "nearest"),
    [
        ({"sead": 1}, "recipe", "'seed'"),
        ({"agent": {"stile": "full"}}, "agent", "'style'"),
        ({"data": {"dialogue": 4}}, "data", "'dialogues'"),
        ({"stages": [{}, {"sibling": 4}]}, "stages[1]", "'siblings'"),
        ({"stages": [{"kind": "lr"}]}, "stages[0]", "'rl'"),
        ({"stages": [{"kind": "reject"}]}, "stages[0]", "'rejection'"),
        ({"stages": [{"role": "manger"}]}, "stages[0]", "'manager'"),
        ({"qwertz": 1}, "recipe", "valid: agent, "),
        ({5: 1}, "recipe", "valid: agent, "),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest(data: Any, place: str, nearest: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(data)
    assert place in str(caught.value) and nearest in str(caught.value)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (None, "recipe"),
        ([], "recipe"),
        ("x", "recipe"),
        ({"seed": "1"}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": None}, "seed"),
        ({"name": 5}, "name"),
        ({"agent": "memory-r1"}, "agent"),
        ({"agent": {"k": "five"}}, "k"),
        ({"models": ["bundled"]}, "models"),
        ({"models": {"manager": None}}, "models.manager"),
        ({"models": {"manager": ["bundled"]}}, "models.manager"),
        ({"stages": {"kind": "rl"}}, "stages"),
        ({"stages": ["rl"]}, "stages[0]"),
        ({"stages": [{"lr": "fast"}]}, "lr"),
        ({"stages": [{"lr": True}]}, "lr"),
        ({"stages": [{"lr": [1]}]}, "lr"),
        ({"stages": [{"lr": "nan"}]}, "lr"),
        ({"stages": [{"lr": float("inf")}]}, "lr"),
        ({"stages": [{"lr": 10**400}]}, "lr"),
        ({"stages": [{"steps": 2.5}]}, "steps"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(data: Any, place: str) -> None:
    with pytest.raises(RecipeError, match="expected") as caught:
        read_recipe(data, "run.yaml")
    assert place in str(caught.value) or "run.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"log_every": -1}, "log_every is -1; expected 0 (no trajectories)"),
        ({"data": {"dialogues": 0}}, "data.dialogues is 0"),
        ({"stages": [{"siblings": 1}]}, "siblings is 1; 'grpo' compares siblings"),
        ({"stages": [{"kind": "rejection", "siblings": 1}]}, "siblings is 1"),
        ({"stages": [{"lr": 0}]}, "lr is 0"),
        ({"stages": [{"lr": -1e-3}]}, "lr is -0.001"),
        ({"stages": [{"temperature": 0}]}, "temperature is 0"),
        ({"stages": [{"top_k": -1}]}, "top_k is -1; expected 0 (all tokens) or more"),
        ({"stages": [{"again": 1}]}, "again is 1; expected a share"),
        ({"stages": [{"cooldown": 1.5}]}, "cooldown is 1.5; expected a share"),
        ({"stages": [{"again": -0.5}]}, "again is -0.5; expected a share"),
        ({"stages": [{"truncated": "left_out"}]}, "truncated is 'left_out'; did you mean 'left-out'?"),
        ({"stages": [{"beta": -0.1}]}, "beta is -0.1; expected 0 or more"),
        ({"stages": [{"cap": -1}]}, "cap is -1; expected 0 or more"),
        ({"stages": [{"leads": 3}]}, "checkpoint_every is 20, not a multiple of recipe: stages[0].leads (3)"),
        *(
            ({"stages": [{name: 0}]}, f"{name} is 0")
            for name in ("steps", "tasks", "dialogues", "leads", "updates", "budget")
        ),
    ],
)
def test_an_impossible_value_is_refused_before_anything_runs(data: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"models": {"manager": "bundled"}},
            "models is for manager; expected one for each role of 'memory-r1': manager, ",
        ),
        ({"models": {}}, "models is for no role"),
        ({"agent": {"name": "memory-r2"}}, "agent.name is 'memory-r2'; did you mean 'memory-r1'?"),
        ({"data": {"kind": "dialogue"}}, "data.kind is 'dialogue'; did you mean 'dialogues'?"),
        ({"agent": {"name": 5}}, "agent.name is 5; expected str"),
        ({"agent": {"extract": "sentence"}}, "agent.extract is 'sentence'; did you mean 'sentences'?"),
    ],
)
def test_parts_that_do_not_exist_or_do_not_fit_are_named_with_what_does(data: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(data)
    assert message in str(caught.value)


PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Walking:
    name: str = "walker"
    steps: int = 3
    roles: ClassVar[tuple[str, ...]] = ("legs",)
    exercise: ClassVar[str] = "walk"

    def check(self, where: str) -> None:
        pass

    def build(self, **given):
        return "a walker"
"""


def test_an_installed_package_adds_agents_by_entry_point(tmp_path: Path) -> None:
    """By hand what an installer does: the module, and its metadata beside it."""
    (tmp_path / "strange.py").write_text(PLUGIN)
    about = tmp_path / "strange-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[memorist.agents]\nwalker = strange:Walking\nmemory-r1 = strange:Walking\nbroken = strange:Nothing\n"
    )
    code = """
import sys
from memorist.errors import RecipeError
from memorist.recipe import Recipe, read_recipe
for given in {"steps": 4}, {"stairs": 4}, {"name": "broken"}:
    try:
        read_recipe({"agent": {"name": "walker"} | given, "models": {"legs": "bundled"}})
    except RecipeError as error:
        print(error)
print(type(Recipe().agent).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert "'walker' does walk tasks and data 'dialogues' gives dialogue tasks" in lines[0], done.stderr
    assert "unknown key 'stairs'; did you mean 'steps'?" in lines[1]
    assert "agent.name is 'broken', which strange:Nothing should be" in lines[2]
    assert lines[3] == "MemoryR1Settings"  # what is built in cannot be replaced


@pytest.mark.parametrize(("written", "lr"), [("5e-4", 5e-4), ("1", 1.0), ("0.01", 0.01), ("'2e-3'", 2e-3)])
def test_numbers_are_read_as_people_write_them(written: str, lr: float) -> None:
    found = read_recipe(yaml.safe_load(f"stages: [{{lr: {written}}}]")).stages[0].lr
    assert found == lr and isinstance(found, float)


def test_what_a_setting_does_not_concern_it_does_not_refuse() -> None:
    assert read_recipe({"stages": [{"kind": "sft", "siblings": 1}]}).stages[0].siblings == 1
    assert read_recipe({"stages": [{"cut": "whole", "leads": 3}]}).stages[0].leads == 3


class TestCurriculum:
    """Vectors 1 and 2 of datarus-r1.md."""

    def test_weights_go_over_into_others_along_half_a_cosine(self) -> None:
        stage = Stage(steps=100, rewards={"form": 0.9, "right": 0.1}, rewards_end={"form": 0.1, "right": 0.9})
        found = [stage.rewards_at(step)["form"] for step in (0, 25, 50, 75, 100, 150)]
        assert found == pytest.approx([0.9, 0.782843, 0.5, 0.217157, 0.1, 0.1], abs=1e-6)
        whole = Stage(steps=100, rewards={"form": 1.0}, rewards_end={"form": 0.0})
        found = [whole.rewards_at(step)["form"] for step in (0, 25, 50, 75, 100)]
        assert found == pytest.approx([1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)

    def test_what_is_preferred_changes_half_way(self) -> None:
        stage = Stage(steps=100, rewards={"form": 0.9, "right": 0.1}, rewards_end={"form": 0.1, "right": 0.9})
        worth = {
            step: [sum(w * v[name] for name, w in stage.rewards_at(step).items()) for v in (neat, true)]
            for neat, true in [({"form": 1.0, "right": 0.3}, {"form": 0.4, "right": 0.9})]
            for step in (0, 50, 100)
        }
        assert worth[0] == pytest.approx([0.93, 0.45]) and worth[50] == pytest.approx([0.65, 0.65])
        assert worth[100] == pytest.approx([0.37, 0.85])

    def test_it_begins_where_it_is_told_to_and_what_is_left_out_counts_one(self) -> None:
        stage = Stage(steps=30, rewards={"form": 0.5}, rewards_end={"right": 0.0}, rewards_from=10)
        assert stage.rewards_at(10) == {"form": 0.5, "right": 1.0}
        assert stage.rewards_at(20) == pytest.approx({"form": 0.75, "right": 0.5})
        assert Stage(rewards={"form": 0.5}).rewards_at(7) == {"form": 0.5}


def test_what_is_written_reads_back() -> None:
    assert read_recipe(to_plain(FULL)) == FULL
    assert read_recipe(yaml.safe_load(yaml.safe_dump(to_plain(FULL)))) == FULL
    assert read_recipe({}) == Recipe()


def test_a_setting_that_later_versions_add_does_not_change_the_fingerprint_of_older_recipes() -> None:
    @dataclass(frozen=True)
    class Later(Recipe):
        more: int = 3

    same = {field.name: getattr(FULL, field.name) for field in fields(FULL)}
    assert Later(**same).fingerprint() == FULL.fingerprint() != Later(**same, more=4).fingerprint()
    assert Recipe().fingerprint() == Recipe(models={"manager": "bundled", "answerer": "bundled"}).fingerprint()


def test_the_fingerprint_is_stable_and_changes_with_every_setting() -> None:
    assert FULL.fingerprint() == read_recipe(to_plain(FULL)).fingerprint()
    assert len(FULL.fingerprint()) == 12

    def variants(thing: Any) -> list[Any]:
        found = []
        for entry in dataclasses.fields(thing):
            value = getattr(thing, entry.name)
            if dataclasses.is_dataclass(value):
                found += [dataclasses.replace(thing, **{entry.name: v}) for v in variants(value)]
            elif entry.name == "stages":
                found += [dataclasses.replace(thing, stages=(v, *value[1:])) for v in variants(value[0])]
            elif isinstance(value, tuple):
                found.append(dataclasses.replace(thing, **{entry.name: (*value, "x")}))
            elif entry.name == "data" and value is None:
                found.append(dataclasses.replace(thing, data=DialogueData()))
            elif entry.name == "judges":
                found.append(dataclasses.replace(thing, judges={"judge": "manager"}))
            elif entry.name == "evaluations":
                found.append(dataclasses.replace(thing, evaluations={"held-out": DialogueData()}))
            elif entry.name in ("rewards", "rewards_end", "floors", "require"):
                found.append(dataclasses.replace(thing, **{entry.name: {"em": 0.5}}))
            elif entry.name == "models":
                found.append(dataclasses.replace(thing, models={**value, "manager": "other"}))
            else:
                found.append(dataclasses.replace(thing, **{entry.name: value + ("x" if isinstance(value, str) else 1)}))
        return found

    prints = [recipe.fingerprint() for recipe in [FULL, *variants(FULL)]]
    assert len(prints) > 30 and len(set(prints)) == len(prints)


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda s: (
            st.lists(s)
            | st.dictionaries(st.text(max_size=5) | st.sampled_from(["stages", "agent", "models", "seed"]), s)
        ),
    )
)
def test_anything_is_a_recipe_or_one_kind_of_error(data: Any) -> None:
    try:
        assert isinstance(read_recipe(data), Recipe)
    except RecipeError as error:
        assert str(error)


class TestFiles:
    def test_a_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "run.yaml"
        path.write_text("name: x\nstages:\n  - {kind: rl, lr: 5e-4}\n")
        assert load_recipe(path).stages[0].lr == 5e-4

    @pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"a: b: c", b"", b"? [a]\n: b"])
    def test_a_broken_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "run.yaml"
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=r"run\.yaml"):
            load_recipe(path)

    def test_neither_file_nor_shipped(self, tmp_path: Path) -> None:
        for name in ("no-such-recipe", tmp_path):
            with pytest.raises(RecipeError, match="neither a file nor shipped"):
                load_recipe(name)

    def test_every_shipped_recipe_reads(self) -> None:
        for name in available():
            assert load_recipe(name).stages
