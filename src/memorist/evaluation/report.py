"""One self-contained report.html: no requests, no scripts, every text from models and memories escaped."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorist.evaluation.exam import Exam
from memorist.evaluation.statistics import hierarchical_bootstrap
from memorist.memory.record import Scope
from memorist.scoring import exact_match
from memorist.tasks.locomo import CATEGORIES, Dialogue
from memorist.training.rollout import Run

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #c0392b; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
td, th { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; background: #fff; border-radius: 6px; padding: .5rem; } svg { max-width: 100%; height: auto; }
del { color: var(--bad); } ins { color: var(--good); text-decoration: none; } .dim { opacity: .65; }
.ok { color: var(--good); } .no { color: var(--bad); }
"""


@dataclass(frozen=True)
class Row:
    """One system's exact match in points with its interval over dialogues."""

    name: str
    value: float
    low: float
    high: float
    n: int
    dialogues: int


def table(exams: Sequence[Exam]) -> list[Row]:
    """A row per exam."""
    rows = []
    for exam in exams:
        right = exam.right()
        found = hierarchical_bootstrap({0: right})
        rows.append(Row(exam.name, found.value, found.low, found.high, found.n, len(right)))
    return rows


def write_report(
    path: Path,
    *,
    title: str,
    agent_before: Exam,
    agent_after: Exam,
    others: Sequence[Exam],
    metrics: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> None:
    """Write the report: table, curves, bars, confusion matrices, three dialogues before and after, what to try next."""
    rows = table([agent_before, *others, agent_after])
    parts = [
        f"<h1>{_e(title)}</h1>",
        "<h2>Exact match on held-out questions</h2>",
        _grid(
            ["system", "points", "95 % interval", "questions", "dialogues"],
            [[r.name, f"{r.value:.1f}", f"{r.low:.1f} to {r.high:.1f}", r.n, r.dialogues] for r in rows],
        ),
        _bars(rows),
        _categories(agent_before, agent_after),
        "<h2>Training</h2>",
        _curves(metrics),
        "<h2>What the Manager does with each kind of statement</h2>",
        *(f"<h3>{_e(exam.name)}</h3>" + _confusion(exam) for exam in (agent_before, agent_after)),
        "<h2>Three dialogues, before and after</h2>",
        *_dialogues(agent_before, agent_after),
        "<h2>What to try next</h2><ul>",
        *(f"<li><code>{_e(note)}</code></li>" for note in notes),
        "</ul>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_e(title)}</title>'
    page = (
        f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )
    path.write_text(page, encoding="utf-8")


def _e(text: object) -> str:
    return html.escape(str(text))


def _grid(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    top = "".join(f"<th{' class=n' if i else ''}>{_e(h)}</th>" for i, h in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{' class=n' if i else ''}>{_e(c)}</td>" for i, c in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _figure(draw: Any, width: float, height: float) -> str:
    """An inline SVG of what `draw(axes)` draws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    draw(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return f"<figure>{text[text.index('<svg') :]}</figure>"


def _bars(rows: Sequence[Row]) -> str:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        places = range(len(rows))
        errors = [[r.value - r.low for r in rows], [r.high - r.value for r in rows]]
        axes.barh(places, [r.value for r in rows], xerr=errors, color="#4c78a8", ecolor="#333")
        axes.set_yticks(places, [r.name for r in rows])
        axes.invert_yaxis()
        axes.set_xlabel("exact match, points (95 % interval over dialogues)")

    return _figure(draw, 9, 0.45 * len(rows) + 1)


def _categories(before: Exam, after: Exam) -> str:
    rows = []
    for category in before.categories:
        cells = []
        for exam in (before, after):
            values = {d: v for d, v in exam.right((category,)).items() if v}
            cells.append(hierarchical_bootstrap({0: values}) if values else None)
        names = CATEGORIES[category]
        count = cells[0].n if cells[0] else 0
        shown = [f"{c.value:.1f} ({c.low:.1f} to {c.high:.1f})" if c else "" for c in cells]
        rows.append([f"{category} {names.locomo} / {names.mem0}", *shown, count])
    return "<h3>By category (LoCoMo's name / mem0's name)</h3>" + _grid(
        ["category", "before", "after", "questions"], rows
    )


def _curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    stages: dict[int, list[Mapping[str, Any]]] = {}
    for row in metrics:
        stages.setdefault(row["stage"], []).append(row)
    if not stages:
        return "<p>No training steps were logged.</p>"

    def draw(figure: Any) -> None:
        grid = figure.subplots(2, len(stages), squeeze=False)
        for column, rows in enumerate(stages.values()):
            steps = [r["step"] for r in rows]
            top, low = grid[0][column], grid[1][column]
            top.plot(steps, [r["reward"] for r in rows], label="mean reward")
            top.plot(
                steps, [r.get("flat_groups", 0) / max(1, r.get("groups", 1)) for r in rows], ":", label="flat groups"
            )
            top.set_title(f"stage {column + 1}: {rows[0]['kind']} of the {rows[0]['role']}")
            top.set_ylim(0, 1)
            top.set_ylabel("share")
            top.legend()
            kinds = sorted({k for r in rows for k in r["operations"]})
            for kind in kinds:
                low.plot(
                    steps,
                    [r["operations"].get(kind, 0) / max(1, sum(r["operations"].values())) for r in rows],
                    label=kind,
                )
            low.set_xlabel("step")
            low.set_ylabel("share of operations")
            if kinds:
                low.legend(fontsize=7)

    return _figure(draw, 5.2 * len(stages), 6)


def _confusion(exam: Exam) -> str:
    matrix = exam.confusion()
    chosen = sorted({kind for row in matrix.values() for kind in row})
    head = "".join(f"<th class=n>{_e(c)}</th>" for c in ("statement", *chosen))
    body = ""
    for kind, row in sorted(matrix.items()):
        total = sum(row.values())
        cells = "".join(
            f'<td class=n style="background: rgb(76 120 168 / {row[c] / total:.2f})">{row[c]}</td>' for c in chosen
        )
        body += f"<tr><td>{_e(kind)}</td>{cells}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _dialogues(before: Exam, after: Exam) -> list[str]:
    """The three whose scores changed most."""
    first, second = before.right(), after.right()
    order = sorted(range(len(before.dialogues)), key=lambda i: -_change(before.dialogues[i].id, first, second))
    return [_dialogue(before.dialogues[i], before.runs[i], after.runs[i]) for i in order[:3]]


def _change(name: str, first: Mapping[str, list[float]], second: Mapping[str, list[float]]) -> float:
    return abs(sum(second[name]) - sum(first[name])) / max(1, len(first[name]))


def _dialogue(dialogue: Dialogue, before: Run, after: Run) -> str:
    rows = ""
    for message in dialogue.conversation.messages():
        told = _e(" ".join(message.statements))
        cells = "".join(f"<td>{_evolution(message.id, run)}</td>" for run in (before, after))
        rows += f"<tr><td class=dim>{_e(message.id)}</td><td>{told}</td>{cells}</tr>"
    top = "<tr><th></th><th>told</th><th>bank before</th><th>bank after</th></tr>"
    turns = f"<table><thead>{top}</thead><tbody>{rows}</tbody></table>"
    asked = ""
    pairs = zip(before.task.questions, before.outcome.answers, after.outcome.answers, strict=True)
    for question, old, new in pairs:
        marks = "".join(f"<td>{_mark(a.text, question.answer)} {_e(a.shown)}</td>" for a in (old, new))
        asked += f"<tr><td>{_e(question.text)}</td><td>{_e(question.answer)}</td>{marks}</tr>"
    head = "<tr><th>question</th><th>gold</th><th>before</th><th>after</th></tr>"
    questions = f"<table><thead>{head}</thead><tbody>{asked}</tbody></table>"
    summary = "<summary>turns and the bank's evolution</summary>"
    return f"<h3>{_e(dialogue.id)}</h3>{questions}<details>{summary}{turns}</details>"


def _mark(answer: str, gold: str) -> str:
    return "<span class=ok>✓</span>" if exact_match(answer, gold) else "<span class=no>✗</span>"


def _evolution(turn: str, run: Run) -> str:
    """What one turn did to the bank."""
    shown = []
    for change in _changes(run):
        if change.turn != turn:
            continue
        old = f"<del>{_e(change.before.text)}</del> " if change.before else ""
        new = f"<ins>{_e(change.after.text)}</ins>" if change.after else ""
        shown.append(f"{_e(change.kind)} {old}{new}")
    return "<br>".join(shown) or "<span class=dim>–</span>"


@dataclass(frozen=True)
class _Step:
    turn: str
    kind: str
    before: Any
    after: Any


def _changes(run: Run) -> list[_Step]:
    """Every change with the turn that made it, by the commit that each turn found."""
    turns = [message.id for message in run.task.messages]
    starts = list(run.outcome.commits)
    steps = []
    for speaker in run.task.speakers:
        for change in run.bank.changes(Scope(speaker)):
            place = max((i for i, start in enumerate(starts) if start < change.commit), default=0)
            steps.append(_Step(turns[place] if turns else "", change.kind.value, change.before, change.after))
    return steps
