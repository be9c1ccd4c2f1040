"""Networks between devices: what limits expert parallelism, and what topologies hold and cost.

Source: "Insights into DeepSeek-V3" (arXiv 2505.09343), sections 2.3.2 and 5.1, Table 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from memorist.errors import PlanError

MICRO_BATCHES = 2
"""Two micro-batches take turns on the network, so that a layer lasts two exchanges."""


@dataclass(frozen=True, slots=True)
class ExpertParallel:
    """The bound of decoding with one expert per device, computation hidden. Times in seconds."""

    exchange: float
    token: float

    @property
    def tokens_per_second(self) -> float:
        """Of one sequence."""
        return 1 / self.token


def expert_parallel(
    *, layers: int, hidden: int, experts: int, bandwidth: float, tokens: int = 32, latency: float = 0.0, hops: int = 2
) -> ExpertParallel:
    """How fast experts on other devices can be reached, and so the time per output token at best.

    Every token sends its hidden state to each of its experts in FP8 and gets it back in BF16.

    Args:
        layers: layers of the model; all are counted, as in the paper.
        hidden: width of the exchanged states.
        experts: routed and shared experts of one token.
        bandwidth: of one device, bytes/s, one direction.
        tokens: per device in a micro-batch.
        latency: seconds of one hop; the paper's ideal bound has none.
        hops: network phases of a micro-batch, dispatch and combine.
    """
    exchange = (1 + 2) * tokens * experts * hidden / bandwidth
    return ExpertParallel(exchange, layers * MICRO_BATCHES * (exchange + hops * latency))


@dataclass(frozen=True, slots=True)
class Topology:
    """How many devices a network joins, of what. `cost`: dollars per endpoint, by the paper; not derivable."""

    name: str
    endpoints: int
    switches: int
    links: int
    cost: float


def topologies(ports: int = 64) -> tuple[Topology, ...]:
    """Table 3 for switches with `ports` ports; the costs are those of 64-port 400G switches.

    The paper's Dragonfly has 511 groups where 513 would be the most, and its Slim Fly's q of 28 is no prime power:
    both are arithmetic, kept as printed.

    Raises:
        PlanError: ports are not a positive multiple of 4.
    """
    if ports < 4 or ports % 4:
        raise PlanError(f"a switch with {ports} ports; expected a positive multiple of 4")
    flat = Topology("two-layer fat tree", ports**2 // 2, 3 * ports // 2, ports**2 // 2, 4394.53)
    planes = 8
    multi = Topology(
        "multi-plane fat tree", planes * flat.endpoints, planes * flat.switches, planes * flat.links, 4394.53
    )
    deep = Topology("three-layer fat tree", ports**3 // 4, 5 * ports**2 // 4, ports**3 // 2, 7492.07)
    return flat, multi, deep, slim_fly(q=28, endpoints=21), dragonfly(p=16, a=32, h=16, groups=511)


def slim_fly(*, q: int, endpoints: int) -> Topology:
    """2q² switches of degree 3q/2 with so many endpoints each."""
    switches = 2 * q * q
    return Topology("Slim Fly", switches * endpoints, switches, q * q * (3 * q // 2), 4433.92)


def dragonfly(*, p: int, a: int, h: int, groups: int) -> Topology:
    """`groups` of a fully joined switches, each with p endpoints and h links to other groups."""
    links = groups * a * (a - 1) // 2 + groups * a * h // 2
    return Topology("Dragonfly", a * p * groups, a * groups, links, 5817.33)
