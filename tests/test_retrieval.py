"""A corpus behind real HTTP, by both published protocols."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("bm25s")
pytest.importorskip("httpx2")

from memorist.agents.memsearcher import MemSearcher
from memorist.decision import Distribution
from memorist.errors import RecipeError, SearchError
from memorist.models.scripted import ScriptedSampler
from memorist.tasks.corpus import Corpus, Document
from memorist.tasks.retrieval import RemoteCorpus, server
from memorist.tasks.searching import SearchTask
from memorist.training.rollout import Seat, play

CORPUS = Corpus(
    [Document("d0", "Arvo was born in Kestra"), Document("d1", "Kestra is in Noria"), Document("d2", "Velm")]
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    running = server(CORPUS)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def post(url: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


KESTRA = [{"id": "d1", "contents": "Kestra is in Noria"}, {"id": "d0", "contents": "Arvo was born in Kestra"}]
SCORES = [one.score for one in CORPUS.search("Kestra", 9)]


@pytest.mark.parametrize(
    ("place", "body", "said"),
    [
        ("search", {"query": "Kestra"}, KESTRA),
        ("search", {"query": "Kestra", "top_n": 1}, KESTRA[:1]),
        ("search", {"query": "Kestra", "return_score": True}, [KESTRA, SCORES]),
        ("search", {"query": "nothing of it"}, []),
        ("batch_search", {"query": ["Kestra", "Velm"]}, [KESTRA, [{"id": "d2", "contents": "Velm"}]]),
        ("batch_search", {"query": ["Kestra"], "return_score": True}, [[KESTRA], [SCORES]]),
        ("retrieve", {"queries": ["Kestra"], "topk": None}, {"result": [KESTRA]}),
        ("retrieve", {"queries": ["Kestra"], "topk": 0}, {"result": [KESTRA]}),
        (
            "retrieve",
            {"queries": ["Kestra"], "topk": 1, "return_scores": True},
            {"result": [[{"document": KESTRA[0], "score": SCORES[0]}]]},
        ),
    ],
)
def test_both_protocols(url: str, place: str, body: Any, said: Any) -> None:
    assert post(f"{url}/{place}", body) == (200, said)


def test_health(url: str) -> None:
    with urllib.request.urlopen(f"{url}/health", timeout=10) as response:
        assert json.loads(response.read()) == {"status": "healthy", "retrievers": {"total": 1, "available": 1}}


@pytest.mark.parametrize(
    ("place", "body", "status", "detail"),
    [
        ("search", {"query": " "}, 400, "query is empty"),
        ("search", {}, 400, "query is empty"),
        ("search", {"query": ["x"]}, 400, "query is empty or no text"),
        ("search", {"query": "x", "top_n": 0}, 400, "top_n is 0; expected 1 to 1000"),
        ("search", {"query": "x", "top_n": "5"}, 400, "top_n is '5'"),
        ("batch_search", {"query": "x"}, 400, "query is no list"),
        ("retrieve", {"queries": []}, 400, "queries is no list"),
        ("retrieve", {"queries": ["x", ""]}, 400, "query is empty"),
        ("search", [], 400, "expected a JSON object"),
        ("search", b"{", 400, "Expecting"),
        ("search", b"[" * 100_000, 400, ""),
        ("search", b"\xff", 400, ""),
        ("nowhere", {"query": "x"}, 404, "no /nowhere; expected /search"),
    ],
)
def test_bad_requests_are_told_and_the_server_goes_on(
    url: str, place: str, body: Any, status: int, detail: str
) -> None:
    got, said = post(f"{url}/{place}", body)
    assert got == status and detail in said["detail"]
    assert post(f"{url}/search", {"query": "Velm"})[0] == 200


@pytest.mark.parametrize("protocol", ["search", "retrieve"])
def test_the_client_finds_what_the_corpus_finds(url: str, protocol: str) -> None:
    for address in (url, f"{url}/", f"{url}/{protocol}"):
        remote = RemoteCorpus(address, protocol)
        for query in ("Kestra", "Velm Arvo", "none"):
            assert remote.search(query, 2) == CORPUS.search(query, 2)


def test_what_is_wrong_with_a_server_is_told(url: str) -> None:
    with pytest.raises(RecipeError, match="'retrieve'"):
        RemoteCorpus(url, "retrieval")
    with pytest.raises(SearchError, match=r"expected e\.g\. http"):
        RemoteCorpus("localhost:8000")
    with pytest.raises(SearchError, match="did not answer in 1 attempts"):
        RemoteCorpus("http://127.0.0.1:1", attempts=1).search("x", 3)
    with pytest.raises(SearchError, match="answered status 400"):
        RemoteCorpus(url).search(" ", 3)


def test_an_agent_searches_through_a_server_and_survives_its_end(url: str) -> None:
    def write(observation: Any) -> str:
        if observation.after:
            return f"<memory>{'Noria' if 'Noria' in observation.prompt else 'lost'}</memory>"
        known = observation.prompt.split("<memory> ")[1].split(" </memory>")[0]
        call = '<tool_call>{"name": "wikipedia_search", "arguments": {"query": "Kestra"}}</tool_call>'
        return rf"\boxed{{{known}}}" if known else call

    def build(**given: Any) -> MemSearcher:
        return MemSearcher(**given)

    for corpus, answer, failures in (
        (RemoteCorpus(url), "Noria", 0),
        (RemoteCorpus("http://127.0.0.1:1", attempts=1), "lost", 1),
    ):
        task = SearchTask("t", "Where is Kestra?", ("Noria",), corpus)
        [[found]] = play(build, [task], {"searcher": Seat(ScriptedSampler(write), Distribution())})
        assert (found.outcome.answer, found.outcome.failures) == (answer, failures)
