"""Policies whose actions are ordered choices among options, for the trainer.

A choice is learnt from as written tokens are: each draw is one action unit with its own log-probability, advantage and
weight. What was chosen among stands in the observation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memorist.decision import Action, Distribution, Observation
from memorist.errors import PolicyError
from memorist.models.reranker import LinearReranker
from memorist.models.rows import Floats, Ints, Unit, written_by_policy
from memorist.models.sampler import Request


@dataclass(frozen=True, slots=True)
class ChoiceBatch:
    """Choices of an update. For each of N draws: unit: index in `units`; old: log-probability when drawn; advantage,
    weight, values, returns: its unit's. length: draws of each unit."""

    units: tuple[Unit, ...]
    length: Ints
    unit: Ints
    old: Floats
    advantage: Floats
    weight: Floats
    values: Floats
    returns: Floats


def batch_choices(units: Sequence[Unit], budget: int) -> list[ChoiceBatch]:
    """Batches of at most `budget` draws; units without any, or without weight, are left out.

    Raises:
        PolicyError: a unit says not what was seen.
    """
    batches: list[list[Unit]] = []
    count = budget
    for unit in units:
        if unit.action.tokens and unit.weight:
            if unit.seen is None:
                raise PolicyError("a choice without its observation; expected units made from decisions")
            if not batches or count + len(unit.action.tokens) > budget:
                batches.append([])
                count = 0
            batches[-1].append(unit)
            count += len(unit.action.tokens)
    return [_batch(batch) for batch in batches]


def _batch(units: Sequence[Unit]) -> ChoiceBatch:
    lengths = np.array([len(unit.action.tokens) for unit in units])

    def spread(name: str) -> Floats:
        return np.concatenate(
            [
                np.broadcast_to(np.array(getattr(u, name) or 0.0, np.float32), n)
                for u, n in zip(units, lengths, strict=True)
            ]
        )

    return ChoiceBatch(
        tuple(units), lengths, np.repeat(np.arange(len(units)), lengths),
        np.concatenate([np.array(unit.action.logprobs, np.float32) for unit in units]),
        spread("advantage"), spread("weight"), spread("values"), spread("returns"),
    )  # fmt: skip


class RerankerPolicy:
    """A linear reranker that the trainer can teach: its parameters are the reranker's own arrays."""

    why_plain = ""
    cannot = ("ppo", "entropy")
    """What stages may not ask of it: a critic, and the entropy of an ordered choice."""

    def __init__(self, reranker: LinearReranker, name: str) -> None:
        self.reranker, self.name = reranker, name
        self.precision, self.checkpointing = "float32", False
        self._weights = {
            "query": torch.nn.Parameter(torch.from_numpy(reranker.query)),
            "memory": torch.nn.Parameter(torch.from_numpy(reranker.memory)),
        }

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Choose."""
        return self.reranker.sample(requests)

    def parameters(self) -> list[Any]:
        """W_q and W_m, where they may change."""
        return [weight for weight in self._weights.values() if weight.requires_grad]

    def rows(self, units: Sequence[Unit], budget: int) -> list[ChoiceBatch]:
        """Batches of at most `budget` draws."""
        return batch_choices(units, budget)

    def score(self, batch: ChoiceBatch) -> torch.Tensor:
        """The log-probability of each draw given those before it, shape (N,)."""
        return torch.cat(list(self._laws(batch)))

    def score_with_entropy(self, batch: ChoiceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Not computed.

        Raises:
            PolicyError: always.
        """
        raise PolicyError("the entropy of a reranker is not computed; set the stage's entropy to 0")

    def _laws(self, batch: ChoiceBatch) -> Iterator[torch.Tensor]:
        for unit in batch.units:
            assert unit.seen is not None
            q, m = (torch.from_numpy(v) for v in self._vectors(unit.seen))
            distribution = unit.action.distribution
            s = (m + m @ self._weights["memory"].T) @ (q + self._weights["query"] @ q)
            z = s / (self.reranker.tau * (distribution.temperature or 1.0))
            order = list(unit.action.tokens)
            taken = torch.zeros(len(order), len(z), dtype=torch.bool)
            for later in range(1, len(order)):
                taken[later:, order[later - 1]] = True
            left = z.expand(len(order), -1).masked_fill(taken, -torch.inf)
            law = z[order] - left.logsumexp(1)
            yield law[torch.from_numpy(written_by_policy(unit.action))].float()

    def _vectors(self, seen: Observation) -> tuple[Any, Any]:
        found = self.reranker.vectors([seen.prompt, *seen.options])
        return found[0], found[1:]

    def encode(self, observation: Observation, text: str) -> Action:
        """The choice that a text of numbers names.

        Raises:
            PolicyError: it names what is no option, or one twice.
        """
        words = text.split()
        order = tuple(int(word) for word in words if word.isascii() and word.isdigit())
        if (
            len(order) != len(words)
            or len(set(order)) != len(order)
            or any(i >= len(observation.options) for i in order)
        ):
            raise PolicyError(
                f"{text!r} is no choice among {len(observation.options)} options; expected numbers of theirs, each once"
            )
        return Action(text, tokens=order, logprobs=(0.0,) * len(order), choice=order, distribution=Distribution())

    def state(self) -> dict[str, torch.Tensor]:
        """The weights."""
        return {name: weight.detach() for name, weight in self._weights.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        with torch.no_grad():
            for name, value in tensors.items():
                self._weights[name].copy_(value)

    def save(self, folder: Path, *, write: bool = True) -> None:
        """Write reranker.npz."""
        if write:
            self.reranker.save(folder)

    def frozen(self, name: str) -> RerankerPolicy:
        """One that stays as this one is now."""
        found = self.twin(name)
        for weight in found._weights.values():
            weight.requires_grad_(False)
        return found

    def twin(self, name: str) -> RerankerPolicy:
        """One that starts as this one is now and learns on its own."""
        own = self.reranker
        copy = LinearReranker(own.embedder, tau=own.tau, name=name)
        copy.query, copy.memory = own.query.copy(), own.memory.copy()
        return RerankerPolicy(copy, name)
