"""Starting the server: one process, or several that share the file."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

from memorist.errors import ServeError, need_known
from memorist.library.asynchronous import AsyncMemory
from memorist.library.memory import Memory
from memorist.models.endpoint import Endpoint
from memorist.serve.keys import PREFIX, Key, Keys, digest_of, read_keys

SETTINGS = "MEMORIST_SERVE"
"""How the processes of a server are told what to serve."""
LOCAL = ("127.0.0.1", "localhost", "::1")
FAILED = 3
"""Exit status of a server that could not start."""
RULES, CHOOSER, MODEL = OBSERVERS = ("rules", "chooser", "model")
OPEN = "local"
"""Key and tenant of a server that is open to this machine alone."""


@dataclass(frozen=True, slots=True)
class Settings:
    """file: the memory's; empty for the one among the user's data. keys: the file of those who may ask; empty for a
    server that is open to this machine. body: bytes that a request may have. secret: of the one key that there is
    without a file of them. model: URL or URL#MODEL that chats are forwarded to; its key is in MEMORIST_KEY. observer:
    who reads what is observed. parent: the process without which a worker ends; 0 for none."""

    file: str
    keys: str
    body: int
    secret: str = ""
    model: str = ""
    observer: str = "rules"
    parent: int = 0


def serve(settings: Settings, *, host: str, port: int, workers: int, seconds: float) -> None:
    """Serve until a signal comes; what has begun is ended, for `seconds` at most.

    Raises:
        MemoristError: it would be open to others without keys, the keys or the memory cannot be read, or the port is
            taken.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    if not settings.keys and host not in LOCAL:
        raise ServeError(
            500, f"without keys a server is open to this machine alone, and host is {host!r}; make a key: "
            "memorist key NAME --tenant TENANT --keys keys.json, and give --keys keys.json"
        )  # fmt: skip
    need_known("--observer", settings.observer, OBSERVERS)
    if settings.observer == MODEL and not settings.model:
        raise ServeError(500, "--observer model needs --model URL#MODEL")
    if settings.keys:
        read_keys(Path(settings.keys))
    with Memory(settings.file or None):
        pass  # what is wrong with it is said once, and not by each process
    listening = listen(host, port)
    if not settings.keys:
        settings = replace(settings, secret=PREFIX + secrets.token_urlsafe(32))
        print(f"key of this run: {settings.secret}", flush=True)
    if workers > 1:
        settings = replace(settings, parent=os.getpid())
    os.environ[SETTINGS] = json.dumps(asdict(settings))
    config = uvicorn.Config(
        "memorist.serve.command:app", factory=True, host=host, port=port, workers=workers, access_log=False,
        log_config=None, timeout_graceful_shutdown=int(seconds), server_header=False,
    )  # fmt: skip
    number = listening.getsockname()[1]
    print(f"http://{f'[{host}]' if ':' in host else host}:{number}/ serves {settings.file or 'the memory'}", flush=True)
    with suppress(KeyboardInterrupt):
        if workers > 1:
            Multiprocess(config, sockets=[listening]).run()
            return
        server = uvicorn.Server(config)
        server.run(sockets=[listening])
        if not server.started:
            raise SystemExit(FAILED)


def listen(host: str, port: int) -> socket.socket:
    """A line to listen on, from which accepted ones inherit that they send at once. Without, an answer's second part
    waits for the other side to acknowledge the first, which takes it 40 ms.

    Raises:
        ServeError: the address cannot be used.
    """
    own = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    own.set_inheritable(True)
    try:
        own.bind((host, port))
    except OSError as error:
        own.close()
        raise ServeError(
            500, f"port {port} of {host} cannot be used ({error.strerror}); give another with --port, or --port 0 for "
            "one that is free"
        ) from error  # fmt: skip
    own.listen(2048)
    return own


def app() -> Any:
    """The application of one process, by its settings."""
    from memorist.serve.app import Serving, make_app
    from memorist.serve.chat import Upstream

    logs(sys.stderr)
    settings = Settings(**json.loads(os.environ[SETTINGS]))
    keys = read_keys(Path(settings.keys)) if settings.keys else _open(settings.secret)
    url, _, name = settings.model.partition("#")
    model = Upstream(url, name, os.environ.get("MEMORIST_KEY", "")) if url else None
    agent: Any = None
    if settings.observer == CHOOSER:
        from memorist.agents.offline import OfflineAgent

        agent = OfflineAgent
    elif settings.observer == MODEL:
        agent = Endpoint(url, name or "default", key=os.environ.get("MEMORIST_KEY") or None)
    if settings.parent:
        Thread(target=_end_with, args=(settings.parent,), daemon=True).start()
    return make_app(Serving(lambda: AsyncMemory(settings.file or None, agent=agent), Keys(keys), settings.body, model))


def _end_with(parent: int) -> None:
    """End when the process that started this one is no more, however it went: else workers would go on without it."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


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
