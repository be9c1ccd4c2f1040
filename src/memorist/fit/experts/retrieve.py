"""Recognising the task of a prompt (TAER, PreMoe v1), and PreMoe's compact store of rankings.

A prompt is compared with each task by its PEU in the first layers with experts: each layer's vector at unit length,
cosine. (The original takes squared distances of unnormalised means, which long and short prompts of one task differ
in.) Where two tasks are too near to tell, the fall-back is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from memorist.errors import ExpertsError
from memorist.fit.experts.scores import Array, Ids
from memorist.fit.experts.select import ranked

MARGIN = 0.01


@dataclass(frozen=True, slots=True)
class Match:
    """The task to load. similarity: of the nearest, −1 to 1; margin: how much nearer it is than the second."""

    task: str
    similarity: float
    margin: float
    fell_back: bool = False


def similarity(query: Array, pattern: Array) -> float:
    """Mean over layers of the cosine between two score vectors, [J, N] each; a zero vector is like nothing."""
    lengths = np.linalg.norm(query, axis=1) * np.linalg.norm(pattern, axis=1)
    dots = (query * pattern).sum(axis=1)
    return float(np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0).mean())


def recognise(
    query: Array, patterns: Mapping[str, Array], *, fall_back: str | None = None, margin: float = MARGIN
) -> Match:
    """The task whose pattern is nearest.

    Args:
        query: PEU of a prompt in the first J layers with experts, [J, N] (`calibrate.signature`).
        patterns: by task, PEU of [J or more, N]; with one task, its margin is its similarity.
        fall_back: a task to use where the margin is smaller; None: the nearest whatever the margin.
        margin: least difference of cosines to the second.

    Raises:
        ExpertsError: no patterns, or of other sizes than the query.
    """
    if not patterns:
        raise ExpertsError("no patterns to compare with: calibrate at least one task")
    found = {}
    for task, pattern in patterns.items():
        if len(pattern) < len(query) or pattern.shape[1] != query.shape[1]:
            raise ExpertsError(f"pattern {task!r} is {pattern.shape}, the prompt's {query.shape}: of another model")
        found[task] = similarity(query, pattern[: len(query)])
    best, *others = sorted(found, key=lambda task: -found[task])
    ahead = found[best] - (found[others[0]] if others else 0.0)
    if fall_back is not None and ahead < margin:
        return Match(fall_back, found[best], ahead, fell_back=True)
    return Match(best, found[best], ahead)


def permutations(scores: Array) -> Ids:
    """PreMoe's store of a task, [L − 1, N]: which expert of a later layer has the rank of each of the first.

    With the first layer's scores it says the ranking of every layer: the kept experts of layer l are those that the
    kept ones of the first are mapped to.
    """
    order = ranked(scores)
    found = np.empty((len(scores) - 1, scores.shape[1]), dtype=np.int64)
    found[:, order[0]] = order[1:]
    return found
