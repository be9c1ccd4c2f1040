"""What one calibration pass found for one task: sums per sample, layer and expert, in one safetensors file.

Sums, not ranks, and per sample: tasks can be mixed, any number of experts kept, and confidence computed, all later and
without the model. The file's metadata say of which model (fingerprint) and which data (hash) it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memorist.errors import ExpertsError, nearest
from memorist.fit.experts.checkpoint import Checkpoint
from memorist.fit.experts.scores import Array, Ids, by_share
from memorist.fit.experts.select import random_scores

VERSION = 1
SCORERS = {
    "frequency": "how often an expert is chosen",
    "gate": "sum of its gate weights",
    "tcess": "PreMoe v1: raw router logits of the chosen",
    "peu": "PreMoe v3: logits of the experts that the router is sure of",
    "easyep": "EASY-EP: gate × norm of the output × how much the token is turned",
    "easyep-no-token": "EASY-EP without the token's term",
    "easyep-no-norm": "EASY-EP without the norm",
}
RANDOM = "random"
_BY_TOKENS = {"tcess", "peu"}
"""Mixed as a mean over all tokens (PreMoe v3, equation 11); logits may be negative, so shares of a sum mean nothing."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """One task on one model.

    sums: by scorer, [S, L, N], summed over a sample's tokens. tokens: of each sample, [S]. thresholds: PEU's r, [L].
    description: the task in words.
    """

    task: str
    fingerprint: str
    kind: str
    experts: int
    active: int
    moe_layers: tuple[int, ...]
    sums: Mapping[str, Array]
    tokens: Ids
    thresholds: Array
    data_hash: str = ""
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def scores(self, scorer: str, seed: int = 0) -> Array:
        """Mean over all calibration tokens, [L, N]; the random scorer draws from `seed`.

        Raises:
            ExpertsError: there is no such scorer.
        """
        if scorer == RANDOM:
            return random_scores(len(self.moe_layers), self.experts, seed)
        if scorer not in self.sums:
            raise ExpertsError(f"scorer {scorer!r} does not exist; {nearest(scorer, [*self.sums, RANDOM])}")
        return np.asarray(self.sums[scorer].sum(axis=0) / self.tokens.sum())

    def save(self, file: Path) -> None:
        """Write the file, whole or not at all."""
        from safetensors.numpy import save_file

        names = ("task", "fingerprint", "kind", "experts", "active", "data_hash", "description")
        said = {name: getattr(self, name) for name in names}
        said |= {"version": VERSION, "moe_layers": list(self.moe_layers), "parameters": dict(self.parameters)}
        arrays = {f"sums.{name}": values.astype(np.float32) for name, values in self.sums.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.unfinished")
        save_file(
            arrays | {"tokens": self.tokens, "thresholds": self.thresholds},
            unfinished,
            metadata={"memorist.experts": json.dumps(said)},
        )
        unfinished.replace(file)


def load_statistics(file: Path) -> Statistics:
    """Read what `Statistics.save` wrote.

    Raises:
        ExpertsError: the file is missing, torn, or something else.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ExpertsError("calibrations are kept by safetensors: pip install 'memorist[train]'") from error
    if not file.is_file():
        raise ExpertsError(f"{file}: no such calibration; make it: memorist experts calibrate MODEL --task {file.stem}")
    try:
        with safe_open(file, "np") as opened:
            said = json.loads((opened.metadata() or {})["memorist.experts"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no iterator of its own
        if said.pop("version") != VERSION:
            raise ExpertsError(f"{file}: written by another version of this library; calibrate again")
        layers = tuple(said.pop("moe_layers"))
        sums = {
            name.removeprefix("sums."): values.astype(np.float64)
            for name, values in arrays.items()
            if name.startswith("sums.")
        }
        return Statistics(
            **said, moe_layers=layers, sums=sums, tokens=arrays["tokens"], thresholds=arrays["thresholds"]
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ExpertsError):
            raise
        raise ExpertsError(f"{file}: no calibration that can be read ({error}); calibrate again") from error


def check_fits(statistics: Statistics, checkpoint: Checkpoint) -> None:
    """Whether a calibration is of this very model.

    Raises:
        ExpertsError: its routers are others.
    """
    if statistics.fingerprint != checkpoint.fingerprint:
        raise ExpertsError(
            f"calibration {statistics.task!r} is of another model ({statistics.kind}, {statistics.experts} experts, "
            f"fingerprint {statistics.fingerprint[:12]}) than {checkpoint.folder} ({checkpoint.kind}, "
            f"{checkpoint.experts} experts, {checkpoint.fingerprint[:12]}); calibrate this one"
        )


def mixed(tasks: Sequence[Statistics], scorer: str, weights: Sequence[float] | None = None, seed: int = 0) -> Array:
    """Scores for several tasks at once, [L, N]: the generalist of PreMoe, the mixed domain of EASY-EP.

    PEU and TCESS take the mean over the tokens of all tasks, each token weighted by its task (PreMoe v3, equation 11);
    the others the weighted mean of each task's share of a layer's sum (EASY-EP, so that long tasks do not dominate).

    Raises:
        ExpertsError: no task, tasks of different models, or weights that are no weights.
    """
    if not tasks:
        raise ExpertsError("no task: give at least one --task")
    if len({task.fingerprint for task in tasks}) > 1:
        raise ExpertsError(f"tasks {', '.join(t.task for t in tasks)} were calibrated on different models")
    given = np.ones(len(tasks)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(given) != len(tasks) or not np.isfinite(given).all() or given.min() < 0 or given.sum() <= 0:
        raise ExpertsError(f"weights {list(given)} for {len(tasks)} tasks; expected one number of 0 or more for each")
    if scorer == RANDOM or len(tasks) == 1:
        return tasks[0].scores(scorer, seed)
    if scorer in _BY_TOKENS:
        given = given * [task.tokens.sum() for task in tasks]
        parts = [task.scores(scorer) for task in tasks]
    else:
        parts = [by_share(task.scores(scorer)) for task in tasks]
    return np.asarray(np.tensordot(given / given.sum(), np.stack(parts), axes=1))
