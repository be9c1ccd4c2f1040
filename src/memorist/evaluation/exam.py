"""Sitting the exam: the same agent, greedy, on held-out dialogues, with the baselines that always stand beside it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memorist.agents.components.answers import Answer
from memorist.agents.components.updaters import UNDATED
from memorist.agents.heuristics import AddOnlyManager, SimilarityManager
from memorist.agents.memory_r1 import MemoryR1, Outcome
from memorist.conversation import Message
from memorist.evaluation.baselines import bm25_turns
from memorist.evaluation.protocols import ADVERSARIAL, Prediction
from memorist.memory.bank import Hit
from memorist.memory.record import Code, MemoryRecord, Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.scoring import exact_match
from memorist.tasks.dialogue import TRAINED_CATEGORIES, DialogueTask
from memorist.tasks.locomo import Dialogue, Question
from memorist.training.rollout import Run, Seat, play

BuildMemoryR1 = Callable[..., MemoryR1]


@dataclass(frozen=True)
class Exam:
    """What one system answered, and how it came to it.

    `runs` are whole-dialogue runs, in the order of the dialogues.
    """

    name: str
    dialogues: tuple[Dialogue, ...]
    runs: tuple[Run, ...]
    categories: tuple[int, ...] = TRAINED_CATEGORIES

    def asked(self) -> list[tuple[Dialogue, Question, Answer]]:
        """Every question with its answer."""
        return [
            (dialogue, question, answer)
            for dialogue, run in zip(self.dialogues, self.runs, strict=True)
            for question, answer in zip(run.task.questions, run.outcome.answers, strict=True)
        ]

    def right(self, categories: Sequence[int] | None = None) -> dict[str, list[float]]:
        """Exact match in points (0 or 100) per dialogue and question, of all categories but LoCoMo's fifth."""
        categories = categories or [number for number in self.categories if number != ADVERSARIAL]
        found: dict[str, list[float]] = {dialogue.id: [] for dialogue in self.dialogues}
        for dialogue, question, answer in self.asked():
            if question.category in categories:
                found[dialogue.id].append(100.0 * exact_match(answer.text, question.answer))
        return found

    def predictions(self) -> list[Prediction]:
        """For the scoring protocols; a reply without the answer's form is scored on its last line."""
        return [
            Prediction(
                dialogue=dialogue.id,
                question=question.text,
                category=question.category,
                gold=question.answer,
                answer=answer.shown,
                evidence=question.evidence,
                used=tuple(s for record in answer.used for s in record.source),
                evidence_in_candidates=_found(question, answer.candidates),
            )
            for dialogue, question, answer in self.asked()
        ]

    def confusion(self) -> dict[str, Counter[str]]:
        """Kind of statement (gold event) to the operations that the Manager chose; for diagnosis only."""
        table: dict[str, Counter[str]] = {}
        for dialogue, run in zip(self.dialogues, self.runs, strict=True):
            gold = {g["dia_id"]: g for g in reversed(known_gold(dialogue))}
            chosen = iter(run.outcome.results)
            for message in run.task.messages:
                for _ in message.statements:
                    results = next(chosen, ())
                    if message.id in gold:
                        kinds = "+".join(_kind(r) for r in results) or "NOOP"
                        table.setdefault(f"{gold[message.id]['kind']}", Counter())[kinds] += 1
        return table


def _kind(result: Any) -> str:
    if result.code is Code.MALFORMED:
        return "malformed"
    return result.operation.kind if result.code.accepted else f"refused {result.operation.kind}"


def _found(question: Question, candidates: Sequence[MemoryRecord]) -> float | None:
    if not question.evidence:
        return None
    sources = {s for record in candidates for s in record.source}
    return sum(e in sources for e in question.evidence) / len(question.evidence)


def sit(
    name: str,
    build: Callable[..., Any],
    dialogues: Sequence[Dialogue],
    seats: Mapping[str, Seat],
    *,
    categories: Sequence[int] = TRAINED_CATEGORIES,
    bank: Callable[[Dialogue], ScratchBank] | None = None,
) -> Exam:
    """Run the agent on each dialogue; with `bank`, skip observing and answer from that bank."""
    tasks = [DialogueTask.of(d, categories=categories) for d in dialogues]
    if bank is not None:
        tasks = [replace(t, messages=(), bank=bank(d)) for t, d in zip(tasks, dialogues, strict=True)]
    runs = tuple(group[0] for group in play(build, tasks, seats))
    return Exam(name, tuple(dialogues), runs, tuple(categories))


def known_gold(dialogue: Dialogue) -> tuple[Mapping[str, Any], ...]:
    """A dialogue's gold operations; none where they are not in the form in which the synthetic world writes them."""
    known = all({"dia_id", "kind", "event"} <= operation.keys() for operation in dialogue.gold)
    return dialogue.gold if known else ()


def gold_bank(dialogue: Dialogue) -> ScratchBank:
    """The bank that a perfect manager builds, from the synthetic world's gold operations."""
    bank = ScratchBank()
    gold: dict[str, list[Mapping[str, Any]]] = {}
    for operation in known_gold(dialogue):
        gold.setdefault(operation["dia_id"], []).append(operation)
    current: dict[str, str] = {}
    for message in dialogue.conversation.messages():
        text = " ".join(message.statements)
        operations = [_gold_operation(g, text, current) for g in gold.get(message.id, ())]
        results = bank.apply(operations, Scope(message.speaker), at=message.time or UNDATED, source=[message.id])
        for result in results:
            if result.record is not None and result.operation.kind in ("ADD", "UPDATE"):
                current[message.id] = result.record.id
    return bank


def _gold_operation(gold: Mapping[str, Any], text: str, current: Mapping[str, str]) -> Operation:
    kind = "NOOP" if gold["event"] == "NONE" else gold["event"]
    return Operation(kind, text, current.get(gold.get("target", "")))


class TurnReader:
    """Answers from raw turns instead of memories: all of them, or those that BM25 finds."""

    def __init__(self, answerer: MemoryR1, retrieve: Callable[[str], Sequence[Message]]) -> None:
        self.answerer, self.retrieve = answerer, retrieve

    async def run(self, task: DialogueTask) -> Outcome:
        """Answer each question from the turns retrieved for it."""
        found = [(q.text, self._hits(q.text)) for q in task.questions]
        answers = await asyncio.gather(*(self.answerer.answer_from(text, hits) for text, hits in found))
        return Outcome((), tuple(answers))

    def _hits(self, question: str) -> list[Hit]:
        """The turns in the retriever's order, as near as the bank's embedder finds them."""
        records = [_as_record(message) for message in self.retrieve(question)]
        vectors = self.answerer.bank.embedder.embed([question, *(record.text for record in records)])
        return [Hit(record, float(score)) for record, score in zip(records, vectors[1:] @ vectors[0], strict=True)]


def _as_record(message: Message) -> MemoryRecord:
    time = message.time or UNDATED
    text = " ".join(message.statements) or f"{message.speaker}: {message.shown}"
    return MemoryRecord(message.id, Scope(message.speaker), text, time, time, source=(message.id,))


def read_turns(
    name: str, build: BuildMemoryR1, dialogues: Sequence[Dialogue], seats: Mapping[str, Seat], *,
    limit: int | None = None, categories: Sequence[int] = TRAINED_CATEGORIES,
) -> Exam:  # fmt: skip
    """Full context (`limit` None: every turn, newest first) or the `limit` turns that BM25 ranks first."""
    runs: list[Run] = []
    for dialogue in dialogues:
        turns = list(dialogue.conversation.messages())
        search = bm25_turns(dialogue)

        def retrieve(question: str, turns: list[Message] = turns, search: Any = search) -> Sequence[Message]:
            return turns[::-1] if limit is None else search.search([question], limit)[0]

        def around(retrieve: Any = retrieve, **given: Any) -> TurnReader:
            return TurnReader(build(**given), retrieve)

        task = replace(DialogueTask.of(dialogue, categories=categories), messages=())
        runs += [group[0] for group in play(around, [task], seats)]
    return Exam(name, tuple(dialogues), tuple(runs), tuple(categories))


def tune_heuristic(build: BuildMemoryR1, dialogues: Sequence[Dialogue], answerer: Seat) -> SimilarityManager:
    """The similarity heuristic with the thresholds that score best on these (training) dialogues, ADD-only among
    them."""
    grid = [(same, related) for same in (0.85, 0.92, 0.97, 1.01) for related in (0.5, 0.6, 0.7, 0.8, 1.01)]
    best: tuple[float, SimilarityManager] | None = None
    for same, related in grid:
        manager = SimilarityManager(same, related)
        exam = sit(manager.name, build, dialogues, {"manager": Seat(manager), "answerer": answerer})
        values = [v for vs in exam.right().values() for v in vs]
        score = sum(values) / len(values)
        if best is None or score > best[0]:
            best = (score, manager)
    assert best is not None
    return best[1]


def baselines(
    build: BuildMemoryR1, dialogues: Sequence[Dialogue], answerer: Seat, *,
    tuned: SimilarityManager | None = None, turns: int = 12, categories: Sequence[int] = TRAINED_CATEGORIES,
) -> Iterator[Exam]:  # fmt: skip
    """No memory, full context, BM25 turns, ADD-only, the tuned heuristic, gold operations (where there are any); each
    is run when it is asked for, so that who waits can be told."""
    seats = {"manager": Seat(AddOnlyManager()), "answerer": answerer}
    yield sit("no memory", build, dialogues, seats, bank=lambda d: ScratchBank(), categories=categories)
    yield read_turns("full context", build, dialogues, seats, categories=categories)
    yield read_turns("BM25 turns", build, dialogues, seats, limit=turns, categories=categories)
    yield sit("ADD only", build, dialogues, seats, categories=categories)
    if tuned is not None:
        seats = {"manager": Seat(tuned), "answerer": answerer}
        yield sit("tuned heuristic", build, dialogues, seats, categories=categories)
    if any(known_gold(d) for d in dialogues):
        yield sit("gold operations", build, dialogues, seats, bank=gold_bank, categories=categories)
