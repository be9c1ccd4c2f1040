"""Errors of calls, all in one form, that say what was given, what was expected and what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from memorist.errors import MemoristError, ServeError, nearest
from memorist.serve import bodies
from memorist.serve.gate import Waiting
from memorist.serve.telling import PROBLEM, told

_NO_JSON = "the body cannot be read as JSON; expected UTF-8, not compressed, and not nested a thousand deep"


async def need_known_query(request: Request) -> None:
    """Refuse what a call does not know in its query: a misspelt filter would be passed over.

    Raises:
        ServeError: there is something.
    """
    if not request.url.path.startswith("/v1/"):
        return  # fronts and monitors add what they like
    known = sorted(_query_of(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            expected = nearest(name, known) if known else "nothing is expected there"
            raise ServeError(422, f"query: {name!r} is not known; {expected}")


def _query_of(dependant: Dependant) -> set[str]:
    own = {param.alias for param in dependant.query_params}
    return own.union(*(_query_of(inner) for inner in dependant.dependencies))


def _wrong(request: Request, errors: Sequence[Any]) -> str:
    """What is wrong with a request, of the first five things."""
    kind = request.headers.get("content-type", "")
    if any(one["loc"] == ("body",) and one["type"] == "model_attributes_type" for one in errors) and "json" not in kind:
        return f"the body is sent as {kind or 'nothing'}; expected the header Content-Type: application/json"
    said = []
    for one in errors[:5]:
        if one["type"] == "json_invalid":
            why = one.get("ctx", {}).get("error", one["msg"])
            said.append(f"the body is not JSON: {why} at character {one['loc'][-1]}")
        else:
            said.append(f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}")
    return "; ".join(said)


def say_problems(app: FastAPI) -> None:
    """Every error is told in one form; what went wrong inside is not told at all, but logged."""

    def problem(request: Request, status: int, detail: str, headers: Any = None) -> JSONResponse:
        name = getattr(request.state, "id", "")
        body = bodies.Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, request=name)
        return JSONResponse(body.model_dump(), status, headers=headers, media_type=PROBLEM)

    @app.exception_handler(MemoristError)
    async def known(request: Request, error: MemoristError) -> JSONResponse:
        status, detail = told(error, getattr(request.state, "id", ""))
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        if isinstance(error, Waiting):
            headers["Retry-After"] = str(math.ceil(error.wait))
        return problem(request, status, detail, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(request, 422, _wrong(request, error.errors()))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        unread = error.detail == "There was an error parsing the body"
        return problem(request, error.status_code, _NO_JSON if unread else str(error.detail), error.headers)

    @app.exception_handler(RecursionError)
    async def deep(request: Request, error: RecursionError) -> JSONResponse:
        return problem(request, 422, "JSON is nested too deeply")

    @app.exception_handler(UnicodeError)
    async def strange(request: Request, error: UnicodeError) -> JSONResponse:
        return problem(request, 422, "a text has characters that cannot be stored (lone surrogates)")

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        name = getattr(request.state, "id", "")  # who adds it to other answers stands further in
        detail = "something went wrong inside; the log has it under the request's id"
        return problem(request, 500, detail, {"X-Request-ID": name})
