"""Models behind an endpoint, over real HTTP: what is asked, what is tried again, what is said of a failure."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx2")

from memorist import AsyncMemory, Endpoint, Memory, Scope
from memorist.decision import Action, Distribution, Observation, Stop
from memorist.errors import BankError, PolicyError, UnreadError
from memorist.memory.embedders import EndpointEmbedder, open_embedder
from memorist.models.sampler import Request

ANNA = Scope("anna")
Reply = tuple[int, str | bytes, dict[str, str]]


def completion(text: str | None, **more: Any) -> Reply:
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | more
    return 200, json.dumps({"choices": [choice], "usage": usage}), {}


@contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Reply]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on loopback that answers its n-th request; (url, the requests it got)."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append(body | {"path": self.path, "authorization": self.headers["authorization"]})
            status, text, headers = answer(len(seen), body)
            data = text if isinstance(text, bytes) else text.encode()
            self.send_response(status)
            for name, value in ({"content-length": str(len(data))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that give up are what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def ask(endpoint: Endpoint, prompt: str = "hello", **more: Any) -> str:
    (action,) = endpoint.sample(
        [Request(Observation(prompt, **more), Distribution(temperature=0.5, top_p=0.9), 2**40 + 3)]
    )
    return action.text


def patient(url: str, **more: Any) -> tuple[Endpoint, list[float]]:
    waited: list[float] = []
    return Endpoint(url, "m", sleep=waited.append, **more), waited


def test_what_is_asked() -> None:
    with serving(lambda n, body: completion("yes")) as (url, seen):
        endpoint, _ = patient(url + "/", key="secret", extra={"think": False}, prices=(1.0, 10.0))
        assert ask(endpoint, "hel\ud800lo", system="be brief", max_tokens=7) == "yes"
        (body,) = seen
        assert body == {
            "model": "m", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3, "think": False,
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hel?lo"}],
            "path": "/v1/chat/completions", "authorization": "Bearer secret",
        }  # fmt: skip
        assert "secret" not in repr(endpoint)
        spent = endpoint.spent
        assert (spent.calls, spent.failures, spent.prompt_tokens, spent.completion_tokens) == (1, 0, 100, 10)
        assert spent.cost == pytest.approx(2e-4)


def test_what_was_said_before_in_a_window_is_told_again() -> None:
    with serving(lambda n, body: completion("yes")) as (url, seen):
        asked = Observation("first", system="be brief").then(Action("one"), "second").then(Action("two"), "third")
        patient(url)[0].sample([Request(asked, Distribution(), 3)])
    said = [(message["role"], message["content"]) for message in seen[0]["messages"]]
    assert said == [
        ("system", "be brief"), ("user", "first"), ("assistant", "one"), ("user", "second"), ("assistant", "two"),
        ("user", "third"),
    ]  # fmt: skip


def test_a_batch_is_asked_side_by_side_and_answered_in_order() -> None:
    together = threading.Barrier(4, timeout=5)

    def answer(number: int, body: dict[str, Any]) -> Reply:
        together.wait()
        return completion(body["messages"][0]["content"].upper())

    with serving(answer) as (url, _):
        requests = [Request(Observation(text), Distribution(), n) for n, text in enumerate("abcd")]
        assert [action.text for action in Endpoint(url, "m").sample(requests)] == list("ABCD")


def test_cut_and_empty_replies() -> None:
    with serving(lambda n, body: completion(None, finish_reason="length")) as (url, _):
        (action,) = Endpoint(url, "m").sample([Request(Observation("x"), Distribution(), 0)])
        assert (action.text, action.stop) == ("", Stop.LENGTH)


@pytest.mark.parametrize(
    "trouble",
    [
        (503, "busy", {}),
        (429, "slow down", {"retry-after": "2"}),
        (200, "<html>", {}),
        (200, "{}", {}),
        (200, '{"choices": [{"message": {"content": 3}}]}', {}),
        (200, b"\xff\xfe", {}),
        (200, "[" * 100_000, {}),
    ],
)
def test_what_may_pass_is_tried_again(trouble: Reply) -> None:
    with serving(lambda n, body: trouble if n < 3 else completion("at last")) as (url, seen):
        endpoint, waited = patient(url)
        assert ask(endpoint) == "at last"
        assert len(seen) == 3 and endpoint.spent.failures == 2
        assert waited == [2.0, 2.0] if trouble[2] else 0.3 < waited[0] < waited[1] < 1.5


@pytest.mark.parametrize(("status", "advice"), [(401, "check the key"), (404, "check the url"), (400, "was refused")])
def test_what_will_not_pass_is_not_tried_again(status: int, advice: str) -> None:
    with serving(lambda n, body: (status, "no such thing", {})) as (url, seen):
        with pytest.raises(PolicyError, match=f"answered status {status}: no such thing; .*{advice}"):
            ask(patient(url)[0])
        assert len(seen) == 1


def test_an_endpoint_that_is_down_slow_or_no_url() -> None:
    for url in ("no url", "ftp://x", ""):
        with pytest.raises(PolicyError, match=r"expected e\.g\. http://localhost"):
            patient(url)
    for url in ("http://127.0.0.1:9/v1", "http://[/"):
        endpoint, waited = patient(url, attempts=2)
        with pytest.raises(PolicyError, match=r"did not answer in 2 attempts; the last: .*Check that"):
            ask(endpoint)
        assert len(waited) == 1

    def slow(number: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.3)
        return completion("late")

    with serving(slow) as (url, _):
        endpoint, _ = patient(url, timeout=0.05, attempts=2)
        with pytest.raises(PolicyError, match="ReadTimeout"):
            ask(endpoint)


def test_it_cannot_choose() -> None:
    with pytest.raises(PolicyError, match="cannot choose among options"):
        ask(Endpoint("http://127.0.0.1:9", "m"), options=("a", "b"))


def managing(number: int, body: dict[str, Any]) -> Reply:
    """A model that takes what it is told for a fact, and adds it."""
    prompt = body["messages"][-1]["content"]
    if "Message:" in prompt:
        return completion(json.dumps({"facts": [prompt.rpartition("Message: ")[2]]}))
    facts = json.loads(prompt.rpartition("New facts:\n")[2])
    return completion(json.dumps({"memory": [{"id": "9", "text": fact, "event": "ADD"} for fact in facts]}))


class TestMemory:
    def test_observe_asks_it_and_counts(self, tmp_path: Path) -> None:
        with serving(managing) as (url, seen):
            endpoint = Endpoint(url, "m", prices=(2.0, 20.0))
            with Memory(tmp_path / "m.db", embedder="hashed", agent=endpoint) as memory:
                results = memory.observe(["I live in Paris", "I have a dog"], ANNA)
                assert [r.code for r in results] == ["applied", "applied"]
                assert [r.text for r in memory.list(ANNA)] == ["I live in Paris", "I have a dog"]
                usage = memory.usage()["observe"]
                assert (usage.calls, usage.prompt_tokens, usage.completion_tokens) == (1, 400, 40)
                assert usage.cost == pytest.approx(4 * 4e-4) and len(seen) == 4

    def test_what_a_model_garbles_is_a_code_and_loses_nothing(self, tmp_path: Path) -> None:
        def junk(number: int, body: dict[str, Any]) -> Reply:
            garbled = completion("I would rather not.")
            return managing(number, body) if "Message:" in body["messages"][-1]["content"] else garbled

        with (
            serving(junk) as (url, _),
            Memory(tmp_path / "m.db", embedder="hashed", agent=Endpoint(url, "m")) as memory,
        ):
            memory.add("Anna has a cat", ANNA)
            assert [r.code for r in memory.observe("I live in Paris", ANNA)] == ["malformed"]
            assert [r.text for r in memory.list(ANNA)] == ["Anna has a cat"]

    def test_a_record_that_the_assistant_repeats_is_not_shown_to_it(self, tmp_path: Path) -> None:
        file = tmp_path / "m.db"
        with serving(managing) as (url, seen), Memory(file, embedder="hashed", agent=Endpoint(url, "m")) as memory:
            memory.add("Anna is allergic to nuts", ANNA)
            reply = "Anna is allergic to nuts. So I booked a table without them."
            memory.observe([{"role": "assistant", "content": reply}], ANNA)
            assert not any("nuts" in body["messages"][-1]["content"].partition("Message:")[2] for body in seen)
            assert [r.text for r in memory.list(ANNA)][1:] == ["So I booked a table without them."]
            assert memory.observe([{"role": "assistant", "content": "anna is allergic to nuts!"}], ANNA) == []

    def test_where_it_fails_what_is_read_and_what_is_not_is_told(self, tmp_path: Path) -> None:
        def dying(number: int, body: dict[str, Any]) -> Reply:
            return managing(number, body) if number <= 2 else (500, "out of memory", {})

        with serving(dying) as (url, _):
            endpoint, _ = patient(url)
            with Memory(tmp_path / "m.db", embedder="hashed", agent=endpoint) as memory:
                with pytest.raises(UnreadError, match=r"1 of 3 messages were read, then: .*out of memory") as raised:
                    memory.observe(["I live in Paris", "I have a dog", "I like tea"], ANNA)
                assert [r.record.text for r in raised.value.results] == ["I live in Paris"]
                assert [m.text for m in raised.value.unread] == ["I have a dog", "I like tea"]
                assert len(memory.list(ANNA)) == 1 and memory.usage()["observe"].errors == 1

    def test_to_await_it_lets_others_run(self, tmp_path: Path) -> None:
        together = threading.Barrier(2, timeout=5)

        def answer(number: int, body: dict[str, Any]) -> Reply:
            if number <= 2:
                together.wait()  # both are under way
            return managing(number, body)

        async def run() -> list[str]:
            async with AsyncMemory(tmp_path / "m.db", embedder="hashed", agent=Endpoint(url, "m")) as memory:
                await asyncio.gather(memory.observe("I live in Paris", ANNA), memory.observe("I have a dog", ANNA))
                return sorted(r.text for r in await memory.list(ANNA))

        with serving(answer) as (url, _):
            assert asyncio.run(run()) == ["I have a dog", "I live in Paris"]

    def test_it_is_tried_again_when_awaited_too(self) -> None:
        with serving(lambda n, b: (503, "", {"retry-after": "0"}) if n < 3 else completion("at last")) as (url, seen):
            assert asyncio.run(Endpoint(url, "m").act(Observation("x"))).text == "at last"
            assert len(seen) == 3
            with pytest.raises(PolicyError, match="did not answer in 1 attempts"):
                asyncio.run(Endpoint("http://127.0.0.1:9", "m", attempts=1).act(Observation("x")))

    def test_inside_a_running_loop_the_library_that_does_not_wait_works_too(self, tmp_path: Path) -> None:
        async def cell() -> int:
            with Memory(tmp_path / "m.db", embedder="hashed", agent=Endpoint(url, "m")) as memory:
                return len(memory.observe("I live in Paris", ANNA))

        with serving(managing) as (url, _):
            assert asyncio.run(cell()) == 1


def embedding(number: int, body: dict[str, Any]) -> Reply:
    """As many numbers as there are kinds of letters, in another order than asked."""
    rows = [
        {"index": i, "embedding": [3.0 * text.count(c) for c in "abcd"]} for i, text in enumerate(body["input"])
    ]  # fmt: skip
    return 200, json.dumps({"data": rows[::-1]}), {}


class TestEmbedder:
    def test_vectors_of_length_1_in_the_order_of_the_texts(self) -> None:
        with serving(embedding) as (url, seen):
            embedder = open_embedder(f"{url}#letters")
            assert (embedder.name, embedder.size) == (f"{url}#letters", 4)
            vectors = embedder.embed(["a", "bb", "", "ab"] * 20)
            assert vectors.shape == (80, 4) and vectors[:2].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
            assert not vectors[2].any() and len(seen) == 3
            assert seen[1]["input"][:3] == ["a", "bb", " "] and seen[1]["path"] == "/v1/embeddings"

    def test_a_memory_with_it(self, tmp_path: Path) -> None:
        with serving(embedding) as (url, _):
            with Memory(tmp_path / "m.db", embedder=f"{url}#letters") as memory:
                memory.add_many(["aab", "cd"], ANNA)
                assert memory.search("a", ANNA, mode="vector")[0].record.text == "aab"
            with Memory(tmp_path / "m.db", embedder=f"{url}#letters") as memory:
                assert len(memory.list(ANNA)) == 2
        with Memory(tmp_path / "m.db") as memory:
            assert len(memory.list(ANNA)) == 2, "it opens by the name that the file has, and is not asked yet"
        with pytest.raises(BankError, match="made with embedder 'http"):
            Memory(tmp_path / "m.db", embedder="hashed")

    def test_what_is_wrong_with_it_is_named(self) -> None:
        with pytest.raises(BankError, match="does not say which model"):
            open_embedder("http://127.0.0.1:9/v1")
        with pytest.raises(BankError, match="did not answer in 1 attempts"):
            EndpointEmbedder("http://127.0.0.1:9/v1", "m", attempts=1)
        with serving(lambda n, b: (200, json.dumps({"data": [{"index": 0, "embedding": [1.0] * n}]}), {})) as (url, _):
            with pytest.raises(BankError, match="vectors of another size than 1"):
                EndpointEmbedder(url, "m").embed(["a"])
            with pytest.raises(BankError, match="not what was asked for"):
                EndpointEmbedder(url, "m", size=3, attempts=1).embed(["a", "b"])

    def test_sentence_transformers_must_be_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sentence_transformers", None)
        with pytest.raises(BankError, match="needs sentence-transformers: pip install"):
            open_embedder("st:all-MiniLM-L6-v2")
