"""`memorist serve`, `memorist key` and `memorist mcp`."""

from __future__ import annotations

import json
import shlex
import shutil
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from memorist.cli.shared import MemoryPlace
from memorist.errors import ServeError, need_known


def serve(
    file: MemoryPlace = None,
    keys: Annotated[Path | None, typer.Option(help="of those who may ask (`memorist key`)")] = None,
    host: Annotated[str, typer.Option(help="address; without --keys this machine's alone")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8765,
    workers: Annotated[int, typer.Option(min=1, help="processes that share the file")] = 1,
    model: Annotated[
        str, typer.Option(help="URL#MODEL that /v1/chat/completions forwards to; its key: MEMORIST_KEY")
    ] = "",
    observer: Annotated[
        str,
        typer.Option(help="who reads what is observed: rules, chooser (a small encoder) or model (that of --model)"),
    ] = "rules",
    body: Annotated[int, typer.Option(min=1, help="bytes that a request may have")] = 4_000_000,
    seconds: Annotated[float, typer.Option(min=0, help="for what has begun, when the server ends")] = 10,
) -> None:
    """Serve a memory over HTTP; /openapi.json says how. Without --keys it is open to this machine alone, with a key
    that is made for the run and printed."""
    _need("fastapi", "uvicorn", "prometheus_client", "mcp", "httpx2")
    from memorist.serve import command

    settings = command.Settings(file or "", str(keys or ""), body, model=model, observer=observer)
    command.serve(settings, host=host, port=port, workers=workers, seconds=seconds)


def key(
    name: Annotated[str, typer.Argument(help="of the key, for logs")],
    tenant: Annotated[str, typer.Option(help="whose memories it reaches")],
    keys: Annotated[Path, typer.Option(help="the file; it is made where there is none")] = Path("keys.json"),
    user: Annotated[str, typer.Option(help="of the tenant, where it may reach one alone")] = "",
    rights: Annotated[str, typer.Option(help="of read, write, erase")] = "read,write",
    per_minute: Annotated[int, typer.Option(min=0, help="requests (0: no limit)")] = 600,
    most: Annotated[int, typer.Option(min=0, help="records that the tenant may have (0: no limit)")] = 0,
    expires: Annotated[datetime | None, typer.Option(help="from when on it is refused")] = None,
) -> None:
    """Make a key for the server; its secret is printed once, and kept nowhere."""
    from memorist.serve.keys import add_key

    given = [right.strip() for right in rights.split(",") if right.strip()]
    print(add_key(keys, name, tenant, user=user, rights=given, per_minute=per_minute, expires=expires, most=most))


tools = typer.Typer(
    help="The memory as tools of a model, by the Model Context Protocol.",
    epilog="Start with: memorist mcp install --user anna",
    no_args_is_help=True,
    rich_markup_mode=None,
)
User = Annotated[str, typer.Option(help="whose memory")]
Agent = Annotated[str, typer.Option(help="of which agent; empty: of all")]
CLIENTS = ("claude-desktop", "claude-code", "cursor", "vscode", "codex")


@tools.command("run", epilog="Example: memorist mcp run --user anna --file memory.db")
def run(user: User, file: MemoryPlace = None, agent: Agent = "") -> None:
    """Serve one person's memory over standard input and output, as clients start it (over HTTP: `memorist serve`)."""
    _need("mcp")
    import asyncio

    from memorist.library.asynchronous import AsyncMemory
    from memorist.memory.record import Scope
    from memorist.serve.mcp import of_one

    async def serving() -> None:
        async with AsyncMemory(file) as memory:
            await of_one(memory, Scope(user, agent)).run_stdio_async()

    asyncio.run(serving())


@tools.command("install", epilog="Example: memorist mcp install --user anna --client cursor")
def install(
    user: User,
    client: Annotated[str, typer.Option(help=f"one of {', '.join(CLIENTS)}; default: all")] = "",
    file: MemoryPlace = None,
    agent: Agent = "",
) -> None:
    """Print what common clients' configurations need; nothing is written."""
    from memorist.library.opening import place_of

    if client:
        need_known("--client", client, CLIENTS)
    kept = place_of(file)
    place = str(kept.absolute()) if isinstance(kept, Path) else kept
    command = shutil.which("memorist") or "memorist"
    args = ["mcp", "run", "--user", user, "--file", place, *(["--agent", agent] if agent else [])]
    entry = {"command": command, "args": args}
    plain = json.dumps({"mcpServers": {"memorist": entry}}, indent=2)
    told = {
        "claude-desktop": f"# claude_desktop_config.json\n{plain}",
        "claude-code": shlex.join(["claude", "mcp", "add", "memorist", "--", command, *args]),
        "cursor": f"# ~/.cursor/mcp.json\n{plain}",
        "vscode": f"# .vscode/mcp.json\n{json.dumps({'servers': {'memorist': {'type': 'stdio', **entry}}}, indent=2)}",
        "codex": "\n".join(
            ["# ~/.codex/config.toml", "[mcp_servers.memorist]", f"command = {json.dumps(command)}",
             f"args = {json.dumps(args)}"]
        ),
    }  # fmt: skip
    print("\n\n".join(told[name] for name in ([client] if client else CLIENTS)))


def _need(*names: str) -> None:
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ServeError(500, f"the server needs {', '.join(missing)}: pip install 'memorist[serve]'")
