"""How many experts fit into a memory budget, from the planner's arithmetic: nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memorist.errors import ExpertsError
from memorist.fit.plan.architecture import STORAGES, Architecture
from memorist.fit.plan.config import open_model
from memorist.fit.plan.whatif import pruned

BUDGETS = (12e9, 24e9, 48e9, 80e9, 160e9, 320e9, 640e9)
"""Bytes, as accelerators and small groups of them have."""
SHOWN = {
    "DeepSeek-R1": "deepseek-v3",
    "Qwen3-235B-A22B": "qwen3-235b-a22b",
    "Mixtral-8x7B": "mixtral-8x7b",
    "gpt-oss-20b": "gpt-oss-20b",
}
"""By the planner's shipped name. DeepSeek-R1 has DeepSeek-V3's architecture."""
SEQUENCES, TOKENS = 8, 2048


@dataclass(frozen=True, slots=True)
class Fit:
    """One model under several budgets.

    full: bytes of all weights. cache: bytes of the sequences. kept: most experts per layer for each budget; None where
    not even those fit that one token goes through.
    """

    name: str
    storage: str
    experts: int
    active: int
    full: float
    cache: float
    kept: tuple[int | None, ...]


def counts(architecture: Architecture) -> tuple[int, int]:
    """(N, k) of a layer with experts.

    Raises:
        ExpertsError: the model has no experts, or layers with different numbers.
    """
    found = {(layer.feed_forward.count, layer.feed_forward.active) for layer in architecture.layers} - {(0, 0)}
    found = {pair for pair in found if pair[0]}
    if len(found) != 1:
        raise ExpertsError(f"{architecture.name}: {len(found)} kinds of layers with experts; expected one")
    return found.pop()


def bytes_with(architecture: Architecture, keep: int, storage: str | None = None) -> float:
    """Bytes of all weights with so many experts per layer, as stored or in one of the planner's storages."""
    experts, _ = counts(architecture)
    return pruned(architecture, keep / experts).weight_bytes(None if storage is None else STORAGES[storage])


def most_experts(
    architecture: Architecture, budget: float, *, sequences: int = SEQUENCES, tokens: int = TOKENS
) -> int | None:
    """The most experts per layer whose weights fit beside the caches of some sequences, or None.

    Args:
        architecture: the model, its weights as stored.
        budget: bytes.
        sequences: held at once.
        tokens: of each.
    """
    experts, active = counts(architecture)
    least = bytes_with(architecture, active)
    if least == (full := bytes_with(architecture, experts)):
        return experts
    each = (full - least) / (experts - active)
    free = budget - sequences * architecture.sequence_bytes(tokens) - least
    return None if free < 0 else min(experts, active + math.floor(free / each))


def table(names: Sequence[str] | None = None, budgets: Sequence[float] = BUDGETS) -> list[Fit]:
    """The shipped mixtures of experts, or the named models, under several budgets in bytes."""
    found = []
    for label, name in (SHOWN if names is None else {name: name for name in names}).items():
        architecture = open_model(name).architecture
        experts, active = counts(architecture)
        cache = SEQUENCES * architecture.sequence_bytes(TOKENS)
        kept = tuple(most_experts(architecture, budget) for budget in budgets)
        full = architecture.weight_bytes()
        found.append(Fit(label, architecture.storage.name, experts, active, full, cache, kept))
    return found
