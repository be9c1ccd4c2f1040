"""Small tables that are a function of a seed, with what is wrong with real ones: missing cells, a row twice, a value
far out, numbers in two units, numbers written as text (section 6.2 of the specification of Datarus-R1)."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

DEFECTS = ("missing", "duplicate", "outlier", "units", "text")
LEAST, MOST = 8, 40
"""Rows."""
SMALL = 3, 5
"""Rows of a table that can be read at a glance."""
SHOWN = 3
"""Rows of a larger one that a prompt shows."""
THOUSAND = 1000
MISSING = 0.15
"""Share of a column's cells that are missing, where some are."""

Value = str | int | float | None


@dataclass(frozen=True)
class Domain:
    """What tables are about. group: a column of names; whole, real: columns of numbers; flag: of yes and no."""

    file: str
    group: str
    names: tuple[str, ...]
    whole: str
    real: str
    flag: str
    noun: str
    """A row is one of these."""
    real_range: tuple[float, float] = (1.0, 10.0)
    whole_range: tuple[int, int] = (1, 60)


DOMAINS = (
    Domain("sales.csv", "region", ("north", "south", "east", "west"), "units", "price", "online", "sale"),
    Domain("clinic.csv", "ward", ("A", "B", "C"), "age", "dose", "smoker", "patient", (0.5, 8.0), (18, 90)),
    Domain(
        "loans.csv", "branch", ("Basel", "Bern", "Chur", "Genf"), "months", "rate", "late", "loan", (0.5, 9.0), (6, 72)
    ),
    Domain(
        "harvest.csv", "crop", ("oats", "rye", "wheat"), "plots", "yield", "irrigated", "field", (1.0, 9.0), (1, 30)
    ),
    Domain(
        "probes.csv",
        "probe",
        ("p1", "p2", "p3", "p4"),
        "cycles",
        "voltage",
        "passed",
        "measurement",
        (1.0, 5.0),
        (10, 200),
    ),
    Domain("trips.csv", "line", ("red", "blue", "green"), "riders", "delay", "weekend", "trip", (0.5, 20.0), (5, 120)),
    Domain("orders.csv", "shop", ("Linz", "Graz", "Wels"), "items", "weight", "returned", "order", (0.2, 9.0), (1, 25)),
    Domain(
        "exams.csv",
        "course",
        ("maths", "physics", "art", "music"),
        "points",
        "hours",
        "repeated",
        "exam",
        (0.5, 12.0),
        (20, 100),
    ),
)


@dataclass(frozen=True)
class Table:
    """A table as it truly is, and how it is written. columns: names; rows: true values, None where missing.

    scaled: rows whose `real` is written in a unit a thousand times smaller, which the column "unit" says. text: whether
    `whole` is written with separators of thousands, as text. twice: which row is written twice, at the end.
    """

    domain: Domain
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    scaled: frozenset[int] = frozenset()
    text: bool = False
    twice: int | None = None

    def column(self, name: str) -> list[Value]:
        """True values of a column, those of the row that is there twice once."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def numbers(self, name: str) -> list[float]:
        """Those that are not missing."""
        return [float(value) for value in self.column(name) if isinstance(value, int | float)]

    def written(self) -> str:
        """As a CSV file."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        order = [*range(len(self.rows)), *([self.twice] if self.twice is not None else [])]
        writer.writerows(self._cells(number) for number in order)
        return out.getvalue()

    @property
    def small(self) -> bool:
        """Whether a prompt shows all of it."""
        return len(self.rows) <= SMALL[1]

    def preview(self, count: int = SHOWN) -> str:
        """The first rows, as a prompt shows them; all of a small table's."""
        lines = self.written().splitlines()
        return "\n".join(lines if self.small else lines[: count + 1])

    def _cells(self, number: int) -> list[str]:
        found = []
        for name, value in zip(self.columns, self.rows[number], strict=True):
            if value is None:
                found.append("")
            elif name == self.domain.real and number in self.scaled and isinstance(value, float):
                found.append(f"{value * THOUSAND:.0f}")
            elif name == self.domain.whole and self.text:
                found.append(f"{value:,}")
            else:
                found.append(f"{value:.2f}" if isinstance(value, float) else str(value))
        return found


def table(seed: int, defects: Sequence[str] = (), rows: tuple[int, int] = (LEAST, MOST)) -> Table:
    """The table of a seed, with what is wrong with it and at least and at most so many rows."""
    rng = random.Random(f"table/{seed}")
    domain = rng.choice(DOMAINS)
    count = rng.randint(*rows)
    slope = rng.choice((-1, 1)) * rng.uniform(0.3, 1.5)
    made: list[list[Value]] = []
    for number in range(1, count + 1):
        share = rng.random()
        low, high = domain.whole_range
        whole = round(low + share * (high - low))
        low_real, high_real = domain.real_range
        middle = 0.5 + slope * (share - 0.5) + rng.gauss(0, 0.15)
        real = round(low_real + min(1.0, max(0.0, middle)) * (high_real - low_real), 2)
        made.append([number, rng.choice(domain.names), whole, real, rng.choice(("yes", "no"))])
    found = Table(domain, ("id", domain.group, domain.whole, domain.real, domain.flag), tuple(map(tuple, made)))
    for defect in defects:
        found = _spoilt(found, defect, rng)
    return found


def _spoilt(given: Table, defect: str, rng: random.Random) -> Table:
    domain, count = given.domain, len(given.rows)
    if defect == "missing":
        few = rng.randint(1, 3) if count < LEAST else max(1, round(MISSING * count))
        where = rng.sample(range(count), few)
        return _changed(given, rng.choice((domain.whole, domain.real)), dict.fromkeys(where))
    if defect == "duplicate":
        return replace(given, twice=rng.randrange(count))
    if defect == "outlier":
        name = domain.real
        return _changed(given, name, {rng.randrange(count): round(domain.real_range[1] * rng.uniform(4, 9), 2)})
    if defect == "units":
        scaled = frozenset(rng.sample(range(count), max(1, count // 4)))
        units = tuple("m" if row in scaled else "k" for row in range(count))
        rows = tuple((*row, unit) for row, unit in zip(given.rows, units, strict=True))
        return replace(given, columns=(*given.columns, "unit"), rows=rows, scaled=scaled)
    values = {row: value * THOUSAND for row, value in enumerate(given.column(domain.whole)) if isinstance(value, int)}
    return replace(_changed(given, domain.whole, values), text=True)


def _changed(given: Table, name: str, values: Mapping[int, Value]) -> Table:
    place = given.columns.index(name)
    rows = tuple(
        (*row[:place], values[number], *row[place + 1 :]) if number in values else row
        for number, row in enumerate(given.rows)
    )
    return replace(given, rows=rows)
