"""`memorist eval likebench`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace as changed
from functools import partial
from pathlib import Path

from rich.console import Console

from memorist.errors import RecipeError, nearest
from memorist.evaluation.likebench import report
from memorist.evaluation.likebench.assistants import BASELINES
from memorist.evaluation.likebench.bench import SIZES, Insight, Models, Outcome, bench, replay
from memorist.evaluation.likebench.joined import ASSISTANTS
from memorist.evaluation.likebench.served import CONTEXTS, ModelAssistant, ModelJudge
from memorist.evaluation.progress import Calls
from memorist.models.recorded import open_recorded
from memorist.models.sampler import Sampler


def run(
    size: str, noise: float, names: Sequence[str], transcript: Path | None, out: Path, as_json: bool, screen: Console,
    err: Console, *, endpoint: str = "", judge: str = "", keys: tuple[str | None, str | None] = (None, None),
) -> None:  # fmt: skip
    """Measure assistants, or rate a transcript anew; write what came of it. endpoint, judge: URL#MODEL that is
    measured, and that rates; keys: theirs. What they reply is kept in `out`, where a run that was cut off goes on.

    Raises:
        RecipeError: there is no such size or assistant.
        DataError: the transcript cannot be read, or is of other people.
    """
    if size not in SIZES:
        raise RecipeError(f"--size {size!r} does not exist; {nearest(size, SIZES)}")
    for name in names:
        if name not in ASSISTANTS:
            raise RecipeError(f"--assistant {name!r} does not exist; {nearest(name, ASSISTANTS)}")
    wanted = changed(SIZES[size], noise=noise) if noise else SIZES[size]
    found: list[Outcome] = []
    models = Models()
    if judge:
        if judge == endpoint:
            raise RecipeError(f"--judge {judge!r} is the model that is measured; expected another one")
        models = Models(ModelJudge(open_recorded(judge, out / "verdicts.jsonl", key=keys[1], told=Calls(err, "judge"))))
    if endpoint:
        served = open_recorded(endpoint, out / "replies.jsonl", key=keys[0], told=Calls(err, "model"))
        for context in CONTEXTS:
            make = partial(_served, served, context)
            found.append(bench(make, f"{served.name}-{context}", wanted, models=models))
    elif transcript is not None:
        found.append(replay(transcript, wanted))
    else:
        with err.status("likebench") as status:
            for name in names or BASELINES:
                say = lambda done, of, name=name: status.update(f"{name}: {done} of {of} people")  # noqa: E731
                found.append(bench(ASSISTANTS[name], name, wanted, models=models, progress=say))
    path = report.write(found, out)
    if as_json:
        print(json.dumps([one.to_json() for one in found], indent=1))
    else:
        report.show(found, screen)
        screen.print(f"report: {path}", soft_wrap=True)


def _served(model: Sampler, context: str, insight: Insight) -> ModelAssistant:
    return ModelAssistant(model, context)
