"""What came of assistants, for people and for programs: a table, a page with a radar and curves, JSON, transcripts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from memorist.evaluation.likebench.bench import Outcome
from memorist.evaluation.likebench.judge import DIMENSIONS
from memorist.evaluation.likebench.metrics import adaptability, scaled
from memorist.page import COLOURS, escaped, figure, grid, page

NAMES: Mapping[str, str] = {
    "emo": "emotional adaptation", "form": "formality matching", "know": "knowledge adaptation",
    "ref": "reference understanding", "len": "reply length fit", "humor": "humor fit", "call": "callback",
}  # fmt: skip
_HUES = ("after", "before", "ADD", "DELETE", "malformed", "other", "NOOP")


def effects(outcomes: Mapping[str, Outcome]) -> dict[str, float]:
    """Main effects of memory and of style, and what both give beyond their sum, where the four corners were measured:
    "static", "memory-only", "style-only" and "oracle". Separates knowing from adapting."""
    corners = ("static", "memory-only", "style-only", "oracle")
    if not all(name in outcomes for name in corners):
        return {}
    neither, memory, style, both = (outcomes[name].likability for name in corners)
    return {
        "memory": (memory - neither + both - style) / 2, "style": (style - neither + both - memory) / 2,
        "together": (both - style - memory + neither) / 2,
    }  # fmt: skip


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """A table."""
    title = f"LikeBench, {len(outcomes[0].people)} people, offline judge (1 to 5)"
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for head in ("assistant", "likability", "95 %", "slope", "R²", "equal", "recall", "lines"):
        table.add_column(head, justify="left" if head == "assistant" else "right", no_wrap=True)
    for one in outcomes:
        (low, high), line, memory = one.interval(), adaptability(one.curve), one.memory
        table.add_row(
            one.name, f"{one.likability:.2f}", f"{low:.2f}–{high:.2f}", f"{line.slope:+.3f}", f"{line.r2:.2f}",
            f"{one.equal_dimensions:.2f}", f"{memory['recall']:.2f}", f"{memory['facts']:.1f}",
        )  # fmt: skip
    console.print(table)


def write(outcomes: Sequence[Outcome], folder: Path) -> Path:
    """Write likebench.json, a transcript for each assistant and report.html, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [one.to_json() for one in outcomes]
    (folder / "likebench.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for one in outcomes:
        lines = (json.dumps(turn.to_json()) for person in one.people for turn in person.turns)
        (folder / f"{one.name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    path = folder / "report.html"
    path.write_bytes(page("LikeBench", _body(outcomes)).encode("utf-8", "replace"))
    return path


def _body(outcomes: Sequence[Outcome]) -> str:
    size = outcomes[0].size
    rows = ""
    for one in outcomes:
        (low, high), line, memory = one.interval(), adaptability(one.curve), one.memory
        cells = (
            f"{one.likability:.2f}", f"{low:.2f} to {high:.2f}", f"{scaled(one.likability):.0f}", f"{line.slope:+.3f}",
            f"{line.r2:.2f}", f"{one.equal_dimensions:.2f}", f"{memory['accuracy']:.2f}", f"{memory['recall']:.2f}",
            f"{memory['facts']:.1f}",
        )  # fmt: skip
        rows += f"<tr><td>{escaped(one.name)}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>"
    head = ("assistant", "1 to 5", "95 %", "0 to 100", "slope", "R²", "equal dimensions", "accuracy", "recall", "lines")
    found = effects({one.name: one for one in outcomes})
    factors = "".join(f"<li>{escaped(name)}: {value:+.2f} points</li>" for name, value in found.items())
    return f"""<p class="lead">{size.people} people talk in {size.sessions} sessions of {size.turns} turns
({size.noise:.0%} of them about somebody else), and rate every reply from 1 to 5.</p>
{grid(head, rows)}<p><small>Slope: points a session. Equal dimensions: the mean of the seven, which the turns'
mean weighs by how often they apply. Accuracy, recall, lines: of what the assistant holds about a person.</small></p>
<div class="charts wide">{figure("Dimensions", lambda axes: _radar(axes, outcomes), (5, 4.4), polar=True)}
{figure("Likability by session", lambda axes: _curves(axes, outcomes), (5, 4.4))}</div>
{f"<h2>Knowing and adapting</h2><ul>{factors}</ul>" if factors else ""}
<h2>Dimensions</h2>{_dimensions(outcomes)}<h2>A person</h2>{_person(outcomes[0])}"""


def _radar(axes: Any, outcomes: Sequence[Outcome]) -> None:
    angles = [2 * math.pi * i / len(DIMENSIONS) for i in range(len(DIMENSIONS))]
    for place, one in enumerate(outcomes):
        values = [one.dimensions[name] or 0.0 for name in DIMENSIONS]
        colour = COLOURS[_HUES[place % len(_HUES)]]
        axes.plot([*angles, angles[0]], [*values, values[0]], color=colour, linewidth=1.6, label=one.name)
    axes.set_xticks(angles, [NAMES[name].replace(" ", "\n", 1) for name in DIMENSIONS])
    axes.tick_params(axis="x", pad=14)
    axes.set(ylim=(0, 5), yticks=range(1, 6))
    axes.figure.legend(loc="outside lower center", ncols=4)


def _curves(axes: Any, outcomes: Sequence[Outcome]) -> None:
    for place, one in enumerate(outcomes):
        colour = COLOURS[_HUES[place % len(_HUES)]]
        axes.plot(
            range(1, len(one.curve) + 1), one.curve, "o-", color=colour, markersize=3, linewidth=1.6, label=one.name
        )
    axes.set(xlabel="session", ylabel="likability (1 to 5)", ylim=(1, 5.1))
    axes.grid(axis="y", linewidth=0.6)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.figure.legend(loc="outside lower center", ncols=4)


def _dimensions(outcomes: Sequence[Outcome]) -> str:
    rows = ""
    for one in outcomes:
        values = one.dimensions
        cells = "".join(f"<td class=n>{'–' if (v := values[d]) is None else f'{v:.2f}'}</td>" for d in DIMENSIONS)
        rows += f"<tr><td>{escaped(one.name)}</td>{cells}</tr>"
    return grid(("assistant", *(NAMES[name] for name in DIMENSIONS)), rows)


def _person(one: Outcome) -> str:
    """The first person's first and last session, with what each reply was rated."""
    person = one.people[0]
    shown = [turn for turn in person.turns if turn.session in (1, one.size.sessions)]
    rows = ""
    for turn in shown:
        given = ", ".join(f"{name} {rating}" for name, rating in turn.ratings.items() if rating is not None)
        rows += (
            f"<tr><td>{turn.session}.{turn.turn} {escaped(turn.event)}</td><td>{escaped(turn.user)}</td>"
            f"<td>{escaped(turn.assistant)}</td><td>{turn.score:.2f}: {given}</td></tr>"
        )
    told = f"<p>{escaped(person.persona.summary, 1200)}</p><p><small>{escaped(one.name)}</small></p>"
    return told + grid(("turn", "user", "assistant", "ratings"), rows, "stack")
