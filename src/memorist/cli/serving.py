"""`memorist serve` and `memorist key`."""

from __future__ import annotations

from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from memorist.errors import ServeError


def serve(
    database: Annotated[Path, typer.Option("--db", help="the memory's file; it is made where there is none")] = Path(
        "memory.db"
    ),
    keys: Annotated[Path | None, typer.Option(help="of those who may ask (`memorist key`)")] = None,
    host: Annotated[str, typer.Option(help="address; without --keys this machine's alone")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8765,
    workers: Annotated[int, typer.Option(min=1, help="processes that share the file")] = 1,
    body: Annotated[int, typer.Option(min=1, help="bytes that a request may have")] = 4_000_000,
    seconds: Annotated[float, typer.Option(min=0, help="for what has begun, when the server ends")] = 10,
) -> None:
    """Serve a memory over HTTP; /openapi.json says how. Without --keys it is open to this machine alone, with a key
    that is made for the run and printed."""
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise ServeError(500, f"the server needs {', '.join(missing)}: pip install 'memorist[serve]'")
    from memorist.serve import command

    settings = command.Settings(str(database), str(keys or ""), body)
    command.serve(settings, host=host, port=port, workers=workers, seconds=seconds)


def key(
    name: Annotated[str, typer.Argument(help="of the key, for logs")],
    tenant: Annotated[str, typer.Option(help="whose memories it reaches")],
    keys: Annotated[Path, typer.Option(help="the file; it is made where there is none")] = Path("keys.json"),
    user: Annotated[str, typer.Option(help="of the tenant, where it may reach one alone")] = "",
    rights: Annotated[str, typer.Option(help="of read, write, erase")] = "read,write",
    per_minute: Annotated[int, typer.Option(min=0, help="requests (0: no limit)")] = 600,
    expires: Annotated[datetime | None, typer.Option(help="from when on it is refused")] = None,
) -> None:
    """Make a key for the server; its secret is printed once, and kept nowhere."""
    from memorist.serve.keys import add_key

    given = [right.strip() for right in rights.split(",") if right.strip()]
    print(add_key(keys, name, tenant, user=user, rights=given, per_minute=per_minute, expires=expires))
