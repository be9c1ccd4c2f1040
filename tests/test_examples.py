"""Every example runs as a newcomer would run it, and says what it promises."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    source = str(FOLDER.parent / "src")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and not done.stderr
    assert not list(tmp_path.iterdir())  # examples leave nothing behind


def test_a_new_agent_takes_forty_lines_at_most() -> None:
    text = (FOLDER / "tiny_agent.py").read_text()
    (agent,) = [n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == "OneNote"]
    assert agent.end_lineno is not None and agent.end_lineno <= 45  # from the file's first line, imports and all
    assert agent.end_lineno - agent.lineno + 1 <= 40


def test_no_agent_imports_anything_of_training() -> None:
    """It never knows whether it is being trained."""
    agents = sorted((FOLDER.parent / "src" / "memorist" / "agents").rglob("*.py"))
    assert agents
    for path in agents:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith(("memorist.training", "torch")) for name in names), path
