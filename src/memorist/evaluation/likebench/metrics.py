"""From ratings to likability, how it changes over sessions, and how it relates to what is remembered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memorist.evaluation.likebench.judge import DIMENSIONS, Rating, turn_score


@dataclass(frozen=True, slots=True)
class Adaptability:
    """How likability changes over sessions: an ordinary least squares line of session means.

    slope: points a session. intercept: of session 0. r2: share of the variance that the line explains, 0 where there is
    none. percent: fitted change over all sessions, in percent of the fitted first one.
    """

    slope: float
    intercept: float
    r2: float
    percent: float


def adaptability(sessions: Sequence[float]) -> Adaptability:
    """Of the means of sessions 1, 2, …; flat where there are fewer than two."""
    count = len(sessions)
    if count < 2:
        return Adaptability(0.0, sessions[0] if sessions else 0.0, 0.0, 0.0)
    x, y = np.arange(1, count + 1, dtype=float), np.asarray(sessions, float)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    intercept = float(y.mean() - slope * x.mean())
    total = float(((y - y.mean()) ** 2).sum())
    left = float(((y - intercept - slope * x) ** 2).sum())
    r2 = 0.0 if total < 1e-12 else 1 - left / total
    first = intercept + slope
    return Adaptability(slope, intercept, r2, 100 * slope * (count - 1) / first if first else 0.0)


def session_means(turns: Mapping[tuple[int, int], Mapping[str, Rating]]) -> list[float]:
    """Of one person's turns by (session, turn), the mean of each session's turn scores, in order."""
    found: dict[int, list[float]] = {}
    for (session, _), ratings in sorted(turns.items()):
        found.setdefault(session, []).append(turn_score(ratings))
    return [sum(scores) / len(scores) for scores in found.values()]


def dimension_means(turns: Mapping[tuple[int, int], Mapping[str, Rating]]) -> dict[str, float | None]:
    """Of one person's turns, the mean of each dimension where it applies."""
    found: dict[str, float | None] = {}
    for name in DIMENSIONS:
        given = [rating for ratings in turns.values() if (rating := ratings.get(name)) is not None]
        found[name] = sum(given) / len(given) if given else None
    return found


def scaled(likability: float) -> float:
    """From 1 to 5 to 0 to 100."""
    return 25 * (likability - 1)


def weighted_kappa(first: Sequence[int], second: Sequence[int], levels: int = 5) -> float:
    """Quadratic weighted kappa of two raters, of ratings from 1 to `levels`.

    Raises:
        ValueError: they rated different numbers of things, or none.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"kappa of {len(first)} and {len(second)} ratings; expected equally many, at least one")
    table = np.zeros((levels, levels))
    for a, b in zip(first, second, strict=True):
        table[a - 1, b - 1] += 1
    place = np.arange(levels)
    weights = (place[:, None] - place[None]) ** 2 / (levels - 1) ** 2
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    against = float((weights * expected).sum())
    return 1.0 if against == 0 else 1 - float((weights * table).sum()) / against


def pearson(first: Sequence[float], second: Sequence[float]) -> float:
    """The correlation of two series; 0 where one does not vary."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm else 0.0


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """The correlation of ranks; equals share the mean of theirs."""
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float]) -> list[float]:
    given = np.asarray(values, float)
    return [float((given < value).sum() + ((given == value).sum() - 1) / 2) for value in given]
