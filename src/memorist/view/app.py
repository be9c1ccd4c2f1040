"""The pages and what they ask for: JSON about one run, two runs, or a memory. Calls only read."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from memorist.errors import ArgumentError, DataError, MemoristError
from memorist.view.banks import Bank
from memorist.view.places import Seen
from memorist.view.runs import Run

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""A page loads its own files alone and runs no script that is written into it; no other page shows or reads it."""
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FIRST = "index.html"
Call = Callable[[Request], Any]


def make_app(seen: Seen, port: int) -> Guard:
    """The application for one place.

    Args:
        seen: what is shown.
        port: on which it is asked; requests that name another host are refused.
    """
    routes = [Route(path, _file(data, kind)) for path, (data, kind) in _pages().items()]
    routes.append(Route("/api/place", _told(lambda request: _place(seen))))
    routes += [Route(f"/api/run/{{run}}{path}", _told(call)) for path, call in _run_calls(seen).items()]
    if seen.bank is not None:
        routes += [Route(f"/api/memory/{path}", _told(call)) for path, call in _bank_calls(seen.bank).items()]
    return Guard(Starlette(routes=routes), {f"{name}:{port}" for name in ("127.0.0.1", "localhost")})


class Guard:
    """Refuses requests that came by another name than this machine's, and what does not only read.

    A page elsewhere can let its own name point at this machine; the name in the request gives it away.
    """

    def __init__(self, app: Starlette, hosts: set[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = [value for name, value in scope["headers"] if name.lower() == b"host"]

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        if [value.decode("latin-1").lower() for value in headers] not in ([host] for host in self._hosts):
            answer = Response("This viewer answers to its own address alone, as `memorist view` printed it.\n", 403)
            await answer(scope, receive, guarded)
        elif scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await Response("This viewer only shows; nothing is changed here.\n", 405)(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)


def _pages() -> dict[str, tuple[bytes, str]]:
    """The pages' own files, by their paths."""
    found = {}
    for file in (resources.files("memorist.view") / "pages").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            found["/" if file.name == FIRST else f"/{file.name}"] = (file.read_bytes(), kind)
    return found


def _file(data: bytes, kind: str) -> Callable[[Request], Response]:
    return lambda request: Response(data, media_type=kind)


def _told(call: Call) -> Callable[[Request], Response]:
    """A call whose answer is JSON, errors too. It runs in a thread, so a slow one does not hold up others."""

    def answer(request: Request) -> Response:
        try:
            return _json(call(request), 200)
        except DataError as error:
            return _json({"problem": str(error)}, 404)
        except MemoristError as error:
            return _json({"problem": str(error)}, 400)

    return answer


def _json(value: Any, status: int) -> Response:
    # ASCII alone: models write lone surrogates, which UTF-8 cannot hold and JSON can spell.
    return Response(json.dumps(finite(value), allow_nan=False), status, media_type="application/json")


def finite(value: Any) -> Any:
    """A plain value with None for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value


def _place(seen: Seen) -> dict[str, Any]:
    return {
        "kind": "run" if seen.bank is None else "memory",
        "names": seen.names,
        "folders": [str(run.folder) for run in seen.runs],
    }


def _run_calls(seen: Seen) -> dict[str, Call]:
    """What can be asked about a run, by path."""

    def run(request: Request) -> Run:
        number = str(request.path_params["run"])
        if number not in map(str, range(len(seen.runs))):
            raise DataError("viewer", number[:20], "run", f"does not exist; {len(seen.runs)} are shown, from 0")
        return seen.runs[int(number)]

    return {
        "": lambda request: run(request).overview(),
        "/curves": lambda request: run(request).curves(),
        "/evaluations": lambda request: run(request).evaluations(),
        "/scores": lambda request: run(request).scores(),
        "/file": lambda request: run(request).page(_text(request, "name"), _number(request, "page", 0)),
        "/one": lambda request: run(request).one(_text(request, "name"), _number(request, "number", 0)),
    }


def _bank_calls(bank: Bank) -> dict[str, Call]:
    """What can be asked about a memory, by path."""
    return {
        "users": lambda request: bank.users(request.query_params.get("like", "")),
        "commits": lambda request: bank.commits(_text(request, "user")),
        "moment": lambda request: bank.moment(
            _text(request, "user"), _number(request, "commit"), _number(request, "page", 0)
        ),
        "history": lambda request: bank.history(_text(request, "user"), _text(request, "id")),
        "search": lambda request: bank.search(
            _text(request, "user"), _text(request, "query"), request.query_params.get("mode", "fused"),
            _number(request, "commit") if "commit" in request.query_params else None,
        ),
    }  # fmt: skip


def _text(request: Request, name: str) -> str:
    found = request.query_params.get(name, "")
    if not found:
        raise ArgumentError(f"{name} is missing; expected a text in the address")
    return str(found)


def _number(request: Request, name: str, default: int | None = None) -> int:
    found = request.query_params.get(name, default)
    # Digits alone, and few enough for a place in a file or a commit of a database.
    if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) <= 15:
        return int(found)
    if not isinstance(found, int):
        raise ArgumentError(f"{name} is {found!r}; expected a whole number of 0 or more")
    return found
