"""Means with honest intervals.

Questions about one dialogue share its memory bank, and dialogues of one seed share a trained model, so
neither are independent draws. The bootstrap here resamples seeds and, inside them, whole dialogues, never
single questions; means weigh every question alike. Values come as
`{seed: {dialogue: [value of each question]}}`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats, Floats], Floats]
"""`(totals, counts) -> values`, elementwise over resamples: sums of question values, and their number."""

S = TypeVar("S", bound=Hashable)
D = TypeVar("D", bound=Hashable)

LEVEL = 0.95
_BLOCK = 2_000_000  # Dialogues drawn at once: bounds memory to about 100 MB.


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95% interval, and `n`, the number of question values behind it.

    With one seed and one dialogue there is nothing to resample and the interval has no width.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"

    def to_json(self) -> dict[str, float | int]:
        """The four numbers under their names."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def mean(totals: Floats, counts: Floats) -> Floats:
    """The question-weighted mean."""
    return totals / counts


def hierarchical_bootstrap(
    values: Mapping[S, Mapping[D, Sequence[float]]],
    statistic: Statistic = mean,
    rounds: int = 2000,
    seed: int = 0,
) -> Interval:
    """A statistic of question values with its 95% percentile interval over seeds and, inside them, dialogues.

    A single seed leaves dialogues alone to be resampled. Seeds that were judged on the same dialogues share
    the draw of dialogues in a round: drawn apart, the luck of the dialogues would average out over the seeds
    and the interval come out too narrow.

    Raises:
        ValueError: there are no values.
    """
    table = _Table(values)
    total, count = np.array(table.totals.sum()), np.array(table.counts.sum())
    drawn = table.resample([table.totals, table.counts], rounds, seed)
    return _interval(float(statistic(total, count)), statistic(drawn[0], drawn[1]), int(count))


def nested_bootstrap(
    values: Mapping[S, Mapping[D, Mapping[str, Sequence[float]]]], rounds: int = 2000, seed: int = 0
) -> Interval:
    """The mean of question values with its 95% percentile interval over seeds, inside them conversations, inside these
    sessions. In a round, seeds share the draw of conversations and sessions that they have in common.

    Raises:
        ValueError: there are no values.
    """
    sums = {
        s: {d: {t: (float(np.sum(v)), len(v)) for t, v in parts.items() if len(v)} for d, parts in run.items()}
        for s, run in values.items()
    }
    flat = [cell for run in sums.values() for parts in run.values() for cell in parts.values()]
    if not flat:
        raise ValueError("no values: nothing to take a mean of; were all questions left out?")
    rng, seeds = np.random.default_rng(seed), list(sums)
    sessions = {d: sorted(parts) for run in sums.values() for d, parts in run.items() if parts}
    drawn = []
    for _ in range(rounds):
        picked = [
            (d, [sessions[d][i] for i in rng.integers(0, len(sessions[d]), len(sessions[d]))])
            for d in (list(sessions)[i] for i in rng.integers(0, len(sessions), len(sessions)))
        ]
        chosen = [seeds[i] for i in rng.integers(0, len(seeds), len(seeds))]
        cells = [sums[s][d].get(t, (0.0, 0)) for s in chosen for d, parts in picked if d in sums[s] for t in parts]
        total, count = map(sum, zip(*cells, strict=True))
        drawn.append(total / count if count else np.nan)
    value = sum(total for total, _ in flat) / sum(count for _, count in flat)
    return _interval(value, np.array([d for d in drawn if np.isfinite(d)]), sum(count for _, count in flat))


def paired_difference(
    ours: Mapping[S, Mapping[D, Sequence[float]]],
    theirs: Mapping[S, Mapping[D, Sequence[float]]],
    rounds: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of ours minus theirs, question by question, with its interval from the same resampling.

    Where only one side has a single seed (a frozen system), it stands beside every seed of the other.

    Raises:
        ValueError: there are no values, or the two differ in seeds, dialogues or numbers of questions.
    """
    first, second = _aligned(ours, theirs)
    differences = {
        s: {d: [a - b for a, b in zip(first[s][d], second[s][d], strict=True)] for d in first[s]} for s in first
    }
    return hierarchical_bootstrap(differences, rounds=rounds, seed=seed)


def ratio_headroom(
    base: Mapping[S, Mapping[D, Sequence[float]]],
    trained: Mapping[S, Mapping[D, Sequence[float]]],
    gold: Mapping[S, Mapping[D, Sequence[float]]],
    rounds: int = 2000,
    seed: int = 0,
) -> Interval:
    """The headroom share, (trained - base) / (gold - base), all three on the same resampled dialogues.

    Systems with a single seed stand beside every seed of the others. A resample without headroom counts as
    unbounded, so that an interval may end at infinity: then the data cannot tell.

    Raises:
        ValueError: gold is not above base, there are no values, or the three differ in seeds, dialogues or
            numbers of questions.
    """
    tables = [_Table(values) for values in _aligned(base, trained, gold)]
    low, mid, high = (table.totals for table in tables)
    gain, room = float((mid - low).sum()), float((high - low).sum())
    count = int(tables[0].counts.sum())
    if room <= 0:
        raise ValueError(
            f"gold ({high.sum() / count:.4f}) is not above base ({low.sum() / count:.4f}); "
            "there is no headroom to take a share of"
        )
    drawn = tables[0].resample([mid - low, high - low], rounds, seed)
    unbounded = np.where(drawn[0] == 0, 0.0, np.copysign(np.inf, drawn[0]))
    shares = np.divide(drawn[0], drawn[1], out=unbounded, where=drawn[1] > 0)
    return _interval(gain / room, shares, count)


def ratio_of_means(
    above: Mapping[S, Mapping[D, Sequence[float]]],
    below: Mapping[S, Mapping[D, Sequence[float]]],
    rounds: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean of one system's question values over that of another, on the same resampled dialogues.

    Systems with a single seed stand beside every seed of the other.

    Raises:
        ValueError: the mean below is not above 0, there are no values, or the two differ in seeds, dialogues or
            numbers of questions.
    """
    tables = [_Table(values) for values in _aligned(above, below)]
    over, under = (table.totals for table in tables)
    if under.sum() <= 0:
        raise ValueError(f"the mean below is {under.sum() / tables[1].counts.sum():.4g}; expected more than 0")
    drawn = tables[0].resample([over, under], rounds, seed)
    unbounded = np.where(drawn[0] == 0, 0.0, np.copysign(np.inf, drawn[0]))
    ratios = np.divide(drawn[0], drawn[1], out=unbounded, where=drawn[1] > 0)
    return _interval(float(over.sum() / under.sum()), ratios, int(tables[0].counts.sum()))


def _interval(value: float, drawn: Floats, n: int) -> Interval:
    tail = (1 - LEVEL) / 2
    # An observed resample at each end, not an interpolation, which has no meaning beside an infinite one.
    low, high = np.quantile(drawn, [tail, 1 - tail], method="nearest")
    # Few and very unequal dialogues, or rounding, can push an end past the value itself.
    return Interval(value, min(float(low), value), max(float(high), value), n)


def _aligned(
    *systems: Mapping[S, Mapping[D, Sequence[float]]],
) -> list[Mapping[S, Mapping[D, Sequence[float]]]]:
    """The systems with equal seeds, single ones repeated; checks that they answered the same questions."""
    full = max(systems, key=len)
    wide = [{s: next(iter(system.values())) for s in full} if len(system) == 1 else system for system in systems]
    shapes = [{s: {d: len(v) for d, v in run.items()} for s, run in system.items()} for system in wide]
    for shape in shapes[1:]:
        if shape.keys() != shapes[0].keys():
            raise ValueError(f"systems ran with seeds {_some(shapes[0])} and {_some(shape)}; pair equal seeds")
        for s, sizes in shape.items():
            if sizes != shapes[0][s]:
                different = [d for d in {**sizes, **shapes[0][s]} if sizes.get(d) != shapes[0][s].get(d)]
                raise ValueError(f"systems answered different questions: seed {s}, dialogues {_some(different)}")
    return [dict(system) for system in wide]


def _some(names: object) -> str:
    shown = sorted(map(str, names))  # type: ignore[call-overload]
    return ", ".join(shown[:4]) + (" ..." if len(shown) > 4 else "")


class _Table:
    """Sums and counts of question values: a row a seed, a column a dialogue in sorted order, 0 where none."""

    def __init__(self, values: Mapping[S, Mapping[D, Sequence[float]]]) -> None:
        # A dialogue without questions has nothing to weigh.
        runs = [{d: v for d, v in run.items() if len(v)} for run in values.values()]
        runs = [dict(sorted(run.items(), key=lambda item: repr(item[0]))) for run in runs if run]
        if not runs:
            raise ValueError("no values: nothing to take a mean of; were all questions left out?")
        self.sizes = np.array([len(run) for run in runs])
        self.shared = all(run.keys() == runs[0].keys() for run in runs)
        shape = (len(runs), int(self.sizes.max()))
        self.totals, self.counts = np.zeros(shape), np.zeros(shape)
        for i, run in enumerate(runs):
            self.totals[i, : len(run)] = [float(np.sum(v)) for v in run.values()]
            self.counts[i, : len(run)] = [len(v) for v in run.values()]

    def resample(self, columns: Sequence[Floats], rounds: int, seed: int) -> list[Floats]:
        """Sums of each column (shape as `totals`) over resampled dialogues; each of shape (rounds,)."""
        parts = [
            [np.where(valid, column[seeds, dialogues], 0.0).sum((1, 2)) for column in columns]
            for seeds, dialogues, valid in self._draws(rounds, np.random.default_rng(seed))
        ]
        return [np.concatenate(blocks) for blocks in zip(*parts, strict=True)]

    def _draws(
        self, rounds: int, rng: np.random.Generator
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]]:
        """Blocks of (seeds, dialogues, valid), broadcasting to (rounds of the block, seeds, dialogues)."""
        count, width = self.counts.shape
        block = max(1, _BLOCK // (count * width))
        for start in range(0, rounds, block):
            size = min(block, rounds - start)
            seeds = rng.integers(0, count, (size, count))[..., None]
            limits = self.sizes[seeds]
            places = rng.random((size, 1 if self.shared else count, width))
            yield seeds, (places * limits).astype(np.intp), np.arange(width) < limits
