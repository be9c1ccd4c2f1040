"""One self-contained report.html: no scripts, no requests, every text from models, memories and data escaped."""

from __future__ import annotations

import hashlib
import re
import textwrap
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from memorist._version import __version__
from memorist.agents.components.answers import Answer
from memorist.evaluation.exam import Exam
from memorist.evaluation.statistics import hierarchical_bootstrap, paired_difference
from memorist.memory.record import Change, Code, Result, clean_text
from memorist.page import COLOURS, OPERATIONS, escaped, figure, grid, page
from memorist.scoring import exact_match
from memorist.tasks.dialogue import TRAINED_CATEGORIES
from memorist.tasks.locomo import CATEGORIES, Dialogue, Question
from memorist.training.rollout import Run

SHOWN_DIALOGUES = 3

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
    tips = (re.sub(r"^(memorist .*?): ", r"<code>\1</code><br>", escaped(note)) for note in notes)
    body = f"""{_headline(agent_before, agent_after, systems)}
<h2 id="training">Training</h2>{_training(metrics)}
<h2 id="systems">Systems compared</h2>{_comparison(systems)}
<h2 id="operations">What the Manager does with each kind of statement</h2>{_confusions(agent_before, agent_after)}
<h2 id="dialogues">Dialogues, before and after</h2>{_dialogues(agent_before, agent_after)}
<h2 id="next">What to try next</h2><ul>{"".join(f"<li>{tip}</li>" for tip in tips)}</ul>"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page(title, body).encode("utf-8", "replace"))


def _headline(before: Exam, after: Exam, systems: Sequence[tuple[str, Exam]]) -> str:
    gain = paired_difference({0: after.right()}, {0: before.right()})
    verdict = "" if gain.low > 0 or gain.high < 0 else " The interval includes 0: this may be chance."
    data = hashlib.sha256(repr([(d.conversation, d.questions) for d in before.dialogues]).encode("utf-8", "replace"))
    body = ""
    for role, exam in systems:
        for row in table([exam]):
            cells = (f"{row.value:.1f}", f"{row.low:.1f} to {row.high:.1f}", row.n, row.dialogues)
            numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
            body += f'<tr class="{role}"><td>{escaped(row.name)}</td>{numbers}</tr>'
    names = f"<b>{escaped(after.name)}</b> against <b>{escaped(before.name)}</b>"
    return f"""<p class="lead">{names}: <b>{gain.value:+.1f} points</b>
of exact match, 95 % interval {gain.low:+.1f} to {gain.high:+.1f} ({gain.n} questions about {len(before.dialogues)}
dialogues).{verdict}</p>{grid(("system", "points", "95 % interval", "questions", "dialogues"), body)}
<p><small>Points: share of questions answered exactly (squad normalisation), times 100. Intervals resample dialogues.
Categories {", ".join(map(str, before.categories))}; data {data.hexdigest()[:12]}, memorist {__version__}</small></p>"""


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
            f"<h3>Stage {number + 1}: {escaped(rows[0]['kind'].upper())} of the {escaped(rows[0]['role'])}, "
            f'{len(rows)} steps, {seconds:.0f} s, {decisions} decisions</h3><div class="charts">{charts}</div>'
        )
    return "".join(shown) or "<p>No training steps were logged.</p>"


def _curve(caption: str, unit: str, by_step: Mapping[int, float]) -> str:
    """The values of each step, and their mean over the last few."""
    steps, values, span = list(by_step), list(by_step.values()), max(1, len(by_step) // 10)
    smooth = [sum(values[max(0, i + 1 - span) : i + 1]) / min(span, i + 1) for i in range(len(values))]

    def draw(axes: Any) -> None:
        axes.plot(steps, values, ".", color=COLOURS["peer"], markersize=4, label="one step")
        axes.plot(steps, smooth, color=COLOURS["after"], linewidth=1.8, label=f"mean of the last {span}")
        axes.set(xlabel="step", ylabel=unit, ylim=(min(0.0, *values) * 1.05, max(0.01, *values) * 1.05))
        axes.grid(axis="y", linewidth=0.6)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.figure.legend(loc="outside lower center", ncols=2)

    return figure(caption, draw, (4, 3)) if values else ""


def _operation_mix(caption: str, rows: Sequence[Mapping[str, Any]]) -> str:
    span = -(-len(rows) // _MOST_BARS)
    bins: dict[int, Counter[str]] = {}
    for row in rows:
        mix = bins.setdefault((row["step"] - 1) // span * span + 1, Counter())
        for kind, count in row.get("operations", {}).items():
            mix[kind if kind in OPERATIONS else "other"] += count

    def draw(axes: Any) -> None:
        floor = [0.0] * len(bins)
        for kind in (*OPERATIONS, "other"):
            shares = [mix[kind] / max(1, mix.total()) for mix in bins.values()]
            if any(shares):
                places = [step + (span - 1) / 2 for step in bins]
                axes.bar(places, shares, span, floor, color=COLOURS[kind], label=kind, antialiased=False)
                floor = [low + share for low, share in zip(floor, shares, strict=True)]
        axes.set(xlabel="step", ylabel="share of operations (0 to 1)", ylim=(0, 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.figure.legend(loc="outside lower center", ncols=3)

    return figure(caption, draw, (4, 3)) if any(bins.values()) else ""


def _bars(caption: str, rows: Sequence[tuple[str, Row]]) -> str:
    def draw(axes: Any) -> None:
        for place, (role, row) in enumerate(rows):
            error = [[row.value - row.low], [row.high - row.value]]
            style = {"elinewidth": 1.2, "capsize": 2.5}
            axes.barh(place, row.value, 0.66, color=COLOURS[role], xerr=error, ecolor=COLOURS["ink"], error_kw=style)
            axes.text(row.high + 2, place, f"{row.value:.1f}", va="center")
        names = [textwrap.fill(textwrap.shorten(clean_text(row.name), 66, placeholder="…"), 22) for _, row in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 114), xticks=range(0, 101, 20), xlabel="exact match, points (line: 95 % interval)")
        axes.grid(axis="x", linewidth=0.6)
        axes.invert_yaxis()

    return figure(caption, draw, (4.8, 0.34 * len(rows) + 0.8))


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
    common = [kind for kind, _ in total.most_common() if kind not in OPERATIONS]
    columns = [*OPERATIONS, *common[:_MOST_OTHERS]]
    columns += [_REST] * (len(common) > _MOST_OTHERS)
    pairs = zip((before, after), matrices, strict=True)
    tables = (f"<h3>{escaped(exam.name)}</h3>{_heat(matrix, kinds, columns, gold)}" for exam, matrix in pairs)
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
        label = f"{escaped(kind)}<br><small>{_KINDS.get(kind, '')}</small>"
        body += f'<tr><td>{label}</td>{cells}<th class="n">{row.total()}</th></tr>'
    return grid(("statement", *columns, "all"), body, "heat")


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
    turned, same = (grid(("question", "gold", *_SIDES), "".join(rows[k]), "stack") for k in (True, False))
    count, fold = len(before.task.questions), len(before.task.messages) > _MOST_OPEN
    speakers = " and ".join(dialogue.conversation.speakers)
    return f"""<section class="card"><h3>{escaped(dialogue.id)}: {escaped(speakers)}</h3>
<p>Right before: {right["before"]} of {count}; after: {right["after"]} of {count}.</p>{turned if rows[True] else ""}
<details><summary>{len(rows[False])} questions that stayed right or wrong</summary>{same}</details>
<details{"" if fold else " open"}><summary>Turns, and what each did to the memory bank</summary>
{_turns(dialogue, before, after)}</details></section>"""


def _question(question: Question, answers: Sequence[Answer], marks: Sequence[bool]) -> str:
    cells = ""
    for side, answer, right in zip(_SIDES, answers, marks, strict=True):
        mark = '<span class="ok" title="right">✓</span>' if right else '<span class="no" title="wrong">✗</span>'
        text = escaped(answer.shown) or '<span class="dim">no answer</span>'
        used = "".join(f"<div><small>from “{escaped(record.text, 160)}”</small></div>" for record in answer.used[:3])
        cells += f'<td data-of="{side}"><div>{mark}{text}</div>{used}</td>'
    css = "same" if marks[0] == marks[1] else "differs"
    asked = f'<td>{escaped(question.text)}</td><td data-of="gold">{escaped(question.answer)}</td>'
    return f'<tr class="{css}">{asked}{cells}</tr>'


def _turns(dialogue: Dialogue, before: Run, after: Run) -> str:
    sides = [_evolution(run) for run in (before, after)]
    body, number = "", 0
    for session in dialogue.conversation.sessions:
        date = f", {session.time:%d %B %Y}" if session.time else ""
        body += f'<tr class="session"><th colspan="3">{escaped(session.id)}{date}</th></tr>'
        for message in session:
            told = " ".join(message.statements)
            note = f"<div><small>{escaped(told)}</small></div>" if told and told != message.shown else ""
            done = [side[number] if side else "" for side in sides]
            css = "same" if done[0] == done[1] else "differs"
            cells = f'<td data-of="before">{done[0] or "–"}</td><td data-of="after">{done[1] or "–"}</td>'
            who = f"<small>{escaped(message.id)}</small> <b>{escaped(message.speaker)}:</b>"
            turn = f"{who} {escaped(message.shown)}{note}"
            body += f'<tr class="{css}"><td>{turn}</td>{cells}</tr>'
            number += 1
    return grid(("turn, and the fact in it", "bank before", "bank after"), body, "stack")


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
        return _done(change.kind.value, f"<del>{escaped(change.record.text)}</del>")
    old = f'<span class="dim">{escaped(change.before.text)}</span> → ' if change.before else ""
    return _done(change.kind.value, f"{old}<ins>{escaped(change.after.text)}</ins>")


def _unapplied(result: Result) -> str:
    if result.code is Code.MALFORMED:
        return _done("malformed", f"<code>{escaped(result.operation.kind)}</code>")
    if result.code is Code.UNCHANGED:
        return _done("NOOP")
    said = f"{escaped(result.operation.kind, 40)} {escaped(result.operation.text)}"
    return _done("refused", f"{said} <small>({escaped(result.code.value.replace('_', ' '))})</small>")


def _done(kind: str, text: str = "") -> str:
    """`text` is HTML."""
    return f'<span class="op" style="--kind: var(--{kind}, var(--other))">{kind}</span>{text}'
