"""The server: who holds a key reaches its tenant's memories and nothing else; errors have one form; nothing is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
import httpx2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from typer.testing import CliRunner

from memorist import Memory, Scope
from memorist.cli import app
from memorist.errors import ArgumentError, RecipeError, ScopeError, ServeError
from memorist.library.asynchronous import AsyncMemory
from memorist.serve.app import Serving, make_app
from memorist.serve.command import Settings, serve
from memorist.serve.keys import RIGHTS, Key, Keys, add_key, digest_of, read_keys, shown
from memorist.serve.mcp import of_one
from memorist.serve.telling import PROBLEM

NOW = datetime(2026, 5, 1, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


def key(name: str = "app", tenant: str = "shop", **how: Any) -> tuple[str, Key]:
    """A secret and its key."""
    secret = f"mem_{name}"
    return secret, Key(name, digest_of(secret), tenant, **{"rights": RIGHTS, "per_minute": 0} | how)


@asynccontextmanager
async def asked(folder: Path, *keys: Key, **how: Any) -> AsyncIterator[Callable[..., Any]]:
    """What asks a server by secret, method and path."""
    known = {one.digest: one for one in keys}
    app = make_app(
        Serving(lambda: AsyncMemory(folder / "m.db", embedder="hashed"), Keys(known), clock=lambda: NOW, **how)
    )
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://server") as client:

            async def ask(secret: str, method: str, path: str, headers: Any = None, **given: Any) -> Any:
                bearer = {"Authorization": f"Bearer {secret}"} if secret else {}
                return await client.request(method, path, headers=bearer | (headers or {}), **given)

            yield ask


def told(tmp_path: Path, talk: Callable[[Callable[..., Any]], Any], *keys: Key, **how: Any) -> Any:
    """What came of a talk with a server."""

    async def main() -> Any:
        async with asked(tmp_path, *keys, **how) as ask:
            return await talk(ask)

    return asyncio.run(main())


async def added(ask: Callable[..., Any], secret: str, user: str, *texts: str) -> list[str]:
    """Ids of what was remembered."""
    answer = await ask(secret, "POST", "/v1/add", json={"user": user, "items": [{"text": text} for text in texts]})
    assert answer.status_code == 200, answer.text
    return [one["record"]["id"] for one in answer.json()["results"]]


class TestCalls:
    def test_a_memory_from_being_told_to_being_erased(self, tmp_path: Path) -> None:
        secret, mine = key()

        async def talk(ask: Callable[..., Any]) -> None:
            [one, _] = await added(ask, secret, "anna", "Anna lives in Porto.", "Anna has two cats.")
            who = {"user": "anna"}
            found = (await ask(secret, "POST", "/v1/search", json=who | {"query": "Anna lives", "k": 1})).json()
            assert [hit["record"]["id"] for hit in found["hits"]] == [one] and found["hits"][0]["parts"] == {}
            context = (await ask(secret, "POST", "/v1/context", json=who | {"query": "cats", "max_tokens": 200})).json()
            assert "two cats" in context["text"] and one in context["ids"] and context["tokens"] <= 200
            changed = await ask(
                secret, "PUT", f"/v1/records/{one}", json=who | {"text": "Anna lives in Leeds.", "reason": "moved"}
            )
            assert changed.json()["record"]["text"] == "Anna lives in Leeds." and changed.json()["code"] == "applied"
            past = (await ask(secret, "GET", f"/v1/records/{one}/history", params=who)).json()["changes"]
            assert [(c["operation"], c["reason"]) for c in past] == [("ADD", ""), ("UPDATE", "moved")]
            assert past[1]["before"]["text"] == "Anna lives in Porto." and past[0]["before"] is None
            page = (await ask(secret, "GET", "/v1/records", params=who | {"limit": 1})).json()
            rest = (await ask(secret, "GET", "/v1/records", params=who | {"after": page["next"]})).json()
            assert page["records"][0]["id"] == one != rest["records"][0]["id"] and rest["next"] is None
            lines = (await ask(secret, "GET", "/v1/export", params=who)).text.splitlines()
            assert [json.loads(line)["text"] for line in lines] == ["Anna lives in Leeds.", "Anna has two cats."]
            assert (await ask(secret, "DELETE", f"/v1/records/{one}", params=who)).json() == {
                "records": 1, "done": True, "pending": []}  # fmt: skip
            assert (await ask(secret, "GET", f"/v1/records/{one}", params=who)).status_code == 404
            assert (await ask(secret, "POST", "/v1/erase", json=who)).json()["records"] == 1
            assert (await ask(secret, "GET", "/v1/records", params=who)).json() == {"records": [], "next": None}

        told(tmp_path, talk, mine)
        assert b"Porto" not in (tmp_path / "m.db").read_bytes()

    def test_messages_are_read_and_told_what_became_of_them(self, tmp_path: Path) -> None:
        secret, mine = key()
        said = [{"role": "user", "content": "I have two cats."}, {"role": "assistant", "content": "How nice."}]

        async def talk(ask: Callable[..., Any]) -> Any:
            return await ask(secret, "POST", "/v1/observe", json={"user": "anna", "messages": said})

        results = told(tmp_path, talk, mine).json()["results"]
        assert results[0]["operation"] == "ADD" and "cats" in results[0]["record"]["text"] and results[0]["reason"]

    def test_the_file_is_the_librarys(self, tmp_path: Path) -> None:
        secret, mine = key()
        told(tmp_path, lambda ask: added(ask, secret, "anna", "Anna skis."), mine)
        with Memory(tmp_path / "m.db") as memory:
            assert [r.text for r in memory.list(Scope("shop:anna"))] == ["Anna skis."]


class TestKeys:
    @settings(max_examples=25, deadline=None)
    @given(user=TEXTS, other=TEXTS, agent=st.sampled_from(["", "a", "shop:a"]))
    def test_no_name_leads_to_another_tenant(self, user: str, other: str, agent: str) -> None:
        """Whatever users are called, no scope of one tenant covers one of another's, nor of another user's."""
        mine, theirs = key()[1], key("theirs", "bank")[1]
        assert not mine.scope(user, agent).covers(theirs.scope(other, agent))
        assert not theirs.scope(other).covers(mine.scope(user, agent))
        assert mine.scope(user).covers(mine.scope(other)) is (user == other)
        assert shown(mine.scope(user, agent)) == Scope(user, agent)

    def test_tenants_see_nothing_of_each_other(self, tmp_path: Path) -> None:
        (secret, mine), (other, theirs) = key(), key("theirs", "bank")
        names = ["anna", "shop:anna", ":anna", "bank:anna", "a%00", "../anna", "'; DROP TABLE records; --"]

        async def talk(ask: Callable[..., Any]) -> None:
            ids = await added(ask, secret, "anna", "Anna's secret.")
            for user in names:
                who = {"user": user}
                assert (await ask(other, "GET", "/v1/records", params=who)).json()["records"] == []
                assert (await ask(other, "POST", "/v1/search", json=who | {"query": "secret"})).json()["hits"] == []
                for path in (f"/v1/records/{ids[0]}", f"/v1/records/{ids[0]}/history"):
                    assert (await ask(other, "GET", path, params=who)).status_code == 404
                changed = await ask(other, "PUT", f"/v1/records/{ids[0]}", json=who | {"text": "x"})
                assert (
                    changed.status_code == 404
                    and "Anna" not in changed.text
                    and "shop" not in changed.text.replace(user, "")
                )
                assert (await ask(other, "DELETE", f"/v1/records/{ids[0]}", params=who)).status_code == 404
                assert (await ask(other, "POST", "/v1/erase", json=who)).json()["records"] == 0
            assert len((await ask(secret, "GET", "/v1/records", params={"user": "anna"})).json()["records"]) == 1

        told(tmp_path, talk, mine, theirs)

    def test_a_key_of_one_user_reaches_that_one(self, tmp_path: Path) -> None:
        (secret, mine), (own, bound) = key(), key("bound", user="anna")

        async def talk(ask: Callable[..., Any]) -> None:
            await added(ask, secret, "anna", "Anna skis.")
            await added(ask, secret, "ben", "Ben rows.")
            for who in ({}, {"user": "anna"}):
                found = (await ask(own, "GET", "/v1/records", params=who)).json()["records"]
                assert [one["text"] for one in found] == ["Anna skis."]
            assert (await ask(own, "GET", "/v1/records", params={"user": "ben"})).status_code == 403

        told(tmp_path, talk, mine, bound)

    def test_what_is_not_allowed_is_not_done(self, tmp_path: Path) -> None:
        (secret, mine), (reads, reader) = key(), key("reads", rights=("read",))
        late, expired = key("late", expires=NOW)

        async def talk(ask: Callable[..., Any]) -> None:
            await added(ask, secret, "anna", "Anna skis.")
            who, item = {"user": "anna"}, {"items": [{"text": "x"}]}
            assert (await ask(reads, "POST", "/v1/add", json=who | item)).status_code == 403
            assert (await ask(reads, "POST", "/v1/erase", json=who)).status_code == 403
            assert (await ask(reads, "GET", "/v1/records", params=who)).status_code == 200
            for nobody in ("", "mem_other", late, "\u00e9" * 9):
                answer = await ask("", "GET", "/v1/records", {"Authorization": f"Bearer {nobody}".encode()}, params=who)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert (await ask("", "GET", "/v1/records", params=who)).status_code == 401

        told(tmp_path, talk, mine, reader, expired)

    def test_a_minutes_requests_may_come_at_once_and_no_more(self, tmp_path: Path) -> None:
        secret, mine = key(per_minute=5)
        now = [0.0]
        keys = Keys({mine.digest: mine}, clock=lambda: now[0])
        assert [keys.spend(mine) > 0 for _ in range(7)] == [False] * 5 + [True] * 2
        now[0] += 12.1  # one more
        assert keys.spend(mine) == 0 and keys.spend(mine) == pytest.approx(11.9, abs=0.2)

        async def talk(ask: Callable[..., Any]) -> list[Any]:
            return [await ask(secret, "GET", "/v1/records", params={"user": "a"}) for _ in range(6)]

        *some, last = told(tmp_path, talk, mine)
        assert {one.status_code for one in some} == {200} and last.status_code == 429
        assert 1 <= int(last.headers["retry-after"]) <= 12

    def test_a_file_of_keys_has_no_secrets_and_is_nobody_elses(self, tmp_path: Path) -> None:
        file = tmp_path / "keys.json"
        secret = add_key(file, "app", "shop", expires=datetime(2027, 1, 1))
        again = add_key(file, "other", "shop", user="anna", rights=("read",), per_minute=9)
        found = read_keys(file)
        assert found[digest_of(again)] == Key("other", digest_of(again), "shop", "anna", ("read",), 9)
        assert found[digest_of(secret)].expires == datetime(2027, 1, 1, tzinfo=UTC)
        assert secret not in file.read_text() and file.stat().st_mode & 0o077 == 0
        with pytest.raises(ArgumentError, match="already"):
            add_key(file, "app", "shop")
        for wrong in ({"tenant": "a:b"}, {"tenant": ""}, {"tenant": "shop", "per_minute": -1}):
            with pytest.raises(ArgumentError):
                add_key(file, "new", **wrong)  # type: ignore[arg-type]
        with pytest.raises(RecipeError, match="did you mean 'write'"):
            add_key(file, "new", "shop", rights=("writes",))
        assert len(read_keys(file)) == 2

    @pytest.mark.parametrize("text", ["", "{", "[1]", '[{"name": "a"}]', '{"a": 1}'])
    def test_a_broken_file_of_keys_is_told(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "keys.json").write_text(text)
        with pytest.raises(ServeError, match="memorist key"):
            read_keys(tmp_path / "keys.json")

    def test_without_a_user_there_is_no_scope(self) -> None:
        with pytest.raises(ScopeError):
            key()[1].scope("")


JSON = {"content-type": "application/json"}


class TestBadInput:
    @pytest.mark.parametrize(
        ("method", "path", "given", "status"),
        [
            ("POST", "/v1/add", {"content": b"\xff\xfe", "headers": JSON}, 422),
            ("POST", "/v1/add", {"content": b"[" * 100_000, "headers": JSON}, 400),
            ("POST", "/v1/add", {"content": b'{"a":' * 100_000, "headers": JSON}, 400),
            ("POST", "/v1/add", {"json": {"user": "a", "items": [{"text": "x", "colour": 1}]}}, 422),
            ("POST", "/v1/add", {"json": {"user": "a", "items": []}}, 422),
            ("POST", "/v1/add", {"json": {"user": "a", "items": [{"text": " "}]}}, 422),
            ("POST", "/v1/add", {"json": {"user": "a\0b", "items": [{"text": "x"}]}}, 422),
            ("POST", "/v1/add", {"json": {"user": "a", "items": [{"text": "x", "expires": "never"}]}}, 422),
            ("POST", "/v1/search", {"json": {"user": "a", "query": "x", "where": {"a": {"like": 1}}}}, 422),
            ("POST", "/v1/search", {"json": {"user": "a", "query": "x", "vector": [1.0]}}, 422),
            ("POST", "/v1/search", {"json": {"user": "a", "query": "x", "k": -1}}, 422),
            ("GET", "/v1/records", {"params": {"user": "a", "limit": "many"}}, 422),
            ("GET", "/v1/records/../../etc/passwd", {"params": {"user": "a"}}, 404),
            ("GET", "/v1/records/%2e%2e%2fkeys.json", {"params": {"user": "a"}}, 404),
            ("GET", "/nowhere", {}, 404), ("PATCH", "/v1/add", {}, 405),
        ],
    )  # fmt: skip
    def test_it_is_told_what_is_wrong_in_one_form(
        self, tmp_path: Path, method: str, path: str, given: dict[str, Any], status: int
    ) -> None:
        secret, mine = key()

        async def talk(ask: Callable[..., Any]) -> tuple[Any, Any]:
            answer = await ask(secret, method, path, **given)
            return answer, await ask(secret, "GET", "/health")

        answer, after = told(tmp_path, talk, mine)
        assert answer.status_code == status and after.status_code == 200
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (
            problem["status"] == status and problem["detail"] and problem["request"] == answer.headers["x-request-id"]
        )

    @pytest.mark.parametrize("told_length", [True, False])
    def test_a_body_that_is_too_large_is_not_read(self, tmp_path: Path, told_length: bool) -> None:
        secret, mine = key()
        body = b'{"user": "a", "items": [{"text": "' + b"x" * 9000 + b'"}]}'

        async def parts() -> AsyncIterator[bytes]:
            for first in range(0, len(body), 1000):
                yield body[first : first + 1000]

        async def talk(ask: Callable[..., Any]) -> tuple[Any, Any]:
            content = body if told_length else parts()
            answer = await ask(secret, "POST", "/v1/add", JSON, content=content)
            return answer, await ask(secret, "GET", "/v1/records", params={"user": "a"})

        answer, after = told(tmp_path, talk, mine, body=5000)
        assert answer.status_code == answer.json()["status"] == 413 and "5000 bytes" in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json" and after.json()["records"] == []

    @pytest.mark.parametrize("path", ["/mcp", "/v1/export?user=a", "/health"])
    def test_one_that_sends_too_much_and_leaves_holds_nobody_up(self, tmp_path: Path, path: str) -> None:
        """A disconnect that was taken for more of a body kept a process busy for good."""
        secret = add_key(tmp_path / "keys.json", "app", "shop", rights=RIGHTS, per_minute=0)
        with running(tmp_path, "--keys", str(tmp_path / "keys.json"), "--body", "5000") as (_, address):
            port = int(address.rpartition(":")[2])
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {secret}\r\n"
            with socket.create_connection(("127.0.0.1", port), 10) as raw:
                raw.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
                for _ in range(3):
                    with suppress(OSError):  # what is answered early may be closed early
                        raw.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                        time.sleep(0.1)
            assert httpx2.get(f"{address}/health", timeout=5).status_code == 200

    @pytest.mark.parametrize("wrong", ["x was refused", "shop"])
    def test_a_refusal_names_no_tenant(self, tmp_path: Path, wrong: str) -> None:
        secret, mine = key(tenant="hidden")

        async def talk(ask: Callable[..., Any]) -> Any:
            return await ask(secret, "DELETE", f"/v1/records/{wrong}", params={"user": "a"})

        answer = told(tmp_path, talk, mine)
        assert answer.status_code == 404 and "hidden" not in answer.text and "no such record" in answer.text

    def test_of_several_texts_none_is_kept_where_one_is_refused(self, tmp_path: Path) -> None:
        secret, mine = key()

        async def talk(ask: Callable[..., Any]) -> tuple[Any, Any]:
            items = [{"text": "one", "key": "k"}, {"text": "two", "key": "k"}]
            answer = await ask(secret, "POST", "/v1/add", json={"user": "a", "items": items})
            return answer, await ask(secret, "GET", "/v1/records", params={"user": "a"})

        answer, after = told(tmp_path, talk, mine)
        assert answer.status_code == 409 and "key is taken" in answer.json()["detail"]
        assert "shop" not in answer.text and after.json()["records"] == []

    def test_markup_is_text(self, tmp_path: Path) -> None:
        secret, mine = key()
        text = "<script>alert(1)</script>"

        async def talk(ask: Callable[..., Any]) -> Any:
            [one] = await added(ask, secret, "anna", text)
            return await ask(secret, "GET", f"/v1/records/{one}", params={"user": "anna"})

        answer = told(tmp_path, talk, mine)
        assert answer.json()["text"] == text and answer.headers["content-type"] == "application/json"

    def test_what_goes_wrong_inside_is_logged_and_not_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        secret, mine = key()

        async def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("disk 7 is on fire")

        monkeypatch.setattr(AsyncMemory, "search", broken)

        async def talk(ask: Callable[..., Any]) -> Any:
            return await ask(secret, "POST", "/v1/search", json={"user": "a", "query": "x"})

        with caplog.at_level(logging.INFO, "memorist.serve"):
            answer = told(tmp_path, talk, mine)
        assert answer.status_code == 500 and "fire" not in answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == answer.json()["request"]
        assert any("fire" in str(record.exc_info) for record in caplog.records)


class TestWatched:
    def test_logs_and_numbers_hold_nothing_that_was_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:  # fmt: skip
        secret, mine = key()

        async def talk(ask: Callable[..., Any]) -> Any:
            [one] = await added(ask, secret, "anna", "Anna lives in Porto.")
            await ask(secret, "GET", f"/v1/records/{one}", params={"user": "anna"})
            await ask(secret, "POST", "/v1/search", {"X-Request-ID": "mine-1"}, json={"user": "anna", "query": "Porto"})
            brought = await ask(secret, "GET", "/health", {"X-Request-ID": 'bad id"\t{}'})
            assert re.fullmatch("[0-9a-f]{16}", brought.headers["x-request-id"])
            return (await ask(secret, "GET", "/metrics")).text

        with caplog.at_level(logging.INFO, "memorist.serve"):
            numbers = told(tmp_path, talk, mine)
        lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "memorist.serve"]
        assert [line["request"] for line in lines if line["route"] == "/v1/search"] == ["mine-1"]
        assert {line["key"] for line in lines if line["route"].startswith("/v1")} == {"app"}
        everything = numbers + json.dumps(lines)
        assert not any(word in everything for word in ("anna", "Porto", secret, "bad id"))
        assert 'memorist_requests_total{method="POST",route="/v1/add",status="200"} 1.0' in numbers

    def test_the_description_has_examples_for_what_is_asked(self, tmp_path: Path) -> None:
        app = make_app(Serving(lambda: AsyncMemory(tmp_path / "m.db"), Keys({})))
        described = app.openapi()
        assert {"/v1/add", "/v1/observe", "/v1/search", "/v1/context", "/v1/erase", "/v1/export"} <= set(
            described["paths"]
        )
        for path, calls in described["paths"].items():
            for call in calls.values():
                assert call["summary"] and call["security"] and "429" in call["responses"], path
        assert "Porto" in json.dumps(described["components"]["schemas"]["Item"])


@contextmanager
def running(folder: Path, *more: str, place: str = "") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server in processes of its own, and its address. place: of the memory, if not a file in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = place or str(folder / "m.db")
    command = [sys.executable, "-m", "memorist", "serve", "--port", str(port), "--file", place, *more]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                if httpx2.get(f"{address}/health").status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.1)
        yield process, address
    finally:
        process.terminate()  # its workers end with it; killed, it would leave them behind
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.communicate()


class TestProcesses:
    def test_several_serve_one_file_and_end_what_they_have_begun(self, tmp_path: Path) -> None:
        """SIGTERM under load: every answer that came is on disk, and no request that was taken is dropped."""
        secret = add_key(tmp_path / "keys.json", "app", "shop", rights=RIGHTS, per_minute=0)
        headers = {"Authorization": f"Bearer {secret}"}
        done: list[str] = []

        async def load(address: str, process: subprocess.Popen[bytes]) -> None:
            async with httpx2.AsyncClient(base_url=address, headers=headers, timeout=30) as client:

                async def one(number: int) -> None:
                    for place in range(100):
                        text = f"Fact {number} {place}."
                        try:
                            answer = await client.post("/v1/add", json={"user": "anna", "items": [{"text": text}]})
                        except httpx2.ConnectError:
                            return  # nobody listens any more
                        except httpx2.TransportError:
                            return  # a connection that waited for a next request was closed
                        assert answer.status_code == 200, answer.text
                        done.append(text)

                async def end() -> None:
                    while len(done) < 20:
                        await asyncio.sleep(0.02)
                    process.send_signal(signal.SIGTERM)

                await asyncio.gather(end(), *(one(number) for number in range(4)))

        with running(tmp_path, "--keys", str(tmp_path / "keys.json"), "--workers", "2") as (process, address):
            asyncio.run(load(address, process))
            assert process.wait(20) == 0 or process.returncode == -signal.SIGTERM
        with Memory(tmp_path / "m.db", read_only=True) as memory:
            kept = {record.text for record in memory.list(Scope("shop:anna"))}
        assert len(done) >= 20 and set(done) <= kept
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        wrong = [line for line in lines if "error" in line]  # a traceback
        assert wrong == []

    def test_open_to_this_machine_alone_it_has_a_key_of_its_own(self, tmp_path: Path) -> None:
        with running(tmp_path) as (process, address):
            assert process.stdout is not None
            secret = process.stdout.readline().decode().split()[-1]
            who = {"user": "anna"}
            assert httpx2.get(f"{address}/v1/records", params=who).status_code == 401
            bearer = {"Authorization": f"Bearer {secret}"}
            assert httpx2.get(f"{address}/v1/records", params=who, headers=bearer).json()["records"] == []
        with pytest.raises(ServeError, match="this machine alone"):
            serve(Settings("m.db", "", 1000), host="0.0.0.0", port=0, workers=1, seconds=1)
        with pytest.raises(ServeError, match="memorist key"):
            serve(Settings("m.db", str(tmp_path / "none.json"), 1000), host="0.0.0.0", port=0, workers=1, seconds=1)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_no_part_of_an_answer_waits_for_the_other_side(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
    ) -> None:
        """Where the option is missing on the listening line, an answer in two parts takes 40 ms longer."""
        add_key(tmp_path / "keys.json", "app", "shop")
        at_once: list[int] = []

        def started(self: Any, sockets: Any = None) -> None:
            self.started = True
            for one in sockets or self.sockets:
                at_once.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                one.close()

        monkeypatch.setattr("uvicorn.Server.run", started)
        monkeypatch.setattr("uvicorn.supervisors.Multiprocess.run", started)
        monkeypatch.setattr(os, "environ", dict(os.environ))
        settings = Settings(str(tmp_path / "m.db"), str(tmp_path / "keys.json"), 1000)
        serve(settings, host="127.0.0.1", port=0, workers=workers, seconds=1)
        assert at_once == [1]


@pytest.mark.filterwarnings("ignore")  # of the library's own making
def test_no_request_that_the_description_allows_or_forbids_breaks_the_server(tmp_path: Path) -> None:
    """Schemathesis, over all of it: no status from 500 on, and answers as they are described."""
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis import GenerationMode, checks

    secret = add_key(tmp_path / "keys.json", "app", "shop", user="anna", rights=RIGHTS, per_minute=0)
    wanted = [
        checks.not_a_server_error, checks.content_type_conformance, checks.response_schema_conformance,
        checks.status_code_conformance,
    ]  # fmt: skip
    statuses: Counter[str] = Counter()

    def asked(operation: Any, mode: Any) -> None:
        @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            answer = case.call(headers={"Authorization": f"Bearer {secret}"})
            statuses[f"{operation.label} {answer.status_code // 100}"] += 1
            case.validate_response(answer, checks=wanted)

        ask()

    with running(tmp_path, "--keys", str(tmp_path / "keys.json")) as (_, address):
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        for operation in operations:
            for mode in GenerationMode:
                asked(operation, mode)
        assert httpx2.get(f"{address}/health").status_code == 200
    assert len(operations) >= 11 and len({name.rpartition(" ")[0] for name in statuses}) == len(operations)
    assert any(name.endswith(" 2") for name in statuses) and any(name.endswith(" 4") for name in statuses)


class TestTools:
    """The memory as tools, with the protocol's own client."""

    async def talk(self, client: Client) -> None:
        assert client.instructions is not None and "recall" in client.instructions
        known = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(known) == {"recall", "remember", "observe", "update", "forget", "history"}
        assert all(tool.description and tool.annotations for tool in known.values())
        harmless = {name for name, tool in known.items() if tool.annotations and tool.annotations.read_only_hint}
        assert harmless == {"recall", "history"}

        async def did(name: str, **given: Any) -> Any:
            answer = await client.call_tool(name, given)
            assert not answer.is_error, answer.content
            return answer.structured_content

        one = (await did("remember", text="Anna lives in Porto."))["id"]
        assert (await did("remember", text="Anna lives in Porto."))["code"] == "unchanged"
        assert f"[{one}]" in (await did("recall", query="Where does Anna live?"))["text"]
        assert (await did("update", record_id=one, text="Anna lives in Leeds.", reason="moved"))["code"] == "applied"
        past = (await did("history", record_id=one))["changes"]
        assert [(c["before"], c["after"]) for c in past][1] == ("Anna lives in Porto.", "Anna lives in Leeds.")
        told = (await did("observe", messages=[{"role": "user", "content": "I have two cats."}]))["results"]
        assert "cats" in told[0]["text"] and told[0]["reason"]
        assert (await did("forget", record_id=one))["done"] is True
        again = await client.call_tool("forget", {"record_id": one})
        assert again.is_error and "no such record" in str(again.content)
        for wrong in ({"query": ""}, {"query": "x", "max_tokens": 1}, {}):
            assert (await client.call_tool("recall", wrong)).is_error

    def test_within_a_program(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with AsyncMemory(tmp_path / "m.db") as memory, Client(of_one(memory, Scope("anna"))) as client:
                await self.talk(client)
                assert [record.text for record in await memory.list(Scope("anna"))] == ["I have two cats."]

        asyncio.run(main())

    def test_over_standard_input_and_output(self, tmp_path: Path) -> None:
        file = str(tmp_path / "m.db")
        started = StdioServerParameters(
            command=sys.executable, args=["-m", "memorist", "mcp", "run", "--user", "anna", "--file", file],
            env=dict(os.environ) | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

        async def main() -> None:
            async with Client(started) as client:
                await self.talk(client)

        asyncio.run(main())
        with Memory(file, read_only=True) as memory:
            assert [record.text for record in memory.list(Scope("anna"))] == ["I have two cats."]

    def test_over_http_for_a_key_of_one_user(self, tmp_path: Path) -> None:
        keys = tmp_path / "keys.json"
        own = add_key(keys, "own", "shop", user="anna", rights=RIGHTS, per_minute=0)
        wide = add_key(keys, "wide", "shop", rights=RIGHTS, per_minute=0)
        reads = add_key(keys, "reads", "shop", user="anna", rights=("read",), per_minute=0)

        async def main(address: str) -> None:
            @asynccontextmanager
            async def client(secret: str) -> AsyncIterator[Client]:
                bearer = {"Authorization": f"Bearer {secret}"}
                async with (
                    httpx2.AsyncClient(headers=bearer) as http,
                    Client(streamable_http_client(f"{address}/mcp", http_client=http)) as found,
                ):
                    yield found

            async with client(own) as mine:
                await self.talk(mine)
            async with client(wide) as other:
                answer = await other.call_tool("recall", {"query": "cats"})
                assert answer.is_error and "bound to no user" in str(answer.content)
            listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
            accepts = {"Accept": "application/json, text/event-stream"}
            for secret, status in (("mem_no", 401), ("", 401)):
                bearer = accepts | ({"Authorization": f"Bearer {secret}"} if secret else {})
                answer = httpx2.post(f"{address}/mcp", json=listing, headers=bearer)
                assert answer.status_code == status and answer.headers["content-type"] == PROBLEM
            streaming = {"Accept": "text/event-stream", "Authorization": f"Bearer {own}"}
            assert httpx2.get(f"{address}/mcp", headers=streaming).status_code == 405
            async with client(reads) as reader:
                assert "cats" in str((await reader.call_tool("recall", {"query": "cats"})).structured_content)
                answer = await reader.call_tool("remember", {"text": "x"})
                assert answer.is_error and "'write' was asked for" in str(answer.content)

        with running(tmp_path, "--keys", str(keys)) as (_, address):
            asyncio.run(main(address))
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        told = [(line["route"], line["status"], line["key"]) for line in lines if line.get("route") == "/mcp"]
        assert ("/mcp", 200, "own") in told and ("/mcp", 401, "") in told

    def test_what_a_model_is_told_names_no_tenant(self, tmp_path: Path) -> None:
        scope = key()[1].scope("anna")

        async def main() -> str:
            async with AsyncMemory(tmp_path / "m.db") as memory, Client(of_one(memory, scope)) as client:
                return str((await client.call_tool("forget", {"record_id": "x was refused"})).content)

        assert "shop" not in asyncio.run(main())

    def test_what_clients_need_is_printed(self, tmp_path: Path) -> None:
        told = CliRunner().invoke(app, ["mcp", "install", "--user", "anna", "--file", str(tmp_path / "m.db")]).output
        assert told.count("--user") == told.count("mcp add") + 4 and "mcp_servers.memorist" in told
        one = CliRunner().invoke(app, ["mcp", "install", "--user", "anna", "--client", "cursor"]).output
        entry = json.loads(one.partition("\n")[2])["mcpServers"]["memorist"]
        assert entry["args"][:4] == ["mcp", "run", "--user", "anna"]
        wrong = CliRunner().invoke(app, ["mcp", "install", "--user", "anna", "--client", "cursors"])
        assert "did you mean 'cursor'" in str(wrong.exception)


def test_what_expires_is_refused_from_then_on() -> None:
    assert key(expires=NOW)[1].has_expired(NOW) and not key(expires=NOW + timedelta(seconds=1))[1].has_expired(NOW)
