"""The two protocols that models implement: a `Sampler` acts; a `Policy` can also score and learn.

Agents see neither: they are handed roles, `Actor`s whose `act` is awaited. Who answers behind it (a script, an
endpoint, a network that is being trained) is decided outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from memorist.decision import Action, Distribution, Observation


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to sample: what is seen, how to draw, and the seed of this decision's own random stream."""

    observation: Observation
    distribution: Distribution
    seed: int
    role: str = ""


class Actor(Protocol):
    """What an agent holds for each role."""

    async def act(self, observation: Observation) -> Action:
        """Act on what is seen."""
        ...


@dataclass(frozen=True)
class Greedy:
    """An actor of a sampler that acts at once, always by what is likeliest."""

    sampler: Sampler

    async def act(self, observation: Observation) -> Action:
        """Act on what is seen."""
        return self.sampler.sample([Request(observation, Distribution(temperature=0.0), 0)])[0]


@runtime_checkable
class Sampler(Protocol):
    """Acts on a batch. Each action depends on its own request alone, up to float rounding."""

    name: str

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """One action for each request, in order."""
        ...


@runtime_checkable
class Policy(Sampler, Protocol):
    """A sampler that can also score what it did and learn from it."""

    def parameters(self) -> list[Any]:
        """Trainable tensors."""
        ...

    def rows(self, units: Sequence[Any], budget: int) -> Sequence[Any]:
        """Decisions with their advantages and weights, as batches of at most `budget` padded tokens."""
        ...

    def score(self, rows: Any) -> Any:
        """Log-probabilities of the action tokens of packed rows, under the distributions they were drawn from."""
        ...

    def encode(self, observation: Observation, text: str) -> Action:
        """An action that writes `text` for `observation`, as the policy would have tokenised it (for imitation)."""
        ...

    def save(self, folder: Path, *, write: bool = True) -> None:
        """Write a standard checkpoint folder; of processes that share the weights all take part and one writes."""
        ...

    def state(self) -> dict[str, Any]:
        """The weights that may change."""
        ...

    def restore(self, tensors: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        ...

    def frozen(self, name: str) -> Policy:
        """A policy that stays as this one is now."""
        ...

    def twin(self, name: str) -> Policy:
        """A policy that starts as this one is now and learns on its own."""
        ...
