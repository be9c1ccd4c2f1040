"""Checkpoints that survive being killed: written beside the old one, synced, then renamed into place.

Tensors go to safetensors and numbers to JSON; nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from memorist.errors import CheckpointError
from memorist.models.tensors import placed_like, whole


def save(folder: Path, state: dict[str, Any], tensors: dict[str, dict[str, torch.Tensor]]) -> None:
    """Replace the checkpoint at `folder`; if this fails or is killed, the previous one stays intact."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, values in tensors.items():
        save_file({k: v.contiguous().clone() for k, v in values.items()}, new / f"{name}.safetensors")
    (new / "state.json").write_text(json.dumps(state), encoding="utf-8")
    for file in new.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    if folder.exists():  # else `.old` is the newest whole one until the next line but one
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, fingerprint: str) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]] | None:
    """The newest whole checkpoint at `folder`, or None if there is none yet.

    Raises:
        CheckpointError: it belongs to another recipe, or cannot be read.
    """
    # Between the two renames of `save` the newest whole checkpoint carries the name `.old`.
    for place in (folder, folder.with_name(folder.name + ".old")):
        if (place / "state.json").exists():
            try:
                state = json.loads((place / "state.json").read_text(encoding="utf-8"))
                tensors = {file.stem: load_file(file) for file in sorted(place.glob("*.safetensors"))}
            except Exception as error:
                raise CheckpointError(
                    f"checkpoint {place} cannot be read: {error}; delete it to start again"
                ) from error
            if state["recipe"] != fingerprint:
                raise CheckpointError(
                    f"checkpoint {place} was made by another recipe ({state['recipe']}, not {fingerprint}); "
                    "resume with the recipe.yaml in the run's folder, or train into another folder"
                )
            return state, tensors
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's tensors by name."""
    states = optimizer.state_dict()["state"]
    return {f"{i}.{name}": whole(torch.as_tensor(v)) for i, values in states.items() for name, v in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `optimizer_tensors` took."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        own = placed_like(value, parameters[int(index)]) if value.dim() else value
        state.setdefault(int(index), {})[name] = own
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
