"""Answers to prompts, written token by token: each prompt is read once, and how many answers to it are written at once
trades memory for time (arXiv 2508.13382 calls the two ends reuse of the cache, and sequential generation)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from memorist.decision import Media
from memorist.models.attention import attending
from memorist.models.decoding import SHARED_FROM, SIBLINGS, Growing, Recorded, Siblings, may_record
from memorist.models.distributions import draw
from memorist.models.ends import Ends
from memorist.models.grammars import FollowedRows, Grammars
from memorist.models.rows import axes_of
from memorist.models.sampler import Request

Written = tuple[list[int], list[float]]
"""Tokens of an answer and their log-probabilities."""
Stood = tuple[int, int, Media]
"""The row and the column where a picture's tokens begin, and whose they are."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids, and which of them stand for pictures."""

    ids: tuple[int, ...]
    media: tuple[Media, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Read:
    """What prompts are read by. pad: the token that fills up. inputs: what the model is called with for tokens, their
    positions and what stands among them (`CausalPolicy.inputs`)."""

    model: Any
    prompts: Sequence[Prompt]
    pad: int
    inputs: Callable[[torch.Tensor, torch.Tensor, Sequence[Stood]], dict[str, Any]]

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The prompts, filled up on the left, and which columns are theirs; shape (P, longest) each."""
        longest = max(map(len, self.prompts))
        ids = torch.full((len(self.prompts), longest), self.pad)
        mask = torch.zeros((len(self.prompts), longest), dtype=torch.long)
        for row, prompt in enumerate(self.prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt.ids)
            mask[row, longest - len(prompt) :] = 1
        return ids.to(self.model.device), mask.to(self.model.device)

    def given(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[dict[str, Any], torch.Tensor]:
        """What the model is called with, and the position of each prompt's last token."""
        positions, stood = (mask.cumsum(1) - 1).clamp(min=0), list[Stood]()
        if any(prompt.media for prompt in self.prompts):
            positions = positions.expand(3, -1, -1).clone()
            for row, prompt in enumerate(self.prompts):
                begin = ids.shape[1] - len(prompt)
                positions[:, row, begin:] = torch.from_numpy(axes_of(len(prompt), prompt.media))
                stood += [(row, begin + one.start, one) for one in prompt.media]
        last = positions[..., -1] if positions.dim() == 2 else positions[0, :, -1]
        return self.inputs(ids, positions, stood), last


@dataclass(frozen=True)
class Asked:
    """What is written. limits: tokens that each answer may have. end: the token that ends one. ends: finds the texts
    that do."""

    requests: Sequence[Request]
    limits: Sequence[int]
    end: int
    grammars: Callable[[], Grammars]
    ends: Ends

    def some(self, places: Sequence[int]) -> Asked:
        """Of some answers."""
        requests, limits = [self.requests[i] for i in places], [self.limits[i] for i in places]
        return Asked(requests, limits, self.end, self.grammars, self.ends)

    def over(self, place: int, written: Sequence[int]) -> bool:
        """Whether an answer has ended, or is at its limit."""
        if written[-1] == self.end or len(written) >= self.limits[place]:
            return True
        return self.ends.reached(written, self.requests[place].observation.ends)


@dataclass
class Prefilled:
    """Prompts that were read. mask: which columns are theirs, shape (P, longest). last: positions of their last tokens,
    shape (P,). logits: after each, shape (P, V)."""

    cache: DynamicCache
    mask: torch.Tensor
    last: torch.Tensor
    logits: torch.Tensor


def _prefilled(read: Read) -> Prefilled:
    ids, mask = read.padded()
    given, last = read.given(ids, mask)
    cache = DynamicCache(config=read.model.config)
    out = read.model(attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1, **given)
    return Prefilled(cache, mask, last, out.logits[:, -1].float())


def _joined(parts: list[Prefilled]) -> list[Prefilled]:
    """The parts as one, filled up on the left, where keys and values are all that is kept of a prompt; else as they
    are. They are used up."""
    if len(parts) == 1 or not all(type(layer) is DynamicLayer for part in parts for layer in part.cache.layers):
        return parts
    longest = max(part.mask.shape[1] for part in parts)

    def filled(every: list[torch.Tensor], dim: int) -> torch.Tensor:
        shape = list(every[0].shape)
        shape[0], shape[dim] = sum(one.shape[0] for one in every), longest
        wide, at = every[0].new_zeros(shape), 0
        for one in every:
            wide[at : at + len(one)].narrow(dim, longest - one.shape[dim], one.shape[dim]).copy_(one)
            at += len(one)
        return wide

    cache = parts[0].cache
    for place, layer in enumerate(cache.layers):
        others = [part.cache.layers[place] for part in parts]
        keys, values = [one.keys for one in others], [one.values for one in others]
        for one in others:  # of long prompts there is not room for all twice
            one.keys = one.values = None
        layer.keys, layer.values = filled(keys, 2), filled(values, 2)
    mask = filled([part.mask for part in parts], 1)
    last, logits = torch.cat([part.last for part in parts]), torch.cat([part.logits for part in parts])
    return [Prefilled(cache, mask, last, logits)]


def write(
    reads: Sequence[Read], parent: Sequence[int], asked: Asked, together: int, shares: Callable[[], bool]
) -> list[Written]:  # fmt: skip
    """Read the prompts, some at a time, and write the answers to all of them side by side.

    Args:
        parent: for each answer, which prompt of all it goes on from; answers to one prompt are neighbours, and prompts
            in order.
        together: answers to one prompt that are written at once; 0 for all.
        shares: whether answers can read a prompt's keys and values without a copy of their own.
    """
    found: list[Written] = []
    first = 0
    for part in _joined([_prefilled(read) for read in reads]):
        mine = [i for i, prompt in enumerate(parent) if first <= prompt < first + len(part.mask)]
        own = [parent[i] - first for i in mine]
        found += _answers(reads[0].model, part, own, asked.some(mine), together, shares)
        first += len(part.mask)
    return found


def _answers(
    model: Any, part: Prefilled, parent: Sequence[int], asked: Asked, together: int, shares: Callable[[], bool]
) -> list[Written]:  # fmt: skip
    """Answers to prompts that were read."""
    device, mask = model.device, part.mask
    found: list[Written | None] = [None] * len(parent)
    chunks = parts(parent, together)
    for chunk in chunks:
        rows = torch.tensor([parent[i] for i in chunk], device=device)
        own = part.cache if len(chunks) == 1 else _again(part.cache)
        mine = asked.some(chunk)
        decode = _way(model, device, mask.shape[1], len(set(rows.tolist())), mine, together, shares)
        step = decode(model, own, rows, mask[rows], part.last[rows], max(mine.limits))
        with attending(model, SIBLINGS) if decode is Siblings else nullcontext():
            written = _written(step, part.logits[rows], mine)
        for i, one in zip(chunk, written, strict=True):
            found[i] = one
    return [one for one in found if one is not None]


def parts(parent: Sequence[int], together: int) -> list[list[int]]:
    """Places of the answers in parts, of which each has up to `together` answers to a prompt; 0 for all."""
    if not together:
        return [list(range(len(parent)))]
    found: list[list[int]] = []
    counts: dict[int, int] = {}
    for i, prompt in enumerate(parent):
        part, counts[prompt] = counts.get(prompt, 0) // together, counts.get(prompt, 0) + 1
        if part == len(found):
            found.append([])
        found[part].append(i)
    return found


def _again(cache: DynamicCache) -> DynamicCache:
    """The same keys and values, not copied, for ways of writing that use up what they are given."""
    found = DynamicCache()
    for layer in cache.layers:
        if type(layer) is DynamicLayer:
            new = DynamicLayer()
            new.dtype, new.device, new.is_initialized = layer.dtype, layer.device, True
            new.keys, new.values = layer.keys, layer.values
            found.layers.append(new)
        else:
            found.layers.append(copy.deepcopy(layer))
    return found


def _way(
    model: Any, device: torch.device, longest: int, prompts: int, asked: Asked, together: int,
    shares: Callable[[], bool],
) -> type[Growing | Recorded | Siblings]:  # fmt: skip
    if not together and may_record(model, device, max(asked.limits)):
        return Recorded
    several = 2 * prompts <= len(asked.requests) or together
    return Siblings if longest >= SHARED_FROM and several and shares() else Growing


def _written(step: Growing | Recorded | Siblings, logits: torch.Tensor, asked: Asked) -> list[Written]:
    """Token by token until each answer has ended or is at its limit."""
    requests, room = asked.requests, max(asked.limits)
    draws = np.stack([np.random.Generator(np.random.Philox(key=r.seed)).random(room) for r in requests])
    written: list[list[int]] = [[] for _ in requests]
    scored: list[list[float]] = [[] for _ in requests]
    live = list(range(len(requests)))
    texts = FollowedRows([r.observation.grammar for r in requests], asked.grammars)
    for place in range(room):
        logits = texts.limited(logits, live)
        token, logprob = draw(logits, [requests[i].distribution for i in live], draws[live, place], place)
        keep = []
        for row, (i, wrote, score) in enumerate(zip(live, token.tolist(), logprob.tolist(), strict=True)):
            written[i].append(wrote)
            scored[i].append(score)
            texts.wrote(i, wrote)
            if not asked.over(i, written[i]):
                keep.append(row)
        if not keep:
            break
        if len(keep) < len(live):
            index = torch.tensor(keep, device=logits.device)
            step.keep(index)
            token = token[index]
            live = [live[row] for row in keep]
        logits = step(token)
    return list(zip(written, scored, strict=True))
