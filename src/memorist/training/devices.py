"""Several processes of one run: each plays a part of the groups and computes a part of the rows, all hold the same
weights. Started by `accelerate launch` (or torchrun); with one process nothing here does anything.

Sums, not means: a step's weights add up to 1 over all processes, so what one process computes is what several do.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from memorist.decision import Picture
from memorist.log import trajectory_from
from memorist.models.adapters import AdapterPolicy
from memorist.models.causal import CausalPolicy
from memorist.models.rows import RowBatch
from memorist.models.tensors import best_device
from memorist.plain import without_defaults
from memorist.training.rollout import Group, Run

T = TypeVar("T")


class _Root(torch.nn.Module):
    """What FSDP sees called: a pass of any kind over the model in it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], Any]) -> Any:
        return compute()


def _divided(model: torch.nn.Module) -> _Root:
    root = _Root(model)
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module)
    fully_shard(root)
    for module in _sharded(root):
        module.set_gradient_divide_factor(1.0)  # sums, not means
        module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    return root


def _sharded(root: torch.nn.Module) -> list[Any]:
    return [module for module in root.modules() if isinstance(module, FSDPModule)]


class Devices:
    """This process among `count`, number `rank`."""

    def __init__(self) -> None:
        self.rank, self.count = 0, 1
        self.device = best_device()
        if dist.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            if not dist.is_initialized():
                dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._roots: dict[int, _Root] = {}  # by model
        # As `accelerate launch --use_fsdp` says it.
        self.sharded = self.count > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def mine(self, things: Sequence[T]) -> list[T]:
        """This process's part: every `count`-th."""
        return list(things[self.rank :: self.count])

    def gather(self, groups: Sequence[Group], policies: Iterable[CausalPolicy] = ()) -> list[Group]:
        """The groups of all processes, in the order of the tasks that `mine` divided; as text, nothing is pickled.

        Args:
            policies: of which those that see are shown what the runs of other processes saw.
        """
        if self.count == 1:
            return list(groups)
        if seeing := [policy for policy in policies if getattr(policy, "sees", False)]:
            pictures = self._all_pictures(groups)
            for policy in seeing:
                policy.see(pictures)
        told = [[(without_defaults(run.trajectory), run.without) for run in group] for group in groups]
        parts = [json.loads(part) for part in self._exchange(json.dumps(told))]
        read = [[[Run(None, trajectory_from(t), without=tuple(w)) for t, w in g] for g in part] for part in parts]
        return [read[i % self.count][i // self.count] for i in range(sum(map(len, read)))]

    def _all_pictures(self, groups: Sequence[Group]) -> list[Picture]:
        decisions = (decision for group in groups for run in group for decision in run.trajectory.decisions)
        seen = {one.digest: one for decision in decisions for one in decision.observation.shown}
        mine = json.dumps([(one.size, one.digest, b64encode(one.pixels).decode()) for one in seen.values()])
        return [
            Picture((wide, high), digest, b64decode(pixels))
            for part in self._exchange(mine)
            for (wide, high), digest, pixels in json.loads(part)
        ]

    def add(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Sums over all processes; all must give the same names."""
        if self.count == 1:
            return dict(numbers)
        total = torch.tensor([float(v) for v in numbers.values()], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(numbers, total.tolist(), strict=True))

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum each gradient over all processes; FSDP has done so with those that are sharded."""
        if self.count == 1:
            return
        for parameter in parameters:
            if not isinstance(parameter, DTensor):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def shard(self, *policies: CausalPolicy) -> None:
        """Divide weights, gradients and optimizer state over all processes (FSDP2), where that was asked for; layers
        are brought together one at a time while they compute."""
        if not self.sharded:
            return
        for policy in policies:  # Adapters can be added to whole layers only.
            if isinstance(policy, AdapterPolicy) and policy.adapter and id(policy.model) not in self._roots:
                policy.frozen(policy.name), policy.twin(policy.name)
        for policy in policies:
            if id(policy.model) not in self._roots:
                self._roots[id(policy.model)] = _divided(policy.model)
            policy.around = self._roots[id(policy.model)]
            _ = policy.why_plain  # FSDP wants its first pass through the root
        # That leaves the root's own weights whole, and an optimizer that is made of them then would move what is
        # thrown away: embeddings and head did not learn.
        for module in (module for root in self._roots.values() for module in _sharded(root)):
            module.reshard()

    @contextmanager
    def together(self, *samplers: object) -> Iterator[None]:
        """Hold whole weights of sharded policies, so that each process may sample as much as its runs ask for."""
        arounds = [getattr(sampler, "around", None) for sampler in samplers]
        roots = [around for around in arounds if isinstance(around, _Root)]
        modules = [module for root in roots for module in _sharded(root)]
        for module in modules:
            module.unshard()
            module.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for module in modules:
                module.set_reshard_after_forward(True, recurse=False)
                module.reshard()

    def rows(self, batches: Sequence[RowBatch]) -> list[RowBatch]:
        """This process's part of a step's rows. Where weights are sharded all compute in step: who has fewer rows
        computes one more that weighs nothing."""
        mine, most = self.mine(batches), -(-len(batches) // self.count)
        if self.sharded and len(mine) < most:
            mine.append(replace(batches[0], weight=np.zeros_like(batches[0].weight)))
        return mine

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def _exchange(self, text: str) -> list[str]:
        if self.count == 1:
            return [text]
        mine = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).to(self.device)
        sizes = [torch.zeros(1, dtype=torch.long, device=self.device) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor([len(mine)], device=self.device))
        most = int(max(size.item() for size in sizes))
        padded = torch.zeros(most, dtype=torch.uint8, device=self.device)
        padded[: len(mine)] = mine
        found = [torch.zeros_like(padded) for _ in range(self.count)]
        dist.all_gather(found, padded)
        return [f[: int(s)].cpu().numpy().tobytes().decode() for f, s in zip(found, sizes, strict=True)]
