"""What is told of an error: enough to put right what was asked, nothing of others or of how things lie inside."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus

from starlette.types import Message

from memorist.errors import (
    ArgumentError,
    BankError,
    CommitError,
    DataError,
    FilterError,
    MemoristError,
    RefusedError,
    RoomError,
    ScopeError,
    ServeError,
    UnreadError,
)
from memorist.library.results import why
from memorist.memory.record import Code
from memorist.serve.bodies import Problem

log = logging.getLogger("memorist.serve")
PROBLEM = "application/problem+json"
REFUSED = {Code.UNKNOWN_ID: 404, Code.DUPLICATE_KEY: 409, Code.TOO_LONG: 413}
ASKED_WRONGLY = (ScopeError, ArgumentError, FilterError, DataError)


def problem_messages(
    status: int, detail: str, request: str, headers: Sequence[tuple[bytes, bytes]] = ()
) -> tuple[Message, Message]:  # fmt: skip
    """An error as an answer that no handler makes, in the form of all errors; the line is closed, since what was sent
    may not have been read."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, request=request)
    body = problem.model_dump_json().encode()
    always = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode()),
              (b"x-request-id", request.encode()), (b"connection", b"close")]  # fmt: skip
    start: Message = {"type": "http.response.start", "status": status, "headers": [*always, *headers]}
    return start, {"type": "http.response.body", "body": body, "more_body": False}


def told(error: MemoristError, request: str = "") -> tuple[int, str]:
    """The status of an error, and what whoever asked is told. What is wrong inside is logged under the request's id."""
    if isinstance(error, ServeError):
        return error.status, str(error)
    if isinstance(error, RefusedError):
        result = error.result
        return REFUSED.get(result.code, 422), f"{result.operation.kind} was refused ({result.code}): {why(result)}"
    if isinstance(error, RoomError):
        return 403, str(error)
    if isinstance(error, CommitError):  # without saying how many commits all tenants have made
        return 422, "as_of: there is no such commit; histories tell those there are"
    if isinstance(error, ASKED_WRONGLY):
        return 422, str(error)
    log.error(json.dumps({"request": request, "problem": type(error).__name__}), exc_info=error)
    if isinstance(error, UnreadError):
        return (
            502,
            f"the memory's model does not answer; {len(error.unread)} messages are not read, ask again with them",
        )
    return (503, "not available now; ask again") if isinstance(error, BankError) else (500, "something is wrong inside")
