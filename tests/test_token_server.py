"""vLLM's and SGLang's interfaces, spoken by a real HTTP server before a real model: ids and log-probabilities are
kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("httpx2")

from memorist.decision import Distribution, Observation, Stop
from memorist.errors import PolicyError
from memorist.models.registry import bundled_folder, open_policy, open_role
from memorist.models.rows import Unit
from memorist.models.sampler import Request
from memorist.models.token_server import TokenServer, open_server

FOLDER = str(bundled_folder())
SEEN = Observation("Question:\nWhat does Anna drink?\nMemories:\nAnna drinks tea ~7 #0\nAnswer:\n", max_tokens=24)


class Server(ThreadingHTTPServer):
    """Answers as both servers do, by the bundled base."""

    def __init__(self, broken: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.policy, self.broken, self.bodies = open_policy("bundled"), broken, list[dict[str, Any]]()
        self.lock = threading.Lock()

    def draw(self, ids: list[int], most: int, temperature: float, seed: int) -> Any:
        with self.lock:
            own, self.policy.prompt_ids = self.policy.prompt_ids, lambda observation: tuple(ids)
            try:
                asked = Request(Observation("x", max_tokens=most), Distribution(temperature), seed)
                return self.policy.sample([asked])[0]
            finally:
                self.policy.prompt_ids = own


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if self.path == "/v1/completions":
            drawn = self.server.draw(body["prompt"], body["max_tokens"], body["temperature"], body["seed"])
            logprobs = {"token_logprobs": list(drawn.logprobs)}
            reason = "length" if drawn.stop is Stop.LENGTH else "stop"
            choice = {"text": drawn.text, "finish_reason": reason, "logprobs": logprobs}
            answer: Any = {"choices": [choice | ({} if self.server.broken else {"token_ids": list(drawn.tokens)})]}
        else:
            params = body["sampling_params"]
            drawn = self.server.draw(
                body["input_ids"], params["max_new_tokens"], params["temperature"], params["sampling_seed"]
            )
            pairs = [[p, t, None] for p, t in zip(drawn.logprobs, drawn.tokens, strict=True)]
            kind = "length" if drawn.stop is Stop.LENGTH else "stop"
            answer = {
                "text": drawn.text,
                "meta_info": {"output_token_logprobs": pairs, "finish_reason": {"type": kind}},
            }
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def at(server: Server, kind: str, **given: Any) -> TokenServer:
    return TokenServer(kind, f"http://127.0.0.1:{server.server_address[1]}", FOLDER, **given)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
class TestSampling:
    def test_what_was_drawn_is_kept_and_scores_as_drawn(self, server: Server, kind: str) -> None:
        requests = [Request(SEEN, Distribution(), seed) for seed in range(4)]
        actions = at(server, kind).sample(requests)
        policy = open_policy("bundled")
        [batch] = policy.rows([Unit(action, 1.0, 1.0) for action in actions], 4000)
        assert policy.score(batch).tolist() == pytest.approx(batch.old.tolist(), abs=1e-4)
        assert all(action.prompt == policy.prompt_ids(SEEN) for action in actions)
        assert len({action.tokens for action in actions}) > 1

    def test_windows_that_go_on_send_the_sampled_ids_again(self, server: Server, kind: str) -> None:
        sampler = at(server, kind)
        [first] = sampler.sample([Request(SEEN, Distribution(), 0)])
        [second] = sampler.sample([Request(SEEN.then(first, "And Ben?"), Distribution(), 1)])
        assert second.prompt[: len(first.prompt) + len(first.tokens)] == (*first.prompt, *first.tokens)

    def test_a_cut_reply_is_told(self, server: Server, kind: str) -> None:
        short = Observation(SEEN.prompt, max_tokens=2)
        [action] = at(server, kind).sample([Request(short, Distribution(), 0)])
        assert (action.stop, len(action.tokens)) == (Stop.LENGTH, 2)

    @pytest.mark.parametrize("drawn", [Distribution(top_p=0.9), Distribution(top_k=4), Distribution(legal=((1,),))])
    def test_what_would_be_scored_otherwise_is_refused(self, server: Server, kind: str, drawn: Distribution) -> None:
        with pytest.raises(PolicyError, match=r"log-probabilities|limited"):
            at(server, kind).sample([Request(SEEN, drawn, 0)])
        if drawn.legal is None:
            assert at(server, kind, exact=True).sample([Request(SEEN, drawn, 0)])[0].tokens

    def test_ends_are_sent_and_kept(self, server: Server, kind: str) -> None:
        at(server, kind).sample([Request(replace(SEEN, ends=("</a>",)), Distribution(), 0)])
        body = server.bodies[-1]
        assert body.get("sampling_params", body)["stop"] == ["</a>"]
        at(server, kind).sample([Request(SEEN, Distribution(), 0)])
        assert "stop" not in {**server.bodies[-1], **server.bodies[-1].get("sampling_params", {})}

    def test_choices_are_refused(self, server: Server, kind: str) -> None:
        with pytest.raises(PolicyError, match="choose"):
            at(server, kind).sample([Request(Observation("q", options=("a",)), Distribution(), 0)])


def test_a_temperature_is_exact_on_one_of_them(server: Server) -> None:
    warm = Request(SEEN, Distribution(1.5), 0)
    with pytest.raises(PolicyError, match="processed_logprobs"):
        at(server, "vllm").sample([warm])
    assert at(server, "sglang").sample([warm])[0].tokens


def test_a_server_that_returns_no_ids_is_no_sampler() -> None:
    made = Server(broken="no ids")
    threading.Thread(target=made.serve_forever, daemon=True).start()
    with pytest.raises(PolicyError):
        at(made, "vllm", attempts=1).sample([Request(SEEN, Distribution(), 0)])
    made.shutdown()
    made.server_close()


def test_names() -> None:
    opened = open_role(f"sglang:http://localhost:30000#{FOLDER}")
    assert (opened.kind, opened.url, opened.model) == ("sglang", "http://localhost:30000", FOLDER)
    for wrong in ("vllm:localhost#x", "vllm:http://x", "tgi:http://x#y"):
        with pytest.raises(PolicyError, match="vllm:http://localhost:8000#FOLDER"):
            open_server(wrong)
    with pytest.raises(PolicyError, match="tokenizer"):
        TokenServer("vllm", "http://x", "/nowhere/at/all")
