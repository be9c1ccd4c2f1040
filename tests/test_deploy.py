"""Files for containers, systemd and releases: their syntax, and that what they call exists. No image is built here."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from memorist.cli import app

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
INSTRUCTIONS = {
    "FROM", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT",
    "CMD",
}  # fmt: skip


def need_options(command: list[str]) -> None:
    """Raise where `memorist` does not understand a command line."""
    assert Path(command[0]).name == "memorist"
    group: Any = typer.main.get_command(app)
    found = group.commands[command[1]]
    found.make_context(command[1], list(command[2:]))


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, with lines that go on joined."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def test_the_image_s_file_is_well_formed_and_starts_the_server() -> None:
    found = instructions()
    assert {name for name, _ in found} <= INSTRUCTIONS
    last = dict(found)
    assert last["USER"] == "memorist", "not root"
    need_options([*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])])
    json.loads(last["HEALTHCHECK"].split("CMD ", 1)[1])
    stages = [given for name, given in found if name == "FROM"]
    assert [f"--from={stage.split(' AS ')[1]}" in str(found) for stage in stages if " AS " in stage] == [True]
    for name, given in found:
        if name == "COPY" and "--from" not in given:
            assert all((ROOT / source).exists() for source in given.split(" ")[:-1])


def test_the_services_start_the_server_with_a_database() -> None:
    told: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    server = told["services"]["server"]
    need_options(["memorist", "serve", *server["command"]])
    assert 'memorist serve "$$@"' in server["entrypoint"][2]
    assert set(told["services"]) == {"server", *server["depends_on"]}
    named = {volume.split(":")[0] for one in told["services"].values() for volume in one["volumes"]}
    assert {name for name in named if not name.startswith("./")} == set(told["volumes"])
    assert all((DEPLOY / name).exists() for name in named if name.startswith("./"))
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).exists()
    subprocess.run(["sh", "-n", DEPLOY / "keeper.sh"], check=True)


def test_the_unit_starts_the_server(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "memorist.service")
    need_options(shlex.split(unit["Service"]["ExecStart"]))
    if shutil.which("systemd-analyze"):
        # What it starts is not installed here.
        text = (DEPLOY / "memorist.service").read_text().replace("/opt/memorist/bin/memorist", "/bin/true")
        (tmp_path / "memorist.service").write_text(text)
        command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "memorist.service")]
        checked = subprocess.run(command, capture_output=True, text=True)
        assert "memorist.service" not in checked.stderr, checked.stderr


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_workflows_are_well_formed_and_call_what_there_is(name: str) -> None:
    told: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    assert True in told, "`on`, as YAML reads it"
    for job in told["jobs"].values():
        assert job["runs-on"] and job["steps"]
        needed = job.get("needs", [])
        assert set([needed] if isinstance(needed, str) else needed) <= set(told["jobs"])
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            command = step.get("run", "")
            if command.startswith("memorist "):
                need_options(shlex.split(command))
            if command == ".ci/run":
                assert (ROOT / command).exists()
