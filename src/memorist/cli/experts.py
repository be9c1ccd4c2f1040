"""`memorist experts`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from memorist.cli.shared import Json, RunFolder, console

app = typer.Typer(
    help="Keep only the experts that a task needs: calibrate, prune, exchange masks, recognise tasks, see.",
    epilog="Start with: memorist experts calibrate MODEL --data own-replies.jsonl --task NAME",
    no_args_is_help=True,
    rich_markup_mode=None,
)
MoeFolder = Annotated[Path, typer.Argument(help="folder of a mixture-of-experts checkpoint")]
Store = Annotated[Path, typer.Option(help="folder that keeps calibrations")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="NAME or NAME=WEIGHT of a calibration; repeat to mix")]
Scorer = Annotated[
    str,
    typer.Option(help="easyep, easyep-no-token, easyep-no-norm, peu, tcess, gate, frequency or random"),
]
Groups = Annotated[str, typer.Option(help="of the router: global (one group) or balanced (as many from each)")]


@app.command("calibrate", epilog="Example: memorist experts calibrate models/olmoe --data manager.jsonl --task manager")
def calibrate(
    model: MoeFolder,
    data: Annotated[
        Path, typer.Option(help="JSON Lines: input_ids, messages, prompt and response, or text; own replies are best")
    ],
    task: Annotated[str, typer.Option(help="name of what the samples are of")],
    store: Store = Path("experts"),
    description: Annotated[str, typer.Option(help="the task in words")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="of one sample")] = 4096,
    samples: Annotated[int | None, typer.Option(min=1, help="how many; default: all")] = None,
    skip_first: Annotated[bool, typer.Option("--skip-first", help="leave out each sample's first token")] = False,
    role: Annotated[
        str | None, typer.Option(help="--data are logged trajectories (a file or folder): take what this role did")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run samples of a task through the model, layer by layer, and keep how much it needs each expert."""
    from memorist.fit.experts import command

    found = command.calibrate(
        model, data, task, store, console(stderr=True), description=description, most_tokens=max_tokens,
        limit=samples, skip_first=skip_first, role=role,
    )  # fmt: skip
    sentence = "kept in {file}: {tokens} tokens of {samples} samples, {layers} layers of {experts} experts"
    print(json.dumps(found, indent=1) if as_json else sentence.format(**found))


@app.command(
    "prune",
    epilog="Example: memorist experts prune models/olmoe --task manager --task answerer=2 --keep 32 --out small",
)
def prune(
    model: MoeFolder,
    out: Annotated[Path, typer.Option(help="folder for the new checkpoint; must not exist")],
    task: Tasks = None,
    keep: Annotated[int | None, typer.Option(help="experts of each layer")] = None,
    mask: Annotated[
        Path | None, typer.Option(help="instead of tasks: a choice as JSON, EASY-EP's form or ours")
    ] = None,
    scorer: Scorer = "easyep",
    groups: Groups = "global",
    seed: Annotated[int, typer.Option(help="of --scorer random")] = 0,
    store: Store = Path("experts"),
    as_json: Json = False,
) -> None:
    """Write a standard checkpoint with fewer experts, which stock loaders open."""
    from memorist.fit.experts import command
    from memorist.fit.plan.show import in_bytes

    found = command.prune_model(
        model, out, store=store, tasks=task or [], keep=keep, mask=mask, scorer=scorer, mode=groups, seed=seed
    )
    before, after = in_bytes(found["bytes_before"]), in_bytes(found["bytes_written"])
    sentence = f"{out}: {found['keep']} of {found['experts_before']} experts, {after} of {before}"
    print(json.dumps(found, indent=1) if as_json else sentence)


@app.command("mask", epilog="Example: memorist experts mask models/r1 --task math --keep 128 --out mask.json --bare")
def mask(
    model: MoeFolder,
    out: Annotated[Path, typer.Option(help="JSON file")],
    keep: Annotated[int, typer.Option(help="experts of each layer")],
    task: Tasks = None,
    scorer: Scorer = "easyep",
    groups: Groups = "global",
    bare: Annotated[bool, typer.Option("--bare", help="EASY-EP's form: rows of 0 and 1, without the model")] = False,
    store: Store = Path("experts"),
) -> None:
    """Write which experts a task keeps; `prune --mask` reads it."""
    from memorist.fit.experts import command

    command.write_mask(model, out, store=store, tasks=task or [], keep=keep, scorer=scorer, mode=groups, bare=bare)
    print(f"kept in {out}")


@app.command(
    "compare", epilog="Example: memorist experts compare models/olmoe --data held-out.jsonl --task manager --keep 32"
)
def compare(
    model: MoeFolder,
    data: Annotated[Path, typer.Option(help="JSON Lines as for calibrate, but other samples")],
    keep: Annotated[list[int], typer.Option(help="experts of each layer; repeat for several")],
    task: Tasks = None,
    scorer: Annotated[list[str] | None, typer.Option(help="repeat for several; default: all that matter")] = None,
    groups: Groups = "global",
    store: Store = Path("experts"),
    as_json: Json = False,
) -> None:
    """Say how far each scorer's choice takes the model from itself, on held-out samples; nothing is written."""
    from memorist.fit.experts import command

    scorers = scorer or ["easyep", "peu", "tcess", "gate", "frequency", "random"]
    screen = console()
    found = command.compare(model, data, store=store, tasks=task or [], keeps=keep, scorers=scorers, mode=groups)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        command.show_compared(found, screen)


@app.command(
    "roles",
    epilog="Example: memorist experts roles models/olmoe --role manager --role answerer --keep 32 --log held-out.jsonl",
)
def roles(
    model: MoeFolder,
    role: Annotated[list[str], typer.Option(help="calibrated under this name; repeat")],
    keep: Annotated[int, typer.Option(help="experts of each layer for each role")],
    log: Annotated[
        Path | None, typer.Option(help="trajectories held out from calibration: measure divergence and valid replies")
    ] = None,
    run: RunFolder = None,
    scorer: Scorer = "easyep",
    replies: Annotated[int, typer.Option(min=1, help="most of each role that are measured")] = 50,
    most_kl: Annotated[float, typer.Option(help="gate: nats per token of a reply, upper end of the interval")] = 0.1,
    most_lost: Annotated[float, typer.Option(help="gate: share of replies that may lose their form")] = 0.02,
    budget: Annotated[float | None, typer.Option(help="GB that weights may take")] = None,
    changes: Annotated[float, typer.Option(help="changes of role per minute")] = 1.0,
    read_rate: Annotated[float, typer.Option(help="GB per second that experts are read with")] = 1.0,
    store: Store = Path("experts"),
    as_json: Json = False,
) -> None:
    """Say how an agent's roles share one model: own experts, the union, or one choice for all; and which to use."""
    from memorist.evaluation.runs import recipe_of, talking_agent
    from memorist.fit.experts import role_command
    from memorist.fit.experts.quality import Gate

    readers = talking_agent(recipe_of(run)).reply_forms()
    found = role_command.roles(
        model, log, store=store, names=role, keep=keep, scorer=scorer, readers=readers,
        gate=Gate(most_kl, most_lost), limit=replies, budget=None if budget is None else budget * 1e9,
        changes=changes, rate=read_rate * 1e9, console=console(stderr=True),
    )  # fmt: skip
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        role_command.show_roles(found, console())


@app.command("match", epilog='Example: memorist experts match models/olmoe "What did Ann say about Oslo?"')
def match(
    model: MoeFolder,
    text: Annotated[str, typer.Argument(help="a prompt")],
    layers: Annotated[int, typer.Option(help="how many layers with experts are compared; only these are read")] = 1,
    fall_back: Annotated[str | None, typer.Option(help="task to use where two are too near to tell")] = None,
    margin: Annotated[float, typer.Option(help="least difference of cosines to the second")] = 0.01,
    store: Store = Path("experts"),
    as_json: Json = False,
) -> None:
    """Recognise which calibrated task a prompt is of."""
    from memorist.fit.experts import command

    found = command.match(model, text, store, layers, fall_back, margin)
    sentence = "{task} (similarity {similarity:.3f}, margin {margin:.3f})" + ", fall-back" * found["fell_back"]
    print(json.dumps(found, indent=1) if as_json else sentence.format(**found))


@app.command("report", epilog="Example: memorist experts report models/olmoe --task manager --task answerer --keep 32")
def report(
    model: MoeFolder,
    keep: Annotated[int, typer.Option(help="experts of each layer that overlaps are of")],
    task: Tasks = None,
    scorer: Scorer = "easyep",
    out: Annotated[Path, typer.Option(help="HTML file")] = Path("experts.html"),
    store: Store = Path("experts"),
) -> None:
    """Write heat maps, overlaps, kept mass and the memory table as one HTML file."""
    from memorist.fit.experts import command

    command.report(model, out, store=store, tasks=task or [], keep=keep, scorer=scorer)
    print(f"written: {out}")


@app.command("memory", epilog="Example: memorist experts memory mixtral-8x7b --budget 24 --budget 48")
def memory(
    models: Annotated[
        list[str] | None, typer.Argument(help="as for `memorist plan`; default: four shipped ones")
    ] = None,
    budget: Annotated[list[float] | None, typer.Option(help="GB; repeat for several")] = None,
    as_json: Json = False,
) -> None:
    """Say how many experts of each layer fit into memory."""
    from memorist.fit.experts import command
    from memorist.fit.experts.memory import BUDGETS

    rows = command.memory(models or None, [size * 1e9 for size in budget] if budget else BUDGETS)
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        command.show_memory(rows, console())
