"""A real server program on loopback: an agent that asks it does what it does with the same model at hand."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from memorist import Endpoint, Memory, Scope
from memorist.agents.components.extractors import sentences
from memorist.agents.memory_r1 import MemoryR1
from memorist.models.registry import bundled_folder, open_policy
from memorist.models.sampler import Greedy

pytestmark = [
    pytest.mark.promise,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn", "openai")),
        reason="needs pip install 'transformers[serving]'",
    ),
]
SAID = [
    "Anna lives in Paris.",
    "Anna keeps a pet cockatoo.",
    "Anna now lives in Lyon instead.",
    "Anna plays the viola.",
    "Anna does not keep a pet cockatoo any more.",
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve` with the bundled model, which reads a prompt as it is."""
    folder = tmp_path_factory.mktemp("model") / "bundled"
    shutil.copytree(bundled_folder(), folder)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = folder.with_name("log")
    with open(log, "wb") as out, subprocess.Popen(
        [*command, "--port", str(port)], env=environment, stdout=out, stderr=out
    ) as server:  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1#{folder}"
        server.terminate()


def told(path: Path, actor: Any) -> list[tuple[str, str, str]]:
    def build(bank: Any) -> MemoryR1:
        return MemoryR1(bank=bank, manager=actor, answerer=actor, extract=sentences, style="compact", k=3)

    with Memory(path, agent=build, embedder="hashed") as memory:
        results = memory.observe([{"role": "user", "name": "Anna", "content": text} for text in SAID], Scope("anna"))
        return [(r.operation.kind, r.code, "" if r.record is None else r.record.text) for r in results]


def test_what_is_served_does_what_is_at_hand(tmp_path: Path, url: str) -> None:
    place, _, model = url.partition("#")
    endpoint = Endpoint(place, model)
    served, local = told(tmp_path / "a.db", endpoint), told(tmp_path / "b.db", Greedy(open_policy("bundled")))
    assert served == local and len(served) == len(SAID)
    assert endpoint.spent.calls == len(SAID) and endpoint.spent.failures == 0
    assert endpoint.spent.prompt_tokens > endpoint.spent.completion_tokens > 0


def test_locomo_is_evaluated_by_a_program_that_asks_a_server_program(tmp_path: Path, url: str) -> None:
    talk = json.loads((Path(__file__).parent / "fixtures" / "locomo_small.json").read_text())[0]
    (tmp_path / "locomo.json").write_text(json.dumps([talk]))
    command = [sys.executable, "-m", "memorist", "eval", "locomo", "--file", str(tmp_path / "locomo.json")]
    command += ["--agent", "memory-r1", "--endpoint", url, "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["systems"]) == {"memory-r1"}
    spent = found["spent"]["model"]
    assert spent["calls"] > len(talk["qa"]) and spent["prompt_tokens"] > spent["completion_tokens"] > 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "locomo.jsonl").read_text().splitlines()]
    assert {row["protocol"] for row in rows} == {"mem0-v1", "locomo-v1"}
