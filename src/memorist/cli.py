"""The command line: a thin shell over the Python API."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from memorist.errors import MemoristError, PlanError, RecipeError, nearest

app = typer.Typer(
    help="Train, run and measure language-model agents that manage their own memory.",
    epilog="Start with: memorist demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
experts = typer.Typer(
    help="Keep only the experts that a task needs: calibrate, prune, exchange masks, recognise tasks, see.",
    epilog="Start with: memorist experts calibrate MODEL --data own-replies.jsonl --task NAME",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(experts, name="experts")
Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]
MoeFolder = Annotated[Path, typer.Argument(help="folder of a mixture-of-experts checkpoint")]
Store = Annotated[Path, typer.Option(help="folder that keeps calibrations")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="NAME or NAME=WEIGHT of a calibration; repeat to mix")]
Scorer = Annotated[
    str,
    typer.Option(help="easyep, easyep-no-token, easyep-no-norm, peu, tcess, gate, frequency or random"),
]
Groups = Annotated[str, typer.Option(help="of the router: global (one group) or balanced (as many from each)")]
RunFolder = Annotated[Path | None, typer.Option("--run", help="a folder that `memorist train` wrote")]


def main() -> None:
    """Run a command; errors raised on purpose are one line and exit status 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app(standalone_mode=True)
    except MemoristError as error:
        print(f"memorist: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("memorist: interrupted; `memorist train … --resume` goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    from memorist.models.registry import quiet_libraries

    quiet_libraries()
    return Console(stderr=stderr)


@app.command(epilog="Example: memorist demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="folder for the run and report.html")] = Path("demo"),
) -> None:
    """Train Memory-R1 on this machine in minutes; compare before and after; write report.html."""
    from memorist.evaluation.demo import demo as show

    show(out, _console())


@app.command(epilog="Example: memorist train memory-r1-demo --out runs/first --set stages.0.steps=20")
def train(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or a shipped recipe (`memorist recipes`)")],
    out: Annotated[Path | None, typer.Option(help="run folder; default runs/NAME")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint in the folder")] = False,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. seed=1 or stages.0.lr=1e-3")
    ] = None,
) -> None:
    """Train what a recipe says; metrics.jsonl, checkpoint and trained policies go to the run folder."""
    from memorist.evaluation.progress import Bar
    from memorist.evaluation.runs import train as run
    from memorist.fit.plan.runs import Watch
    from memorist.recipe import load_recipe, read_recipe, to_plain

    plain = to_plain(load_recipe(recipe))
    for item in setting or []:
        _set(plain, item)
    read = read_recipe(plain, recipe)
    folder = out or Path("runs") / read.name
    if not resume and (folder / "checkpoint").exists():
        raise RecipeError(f"{folder} holds a run already; add --resume to go on with it, or give another --out")
    console = _console()
    watch = Watch(folder, Bar(console), console.print)
    run(read, folder, resume=resume, progress=watch)
    watch.end()
    console.print(f"done: {folder}/policies; try: memorist eval synthetic --run {folder}")


def _set(plain: Any, item: str) -> None:
    import yaml

    path, sign, value = item.partition("=")
    if not sign:
        raise RecipeError(f"--set {item!r}: expected KEY=VALUE, e.g. seed=1")
    *parents, last = path.split(".")
    at = plain
    for part in parents:
        try:
            at = at[int(part)] if isinstance(at, list) else at[part]
        except (KeyError, ValueError, IndexError):
            known = map(str, range(len(at)) if isinstance(at, list) else at)
            raise RecipeError(f"--set {item!r}: no {part!r}; {nearest(part, known)}") from None
    at[last] = yaml.safe_load(value)


@app.command(name="eval", epilog="Examples: memorist eval synthetic --grammar b; memorist eval locomo --json")
def evaluate(
    benchmark: Annotated[str, typer.Argument(help="synthetic or locomo")],
    run: RunFolder = None,
    grammar: Annotated[str, typer.Option(help="synthetic: a, or b for phrasings that training never saw")] = "a",
    dialogues: Annotated[int, typer.Option(help="synthetic: how many test dialogues")] = 24,
    file: Annotated[Path | None, typer.Option(help="locomo: a file; default: found through MEMORIST_DATA")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for a row per question (JSONL)")] = None,
    as_json: Json = False,
) -> None:
    """Run the agent on a benchmark, beside the baselines, under both scoring protocols."""
    from memorist.evaluation import benchmarks

    err = _console(stderr=True)  # progress, apart from what programs read
    known: dict[str, Callable[[], benchmarks.Benchmarked]] = {
        "synthetic": lambda: benchmarks.synthetic(run, dialogues, grammar, err),
        "locomo": lambda: benchmarks.locomo(run, file, err),
    }
    if benchmark not in known:
        raise RecipeError(f"benchmark {benchmark!r} does not exist; {nearest(benchmark, known)}")
    console, found = _console(), known[benchmark]()
    if out is not None:
        benchmarks.write_rows(found, out)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        benchmarks.show(found, console)


@app.command(epilog="Example: memorist chat --run demo --file me.db")
def chat(
    run: RunFolder = None,
    file: Annotated[Path, typer.Option(help="SQLite file that keeps the memories")] = Path("chat.db"),
    name: Annotated[str, typer.Option(help="your name")] = "Me",
) -> None:
    """Tell the agent things and ask it questions (lines that end with "?"). /memory lists, /quit ends."""
    from memorist.evaluation.chat import chat as talk

    talk(run, file, name, _console())


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from memorist.recipe import available, load_recipe

    for name, path in available().items():
        stages = ", ".join(f"{s.kind} {s.role} {s.steps}" for s in load_recipe(path).stages)
        first = path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        print(f"{name}: {first} [{stages}]")


@app.command(
    epilog="Examples: memorist plan qwen3-8b --hardware h100 --devices 2 --turns 4; memorist plan deepseek-v3 --serve "
    "--hardware h800 --devices 64 --compare; memorist plan --recipe memory-r1 --hardware here --run runs/first; "
    "memorist plan --calibrate"
)
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
        "optimizer": optimizer, "lora_rank": lora_rank, "shard": shard,
    }  # fmt: skip
    changes = {name: value for name, value in given.items() if value is not None}
    console = _console()
    if calibrate:
        command.calibrate(_console(stderr=True))
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


@experts.command(
    "calibrate", epilog="Example: memorist experts calibrate models/olmoe --data manager.jsonl --task manager"
)
def experts_calibrate(
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
    as_json: Json = False,
) -> None:
    """Run samples of a task through the model, layer by layer, and keep how much it needs each expert."""
    from memorist.fit.experts import command

    found = command.calibrate(
        model, data, task, store, _console(stderr=True), description=description, most_tokens=max_tokens,
        limit=samples, skip_first=skip_first,
    )  # fmt: skip
    sentence = "kept in {file}: {tokens} tokens of {samples} samples, {layers} layers of {experts} experts"
    print(json.dumps(found, indent=1) if as_json else sentence.format(**found))


@experts.command(
    "prune",
    epilog="Example: memorist experts prune models/olmoe --task manager --task answerer=2 --keep 32 --out small",
)
def experts_prune(
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

    found = command.prune_model(
        model, out, store=store, tasks=task or [], keep=keep, mask=mask, scorer=scorer, mode=groups, seed=seed
    )
    before, after = found["bytes_before"] / 1e9, found["bytes_written"] / 1e9
    sentence = f"{out}: {found['keep']} of {found['experts_before']} experts, {after:.3f} GB of {before:.3f} GB"
    print(json.dumps(found, indent=1) if as_json else sentence)


@experts.command(
    "mask", epilog="Example: memorist experts mask models/r1 --task math --keep 128 --out mask.json --bare"
)
def experts_mask(
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


@experts.command(
    "compare", epilog="Example: memorist experts compare models/olmoe --data held-out.jsonl --task manager --keep 32"
)
def experts_compare(
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
    found = command.compare(model, data, store=store, tasks=task or [], keeps=keep, scorers=scorers, mode=groups)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        command.show_compared(found, _console())


@experts.command("match", epilog='Example: memorist experts match models/olmoe "What did Ann say about Oslo?"')
def experts_match(
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


@experts.command(
    "report", epilog="Example: memorist experts report models/olmoe --task manager --task answerer --keep 32"
)
def experts_report(
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


@experts.command("memory", epilog="Example: memorist experts memory mixtral-8x7b --budget 24 --budget 48")
def experts_memory(
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
        command.show_memory(rows, _console())


@app.command(epilog="Example: memorist doctor --json")
def doctor(as_json: Json = False) -> None:
    """Say what is installed, which device there is, what is missing for what, and what to type."""
    from memorist import doctor as physician

    found = physician.examine(deep=True)
    print(json.dumps(physician.to_json(found), indent=1) if as_json else physician.render(found))


@app.command(epilog="Example: memorist world --split test --count 2 > dialogues.json")
def world(
    split: Annotated[str, typer.Option(help="base, train, validation or test")] = "train",
    count: Annotated[int, typer.Option(help="how many dialogues")] = 1,
    seed: Annotated[int, typer.Option(help="another seed, other dialogues")] = 0,
    difficulty: Annotated[str, typer.Option(help="easy, medium or hard")] = "easy",
    grammar: Annotated[str, typer.Option(help="a or b")] = "a",
) -> None:
    """Print synthetic dialogues in LoCoMo's JSON form."""
    from memorist.tasks.world import generate

    try:
        print(json.dumps(generate(split, count, seed=seed, difficulty=difficulty, grammar=grammar), indent=1))
    except ValueError as error:
        raise RecipeError(str(error)) from error


@app.command()
def version() -> None:
    """Print the version."""
    from memorist._version import __version__

    print(__version__)


if __name__ == "__main__":
    main()
