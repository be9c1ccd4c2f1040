"""Choices of experts as files: EASY-EP's bare masks, and ours, which say what they are of.

A bare mask is a JSON array of rows, one for each layer with experts, of as many 0 or 1 as there are experts. Which
decoder layers and which model it is of is not in it; ours adds that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memorist.errors import ExpertsError
from memorist.fit.experts.checkpoint import Checkpoint
from memorist.fit.experts.scores import Ids

VERSION = 1


def bare_mask(keep: Ids, experts: int) -> list[list[float]]:
    """Rows of 1.0 where an expert is kept and 0.0 elsewhere, [L][N]."""
    mask = np.zeros((len(keep), experts))
    np.put_along_axis(mask, keep, 1.0, axis=1)
    return [[float(value) for value in row] for row in mask]


def wrapped_mask(keep: Ids, checkpoint: Checkpoint, note: Mapping[str, Any]) -> dict[str, Any]:
    """The choice with the model that it is of."""
    return {
        "format_version": VERSION,
        "model": checkpoint.kind,
        "fingerprint": checkpoint.fingerprint,
        "n_experts": checkpoint.experts,
        "moe_layers": list(checkpoint.moe_layers),
        "keep": keep.tolist(),
        **note,
    }


def read_mask(file: Path, checkpoint: Checkpoint) -> Ids:
    """Read either form for this model: kept experts, [L, M], ascending.

    Raises:
        ExpertsError: no JSON, not rectangular, values that are neither 0 nor 1, rows that keep unequal numbers, other
            sizes than the model's, or a fingerprint of another one.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExpertsError(f"{file}: no JSON that can be read ({error})") from error
    if isinstance(data, dict):
        return _wrapped(file, data, checkpoint)
    rows = data if isinstance(data, list) else []
    if not rows or not all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows):
        raise ExpertsError(f"{file}: expected an array of rows of equal length, one for each layer with experts")
    if any(not isinstance(value, int | float) or value not in (0, 1) for row in rows for value in row):
        raise ExpertsError(f"{file}: expected only 0 and 1")
    mask = np.array(rows, dtype=np.float64)
    wanted = (len(checkpoint.moe_layers), checkpoint.experts)
    if mask.shape != wanted:
        raise ExpertsError(f"{file}: {mask.shape[0]} layers of {mask.shape[1]} experts; the model has {wanted}")
    kept = mask.sum(axis=1).astype(int)
    if kept.min() != kept.max():
        raise ExpertsError(f"{file}: rows keep {kept.min()} to {kept.max()} experts; every layer must keep as many")
    return np.nonzero(mask)[1].reshape(len(mask), -1)


def _wrapped(file: Path, data: Mapping[str, Any], checkpoint: Checkpoint) -> Ids:
    if data.get("format_version") != VERSION:
        raise ExpertsError(f"{file}: format_version is {data.get('format_version')!r}; expected {VERSION}")
    if data.get("fingerprint") != checkpoint.fingerprint:
        raise ExpertsError(f"{file}: a choice for another model than {checkpoint.folder}; calibrate this one")
    keep, layers = data.get("keep"), data.get("moe_layers")
    if layers != list(checkpoint.moe_layers):
        raise ExpertsError(f"{file}: moe_layers are {layers}; the model has experts in {list(checkpoint.moe_layers)}")
    try:
        return np.sort(np.array(keep, dtype=np.int64), axis=1)
    except (ValueError, TypeError, OverflowError) as error:
        raise ExpertsError(f"{file}: keep is no list of as many experts for each layer ({error})") from error
