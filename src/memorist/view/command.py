"""Serving the pages to this machine's own browser."""

from __future__ import annotations

import socket
from contextlib import suppress

from memorist.errors import ServeError
from memorist.serve.command import at_once
from memorist.view.app import make_app
from memorist.view.places import open_places

HOST = "127.0.0.1"


def view(place: str, beside: str | None, port: int) -> None:
    """Show a place until it is interrupted.

    Raises:
        MemoristError: there is nothing to be shown at the place, or the port is taken.
    """
    import uvicorn

    seen = open_places(place, beside)
    try:
        with socket.socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                own.bind((HOST, port))
            except OSError as error:
                raise ServeError(
                    500, f"port {port} cannot be used ({error.strerror}); give another with --port, or --port 0 "
                    "for one that is free"
                ) from error  # fmt: skip
            number = own.getsockname()[1]
            config = uvicorn.Config(
                make_app(seen, number), access_log=False, log_level="warning", server_header=False,
                timeout_graceful_shutdown=1,
            )  # fmt: skip
            at_once(own).listen()
            print(f"http://{HOST}:{number}/ shows {', '.join(seen.names)}; Ctrl+C ends it", flush=True)
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[own])
    finally:
        if seen.bank is not None:
            seen.bank.memory.close()
