"""What every evaluation of a run gave before its first stage and after each: a page on which forgetting shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memorist.page import COLOURS, escaped, figure, grid, page, png
from memorist.training.metrics import read_metrics
from memorist.training.stages import EVALUATIONS, PICTURES

PAGE = "stages.html"


def write_stages(folder: Path) -> Path | None:
    """The page in a run's folder; None where nothing was evaluated."""
    rows = list(read_metrics(folder / EVALUATIONS))
    if not rows:
        return None
    body = _body(rows) + _examples(rows, folder / PICTURES)
    (folder / PAGE).write_text(page("What every stage did to every task", body), encoding="utf-8")
    return folder / PAGE


Found = Mapping[int, Mapping[str, float]]
"""Measures of an evaluation, by stages that were done."""
LINES = ("after", "before", "ADD", "UPDATE", "other", "malformed", "DELETE", "peer")


def _body(rows: Sequence[Mapping[str, Any]]) -> str:
    last = max(row["after"] for row in rows)
    by_name: dict[str, dict[int, Mapping[str, float]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {})[row["after"]] = row["measures"]
    measures = list(dict.fromkeys(measure for row in rows for measure in row["measures"]))
    charts = "".join(_chart(measure, by_name) for measure in measures)
    parts = [
        "<p>Measures of held-out tasks, by models that act greedily, before the first stage (0) and after each. What "
        f'falls after a stage that was about something else was forgotten.</p><div class="charts">{charts}</div>'
    ]
    head = ("", *("before" if after == 0 else f"after {after}" for after in range(last + 1)))
    for name, found in by_name.items():
        body = "".join(
            _row(measure, found, last) for measure in measures if any(measure in of for of in found.values())
        )
        parts.append(f"<h2>{escaped(name)}</h2>{grid(head, body)}")
    return "\n".join(parts)


def _examples(rows: Sequence[Mapping[str, Any]], pictures: Path) -> str:
    """What some tasks were answered before the first stage and after each, with what was shown."""
    parts = []
    for name in dict.fromkeys(row["name"] for row in rows if row.get("examples")):
        cards: dict[str, list[str]] = {}
        for row in sorted((row for row in rows if row["name"] == name), key=lambda row: row["after"]):
            when = f"after {row['after']}" if row["after"] else "before"
            for one in row.get("examples", ()):
                card = cards.setdefault(one["task"], [_shown(one, pictures)])
                mark = '<span class="ok">✓</span>' if one["right"] else '<span class="no">✗</span>'
                card.append(f"<div>{mark}<small>{when}</small> {escaped(one['said'])}</div>")
        figures = "".join(f"<figure>{''.join(card)}</figure>" for card in cards.values())
        parts.append(f'<h2>{escaped(name)}: what was answered</h2><div class="charts">{figures}</div>')
    return "\n".join(parts)


def _shown(example: Mapping[str, Any], pictures: Path) -> str:
    """The picture, the question and its answer."""
    files = [pictures / Path(name).name for name in example.get("pictures", ())]
    drawn = "".join(f'<img alt="" src="{png(file.read_bytes())}">' for file in files if file.is_file())
    return f"{drawn}<figcaption>{escaped(example['asked'])} {escaped(example['gold'])}</figcaption>"


def _row(measure: str, found: Found, last: int) -> str:
    values = [found.get(after, {}).get(measure) for after in range(last + 1)]
    cells = "".join(f'<td class="n">{"" if value is None else f"{value:.4g}"}</td>' for value in values)
    return f"<tr><td>{escaped(measure)}</td>{cells}</tr>"


def _chart(measure: str, by_name: Mapping[str, Found]) -> str:
    """A measure of every task over the stages."""

    def draw(axes: Any) -> None:
        every = [0.0, 0.01]
        for number, (name, found) in enumerate(by_name.items()):
            points = [(after, own[measure]) for after, own in sorted(found.items()) if measure in own]
            if points:
                colour = COLOURS[LINES[number % len(LINES)]]
                axes.plot(*zip(*points, strict=True), "o-", color=colour, linewidth=1.8, label=name)
                every += [value for _, value in points]
        axes.set(xlabel="stages done", ylabel=measure, ylim=(min(every) * 1.05, max(every) * 1.05))
        axes.set_xticks(sorted({after for found in by_name.values() for after in found}))
        axes.grid(axis="y", linewidth=0.6)
        axes.figure.legend(loc="outside lower center", ncols=3)

    return figure(measure, draw, (4, 3))
