"""Several ranked lists made into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from memorist.memory.bank import Hit
from memorist.memory.record import MemoryRecord, instant

CONSTANT = 60
"""Of reciprocal-rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): how little the first places are worth more."""

MODES = ("fused", "vector", "lexical")


def fuse(
    lists: Mapping[str, Sequence[tuple[int, float]]],
    records: Mapping[int, MemoryRecord],
    *,
    now: float | None = None,
    half_life: timedelta | None = None,
) -> list[Hit]:
    """Hits, best first, ties by age: of one list with its own scores, of several by reciprocal-rank fusion.

    Args:
        lists: by name, (version, score), best first.
        records: the versions that may be shown, by age; others are passed over and take no place.
        now: seconds since 1970; with `half_life`, what a record was updated so long ago counts half as much.
        half_life: see `now`.
    """
    parts: dict[int, dict[str, float]] = {}
    for name, ranked in lists.items():
        shown = [(version, score) for version, score in ranked if version in records]
        for place, (version, score) in enumerate(shown, 1):
            parts.setdefault(version, {})[name] = score
            parts[version][f"{name}_rank"] = float(place)
    age = {version: place for place, version in enumerate(records)}
    hits = []
    for version in sorted(parts, key=age.__getitem__):
        found = parts[version]
        if len(lists) == 1:
            score = next(iter(found.values()))
        else:
            score = sum(1 / (CONSTANT + found[f"{name}_rank"]) for name in lists if name in found)
        if half_life is not None and now is not None:
            found["recency"] = 0.5 ** (max(0.0, now - instant(records[version].updated)) / half_life.total_seconds())
            score *= found["recency"]
        hits.append(Hit(records[version], score, found))
    return sorted(hits, key=lambda hit: -hit.score)
