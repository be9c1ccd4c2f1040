"""A corpus behind HTTP, by both protocols that searching agents are trained with, and a client for either.

"search": `POST /search`, `/batch_search` and `GET /health`, as MemSearcher's and ReCall's server. "retrieve": `POST
/retrieve`, as Search-R1's. Code that was written for one of them finds our corpus unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from memorist.errors import SearchError, need_known
from memorist.http import Service
from memorist.tasks.corpus import Corpus, Document, Found

PROTOCOLS = ("search", "retrieve")
MOST_BYTES = 4_000_000
"""Of a request."""
MOST_DOCUMENTS = 1000
DEFAULTS = {"search": 10, "retrieve": 3}
"""Documents of a request that does not say how many."""


class _Refused(Exception):
    """Why a request is no request."""


def answer(corpus: Corpus, path: str, body: Any) -> Any:
    """What the server answers to a request's body.

    Raises:
        KeyError: there is no such place.
    """
    places: dict[str, Callable[[Corpus, Mapping[str, Any]], Any]] = {
        "/search": _search, "/batch_search": _batch_search, "/retrieve": _retrieve,
    }  # fmt: skip
    place = places[path]
    if not isinstance(body, Mapping):
        raise _Refused("expected a JSON object")
    return place(corpus, body)


def _search(corpus: Corpus, body: Mapping[str, Any]) -> Any:
    found = corpus.search(_query(body.get("query")), _count(body.get("top_n"), "top_n", "search"))
    documents = [_plain(one) for one in found]
    return [documents, [one.score for one in found]] if body.get("return_score") else documents


def _batch_search(corpus: Corpus, body: Mapping[str, Any]) -> Any:
    count = _count(body.get("top_n"), "top_n", "search")
    found = [corpus.search(query, count) for query in _queries(body.get("query"), "query")]
    documents = [[_plain(one) for one in each] for each in found]
    return [documents, [[one.score for one in each] for each in found]] if body.get("return_score") else documents


def _retrieve(corpus: Corpus, body: Mapping[str, Any]) -> Any:
    count = _count(body.get("topk") or None, "topk", "retrieve")
    found = [corpus.search(query, count) for query in _queries(body.get("queries"), "queries")]
    if body.get("return_scores"):
        return {"result": [[{"document": _plain(one), "score": one.score} for one in each] for each in found]}
    return {"result": [[_plain(one) for one in each] for each in found]}


def _plain(found: Found) -> dict[str, str]:
    return {"id": found.document.id, "contents": found.document.contents}


def _query(given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise _Refused("query is empty or no text")
    return given


def _queries(given: Any, name: str) -> list[str]:
    if not isinstance(given, list) or not given:
        raise _Refused(f"{name} is no list of texts")
    return [_query(one) for one in given]


def _count(given: Any, name: str, protocol: str) -> int:
    if given is None:
        return DEFAULTS[protocol]
    if not isinstance(given, int) or isinstance(given, bool) or not 0 < given <= MOST_DOCUMENTS:
        raise _Refused(f"{name} is {given!r}; expected 1 to {MOST_DOCUMENTS}")
    return given


def server(corpus: Corpus, host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """A server that answers once its `serve_forever` runs; port 0 takes a free one (`server_port`).

    It knows nobody's keys: give it another host than loopback only in a network that you trust.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            if self.path == "/health":
                self._send(200, {"status": "healthy", "retrievers": {"total": 1, "available": 1}})
            else:
                self._send(404, {"detail": f"no {self.path}; expected /health"})

        def do_POST(self) -> None:
            try:
                size = int(self.headers.get("content-length") or 0)
                if not 0 < size <= MOST_BYTES:
                    self.close_connection = True  # what is not read would be taken for the next request
                    raise _Refused(f"{size} bytes; expected 1 to {MOST_BYTES}")
                self._send(200, answer(corpus, self.path, json.loads(self.rfile.read(size))))
            except KeyError:
                self._send(404, {"detail": f"no {self.path}; expected /search, /batch_search or /retrieve"})
            except (_Refused, ValueError, RecursionError) as error:
                self._send(400, {"detail": str(error)[:200]})

        def _send(self, status: int, said: Any) -> None:
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            """Queries are nobody's business."""

    found = ThreadingHTTPServer((host, port), Handler)
    found.daemon_threads = True
    return found


@dataclass
class RemoteCorpus:
    """A corpus behind a server, by either protocol. Needs httpx2 (`pip install 'memorist[endpoint]'`).

    Args:
        url: of the server, e.g. "http://localhost:8000".
        protocol: "search" or "retrieve".
        timeout: seconds for one attempt. attempts: how often one is tried that fails for now.

    Raises:
        RecipeError: there is no such protocol.
        SearchError: the url is none.
    """

    url: str
    protocol: str = "search"
    timeout: float = 10.0
    attempts: int = 3
    _service: Service = field(init=False, repr=False)

    def __post_init__(self) -> None:
        need_known("protocol", self.protocol, PROTOCOLS)
        base = self.url.rstrip("/").removesuffix(f"/{self.protocol}")
        self._service = Service(base, "search server", SearchError, timeout=self.timeout, attempts=self.attempts)

    def search(self, query: str, k: int) -> list[Found]:
        """The `k` best documents, best first.

        Raises:
            SearchError: the server does not answer, or not by the protocol.
        """
        if self.protocol == "search":
            return self._service.post("search", {"query": query, "top_n": k, "return_score": True}, _read_search)
        body = {"queries": [query], "topk": k, "return_scores": True}
        return self._service.post("retrieve", body, _read_retrieve)


def _read_search(said: Any) -> list[Found]:
    documents, scores = said
    return [Found(_document(one), float(score)) for one, score in zip(documents, scores, strict=True)]


def _read_retrieve(said: Any) -> list[Found]:
    found: Sequence[Any] = said["result"][0]
    return [Found(_document(one["document"]), float(one["score"])) for one in found]


def _document(said: Any) -> Document:
    return Document(str(said["id"]), str(said["contents"]))
