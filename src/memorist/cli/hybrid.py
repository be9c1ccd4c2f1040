"""`memorist hybrid`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from memorist.cli.shared import Json, console
from memorist.errors import HybridError

app = typer.Typer(
    help="Turn most attention layers of a Llama into recurrent ones, whose memory does not grow with what was read.",
    epilog="Start with: memorist hybrid probe MODEL --log runs/first/trajectories --role manager --keep 2",
    no_args_is_help=True,
    rich_markup_mode=None,
)
LlamaFolder = Annotated[Path, typer.Argument(help="folder of a Llama checkpoint")]


@app.command(
    "probe",
    epilog="Example: memorist hybrid probe models/llama --log runs/first/trajectories --role manager --keep 2",
)
def probe(
    model: LlamaFolder,
    log: Annotated[Path, typer.Option(help="logged trajectories, a file or folder: what the model is asked for")],
    role: Annotated[str, typer.Option(help="whose decisions are taken from the log")],
    keep: Annotated[int, typer.Option(min=1, help="layers that are to keep their attention")],
    near: Annotated[int, typer.Option(min=1, help="tokens that a layer still sees when it is tried")] = 16,
    limit: Annotated[int, typer.Option(min=1, help="decisions at most; the first are taken")] = 64,
    as_json: Json = False,
) -> None:
    """Say what is lost where each layer alone sees only what is near, and which layers should keep their attention."""
    from rich.progress import Progress

    from memorist.fit.hybrid.convert import checked
    from memorist.fit.hybrid.probes import choose_layers, recall_costs
    from memorist.fit.samples import logged_replies
    from memorist.models.registry import open_policy

    checked(model)
    replies = logged_replies(log, role, model)[:limit]
    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("layers")
        costs = recall_costs(
            open_policy(str(model)).model,
            replies,
            near=near,
            progress=lambda n, m: bar.update(task, completed=n, total=m),
        )
    chosen = choose_layers(costs, keep)
    if as_json:
        print(
            json.dumps({"nats_per_token": costs, "attention_layers": list(chosen), "replies": len(replies)}, indent=1)
        )
        return
    for layer, cost in enumerate(costs):
        print(f"layer {layer:3}  {cost:+.4f} nats per token{'  keeps its attention' if layer in chosen else ''}")
    print(f"memorist hybrid convert {model} --attention-layers {','.join(map(str, chosen))} --out NEW")


@app.command(
    "convert", epilog="Example: memorist hybrid convert models/llama --attention-layers 3,8,13 --out models/hybrid"
)
def convert(
    model: LlamaFolder,
    attention_layers: Annotated[str, typer.Option(help="layers that keep their attention, from 0: 3,8,13")],
    out: Annotated[Path, typer.Option(help="folder for the new checkpoint; must not exist")],
    start: Annotated[
        str,
        typer.Option(help="what recurrent layers start as: linear (attention without softmax) or released (M1's code)"),
    ] = "linear",
    seed: Annotated[int, typer.Option(help="of weights that there is nothing to copy from")] = 0,
    as_json: Json = False,
) -> None:
    """Write a standard checkpoint of attention and Mamba-2 layers, to be distilled from the model that it came from."""
    from memorist.fit.hybrid import convert as converting
    from memorist.models.registry import quiet_libraries

    quiet_libraries()
    try:
        layers = [int(part) for part in attention_layers.split(",") if part.strip()]
    except ValueError as error:
        raise HybridError(
            f"--attention-layers is {attention_layers!r}; expected numbers and commas, as 3,8,13"
        ) from error
    found = converting.convert(model, out, layers, start=start, seed=seed)
    if as_json:
        print(json.dumps(asdict(found) | {"folder": str(found.folder)}, indent=1))
        return
    kept = ", ".join(map(str, found.attention))
    print(f"written to {out}: {found.layers} layers, attention in {kept}; {found.parameters:,} parameters")
    print(
        f"a sequence keeps {found.state:,} bytes and {found.token:,} for each token, where the original keeps "
        f"{found.before:,} for each token (16 bits)"
    )
    print("it is yet to be distilled: a stage of kind distill, paths: teacher, teacher: the original (docs/hybrid.md)")
