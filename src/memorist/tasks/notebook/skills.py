"""Questions about tables whose answers are known: what is asked in many words, what is right, and code that finds it
(section 6.2 of the specification of Datarus-R1)."""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from memorist.tasks.notebook.tables import THOUSAND, Table, Value

RELATIVE, ABSOLUTE = 1e-2, 1e-6
"""How far a number may be off."""
TIES = 1e-6


@dataclass(frozen=True)
class Question:
    """A question, what is right, and the lines of code that print it from a frame `d` as it was read.

    kind: "number" (within `RELATIVE`), "count" (exact), "choice" (a word). cleaned: lines that have to be run before.
    column: which one it is about. by_hand: what one sees who answers from the table alone; empty where nobody could.
    """

    text: str
    gold: str
    kind: str
    code: str
    column: str
    cleaned: tuple[str, ...] = ()
    by_hand: str = ""


def correct(answer: str | None, gold: str, kind: str) -> bool:
    """Whether an answer is right: numbers by |p - g| <= max(ABSOLUTE, RELATIVE |g|), counts and words exactly."""
    if answer is None:
        return False
    said = answer.strip().strip("'\"").rstrip(".").strip()
    if kind == "choice":
        return said.casefold() == gold.casefold()
    try:
        found, right = float(said.replace(",", "")), float(gold)
    except ValueError:
        return False
    if not math.isfinite(found):
        return False
    return found == right if kind == "count" else abs(found - right) <= max(ABSOLUTE, RELATIVE * abs(right))


def cleaning(table: Table, column: str) -> tuple[str, ...]:
    """Lines without which a column is not what it means."""
    lines = []
    if table.twice is not None:
        lines.append("d = d.drop_duplicates()")
    if table.text and column == table.domain.whole:
        lines.append(f"d[{column!r}] = d[{column!r}].str.replace(',', '').astype(float)")
    if table.scaled and column == table.domain.real:
        lines.append(f"d.loc[d['unit'] == 'm', {column!r}] /= {THOUSAND}")
    return tuple(lines)


Skill = Callable[[Table, random.Random], Question | None]
"""A question of a kind about a table; None where the table has none."""
_SAID = {
    "mean": (
        "What is the mean {c}?",
        "What is {c} on average?",
        "Give the average of {c}.",
        "Compute the mean of the column {c}.",
    ),
    "median": ("What is the median {c}?", "Compute the median of the column {c}.", "Give the median of {c}."),
    "std": ("What is the sample standard deviation of {c}?", "How much does {c} vary (sample standard deviation)?"),
    "count": ("How many rows have {w}?", "Count the rows with {w}.", "In how many rows is it so that {w}?"),
    "best": (
        "Which {g} has the largest total {c}?",
        "In which {g} is the sum of {c} highest?",
        "Name the {g} that leads in total {c}.",
    ),
    "missing": ("How many values of {c} are missing?", "In how many rows is {c} empty?", "Count the blanks in {c}."),
    "twice": (
        "How many rows are exact copies of an earlier one?",
        "Count the duplicate rows.",
        "How many rows stand there twice?",
    ),
    "together": (
        "Is the correlation of {c} and {e} positive or negative?",
        "Do {c} and {e} go together (positive) or against each other (negative)?",
    ),
    "correlation": (
        "What is the correlation of {c} and {e} on complete rows?",
        "Compute Pearson's correlation of {c} with {e}, rows with gaps left out.",
    ),
    "slope": (
        "What is the slope of a straight line through {e} by {c}?",
        "By how much does {e} change with one more of {c} (least squares)?",
    ),
    "filled": (
        "Fill gaps in {c} with its median. What is its total then?",
        "What is the sum of {c} once missing values are its median?",
    ),
    "outlier": (
        "Which id has a value of {c} that is out by the 1.5 IQR rule?",
        "Find the id of the outlier in {c} (1.5 times the interquartile range).",
    ),
}
NAMES = tuple(_SAID)
BY_HAND = ("count", "missing", "twice")
"""Skills whose questions about a small table can be answered without running anything."""


def question(name: str, table: Table, seed: int) -> Question | None:
    """A question of a skill about a table; None where it has none that is clear."""
    return SKILLS[name](table, random.Random(f"question/{name}/{seed}"))


def _asked(name: str, rng: random.Random, table: Table, **given: str) -> str:
    text = rng.choice(_SAID[name]).format(**given)
    notes = []
    if table.twice is not None and name != "twice":
        notes.append("Rows that stand there twice count once.")
    if table.scaled and table.domain.real in given.values():
        notes.append(f"Where unit is m, {table.domain.real} is in thousandths: put it in k first.")
    return " ".join([text, *notes])


def _said(value: Value) -> str:
    """As it is written in the table, in its own unit."""
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def _printed(value: str) -> str:
    return f"print(round({value}, 4))"


def _column(table: Table, rng: random.Random) -> str:
    return rng.choice((table.domain.whole, table.domain.real))


def _number(name: str, code: str, measure: Callable[[Sequence[float]], float]) -> Skill:
    def made(table: Table, rng: random.Random) -> Question | None:
        column = _column(table, rng)
        gold = measure(table.numbers(column))
        if abs(gold) < 1e-3:
            return None
        text = _asked(name, rng, table, c=column)
        return Question(
            text, f"{gold:.6g}", "number", _printed(code.format(c=repr(column))), column, cleaning(table, column)
        )

    return made


def _count(table: Table, rng: random.Random) -> Question | None:
    domain, column = table.domain, _column(table, rng)
    values = table.numbers(column)
    if not values:
        return None
    told = f"{sorted(values)[rng.randrange(len(values))] + rng.choice((-0.005, 0.005)):.3f}".rstrip("0")
    limit = float(told)
    above = rng.random() < 0.5
    said = [f"{column} {'above' if above else 'below'} {told}"]
    tests = [f"(d[{column!r}] {'>' if above else '<'} {told})"]
    column_values = table.column(column)
    kept = [
        value is not None and ((float(value) > limit) if above else (float(value) < limit)) for value in column_values
    ]
    if rng.random() < 0.5:
        where, value = rng.choice(((domain.group, rng.choice(domain.names)), (domain.flag, rng.choice(("yes", "no")))))
        said.append(f"{where} {value}")
        tests.append(f"(d[{where!r}] == {value!r})")
        kept = [one and other == value for one, other in zip(kept, table.column(where), strict=True)]
    text = _asked("count", rng, table, w=" and ".join(said), c=column)
    code = f"print(int(({' & '.join(tests)}).sum()))"
    marks = [f"{_said(value)} {'yes' if one else 'no'}" for value, one in zip(column_values, kept, strict=True)]
    return Question(text, str(sum(kept)), "count", code, column, cleaning(table, column), ", ".join(marks))


def _best(table: Table, rng: random.Random) -> Question | None:
    column, group = _column(table, rng), table.domain.group
    totals: dict[str, float] = defaultdict(float)
    for name, value in zip(table.column(group), table.column(column), strict=True):
        totals[str(name)] += float(value) if isinstance(value, int | float) else 0.0
    order = sorted(totals, key=lambda name: -totals[name])
    if len(order) < 2 or totals[order[0]] - totals[order[1]] <= max(TIES, RELATIVE * totals[order[0]]):
        return None
    code = f"print(d.groupby({group!r})[{column!r}].sum().idxmax())"
    return Question(
        _asked("best", rng, table, c=column, g=group), order[0], "choice", code, column, cleaning(table, column)
    )


def _missing(table: Table, rng: random.Random) -> Question | None:
    holes = [name for name in (table.domain.whole, table.domain.real) if None in table.column(name)]
    column = holes[0] if holes and rng.random() < 0.8 else _column(table, rng)
    gold = sum(value is None for value in table.column(column))
    code = f"print(int(d[{column!r}].isna().sum()))"
    lines = tuple(line for line in cleaning(table, column) if "drop_duplicates" in line)
    seen = " ".join(map(_said, table.column(column)))
    return Question(_asked("missing", rng, table, c=column), str(gold), "count", code, column, lines, seen)


def _twice(table: Table, rng: random.Random) -> Question | None:
    gold = int(table.twice is not None)
    rows = [*table.column("id"), *([table.column("id")[table.twice]] if table.twice is not None else [])]
    code, seen = "print(int(d.duplicated().sum()))", " ".join(map(str, rows))
    return Question(_asked("twice", rng, table), str(gold), "count", code, "", by_hand=seen)


def _pairs(table: Table) -> list[tuple[float, float]]:
    whole, real = table.column(table.domain.whole), table.column(table.domain.real)
    pairs = zip(whole, real, strict=True)
    return [(float(a), float(b)) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float)]


def _both(table: Table) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*cleaning(table, table.domain.whole), *cleaning(table, table.domain.real))))


def _together(table: Table, rng: random.Random) -> Question | None:
    one, other = table.domain.whole, table.domain.real
    found = float(np.corrcoef(np.array(_pairs(table)).T)[0, 1])
    if not abs(found) > 0.1:
        return None
    code = f"print('positive' if d[{one!r}].corr(d[{other!r}]) > 0 else 'negative')"
    text = _asked("together", rng, table, c=one, e=other)
    return Question(text, "positive" if found > 0 else "negative", "choice", code, one, _both(table))


def _correlation(table: Table, rng: random.Random) -> Question | None:
    one, other = table.domain.whole, table.domain.real
    found = float(np.corrcoef(np.array(_pairs(table)).T)[0, 1])
    if not abs(found) > 0.1:
        return None
    code = _printed(f"d[{one!r}].corr(d[{other!r}])")
    return Question(
        _asked("correlation", rng, table, c=one, e=other), f"{found:.6g}", "number", code, one, _both(table)
    )


def _slope(table: Table, rng: random.Random) -> Question | None:
    one, other = table.domain.whole, table.domain.real
    pairs = np.array(_pairs(table))
    found = float(np.polyfit(pairs[:, 0], pairs[:, 1], 1)[0])
    if abs(found) < 0.02 or table.text:
        return None
    fit = f"np.polyfit(c[{one!r}], c[{other!r}], 1)[0]"
    code = f"import numpy as np; c = d[[{one!r}, {other!r}]].dropna(); print(round({fit}, 6))"
    return Question(_asked("slope", rng, table, c=one, e=other), f"{found:.6g}", "number", code, one, _both(table))


def _filled(table: Table, rng: random.Random) -> Question | None:
    holes = [name for name in (table.domain.whole, table.domain.real) if None in table.column(name)]
    if not holes:
        return None
    column = rng.choice(holes)
    values = table.numbers(column)
    gold = sum(values) + (len(table.rows) - len(values)) * statistics.median(values)
    code = _printed(f"d[{column!r}].fillna(d[{column!r}].median()).sum()")
    return Question(
        _asked("filled", rng, table, c=column), f"{gold:.6g}", "number", code, column, cleaning(table, column)
    )


def _outlier(table: Table, rng: random.Random) -> Question | None:
    column = table.domain.real
    values = np.array([math.nan if value is None else float(value) for value in table.column(column)])
    low, high = np.nanpercentile(values, [25, 75])
    out = [
        place
        for place, value in enumerate(values)
        if value < low - 1.5 * (high - low) or value > high + 1.5 * (high - low)
    ]
    if len(out) != 1:
        return None
    lines = f"q = d[{column!r}].quantile([.25, .75]); w = 1.5 * (q[.75] - q[.25])"
    code = f"{lines}\nprint(d.loc[(d[{column!r}] < q[.25] - w) | (d[{column!r}] > q[.75] + w), 'id'].iloc[0])"
    gold = str(table.column("id")[out[0]])
    return Question(_asked("outlier", rng, table, c=column), gold, "count", code, column, cleaning(table, column))


SKILLS: dict[str, Skill] = {
    "mean": _number("mean", "d[{c}].mean()", statistics.fmean),
    "median": _number("median", "d[{c}].median()", statistics.median),
    "std": _number("std", "d[{c}].std()", statistics.stdev),
    "count": _count,
    "best": _best,
    "missing": _missing,
    "twice": _twice,
    "together": _together,
    "correlation": _correlation,
    "slope": _slope,
    "filled": _filled,
    "outlier": _outlier,
}
