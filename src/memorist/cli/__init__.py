"""The command line: a thin shell over the Python API."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorist.cli import cluster, experts, hybrid, memory, serving, view
from memorist.cli.components import components
from memorist.cli.plan import plan
from memorist.cli.shared import Json, RunFolder, console
from memorist.errors import MemoristError, RecipeError, nearest, need_known

if TYPE_CHECKING:
    from rich.console import Console

    from memorist.evaluation import benchmarks

app = typer.Typer(
    help="Train, run and measure language-model agents that manage their own memory.",
    epilog="Start with: memorist demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(experts.app, name="experts")
app.add_typer(hybrid.app, name="hybrid")
app.add_typer(serving.tools, name="mcp")
app.command(epilog="Example: memorist serve --file memory.db --keys keys.json --workers 2")(serving.serve)
app.command(epilog="Example: memorist key shop --tenant shop --rights read,write,erase")(serving.key)
app.command(epilog="Examples: memorist view runs/first; memorist view memory.db")(view.view)
app.add_typer(cluster.app, name="cluster")


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


@app.command(epilog="Example: memorist demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="folder for the run and report.html")] = Path("demo"),
) -> None:
    """Train Memory-R1 on this machine in minutes; compare before and after; write report.html."""
    from memorist.evaluation.demo import demo as show

    show(out, console())


@app.command(epilog="Example: memorist train memory-r1-demo --out runs/first --set stages.0.steps=20")
def train(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or a shipped recipe (`memorist recipes`)")],
    out: Annotated[Path | None, typer.Option(help="run folder; default runs/NAME")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint in the folder")] = False,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. seed=1 or stages.0.lr=1e-3")
    ] = None,
    track: Annotated[str | None, typer.Option(help="show metrics in tensorboard, wandb or trackio too")] = None,
) -> None:
    """Train what a recipe says; metrics.jsonl, checkpoint and trained policies go to the run folder."""
    from memorist.recipe import load_recipe, read_recipe, to_plain

    plain = to_plain(load_recipe(recipe))
    for item in setting or []:
        _set(plain, item)
    read = read_recipe(plain, recipe)
    folder = out or Path("runs") / read.name
    if not resume and (folder / "checkpoint").exists():
        raise RecipeError(f"{folder} holds a run already; add --resume to go on with it, or give another --out")
    # What takes seconds to load, once the recipe is known to be right.
    from memorist.evaluation.progress import Bar
    from memorist.evaluation.runs import train as run
    from memorist.evaluation.stages import write_stages
    from memorist.fit.plan.runs import Watch
    from memorist.training.metrics import Tracked, open_tracker

    screen = console()
    watch = Watch(folder, Bar(screen), screen.print)
    first = os.environ.get("RANK", "0") == "0"  # of several processes, one has metrics to show
    tracker = open_tracker(track, folder, read) if track and first else None
    try:
        run(read, folder, resume=resume, progress=Tracked(tracker, read, watch) if tracker else watch, say=screen.print)
    finally:
        if tracker:
            tracker.end()
    watch.end()
    if shown := write_stages(folder):
        screen.print(f"what every stage did to every task: {shown}")
    judged = {"memory-r1": "synthetic", "esearch": "household", "datarus": "notebook"}.get(read.agent.name)
    screen.print(f"done: {folder}/policies" + (f"; try: memorist eval {judged} --run {folder}" if judged else ""))


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


def _personamem(
    run: Path | None, file: Path | None, contexts: Path | None, endpoint: str | None, described: bool, out: Path,
    as_json: bool, err: Console,
) -> None:  # fmt: skip
    from memorist.evaluation import personamem
    from memorist.evaluation.progress import Calls
    from memorist.models.recorded import open_recorded

    if run:
        raise RecipeError("personamem measures a model behind an endpoint; it takes no --run")
    if not (file and contexts and endpoint):
        raise RecipeError("personamem needs --file QUESTIONS.csv, --contexts DIALOGUES.jsonl and --endpoint URL#MODEL")
    key = os.environ.get("MEMORIST_KEY")
    model = open_recorded(endpoint, out / "replies.jsonl", key=key, told=Calls(err, "model"))
    personamem.run(file, contexts, model, out, as_json, console(), system=described)


def _household(run: Path | None, count: int, endpoint: str | None, out: Path, as_json: bool, err: Console) -> None:
    from memorist.evaluation import household
    from memorist.evaluation.progress import Calls
    from memorist.models.recorded import open_recorded

    if run and endpoint:
        raise RecipeError("--endpoint takes the place of --run; give one of them")
    key = os.environ.get("MEMORIST_KEY")
    served = endpoint and open_recorded(endpoint, out / "replies.jsonl", key=key, told=Calls(err, "model"))
    household.run(run, served or None, household.homes(count), out, as_json, console(), err)


def _likebench(
    run: Path | None, size: str, noise: float, assistants: Sequence[str], replay: Path | None, out: Path, endpoint: str,
    judge: str, as_json: bool, err: Console,
) -> None:  # fmt: skip
    from memorist.evaluation.likebench import command

    if run:
        raise RecipeError("likebench measures programs and models behind endpoints; it takes no --run")
    keys = (os.environ.get("MEMORIST_KEY"), os.environ.get("MEMORIST_JUDGE_KEY"))
    command.run(
        size, noise, assistants, replay, out, as_json, console(), err, endpoint=endpoint, judge=judge, keys=keys
    )  # fmt: skip


def _notebook(
    run: Path | None, count: int, limits: tuple[int, int, float], mode: str, endpoint: str | None, given: Path | None,
    as_json: bool, err: Console,
) -> None:  # fmt: skip
    from memorist.evaluation import notebook, voting
    from memorist.evaluation.progress import Calls
    from memorist.models.recorded import open_recorded

    if run and endpoint:
        raise RecipeError("--endpoint takes the place of --run; give one of them")
    out = given or Path("runs") / "notebook"
    budget, key = voting.Budget(*limits), os.environ.get("MEMORIST_KEY")
    served = endpoint and open_recorded(endpoint, out / "replies.jsonl", key=key, told=Calls(err, "model"))
    notebook.run(run, served or None, notebook.questions(count), out, budget, as_json, console(), err, mode=mode)


@app.command(
    name="eval",
    epilog="Examples: memorist eval synthetic --grammar b; memorist eval locomo --json; memorist eval locomo "
    "--endpoint http://localhost:8000/v1#MODEL --judge https://HOST/v1#JUDGE --out runs/locomo; "
    "memorist eval likebench; memorist eval household --run runs/esearch; memorist eval notebook --run runs/datarus",
)
def evaluate(
    benchmark: Annotated[
        str, typer.Argument(help="synthetic, locomo, longmemeval, msc, personamem, likebench, household, notebook")
    ],
    run: RunFolder = None,
    grammar: Annotated[str, typer.Option(help="synthetic: a, or b for phrasings that training never saw")] = "a",
    dialogues: Annotated[int, typer.Option(help="synthetic: how many test dialogues")] = 24,
    file: Annotated[Path | None, typer.Option(help="of the data; locomo: found through MEMORIST_DATA")] = None,
    contexts: Annotated[Path | None, typer.Option(help="personamem: its dialogues, JSON Lines")] = None,
    described: Annotated[
        bool, typer.Option("--described/--plain", help="personamem: listen to system messages, which describe people")
    ] = True,
    conversation: Annotated[list[str] | None, typer.Option(help="locomo: only these, e.g. conv-41")] = None,
    agent: Annotated[str, typer.Option(help="memory-r1: the one that observes and answers")] = "memory-r1",
    endpoint: Annotated[
        str | None, typer.Option(help="URL#MODEL in every role; its key is taken from MEMORIST_KEY")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="URL#MODEL that grades; its key: MEMORIST_JUDGE_KEY")] = None,
    prices: Annotated[str, typer.Option(help="of a million tokens read and written, e.g. 0.15,0.60")] = "0,0",
    with_baselines: Annotated[bool, typer.Option("--baselines", help="with an endpoint: baselines too")] = False,
    size: Annotated[str, typer.Option(help="likebench: smoke, small, forty, standard or long-noisy")] = "forty",
    noise: Annotated[float, typer.Option(help="likebench: share of turns that are of somebody else")] = 0.0,
    assistant: Annotated[
        list[str] | None, typer.Option(help="likebench: only these, or joined; default all baselines")
    ] = None,
    replay: Annotated[Path | None, typer.Option(help="likebench: rate this transcript anew")] = None,
    homes: Annotated[int, typer.Option(help="household: how many held-out searches")] = 100,
    questions: Annotated[int, typer.Option(help="notebook: how many held-out questions")] = 120,
    votes: Annotated[int, typer.Option(help="notebook: answers to a question, of which the most frequent counts")] = 1,
    mode: Annotated[str, typer.Option(help="notebook: agentic, reflection or chosen; default the run's own")] = "",
    budget: Annotated[int, typer.Option(help="notebook: tokens for a question's votes (0: no limit)")] = 0,
    seconds: Annotated[float, typer.Option(help="notebook: for the votes of all questions (0: no limit)")] = 0.0,
    out: Annotated[
        Path | None,
        typer.Option(help="folder for a row per question (JSONL), and an endpoint's replies (then default runs/eval)"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the agent on a benchmark, beside the baselines; likebench: whether people would like an assistant.

    With an endpoint, the model there extracts facts, manages the memory and answers; its replies are kept in --out,
    where a run that was cut off goes on."""
    from memorist.evaluation import benchmarks

    err = console(stderr=True)  # progress, apart from what programs read
    if benchmark == "likebench":
        folder = out or Path("runs") / "likebench"
        _likebench(run, size, noise, assistant or (), replay, folder, endpoint or "", judge or "", as_json, err)
        return
    if benchmark == "household":
        _household(run, homes, endpoint, out or Path("runs") / "household", as_json, err)
        return
    if benchmark == "notebook":
        _notebook(run, questions, (votes, budget, seconds), mode, endpoint, out, as_json, err)
        return
    if benchmark == "personamem":
        _personamem(run, file, contexts, endpoint, described, out or Path("runs") / "personamem", as_json, err)
        return
    need_known("agent", agent, (benchmarks.AGENT,))
    if (judge or with_baselines) and not endpoint:
        raise RecipeError("--judge and --baselines go with --endpoint; give its URL#MODEL too")
    if endpoint and (benchmark == "synthetic" or run):
        raise RecipeError("--endpoint is for locomo, longmemeval and msc, and takes the place of --run")
    out = out or (Path("runs") / "eval" if endpoint else None)
    served = _served(endpoint, judge, prices, with_baselines, out, err) if endpoint and out else None
    known: dict[str, Callable[[], benchmarks.Benchmarked]] = {
        "synthetic": lambda: benchmarks.synthetic(run, dialogues, grammar, err),
        "locomo": lambda: benchmarks.locomo(run, file, err, served=served, conversations=conversation or ()),
        "longmemeval": lambda: benchmarks.chats("longmemeval", run, file, err, served=served),
        "msc": lambda: benchmarks.chats("msc", run, file, err, served=served),
    }
    if benchmark not in known:
        raise RecipeError(f"benchmark {benchmark!r} does not exist; {nearest(benchmark, known)}")
    found = known[benchmark]()
    if out is not None:
        benchmarks.write_rows(found, out)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        benchmarks.show(found, console())


def _served(
    endpoint: str, judge: str | None, prices: str, baselines: bool, folder: Path, err: Console
) -> benchmarks.Served:
    """Models behind endpoints, their replies kept in the folder."""
    from memorist.evaluation import benchmarks
    from memorist.evaluation.progress import Calls
    from memorist.models.recorded import open_recorded

    try:
        read, written = (float(part) for part in prices.split(","))
    except ValueError as error:
        raise RecipeError(f"--prices is {prices!r}; expected two numbers, e.g. 0.15,0.60") from error
    model = open_recorded(
        endpoint, folder / "replies.jsonl", key=os.environ.get("MEMORIST_KEY"), told=Calls(err, "model"),
        prices=(read, written),
    )  # fmt: skip
    grader = judge and open_recorded(
        judge, folder / "verdicts.jsonl", key=os.environ.get("MEMORIST_JUDGE_KEY"), told=Calls(err, "judge")
    )
    return benchmarks.Served(model, grader or None, baselines)


@app.command(epilog="Example: memorist chat --run demo --file me.db")
def chat(
    run: RunFolder = None,
    file: Annotated[Path, typer.Option(help="SQLite file that keeps the memories")] = Path("chat.db"),
    name: Annotated[str, typer.Option(help="your name")] = "Me",
) -> None:
    """Tell the agent things and ask it questions (lines that end with "?"). /memory lists, /quit ends."""
    from memorist.evaluation.chat import chat as talk

    talk(run, file, name, console())


memory.register(app)


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from memorist.recipe import available, load_recipe

    for name, path in available().items():
        stages = ", ".join(f"{s.kind} {s.role} {s.steps}" for s in load_recipe(path).stages)
        first = path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        print(f"{name}: {first} [{stages}]")


app.command(epilog="Examples: memorist components; memorist components rerankers --json")(components)

app.command(
    epilog="Examples: memorist plan qwen3-8b --hardware h100 --devices 2 --turns 4; memorist plan deepseek-v3 --serve "
    "--hardware h800 --devices 64 --compare; memorist plan --recipe memory-r1 --hardware here --run runs/first; "
    "memorist plan --calibrate"
)(plan)


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
