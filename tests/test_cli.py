"""The command line: every command helps with an example, errors are one line, JSON is JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memorist.cli import app
from memorist.errors import MemoristError, RecipeError

COMMANDS = ("demo", "train", "eval", "chat", "recipes", "doctor", "plan", "experts", "world", "version")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_a_place_in_the_readme_or_its_help(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert len(shown.output.splitlines()) > 5


def test_errors_on_purpose_are_one_line_and_status_2(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "memorist", "train", "memory-r2"], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "did you mean 'memory-r1'" in run.stderr


def test_an_unknown_recipe_key_names_the_nearest(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("stages: [{kind: rl, rool: manager}]")
    found = CliRunner().invoke(app, ["train", str(recipe), "--out", str(tmp_path / "run")])
    assert isinstance(found.exception, RecipeError)
    assert "did you mean 'role'" in str(found.exception)


def test_set_refuses_a_path_that_does_not_exist(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["train", "memory-r1", "--set", "stagez.0.lr=1", "--out", str(tmp_path / "run")])
    assert isinstance(found.exception, RecipeError)
    assert "did you mean 'stages'" in str(found.exception)


def test_eval_of_an_unknown_benchmark_names_the_nearest() -> None:
    found = CliRunner().invoke(app, ["eval", "lokomo"])
    assert isinstance(found.exception, MemoristError)
    assert "did you mean 'locomo'" in str(found.exception)


def test_eval_of_missing_data_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMORIST_DATA", raising=False)
    found = CliRunner().invoke(app, ["eval", "locomo", "--json"])
    assert isinstance(found.exception, MemoristError)
    assert "MEMORIST_DATA" in str(found.exception)


def test_world_prints_locomo_json() -> None:
    found = CliRunner().invoke(app, ["world", "--split", "test", "--count", "1"])
    [sample] = json.loads(found.output)
    assert {"sample_id", "conversation", "observation", "qa"} <= sample.keys()


def test_doctor_prints_json() -> None:
    found = CliRunner().invoke(app, ["doctor", "--json"])
    assert found.exit_code == 0
    assert "python" in json.loads(found.output)


def test_recipes_lists_the_shipped_ones() -> None:
    found = CliRunner().invoke(app, ["recipes"])
    assert "memory-r1-demo: " in found.output


@pytest.mark.parametrize("command", [["eval", "synthetic"], ["chat"]])
def test_a_folder_without_a_run_is_refused(command: list[str], tmp_path: Path) -> None:
    found = CliRunner().invoke(app, [*command, "--run", str(tmp_path)])
    assert isinstance(found.exception, MemoristError)
    assert "holds no run (no recipe.yaml); give a folder that `memorist train` wrote" in str(found.exception)
