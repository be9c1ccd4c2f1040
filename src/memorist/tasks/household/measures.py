"""How good searches are: success, path length, cost, and cost where giving up is not free (definitions of the
specification, section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memorist.tasks.household.world import Household

COSTS = 0.5
"""What costs count as rewards, of what a failure costs, beside 1 for what is found: the specification's λ."""
UNREADABLE = 0.05
"""What an act that cannot be costs."""


@dataclass(frozen=True)
class Measures:
    """success: share. spl: success weighted by path length. cost: mean of all; cost_of_successes: of those alone.
    with_failures: a failure at its price. swc: success weighted by cost, of the least that a knowing one spends.
    asks, reads: means."""

    success: float
    spl: float
    cost: float
    cost_of_successes: float
    with_failures: float
    swc: float
    asks: float
    reads: float


def spl(run: Household) -> float:
    """Success times the shortest way over the one that was gone; 1 where both are 0."""
    shortest = run.search.shortest
    return run.success * (shortest / max(run.distance, shortest) if max(run.distance, shortest) else 1.0)


def swc(run: Household) -> float:
    """Success times the least cost over what was spent; 1 where both are 0."""
    least = run.search.prices.metre * run.search.shortest
    return run.success * (least / max(run.cost.total, least) if max(run.cost.total, least) else 1.0)


def with_failures(run: Household) -> float:
    """What was spent, and what a failure costs."""
    return run.cost.total + (0.0 if run.success else run.search.prices.failure)


def measured(runs: Sequence[Household]) -> Measures:
    """All of them."""
    count = len(runs)
    won = [run.cost.total for run in runs if run.success]
    return Measures(
        success=sum(run.success for run in runs) / count,
        spl=sum(map(spl, runs)) / count,
        cost=sum(run.cost.total for run in runs) / count,
        cost_of_successes=sum(won) / len(won) if won else 0.0,
        with_failures=sum(map(with_failures, runs)) / count,
        swc=sum(map(swc, runs)) / count,
        asks=sum(run.asked for run in runs) / count,
        reads=sum(run.read for run in runs) / count,
    )
