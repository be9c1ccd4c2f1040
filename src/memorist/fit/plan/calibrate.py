"""Measure this machine once: its peaks, and what updates and decode steps of reference models reach.

Takes about a minute. The reference shapes are not those that plans are tested on (benchmarks/plan.py).
"""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch

from memorist.fit.plan.hardware import Calibration, Hardware, Rates
from memorist.fit.plan.measure import (
    Shape,
    TrialUpdate,
    copy_bandwidth,
    decode_seconds,
    matmul_flops,
    open_shape,
    trainer_workload,
    update_seconds,
)
from memorist.fit.plan.speed import decode_costs, update_costs
from memorist.fit.plan.workload import Workload, activation_bytes, training_bytes
from memorist.models.usage import memory_bytes, peak_memory_bytes

Sizes = tuple[int, int, int, int]
BUDGET = 4096
NEW = 12


@dataclass(frozen=True, slots=True)
class References:
    """What is measured.

    updates, memory: shapes, and prompts, group size, prompt tokens and new tokens of an update. As many tokens as
    updates have here: smaller ones stay in caches and say little about larger ones. decodes: shapes, and batch and
    prompt tokens. matrix: side of the product. copied: bytes.
    """

    updates: tuple[tuple[Shape, Sizes], ...] = (
        (Shape(2, 64), (16, 8, 120, 16)), (Shape(6, 96), (8, 8, 160, 16)), (Shape(3, 192, 4096), (8, 4, 224, 32)),
        (Shape(6, 192), (12, 4, 96, 24)), (Shape(3, 320), (8, 8, 128, 16)), (Shape(4, 352, 4096), (6, 4, 300, 24)),
        (Shape(2, 448, 8192), (4, 4, 160, 48)), (Shape(6, 384, 2048), (8, 4, 240, 24)),
    )  # fmt: skip
    memory: tuple[tuple[Shape, Sizes], ...] = (
        (Shape(3, 144), (12, 8, 208, 16)), (Shape(5, 224, 2048), (8, 8, 176, 16)), (Shape(6, 352), (8, 4, 192, 32)),
    )  # fmt: skip
    decodes: tuple[tuple[Shape, tuple[int, int]], ...] = (
        (Shape(2, 64), (4, 64)), (Shape(8, 64), (4, 64)), (Shape(4, 192), (32, 256)), (Shape(8, 320), (8, 128)),
        (Shape(2, 448, 8192), (16, 64)), (Shape(4, 448), (32, 512)), (Shape(3, 144), (64, 192)),
    )  # fmt: skip
    matrix: int = 1024
    copied: int = 2**28


QUICK = References(
    updates=((Shape(1, 32, 64), (1, 2, 16, 4)), (Shape(2, 64, 64), (2, 2, 16, 4))),
    memory=((Shape(2, 64, 64), (2, 2, 64, 8)),),
    decodes=((Shape(1, 32, 64), (2, 8)), (Shape(2, 64, 64), (4, 8))),
    matrix=64,
    copied=2**20,
)
"""For trying the procedure: what it finds is worth nothing."""


def calibrate(references: References | None = None) -> Hardware:
    """This machine's profile with what it reached on the reference models; `save_calibrated` keeps it."""
    measured = references or References()
    _trial(*QUICK.updates[0]).update()  # Everything that is loaded on first use.
    base = memory_bytes()
    # From small to large, for a process keeps its peak; what they say is brought together as factors are.
    factors = [_activation_factor(base, *one) for one in measured.memory]
    activation = math.exp(statistics.mean(map(math.log, factors)))
    update, decode = _fit_updates(measured.updates), _fit_decodes(measured.decodes)
    where = f"measured {datetime.now(UTC).date().isoformat()} by memorist plan --calibrate"
    accelerator = torch.cuda.is_available()
    name = (
        torch.cuda.get_device_name() if accelerator else f"{torch.get_num_threads()} threads, {platform.machine()} CPU"
    )
    memory = torch.cuda.get_device_properties(0).total_memory if accelerator else _ram()
    kept = Calibration(
        device=name,
        date=datetime.now(UTC).date().isoformat(),
        update=update,
        decode=decode,
        activation=activation,
        base=float(base),
        scores=not accelerator,
    )
    return Hardware(
        name=f"this machine ({name})",
        memory=float(memory),
        memory_bandwidth=copy_bandwidth(measured.copied),
        compute=matmul_flops(measured.matrix),
        sources=dict.fromkeys(("memory", "memory_bandwidth", "compute"), where),
        calibration=kept,
    )


def fit_rates(costs: Sequence[Sequence[float]], seconds: Sequence[float]) -> Rates:
    """Rates, none negative, whose sums are nearest to the measured seconds in relative terms.

    Args:
        costs: operations, bytes, layers and calls of each measurement, shape (N, 4).
        seconds: of each measurement, shape (N,).
    """
    table, target = np.asarray(costs, float), np.asarray(seconds, float)
    scale = table.max(axis=0)
    scaled = table / scale / target[:, None]
    used = np.ones(table.shape[1], bool)
    found = np.zeros(table.shape[1])
    # Non-negative least squares for four columns: leave out the most negative one until none is.
    while used.any():
        found[:] = 0
        found[used] = np.linalg.lstsq(scaled[:, used], np.ones(len(target)), rcond=None)[0]
        if found.min() >= 0:
            break
        used[int(found.argmin())] = False
    return Rates(*(float(value) for value in found / scale))


def _trial(shape: Shape, sizes: Sizes) -> TrialUpdate:
    return TrialUpdate(open_shape(shape), _workload(sizes), shape.vocab)


def _workload(sizes: Sizes) -> Workload:
    prompts, group_size, prompt, new = sizes
    return trainer_workload(prompts, group_size, prompt, new, BUDGET)


def _activation_factor(base: int, shape: Shape, sizes: Sizes) -> float:
    """Measured bytes of activations over those of the formula."""
    trial, workload = _trial(shape, sizes), _workload(sizes)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    for _ in range(4):  # From the second on, the optimizer's moments are there; then the allocator settles.
        trial.update()
    architecture = shape.architecture()
    states = training_bytes(architecture, workload)
    tokens = max(batch.tokens.size for batch in trial.batches)
    return max(0.1, (peak_memory_bytes() - base - states) / activation_bytes(architecture, workload, tokens))


def _fit_updates(settings: Sequence[tuple[Shape, Sizes]]) -> Rates:
    costs, seconds = [], []
    for shape, sizes in settings:
        trial, workload = _trial(shape, sizes), _workload(sizes)
        passes = len(trial.batches)
        costs.append(update_costs(shape.architecture(), workload, workload.row_tokens["shared"], passes))
        seconds.append(update_seconds(trial))
    return fit_rates(costs, seconds)


def _fit_decodes(settings: Sequence[tuple[Shape, tuple[int, int]]]) -> Rates:
    costs, seconds = [], []
    for shape, (batch, prompt) in settings:
        workload = trainer_workload(1, batch, prompt, NEW, BUDGET)
        costs.append(decode_costs(shape.architecture(), workload, batch))
        seconds.append(decode_seconds(open_shape(shape), shape.vocab, batch, prompt, NEW))
    return fit_rates(costs, seconds)


def _ram() -> int:
    """Bytes of main memory; where the system does not say, 8 GB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 10**9
