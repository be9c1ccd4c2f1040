"""The steps behind `memorist experts`: from names to calibrations, choices, checkpoints and reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memorist.errors import ExpertsError
from memorist.fit.experts.checkpoint import Checkpoint, open_checkpoint
from memorist.fit.experts.masks import bare_mask, read_mask, wrapped_mask
from memorist.fit.experts.memory import table
from memorist.fit.experts.prune import prune
from memorist.fit.experts.retrieve import recognise
from memorist.fit.experts.scores import Ids
from memorist.fit.experts.select import Routing, check_keep, choose
from memorist.fit.experts.statistics import Statistics, check_fits, load_statistics, mixed
from memorist.fit.folders import check_new

ENDING = ".safetensors"


def task_file(store: Path, task: str) -> Path:
    """Where a task's calibration is kept.

    Raises:
        ExpertsError: the name is no file name.
    """
    if not task or task.startswith(".") or "/" in task or "\\" in task or "=" in task:
        raise ExpertsError(f"task {task!r}: expected a plain name, without / or =, not beginning with a dot")
    return store / f"{task}{ENDING}"


def read_tasks(store: Path, given: Sequence[str], checkpoint: Checkpoint) -> tuple[list[Statistics], list[float]]:
    """Calibrations and weights of NAME or NAME=WEIGHT.

    Raises:
        ExpertsError: none is given, there is no such calibration, or it is of another model.
    """
    tasks, weights = [], []
    for item in given:
        name, _, weight = item.partition("=")
        try:
            weights.append(float(weight or 1))
        except ValueError as error:
            raise ExpertsError(f"--task {item}: {weight!r} is no number; expected NAME or NAME=WEIGHT") from error
        tasks.append(load_statistics(task_file(store, name)))
        check_fits(tasks[-1], checkpoint)
    return tasks, weights


def calibrate(
    model: Path,
    data: Path,
    task: str,
    store: Path,
    console: Any,
    *,
    description: str = "",
    most_tokens: int = 4096,
    limit: int | None = None,
    skip_first: bool = False,
    role: str | None = None,
) -> dict[str, Any]:
    """Calibrate one task and keep it; returns what was kept, as plain objects. With `role`, the data are logged
    trajectories, and what that role saw and wrote is taken.

    Raises:
        ExpertsError: torch is not installed, or model, data or name cannot be worked with.
        DataError: a line of the data has wrong fields.
    """
    try:
        from memorist.fit.experts.calibrate import calibrate as run
        from memorist.fit.samples import logged_replies, read_samples
    except ImportError as error:
        raise ExpertsError("calibrating needs torch and transformers: pip install 'memorist[train]'") from error
    file, checkpoint = task_file(store, task), open_checkpoint(model)
    if role is None:
        samples = read_samples(data, model, most_tokens=most_tokens, limit=limit)
    else:
        pairs = logged_replies(data, role, model)[:limit]
        samples = [[*prompt, *reply][:most_tokens] for prompt, reply in pairs]
    with console.status("calibrating") as status:
        found = run(
            checkpoint,
            samples,
            task,
            description=description,
            skip_first=skip_first,
            progress=lambda done, all_of: status.update(f"layer {done} of {all_of}"),
        )
    found.save(file)
    return {
        "file": str(file),
        "task": task,
        "samples": len(samples),
        "tokens": int(found.tokens.sum()),
        "layers": len(found.moe_layers),
        "experts": found.experts,
        "fingerprint": found.fingerprint,
        "data_hash": found.data_hash,
    }


def chosen(
    checkpoint: Checkpoint, store: Path, given: Sequence[str], keep: int, scorer: str, mode: str, seed: int
) -> tuple[Ids, dict[str, Any]]:
    """The experts to keep and what to say of the choice.

    Raises:
        ExpertsError: the tasks, the scorer or the number cannot be worked with.
    """
    routing = Routing.of(checkpoint)
    check_keep(routing, keep, mode)
    tasks, weights = read_tasks(store, given, checkpoint)
    ids = choose(mixed(tasks, scorer, weights, seed), keep, routing, mode)
    said = {task.task: weight for task, weight in zip(tasks, weights, strict=True)}
    return ids, {"scorer": scorer, "tasks": said, "calibration": [task.data_hash for task in tasks]}


def prune_model(
    model: Path,
    out: Path,
    *,
    store: Path,
    tasks: Sequence[str],
    keep: int | None,
    mask: Path | None,
    scorer: str,
    mode: str,
    seed: int,
) -> dict[str, Any]:
    """Write a pruned checkpoint by tasks or by a mask's file; returns what was done, as plain objects.

    Raises:
        ExpertsError: neither or both of tasks and a mask are given, or pruning cannot be done.
    """
    check_new(out, ExpertsError)
    checkpoint = open_checkpoint(model)
    if (mask is None) == (not tasks):
        raise ExpertsError("give either --task (with --keep) or --mask")
    if mask is not None:
        ids, note = read_mask(mask, checkpoint), {"mask": mask.name}
        if keep is not None and keep != ids.shape[1]:
            raise ExpertsError(f"--keep {keep}, but {mask} keeps {ids.shape[1]}; leave --keep out")
    else:
        ids, note = chosen(checkpoint, store, tasks, _needed(keep), scorer, mode, seed)
    found = asdict(prune(checkpoint, ids, out, mode=mode, note=note))
    return found | {"folder": str(out), "experts_before": checkpoint.experts, **note}


def _needed(keep: int | None) -> int:
    if keep is None:
        raise ExpertsError("how many experts to keep? give --keep")
    return keep


def write_mask(
    model: Path, out: Path, *, store: Path, tasks: Sequence[str], keep: int, scorer: str, mode: str, bare: bool
) -> None:
    """Write a choice as a file; bare: in EASY-EP's form.

    Raises:
        ExpertsError: as `chosen`.
    """
    checkpoint = open_checkpoint(model)
    ids, note = chosen(checkpoint, store, tasks, keep, scorer, mode, 0)
    data = bare_mask(ids, checkpoint.experts) if bare else wrapped_mask(ids, checkpoint, note)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(data), encoding="utf-8")


def compare(
    model: Path,
    data: Path,
    *,
    store: Path,
    tasks: Sequence[str],
    keeps: Sequence[int],
    scorers: Sequence[str],
    mode: str,
    most_tokens: int = 4096,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Divergence of the masked model from the whole one for every scorer and number of experts, as plain objects.

    Raises:
        ExpertsError: torch is not installed, or tasks, scorers, numbers or data cannot be worked with.
    """
    try:
        from transformers import AutoModelForCausalLM

        from memorist.fit.experts.quality import divergences
        from memorist.fit.samples import data_hash, read_samples
    except ImportError as error:
        raise ExpertsError("comparing needs torch and transformers: pip install 'memorist[train]'") from error
    checkpoint = open_checkpoint(model)
    pairs = [(scorer, keep) for keep in keeps for scorer in scorers]
    choices = {f"{s} {m}": chosen(checkpoint, store, tasks, m, s, mode, 0)[0] for s, m in pairs}
    samples = read_samples(data, model, most_tokens=most_tokens, limit=limit)
    seen = {task.task for task in read_tasks(store, tasks, checkpoint)[0] if task.data_hash == data_hash(samples)}
    if seen:
        raise ExpertsError(f"{data}: {', '.join(seen)} was calibrated on these samples; give others, held out from it")
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto").eval()
    found = divergences(loaded, samples, choices, mode)
    return [{"scorer": s, "keep": m, **asdict(found[f"{s} {m}"])} for s, m in pairs]


def show_compared(rows: Sequence[dict[str, Any]], console: Any) -> None:
    """Print what `compare` found."""
    from rich.table import Table

    shown = Table("kept", "scorer", "KL, nats per token", "95 % interval", "same next token")
    for row in rows:
        interval = f"{row['low']:.4f} to {row['high']:.4f}"
        shown.add_row(str(row["keep"]), row["scorer"], f"{row['kl']:.4f}", interval, f"{row['agreement']:.3f}")
    console.print(shown)
    console.print(f"{rows[0]['samples']} samples, {rows[0]['tokens']} tokens", highlight=False)


def match(model: Path, text: str, store: Path, layers: int, fall_back: str | None, margin: float) -> dict[str, Any]:
    """Which calibrated task a prompt is of.

    Raises:
        ExpertsError: torch is not installed, there are no calibrations of this model, or no such fall-back.
    """
    try:
        from memorist.fit.experts.calibrate import signature
        from memorist.fit.samples import open_tokenizer
    except ImportError as error:
        raise ExpertsError("recognising a task needs torch and transformers: pip install 'memorist[train]'") from error
    checkpoint = open_checkpoint(model)
    tasks = {file.stem: load_statistics(file) for file in sorted(store.glob(f"*{ENDING}"))}
    of_model = {name: task for name, task in tasks.items() if task.fingerprint == checkpoint.fingerprint}
    if fall_back is not None and fall_back not in of_model:
        raise ExpertsError(f"fall-back {fall_back!r} is not calibrated on this model; known: {', '.join(of_model)}")
    if not 1 <= layers <= len(checkpoint.moe_layers):
        raise ExpertsError(f"--layers {layers}; expected 1 to {len(checkpoint.moe_layers)}")
    tokens = list(open_tokenizer(model)(text)["input_ids"])
    patterns = {name: task.scores("peu") for name, task in of_model.items()}
    return asdict(recognise(signature(checkpoint, tokens, layers), patterns, fall_back=fall_back, margin=margin))


def report(model: Path, out: Path, *, store: Path, tasks: Sequence[str], keep: int, scorer: str) -> None:
    """Write the HTML report about tasks of a model.

    Raises:
        ExpertsError: the tasks cannot be worked with, or matplotlib is not installed.
    """
    from memorist.fit.experts.report import write_report

    checkpoint = open_checkpoint(model)
    check_keep(Routing.of(checkpoint), keep)
    write_report(read_tasks(store, tasks, checkpoint)[0], keep, scorer, out)


def memory(models: Sequence[str] | None, budgets: Sequence[float]) -> list[dict[str, Any]]:
    """The memory table as plain objects; budgets in bytes."""
    return [asdict(fit) | {"budgets": list(budgets)} for fit in table(models, budgets)]


def show_memory(rows: Sequence[dict[str, Any]], console: Any) -> None:
    """Print the memory table."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))  # in eighty columns too nothing may be cut
    for name in ("model (experts)", "stored", "all", *(f"{size / 1e9:g}" for size in rows[0]["budgets"])):
        shown.add_column(name, no_wrap=True, justify="left" if name[0] in "ms" else "right")
    for row in rows:
        kept = (str(kept) if kept is not None else "–" for kept in row["kept"])
        shown.add_row(f"{row['name']} ({row['experts']})", row["storage"], f"{row['full'] / 1e9:.1f}", *kept)
    console.print(shown)
    told = "GB of all weights; experts of each layer that fit into so many GB, beside caches of 8 times 2048 tokens."
    console.print(told, highlight=False)
