"""The scripts that shipped bases came from still make them: what they imitate changes with the library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memorist.models.causal import CausalPolicy

pytestmark = pytest.mark.promise
ROOT = Path(__file__).parent.parent
MADE = {
    "base": ("--steps", "2"),
    "seeker": ("--steps", "2", "--searches", "40"),
    "analyst": ("--steps", "2", "--episodes", "12"),
    "listener": ("--lessons", "4", "--processes", "1", "--examples", "examples"),
}


@pytest.mark.parametrize("name", MADE)
def test_a_base_is_made_in_two_steps(name: str, tmp_path: Path) -> None:
    script = ROOT / "scripts" / f"make_{name}.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(script), "--out", "made", *MADE[name]], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    policy = CausalPolicy.load(tmp_path / "made")
    assert sum(p.numel() for p in policy.parameters()) > 100_000
