"""What operators see of requests: a line of JSON and numbers for each, never what was said in one."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memorist.serve.telling import problem_messages

log = logging.getLogger("memorist.serve")
LARGE, SLOW, CUT = 413, 408, 503
WAITED = 30.0
"""Seconds to wait for the next part of a body."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Watching:
    """Counts of an application.

    Args:
        body: bytes that a request's body may have.
    """

    def __init__(self, body: int) -> None:
        self.body = body
        self.registry = CollectorRegistry()
        names = ("route", "method", "status")
        self.requests = Counter("memorist_requests", "Requests that were answered", names, registry=self.registry)
        self.seconds = Histogram(
            "memorist_request_seconds", "Seconds until the answer", names[:2], registry=self.registry
        )
        self.running = Gauge("memorist_requests_running", "Requests that are being answered", registry=self.registry)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Around an application: gives each request an id (its own, where it brought a short plain one), which the
        answer, its log line and its problem have."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            brought = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
            name = brought if _ID.fullmatch(brought) else secrets.token_hex(8)
            state, began, status = scope.setdefault("state", {}), time.perf_counter(), [499]
            state["id"] = name
            bytes_ = [0]
            unread, instead = [True], list[Message]()

            async def answered(message: Message) -> None:
                if instead:  # whatever comes of what was cut off, the answer is another one, once
                    if status[0] == 499:
                        status[0] = instead[0]["status"]
                        for part in instead:
                            await send(part)
                    return
                if message["type"] == "http.response.start":
                    status[0] = message["status"]
                    others = [one for one in message["headers"] if one[0] != b"x-request-id"]
                    message["headers"] = [*others, (b"x-request-id", name.encode())]
                await send(message)

            async def read() -> Message:
                # What is read later is whether the other side is still there, which may take as long as the answer.
                try:
                    message = await asyncio.wait_for(receive(), WAITED if unread[0] else None)
                except TimeoutError:
                    instead.extend(problem_messages(SLOW, f"the body did not come for {WAITED:g} s", name))
                    return {"type": "http.disconnect"}
                if message["type"] == "http.request":
                    bytes_[0] += len(message.get("body", b""))
                    unread[0] = message.get("more_body", False)
                if bytes_[0] > self.body:
                    instead.extend(large)
                return {"type": "http.disconnect"} if instead else message

            large = _too_large(name, self.body)
            said = dict(scope["headers"]).get(b"content-length", b"0")
            if said.isdigit() and int(said) > self.body:
                for message in large:
                    await send(message)
                self._note(scope, name, LARGE, time.perf_counter() - began)
                return
            self.running.inc()
            try:
                await app(scope, read, answered)
            except asyncio.CancelledError:
                # The server ends, and what it waits for takes longer than it may. Nothing more will be cancelled.
                if status[0] == 499:
                    status[0] = CUT
                    for message in problem_messages(CUT, "the server is ending; ask again", name):
                        await send(message)
                else:
                    log.warning(json.dumps({"request": name, "problem": "cut off, since the server is ending"}))
            except Exception:
                status[0] = 500
                log.exception(json.dumps({"request": name, "problem": "unexpected"}))
                raise
            finally:
                self.running.dec()
                self._note(scope, name, status[0], time.perf_counter() - began)

        return watched

    def _note(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        # What was asked for may hold a user's name: only the route's form is told.
        route, method = getattr(scope.get("route"), "path", "none"), scope["method"]
        method = method if method in ("GET", "POST", "PUT", "DELETE") else "other"
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route, method).observe(seconds)
        line = {"request": name, "method": method, "route": route, "status": status, "ms": round(1000 * seconds, 2)}
        log.info(json.dumps(line | {"key": scope["state"].get("key", "")}))


def _too_large(name: str, most: int) -> tuple[Message, Message]:
    """The answer to a body that is too large."""
    return problem_messages(LARGE, f"the body has more than {most} bytes; send less at once", name)
