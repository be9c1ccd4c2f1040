"""`memorist plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from memorist.cli.shared import Json
from memorist.cli.shared import console as open_console
from memorist.errors import PlanError


def plan(
    model: Annotated[str | None, typer.Argument(help="a model's folder, its config.json, or a shipped name")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="plan the largest stage of a recipe, as it is trained here")
    ] = None,
    hardware: Annotated[str, typer.Option(help="a profile's file or name, or here (after --calibrate)")] = "h100",
    devices: Annotated[int, typer.Option(help="how many work together")] = 1,
    prompts: Annotated[int | None, typer.Option(help="tasks of a step")] = None,
    group_size: Annotated[int | None, typer.Option(help="trajectories of each task")] = None,
    turns: Annotated[int | None, typer.Option(help="model calls of a trajectory")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="tokens that a group shares")] = None,
    observation_tokens: Annotated[int | None, typer.Option(help="tokens read in each turn")] = None,
    new_tokens: Annotated[int | None, typer.Option(help="tokens written in each turn")] = None,
    memory_tokens: Annotated[int | None, typer.Option(help="rewrite: tokens of the memory")] = None,
    context: Annotated[str | None, typer.Option(help="append (one window), or rewrite (a fresh one each turn)")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="no training beside the rollouts")] = False,
    weights: Annotated[str | None, typer.Option(help="fp32, bf16, fp8, int8 or 4bit; default: as stored")] = None,
    cache: Annotated[str | None, typer.Option(help="fp32, bf16, fp8 or 4bit")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, adamw-bf16, adam-8bit or adamw-fp32")] = None,
    lora_rank: Annotated[int | None, typer.Option(help="0: train everything")] = None,
    shard: Annotated[int | None, typer.Option(help="ZeRO stage, 0 to 3")] = None,
    acceptance: Annotated[float | None, typer.Option(help="share of MTP drafts that are accepted (0.85)")] = None,
    kept_experts: Annotated[float, typer.Option(help="--compare: share that pruning keeps")] = 0.5,
    compare: Annotated[bool, typer.Option("--compare", help="beside MHA, GQA, MLA, hybrid and pruned forms")] = False,
    plot: Annotated[Path | None, typer.Option(help="draw memory against context into this file")] = None,
    run: Annotated[Path | None, typer.Option(help="before a run: keep the plan there; after: show it measured")] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="measure this machine first (a minute)")] = False,
    as_json: Json = False,
) -> None:
    """Say what a model and a workload need, whether they fit, and how fast they can be, before anything is run."""
    from memorist.fit.plan import command, runs
    from memorist.fit.plan.show import draw, to_plain

    given = {
        "prompts": prompts, "group_size": group_size, "turns": turns, "prompt_tokens": prompt_tokens,
        "observation_tokens": observation_tokens, "new_tokens": new_tokens, "memory_tokens": memory_tokens,
        "context": context, "purpose": "serve" if serve else None, "weights": weights, "cache": cache,
        "optimizer": optimizer, "lora_rank": lora_rank, "shard": shard, "acceptance": acceptance,
    }  # fmt: skip
    changes = {name: value for name, value in given.items() if value is not None}
    console = open_console()
    if calibrate:
        command.calibrate(open_console(stderr=True))
    if model is None and recipe is None:
        if not calibrate:
            raise PlanError("nothing to plan: give a model, --recipe or --calibrate; see memorist plan --help")
        return
    planned = command.prepare(model, recipe, hardware, devices, changes)
    others = command.compared(planned, kept_experts) if compare or plot else {}
    if run is not None:
        runs.keep(run, to_plain(planned.plan))
    if plot is not None:
        draw(others, plot)
    if as_json:
        print(json.dumps(command.to_json(planned, others, run), indent=1))
    else:
        command.show(planned, others if compare else {}, run, console)
