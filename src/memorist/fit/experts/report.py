"""One HTML file about the calibrated tasks of a model: heat maps, overlap, kept mass, and what fits where.

No scripts, no requests; every text that came from outside is escaped.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memorist.errors import ExpertsError
from memorist.fit.experts.memory import BUDGETS, SEQUENCES, TOKENS, table
from memorist.fit.experts.scores import Array
from memorist.fit.experts.select import Routing, choose, confidence_of, overlap, ranked
from memorist.fit.experts.statistics import RANDOM, Statistics, mixed

_STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 0 auto; padding: 1.5rem 1rem 4rem;
color: #1f2328; background: #fdfdfc; } table { border-collapse: collapse; font-size: .93rem; display: block;
overflow-x: auto; } td, th { border-bottom: 1px solid #d5d9de; padding: .4rem .8rem; text-align: left; }
.n { text-align: right; font-variant-numeric: tabular-nums; } figure { margin: 1rem 0; }
figure svg { width: 100%; height: auto; }
figcaption { font-weight: 600; } small { color: #667079; }"""
_CURVES = ("easyep", "peu", "tcess", "gate", "frequency", RANDOM)


def kept_mass(statistics: Statistics, scorer: str, seed: int = 0) -> Array:
    """Share of the router's weights that falls on the best M experts, mean over layers, for M = 1 to N, [N]."""
    gate = statistics.scores("gate")
    order = ranked(statistics.scores(scorer, seed))
    mass = np.take_along_axis(gate, order, axis=1).cumsum(axis=1) / gate.sum(axis=1, keepdims=True)
    return np.asarray(mass.mean(axis=0))


def write_report(tasks: Sequence[Statistics], keep: int, scorer: str, out: Path) -> None:
    """Write the report.

    Args:
        tasks: of one model.
        keep: how many experts the overlaps and confidences are of.
        scorer: whose scores are drawn.
        out: the file.

    Raises:
        ExpertsError: no tasks or tasks of several models, an impossible number, or matplotlib is not installed.
    """
    mixed(tasks, scorer)  # Refuses tasks that do not belong together.
    first = tasks[0]
    routing = Routing(first.experts, first.active)
    parts = [_tasks(tasks, scorer, keep, routing), _overlaps(tasks, scorer, keep, routing)]
    parts += [_heat(task, scorer, keep, routing) + _mass(task, keep) for task in tasks]
    title = f"Experts of {first.kind}: {', '.join(task.task for task in tasks)}"
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_e(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>
<h1>{_e(title)}</h1><p>{first.experts} experts in each of {len(first.moe_layers)} layers, {first.active} per token;
model {first.fingerprint[:12]}; scores by {_e(scorer)}, {keep} experts kept.</p>{"".join(parts)}{_memory()}
</body></html>
"""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")


def _e(text: object) -> str:
    return html.escape(str(text))


def _grid(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    top = "".join(f"<th{' class=n' if at else ''}>{_e(cell)}</th>" for at, cell in enumerate(head))
    cells = ("".join(f"<td{' class=n' if at else ''}>{_e(cell)}</td>" for at, cell in enumerate(row)) for row in rows)
    return f"<table><tr>{top}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _tasks(tasks: Sequence[Statistics], scorer: str, keep: int, routing: Routing) -> str:
    rows = []
    for task in tasks:
        sure = "–"
        if scorer in task.sums and len(task.tokens) > 1:
            found = confidence_of(task.sums[scorer], task.tokens, keep, routing)
            chosen = choose(task.scores(scorer), keep, routing)
            sure = f"{np.take_along_axis(found, chosen, axis=1).mean():.3f}"
        rows.append((task.task, len(task.tokens), int(task.tokens.sum()), sure, task.data_hash[:12]))
    note = "Confidence: how often a kept expert is kept again when samples are drawn anew, mean (200 draws)."
    return (
        f"<h2>Tasks</h2>{_grid(('task', 'samples', 'tokens', 'confidence', 'data'), rows)}<p><small>{note}</small></p>"
    )


def _overlaps(tasks: Sequence[Statistics], scorer: str, keep: int, routing: Routing) -> str:
    if len(tasks) < 2:
        return ""
    chosen = [choose(task.scores(scorer), keep, routing) for task in tasks]
    rows = []
    for task, one in zip(tasks, chosen, strict=True):
        shares = [overlap(one, other) for other in chosen]
        rows.append((task.task, *(f"{share.mean():.2f} ({share.min():.2f}–{share.max():.2f})" for share in shares)))
    chance = keep / routing.experts
    note = f"Share of the {keep} kept experts in common: mean over layers (least–most). By chance {chance:.2f}."
    return f"<h2>Overlap</h2>{_grid(('', *(task.task for task in tasks)), rows)}<p><small>{_e(note)}</small></p>"


def _heat(task: Statistics, scorer: str, keep: int, routing: Routing) -> str:
    scores = task.scores(scorer)
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    shown = np.divide(scores - low, high - low, out=np.zeros_like(scores), where=high > low)

    def draw(axes: Any) -> None:
        image = axes.imshow(shown, aspect="auto", cmap="Blues", interpolation="nearest")
        axes.set(xlabel="expert", ylabel="decoder layer")
        step = max(1, len(task.moe_layers) // 12)
        places = range(0, len(task.moe_layers), step)
        axes.set_yticks(list(places), [str(task.moe_layers[place]) for place in places])
        axes.figure.colorbar(image, label="score, 0 to 1 in each layer")

    caption = f"{task.task}: scores by {scorer}"
    return f"<h2>{_e(task.task)}</h2><p>{_e(task.description)}</p>{_figure(caption, draw, (8, 3.4))}"


def _mass(task: Statistics, keep: int) -> str:
    def draw(axes: Any) -> None:
        for scorer in _CURVES:
            if scorer == RANDOM or scorer in task.sums:
                style = "--" if scorer == RANDOM else "-"
                axes.plot(range(1, task.experts + 1), kept_mass(task, scorer), style, label=scorer)
        axes.axvline(keep, color="grey", linestyle=":", label=f"{keep} kept")
        axes.set(xlabel="experts kept in each layer", ylabel="share of gate weights (0 to 1)", ylim=(0, 1.02))
        axes.legend(frameon=False)

    return _figure(f"{task.task}: gate weights that fall on the kept experts, mean over layers", draw, (8, 3.4))


def _memory() -> str:
    def cell(kept: int | None, experts: int) -> str:
        return "–" if kept is None else "all" if kept == experts else f"{kept} of {experts}"

    rows = [
        (f"{fit.name} ({fit.storage})", f"{fit.full / 1e9:.0f} GB", *(cell(kept, fit.experts) for kept in fit.kept))
        for fit in table()
    ]
    head = ("model", "all weights", *(f"{budget / 1e9:.0f} GB" for budget in BUDGETS))
    note = (
        f"Experts of each layer that fit beside the caches of {SEQUENCES} sequences of {TOKENS} tokens, weights as "
        "stored; arithmetic of `memorist plan`. What they are worth is not said: measure a pruned model."
    )
    return f"<h2>What fits where</h2>{_grid(head, rows)}<p><small>{_e(note)}</small></p>"


def _figure(caption: str, draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    """An inline SVG of what `draw(axes)` draws."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ExpertsError("the report needs matplotlib: pip install 'memorist[report]'") from error
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": caption, "text.parse_math": False}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    return f"<figure><figcaption>{_e(caption)}</figcaption>{svg[svg.index('<svg') :]}</figure>"
