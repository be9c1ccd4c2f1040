"""The bundled base: small, whole, and able to say what it is asked to say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import yaml

from memorist.agents.components.operations import read_operations
from memorist.agents.memory_r1 import MemoryR1Settings
from memorist.decision import Distribution
from memorist.evaluation.benchmarks import synthetic, write_rows
from memorist.evaluation.exam import sit
from memorist.log import read_trajectories
from memorist.models.registry import bundled_folder, open_policy
from memorist.recipe import load_recipe, to_plain
from memorist.tasks.world import dialogues
from memorist.training.rollout import Seat


def test_it_is_at_most_8_megabytes_and_a_standard_folder() -> None:
    files = {file.name: file.stat().st_size for file in bundled_folder().iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files.keys()
    assert sum(files.values()) <= 8_000_000


def test_it_runs_the_whole_agent_and_its_operations_can_be_read() -> None:
    policy = open_policy("bundled")
    seats = {"manager": Seat(policy, Distribution(temperature=1.0)), "answerer": Seat(policy)}
    exam = sit("base", MemoryR1Settings().build, dialogues("test", 2), seats)
    managed = [d for run in exam.runs for d in run.trajectory.decisions if d.role == "manager"]
    readable = [read_operations(d.action.text, ()).well_formed for d in managed]
    assert sum(readable) / len(readable) > 0.9
    assert len(exam.asked()) == sum(q.category < 5 for d in exam.dialogues for q in d.questions)


def test_an_agent_is_judged_as_its_run_was_set(tmp_path: Path) -> None:
    """The recipe in the run's folder says how prompts are made; another number of candidates would be another exam."""
    recipe = replace(load_recipe("memory-r1-demo"), agent=MemoryR1Settings(candidates=2))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(to_plain(recipe)))
    found = synthetic(tmp_path, 1, "a")
    agent = next(exam for exam in found.exams if exam.name == "memory-r1")
    assert max(len(answer.candidates) for _, _, answer in agent.asked()) == 4  # two for each speaker


def test_an_evaluation_writes_down_what_the_agent_saw_and_did(tmp_path: Path) -> None:
    found = synthetic(None, 1, "a")
    write_rows(found, tmp_path)
    agent = next(exam for exam in found.exams if exam.name == "memory-r1")
    logged = list(read_trajectories(tmp_path / "synthetic-trajectories.jsonl"))
    assert logged == [run.trajectory for run in agent.runs] and len(logged[0].decisions) > 20
    rows = [json.loads(line) for line in (tmp_path / "synthetic.jsonl").read_text().splitlines()]
    assert {row["system"] for row in rows} == {exam.name for exam in found.exams}
