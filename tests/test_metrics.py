"""The numbers of a step, and where people see them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memorist.decision import Action, Decision, Observation, Reward, Stop, Trajectory
from memorist.errors import PolicyError, RecipeError
from memorist.recipe import Recipe, Stage
from memorist.training.credit import Worth
from memorist.training.metrics import BINS, Tracked, describe, flat, histogram, open_tracker
from memorist.training.rollout import Run

RECIPE = Recipe(name="levers", seed=3, stages=(Stage(role="manager", steps=5), Stage(role="answerer", steps=2)))
STEP = {
    "stage": 1, "role": "answerer", "kind": "rl", "step": 2, "steps": 2, "left": 0.0, "reward": 0.5,
    "operations": {"ADD": 3}, "kl_1": None, "plain_rows": "because",
}  # fmt: skip


def run(stop: Stop = Stop.END, **terms: float) -> Run:
    decision = Decision("manager", "p", Observation("x"), Action("", (1,), (2, 3), (0.0, 0.0), stop=stop))
    rewards = tuple(Reward(name, value) for name, value in terms.items())
    facts = {"operations": {"ADD": 1}, "codes": {"applied": 1}}
    return Run(None, Trajectory("t", 0, (decision,), rewards, facts))


class TestDescribe:
    def test_every_term_and_what_runs_were_worth(self) -> None:
        groups = [[run(em=1.0, cost=-0.2), run(em=0.0, cost=-0.4)], [run(em=1.0, cost=0.0), run(Stop.LENGTH, em=0.0)]]
        found = describe(groups, "manager", Worth({"cost": 0.0}))
        assert found["reward"] == 0.5 and found["histogram"] == {"0": 2, "1": 2}
        assert found["terms"] == {"em": 0.5, "cost": pytest.approx(-0.2)}
        assert found["decisions"] == 4 and found["length"] == 2.0 and found["truncated_share"] == 0.25
        assert found["operations"] == {"ADD": 4} and found["codes"] == {"applied": 4}

    def test_nothing_played_is_no_error(self) -> None:
        found = describe([], "manager", Worth())
        assert found["reward"] == 0.0 and found["histogram"] == {} and found["decisions"] == 0

    @example([100.0, 99.99999999999999])
    @example([1 + n * 1e-9 for n in range(12)])
    @given(st.lists(st.floats(-100, 100), max_size=60))
    def test_a_histogram_counts_every_run_once(self, values: list[float]) -> None:
        found = histogram(values)
        assert sum(found.values()) == len(values) and len(found) <= BINS


def test_numbers_are_named_by_role_and_path_and_words_are_left_out() -> None:
    assert dict(flat(STEP, "answerer")) == {"answerer/reward": 0.5, "answerer/operations/ADD": 3.0}


class TestTrackers:
    def test_tensorboard_shows_each_step_of_all_stages(self, tmp_path: Path) -> None:
        pytest.importorskip("torch")
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        tracker = open_tracker("tensorboard", tmp_path, RECIPE)
        seen: list[Any] = []
        tracked = Tracked(tracker, RECIPE, seen.append)
        for step in ({**STEP, "stage": 0, "role": "manager", "step": 1}, STEP):
            tracked(step)
        tracker.end()
        events = EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        assert set(events.Tags()["scalars"]) == {
            f"{role}/{name}" for role in ("manager", "answerer") for name in ("reward", "operations/ADD")
        }
        assert [(e.step, e.value) for e in events.Scalars("answerer/reward")] == [(7, 0.5)]
        assert len(seen) == 2

    @pytest.mark.parametrize("name", ["wandb", "trackio"])
    def test_runs_are_named_by_recipe_and_seed(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[tuple[str, Any]] = []
        module = SimpleNamespace(
            init=lambda **given: calls.append(("init", given["name"])),
            log=lambda numbers, step: calls.append((f"step {step}", numbers)),
            finish=lambda: calls.append(("finish", None)),
        )
        monkeypatch.setitem(sys.modules, name, module)
        tracker = open_tracker(name, tmp_path, RECIPE)
        Tracked(tracker, RECIPE, lambda _: None)(STEP)
        tracker.end()
        assert [call for call, _ in calls] == ["init", "step 7", "finish"] and calls[0][1] == "levers-3"

    def test_one_that_does_not_exist_or_is_not_installed_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(RecipeError, match="'tensorboard'"):
            open_tracker("tensorbord", tmp_path, RECIPE)
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(PolicyError, match="pip install wandb"):
            open_tracker("wandb", tmp_path, RECIPE)
