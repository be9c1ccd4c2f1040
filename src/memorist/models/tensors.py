"""Where tensors are: on an accelerator, sharded over processes, whole."""

from __future__ import annotations

import os

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def best_device() -> torch.device:
    """Where models compute: this process's accelerator, if there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor that may be sharded over processes, brought together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def placed_like(value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A whole tensor, sharded as another one is."""
    if isinstance(other, DTensor):
        return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)
    return value.to(other.device)
