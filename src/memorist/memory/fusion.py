"""What words and what meaning say of the same records, made into one order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from memorist.memory.bank import Hit
from memorist.memory.record import MemoryRecord, instant

WEIGHTS = {"lexical": 0.2, "vector": 0.8}
LEAST = {"lexical": 0.0, "vector": -1.0}
"""A convex combination of scores, each from the least that it can be to the most that was found: TM2C2 with the weight
that its authors recommend (Bruch, Gai and Ingber, arXiv 2210.11934). Ranks (reciprocal-rank fusion) do not say how far
apart scores are; on conversations their fusion found less than words alone."""

MODES = ("fused", "vector", "lexical")


def fuse(
    scores: Mapping[str, Mapping[int, float]],
    records: Mapping[int, MemoryRecord],
    *,
    now: float | None = None,
    half_life: timedelta | None = None,
) -> list[Hit]:
    """Hits, best first, ties by age: with their scores of the one kind that is given, or with both kinds combined.

    Args:
        scores: by kind ("lexical", "vector"), of each version; every kind has all.
        records: the versions that may be shown, by age; others are passed over.
        now: seconds since 1970; with `half_life`, what a record was updated so long ago counts half as much.
        half_life: see `now`.
    """
    most = {name: max((found[v] for v in found if v in records), default=0.0) for name, found in scores.items()}
    hits = []
    for version, record in records.items():
        parts = {name: found[version] for name, found in scores.items()}
        if len(parts) == 1:
            ((_, score),) = parts.items()
        else:
            score = round(sum(WEIGHTS[name] * _share(name, part, most[name]) for name, part in parts.items()), 9)
        if half_life is not None and now is not None:
            parts["recency"] = 0.5 ** (max(0.0, now - instant(record.updated)) / half_life.total_seconds())
            score *= parts["recency"]
        hits.append(Hit(record, score, parts))
    return sorted(hits, key=lambda hit: -hit.score)


def _share(name: str, score: float, most: float) -> float:
    """Where a score lies between the least possible and the most found."""
    least = LEAST[name]
    return (score - least) / (most - least) if most > least else 0.0
