"""Serving the pages to this machine's own browser."""

from __future__ import annotations

from contextlib import suppress

from memorist.serve.command import listen
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
        with listen(HOST, port) as own:
            number = own.getsockname()[1]
            config = uvicorn.Config(
                make_app(seen, number), access_log=False, log_level="warning", server_header=False,
                timeout_graceful_shutdown=1,
            )  # fmt: skip
            print(f"http://{HOST}:{number}/ shows {', '.join(seen.names)}; Ctrl+C ends it", flush=True)
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[own])
    finally:
        if seen.bank is not None:
            seen.bank.memory.close()
