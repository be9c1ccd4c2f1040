"""`memorist cluster`: a recipe on verl."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from memorist.errors import RecipeError
from memorist.recipe import load_recipe

app = typer.Typer(
    name="cluster",
    help="Train on a cluster with verl 0.9, in an environment that has it (docs/cluster.md).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog="Example: memorist cluster write memsearcher --stage 1 --out runs/verl --model Qwen/Qwen3-4B")
def write(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or a shipped recipe, with one stage of kind rl")],
    out: Annotated[Path, typer.Option(help="folder for tasks.parquet, agents.yaml, recipe.yaml and run.sh")],
    model: Annotated[str, typer.Option(help="the model that learns, in place of the recipe's")] = "",
    stage: Annotated[int | None, typer.Option(help="only this stage of the recipe's, counted from 0")] = None,
) -> None:
    """Write what verl's trainer reads, and print the command that starts it."""
    read = load_recipe(recipe)
    if stage is not None:
        if not 0 <= stage < len(read.stages):
            raise RecipeError(
                f"--stage {stage}: {recipe!r} has {len(read.stages)} stages; expected 0 to {len(read.stages) - 1}"
            )
        read = replace(read, stages=(read.stages[stage],))
    from memorist.training.launch.served import refuse

    refuse(read)
    print(shlex.join(_verl().write(read, out, model)))


@app.command(epilog="Example: memorist cluster convert runs/verl/checkpoints/global_step_100/actor --out trained")
def convert(
    actor: Annotated[Path, typer.Argument(help="a checkpoint's actor folder")],
    out: Annotated[Path, typer.Option(help="the Hugging Face folder to write")],
) -> None:
    """Make a Hugging Face folder of verl's shards (verl unpickles them: convert none that you did not make)."""
    _verl().convert(actor, out)
    print(f"done: {out}")


def _verl() -> Any:
    try:
        from memorist.training.launch import verl
    except ImportError as error:
        raise RecipeError(
            f"this needs verl 0.9 ({error}); install memorist into verl's environment: pip install --no-deps memorist"
        ) from error
    return verl
