"""Rows: what a policy computes on in training. Tokens that decisions have in common are computed once.

A row is a tree of token sequences (a prompt and what was written after it), laid out depth first; a token sees what
lies on the path to it, and positions are depths. So G siblings of T tokens after a prompt of P cost P + G·T instead of
G·(P + T), and a decision whose prompt extends an earlier one is on the same path: many turns in one window and many
windows are the same thing. Loss and gradient are those of a row for each decision; loss denominators count tokens
before this merging.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from memorist.decision import Action, Author, Distribution, Media, Observation

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Sequenced = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """One action with what the loss needs of the tokens that the policy wrote: their advantage (one for all, or one
    each), the weight of each, what a critic held their states to be worth and what they turned out to be; the
    log-probabilities under which they were drawn, for importance ratios, stand in the action. `seen` is what was
    acted on: choices are scored against its options."""

    action: Action
    advantage: float | tuple[float, ...]
    weight: float
    values: tuple[float, ...] = ()
    returns: tuple[float, ...] = ()
    seen: Observation | None = None


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows padded to one length L.

    tokens, positions, until: shape (B, L); a token is seen from itself to before column `until`. length: shape (B,),
    without padding. target_row, target_from: for each of N action tokens, the row and column whose output predicts it;
    targets: its id; unit: index of its unit in `units`; place: its index in that unit's action; old: log-probability
    when drawn; advantage, weight, values, returns: its unit's (zeros where it has none). media: what tokens stand for
    something other than text, each with its row and the column where it begins; axes: with media, positions in time,
    down and across, shape (3, B, L).
    """

    tokens: Ints
    positions: Ints
    until: Ints
    length: Ints
    target_row: Ints
    target_from: Ints
    targets: Ints
    unit: Ints
    place: Ints
    old: Floats
    advantage: Floats
    weight: Floats
    values: Floats
    returns: Floats
    units: tuple[Unit, ...]
    media: tuple[tuple[int, int, Media], ...] = ()
    axes: Ints | None = None

    @property
    def real(self) -> npt.NDArray[np.bool_]:
        """Which columns are no padding, shape (B, L)."""
        return np.arange(self.tokens.shape[1])[None] < self.length[:, None]

    @property
    def plain(self) -> bool:
        """Whether no row branches, so that ordinary causal attention is right."""
        return bool((self.until == self.length[:, None])[self.real].all())

    def attention(self, window: int | None = None) -> npt.NDArray[np.bool_]:
        """Who may see whom, shape (B, L, L); with `window`, only among the last so many positions of its path."""
        column = np.arange(self.tokens.shape[1])
        allowed = (column[None, None, :] <= column[None, :, None]) & (column[None, :, None] < self.until[:, None, :])
        if window is not None:
            allowed &= self.positions[:, :, None] - self.positions[:, None, :] < window
        # Padding sees itself (its `until` says so), so that no row of the softmax is empty.
        return np.asarray(allowed)

    def by_distribution(self) -> Iterator[tuple[Distribution, Ints]]:
        """Each distribution, without what limits it, with the indices of the action tokens drawn from it."""
        distributions = [replace(unit.action.distribution, legal=None, grammar="") for unit in self.units]
        for distribution in dict.fromkeys(distributions):
            units = np.array([d == distribution for d in distributions])
            yield distribution, np.flatnonzero(units[self.unit])


@dataclass(slots=True)
class _Tree:
    """Sequences in lexicographic order, each with its units, that become one row; `size` tokens in all."""

    sequences: list[tuple[Sequenced, list[Unit]]]
    size: int


def pack(units: Sequence[Unit], *, budget: int, share: bool = True, pairs: float = math.inf) -> list[RowBatch]:
    """Merge what units have in common and fill batches; the order is a function of the units.

    Units without tokens or weight carry no loss and are left out.

    Args:
        units: of one update.
        budget: padded tokens of a batch at most; a sequence that is longer is a batch of its own.
        share: whether anything may be merged.
        pairs: how many pairs of tokens in attention cost as much as one token in all else. A dense mask pays for pairs
            that do not see each other, so sequences are merged only where the tokens saved are worth more.
    """
    carrying = [unit for unit in units if unit.action.tokens and unit.weight]
    trees = _merged(carrying, budget, pairs) if share else _apart(carrying)
    trees.sort(key=lambda tree: tree.size)
    batches: list[list[_Tree]] = []
    for tree in trees:
        if batches and (len(batches[-1]) + 1) * tree.size <= budget:
            batches[-1].append(tree)
        else:
            batches.append([tree])
    return [_batch(batch) for batch in batches]


def axes_of(length: int, media: Sequence[Media]) -> Ints:
    """Positions of tokens in time, down and across, shape (3, length), as the Qwen2-VL family counts them: what stands
    for a picture lies in its grid, and the text behind it goes on after the grid's longer side."""
    found = np.zeros((3, length), np.int64)
    column = at = 0
    for one in sorted(media, key=lambda one: one.start):
        found[:, column : one.start] = np.arange(at, at + one.start - column)
        at += one.start - column
        place = np.arange(one.end - one.start)
        found[:, one.start : one.end] = at
        found[1, one.start : one.end] += place // one.grid[1]
        found[2, one.start : one.end] += place % one.grid[1]
        at += max(one.grid)
        column = one.end
    found[:, column:] = np.arange(at, at + length - column)
    return found


def _apart(units: Sequence[Unit]) -> list[_Tree]:
    return [_Tree([(key := merge_key(u.action), [u])], len(key)) for u in units]


def merge_key(action: Action) -> Sequenced:
    """One number per token of the prompt and what was written after it; where two actions have the same ones from the
    beginning on, they may be computed together. A text token's is its id; placeholders of pictures have equal ids
    whatever they show, so theirs are made from the picture's digest and their place in it."""
    if not action.media:
        return (*action.prompt, *action.tokens)
    key = [*action.prompt, *action.tokens]
    for media in action.media:
        for place in range(media.start, media.end):
            seen = f"{key[place]} {place - media.start} {media.digest} {media.grid}"
            key[place] = -int.from_bytes(hashlib.sha256(seen.encode()).digest()[:12])
    return tuple(key)


def _merged(units: Sequence[Unit], budget: int, pairs: float) -> list[_Tree]:
    by_sequence: dict[Sequenced, list[Unit]] = {}
    for unit in units:
        by_sequence.setdefault(merge_key(unit.action), []).append(unit)
    trees: list[_Tree] = []
    # In lexicographic order a sequence has most in common with its neighbours.
    for sequence in sorted(by_sequence):
        if trees:
            tree = trees[-1]
            shared = common(tree.sequences[-1][0], sequence)
            size = tree.size + len(sequence) - shared
            more_pairs = size**2 - tree.size**2 - len(sequence) ** 2
            if shared and size <= budget and more_pairs <= shared * pairs:
                tree.sequences.append((sequence, by_sequence[sequence]))
                tree.size = size
                continue
        trees.append(_Tree([(sequence, by_sequence[sequence])], len(sequence)))
    return trees


def common(first: Sequenced, second: Sequenced) -> int:
    """Length of the common beginning."""
    least = min(len(first), len(second))
    if first[:least] == second[:least]:
        return least
    return next(at for at in range(least) if first[at] != second[at])


def _batch(trees: Sequence[_Tree]) -> RowBatch:
    length = max(tree.size for tree in trees)
    tokens = np.zeros((len(trees), length), np.int64)
    positions = np.zeros((len(trees), length), np.int64)
    until = np.tile(np.arange(1, length + 1), (len(trees), 1))
    names = ("row", "start", "target", "unit", "place", "old", "advantage", "weight", "values", "returns")
    parts: dict[str, list[Any]] = {name: [] for name in names}
    placed: list[Unit] = []
    media: list[tuple[int, int, Media]] = []
    axes = np.zeros((3, len(trees), length), np.int64) if any(_pictured(tree) for tree in trees) else None
    for row, tree in enumerate(trees):
        path: list[int] = []  # columns of the present sequence, by depth
        before: Sequenced = ()
        end = 0
        for sequence, units in tree.sequences:
            shared = common(before, sequence)
            until[row, path[shared:]] = end
            del path[shared:]
            fresh = len(sequence) - shared
            written = (*units[0].action.prompt, *units[0].action.tokens)
            tokens[row, end : end + fresh] = written[shared:]
            positions[row, end : end + fresh] = np.arange(shared, len(sequence))
            if axes is not None:
                seen = units[0].action.media
                axes[:, row, end : end + fresh] = axes_of(len(sequence), seen)[:, shared:]
                media += [(row, end + one.start - shared, one) for one in seen if one.start >= shared]
            path.extend(range(end, end + fresh))
            end += fresh
            before = sequence
            for unit in units:
                action = unit.action
                carries = written_by_policy(action)
                first = len(action.prompt)
                starts = np.array(path[first - 1 : first - 1 + len(action.tokens)])
                count = int(carries.sum())
                parts["row"].append(np.full(count, row))
                parts["start"].append(starts[carries])
                parts["target"].append(np.array(action.tokens)[carries])
                parts["unit"].append(np.full(count, len(placed)))
                parts["place"].append(np.flatnonzero(carries))
                parts["old"].append(np.array(action.logprobs, np.float32)[carries])
                for name in ("advantage", "weight", "values", "returns"):
                    parts[name].append(np.broadcast_to(np.array(getattr(unit, name) or 0.0, np.float32), count))
                placed.append(unit)
        until[row, path] = end
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return RowBatch(
        tokens, positions, until, np.array([tree.size for tree in trees]), joined["row"], joined["start"],
        joined["target"], joined["unit"], joined["place"], joined["old"], joined["advantage"], joined["weight"],
        joined["values"], joined["returns"], tuple(placed), tuple(media), axes,
    )  # fmt: skip


def _pictured(tree: _Tree) -> bool:
    return any(unit.action.media for _, units in tree.sequences for unit in units)


def written_by_policy(action: Action) -> npt.NDArray[np.bool_]:
    """Which tokens of an action the policy wrote; all, where no spans are given."""
    if not action.spans:
        return np.ones(len(action.tokens), bool)
    mask = np.zeros(len(action.tokens), bool)
    for span in action.spans:
        mask[span.start : span.end] = span.author is Author.POLICY
    return mask
