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

from memorist.models.attention import attending
from memorist.models.decoding import SHARED_FROM, SIBLINGS, Growing, Recorded, Siblings, may_record
from memorist.models.distributions import draw
from memorist.models.ends import Ends
from memorist.models.grammars import FollowedRows, Grammars
from memorist.models.sampler import Request

Written = tuple[list[int], list[float]]
"""Tokens of an answer and their log-probabilities."""


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


def write(
    model: Any, prompts: Sequence[tuple[int, ...]], parent: Sequence[int], asked: Asked, pad: int, together: int,
    shares: Callable[[], bool],
) -> list[Written]:  # fmt: skip
    """Read the prompts and write the answers.

    Args:
        parent: for each answer, which prompt it goes on from; answers to one prompt are neighbours.
        together: answers to one prompt that are written at once; 0 for all.
        shares: whether answers can read a prompt's keys and values without a copy of their own.
    """
    device = model.device
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    out = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    found: list[Written | None] = [None] * len(parent)
    chunks = parts(parent, together)
    for chunk in chunks:
        rows = torch.tensor([parent[i] for i in chunk], device=device)
        own = cache if len(chunks) == 1 else _again(cache)
        mine = asked.some(chunk)
        decode = _way(model, device, longest, len(set(rows.tolist())), mine, together, shares)
        step = decode(model, own, rows, mask[rows], positions[rows, -1], max(mine.limits))
        with attending(model, SIBLINGS) if decode is Siblings else nullcontext():
            written = _written(step, out.logits[rows, -1].float(), mine)
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
