"""Benchmarks by name: the real agent on a data set, the baselines beside it, both protocols, a row per question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from memorist.errors import DataError
from memorist.evaluation.baselines import evidence_recall_at
from memorist.evaluation.exam import Exam, baselines, sit
from memorist.evaluation.progress import told
from memorist.evaluation.protocols import PROTOCOLS, Scores
from memorist.evaluation.runs import greedy_seats, recipe_of, talking_agent
from memorist.log import write_trajectories
from memorist.tasks.locomo import Dialogue, data_hash, load, locomo_path, split
from memorist.tasks.world import WORLD_VERSION, dialogues

QUIET = Console(quiet=True)
AGENT = "memory-r1"


@dataclass(frozen=True)
class Benchmarked:
    """What a benchmark gave: per system and protocol the scores, and recall of evidence by BM25."""

    name: str
    data: str
    exams: tuple[Exam, ...]
    scores: dict[str, dict[str, Scores]]
    recall: dict[int, float]

    def to_json(self) -> dict[str, Any]:
        """A plain object with protocol versions and the data's hash."""
        systems = {
            system: {name: scores.to_json(self.data) for name, scores in by_protocol.items()}
            for system, by_protocol in self.scores.items()
        }
        return {"benchmark": self.name, "data": self.data, "systems": systems, "bm25_recall": self.recall}


def synthetic(run: Path | None, count: int, grammar: str, console: Console = QUIET) -> Benchmarked:
    """The synthetic world's test split."""
    data = dialogues("test", count, grammar=grammar)
    return _bench("synthetic", f"world-{WORLD_VERSION}-test-{grammar}-{count}", data, run, console)


def locomo(run: Path | None, file: Path | None, console: Console = QUIET) -> Benchmarked:
    """LoCoMo's test conversations.

    Raises:
        DataError: the file is not to be found, or malformed.
    """
    path = file or locomo_path()
    if path is None:
        raise DataError(
            "locomo*.json", "-", "-", "not found; set MEMORIST_DATA to the folder that holds locomo/, or give --file"
        )
    if not path.exists():
        raise DataError(str(path), "-", "-", "does not exist; give the path of a LoCoMo JSON file")
    data = load(path)
    test = split(data).test or data
    return _bench("locomo", data_hash(path), test, run, console, all_data=data)


def _bench(
    name: str, data: str, test: Sequence[Dialogue], run: Path | None, console: Console, *,
    all_data: Sequence[Dialogue] | None = None,
) -> Benchmarked:  # fmt: skip
    recipe = recipe_of(run)
    build = talking_agent(recipe).build
    seats = greedy_seats(recipe.models, run)
    categories = (1, 2, 3, 4, 5)

    def all_of_them() -> Iterator[Exam]:
        yield from baselines(build, test, seats["answerer"], categories=categories)
        yield sit(AGENT, build, test, seats, categories=categories)

    exams = list(told(all_of_them(), console))
    scores = {e.name: {n: protocol.score(e.predictions()) for n, protocol in PROTOCOLS.items()} for e in exams}
    return Benchmarked(name, data, tuple(exams), scores, evidence_recall_at(all_data or test))


def write_rows(found: Benchmarked, folder: Path) -> None:
    """A row per question and system, `NAME.jsonl`, with the values of both protocols; what the agent saw and did, as
    `NAME-trajectories.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{found.name}.jsonl", "w", encoding="utf-8") as file:
        for system, by_protocol in found.scores.items():
            for protocol, scores in by_protocol.items():
                for scored in scores.questions:
                    row = {"system": system, "protocol": protocol, "data": found.data, **scored.to_json()}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    runs = (run.trajectory for exam in found.exams if exam.name == AGENT for run in exam.runs)
    write_trajectories(folder / f"{found.name}-trajectories.jsonl", runs)


def show(found: Benchmarked, console: Console) -> None:
    """Tables for people: one per protocol, systems by row."""
    for protocol in PROTOCOLS:
        grid = Table(
            title=f"{found.name} (data {found.data}), protocol {protocol}: question-weighted means, categories 1 to 4"
        )
        first = next(iter(found.scores.values()))[protocol]
        grid.add_column("system")
        for metric in first.overall:
            grid.add_column(metric, justify="right")
        for category in sorted(first.categories):
            c = first.categories[category]
            grid.add_column(f"{category} {c.locomo_name} / {c.mem0_name or '-'} (n={c.n})", justify="right")
        for system, by_protocol in found.scores.items():
            scores = by_protocol[protocol]
            cells = [f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in scores.overall.values()]
            cells += [f"{next(iter(scores.categories[c].means.values())).value:.3f}" for c in sorted(first.categories)]
            grid.add_row(system, *cells)
        console.print(grid)
    recall = ", ".join(f"@{k} {v:.3f}" for k, v in found.recall.items())
    console.print(f"BM25 evidence recall by turn: {recall}")
