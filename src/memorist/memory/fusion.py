"""What words and what meaning say of the same records, made into one order."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import timedelta

from memorist.memory.bank import Hit
from memorist.memory.embed import Embedder
from memorist.memory.record import MemoryRecord, instant

WEIGHTS = {"lexical": 0.2, "vector": 0.8}
LEAST = {"lexical": 0.0, "vector": -1.0}
"""A convex combination of scores, each from the least that it can be to the most that was found: TM2C2 with the weight
that its authors recommend (Bruch, Gai and Ingber, arXiv 2210.11934). Ranks (reciprocal-rank fusion) do not say how far
apart scores are; on conversations their fusion found less than words alone."""

FOREIGN = {"lexical": 0.8, "vector": 0.2}
"""For a query in a script that the embedder was not trained on: there its vectors say little, and words nearly all."""

LOOKED_AT = 1000
"""Characters of a query that say which script it is in."""

MODES = ("fused", "vector", "lexical")


def fuse(
    scores: Mapping[str, Mapping[int, float]],
    records: Mapping[int, MemoryRecord],
    *,
    weights: Mapping[str, float] = WEIGHTS,
    now: float | None = None,
    half_life: timedelta | None = None,
) -> list[Hit]:
    """Hits, best first, ties by age: with their scores of the one kind that is given, or with both kinds combined.

    Args:
        scores: by kind ("lexical", "vector"), of each version; every kind has all.
        records: the versions that may be shown, by age; others are passed over.
        weights: of each kind.
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
            score = round(sum(weights[name] * _share(name, part, most[name]) for name, part in parts.items()), 9)
        if half_life is not None and now is not None:
            parts["recency"] = 0.5 ** (max(0.0, now - instant(record.updated)) / half_life.total_seconds())
            score *= parts["recency"]
        hits.append(Hit(record, score, parts))
    return sorted(hits, key=lambda hit: -hit.score)


def _share(name: str, score: float, most: float) -> float:
    """Where a score lies between the least possible and the most found."""
    least = LEAST[name]
    return (score - least) / (most - least) if most > least else 0.0


def weights_for(query: str, embedder: Embedder) -> Mapping[str, float]:
    """What words and meaning count for a query: an embedder may say that it knows Latin letters only (`latin_only`)."""
    letters = [letter for letter in query[:LOOKED_AT] if letter.isalpha()]
    latin = sum("LATIN" in unicodedata.name(letter, "") for letter in letters)
    return FOREIGN if getattr(embedder, "latin_only", False) and 2 * latin < len(letters) else WEIGHTS
