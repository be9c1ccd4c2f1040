"""Chats that go through the memory, with OpenAI's own client and a model behind a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")
import httpx2
import openai

from memorist import Memory, Scope
from memorist.serve.chat import Heard
from memorist.serve.keys import RIGHTS, add_key
from test_serve import running


class Model(ThreadingHTTPServer):
    """A model that says one thing, and may fail on the way. asked: what it was sent."""

    def __init__(self, reply: str) -> None:
        self.reply, self.asked, self.breaks, self.status = reply, list[dict[str, Any]](), False, 200
        self.waits = 0.0  # seconds before it says anything
        self.raw = False  # whether texts are sent as they are, not escaped
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    """The model's way of answering."""

    server: Model

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        """A chat completion."""
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(sent | {"key": self.headers.get("authorization", "")})
        time.sleep(self.server.waits)
        about = {"id": "c", "object": "chat.completion", "created": 0, "model": sent.get("model", "")}
        if self.server.status != 200:
            self._send(self.server.status, json.dumps({"error": {"message": "no", "type": "x"}}).encode())
        elif not sent.get("stream"):
            message = {"role": "assistant", "content": self.server.reply}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._send(200, json.dumps(about | {"choices": [choice]}).encode())
        else:
            self._stream(about)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, about: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        words = self.server.reply.split(" ")
        for place, word in enumerate(words):
            delta = {"index": 0, "delta": {"content": word + " " * (place < len(words) - 1)}, "finish_reason": None}
            piece = about | {"object": "chat.completion.chunk", "choices": [delta]}
            self._chunk(f"data: {json.dumps(piece, ensure_ascii=not self.server.raw)}\n\n")
            if self.server.breaks and place == 1:
                self.connection.close()
                return
        self._chunk("data: [DONE]\n\n")
        self._chunk("")

    def _chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())
        self.wfile.flush()


@contextmanager
def model(reply: str = "You live in Porto, as far as I know.") -> Iterator[Model]:
    """A model behind a server, until the end."""
    server = Model(reply)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def chatting(
    folder: Path, behind: str, monkeypatch: pytest.MonkeyPatch, **key: Any
) -> Iterator[tuple[Any, str, str]]:  # fmt: skip
    """OpenAI's client of a server whose model is behind an address, the address and the secret."""
    monkeypatch.setenv("MEMORIST_KEY", "theirs")
    secret = add_key(folder / "keys.json", "app", "shop", **{"rights": RIGHTS, "per_minute": 0} | key)
    with (
        running(folder, "--keys", str(folder / "keys.json"), "--model", behind) as (_, address),
        openai.OpenAI(base_url=f"{address}/v1", api_key=secret, max_retries=0) as client,
    ):
        yield client, address, secret


def kept(folder: Path, user: str = "anna", least: int = 1) -> list[str]:
    """What is remembered, once there is so much of it."""
    for _ in range(100):
        with Memory(folder / "m.db", read_only=True) as memory:
            found = [record.text for record in memory.list(Scope(f"shop:{user}"))]
        if len(found) >= least:
            break
        time.sleep(0.05)
    return found


def url(server: Model, name: str = "#tiny") -> str:
    """Where a model is."""
    return f"http://127.0.0.1:{server.server_address[1]}/v1{name}"


def ask(client: Any, text: str, **more: Any) -> Any:
    """One turn."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return client.chat.completions.create(model="any", messages=messages, user="anna", **more)


def test_what_was_said_is_remembered_and_put_before_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with model() as behind, chatting(tmp_path, url(behind), monkeypatch) as (client, _, secret):
        first = ask(client, "I live in Porto.", temperature=0.3)
        assert first.choices[0].message.content == behind.reply
        assert "I live in Porto." in " ".join(kept(tmp_path))
        told = client.chat.completions.with_raw_response.create(
            model="any", messages=[{"role": "user", "content": "Where do I live?"}], user="anna"
        )
    sent, again = behind.asked
    assert sent["model"] == "tiny" and sent["temperature"] == 0.3 and sent["key"] == "Bearer theirs"
    assert sent["messages"][0]["content"] == "Be brief." and secret not in json.dumps(behind.asked)
    before = again["messages"][0]
    assert before["role"] == "system" and "Porto" in before["content"] and "data" in before["content"]
    assert again["messages"][1:] == [{"role": "user", "content": "Where do I live?"}]
    assert told.headers["x-memorist-recalled"] in before["content"]
    # What came out of memory does not go in again, nor under another user.
    assert sum("Porto" in text for text in kept(tmp_path)) == 1 and kept(tmp_path, "ben", 0) == []


def test_a_stream_comes_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with model() as behind, chatting(tmp_path, url(behind), monkeypatch) as (client, _, _):
        parts = [piece.choices[0].delta.content for piece in ask(client, "I have two cats.", stream=True)]
        assert "".join(parts) == behind.reply and len(parts) == len(behind.reply.split(" "))
        assert any("two cats" in text for text in kept(tmp_path))


def test_one_that_breaks_off_says_so_and_what_the_person_said_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    with model() as behind, chatting(tmp_path, url(behind), monkeypatch) as (client, address, _):
        behind.breaks = True
        with pytest.raises(openai.APIError, match="broke off"):
            for _ in ask(client, "I have two cats.", stream=True):
                pass
        assert any("two cats" in text for text in kept(tmp_path))
        behind.breaks, behind.status = False, 503
        with pytest.raises(openai.APIStatusError) as refused:
            ask(client, "I have a dog.")
        assert refused.value.status_code == 503
        assert httpx2.get(f"{address}/health").status_code == 200
        assert any("a dog" in text for text in kept(tmp_path, least=2))


def test_what_passes_is_not_changed_and_one_choice_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line separators inside texts, numbers that are none, several choices, keys of this server that are refused."""
    with (
        model("a\u2028b c\u0085d") as behind,
        chatting(tmp_path, url(behind), monkeypatch) as (client, _, _),
    ):
        behind.raw = True
        parts = [piece.choices[0].delta.content for piece in ask(client, "I have two cats.", stream=True)]
        assert "".join(parts) == behind.reply
        behind.status = 401
        with pytest.raises(openai.APIStatusError) as refused:
            ask(client, "I have a dog.")
        assert refused.value.status_code == 502 and "its key" in str(refused.value.response.json())
    heard = Heard()
    for choice, text in ((0, "I "), (1, "NO"), (0, "ski"), (1, "NO")):
        piece = json.dumps({"choices": [{"index": choice, "delta": {"content": text}}]}).encode()
        for byte in b"data: " + piece + b"\n\n":
            heard.hear(bytes([byte]))
    heard.hear(b"data: [DONE]\n\n")
    assert "".join(heard.said) == "I ski" and heard.done


def test_a_model_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with chatting(tmp_path, "http://127.0.0.1:9/v1", monkeypatch) as (client, address, secret):
        with pytest.raises(openai.APIStatusError) as failed:
            ask(client, "I have two cats.")
        assert failed.value.status_code == 502 and "does not answer" in str(failed.value.response.json())
        assert any("two cats" in text for text in kept(tmp_path))
        bearer = {"Authorization": f"Bearer {secret}"}
        for wrong in ({}, {"messages": []}, {"messages": ["x"]}, {"messages": "x"}, {"messages": [{}], "user": 5}):
            answer = httpx2.post(f"{address}/v1/chat/completions", json={"user": "anna"} | wrong, headers=bearer)
            assert answer.status_code == 422, wrong
        odd = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}, {"text": 5}, 7]}]
        answer = httpx2.post(f"{address}/v1/chat/completions", json={"user": "anna", "messages": odd}, headers=bearer)
        assert answer.status_code == 502


def test_who_may_not_write_may_not_chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with model() as behind, chatting(tmp_path, url(behind), monkeypatch, rights=("read",)) as (client, _, _):
        with pytest.raises(openai.PermissionDeniedError):
            ask(client, "I have two cats.")
        assert behind.asked == []
