"""Benchmarks by name: the real agent on a data set, the baselines beside it, both protocols, a row per question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from memorist.agents.components.extractors import by_model
from memorist.agents.memory_r1 import MemoryR1
from memorist.errors import DataError
from memorist.evaluation.baselines import evidence_recall_at
from memorist.evaluation.exam import Exam, baselines, sit
from memorist.evaluation.judge import Judgement, judge
from memorist.evaluation.progress import told
from memorist.evaluation.protocols import CHATS_V1, PROTOCOLS, Scores, ScoringProtocol
from memorist.evaluation.runs import greedy_seats, recipe_of, talking_agent
from memorist.evaluation.statistics import hierarchical_bootstrap
from memorist.log import write_trajectories
from memorist.models.recorded import Recorded
from memorist.tasks.chats import load_longmemeval, load_msc
from memorist.tasks.locomo import Dialogue, data_hash, load, locomo_path, split
from memorist.tasks.world import WORLD_VERSION, dialogues
from memorist.training.rollout import Seat

QUIET = Console(quiet=True)
AGENT = "memory-r1"


@dataclass(frozen=True)
class Served:
    """Models behind endpoints in every role, recorded so that a run that was cut off goes on.

    model: extracts facts, manages and answers. judge: grades answers; None for nobody. baselines: whether these are
    answered too, which costs as much again for each.
    """

    model: Recorded
    judge: Recorded | None = None
    baselines: bool = False

    def spent(self) -> dict[str, dict[str, Any]]:
        """By model, calls, tokens and money of the whole run, whenever they were spent."""
        used = {"model": self.model, "judge": self.judge}
        return {name: {"name": one.name, **asdict(one.spent)} for name, one in used.items() if one is not None}


@dataclass(frozen=True)
class Benchmarked:
    """What a benchmark gave: per system and protocol the scores, and recall of evidence by BM25; where models were
    served, what a judge said by system, and what was spent."""

    name: str
    data: str
    exams: tuple[Exam, ...]
    scores: dict[str, dict[str, Scores]]
    recall: dict[int, float]
    judged: Mapping[str, Judgement] = field(default_factory=dict)
    spent: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain object with protocol versions and the data's hash."""
        systems = {
            system: {name: scores.to_json(self.data) for name, scores in by_protocol.items()}
            for system, by_protocol in self.scores.items()
        }
        found = {"benchmark": self.name, "data": self.data, "systems": systems, "bm25_recall": self.recall}
        if self.judged:
            found["judged"] = {system: judgement.to_json() for system, judgement in self.judged.items()}
        return found | ({"spent": dict(self.spent)} if self.spent else {})


def synthetic(run: Path | None, count: int, grammar: str, console: Console = QUIET) -> Benchmarked:
    """The synthetic world's test split."""
    data = dialogues("test", count, grammar=grammar)
    return _bench("synthetic", f"world-{WORLD_VERSION}-test-{grammar}-{count}", data, run, console)


def locomo(
    run: Path | None, file: Path | None, console: Console = QUIET, *, served: Served | None = None,
    conversations: Sequence[str] = (),
) -> Benchmarked:  # fmt: skip
    """LoCoMo's test conversations, or those that are named.

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
    if conversations:
        if missing := set(conversations) - {one.id for one in data}:
            raise DataError(str(path), "-", "-", f"has no {', '.join(sorted(missing))}; it has {[d.id for d in data]}")
        test = [one for one in data if one.id in conversations]
    return _bench("locomo", data_hash(path), test, run, console, all_data=data, served=served)


def chats(
    name: str, run: Path | None, file: Path | None, console: Console = QUIET, *, served: Served | None = None
) -> Benchmarked:
    """LongMemEval or MSC; unverified on the real files (`tasks.chats`).

    Raises:
        DataError: no file is given, or it has another form.
    """
    if file is None:
        raise DataError(name, "-", "-", f"is not shipped; give its file: memorist eval {name} --file FILE")
    data = load_longmemeval(file) if name == "longmemeval" else load_msc(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return _bench(name, digest, data, run, console, served=served, protocols={CHATS_V1.name: CHATS_V1})


def _bench(
    name: str, data: str, test: Sequence[Dialogue], run: Path | None, console: Console, *,
    all_data: Sequence[Dialogue] | None = None, served: Served | None = None,
    protocols: Mapping[str, ScoringProtocol] = PROTOCOLS,
) -> Benchmarked:  # fmt: skip
    build, seats = _agent(run, served)
    categories = tuple(next(iter(protocols.values())).names)

    def all_of_them() -> Iterator[Exam]:
        if served is None or served.baselines:
            yield from baselines(build, test, seats["answerer"], categories=categories)
        yield sit(AGENT, build, test, seats, categories=categories)

    exams = list(told(all_of_them(), console))
    scores = {e.name: {n: protocol.score(e.predictions()) for n, protocol in protocols.items()} for e in exams}
    grader = served.judge if served is not None else None
    judged = {e.name: judge(e.predictions(), grader) for e in exams} if grader is not None else {}
    recall = evidence_recall_at(all_data or test)
    return Benchmarked(name, data, tuple(exams), scores, recall, judged, served.spent() if served else {})


def _agent(run: Path | None, served: Served | None) -> tuple[Callable[..., Any], dict[str, Seat]]:
    """As it was trained; or around a served model, which then extracts the facts itself."""
    if served is None:
        recipe = recipe_of(run)
        return talking_agent(recipe).build, greedy_seats(recipe.models, run)
    model = served.model

    def build(**given: Any) -> MemoryR1:
        return MemoryR1(**given, extract=by_model(given["manager"]), style="full")

    return build, {"manager": Seat(model), "answerer": Seat(model)}


def write_rows(found: Benchmarked, folder: Path) -> None:
    """A row per question and system, `NAME.jsonl`, with the values of both protocols; what the agent saw and did, as
    `NAME-trajectories.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{found.name}.jsonl", "w", encoding="utf-8") as file:
        for exam in found.exams:
            judged = found.judged.get(exam.name)
            said = zip(exam.predictions(), judged.right, strict=True) if judged else ()
            verdicts = {(p.dialogue, p.question, p.category): verdict for p, verdict in said}
            for protocol, scores in found.scores[exam.name].items():
                for scored in scores.questions:
                    row = {"system": exam.name, "protocol": protocol, "data": found.data, **scored.to_json()}
                    p = scored.prediction
                    if verdicts:
                        row["judged_right"] = verdicts[p.dialogue, p.question, p.category]
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    runs = (run.trajectory for exam in found.exams if exam.name == AGENT for run in exam.runs)
    write_trajectories(folder / f"{found.name}-trajectories.jsonl", runs)


def show(found: Benchmarked, console: Console) -> None:
    """Tables for people: one per protocol, systems by row."""
    for protocol in next(iter(found.scores.values())):
        grid = Table(
            title=f"{found.name} (data {found.data}), protocol {protocol}: question-weighted means, without category 5"
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
    for system, judgement in found.judged.items():
        shares = hierarchical_bootstrap({0: judgement.by_dialogue})
        console.print(
            f"judged by {judgement.judge}: {system} {shares.value:.3f} [{shares.low:.3f}, {shares.high:.3f}] right, "
            f"{judgement.unread} verdicts could not be read (counted as wrong)"
        )
    for used in found.spent.values():
        console.print(
            f"{used['name']}: {used['calls']} calls, {used['prompt_tokens']:,} tokens read, "
            f"{used['completion_tokens']:,} written, cost {used['cost']:.2f}"
        )
    recall = ", ".join(f"@{k} {v:.3f}" for k, v in found.recall.items())
    console.print(f"BM25 evidence recall by turn: {recall}")
