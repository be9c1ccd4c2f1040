"""Rows: what a policy computes on in training. Decisions with the same prompt share one row.

A row is a prompt followed by the actions of its siblings, each a branch that sees the prompt and itself; positions
restart at every branch. So a prompt of P tokens with G actions of T costs P + G·T instead of G·(P + T), with the
same loss and the same gradient. Loss denominators count tokens before this merging.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from memorist.decision import Action, Author, Distribution

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Unit:
    """One action with what the loss needs: its advantage, the weight of each of its tokens, and, for importance
    ratios, the log-probabilities under which it was drawn (these stand in the action)."""

    action: Action
    advantage: float
    weight: float


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows padded to one length L.

    tokens, positions, segment: shape (B, L); segment 0 is the prompt, 1… its branches, -1 padding. target_row,
    target_from: for each of N action tokens, the row and column whose output predicts it; targets: its id;
    unit: index of its action in the batch; old: log-probability when drawn; policy: whether the policy wrote it.
    """

    tokens: Ints
    positions: Ints
    segment: Ints
    target_row: Ints
    target_from: Ints
    targets: Ints
    unit: Ints
    old: Floats
    advantage: Floats
    weight: Floats
    distributions: tuple[Distribution, ...]

    @property
    def plain(self) -> bool:
        """Whether no row has more than one branch, so that ordinary causal attention is right."""
        return bool(self.segment.max(initial=0) <= 1)

    def attention(self) -> npt.NDArray[np.bool_]:
        """Who may see whom: shape (B, L, L)."""
        length = self.tokens.shape[1]
        seen, by = self.segment[:, None, :], self.segment[:, :, None]
        allowed = (seen == 0) | (seen == by)
        allowed &= np.tril(np.ones((length, length), bool))[None]
        # Padding sees itself, so that no row of the softmax is empty.
        return (allowed & (seen >= 0)) | np.eye(length, dtype=bool)[None]

    def by_distribution(self) -> Iterator[tuple[Distribution, Ints]]:
        """Each distribution with the indices of the action tokens drawn from it."""
        for distribution in dict.fromkeys(self.distributions):
            units = np.array([d == distribution for d in self.distributions])
            yield distribution, np.flatnonzero(units[self.unit])


def pack(units: Sequence[Unit], *, budget: int, share: bool = True) -> list[RowBatch]:
    """Merge siblings and fill batches of at most `budget` padded tokens; the order is a function of the units.

    Units without tokens or weight carry no loss and are left out.
    """
    rows: dict[Any, list[Unit]] = {}
    for index, unit in enumerate(units):
        if unit.action.tokens and unit.weight:
            rows.setdefault(unit.action.prompt if share else index, []).append(unit)
    lengths = {key: len(us[0].action.prompt) + sum(len(u.action.tokens) for u in us) for key, us in rows.items()}
    batches: list[list[list[Unit]]] = []
    for key in sorted(rows, key=lambda k: lengths[k]):
        if batches and (len(batches[-1]) + 1) * lengths[key] <= budget:
            batches[-1].append(rows[key])
        else:
            batches.append([rows[key]])
    return [_batch(batch) for batch in batches]


def _batch(rows: Sequence[Sequence[Unit]]) -> RowBatch:
    length = max(len(us[0].action.prompt) + sum(len(u.action.tokens) for u in us) for us in rows)
    tokens = np.zeros((len(rows), length), np.int64)
    positions = np.zeros((len(rows), length), np.int64)
    segment = np.full((len(rows), length), -1, np.int64)
    parts: dict[str, list[Any]] = {n: [] for n in ("row", "start", "target", "unit", "old", "advantage", "weight")}
    distributions: list[Distribution] = []
    for r, units in enumerate(rows):
        prompt = units[0].action.prompt
        end = len(prompt)
        tokens[r, :end], positions[r, :end], segment[r, :end] = prompt, np.arange(end), 0
        for branch, unit in enumerate(units, start=1):
            action = unit.action
            count = len(action.tokens)
            tokens[r, end : end + count] = action.tokens
            positions[r, end : end + count] = np.arange(len(prompt), len(prompt) + count)
            segment[r, end : end + count] = branch
            carries = _policy_mask(action)
            starts = np.concatenate([[len(prompt) - 1], np.arange(end, end + count - 1)])
            parts["row"].append(np.full(int(carries.sum()), r))
            parts["start"].append(starts[carries])
            parts["target"].append(np.array(action.tokens)[carries])
            parts["unit"].append(np.full(int(carries.sum()), len(distributions)))
            parts["old"].append(np.array(action.logprobs, np.float32)[carries])
            parts["advantage"].append(np.full(int(carries.sum()), unit.advantage, np.float32))
            parts["weight"].append(np.full(int(carries.sum()), unit.weight, np.float32))
            distributions.append(action.distribution)
            end += count
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return RowBatch(
        tokens, positions, segment, joined["row"], joined["start"], joined["target"], joined["unit"],
        joined["old"], joined["advantage"], joined["weight"], tuple(distributions),
    )  # fmt: skip


def _policy_mask(action: Action) -> npt.NDArray[np.bool_]:
    """Which tokens of an action the policy wrote; all, where no spans are given."""
    if not action.spans:
        return np.ones(len(action.tokens), bool)
    mask = np.zeros(len(action.tokens), bool)
    for span in action.spans:
        mask[span.start : span.end] = span.author is Author.POLICY
    return mask
