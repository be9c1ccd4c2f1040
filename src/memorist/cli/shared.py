"""What commands share: options and the console."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]
MemoryPlace = Annotated[
    str | None,
    typer.Option("--file", help="the memory's file, or postgresql://USER@HOST/DATABASE; default: memory.db of yours"),
]
RunFolder = Annotated[Path | None, typer.Option("--run", help="a folder that `memorist train` wrote")]


def console(stderr: bool = False) -> Any:
    """Where people read; with `stderr`, progress apart from what programs read."""
    from rich.console import Console

    from memorist.models.registry import quiet_libraries

    quiet_libraries()
    # Of several processes that a launcher started, the first one speaks.
    return Console(stderr=stderr, quiet=os.environ.get("RANK", "0") != "0")
