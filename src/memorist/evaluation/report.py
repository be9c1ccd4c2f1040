"""One self-contained report.html: no scripts, no requests, every text from models, memories and data escaped."""

from __future__ import annotations

import hashlib
import html
import io
import re
import textwrap
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from memorist._version import __version__
from memorist.agents.components.answers import Answer
from memorist.evaluation.exam import Exam
from memorist.evaluation.statistics import hierarchical_bootstrap, paired_difference
from memorist.memory.record import Change, Code, Result, clean_text
from memorist.scoring import exact_match
from memorist.tasks.dialogue import TRAINED_CATEGORIES
from memorist.tasks.locomo import CATEGORIES, Dialogue, Question
from memorist.training.rollout import Run

LONGEST_TEXT = 400
"""Characters of a memory, turn or answer that are shown: models write megabytes."""
SHOWN_DIALOGUES = 3

_OPERATIONS = ("ADD", "UPDATE", "DELETE", "NOOP", "malformed")
_MOST_OTHERS = 4  # Columns of the confusion tables beyond these: models invent kinds.
_REST = "anything else"
_MOST_BARS = 60
_MOST_OPEN = 60  # Turns of a dialogue; more are folded.
_SIDES = ("before", "after")
_KINDS = {
    "state": "a new fact", "change": "a fact gets a new value", "retract": "a fact holds no longer",
    "plan": "something intended", "done": "a plan carried out", "maybe": "a wish or what-if",
    "again": "a known fact, repeated", "other": "about a relative", "detail": "adds to a fact", "chat": "small talk",
}  # fmt: skip

_PALETTE = ("ink", "line", "before", "after", "peer", *_OPERATIONS, "other")
_COLOURS = {name: f"#0101{number:02x}" for number, name in enumerate(_PALETTE)}
"""What matplotlib draws with; each becomes a CSS variable, so that charts follow light and dark mode."""

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1f2328; --dim: #667079; --line: #d5d9de; --card: #f3f4f6;
  --before: #c2702a; --after: #2463b5; --peer: #a3abb5; --heat: 36 99 181; --good: #167534; --bad: #b3261e;
  --ADD: #18835a; --UPDATE: #2463b5; --DELETE: #c0392b; --NOOP: #8b95a1; --malformed: #a04fa0; --other: #c59a1a; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e4e7eb; --dim: #9aa4af; --line: #363c44;
  --card: #1e2329; --before: #e39a5b; --after: #6aa5f0; --peer: #69727d; --heat: 86 150 235; --good: #56c271;
  --bad: #f2857c; --ADD: #3fbf8a; --UPDATE: #6aa5f0; --DELETE: #ee7868; --malformed: #cf86cf; --other: #dcb74a; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink); margin: 0 auto;
  background: var(--paper); max-width: 1120px; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .5rem 0; } h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; } p { max-width: 46rem; margin: .5rem 0 1rem; } li { margin: .4rem 0; }
.dim, small { color: var(--dim); } small, code { font-size: .87em; } .lead { font-size: 1.15rem; }
.scroll { overflow-x: auto; margin: 1rem 0; overflow-wrap: break-word; } .stack { width: 100%; table-layout: fixed; }
table { border-collapse: collapse; font-size: .93rem; } th { text-align: left; font-weight: 600; color: var(--dim); }
td, th { border-bottom: 1px solid var(--line); padding: .4rem .8rem; vertical-align: top; }
.n { text-align: right; font-variant-numeric: tabular-nums; } td.n { white-space: nowrap; }
.before { --edge: var(--before); } .after { --edge: var(--after); } .differs { --edge: var(--other); }
td:first-child { box-shadow: inset 4px 0 var(--edge, #0000); } .session th { background: var(--card); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1rem; }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: .8rem; }
figcaption { font-size: .93rem; font-weight: 600; line-height: 1.35; margin-bottom: .4rem; }
figure svg { display: block; width: 100%; height: auto; } figure svg text { font-family: inherit !important; }
.heat td.n { background: rgb(var(--heat) / calc(var(--share) * .6)); min-width: 4.2rem; }
.heat td:first-child { min-width: 8.5rem; } .heat .gold { outline: 2px solid var(--good); outline-offset: -2px; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; } td > div + div { margin-top: .35rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 0 1rem 1rem; margin: 1.5rem 0; }
.op { font: 600 .72rem ui-monospace, monospace; padding: .1em .4em; border-radius: 4px; color: var(--paper);
  background: var(--kind); margin-right: .4em; } ins { text-decoration: none; } del, .no { color: var(--bad); }
.ok { color: var(--good); } .ok, .no { font-weight: 700; margin-right: .3em; }
@media (max-width: 700px) { body { font-size: 15px; } .card { padding: 0 .6rem .6rem; } td, th { padding: .4rem; }
  table:not(.stack) { zoom: .82; } .stack thead { display: none; } .stack :is(tbody, tr, td, th) { display: block; }
  .stack tr { border-bottom: 1px solid var(--line); padding: .3rem 0; box-shadow: inset 4px 0 var(--edge, #0000); }
  .stack td { border: 0; padding: .15rem .6rem; box-shadow: none; } .stack td[data-of] > div:first-of-type {
  display: inline; } [data-of]::before { content: attr(data-of) ": "; color: var(--dim); font-size: .85rem; } }
"""


@dataclass(frozen=True)
class Row:
    """One system's exact match in points with its interval over dialogues, `n` questions."""

    name: str
    value: float
    low: float
    high: float
    n: int
    dialogues: int


def table(exams: Sequence[Exam], categories: Sequence[int] = TRAINED_CATEGORIES) -> list[Row]:
    """A row per exam that was asked questions of these categories; intervals from a bootstrap over dialogues."""
    rows = []
    for exam in exams:
        values = {dialogue: found for dialogue, found in exam.right(categories).items() if found}
        if values:
            points = hierarchical_bootstrap({0: values})
            rows.append(Row(exam.name, points.value, points.low, points.high, points.n, len(values)))
    return rows


def write_report(
    path: Path, *, title: str, agent_before: Exam, agent_after: Exam, others: Sequence[Exam],
    metrics: Sequence[Mapping[str, Any]], notes: Sequence[str],
) -> None:  # fmt: skip
    """Write the report. Without matplotlib (`pip install 'memorist[report]'`) it says so in place of the charts.

    `agent_before` and `agent_after` are the agent's exams on the same questions, `others` the baselines and ablations
    beside them, `metrics` the rows of the run's metrics.jsonl (may be empty). `notes` say what to try next; a note
    "memorist ...: why" begins with a command.

    Raises:
        ValueError: the agent's two exams differ in dialogues or questions, or nothing was asked.
    """
    systems = [("before", agent_before), *(("peer", exam) for exam in others), ("after", agent_after)]
    tips = (re.sub(r"^(memorist .*?): ", r"<code>\1</code><br>", _e(note)) for note in notes)
    # The policy lets a browser load nothing at all, whatever slips through.
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{_e(title)}</title><style>{STYLE}</style></head><body><h1>{_e(title)}</h1>
{_headline(agent_before, agent_after, systems)}
<h2 id="training">Training</h2>{_training(metrics)}
<h2 id="systems">Systems compared</h2>{_comparison(systems)}
<h2 id="operations">What the Manager does with each kind of statement</h2>{_confusions(agent_before, agent_after)}
<h2 id="dialogues">Dialogues, before and after</h2>{_dialogues(agent_before, agent_after)}
<h2 id="next">What to try next</h2><ul>{"".join(f"<li>{tip}</li>" for tip in tips)}</ul></body></html>
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page.encode("utf-8", "replace"))


def _e(text: object, longest: int = LONGEST_TEXT) -> str:
    shown = str(text)
    return html.escape(shown if len(shown) <= longest else shown[:longest] + " …")


def _grid(head: Sequence[str], body: str, css: str = "") -> str:
    """A table: its first column is text; in tables that do not stack on small screens the others are numbers."""
    number = "" if css == "stack" else ' class="n"'
    top = "".join(f"<th{number if place else ''}>{_e(cell, 30)}</th>" for place, cell in enumerate(head))
    return f'<div class="scroll"><table class="{css}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _headline(before: Exam, after: Exam, systems: Sequence[tuple[str, Exam]]) -> str:
    gain = paired_difference({0: after.right()}, {0: before.right()})
    verdict = "" if gain.low > 0 or gain.high < 0 else " The interval includes 0: this may be chance."
    data = hashlib.sha256(repr([(d.conversation, d.questions) for d in before.dialogues]).encode("utf-8", "replace"))
    body = ""
    for role, exam in systems:
        for row in table([exam]):
            cells = (f"{row.value:.1f}", f"{row.low:.1f} to {row.high:.1f}", row.n, row.dialogues)
            numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
            body += f'<tr class="{role}"><td>{_e(row.name)}</td>{numbers}</tr>'
    return f"""<p class="lead"><b>{_e(after.name)}</b> against <b>{_e(before.name)}</b>: <b>{gain.value:+.1f} points</b>
of exact match, 95 % interval {gain.low:+.1f} to {gain.high:+.1f} ({gain.n} questions about {len(before.dialogues)}
dialogues).{verdict}</p>{_grid(("system", "points", "95 % interval", "questions", "dialogues"), body)}
<p><small>Points: share of questions answered exactly (squad normalisation), times 100. Intervals resample dialogues.
Categories {", ".join(map(str, before.categories))}; data {data.hexdigest()[:12]}, memorist {__version__}</small></p>"""


def _figure(caption: str, draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    """A figure with an inline SVG of what `draw(axes)` draws."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        hint = "This chart needs matplotlib: pip install 'memorist[report]'"
        return f'<figure><figcaption>{_e(caption)}</figcaption><p class="dim">{hint}</p></figure>'
    ink, line = _COLOURS["ink"], _COLOURS["line"]
    options = {
        "svg.fonttype": "none", "svg.hashsalt": caption, "text.parse_math": False, "font.size": 9,
        "text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "axes.edgecolor": line,
        "grid.color": line, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
        "legend.frameon": False,
    }  # fmt: skip
    buffer = io.StringIO()
    with matplotlib.rc_context(options), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # A name in letters that the measuring font lacks.
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg \1 role="img" aria-label="{_e(caption)}">', svg)
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return f"<figure><figcaption>{_e(caption)}</figcaption>{svg[svg.index('<svg') :]}</figure>"


def _training(metrics: Sequence[Mapping[str, Any]]) -> str:
    stages: dict[int, list[Mapping[str, Any]]] = {}
    for row in metrics:
        stages.setdefault(row["stage"], []).append(row)
    shown = []
    for number, rows in sorted(stages.items()):
        name = f"stage {number + 1}"
        seconds, decisions = (sum(r.get(key, 0) for r in rows) for key in ("seconds", "decisions"))
        rewards = {r["step"]: float(r["reward"]) for r in rows if "reward" in r}
        charts = _curve(f"Reward, {name}", "mean reward of a run (0 to 1)", rewards)
        flat = {r["step"]: r["flat_groups"] / r["groups"] for r in rows if r.get("groups") and "flat_groups" in r}
        charts += _curve(f"Groups that teach nothing: all siblings alike, {name}", "share of groups (0 to 1)", flat)
        charts += _operation_mix(f"Operations chosen, {name}", rows)
        shown.append(
            f"<h3>Stage {number + 1}: {_e(rows[0]['kind'].upper())} of the {_e(rows[0]['role'])}, {len(rows)} steps, "
            f'{seconds:.0f} s, {decisions} decisions</h3><div class="charts">{charts}</div>'
        )
    return "".join(shown) or "<p>No training steps were logged.</p>"


def _curve(caption: str, unit: str, by_step: Mapping[int, float]) -> str:
    """The values of each step, and their mean over the last few."""
    steps, values, span = list(by_step), list(by_step.values()), max(1, len(by_step) // 10)
    smooth = [sum(values[max(0, i + 1 - span) : i + 1]) / min(span, i + 1) for i in range(len(values))]

    def draw(axes: Any) -> None:
        axes.plot(steps, values, ".", color=_COLOURS["peer"], markersize=4, label="one step")
        axes.plot(steps, smooth, color=_COLOURS["after"], linewidth=1.8, label=f"mean of the last {span}")
        axes.set(xlabel="step", ylabel=unit, ylim=(min(0.0, *values) * 1.05, max(0.01, *values) * 1.05))
        axes.grid(axis="y", linewidth=0.6)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.figure.legend(loc="outside lower center", ncols=2)

    return _figure(caption, draw, (4, 3)) if values else ""


def _operation_mix(caption: str, rows: Sequence[Mapping[str, Any]]) -> str:
    span = -(-len(rows) // _MOST_BARS)
    bins: dict[int, Counter[str]] = {}
    for row in rows:
        mix = bins.setdefault((row["step"] - 1) // span * span + 1, Counter())
        for kind, count in row.get("operations", {}).items():
            mix[kind if kind in _OPERATIONS else "other"] += count

    def draw(axes: Any) -> None:
        floor = [0.0] * len(bins)
        for kind in (*_OPERATIONS, "other"):
            shares = [mix[kind] / max(1, mix.total()) for mix in bins.values()]
            if any(shares):
                places = [step + (span - 1) / 2 for step in bins]
                axes.bar(places, shares, span, floor, color=_COLOURS[kind], label=kind, antialiased=False)
                floor = [low + share for low, share in zip(floor, shares, strict=True)]
        axes.set(xlabel="step", ylabel="share of operations (0 to 1)", ylim=(0, 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.figure.legend(loc="outside lower center", ncols=3)

    return _figure(caption, draw, (4, 3)) if any(bins.values()) else ""


def _bars(caption: str, rows: Sequence[tuple[str, Row]]) -> str:
    def draw(axes: Any) -> None:
        for place, (role, row) in enumerate(rows):
            error = [[row.value - row.low], [row.high - row.value]]
            style = {"elinewidth": 1.2, "capsize": 2.5}
            axes.barh(place, row.value, 0.66, color=_COLOURS[role], xerr=error, ecolor=_COLOURS["ink"], error_kw=style)
            axes.text(row.high + 2, place, f"{row.value:.1f}", va="center")
        names = [textwrap.fill(textwrap.shorten(clean_text(row.name), 66, placeholder="…"), 22) for _, row in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 114), xticks=range(0, 101, 20), xlabel="exact match, points (line: 95 % interval)")
        axes.grid(axis="x", linewidth=0.6)
        axes.invert_yaxis()

    return _figure(caption, draw, (4.8, 0.34 * len(rows) + 0.8))


def _comparison(systems: Sequence[tuple[str, Exam]]) -> str:
    """Bars of all systems over all categories, then by category."""
    charts = ""
    for chosen in (TRAINED_CATEGORIES, *((c,) for c in systems[0][1].categories)):
        rows = [(role, row) for role, exam in systems for row in table([exam], chosen)]
        names, caption = CATEGORIES[chosen[0]], "All categories"
        if len(chosen) == 1:
            mem0 = f"called {names.mem0} by mem0" if names.mem0 else "left out by mem0"
            caption = f"Category {chosen[0]}: {names.locomo} in LoCoMo, {mem0}"
        if rows:
            charts += _bars(f"{caption} ({max(row.n for _, row in rows)} questions)", rows)
    return f'<div class="charts wide">{charts}</div>'


def _confusions(before: Exam, after: Exam) -> str:
    matrices = [exam.confusion() for exam in (before, after)]
    kinds = sorted({kind for matrix in matrices for kind in matrix}, key=lambda k: (k not in _KINDS, k))
    if not kinds:
        return "<p>These dialogues carry no gold operations, so kinds of statements are not known.</p>"
    gold: dict[str, set[str]] = {}
    for dialogue in before.dialogues:
        for _, operations in groupby(dialogue.gold, key=lambda g: g["dia_id"]):
            told = list(operations)
            wanted = "+".join("NOOP" if g["event"] == "NONE" else g["event"] for g in told)
            gold.setdefault(told[0]["kind"], set()).add(wanted)
    total: Counter[str] = sum((row for matrix in matrices for row in matrix.values()), Counter())
    common = [kind for kind, _ in total.most_common() if kind not in _OPERATIONS]
    columns = [*_OPERATIONS, *common[:_MOST_OTHERS]]
    columns += [_REST] * (len(common) > _MOST_OTHERS)
    pairs = zip((before, after), matrices, strict=True)
    tables = (f"<h3>{_e(exam.name)}</h3>{_heat(matrix, kinds, columns, gold)}" for exam, matrix in pairs)
    return f"""<p>Each row is a kind of statement, each cell how often the Manager answered it with that operation;
the stronger the colour, the larger the share of the row. Outlined in green is what a perfect manager does.</p>
{"".join(tables)}"""


def _heat(matrix: dict[str, Counter[str]], kinds: list[str], columns: list[str], gold: dict[str, set[str]]) -> str:
    body = ""
    for kind in kinds:
        row = matrix.get(kind, Counter())
        cells = ""
        for column in columns:
            count = row[column] if column != _REST else row.total() - sum(row[c] for c in columns)
            css = "n gold" if column in gold.get(kind, ()) else "n"
            shown = count or '<span class="dim">0</span>'
            cells += f'<td class="{css}" style="--share:{count / max(1, row.total()):.2f}">{shown}</td>'
        label = f"{_e(kind)}<br><small>{_KINDS.get(kind, '')}</small>"
        body += f'<tr><td>{label}</td>{cells}<th class="n">{row.total()}</th></tr>'
    return _grid(("statement", *columns, "all"), body, "heat")


def _dialogues(before: Exam, after: Exam) -> str:
    """Those with the largest share of questions that turned right or wrong."""
    old, new = before.right(), after.right()
    turned = {d: sum(a != b for a, b in zip(old[d], new[d], strict=True)) / max(1, len(old[d])) for d in old}
    later = {d.id: run for d, run in zip(after.dialogues, after.runs, strict=True)}
    pairs = sorted(zip(before.dialogues, before.runs, strict=True), key=lambda pair: -turned[pair[0].id])
    shown = [_dialogue(dialogue, run, later[dialogue.id]) for dialogue, run in pairs[:SHOWN_DIALOGUES]]
    return f"""<p>The {len(shown)} of {len(pairs)} dialogues in which most answers turned right or wrong: picked because
they differ, so not typical. Amber edges mark where before and after differ.</p>{"".join(shown)}"""


def _dialogue(dialogue: Dialogue, before: Run, after: Run) -> str:
    rows: dict[bool, list[str]] = {True: [], False: []}
    right = Counter[str]()
    for question, *answers in zip(before.task.questions, before.outcome.answers, after.outcome.answers, strict=True):
        marks = [bool(exact_match(answer.text, question.answer)) for answer in answers]
        right.update(dict(zip(_SIDES, marks, strict=True)))
        rows[marks[0] != marks[1]].append(_question(question, answers, marks))
    turned, same = (_grid(("question", "gold", *_SIDES), "".join(rows[k]), "stack") for k in (True, False))
    count, fold = len(before.task.questions), len(before.task.messages) > _MOST_OPEN
    return f"""<section class="card"><h3>{_e(dialogue.id)}: {_e(" and ".join(dialogue.conversation.speakers))}</h3>
<p>Right before: {right["before"]} of {count}; after: {right["after"]} of {count}.</p>{turned if rows[True] else ""}
<details><summary>{len(rows[False])} questions that stayed right or wrong</summary>{same}</details>
<details{"" if fold else " open"}><summary>Turns, and what each did to the memory bank</summary>
{_turns(dialogue, before, after)}</details></section>"""


def _question(question: Question, answers: Sequence[Answer], marks: Sequence[bool]) -> str:
    cells = ""
    for side, answer, right in zip(_SIDES, answers, marks, strict=True):
        mark = '<span class="ok" title="right">✓</span>' if right else '<span class="no" title="wrong">✗</span>'
        text = _e(answer.shown) or '<span class="dim">no answer</span>'
        used = "".join(f"<div><small>from “{_e(record.text, 160)}”</small></div>" for record in answer.used[:3])
        cells += f'<td data-of="{side}"><div>{mark}{text}</div>{used}</td>'
    css = "same" if marks[0] == marks[1] else "differs"
    asked = f'<td>{_e(question.text)}</td><td data-of="gold">{_e(question.answer)}</td>'
    return f'<tr class="{css}">{asked}{cells}</tr>'


def _turns(dialogue: Dialogue, before: Run, after: Run) -> str:
    sides = [_evolution(run) for run in (before, after)]
    body, number = "", 0
    for session in dialogue.conversation.sessions:
        date = f", {session.time:%d %B %Y}" if session.time else ""
        body += f'<tr class="session"><th colspan="3">{_e(session.id)}{date}</th></tr>'
        for message in session:
            told = " ".join(message.statements)
            note = f"<div><small>{_e(told)}</small></div>" if told and told != message.shown else ""
            done = [side[number] if side else "" for side in sides]
            css = "same" if done[0] == done[1] else "differs"
            cells = f'<td data-of="before">{done[0] or "–"}</td><td data-of="after">{done[1] or "–"}</td>'
            turn = f"<small>{_e(message.id)}</small> <b>{_e(message.speaker)}:</b> {_e(message.shown)}{note}"
            body += f'<tr class="{css}"><td>{turn}</td>{cells}</tr>'
            number += 1
    return _grid(("turn, and the fact in it", "bank before", "bank after"), body, "stack")


def _evolution(run: Run) -> list[str]:
    """What each turn did to the bank, as HTML; empty if the run observed none."""
    shown: list[list[str]] = [[] for _ in run.task.messages]
    for change in run.bank.snapshot().changes():
        place = bisect_left(run.outcome.commits, change.commit) - 1  # The bank stood at commits[i] before turn i.
        if 0 <= place < len(shown):
            shown[place].append(_change(change))
    # What was not applied left no change; a Manager call is for one statement, or for all of a turn.
    statements = [len(message.statements) for message in run.task.messages]
    for sizes in (statements, [min(1, count) for count in statements]):
        if sum(sizes) == len(run.outcome.results):
            calls = iter(run.outcome.results)
            for lines, size in zip(shown, sizes, strict=True):
                lines += [_unapplied(r) for _ in range(size) for r in next(calls) if r.code is not Code.APPLIED]
            break
    return ["".join(f"<div>{line}</div>" for line in lines) for lines in shown]


def _change(change: Change) -> str:
    if change.after is None:
        return _done(change.kind.value, f"<del>{_e(change.record.text)}</del>")
    old = f'<span class="dim">{_e(change.before.text)}</span> → ' if change.before else ""
    return _done(change.kind.value, f"{old}<ins>{_e(change.after.text)}</ins>")


def _unapplied(result: Result) -> str:
    if result.code is Code.MALFORMED:
        return _done("malformed", f"<code>{_e(result.operation.kind)}</code>")
    if result.code is Code.UNCHANGED:
        return _done("NOOP")
    said = f"{_e(result.operation.kind, 40)} {_e(result.operation.text)}"
    return _done("refused", f"{said} <small>({_e(result.code.value.replace('_', ' '))})</small>")


def _done(kind: str, text: str = "") -> str:
    """`text` is HTML."""
    return f'<span class="op" style="--kind: var(--{kind}, var(--other))">{kind}</span>{text}'
