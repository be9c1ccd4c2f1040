"""Several roles of one agent on one model: an expert set each, all of them at once, or one for all.

specialist: each role's own experts, changed between roles (`LazyModel.switch`). union: all roles' experts in memory,
each role routed only to its own (`LazyModel.only`). generalist: one choice by mixed scores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memorist.errors import ExpertsError, nearest
from memorist.fit.experts.scores import Ids
from memorist.fit.experts.select import Routing, choose, ranked
from memorist.fit.experts.statistics import Statistics, mixed

MODES = ("specialist", "union", "generalist")
MOST_MOVING = 0.1
"""Share of the time that changing experts may take before one choice for all roles is better."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How roles share a model.

    choices: the experts that each role is routed to, [L, M]. resident: those in memory, [L, R]; for specialists those
    of the first role. moved: experts read per change of role, all layers together, at most.
    """

    mode: str
    choices: dict[str, Ids]
    resident: Ids
    moved: int


def arrange(roles: Sequence[Statistics], keep: int, scorer: str, routing: Routing, mode: str) -> Arrangement:
    """Choose the experts of each role.

    Args:
        roles: a calibration for each; its task is the role's name.
        keep: M of each role.
        scorer: of all.
        routing: of the model.
        mode: one of `MODES`.

    Raises:
        ExpertsError: no such mode, roles of different models, or an impossible number.
    """
    if mode not in MODES:
        raise ExpertsError(f"mode {mode!r} does not exist; {nearest(mode, MODES)}")
    together = mixed(roles, scorer)
    if mode == "generalist":
        one = choose(together, keep, routing)
        return Arrangement(mode, {role.task: one for role in roles}, one, 0)
    choices = {role.task: choose(role.scores(scorer), keep, routing) for role in roles}
    if mode == "union":
        return Arrangement(mode, choices, united(list(choices.values()), ranked(together)), 0)
    pairs = [(a, b) for a in choices.values() for b in choices.values()]
    moved = max(sum(len(np.setdiff1d(y, x)) for x, y in zip(a, b, strict=True)) for a, b in pairs)
    return Arrangement(mode, choices, next(iter(choices.values())), moved)


def united(choices: Sequence[Ids], ranking: Ids) -> Ids:
    """All experts of all choices, [L, R]: R is that of the widest layer, others are filled up in order of `ranking`."""
    sets = [set().union(*(map(int, choice[layer]) for choice in choices)) for layer in range(len(ranking))]
    width = max(map(len, sets))
    for chosen, order in zip(sets, ranking, strict=True):
        spare = (int(expert) for expert in order if expert not in chosen)
        chosen.update([expert for expert, _ in zip(spare, range(width - len(chosen)), strict=False)])
    return np.array([sorted(chosen) for chosen in sets], dtype=np.int64)


def advise(sizes: Mapping[str, float], passed: Collection[str], budget: float | None, moving: float) -> tuple[str, str]:
    """Which mode to use, and why: the union if it fits, own experts if changing them is cheap, else one choice for all.

    Args:
        sizes: bytes of the weights in memory, by mode.
        passed: the modes that pass the gate, or all where nothing was measured.
        budget: bytes that the weights may take; None: what any mode takes.
        moving: share of the time that changing between specialists takes.
    """
    fits = [mode for mode in MODES if mode in passed and (budget is None or sizes[mode] <= budget)]
    if not fits:
        least = min(sizes.values())
        if budget is not None and least > budget:
            return "none", f"the smallest takes {least / 1e9:.3f} GB of {budget / 1e9:.3f} GB; keep fewer experts"
        return "none", "none that fits passes the gate; keep more experts"
    if "union" in fits:
        return "union", "all roles' experts fit: nothing is read when roles change"
    if "specialist" in fits and (moving <= MOST_MOVING or "generalist" not in fits):
        return "specialist", f"the union does not do; changing roles takes {moving:.1%} of the time"
    return "generalist", f"the union does not do, and changing roles would take {moving:.1%} of the time"
