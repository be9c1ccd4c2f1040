"""Plans for people and programs: tables, JSON, and a plot of memory against context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memorist.errors import PlanError
from memorist.fit.plan.config import Model
from memorist.fit.plan.planner import Plan
from memorist.fit.plan.whatif import break_even

_POINTS = 40


def to_plain(plan: Plan) -> dict[str, Any]:
    """A plan as plain objects; the layers by kind, not one by one."""
    plain = asdict(plan)
    model = plan.architecture
    plain["architecture"] = {
        "name": model.name,
        "hidden": model.hidden,
        "vocab": model.vocab,
        "tied": model.tied,
        "layers": model.kinds(),
        "storage": asdict(model.storage),
        "experts": model.experts,
    }
    plain["workload"] |= {
        "longest": plan.workload.longest,
        "mean_context": plan.workload.mean_context,
        "prefill_tokens": plan.workload.prefill_tokens,
        "row_tokens": plan.workload.row_tokens,
    }
    return plain


def show_plan(plan: Plan, model: Model, console: Any, measured: Mapping[str, float] | None = None) -> None:
    """Print a plan: what it is for, memory, speed beside what a run measured, what to change."""
    work, memory = plan.workload, plan.memory
    kinds = ", ".join(f"{count} {kind}" for kind, count in plan.architecture.kinds().items())
    sizes = f"{_big(plan.parameters)} parameters, {_big(plan.active_parameters)} active"
    each = (
        f"{work.prompts} prompts × {work.group_size}, {work.turns} turns ({work.context}), up to {work.longest} tokens"
    )
    console.print(f"{plan.architecture.name}: {sizes}; layers: {kinds}", highlight=False)
    console.print(f"{plan.devices} × {plan.hardware.name}; {each}", highlight=False)
    console.print(_memory_table(plan))
    console.print(_speed_table(plan, measured or {}))
    suggestion = f"rollout batch: {plan.suggested_batch}"
    if memory.micro_tokens:
        suggestion += f"; micro-batch: {memory.micro_tokens} tokens, {plan.accumulation} per update and device"
    networks = (f"network: {n.name} joins {n.endpoints} devices, {n.cost:.0f} dollars each" for n in plan.networks)
    misfits = (f"does not fit: {reason}" for reason in plan.reasons)
    for mark, lines in (("!", (*model.warnings, *misfits)), ("-", (suggestion, *plan.advice, *networks, *model.notes))):
        for line in lines:
            console.print(f"{mark} {line}", highlight=False)


def _memory_table(plan: Plan) -> Any:
    from rich.table import Table

    memory = plan.memory
    table = Table("memory", "")
    waves = f"{memory.sequences} ({plan.speed.waves} waves)" if memory.sequences else "0"
    rows = [
        ("weights", in_bytes(memory.weights)),
        ("kept per token", in_bytes(memory.per_token)),
        ("kept per sequence, whatever its length", in_bytes(memory.state)),
        ("one sequence at its longest", in_bytes(memory.sequence)),
        ("sequences that fit", waves),
    ]
    if plan.workload.purpose == "train":
        rows += [(f"training states, {way}", in_bytes(size)) for way, size in memory.methods.items()]
        rows.append(("training states, this workload", in_bytes(memory.states)))
        rows.append((f"activations of {memory.micro_tokens} tokens", in_bytes(memory.activations)))
    for row in rows:
        table.add_row(*row)
    return table


def _speed_table(plan: Plan, measured: Mapping[str, float]) -> Any:
    """Bound, estimate and, after a run, the measured value side by side."""
    from rich.table import Table

    speed, kept, work = plan.speed, plan.hardware.calibration, plan.workload
    table = Table("", "bound", f"calibrated {kept.date}" if kept else "35 % of peak assumed", "measured", "wall")
    steps = {"decode step": speed.decode}
    steps |= {f"prefill, {way}": step for way, step in speed.prefill.items()}
    steps["rollout"] = speed.rollout
    for name, step in steps.items():
        table.add_row(name, _seconds(step.bound), _seconds(step.estimate), "–", step.wall)
    written = work.trajectories * work.turns * work.new_tokens
    rates = (written / speed.rollout.bound, written / speed.rollout.estimate, measured.get("rollout_rate"))
    table.add_row("rollout rate", *map(_rate, rates), speed.rollout.wall)
    if work.purpose == "train":
        update = (speed.update.bound, speed.update.estimate, measured.get("update_seconds"))
        table.add_row("update", *map(_seconds, update), speed.update.wall)
    peak = measured.get("peak_memory_bytes")
    table.add_row("live memory of a device", "", in_bytes(plan.memory.planned), in_bytes(peak) if peak else "–", "")
    table.add_row("gain of one MTP module", f"{speed.draft_gain:.2f} times", "", "", "")
    if speed.expert_link:
        table.add_row("links to experts, per step", _seconds(speed.expert_link), "", "", "link")
    return table


def show_side_by_side(plans: Mapping[str, Plan], console: Any) -> None:
    """One workload on several architectures, a column each."""
    from rich.table import Table

    table = Table("", *plans)
    given = next(iter(plans.values())).architecture

    def tokens(plan: Plan) -> str:
        found = break_even(given, plan.architecture)
        return "–" if found is None else f"{found:.0f} tokens"

    rows: dict[str, Callable[[Plan], str]] = {
        "parameters": lambda p: _big(p.parameters),
        "active": lambda p: _big(p.active_parameters),
        "weights": lambda p: in_bytes(p.memory.weights),
        "kept per token": lambda p: in_bytes(p.memory.per_token),
        "kept per sequence": lambda p: in_bytes(p.memory.state),
        "one sequence": lambda p: in_bytes(p.memory.sequence),
        "keeps less from": tokens,
        "sequences that fit": lambda p: str(p.memory.sequences),
        "decode rate, bound": lambda p: _rate(p.speed.batch / p.speed.decode.bound),
        "rollout, bound": lambda p: _seconds(p.speed.rollout.bound),
        "update, bound": lambda p: _seconds(p.speed.update.bound),
        "wall": lambda p: p.speed.decode.wall,
        "fits": lambda p: "yes" if p.fits else "no",
    }
    if next(iter(plans.values())).workload.purpose == "serve":
        del rows["update, bound"]
    for name, cell in rows.items():
        table.add_row(name, *(cell(plan) for plan in plans.values()))
    console.print(table)
    console.print("Quality is not part of this: measure a converted or pruned model before it is trusted.")


def draw(plans: Mapping[str, Plan], path: Path) -> None:
    """Draw the bytes of one sequence against its context, and how much is free for all of them.

    Raises:
        PlanError: matplotlib is not installed, or the file's ending is no format of it.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise PlanError("the plot needs matplotlib: pip install 'memorist[report]'") from error
    figure = Figure(figsize=(8.5, 4.5), layout="constrained")
    axes = figure.subplots()
    first = next(iter(plans.values()))
    most = max(first.architecture.window, first.workload.longest, 1024)
    contexts = [most ** (i / (_POINTS - 1)) for i in range(_POINTS)]
    for place, (name, plan) in enumerate(plans.items()):
        sizes = [plan.architecture.sequence_bytes(tokens, plan.workload.precision) for tokens in contexts]
        # Where forms need the same, the first is seen through the dashes of the later.
        axes.plot(contexts, sizes, label=name, linestyle="-" if not place else (0, (4, 1 + place)), linewidth=2)
    free = first.memory.available - first.memory.weights
    if free > 0:
        axes.axhline(free, color="grey", linestyle="--", label="free beside the weights")
    axes.axvline(first.workload.longest, color="grey", linestyle=":", label="this workload")
    axes.set(xscale="log", yscale="log", xlabel="context (tokens)", ylabel="bytes of one sequence")
    axes.set_title(f"{first.architecture.name} on {first.devices} × {first.hardware.name}")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path)
    except ValueError as error:
        raise PlanError(f"{path}: no picture can be written with this ending; give .svg, .png or .pdf") from error


def _big(count: float) -> str:
    for size, word in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return str(count)


def in_bytes(size: float) -> str:
    """Decimal units, as the paper's."""
    for step, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= step:
            return f"{size / step:.2f} {unit}"
    return f"{size:.0f} B"


def _seconds(time: float | None) -> str:
    if time is None:
        return "–"
    for step, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if time >= step:
            return f"{time / step:.3g} {unit}"
    return f"{time:.2g} s"


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.4g} tokens/s"
