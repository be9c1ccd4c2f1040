"""What a server does later, what it answers from memory, how much a tenant may keep, who gets in at all."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from banks import ANNA, AT, DURABLE, add
from memorist import Memory, Scope
from memorist.errors import BankError
from memorist.library.asynchronous import AsyncMemory
from memorist.memory.record import Scope as Whose
from memorist.memory.stored_jobs import Job
from memorist.models.endpoint import Endpoint
from memorist.serve.app import Serving, make_app
from memorist.serve.jobs import KEPT, LEASE
from memorist.serve.keys import RIGHTS, Keys, add_key, read_keys
from test_chat import chatting, model
from test_serve import PROBLEM, added, key, running, told

NOW = datetime(2026, 5, 1, tzinfo=UTC)


async def ended(ask: Callable[..., Any], secret: str, job: str, user: str = "anna") -> dict[str, Any]:
    """A job once it is done or failed."""
    for _ in range(300):
        found = await ask(secret, "GET", f"/v1/jobs/{job}", params={"user": user})
        assert found.status_code == 200, found.text
        if found.json()["state"] in ("done", "failed"):
            return found.json()  # type: ignore[no-any-return]
        await asyncio.sleep(0.02)
    raise AssertionError("the job does not end")


class TestJobs:
    """Messages that are read later."""

    def test_what_is_to_be_read_later_is_named_at_once_and_read_then(self, tmp_path: Path) -> None:
        secret, mine = key()

        async def talk(ask: Callable[..., Any]) -> None:
            said = [{"role": "user", "content": "I live in Porto. I have two cats."}]
            asked = {"user": "anna", "messages": said, "later": True}
            answer = await ask(secret, "POST", "/v1/observe", json=asked)
            assert answer.status_code == 202 and answer.json()["state"] == "waiting"
            found = await ended(ask, secret, answer.json()["job"])
            assert found["state"] == "done" and found["unread"] == []
            assert {one["code"] for one in found["results"]} == {"applied"}
            kept = (await ask(secret, "GET", "/v1/records", params={"user": "anna"})).json()["records"]
            assert [one["record"]["id"] for one in found["results"]] == [record["id"] for record in kept] != []

        told(tmp_path, talk, mine)

    def test_nobody_else_s_job_is_told_of(self, tmp_path: Path) -> None:
        (secret, mine), (other, theirs) = key(), key("other", "bank")

        async def talk(ask: Callable[..., Any]) -> None:
            asked = {"user": "anna", "messages": [{"role": "user", "content": "I live in Porto."}], "later": True}
            job = (await ask(secret, "POST", "/v1/observe", json=asked)).json()["job"]
            for who, user in ((other, "anna"), (secret, "ben")):
                answer = await ask(who, "GET", f"/v1/jobs/{job}", params={"user": user})
                assert answer.status_code == 404 and answer.headers["content-type"] == PROBLEM
            await ended(ask, secret, job)

        told(tmp_path, talk, mine, theirs)

    def test_where_the_model_is_down_the_job_says_what_was_not_read(self, tmp_path: Path) -> None:
        """An endpoint at which nobody listens."""
        secret = add_key(tmp_path / "keys.json", "app", "shop", rights=RIGHTS)
        nobody = Endpoint("http://127.0.0.1:9/v1", "model", attempts=1, timeout=1)

        async def main() -> dict[str, Any]:
            keys = Keys(read_keys(tmp_path / "keys.json"))
            app = make_app(Serving(lambda: AsyncMemory(tmp_path / "m.db", embedder="hashed", agent=nobody), keys))
            async with app.router.lifespan_context(app):
                transport = httpx2.ASGITransport(app=app)
                async with httpx2.AsyncClient(transport=transport, base_url="http://server") as client:

                    async def ask(secret: str, method: str, path: str, **given: Any) -> Any:
                        return await client.request(
                            method, path, headers={"Authorization": f"Bearer {secret}"}, **given
                        )

                    said = [{"role": "user", "content": "I live in Porto."}]
                    asked = {"user": "anna", "messages": said, "later": True}
                    job = (await ask(secret, "POST", "/v1/observe", json=asked)).json()["job"]
                    return await ended(ask, secret, job)

        found = asyncio.run(main())
        assert found["state"] == "failed" and "does not answer" in found["detail"]
        assert [one["content"] for one in found["unread"]] == ["I live in Porto."]

    def test_what_a_killed_server_was_to_read_is_read_by_the_next(self, tmp_path: Path) -> None:
        secret = add_key(tmp_path / "keys.json", "app", "shop", rights=RIGHTS, per_minute=0)
        headers, jobs = {"Authorization": f"Bearer {secret}"}, []
        with running(tmp_path, "--keys", str(tmp_path / "keys.json")) as (process, address):
            for number in range(30):
                said = [{"role": "user", "content": f"My aunt number {number} lives in Porto."} for _ in range(3)]
                asked = {"user": f"user{number}", "messages": said, "later": True}
                answer = httpx2.post(f"{address}/v1/observe", json=asked, headers=headers)
                assert answer.status_code == 202
                jobs.append(answer.json()["job"])
            os.kill(process.pid, signal.SIGKILL)
        with Memory(tmp_path / "m.db") as memory, memory.bank._tables.writing() as db:
            db.execute(
                "UPDATE jobs SET until = 0 WHERE state = 'running'"
            )  # as if the minute of the one that was under way were over
        with running(tmp_path, "--keys", str(tmp_path / "keys.json")) as (_, address):
            for number, job in enumerate(jobs):
                for _ in range(300):
                    asked = {"user": f"user{number}"}
                    state = httpx2.get(f"{address}/v1/jobs/{job}", params=asked, headers=headers).json()["state"]
                    if state == "done":
                        break
                    time.sleep(0.05)
                assert state == "done"
                records = httpx2.get(f"{address}/v1/records", params=asked, headers=headers).json()["records"]
                assert [f"number {number} lives" in record["text"] for record in records] == [True]


class Slow:
    """An agent that takes its time, and may fail; told says when it has begun."""

    def __init__(self, bank: Any, told: threading.Event, go: threading.Event, error: Exception | None = None) -> None:
        self.bank, self.told, self.go, self.error = bank, told, go, error

    async def observe(self, messages: Any, scope: Any) -> Any:
        self.told.set()
        await asyncio.to_thread(self.go.wait, 10)
        if self.error is not None:
            raise self.error
        yield self.bank.apply([add(message.text) for message in messages], scope, at=AT)


class TestRunner:
    """What can go wrong while a job is done."""

    def talk(self, tmp_path: Path, error: Exception | None, during: Callable[..., Any]) -> Any:
        secret, mine = key()
        told_, go = threading.Event(), threading.Event()

        async def main() -> Any:
            def memory() -> AsyncMemory:
                slow = partial(Slow, told=told_, go=go, error=error)
                return AsyncMemory(tmp_path / "m.db", embedder="hashed", agent=slow)

            app = make_app(Serving(memory, Keys({mine.digest: mine})))
            async with app.router.lifespan_context(app):
                transport = httpx2.ASGITransport(app=app)
                async with httpx2.AsyncClient(transport=transport, base_url="http://server") as client:

                    async def ask(secret: str, method: str, path: str, **given: Any) -> Any:
                        bearer = {"Authorization": f"Bearer {secret}"}
                        return await client.request(method, path, headers=bearer, **given)

                    said = [{"role": "user", "content": "I live in Porto."}]
                    asked = {"user": "anna", "messages": said, "later": True}
                    job = (await ask(secret, "POST", "/v1/observe", json=asked)).json()["job"]
                    while not told_.is_set():
                        await asyncio.sleep(0.01)
                    return await during(ask, secret, job, go, app)

        return asyncio.run(main())

    def test_what_is_erased_while_it_is_read_does_not_come_back(self, tmp_path: Path) -> None:
        async def during(ask: Any, secret: str, job: str, go: threading.Event, app: Any) -> None:
            gone = await ask(secret, "POST", "/v1/erase", json={"user": "anna"})
            assert gone.json()["done"]
            go.set()
            await asyncio.sleep(0.5)
            assert (await ask(secret, "GET", "/v1/records", params={"user": "anna"})).json()["records"] == []
            assert (await ask(secret, "GET", f"/v1/jobs/{job}", params={"user": "anna"})).status_code == 404

        self.talk(tmp_path, None, during)

    def test_who_lost_a_job_to_another_writes_nothing_for_it(self, tmp_path: Path) -> None:
        async def during(ask: Any, secret: str, job: str, go: threading.Event, app: Any) -> None:
            bank = app.state.memory.memory.bank
            with bank._tables.writing() as db:
                db.execute("UPDATE jobs SET holder = 'another'")
            go.set()
            await asyncio.sleep(0.5)
            assert (await ask(secret, "GET", "/v1/records", params={"user": "anna"})).json()["records"] == []
            assert (await ask(secret, "GET", f"/v1/jobs/{job}", params={"user": "anna"})).json()["state"] == "running"

        self.talk(tmp_path, None, during)

    def test_an_agent_that_fails_in_its_own_way_fails_its_job_alone(self, tmp_path: Path) -> None:
        async def during(ask: Any, secret: str, job: str, go: threading.Event, app: Any) -> None:
            go.set()
            found = await ended(ask, secret, job)
            assert found["state"] == "failed" and found["unread"] and "the log has it" in found["detail"]
            said = {"user": "anna", "messages": [{"role": "user", "content": "Another."}], "later": True}
            other = (await ask(secret, "POST", "/v1/observe", json=said)).json()["job"]
            assert (await ended(ask, secret, other))["state"] == "failed", "the next one is done too"

        self.talk(tmp_path, ValueError("no"), during)

    def test_a_renewal_that_fails_once_costs_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("memorist.serve.jobs.LEASE", 0.2)
        tried: list[int] = []

        async def during(ask: Any, secret: str, job: str, go: threading.Event, app: Any) -> None:
            bank = app.state.memory.memory.bank
            renew = bank.renew

            def failing(*given: Any) -> None:
                tried.append(1)
                if len(tried) == 1:
                    raise BankError("away")
                renew(*given)

            monkeypatch.setattr(bank, "renew", failing)
            await asyncio.sleep(0.4)
            go.set()
            assert (await ended(ask, secret, job))["state"] == "done"
            assert len((await ask(secret, "GET", "/v1/records", params={"user": "anna"})).json()["records"]) == 1

        self.talk(tmp_path, None, during)
        assert len(tried) > 1


@pytest.mark.parametrize("kind", DURABLE)
class TestStoredJobs:
    """Jobs in the tables."""

    def test_the_oldest_is_claimed_once_and_again_when_its_time_is_over(self, kind: str) -> None:
        with ExitStack() as stack:
            bank = DURABLE[kind](stack)
            assert bank.claim(NOW, LEASE, "me") is None
            first, second = (Job(name, ANNA, {"n": name}, NOW + timedelta(seconds=n)) for n, name in enumerate("ba"))
            bank.queue(second)
            bank.queue(first)
            got = bank.claim(NOW, LEASE, "me")
            assert got == replace(first, state="running", holder="me")
            claimed = bank.claim(NOW, LEASE, "me")
            assert claimed == replace(second, state="running", holder="me")
            assert bank.claim(NOW, LEASE, "me") is None
            later = NOW + timedelta(seconds=LEASE + 1)
            bank.renew(replace(second, holder="me"), later, LEASE)
            assert bank.claim(later, LEASE, "other") == replace(first, state="running", holder="other")
            assert bank.claim(later, LEASE, "other") is None
            bank.end(replace(got, state="failed"), later, KEPT)
            found = bank.job("b", ANNA)
            assert found is not None and found.state == "running", "who lost it does not end it"

    def test_many_jobs_of_one_tenant_hold_up_nobody_else(self, kind: str) -> None:
        with ExitStack() as stack:
            bank = DURABLE[kind](stack)
            for n in range(60):
                bank.queue(Job(f"a{n:02}", Scope(f"busy:{n % 3}"), {}, NOW + timedelta(seconds=n)))
            bank.queue(Job("b", Scope("other:ben"), {}, NOW + timedelta(hours=1)))
            claimed = [bank.claim(NOW, LEASE, "me") for _ in range(61)]
            names = [job.id for job in claimed if job is not None]
            assert "b" in names[:40], "by chance once in 10^12"
            assert [name for name in names if name != "b"] == [f"a{n:02}" for n in range(60)], "its own in their order"

    def test_what_came_of_it_can_be_asked_for_a_day(self, kind: str) -> None:
        with ExitStack() as stack:
            bank = DURABLE[kind](stack)
            bank.queue(Job("a", ANNA, {}, NOW))
            (job,) = [bank.claim(NOW, LEASE, "me")]
            assert job is not None
            bank.end(replace(job, state="done", outcome={"x": "é"}), NOW, KEPT)
            found = bank.job("a", ANNA)
            assert found is not None and (found.state, found.outcome) == ("done", {"x": "é"})
            assert bank.claim(NOW + KEPT, LEASE, "me") is None and bank.job("a", ANNA) is not None
            assert bank.claim(NOW + KEPT + timedelta(seconds=1), LEASE, "me") is None and bank.job("a", ANNA) is None

    def test_what_is_erased_takes_its_jobs_along(self, kind: str) -> None:
        with ExitStack() as stack:
            bank = DURABLE[kind](stack)
            for name, scope in (("a", ANNA), ("s", Whose("anna", session="1")), ("b", Scope("ben"))):
                bank.queue(Job(name, scope, {}, NOW))
            bank.erase(Whose("anna", session="1"))
            assert [bank.job(name, Scope(user)) is None for name, user in (("a", "anna"), ("s", "anna"))] == [0, 1]
            (result,) = bank.apply([add("one")], ANNA, at=AT)
            assert result.record is not None
            bank.erase(ANNA, ids=[result.record.id])
            assert bank.job("a", ANNA) is not None, "it waits still, and tells of nothing that is gone"
            claimed = bank.claim(NOW, LEASE, "me")
            assert claimed is not None
            bank.end(replace(claimed, state="done"), NOW, KEPT)
            bank.erase(Scope(claimed.scope.user), ids=["none"])
            assert bank.job(claimed.id, Scope(claimed.scope.user)) is None
            bank.erase(ANNA)
            bank.erase(Scope("ben"))
            bank.end(replace(claimed, state="done"), NOW, KEPT)
            assert bank.job(claimed.id, Scope(claimed.scope.user)) is None, "nothing comes back"


class TestRoom:
    """How many records a tenant may have."""

    def test_a_tenant_that_has_as_many_as_it_may_writes_no_more_until_it_erases(self, tmp_path: Path) -> None:
        (secret, mine), (other, theirs) = key(most=3), key("other", "bank", most=3)

        async def talk(ask: Callable[..., Any]) -> None:
            [one, _] = await added(ask, secret, "anna", "one", "two")
            await added(ask, other, "anna", "theirs")
            for path, more in (
                ("/v1/add", {"items": [{"text": "three"}, {"text": "four"}]}),
                ("/v1/add", {"user": "ben", "items": [{"text": "three"}, {"text": "four"}]}),
            ):
                answer = await ask(secret, "POST", path, json={"user": "anna"} | more)
                assert answer.status_code == 403 and "3 may be kept" in answer.json()["detail"]
            await added(ask, secret, "ben", "three")
            said: Any = {"user": "anna", "messages": [{"role": "user", "content": "I live in Porto. I have a cat."}]}
            assert (await ask(secret, "POST", "/v1/observe", json=said)).status_code == 403
            job = (await ask(secret, "POST", "/v1/observe", json=said | {"later": True})).json()["job"]
            failed = await ended(ask, secret, job)
            assert failed["state"] == "failed" and "3 may be kept" in failed["detail"] and failed["unread"]
            assert len((await ask(secret, "GET", "/v1/records", params={"user": "anna"})).json()["records"]) == 2
            assert (await ask(secret, "DELETE", f"/v1/records/{one}", params={"user": "anna"})).status_code == 200
            await added(ask, secret, "anna", "four")

        told(tmp_path, talk, mine, theirs)

    def test_tools_and_chats_find_no_more_room_than_calls(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with model() as upstream:
            behind = f"http://127.0.0.1:{upstream.server_port}/v1#tiny"
            with chatting(tmp_path, behind, monkeypatch, user="anna", most=2) as (client, address, secret):
                bearer = {"Authorization": f"Bearer {secret}"}
                item = {"items": [{"text": "one"}, {"text": "two"}]}
                assert httpx2.post(f"{address}/v1/add", json=item, headers=bearer).status_code == 200

                async def tools() -> Any:
                    async with (
                        httpx2.AsyncClient(headers=bearer) as http,
                        Client(streamable_http_client(f"{address}/mcp", http_client=http)) as asked,
                    ):
                        return await asked.call_tool("remember", {"text": "three"})

                answer = asyncio.run(tools())
                assert answer.is_error and "may be kept" in str(answer.content)
                said: Any = [{"role": "user", "content": "I live in Porto."}]
                assert client.chat.completions.create(model="any", messages=said).choices
                time.sleep(0.5)
                assert len(httpx2.get(f"{address}/v1/records", headers=bearer).json()["records"]) == 2


class TestDoor:
    """Who has no key."""

    def test_what_is_sent_without_a_key_is_not_read(self, tmp_path: Path) -> None:
        _, mine = key()

        async def talk(ask: Callable[..., Any]) -> None:
            read = []

            async def endless() -> Any:
                for number in range(1000):
                    read.append(number)
                    yield b" " * 1000

            answer = await ask("mem_none", "POST", "/v1/add", content=endless())
            assert answer.status_code == 401 and answer.headers["content-type"] == PROBLEM
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["request"] == answer.headers["x-request-id"]
            assert len(answer.headers.get_list("x-request-id")) == 1

        told(tmp_path, talk, mine)


class TestAsk:
    """Questions that the model answers."""

    def test_an_answer_from_memory_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with model() as upstream:
            behind = f"http://127.0.0.1:{upstream.server_port}/v1#tiny"
            with chatting(tmp_path, behind, monkeypatch) as (_, address, secret):
                bearer, who = {"Authorization": f"Bearer {secret}"}, {"user": "anna"}
                item = {"items": [{"text": "Anna lives in Porto."}]}
                (one,) = httpx2.post(f"{address}/v1/add", json=who | item, headers=bearer).json()["results"]
                asked = who | {"question": "Where does Anna live?"}
                answer = httpx2.post(f"{address}/v1/ask", json=asked, headers=bearer)
                assert answer.json() == {"answer": upstream.reply, "ids": [one["record"]["id"]]}
        (sent,) = upstream.asked
        assert sent["model"] == "tiny" and sent["key"] == "Bearer theirs"
        assert "Anna lives in Porto." in sent["messages"][0]["content"]
        assert sent["messages"][1] == {"role": "user", "content": "Where does Anna live?"}

    def test_word_by_word(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with model() as upstream:
            behind = f"http://127.0.0.1:{upstream.server_port}/v1#tiny"
            with chatting(tmp_path, behind, monkeypatch) as (_, address, secret):
                bearer = {"Authorization": f"Bearer {secret}"}
                asked = {"user": "anna", "question": "Where does Anna live?", "stream": True}
                events = self.events(address, asked, bearer)
                upstream.breaks = True
                broken = self.events(address, asked, bearer)
        kinds = [kind for kind, _ in events]
        assert kinds == ["recalled", *["text"] * len(upstream.reply.split()), "done"]
        assert "".join(data["text"] for kind, data in events if kind == "text") == upstream.reply
        assert events[-1][1]["answer"] == upstream.reply
        assert [kind for kind, _ in broken][-1] == "problem" and broken[-1][1]["status"] == 502

    def events(self, address: str, asked: Any, headers: Any) -> list[tuple[str, Any]]:
        answer = httpx2.post(f"{address}/v1/ask", json=asked, headers=headers)
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = []
        for block in answer.text.strip().split("\n\n"):
            kind, data = block.split("\n")
            found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        return found

    def test_a_model_that_is_down_or_refuses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with model() as upstream:
            behind = f"http://127.0.0.1:{upstream.server_port}/v1#tiny"
            with chatting(tmp_path, behind, monkeypatch) as (_, address, secret):
                bearer, asked = {"Authorization": f"Bearer {secret}"}, {"user": "anna", "question": "Where?"}
                upstream.status = 401
                refused = httpx2.post(f"{address}/v1/ask", json=asked, headers=bearer)
                assert refused.status_code == 502 and refused.headers["content-type"] == PROBLEM
                upstream.shutdown()
                upstream.server_close()
                assert httpx2.post(f"{address}/v1/ask", json=asked, headers=bearer).status_code == 502
