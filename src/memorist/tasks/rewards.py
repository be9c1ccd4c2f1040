"""Reward terms of dialogue tasks, by name: what `data.rewards` of a recipe may list.

A term is a function of a task, a run's outcome and the run's decisions. Those on the whole run say how well it
answered; those on a choice say of each memory that was shown whether it was worth showing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from memorist.decision import Action, Decision, Reward
from memorist.memory.record import Code, MemoryRecord
from memorist.scoring import exact_match, squad_f1

Term = Callable[[Any, Any, Sequence[Decision]], tuple[Reward, ...]]
USEFUL = 0.1
"""Share of what a plain retriever shows that is evidence, about, on LoCoMo: what an oracle's false citations are
reckoned for."""


def exact(task: Any, outcome: Any, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
    """exact_match: mean exact match of the answers, times the share of replies about memories that could be read
    (Memory-R1, eqs. 4 and 7)."""
    right = [exact_match(a.text, q.answer) for a, q in zip(outcome.answers, task.questions, strict=True)]
    return (Reward("exact_match", _mean(right) * _readable(outcome)),)


def overlap(task: Any, outcome: Any, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
    """token_f1: mean token F1 of the answers, times the share of replies that could be read."""
    found = [squad_f1(a.text, q.answer) for a, q in zip(outcome.answers, task.questions, strict=True)]
    return (Reward("token_f1", _mean(found) * _readable(outcome)),)


def evidence(task: Any, outcome: Any, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
    """evidence: mean share of a question's evidence that is in the memories it was answered from."""
    return (Reward("evidence", _mean(list(recalls(task, outcome)))),)


def recalls(task: Any, outcome: Any) -> Iterator[float]:
    """For each question with evidence, the share of it among the sources of what was shown."""
    for question, answer in zip(task.questions, outcome.answers, strict=True):
        if question.evidence:
            shown = {source for record in answer.candidates for source in record.source}
            yield sum(one in shown for one in question.evidence) / len(question.evidence)


def citations(task: Any, outcome: Any, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
    """citations: on each memory that a policy chose to show, 1 if the answer cites it, else -1; nothing where the
    citations could not be read (RMM, section 4.2)."""
    return tuple(
        reward
        for answer, action, _ in _chosen(task, outcome)
        if answer.well_formed
        for reward in _on_draws(
            "citations", answer.candidates, action, decisions, [r in answer.used for r in answer.candidates]
        )
    )


citations.needs = "reranker"  # type: ignore[attr-defined]
"""Which role a term's rewards are for: without it nothing would be learnt."""


def oracle(recall: float, precision: float, name: str) -> Term:
    """In place of an answerer: each memory of the evidence is cited at the rate `recall`, others so rarely that as many
    citations are right as `precision` says where `USEFUL` of what is shown is evidence."""
    falsely = USEFUL * recall * (1 - precision) / precision / (1 - USEFUL)

    def term(task: Any, outcome: Any, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
        rewards: list[Reward] = []
        for answer, action, question in _chosen(task, outcome):
            seed = hashlib.sha256(f"{name}/{task.id}/{question.text}/{action.text}".encode()).digest()
            rng, wanted = random.Random(seed), set(question.evidence)
            cited = [rng.random() < (recall if wanted & set(r.source) else falsely) for r in answer.candidates]
            rewards += _on_draws("citations", answer.candidates, action, decisions, cited)
        return tuple(rewards)

    term.needs = "reranker"  # type: ignore[attr-defined]
    term.__doc__ = f"{name}: citations by the evidence ids, recall {recall:g} and precision {precision:g}."
    return term


oracle_perfect = oracle(1.0, 1.0, "oracle")
oracle_90 = oracle(0.9, 0.9, "oracle-0.9")


def _chosen(task: Any, outcome: Any) -> Iterator[tuple[Any, Action, Any]]:
    """Answers whose memories a policy chose, with the choice and the question."""
    choices = getattr(outcome, "choices", ())
    for answer, action, question in zip(outcome.answers, choices, task.questions, strict=False):
        if action is not None:
            yield answer, action, question


def _on_draws(
    name: str, shown: Sequence[MemoryRecord], action: Action, decisions: Sequence[Decision], cited: Sequence[bool]
) -> Iterator[Reward]:
    place = next((i for i, decision in enumerate(decisions) if decision.action is action), None)
    if place is not None:
        for draw, useful in enumerate(cited):
            yield Reward(name, 1.0 if useful else -1.0, place, (draw, draw + 1))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _readable(outcome: Any) -> float:
    """Share of the Manager's replies that could be read; 1 where there was none."""
    readable = [not any(r.code is Code.MALFORMED for r in results) for results in outcome.results]
    return sum(readable) / len(readable) if readable else 1.0
