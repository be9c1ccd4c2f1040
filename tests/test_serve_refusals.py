"""What the server says where something is wrong: what was given, what was expected, what to do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
import httpx2
from typer.testing import CliRunner

from memorist import Memory, Scope
from memorist.cli import app
from memorist.errors import BankError, RecipeError, ServeError
from memorist.serve import watching
from memorist.serve.command import Settings, serve
from memorist.serve.keys import RIGHTS, add_key
from test_chat import model, url
from test_endpoint import Reply, managing, serving
from test_serve import JSON, added, key, running, told

ANNA = {"user": "anna"}
SEARCH = ANNA | {"query": "x"}


@pytest.mark.parametrize(
    ("method", "path", "given", "status", "said"),
    [
        ("GET", "/v1/export", {"params": ANNA | {"sesion": "1"}}, 422, "'sesion' is not known; did you mean 'session'"),
        ("GET", "/v1/records", {"params": ANNA | {"limits": 1}}, 422, "'limits' is not known; did you mean 'limit'"),
        ("POST", "/v1/search?user=anna", {"json": SEARCH}, 422, "'user' is not known; nothing is expected there"),
        ("POST", "/v1/search", {"json": SEARCH | {"as_of": 7.5}}, 422, "7.5 is neither a time"),
        ("POST", "/v1/search", {"json": SEARCH | {"as_of": True}}, 422, "True is neither a time"),
        ("POST", "/v1/search", {"json": SEARCH | {"as_of": "7"}}, 422, "'7' is neither a time"),
        ("POST", "/v1/search", {"json": SEARCH | {"as_of": -1}}, 422, "nor a commit's number"),
        ("POST", "/v1/search", {"json": SEARCH | {"as_of": 10**30}}, 422, "there is no such commit"),
        ("POST", "/v1/search", {"json": SEARCH | {"as_of": [1]}}, 422, "nor a commit's number"),
        ("POST", "/v1/add", {"json": ANNA | {"items": [{"text": "x", "at": 7}]}}, 422, "7 is a number; expected"),
        ("POST", "/v1/add", {"content": b"{}"}, 422, "expected the header Content-Type: application/json"),
        ("POST", "/v1/add", {"content": b"{]", "headers": JSON}, 422, "is not JSON: Expecting property name"),
        ("POST", "/v1/add", {"content": b"\x1f\x8b\x08\x00", "headers": JSON}, 400, "expected UTF-8, not compressed"),
        ("POST", "/v1/ask", {"json": ANNA | {"question": "x"}}, 404, "start it with --model URL#MODEL"),
        ("POST", "/v1/chat/completions", {"json": {"messages": []}}, 404, "start it with --model URL#MODEL"),
        ("GET", "/v1/records/", {}, 404, "Not Found"),
        ("GET", "/v1/jobs/x", {"params": ANNA | {"colour": 1}}, 422, "'colour' is not known"),
    ],
)  # fmt: skip
def test_it_says_what_was_expected(
    tmp_path: Path, method: str, path: str, given: dict[str, Any], status: int, said: str
) -> None:
    secret, mine = key()
    answer = told(tmp_path, lambda ask: ask(secret, method, path, **given), mine)
    assert answer.status_code == status and said in answer.json()["detail"], answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_monitors_may_add_what_they_like(tmp_path: Path) -> None:
    asked = [
        told(tmp_path, lambda ask, path=path: ask("", "GET", path)) for path in ("/health?probe=1", "/metrics?x=1")
    ]
    assert [answer.status_code for answer in asked] == [200, 200]


def test_what_stood_at_a_commit_is_found_by_its_number(tmp_path: Path) -> None:
    secret, mine = key()

    async def talk(ask: Callable[..., Any]) -> list[list[str]]:
        (one,) = await added(ask, secret, "anna", "Anna lives in Porto.")
        changed = {"text": "Anna lives in Leeds.", "at": "0001-01-01"}
        await ask(secret, "PUT", f"/v1/records/{one}", json=ANNA | changed)
        past = (await ask(secret, "GET", f"/v1/records/{one}/history", params=ANNA)).json()["changes"]
        found = []
        for change in past:
            body = SEARCH | {"as_of": change["commit"]}
            hits = (await ask(secret, "POST", "/v1/search", json=body)).json()["hits"]
            found.append([hit["record"]["text"] for hit in hits])
            datetime.fromisoformat(hits[0]["record"]["updated"]).astimezone(UTC)
            assert hits[0]["record"]["updated"].endswith("Z"), "times without a zone are in UTC"
        return found

    assert told(tmp_path, talk, mine) == [["Anna lives in Porto."], ["Anna lives in Leeds."]]


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, mine = key()
    monkeypatch.setattr(watching, "WAITED", 0.05)

    async def parts() -> Any:
        yield b'{"user": '
        await asyncio.sleep(1)
        yield b'"a"}'

    answer = told(tmp_path, lambda ask: ask(secret, "POST", "/v1/add", JSON, content=parts()), mine)
    assert answer.status_code == answer.json()["status"] == 408 and "0.05 s" in answer.json()["detail"]


def test_who_waits_for_a_slow_model_when_the_server_ends_is_told(tmp_path: Path) -> None:
    secret = add_key(tmp_path / "keys.json", "app", "shop", rights=RIGHTS, per_minute=0)
    with model() as behind:
        behind.waits = 3.0
        more = ("--keys", str(tmp_path / "keys.json"), "--model", url(behind), "--seconds", "1")
        with running(tmp_path, *more) as (process, address):

            async def asking() -> list[httpx2.Response]:
                bearer = {"Authorization": f"Bearer {secret}"}
                async with httpx2.AsyncClient(base_url=address, headers=bearer, timeout=30) as client:
                    chat = {"user": "anna", "messages": [{"role": "user", "content": "Hello?"}]}
                    asked = [
                        asyncio.create_task(client.post("/v1/ask", json=ANNA | {"question": "x"})),
                        asyncio.create_task(client.post("/v1/chat/completions", json=chat)),
                    ]
                    while len(behind.asked) < 2:
                        await asyncio.sleep(0.02)
                    process.send_signal(signal.SIGTERM)
                    return await asyncio.gather(*asked)

            answers = asyncio.run(asking())
            process.wait(20)
    for answer in answers:
        assert answer.status_code == answer.json()["status"] == 503 and "ask again" in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json" and answer.headers["x-request-id"]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert not [line for line in lines if "error" in line], "a traceback"


def test_workers_end_when_who_started_them_was_killed(tmp_path: Path) -> None:
    with running(tmp_path, "--workers", "2") as (process, address):
        assert answering(address)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 20
        while (answers := answering(address)) and time.monotonic() < deadline:
            time.sleep(0.2)
    assert not answers


def answering(address: str) -> bool:
    """Whether anybody is there."""
    try:
        return httpx2.get(f"{address}/health", timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


class TestStarting:
    """What is wrong at the start is one line, and nothing has begun by then."""

    def test_a_memory_that_cannot_be_opened(self, tmp_path: Path) -> None:
        (tmp_path / "junk.db").write_bytes(b"junk" * 1000)
        with pytest.raises(BankError, match=r"junk\.db"):
            serve(Settings(str(tmp_path / "junk.db"), "", 1000), host="127.0.0.1", port=0, workers=2, seconds=1)

    def test_a_port_that_is_taken(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with pytest.raises(ServeError, match=f"port {port} .* give another with --port"):
                serve(Settings(str(tmp_path / "m.db"), "", 1000), host="127.0.0.1", port=port, workers=1, seconds=1)
        assert "key of this run" not in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "said"),
        [(["--observer", "rule"], "did you mean 'rules'"), (["--observer", "model"], "needs --model URL#MODEL")],
    )
    def test_an_observer_that_there_is_not(self, tmp_path: Path, words: list[str], said: str) -> None:
        refused = CliRunner().invoke(app, ["serve", "--file", str(tmp_path / "m.db"), "--port", "0", *words])
        assert isinstance(refused.exception, ServeError | RecipeError) and said in str(refused.exception)

    def test_it_says_where_it_listens(self, tmp_path: Path) -> None:
        with running(tmp_path) as (process, address):
            assert process.stdout is not None
            told = [process.stdout.readline().decode() for _ in range(2)]
        assert told[0].startswith("key of this run: mem_") and told[1].startswith(f"{address}/ serves ")


@pytest.mark.parametrize("observer", ["rules", "chooser", "model"])
def test_what_is_observed_is_read_by_who_was_named(tmp_path: Path, observer: str) -> None:
    secret = add_key(tmp_path / "keys.json", "app", "shop", rights=RIGHTS, per_minute=0)
    said = ANNA | {"messages": [{"role": "user", "content": "I have two cats."}]}
    asked: list[dict[str, Any]] = []

    def says(number: int, body: dict[str, Any]) -> Reply:
        asked.append(body)
        return managing(number, body)

    with serving(says) as (model_url, _):
        more = ("--keys", str(tmp_path / "keys.json"), "--model", f"{model_url}#m", "--observer", observer)
        with running(tmp_path, *more) as (_, address):
            bearer = {"Authorization": f"Bearer {secret}"}
            answer = httpx2.post(f"{address}/v1/observe", json=said, headers=bearer, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["code"] == "applied", answer.text
    assert bool(asked) == (observer == "model"), "a model that is there is asked where it was named"
    assert "two cats" in answer.json()["results"][0]["record"]["text"]


def test_a_file_of_memories_is_nobody_elses(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.db") as memory:
        memory.add("Anna lives in Porto.", Scope("anna"))
        memory.backup(tmp_path / "copy.db")
        memory.export(tmp_path / "anna.jsonl", Scope("anna"))
        kept = {file.name: file.stat().st_mode & 0o077 for file in tmp_path.iterdir() if file.is_file()}
    assert {"m.db", "copy.db", "anna.jsonl"} <= kept.keys()
    assert set(kept.values()) == {0}, kept
    (tmp_path / "m.db").chmod(0o640)
    with Memory(tmp_path / "m.db") as memory, sqlite3.connect(tmp_path / "m.db") as db:
        memory.add("Anna has two cats.", Scope("anna"))
        assert db.execute("SELECT count(*) FROM versions").fetchone()[0] == 2
    assert (tmp_path / "m.db").stat().st_mode & 0o777 == 0o640, "who opens it to a group has decided so"
