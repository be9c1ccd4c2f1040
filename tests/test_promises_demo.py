"""The demo, shortened, from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from memorist.evaluation.demo import demo
from memorist.recipe import load_recipe

pytestmark = pytest.mark.promise


def test_the_demo_trains_both_roles_and_writes_a_report_and_a_summary(tmp_path: Path) -> None:
    recipe = load_recipe("memory-r1-demo")
    short = replace(recipe, stages=tuple(replace(stage, steps=2, tasks=4, dialogues=1) for stage in recipe.stages))
    shown = demo(tmp_path, Console(quiet=True), test_dialogues=3, recipe=short)
    assert [exam.name for exam in shown.exams][:1] == ["base"]
    assert shown.gain.n == shown.manager_gain.n > 30
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<svg" in report
    assert "gold operations" in report
    assert "default-src 'none'" in report
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {"gain", "manager_gain", "systems", "seconds"} <= summary.keys()
    assert (tmp_path / "policies" / "manager" / "model.safetensors").exists()
