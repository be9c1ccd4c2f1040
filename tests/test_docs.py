"""The documentation: pages that hang together, commands that exist, examples that run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.exceptions import TyperException

from documented import DOCS, ROOT, blocks, commands
from memorist.cli import app

ELSEWHERE = {
    "its framework": "tests/integrations/check_integrations.py",
    "a server": "tests/test_chat.py",
    "a small mixture": "tests/test_experts_calibrate.py",
    "a corpus that is served": "tests/test_retrieval.py",
}
"""What some examples need, and where the same calls run."""


def misunderstood(line: str) -> str:
    """What is wrong with a command; empty where it exists with its options."""
    words = shlex.split(re.split(r" [|<>;&]", line)[0])[1:]
    command: Any = typer.main.get_command(app)
    name = []
    while hasattr(command, "commands") and words:
        name.append(words[0])
        command, words = command.commands.get(words[0]), words[1:]
        if command is None:
            return f"there is no command {name[-1]}"
    try:
        command.make_context(" ".join(name), words)
    except TyperException as error:
        return str(error) or type(error).__name__
    return ""


@pytest.mark.parametrize(("where", "line"), commands())
def test_commands_in_the_documentation_exist_with_their_options(where: str, line: str) -> None:
    assert misunderstood(line) == "", where


@pytest.mark.parametrize("line", ["memorist serf", "memorist serve --porto 1", "memorist serve --port many"])
def test_a_command_that_does_not_exist_would_be_noticed(line: str) -> None:
    assert misunderstood(line)


def test_every_page_is_in_the_site_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    told = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = set(re.findall(r"[\w/.-]+\.md", str(told["nav"])))
    assert listed == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=\"?https?://", text), (
            "nothing loads from elsewhere"
        )
    assert "observe" in (tmp_path / "reference" / "library.html").read_text(encoding="utf-8")


def test_the_reference_of_the_servers_calls_is_what_the_server_says() -> None:
    command = [sys.executable, "scripts/make_http_reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_examples_that_do_not_run_here_run_elsewhere() -> None:
    needs = {needs for _, needs, _ in blocks("python") if needs}
    assert needs == set(ELSEWHERE)
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())


@pytest.mark.promise
@pytest.mark.parametrize(
    ("where", "text"), [(where, text) for where, needs, text in blocks("python") if not needs], ids=lambda one: one[:40]
)
def test_examples_in_the_documentation_run(where: str, text: str, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "utf8", "-c", text]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{where}: {done.stderr}"
