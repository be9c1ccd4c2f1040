"""Starting the server: one process, or several that share the file."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from memorist.errors import ServeError
from memorist.library.asynchronous import AsyncMemory
from memorist.serve.keys import PREFIX, Key, Keys, digest_of, read_keys

SETTINGS = "MEMORIST_SERVE"
"""How the processes of a server are told what to serve."""
LOCAL = ("127.0.0.1", "localhost", "::1")
FAILED = 3
"""Exit status of a server that could not start."""
OPEN = "local"
"""Key and tenant of a server that is open to this machine alone."""


@dataclass(frozen=True, slots=True)
class Settings:
    """file: the memory's; empty for the one among the user's data. keys: the file of those who may ask; empty for a
    server that is open to this machine. body: bytes that a request may have. secret: of the one key that there is
    without a file of them. model: URL or URL#MODEL that chats are forwarded to; its key is in MEMORIST_KEY."""

    file: str
    keys: str
    body: int
    secret: str = ""
    model: str = ""


def serve(settings: Settings, *, host: str, port: int, workers: int, seconds: float) -> None:
    """Serve until a signal comes; what has begun is ended, for `seconds` at most.

    Raises:
        ServeError: it would be open to others without keys, or the keys cannot be read.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    if not settings.keys and host not in LOCAL:
        raise ServeError(
            500, f"without keys a server is open to this machine alone, and host is {host!r}; make a key: "
            "memorist key NAME --tenant TENANT --keys keys.json, and give --keys keys.json"
        )  # fmt: skip
    if settings.keys:
        read_keys(Path(settings.keys))
    else:
        settings = replace(settings, secret=PREFIX + secrets.token_urlsafe(32))
        print(f"key of this run: {settings.secret}", flush=True)
    os.environ[SETTINGS] = json.dumps(asdict(settings))
    config = uvicorn.Config(
        "memorist.serve.command:app", factory=True, host=host, port=port, workers=workers, access_log=False,
        log_config=None, timeout_graceful_shutdown=int(seconds), server_header=False,
    )  # fmt: skip
    listening = at_once(config.bind_socket())
    with suppress(KeyboardInterrupt):
        if workers > 1:
            Multiprocess(config, sockets=[listening]).run()
            return
        server = uvicorn.Server(config)
        server.run(sockets=[listening])
        if not server.started:
            raise SystemExit(FAILED)


def at_once(listening: socket.socket) -> socket.socket:
    """A line to listen on, from which accepted ones inherit that they send at once. Without, an answer's second part
    waits for the other side to acknowledge the first, which takes it 40 ms."""
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def app() -> Any:
    """The application of one process, by its settings."""
    from memorist.serve.app import Serving, make_app
    from memorist.serve.chat import Upstream

    logs(sys.stderr)
    settings = Settings(**json.loads(os.environ[SETTINGS]))
    keys = read_keys(Path(settings.keys)) if settings.keys else _open(settings.secret)
    url, _, name = settings.model.partition("#")
    model = Upstream(url, name, os.environ.get("MEMORIST_KEY", "")) if url else None
    return make_app(Serving(lambda: AsyncMemory(settings.file or None), Keys(keys), settings.body, model))


def _open(secret: str) -> dict[str, Key]:
    key = Key(OPEN, digest_of(secret), OPEN, rights=("read", "write", "erase"), per_minute=0)
    return {key.digest: key}


class _Line(logging.Formatter):
    """A line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        told = {"time": self.formatTime(record), "level": record.levelname.lower(), "from": record.name}
        text = record.getMessage()
        told |= json.loads(text) if text.startswith("{") else {"message": text}
        return json.dumps(told | ({"error": self.formatException(record.exc_info)} if record.exc_info else {}))


def logs(stream: Any, names: Sequence[str] = ("memorist.serve", "uvicorn")) -> None:
    """Let loggers write lines of JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Line())
    for name in names:
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.INFO)
