"""The server: a memory's calls over HTTP, for programs that hold a key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from memorist._version import __version__
from memorist.errors import MemoristError, ServeError
from memorist.library.asynchronous import AsyncMemory
from memorist.library.results import New
from memorist.memory.record import MemoryRecord, Scope
from memorist.serve import bodies
from memorist.serve.asking import Asking
from memorist.serve.chat import Chats, Upstream, add_chat
from memorist.serve.gate import Gate
from memorist.serve.jobs import Runner, state_of
from memorist.serve.keys import Key, Keys
from memorist.serve.mcp import over_http
from memorist.serve.problems import need_known_query, say_problems
from memorist.serve.telling import PROBLEM
from memorist.serve.watching import Watching

BODY = 4_000_000
"""Bytes of a request's body, where nothing else is asked for."""
PAGE = 100
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": HTTPStatus(status).phrase,
        "content": {PROBLEM: {"schema": bodies.Problem.model_json_schema()}},
    }
    for status in (400, 401, 403, 404, 409, 413, 422, 429, 502, 503)
}
LINES = "application/x-ndjson"
_bearer = HTTPBearer(auto_error=False, description="a key made by `memorist key`")


@dataclass(frozen=True)
class Serving:
    """What a server needs. open_: what opens its memory, when it starts. body: bytes that one may have. upstream: the
    model that chats are forwarded to; None: there are no chats."""

    open_: Callable[[], AsyncMemory]
    keys: Keys
    body: int = BODY
    upstream: Upstream | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


def make_app(serving: Serving) -> FastAPI:
    """The application; it opens its memory when it starts and closes it when it ends, after what has begun."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.memory = serving.open_()
        app.state.runner = runner = Runner(lambda: app.state.memory, serving.clock)
        runner.start()
        try:
            async with tools.session_manager.run():
                yield
        finally:
            try:
                await runner.close()
                if chats is not None:
                    await chats.close()
            finally:
                await app.state.memory.close()

    app = FastAPI(
        docs_url=None, redoc_url=None,  # pages that load from elsewhere
        title="Memorist", version=__version__, lifespan=life, responses=PROBLEMS, redirect_slashes=False,
        dependencies=[Depends(need_known_query)],
        summary="A memory that manages itself: what is remembered, by whom it was said, and what became of it.",
    )  # fmt: skip
    watching = Watching(serving.body)
    app.state.gate = gate = Gate(serving.keys, serving.clock)
    app.add_middleware(gate.middleware)
    app.add_middleware(watching.middleware)  # around the other
    say_problems(app)
    _add_calls(app)
    tools = over_http(app, lambda: app.state.memory, gate)
    chats = None if serving.upstream is None else Chats(serving.upstream, lambda: app.state.memory)
    if chats is not None:
        add_chat(app, chats, gate)
        _add_ask(app, Asking(chats))
    else:
        _refuse_chats(app)

    @app.get("/health", include_in_schema=False)
    async def health() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(watching.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def allowed(right: str) -> Any:
    """Who asks, if the key has this right.

    Raises:
        ServeError: no key, one without the right, or too many requests.
    """

    async def check(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Key:  # fmt: skip
        gate: Gate = request.app.state.gate
        return gate.enter(request.scope["state"], given.credentials if given else "", right)

    return Depends(check)


Reader = Annotated[Key, allowed("read")]
Writer = Annotated[Key, allowed("write")]
Eraser = Annotated[Key, allowed("erase")]
Id = Annotated[str, Path(max_length=512, examples=["3f2a9c01d4e5b678"])]


@dataclass(frozen=True)
class Whose:
    """A scope in a query."""

    user: str
    agent: str
    session: str

    def of(self, key: Key) -> Scope:
        """Inside the key's reach."""
        return key.scope(self.user, self.agent, self.session)


def _whose(
    user: Annotated[str, Query(max_length=512, examples=["anna"])] = "",
    agent: Annotated[str, Query(max_length=512)] = "",
    session: Annotated[str, Query(max_length=512)] = "",
) -> Whose:
    return Whose(user, agent, session)


About = Annotated[Whose, Depends(_whose)]


def _memory(request: Request) -> AsyncMemory:
    found: AsyncMemory = request.app.state.memory
    return found


Mind = Annotated[AsyncMemory, Depends(_memory)]


def _runner(request: Request) -> Runner:
    found: Runner = request.app.state.runner
    return found


Later = Annotated[Runner, Depends(_runner)]


def _scope(key: Key, body: bodies.About) -> Scope:
    return key.scope(body.user, body.agent, body.session)


def _add_calls(app: FastAPI) -> None:
    _add_writing(app)
    _add_reading(app)
    _add_removing(app)


def _add_writing(app: FastAPI) -> None:
    @app.post("/v1/add", tags=["write"], summary="Remember texts word by word")
    async def add(body: bodies.Add, key: Writer, memory: Mind) -> bodies.Results:
        new = [New(i.text, i.metadata, i.key, i.expires, i.at, i.source) for i in body.items]
        found = await memory.add_many(new, _scope(key, body), near=body.near)
        return bodies.Results(results=[bodies.Done.of(one) for one in found])

    @app.post(
        "/v1/observe", tags=["write"], summary="Let the agent read messages and decide what to remember",
        responses={202: {"model": bodies.JobState, "description": "To be read later"}},
    )  # fmt: skip
    async def observe(
        body: bodies.Observe, key: Writer, memory: Mind, runner: Later, response: Response
    ) -> bodies.Results | bodies.JobState:  # fmt: skip
        said = [message.model_dump() for message in body.messages]
        if body.later:
            response.status_code = 202
            return state_of(await runner.put(said, _scope(key, body), body.at, key.room))
        found = await memory.observe(said, _scope(key, body), at=body.at)
        return bodies.Results(results=[bodies.Done.of(one) for one in found])

    @app.get("/v1/jobs/{job_id}", tags=["write"], summary="What came of messages that were to be read later")
    async def job(job_id: Id, key: Writer, memory: Mind, about: About) -> bodies.JobState:
        scope = about.of(key)
        found = await memory.beside(lambda bank: bank.job(job_id, scope))
        if found is None:
            raise ServeError(404, f"there is no job {job_id!r} in this scope; what ended a day ago is forgotten")
        return state_of(found)

    @app.put("/v1/records/{record_id}", tags=["write"], summary="Replace a record's text; the old one stays in history")
    async def update(record_id: Id, body: bodies.Update, key: Writer, memory: Mind) -> bodies.Done:
        found = await memory.update(
            record_id, body.text, _scope(key, body), metadata=body.metadata, expires=body.expires, at=body.at,
            reason=body.reason,
        )  # fmt: skip
        return bodies.Done.of(found)


def _add_reading(app: FastAPI) -> None:
    @app.post("/v1/search", tags=["read"], summary="Find the records that answer a question best")
    async def search(body: bodies.Search, key: Reader, memory: Mind) -> bodies.Hits:
        try:
            found = await memory.search(
                body.query, _scope(key, body), k=body.k, mode=body.mode, where=body.where, as_of=body.as_of,
                vector=_vector(body.vector), explain=body.explain,
            )  # fmt: skip
        except ValueError as error:
            if isinstance(error, MemoristError | UnicodeError):
                raise
            raise ServeError(422, str(error)) from error  # a vector of another size, or of no numbers
        return bodies.Hits(hits=[bodies.Found.of(hit) for hit in found])

    @app.post("/v1/context", tags=["read"], summary="The memories to put before a model that is to answer")
    async def context(body: bodies.Tell, key: Reader, memory: Mind) -> bodies.Told:
        found = await memory.context(
            body.query, _scope(key, body), max_tokens=body.max_tokens, k=body.k, where=body.where, as_of=body.as_of
        )
        return bodies.Told.of(found)

    @app.get("/v1/records", tags=["read"], summary="Records, oldest first, page by page")
    async def records(
        key: Reader, memory: Mind, about: About, after: Annotated[str | None, Query(max_length=512)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = PAGE,
    ) -> bodies.Records:  # fmt: skip
        found = await memory.list(about.of(key), after=after, limit=limit)
        more = found[-1].id if len(found) == limit else None
        return bodies.Records(records=[bodies.Record.of(one) for one in found], next=more)

    @app.get("/v1/records/{record_id}", tags=["read"], summary="One record")
    async def get(record_id: Id, key: Reader, memory: Mind, about: About) -> bodies.Record:
        return bodies.Record.of(_there(await memory.get(record_id, about.of(key)), record_id))

    @app.get("/v1/records/{record_id}/history", tags=["read"], summary="Every change of a record, with reasons")
    async def history(record_id: Id, key: Reader, memory: Mind, about: About) -> bodies.History:
        found = await memory.history(record_id, about.of(key))
        if not found:
            raise ServeError(404, f"there is no record {record_id!r} in this scope")
        return bodies.History(changes=[bodies.Changed.of(one) for one in found])

    lines: dict[int | str, dict[str, Any]] = {
        200: {"description": "A line for each", "content": {LINES: {"schema": {"type": "string"}}}}
    }

    @app.get(
        "/v1/export", tags=["read"], summary="All live records of a scope, a line of JSON each", responses=lines,
        response_class=StreamingResponse,
    )  # fmt: skip
    async def export(key: Reader, memory: Mind, about: About) -> StreamingResponse:
        # At once, so that it is what was there at one moment.
        return StreamingResponse(_lines(await memory.list(about.of(key))), media_type=LINES)


def _add_removing(app: FastAPI) -> None:
    @app.delete("/v1/records/{record_id}", tags=["erase"], summary="Remove a record with its history and its bytes")
    async def delete(record_id: Id, key: Eraser, memory: Mind, about: About) -> bodies.Gone:
        return bodies.Gone.of(await memory.delete(record_id, about.of(key)))

    @app.post("/v1/erase", tags=["erase"], summary="Remove all that a scope covers, with history and bytes")
    async def erase(body: bodies.About, key: Eraser, memory: Mind) -> bodies.Gone:
        return bodies.Gone.of(await memory.erase(_scope(key, body)))


def _add_ask(app: FastAPI, asking: Asking) -> None:
    """A call that there is where there is a model."""

    @app.post(
        "/v1/ask", tags=["chat"], summary="Let the model answer a question from memory, at once or word by word",
        response_model=bodies.Answer,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )  # fmt: skip
    async def ask(body: bodies.Ask, key: Reader) -> Response:
        return await asking.answer(body, _scope(key, body))


def _refuse_chats(app: FastAPI) -> None:
    """Say why a call is not there."""

    @app.post("/v1/ask", include_in_schema=False)
    @app.post("/v1/chat/completions", include_in_schema=False)
    async def refuse(key: Reader) -> None:
        raise ServeError(404, "this server has no model; whoever runs it has to start it with --model URL#MODEL")


async def _lines(records: Sequence[MemoryRecord]) -> AsyncIterator[str]:
    for record in records:
        yield bodies.Record.of(record).model_dump_json() + "\n"


def _vector(numbers: list[float] | None) -> Any:
    import numpy as np

    return None if numbers is None else np.asarray(numbers, np.float32)


def _there(record: MemoryRecord | None, record_id: str) -> MemoryRecord:
    if record is None:
        raise ServeError(404, f"there is no record {record_id!r} in this scope")
    return record
