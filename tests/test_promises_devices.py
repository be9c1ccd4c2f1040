"""One recipe on several processes of one machine: the same run as on one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
psutil = pytest.importorskip("psutil")

import yaml  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

pytestmark = pytest.mark.promise

STAGE = {"kind": "rl", "cut": "turns", "role": "manager", "tasks": 5, "siblings": 4, "dialogues": 1, "leads": 2}
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "agent": {"style": "compact", "candidates": 4},
    "data": {"dialogues": 2},
    "checkpoint_every": 2,
    "log_every": 1,
    "stages": [
        # A small rate: of a gradient that is nearly 0, Adam makes a whole step in a direction that rounding decides.
        {**STAGE, "steps": 3, "temperature": 2, "top_k": 4, "beta": 0.1, "updates": 2, "lr": 1e-4},
        {**STAGE, "steps": 2, "role": "answerer", "cut": "questions", "tasks": 3, "rule": "ppo", "lr": 1e-4},
    ],
}
TIMES = ("seconds", "left", "update_seconds", "tokens_per_second", "peak_memory_bytes")


ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def command(folder: Path, *launcher: str, **changed: Any) -> list[str]:
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(RECIPE | changed))
    return [sys.executable, *launcher, "-m", "memorist", "train", str(file), "--out", str(folder)]


def train(folder: Path, *launcher: str, resume: bool = False, **changed: Any) -> None:
    made = command(folder, *launcher, **changed)
    done = subprocess.run(made + ["--resume"] * resume, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done:") == 1, "only the first process speaks"


def launch(*more: str) -> tuple[str, ...]:
    plain = ("--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    return ("-m", "accelerate.commands.launch", *plain, *more)


DDP = launch("--multi_gpu")
FSDP = launch("--use_fsdp", "--fsdp_version", "2")


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.parent.name}/{name}": value
        for file in sorted((folder / "policies").glob("*/*.safetensors"))
        for name, value in load_file(file).items()
    }


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def apart(first: Path, second: Path) -> float:
    """How far the trained weights of two runs are from each other; their metrics must agree."""
    one, two = trained(first), trained(second)
    assert one.keys() == two.keys() and len(one) > 10
    for a, b in zip(metrics(first), metrics(second), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if isinstance(a[name], float):
                assert b[name] == pytest.approx(a[name], rel=1e-4, abs=1e-5), name
            else:
                assert a[name] == b[name], name
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(folder)
    return folder


@pytest.mark.parametrize("launcher", [DDP, FSDP], ids=["ddp", "fsdp2"])
def test_two_processes_learn_what_one_learns(alone: Path, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    train(tmp_path / "two", *launcher)
    assert apart(alone, tmp_path / "two") < 1e-5
    files = {file.name for file in (tmp_path / "two" / "trajectories").iterdir()}
    assert files == {file.name for file in (alone / "trajectories").iterdir()}


@pytest.mark.parametrize("launcher", [DDP, FSDP], ids=["ddp", "fsdp2"])
def test_adapters_too(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    train(tmp_path / "one", weights={"lora": 4})
    train(tmp_path / "two", *launcher, weights={"lora": 4})
    assert apart(tmp_path / "one", tmp_path / "two") < 1e-5


@pytest.mark.parametrize("launcher", [DDP, FSDP], ids=["ddp", "fsdp2"])
def test_pictures_too(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """A process computes rows of runs that another process played, whose pictures it has not drawn."""
    pytest.importorskip("PIL")
    from seeing import tiny

    tiny(tied=True).save(tmp_path / "viewer")
    stage = {"kind": "rl", "cut": "whole", "role": "viewer", "tasks": 3, "siblings": 4, "steps": 2}
    stage |= {"optimizer": "sgd", "lr": 0.1}  # see RECIPE: of what a picture hardly changes, gradients are nearly 0
    seeing = {
        "agent": {"name": "uav-vl-r1", "style": "compact", "reply": 8}, "data": {"kind": "aerial", "questions": 12},
        "models": {"viewer": str(tmp_path / "viewer")}, "stages": [{**stage, "rewards": {"near": 0, "length": 1}}],
    }  # fmt: skip
    train(tmp_path / "one", **seeing)
    train(tmp_path / "two", *launcher, **seeing)
    assert apart(tmp_path / "one", tmp_path / "two") < 1e-5


@pytest.mark.parametrize("launcher", [DDP, FSDP], ids=["ddp", "fsdp2"])
def test_what_becomes_a_hybrid_too(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """A teacher is sharded beside the policy, and both give the states of every layer."""
    from memorist.fit.hybrid.convert import convert
    from memorist.models.registry import bundled_folder

    convert(bundled_folder("bundled"), tmp_path / "hybrid", (1, 3))
    stage = {"kind": "distill", "paths": "teacher", "teacher": "bundled", "cut": "whole", "role": "manager"}
    stage |= {"tasks": 3, "siblings": 1, "steps": 2, "align": 1.0, "optimizer": "sgd", "lr": 0.01}
    mixed = {
        "models": {"manager": str(tmp_path / "hybrid"), "answerer": "bundled"},
        "stages": [{**stage, "divergence": "forward"}, {**stage, "lr": 1e-3}],
    }
    train(tmp_path / "one", **mixed)
    train(tmp_path / "two", *launcher, **mixed)
    assert apart(tmp_path / "one", tmp_path / "two") < 1e-5


def test_a_sharded_run_that_was_killed_goes_on_on_one_process(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen(
        command(folder, *FSDP), env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        deadline = time.monotonic() + 200
        while not (folder / "checkpoint" / "state.json").exists():
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        # The launcher's workers have sessions of their own: killing its group would leave them training.
        for process in [*psutil.Process(running.pid).children(recursive=True), running]:
            process.send_signal(signal.SIGKILL)
    train(folder, resume=True)
    assert apart(alone, folder) < 1e-5
