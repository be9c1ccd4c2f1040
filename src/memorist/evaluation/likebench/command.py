"""`memorist eval likebench`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace as changed
from pathlib import Path

from rich.console import Console

from memorist.errors import RecipeError, nearest
from memorist.evaluation.likebench import report
from memorist.evaluation.likebench.assistants import BASELINES
from memorist.evaluation.likebench.bench import SIZES, Outcome, bench, replay


def run(
    size: str, noise: float, names: Sequence[str], transcript: Path | None, out: Path, as_json: bool, screen: Console,
    err: Console,
) -> None:  # fmt: skip
    """Measure assistants, or rate a transcript anew; write what came of it.

    Raises:
        RecipeError: there is no such size or assistant.
        DataError: the transcript cannot be read, or is of other people.
    """
    if size not in SIZES:
        raise RecipeError(f"--size {size!r} does not exist; {nearest(size, SIZES)}")
    for name in names:
        if name not in BASELINES:
            raise RecipeError(f"--assistant {name!r} does not exist; {nearest(name, BASELINES)}")
    wanted = changed(SIZES[size], noise=noise) if noise else SIZES[size]
    found: list[Outcome] = []
    if transcript is not None:
        found.append(replay(transcript, wanted))
    else:
        with err.status("likebench") as status:
            for name in names or BASELINES:
                say = lambda done, of, name=name: status.update(f"{name}: {done} of {of} people")  # noqa: E731
                found.append(bench(BASELINES[name], name, wanted, progress=say))
    path = report.write(found, out)
    if as_json:
        print(json.dumps([one.to_json() for one in found], indent=1))
    else:
        report.show(found, screen)
        screen.print(f"report: {path}", soft_wrap=True)
