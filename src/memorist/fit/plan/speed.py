"""How long steps take at least, and which wall they meet: compute, memory or link.

A bound divides by the device's peaks and takes the slowest part. An estimate adds the parts at the rates that this
machine reached, or, without a calibration, assumes a share of the compute peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memorist.fit.plan.architecture import Architecture
from memorist.fit.plan.hardware import ASSUMED_SHARE, Hardware
from memorist.fit.plan.network import expert_parallel
from memorist.fit.plan.workload import OPTIMIZERS, SHARED_FROM, Workload, activation_bytes

SCORE_BYTES = 24
"""Bytes moved for each score that is written out: six passes over it in 32 bits."""


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of a step: no less than `bound`, about `estimate`. wall: what bounds it."""

    bound: float
    estimate: float
    wall: str


def decode_costs(architecture: Architecture, workload: Workload, batch: float) -> tuple[float, float, float, float]:
    """Operations, bytes, layers and calls of one decode step for `batch` sequences at the workload's mean context.

    Weights and caches are read once, recurrent states read and written.
    """
    precision, context = workload.precision, workload.mean_context
    kept = architecture.sequence_bytes(context, precision) + architecture.state_bytes(precision)
    moved = architecture.read_bytes(batch, workload.storage) + batch * kept
    full = all(layer.mixer.attends_to_all for layer in architecture.layers)
    if workload.scores and full and workload.turns == 1 and workload.prompt_tokens >= SHARED_FROM:
        shared = architecture.sequence_bytes(workload.prompt_tokens, precision)
        moved -= (batch - batch / workload.group_size) * shared
        scores = sum(layer.mixer.heads for layer in architecture.layers) * workload.prompt_tokens
        moved += batch * scores * SCORE_BYTES
    return batch * architecture.decode_flops(context), moved, len(architecture.layers), 1


def decode_step(
    architecture: Architecture, workload: Workload, hardware: Hardware, batch: float, devices: int = 1
) -> Step:
    """One token for each of `batch` sequences; experts on other devices are reached over the links."""
    costs = decode_costs(architecture, workload, batch)
    parts = {
        "memory": costs[1] / (hardware.memory_bandwidth * devices),
        "compute": costs[0] / (hardware.compute * devices),
        "link": link_bound(architecture, hardware, batch, devices),
    }
    wall = max(parts, key=lambda name: parts[name])
    if hardware.calibration is not None:
        estimate = hardware.calibration.decode.seconds(*costs)
    else:
        estimate = max(parts["memory"], parts["compute"] / ASSUMED_SHARE, parts["link"])
    return Step(parts[wall], estimate, wall)


def link_bound(architecture: Architecture, hardware: Hardware, batch: float, devices: int) -> float:
    """Seconds per token that expert parallelism needs for its exchanges; 0 where all experts are on one device."""
    bandwidth = hardware.scale_up if devices <= hardware.node else hardware.scale_out
    experts = routed_and_shared(architecture)
    if devices == 1 or not experts or bandwidth is None:
        return 0.0
    sparse = sum(1 for layer in architecture.layers if layer.feed_forward.count)
    micro = batch / devices / 2  # Two micro-batches share a device's tokens.
    found = expert_parallel(layers=sparse, hidden=architecture.hidden, experts=experts, bandwidth=bandwidth, tokens=1)
    return found.token * micro


def routed_and_shared(architecture: Architecture) -> int:
    """Experts that a token is sent to in a layer that has them, shared ones counted by their width."""
    parts = [layer.feed_forward for layer in architecture.layers if layer.feed_forward.count]
    return max((part.active + part.width // part.expert_width for part in parts), default=0)


def prefill(
    architecture: Architecture, workload: Workload, hardware: Hardware, tokens: float, devices: int = 1
) -> Step:
    """Reading `tokens` tokens in contexts as long as the workload's; calibrated as a third of an update's passes."""
    flops = architecture.forward_flops(workload.longest) * tokens
    step = _compute(flops, hardware, devices)
    if hardware.calibration is None:
        return step
    moved = activation_bytes(architecture, workload, tokens) / 3
    estimate = hardware.calibration.update.seconds(flops, moved, len(architecture.layers) / 3, 1 / 3)
    return Step(step.bound, estimate, step.wall)


def update_costs(
    architecture: Architecture, workload: Workload, tokens: float, passes: int
) -> tuple[float, float, float, float]:
    """Operations, bytes, layers and calls of an update: what a calibration fits, and an estimate sums."""
    context = workload.compared if workload.scores else workload.longest
    flops = tokens * _update_flops(architecture, workload, context, causal=not workload.scores)
    states = OPTIMIZERS[workload.optimizer]
    moved = activation_bytes(architecture, workload, tokens)
    moved += architecture.parameters * (states.weight + states.gradient + states.optimizer)
    return flops, moved, passes * len(architecture.layers), passes


def update(
    architecture: Architecture, workload: Workload, hardware: Hardware, tokens: float, passes: int, devices: int = 1
) -> Step:
    """Forward, backward and optimizer step over `tokens` tokens in `passes` micro-batches."""
    step = _compute(tokens * _update_flops(architecture, workload, workload.longest, causal=True), hardware, devices)
    if hardware.calibration is None:
        return step
    estimate = hardware.calibration.update.seconds(*update_costs(architecture, workload, tokens, passes))
    return Step(step.bound, estimate, step.wall)


def _update_flops(architecture: Architecture, workload: Workload, context: float, *, causal: bool) -> float:
    """Operations per token: three forward passes, or four where activations are computed again.

    The head runs for the tokens that logits are made for, so its share of a full pass is less.
    """
    skipped = 2 * architecture.embedding * (1 - workload.logit_share)
    forward = architecture.forward_flops(context, causal=causal) - skipped
    return (4 if workload.checkpointing else 3) * forward


def _compute(flops: float, hardware: Hardware, devices: int) -> Step:
    bound = flops / (hardware.compute * devices)
    return Step(bound, bound / ASSUMED_SHARE, "compute")


def draft_gain(acceptances: Sequence[float], cost: float = 0.0) -> float:
    """How much faster drafts make decoding: (1 + Σ Π p) / (1 + cost).

    A draft counts only if all before it were accepted. cost: what a step costs more, as a share
    (arXiv 2505.09343, section 2.3.3).
    """
    tokens, chain = 1.0, 1.0
    for acceptance in acceptances:
        chain *= acceptance
        tokens += chain
    return tokens / (1 + cost)


def local_decode_rate(active: float, weight_bytes: float, bandwidth: float, cache: float = 0.0) -> float:
    """Tokens/s of one user at best: bandwidth over the bytes of active weights and cache (section 2.2.2)."""
    return bandwidth / (active * weight_bytes + cache)
