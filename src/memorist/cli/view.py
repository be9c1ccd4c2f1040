"""`memorist view`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from memorist.errors import ServeError


def view(
    place: Annotated[str, typer.Argument(help="a run's folder, a memory's file, or postgresql://USER@HOST/DATABASE")],
    beside: Annotated[str | None, typer.Option(help="another run's folder, to compare with")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free")] = 8766,
) -> None:
    """Show a run or a memory in the browser: pages for this machine alone, which read and never write."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ServeError(500, f"the viewer needs {', '.join(missing)}: pip install 'memorist[serve]'")
    from memorist.view.command import view as show

    show(place, beside, port)
