"""The steps behind `memorist experts roles`: how an agent's roles share one model, measured on the agent's own log."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorist.errors import ExpertsError, nearest
from memorist.fit.experts.checkpoint import open_checkpoint
from memorist.fit.experts.command import read_tasks
from memorist.fit.experts.memory import bytes_with
from memorist.fit.experts.roles import MODES, Arrangement, advise, arrange
from memorist.fit.experts.select import Routing, check_keep, overlap
from memorist.fit.experts.statistics import Statistics
from memorist.fit.plan.config import open_model

if TYPE_CHECKING:
    from memorist.fit.experts.quality import Gate


def roles(
    model: Path,
    log: Path | None,
    *,
    store: Path,
    names: Sequence[str],
    keep: int,
    scorer: str,
    readers: Mapping[str, Callable[[str], bool]],
    gate: Gate,
    limit: int,
    budget: float | None,
    changes: float,
    rate: float,
    console: Any,
) -> dict[str, Any]:
    """How roles share a model with fewer experts: for each mode what is in memory, what moves, and, with a log that
    was held out from calibration, how far replies move and whether they keep their form; and which mode to use.

    Args:
        model: the whole checkpoint.
        log: trajectories, or None for the arithmetic alone.
        store: folder of calibrations.
        names: the roles; each is calibrated under its name.
        keep: experts of each layer for each role.
        scorer: of all.
        readers: by role, whether a reply's text has the form that its reader needs.
        gate: what a mode must reach.
        limit: most replies of a role.
        budget: bytes for weights, or None.
        changes: of role, per minute.
        rate: bytes per second that experts are read with.
        console: where progress is shown.

    Raises:
        ExpertsError: torch is not installed; fewer than two roles; calibrations, log or a number cannot be worked
            with; a role whose replies nobody can read.
    """
    checkpoint = open_checkpoint(model)
    routing = Routing.of(checkpoint)
    check_keep(routing, keep)
    if len(set(names)) < 2 or len(set(names)) != len(names):
        raise ExpertsError(f"roles {', '.join(names) or 'none'}; give two or more, each once: --role manager --role …")
    for what, value in (("--read-rate", rate), ("--budget", 1 if budget is None else budget)):
        if not value > 0:
            raise ExpertsError(f"{what} is {value / 1e9:g} GB; expected more than 0")
    if not changes >= 0:
        raise ExpertsError(f"--changes is {changes:g}; expected 0 or more per minute")
    tasks = read_tasks(store, names, checkpoint)[0]
    architecture = open_model(str(model)).architecture
    each = (bytes_with(architecture, keep) - bytes_with(architecture, keep - 1)) / len(checkpoint.moe_layers)
    arranged = {mode: arrange(tasks, keep, scorer, routing, mode) for mode in MODES}
    sizes = {mode: bytes_with(architecture, one.resident.shape[1]) for mode, one in arranged.items()}
    found: dict[str, Any] = {
        mode: {
            "experts": one.resident.shape[1],
            "bytes": sizes[mode],
            "moved_experts": one.moved,
            "moved_bytes": one.moved * each,
        }
        for mode, one in arranged.items()
    }
    passed = set(MODES)
    if log is not None:
        measured = _measure_roles(model, log, tasks, arranged, readers, gate, limit, console)
        for mode in MODES:
            found[mode]["roles"] = {role: measured[role][mode] for role in names}
            if any(one["reasons"] for one in found[mode]["roles"].values()):
                passed.discard(mode)
    moving = changes / 60 * arranged["specialist"].moved * each / rate
    mode, why = advise(sizes, passed, budget, moving)
    choices = arranged["specialist"].choices
    common = {f"{a}, {b}": float(overlap(choices[a], choices[b]).mean()) for a, b in itertools.combinations(names, 2)}
    return {"keep": keep, "scorer": scorer, "common": common, "modes": found, "use": mode, "why": why}


def _measure_roles(
    model: Path,
    log: Path,
    tasks: Sequence[Statistics],
    arranged: Mapping[str, Arrangement],
    readers: Mapping[str, Callable[[str], bool]],
    gate: Gate,
    limit: int,
    console: Any,
) -> dict[str, dict[str, Any]]:
    try:
        from transformers import AutoModelForCausalLM

        from memorist.fit.experts.quality import divergences, valid_share
        from memorist.fit.experts.simulate import masked
        from memorist.fit.samples import data_hash, logged_replies, open_tokenizer
    except ImportError as error:
        raise ExpertsError("measuring roles needs torch and transformers: pip install 'memorist[train]'") from error
    tokenizer = open_tokenizer(model)
    pairs = {}
    for task in tasks:
        if task.task not in readers:
            raise ExpertsError(f"role {task.task!r}: nobody can read its replies; {nearest(task.task, readers)}")
        given = logged_replies(log, task.task, model)
        if task.data_hash in {
            data_hash([[*prompt, *reply] for prompt, reply in part]) for part in (given, given[:limit])
        }:
            raise ExpertsError(f"{log}: {task.task} was calibrated on these replies; give others, held out from it")
        pairs[task.task] = given[:limit]
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto").eval()
    measured: dict[str, dict[str, Any]] = {}
    with console.status("measuring") as status:
        for role, given in pairs.items():
            status.update(f"measuring {role}: {len(given)} replies")
            # A union routes each role as its specialist does.
            choices = {mode: arranged[mode].choices[role] for mode in ("specialist", "generalist")}
            samples, starts = [[*p, *r] for p, r in given], [len(p) for p, _ in given]
            moved = divergences(loaded, samples, choices, starts=starts)
            prompts, longest = [p for p, _ in given], max(len(r) for _, r in given)
            accepts = partial(_reads, readers[role], tokenizer)
            before = valid_share(loaded, prompts, accepts, new_tokens=longest)
            measured[role] = {}
            for mode, keep in choices.items():
                with masked(loaded, keep):
                    after = valid_share(loaded, prompts, accepts, new_tokens=longest)
                said = {
                    "valid_before": before,
                    "valid_after": after,
                    "reasons": gate.reasons(moved[mode], before, after),
                }
                measured[role][mode] = asdict(moved[mode]) | said
            measured[role]["union"] = measured[role]["specialist"]
    return measured


def _reads(reader: Callable[[str], bool], tokenizer: Any, reply: Sequence[int]) -> bool:
    return reader(tokenizer.decode(list(reply), skip_special_tokens=True))


def show_roles(found: Mapping[str, Any], console: Any) -> None:
    """Print what `roles` found."""
    from rich.table import Table

    roles = list(next(iter(found["modes"].values())).get("roles", ()))
    shown = Table("mode", "experts", "weights, MB", "moved per change, MB")
    for role in roles:
        shown.add_column(f"{role}: KL, nats per token")
        shown.add_column("valid replies")
    for mode, one in found["modes"].items():
        cells = [mode, str(one["experts"]), f"{one['bytes'] / 1e6:.1f}", f"{one['moved_bytes'] / 1e6:.1f}"]
        for role in roles:
            got = one["roles"][role]
            cells += [f"{got['kl']:.4f} [{got['low']:.4f}, {got['high']:.4f}]"]
            cells += [f"{got['valid_before']:.1%} → {got['valid_after']:.1%}"]
        shown.add_row(*cells)
    console.print(shown)
    for pair, share in found["common"].items():
        console.print(f"{pair}: {share:.0%} of the kept experts in common", highlight=False)
    for mode, one in found["modes"].items():
        for role, got in one.get("roles", {}).items():
            for reason in got["reasons"]:
                console.print(f"{mode}, {role}: {reason}", highlight=False)
    console.print(f"use: {found['use']} ({found['why']})", highlight=False)
