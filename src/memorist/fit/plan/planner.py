"""The plan: what a model and a workload need on given hardware, whether it fits, how fast it can be, what to change.

`make_plan` is a pure function of (model, workload, hardware, devices); every intermediate number is in the `Plan`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from memorist.errors import PlanError
from memorist.fit.plan.architecture import Architecture
from memorist.fit.plan.hardware import Hardware
from memorist.fit.plan.network import Topology, topologies
from memorist.fit.plan.speed import Step, decode_step, draft_gain, link_bound, prefill, routed_and_shared, update
from memorist.fit.plan.workload import Workload, activation_bytes, training_bytes

USABLE = 0.9
"""Share of a device's memory that is planned with."""
WORKSPACE = 2e9
"""Bytes per device for runtime, kernels and buffers, where they were not measured."""
LEAST_MICRO_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. For all devices together: available, weights, sequence; for one device: states, activations, planned.

    per_token: what one more token keeps. state: what a sequence keeps whatever its length. sequence: at the longest
    context. sequences: how many fit beside what is resident. methods: training states of one device by method.
    planned: live at once: the runtime, what is resident, and the larger of an update's activations and the rollouts'
    sequences.
    """

    available: float
    weights: float
    per_token: float
    state: float
    sequence: float
    sequences: int
    states: float
    activations: float
    micro_tokens: int
    planned: float
    methods: dict[str, float]


@dataclass(frozen=True, slots=True)
class Speed:
    """Steps of a rollout and an update, in seconds; rates in tokens/s over all sequences.

    prefill: by the three ways to read a history. expert_link: seconds per token that the links alone need.
    draft_gain: what one MTP module would make of decoding.
    """

    batch: int
    waves: int
    decode: Step
    decode_rate: float
    prefill: dict[str, Step]
    rollout: Step
    update: Step
    expert_link: float
    draft_gain: float


@dataclass(frozen=True, slots=True)
class Plan:
    """All that was computed. reasons: why it does not fit. advice: what to change, and what was found."""

    architecture: Architecture
    workload: Workload
    hardware: Hardware
    devices: int
    parameters: int
    active_parameters: int
    memory: Memory
    speed: Speed
    fits: bool
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    suggested_batch: int
    accumulation: int
    networks: tuple[Topology, ...]


def make_plan(
    architecture: Architecture,
    workload: Workload,
    hardware: Hardware,
    devices: int = 1,
    *,
    workspace: float | None = None,
) -> Plan:
    """Plan one workload.

    Args:
        architecture: the model.
        workload: what to run.
        hardware: one device.
        devices: how many of them work together; weights and caches are spread evenly.
        workspace: bytes per device that are neither weights nor cache nor activations; by default what was measured
            here, or 2 GB.

    Raises:
        PlanError: a count is zero or negative where it may not be.
        RecipeError: the workload names something that does not exist.
    """
    workload.check()
    if devices < 1:
        raise PlanError(f"{devices} devices; expected 1 or more")
    if workspace is None:
        workspace = hardware.calibration.base if hardware.calibration else min(WORKSPACE, hardware.memory / 10)
    memory = _memory(architecture, workload, hardware, devices, workspace)
    speed = _speed(architecture, workload, hardware, devices, memory)
    reasons = tuple(_reasons(architecture, workload, memory, devices))
    batch = min(workload.trajectories, memory.sequences)
    rows = workload.row_tokens["shared"]
    return Plan(
        architecture=architecture,
        workload=workload,
        hardware=hardware,
        devices=devices,
        parameters=architecture.parameters,
        active_parameters=architecture.active_parameters,
        memory=memory,
        speed=speed,
        fits=not reasons,
        reasons=reasons,
        advice=tuple(_advice(architecture, workload, hardware, devices, workspace, memory, speed, bool(reasons))),
        suggested_batch=batch - batch % workload.group_size if batch >= workload.group_size else batch,
        accumulation=math.ceil(rows / memory.micro_tokens / devices) if memory.micro_tokens else 0,
        networks=tuple(network for network in topologies() if network.endpoints >= devices > hardware.node),
    )


def _memory(
    architecture: Architecture, workload: Workload, hardware: Hardware, devices: int, workspace: float
) -> Memory:
    precision, usable = workload.precision, USABLE * hardware.memory
    sequence = architecture.sequence_bytes(workload.longest, precision)
    weights = architecture.weight_bytes(workload.storage)
    states = training_bytes(architecture, workload, devices)
    serves = workload.purpose == "serve"
    # Weights of rollouts are those of training; served ones are spread over the devices.
    resident = weights if serves else max(states * devices, weights)
    free = usable * devices - resident - workspace * devices
    micro = 0 if serves else _micro_tokens(architecture, workload, hardware, usable - states - workspace)
    activations = _activations(architecture, workload, hardware, micro) if micro else 0.0
    fit = max(0, math.floor(free / sequence)) if sequence else workload.trajectories
    kept = min(fit, workload.trajectories) * sequence / devices
    return Memory(
        available=usable * devices,
        weights=weights,
        per_token=architecture.cache_bytes_per_token(precision),
        state=architecture.state_bytes(precision),
        sequence=sequence,
        sequences=fit,
        states=0.0 if serves else states,
        activations=activations,
        micro_tokens=micro,
        planned=workspace + resident / devices + max(activations, kept),
        methods=_methods(architecture, workload, devices),
    )


def _activations(architecture: Architecture, workload: Workload, hardware: Hardware, tokens: int) -> float:
    factor = hardware.calibration.activation if hardware.calibration else 1.0
    return factor * activation_bytes(architecture, workload, tokens)


def _micro_tokens(architecture: Architecture, workload: Workload, hardware: Hardware, free: float) -> int:
    """What the workload asks for, or the largest power of two whose activations fit; no more than a step has."""
    tokens = math.ceil(workload.row_tokens["shared"])
    if workload.micro_tokens:
        return min(workload.micro_tokens, tokens)
    most = 1 << math.ceil(math.log2(tokens))
    least = min(LEAST_MICRO_TOKENS, most)
    while most >= least and _activations(architecture, workload, hardware, most) > free:
        most //= 2
    return most if most >= least else 0


def _methods(architecture: Architecture, workload: Workload, devices: int) -> dict[str, float]:
    """Training states of one device, by ways to train."""
    rank = workload.lora_rank or 16
    ways = {
        "full": replace(workload, lora_rank=0, shard=0),
        # The frozen base is its own reference.
        f"LoRA {rank}": replace(workload, lora_rank=rank, weights="bf16", shard=0, copies=0),
        f"LoRA {rank}, 4-bit base": replace(workload, lora_rank=rank, weights="4bit", shard=0, copies=0),
    }
    if devices > 1:
        ways |= {f"full, ZeRO-{stage}": replace(workload, lora_rank=0, shard=stage) for stage in (1, 2, 3)}
    return {name: training_bytes(architecture, way, devices) for name, way in ways.items()}


def _speed(architecture: Architecture, workload: Workload, hardware: Hardware, devices: int, memory: Memory) -> Speed:
    batch = max(1, min(workload.trajectories, memory.sequences))
    waves = math.ceil(workload.trajectories / batch)
    decode = decode_step(architecture, workload, hardware, batch, devices)
    reads = {
        way: prefill(architecture, workload, hardware, tokens * workload.trajectories, devices)
        for way, tokens in workload.prefill_tokens.items()
    }
    steps = waves * workload.turns * workload.new_tokens
    rollout = Step(
        steps * decode.bound + reads["forked"].bound, steps * decode.estimate + reads["forked"].estimate, decode.wall
    )
    tokens = workload.row_tokens["shared"]
    passes = math.ceil(tokens / memory.micro_tokens / devices) if memory.micro_tokens else 1
    extra = 1 / len(architecture.layers)  # An MTP module is one layer more.
    return Speed(
        batch=batch,
        waves=waves,
        decode=decode,
        decode_rate=batch / decode.estimate,
        prefill=reads,
        rollout=rollout,
        update=update(architecture, workload, hardware, tokens, passes, devices),
        expert_link=link_bound(architecture, hardware, batch, devices),
        draft_gain=draft_gain([workload.acceptance], extra),
    )


def _reasons(architecture: Architecture, workload: Workload, memory: Memory, devices: int) -> Iterator[str]:
    if architecture.window and workload.longest > architecture.window:
        yield f"a context of {workload.longest} tokens; the model was made for {architecture.window}"
    if memory.sequences < 1:
        yield f"not one sequence fits beside the {'weights' if workload.purpose == 'serve' else 'training states'}"
    if workload.purpose == "train":
        if memory.micro_tokens < 1:
            yield f"no activations fit beside {memory.states / 1e9:.2f} GB of training states per device"
        elif memory.planned > memory.available / devices:
            yield f"{memory.planned / 1e9:.2f} GB per device; {memory.available / devices / 1e9:.2f} GB are usable"


def _advice(
    architecture: Architecture,
    workload: Workload,
    hardware: Hardware,
    devices: int,
    workspace: float,
    memory: Memory,
    speed: Speed,
    misfit: bool,
) -> Iterator[str]:
    read = architecture.read_bytes(speed.batch, workload.storage)
    cache = speed.batch * architecture.sequence_bytes(workload.mean_context, workload.precision)
    yield f"decoding meets the {speed.decode.wall} wall"
    if cache > read:
        yield "caches are read more than weights: prefer latent attention (MLA) or a hybrid"
    elif speed.batch < 8 and not architecture.experts:
        yield "weights are read for few sequences: prefer quantised weights, or fewer active parameters"
    if speed.decode.wall == "link" or (devices > hardware.node and routed_and_shared(architecture)):
        yield "experts across slow links: give each node a replica of its own for rollouts"
    ways = workload.prefill_tokens
    times = ways["again"] / max(ways["forked"], 1)
    if times > 1.5:
        yield f"reuse prefixes and fork the group's prompt: {times:.1f} times fewer prefilled tokens"
    rows = workload.row_tokens
    if rows["plain"] > 1.5 * rows["shared"]:
        yield f"share the group's prompt in training rows: {rows['plain'] / rows['shared']:.1f} times fewer tokens"
    if misfit:
        yield _first_that_fits(architecture, workload, hardware, devices, workspace)


def _first_that_fits(
    architecture: Architecture, workload: Workload, hardware: Hardware, devices: int, workspace: float
) -> str:
    """The first of the usual remedies that makes the workload fit alone, or the fewest of them in order."""
    remedies = [one for one in _remedies(workload, devices) if replace(workload, **one[1]) != workload]
    for taken in [[one] for one in remedies] + [remedies[:n] for n in range(2, len(remedies) + 1)]:
        changed = workload
        for _, change in taken:
            changed = replace(changed, **change)
        memory = _memory(architecture, changed, hardware, devices, workspace)
        if not any(_reasons(architecture, changed, memory, devices)):
            return "it fits with " + ", ".join(name for name, _ in taken)
    return "nothing here makes it fit: take a smaller or hybrid model, a shorter context or more devices"


def _remedies(workload: Workload, devices: int) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "an FP8 cache", {"cache": "fp8"}
    if workload.purpose == "train":
        yield "checkpointing", {"checkpointing": True}
        yield "logits in chunks", {"logits": "chunks"}
        yield "LoRA", {"lora_rank": workload.lora_rank or 16, "copies": 0}
        if devices > 1:
            yield "ZeRO-3", {"shard": 3}
    yield "4-bit weights", {"weights": "4bit"}
