"""Episodes run anew on a fresh kernel, and written down as Jupyter notebooks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from memorist.errors import SandboxError
from memorist.tasks.notebook.ran import DIED, NO_TOOL, TIMEOUT, Ran
from memorist.tasks.notebook.steps import Part, parse

_ADDRESS = re.compile(r"0x[0-9a-f]+")


class Running(Protocol):
    """A notebook of either kind."""

    async def run(self, code: str) -> Ran:
        """Run one more cell."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


async def reproduced(fresh: Callable[[], Running], cells: Sequence[tuple[str, Ran]]) -> bool:
    """Whether cells give the same, cell by cell, when they are run anew; those that left nothing behind are left out,
    and where things lie in memory does not count.

    Args:
        fresh: an empty notebook beside the same files.
    """
    again = fresh()
    try:
        for code, ran in cells:
            if ran.kind in (TIMEOUT, DIED, NO_TOOL):
                continue
            found = await again.run(code)
            if (_ADDRESS.sub("", found.output), found.kind) != (_ADDRESS.sub("", ran.output), ran.kind):
                return False
        return True
    finally:
        await again.close()


def write_ipynb(
    file: Path, question: str, parts: Sequence[Part], cells: Sequence[tuple[str, Ran]], thoughts: Sequence[str] = ()
) -> None:
    """An episode as a notebook: the question, thoughts (one a cell), cells with what they gave, the answer. Needs
    nbformat (`pip install 'memorist[notebook]'`).

    Raises:
        SandboxError: nbformat is not installed.
    """
    try:
        from nbformat import v4
        from nbformat import write as write_notebook
    except ImportError as error:
        raise SandboxError("notebooks are written by nbformat; type: pip install 'memorist[notebook]'") from error
    found = parse(parts)
    shown: list[Any] = [v4.new_markdown_cell(f"**{question}**")]
    for number, (code, ran) in enumerate(cells):
        if number < len(thoughts) and thoughts[number]:
            shown.append(v4.new_markdown_cell(thoughts[number]))
        shown.append(v4.new_code_cell(code, execution_count=number + 1, outputs=_outputs(ran, v4)))
    if found.answer is not None:
        shown.append(v4.new_markdown_cell(f"{found.summary}\n\n**Answer:** {found.answer}"))
    # Ids by place: the same episode is the same file.
    for number, cell in enumerate(shown):
        cell["id"] = f"cell-{number}"
    write_notebook(v4.new_notebook(cells=shown), file)


def _outputs(ran: Ran, v4: Any) -> list[Any]:
    found = []
    if ran.output:
        found.append(v4.new_output("stream", name="stdout", text=ran.output))
    if ran.kind:
        lines = ran.error.splitlines()
        found.append(v4.new_output("error", ename=ran.kind, evalue=lines[-1] if lines else "", traceback=lines))
    return found
