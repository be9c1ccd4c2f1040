"""The rows of MemAgent, MemSearcher and RMM, from what `results_agents.py` has measured: results/agents.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from results_kit import Found, Kept, Right, interval
from results_kit import row as table_row

from memorist.evaluation.statistics import (
    Interval,
    hierarchical_bootstrap,
    nested_bootstrap,
    paired_difference,
    ratio_headroom,
)

KEPT = Kept("results/agents")
row = partial(table_row, how="make results-agents")
SEEDS = (0, 1, 2)
LOCOMO = ("conv-41", "conv-42", "conv-43", "conv-44")
"""Conversations that RMM is judged on."""
DOCUMENTS = {4: 200, 64: 100}
"""How many of each length, by chunks, are read to judge."""


def of(name: str, part: str) -> dict[int, Right]:
    """An experiment's points, by seed."""
    return {seed: KEPT.read(f"{name}-{seed}")[part] for seed in SEEDS}


def still(name: str, part: str) -> dict[int, Right]:
    """Points of what was not trained."""
    return {0: KEPT.read(name)[part]}


def difference(ours: Mapping[int, Any], theirs: Mapping[int, Any]) -> dict[int, Any]:
    """Ours minus theirs, by conversation and session."""
    [first] = theirs.values()
    return {
        seed: {
            name: {
                part: [a - b for a, b in zip(values, first[name][part], strict=True)] for part, values in parts.items()
            }
            for name, parts in run.items()
            if name in LOCOMO
        }
        for seed, run in ours.items()
    }


def perfect(right: Mapping[int, Right]) -> dict[int, Right]:
    """Every question right."""
    return {seed: {name: [100.0] * len(v) for name, v in found.items()} for seed, found in right.items()}


def support() -> dict[int, Right]:
    """Gains by question, each question a unit of its own."""
    found = KEPT.read("real-questions")
    units = {}
    for file, both in found.items():
        if isinstance(both, dict) and "memory" in both:
            for i, (a, b) in enumerate(zip(both["memory"], both["one search"], strict=True)):
                units[f"{file}/{i}"] = [a - b]
    return {0: units}


def tokens_ratio(for_each_right: bool = False) -> Found:
    """Tokens per question (or for each right answer) of a ReAct policy of equal training, by ours; null where ours answers
    less."""
    ours, theirs = of("memsearcher", "test.tokens"), of("memsearcher-react", "test.tokens")
    right, other = of("memsearcher", "test"), of("memsearcher-react", "test")
    if mean_of(right) < mean_of(other):
        return {"why": f"it answers less: {mean_of(right):.1f} against {mean_of(other):.1f} points"}
    rng, names = np.random.default_rng(0), list(ours[0])

    def cost(tokens: Mapping[int, Right], points: Mapping[int, Right], some: Any) -> float:
        spent = sum(tokens[s][n][0] for s, n in some)
        return spent / max(1e-9, sum(points[s][n][0] / 100 for s, n in some) if for_each_right else len(some))

    every = [(s, n) for s in SEEDS for n in names]
    ratio, draws = cost(theirs, other, every) / cost(ours, right, every), []
    for _ in range(2000):
        seeds, picked = rng.integers(0, len(SEEDS), len(SEEDS)), rng.integers(0, len(names), len(names))
        some = [(SEEDS[s], names[i]) for s in seeds for i in picked]
        draws.append(cost(theirs, other, some) / cost(ours, right, some))
    low, high = np.quantile(draws, [0.025, 0.975])
    accuracy = f"{mean_of(right):.1f} against {mean_of(other):.1f} points"
    return {
        "value": ratio, "low": float(low), "high": float(high), "n": len(every), "seeds": len(SEEDS),
        "peer": "ReAct policy of equal training", "peer_value": cost(theirs, other, every), "of": f"exact match {accuracy}",
    }  # fmt: skip


def mean_of(values: Mapping[int, Right]) -> float:
    """Of all questions of all seeds."""
    flat = [v for run in values.values() for one in run.values() for v in one]
    return sum(flat) / len(flat)


def write() -> None:
    """All rows, with null and a reason where something was not measured."""

    def room(name: str, part: str, frozen: str, gold: Callable[[], Mapping[int, Right]]) -> Callable[[], Interval]:
        return lambda: ratio_headroom(still(frozen, f"base.{part}"), of(name, part), gold())

    def gain(name: str, part: str, theirs: Callable[[], Mapping[int, Right]]) -> Callable[[], Interval]:
        return lambda: paired_difference(of(name, part), theirs())

    def score(name: str, part: str) -> Callable[[], Interval]:
        return lambda: hierarchical_bootstrap(of(name, part))

    def plain(name: str, part: str) -> Callable[[], Interval]:
        return lambda: hierarchical_bootstrap(still(name, part))

    def gold(chunks: int) -> Callable[[], Mapping[int, Right]]:
        return lambda: still("frozen-reading", f"gold.{chunks}-chunks")

    read, search = "frozen-reading", "frozen-searching"
    trained_rows: list[tuple[str, str, Callable[[], Interval]]] = [
        *((f"memagent.{n}-chunks.headroom", "share", room("memagent", f"{n}-chunks", read, gold(n))) for n in DOCUMENTS),
        *((f"memagent.{n}-chunks.accuracy", "points", score("memagent", f"{n}-chunks")) for n in DOCUMENTS),
        *((f"memagent.full-context.{n}-chunks.accuracy", "points", score("memagent-whole", f"{n}-chunks")) for n in DOCUMENTS),
        ("memagent.over-sft", "points", gain("memagent", "4-chunks", lambda: of("memagent-sft", "4-chunks"))),
        ("memagent.over-tuned-heuristic", "points", gain("memagent", "4-chunks", lambda: still(read, "tuned.4-chunks"))),
        ("memagent.over-choosing-heuristic", "points",
         gain("memagent", "4-chunks", lambda: still(read, "choosing.4-chunks"))),
        ("memsearcher.over-sft", "points", gain("memsearcher", "test", lambda: of("memsearcher-sft", "test"))),
        ("memsearcher.over-tuned-heuristic", "points", gain("memsearcher", "test", lambda: still(search, "tuned.test"))),
        ("memsearcher.over-following-heuristic", "points",
         gain("memsearcher", "test", lambda: still(search, "following.test"))),
        ("memsearcher.2-hop.em", "points", score("memsearcher", "test")),
        ("memsearcher.unseen-compositions.em", "points", score("memsearcher", "unseen")),
        ("memsearcher.2-hop.headroom", "share",
         room("memsearcher", "test", search, lambda: perfect(of("memsearcher", "test")))),
        ("memsearcher.unseen-compositions.headroom", "share",
         room("memsearcher", "unseen", search, lambda: perfect(of("memsearcher", "unseen")))),
        ("memsearcher.last-only.headroom", "share",
         room("memsearcher-last", "test", search, lambda: perfect(of("memsearcher-last", "test")))),
        ("memsearcher.react.em", "points", score("memsearcher-react", "test")),
        ("rmm.locomo.recall@5.gain", "points",
         lambda: nested_bootstrap(difference(of_all("rmm"), still("frozen-finding", "dense")))),
        ("rmm.locomo.recall@5.over-fusion", "points",
         lambda: nested_bootstrap(difference(of_all("rmm"), still("frozen-finding", "fused")))),
        *((f"rmm.locomo.{name}.recall@5.gain", "points", partial(gain_of, name)) for name in LOCOMO),
    ]  # fmt: skip
    still_rows: list[tuple[str, str, Callable[[], Interval]]] = [
        *((f"memagent.{kind}.{n}-chunks.accuracy", "points", plain(read, f"{key}.{n}-chunks"))
          for kind, key in (("base", "base"), ("gold", "gold"), ("tuned-heuristic", "tuned"),
                            ("choosing-heuristic", "choosing")) for n in DOCUMENTS),
        *((f"memsearcher.{kind}.2-hop.em", "points", plain(search, f"{key}.test"))
          for kind, key in (("base", "base"), ("tuned-heuristic", "tuned"), ("following-heuristic", "following"))),
        ("multihop-real.support-recall", "points", lambda: hierarchical_bootstrap(support())),
    ]  # fmt: skip
    rows = [row(name, unit, interval(measure, len(SEEDS))) for name, unit, measure in trained_rows]
    rows += [row(name, unit, interval(measure, 1)) for name, unit, measure in still_rows]
    rows.append(row("memsearcher.context-at-turn-10", "share", context))
    for searches in ("2", "4", "8"):
        name = f"memsearcher.scripted.{searches}-searches.tokens-vs-react"
        rows.append(row(name, "ratio", partial(scripted_ratio, searches)))
    rows.append(row("memsearcher.tokens-per-question-vs-react", "ratio", tokens_ratio))
    each = partial(tokens_ratio, for_each_right=True)
    rows.append(row("memsearcher.tokens-per-right-answer-vs-react", "ratio", each))
    rows.append(row("agents.training-run.minutes", "min", longest))
    Path("results/agents.json").write_text(json.dumps(rows, indent=1) + "\n")


def of_all(name: str) -> dict[int, Any]:
    """An experiment's whole outcome, by seed."""
    return {seed: KEPT.read(f"{name}-{seed}") for seed in SEEDS}


def gain_of(name: str) -> Interval:
    """Of one conversation."""
    gains = difference(of_all("rmm"), still("frozen-finding", "dense"))
    return nested_bootstrap({seed: {name: run[name]} for seed, run in gains.items()})


def context() -> Found:
    """The window with a memory as a share of the one without."""
    lengths = KEPT.read("window-lengths")["tokens"]
    share = lengths["memory"] / lengths["all"]
    return {"value": share, "n": 1, "seeds": 1, "of": f"{lengths['memory']} of {lengths['all']} tokens"}


def scripted_ratio(searches: str) -> Found:
    """What a script in one window writes and reads, by what it does with a memory, at so many searches."""
    spent = KEPT.read("window-lengths")["spent"][searches]
    return {"value": spent["all"] / spent["memory"], "n": 1, "seeds": 1, "peer": "ReAct", "peer_value": spent["all"]}


def longest() -> Found:
    """The longest run of a recipe; what they are compared with ran several at a time."""
    spent = [
        KEPT.read(f"{name}-{seed}")["seconds"] / 60 for name in ("memagent", "memsearcher", "rmm") for seed in SEEDS
    ]
    return {"value": max(spent), "n": len(spent), "seeds": len(SEEDS)}
