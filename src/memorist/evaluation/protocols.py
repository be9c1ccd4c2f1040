"""Versioned ways to score LoCoMo predictions, so that a number says how it was made.

`mem0-v1` follows mem0's evaluation code (arXiv 2504.19413), which Memory-R1 (arXiv 2508.19828) and others
report: F1 over sets of words, BLEU-1, exact match; category 5 is skipped. `locomo-v1` follows LoCoMo's own
scorer (arXiv 2402.17753): stemmed F1 with a rule per category; category 5 is scored by abstention and stands
apart.

Means weigh every question alike, never categories or dialogues. Intervals resample dialogues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memorist.evaluation.statistics import Interval, hierarchical_bootstrap
from memorist.scoring import bleu1, evidence_recall, exact_match, locomo_f1, mem0_f1
from memorist.tasks.chats import NAMES
from memorist.tasks.locomo import CATEGORIES, Category

ADVERSARIAL = 5


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answered question.

    `evidence` holds the ids of the turns that carry the answer, `used` the source ids of the memories that
    the agent answered from. `evidence_in_candidates` is the share of evidence among the sources of all
    memories that were retrieved for it, in [0, 1]; None where nothing was retrieved or there is no evidence.
    """

    dialogue: str
    question: str
    category: int
    gold: str
    answer: str
    evidence: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    evidence_in_candidates: float | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """A prediction with its value under each metric of a protocol, each in [0, 1]."""

    prediction: Prediction
    values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """A plain row for a table or a file."""
        p = self.prediction
        return {
            "dialogue": p.dialogue,
            "question": p.question,
            "category": p.category,
            "gold": p.gold,
            "answer": p.answer,
            "evidence": list(p.evidence),
            "used": list(p.used),
            "evidence_in_candidates": p.evidence_in_candidates,
            **self.values,
        }


@dataclass(frozen=True, slots=True)
class CategoryScores:
    """Means of one category, with both of its names; `n` questions."""

    category: int
    locomo_name: str
    mem0_name: str
    n: int
    means: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Scores:
    """What a protocol says about a set of predictions.

    `questions` holds every scored question in the order given, `skipped` how many the protocol leaves out.
    `overall` is the question-weighted mean over categories 1 to 4 and `deduplicated` the same with exact
    repetitions of a question (same dialogue, category, text and gold) counted once, the first time; both are
    empty where there is no such question. `evidence` holds `in_candidates` and `in_used`, mean evidence
    recall over the questions that overall counts and that have evidence, each where it can be told.
    """

    protocol: str
    questions: tuple[Scored, ...]
    skipped: int
    categories: Mapping[int, CategoryScores]
    overall: Mapping[str, Interval]
    deduplicated: Mapping[str, Interval]
    evidence: Mapping[str, Interval]

    def values(self, metric: str) -> dict[str, list[float]]:
        """Values by dialogue of the questions that `overall` counts: one seed's entry for the bootstrap.

        Raises:
            KeyError: the protocol has no such metric.
        """
        return _by_dialogue([s for s in self.questions if s.prediction.category != ADVERSARIAL], metric)

    def to_json(self, data_hash: str, *, questions: bool = False) -> dict[str, Any]:
        """A plain object with protocol version and data hash; with a row per question if asked for."""
        found: dict[str, Any] = {
            "protocol": self.protocol,
            "data": data_hash,
            "skipped": self.skipped,
            "overall": _plain(self.overall),
            "deduplicated": _plain(self.deduplicated),
            "categories": {
                str(c.category): {
                    "locomo_name": c.locomo_name,
                    "mem0_name": c.mem0_name,
                    "n": c.n,
                    **_plain(c.means),
                }
                for c in self.categories.values()
            },
            "evidence": _plain(self.evidence),
        }
        if questions:
            found["questions"] = [s.to_json() for s in self.questions]
        return found


@dataclass(frozen=True, slots=True)
class ScoringProtocol:
    """A name with a version, the categories it takes, and the metrics of one prediction by name."""

    name: str
    categories: tuple[int, ...]
    metrics: Mapping[str, Callable[[Prediction], float]]
    names: Mapping[int, Category] = field(default_factory=lambda: CATEGORIES)

    def score(self, predictions: Iterable[Prediction]) -> Scores:
        """Score predictions; the same whatever order they come in.

        Raises:
            ValueError: a prediction's category is none of the data's.
            ModuleNotFoundError: NLTK is not installed (`pip install 'memorist[eval]'`).
        """
        everything = list(predictions)
        for p in everything:
            if p.category not in self.names:
                wanted = f"{min(self.names)} to {max(self.names)}"
                raise ValueError(f"category is {p.category!r} in {p.dialogue}: {p.question!r}; expected {wanted}")
        scored = tuple(
            Scored(p, {name: metric(p) for name, metric in self.metrics.items()})
            for p in everything
            if p.category in self.categories
        )
        counted = [s for s in scored if s.prediction.category != ADVERSARIAL]
        return Scores(
            self.name,
            scored,
            len(everything) - len(scored),
            self._by_category(scored),
            self._means(counted),
            self._means(_once(counted)),
            _evidence([s.prediction for s in counted]),
        )

    def _by_category(self, scored: Sequence[Scored]) -> dict[int, CategoryScores]:
        found = {}
        for number in self.categories:
            mine = [s for s in scored if s.prediction.category == number]
            if mine:
                names = self.names[number]
                found[number] = CategoryScores(number, names.locomo, names.mem0, len(mine), self._means(mine))
        return found

    def _means(self, scored: Sequence[Scored]) -> dict[str, Interval]:
        if not scored:
            return {}
        return {name: hierarchical_bootstrap({0: _by_dialogue(scored, name)}) for name in self.metrics}


_MEM0: Mapping[str, Callable[[Prediction], float]] = {
    "f1": lambda p: mem0_f1(p.answer, p.gold),
    "bleu1": lambda p: bleu1(p.answer, p.gold),
    "em": lambda p: exact_match(p.answer, p.gold, "mem0"),
}
MEM0_V1 = ScoringProtocol("mem0-v1", (1, 2, 3, 4), _MEM0)
"""F1, BLEU-1 and exact match as mem0's evaluation computes them; category 5 skipped."""

LOCOMO_V1 = ScoringProtocol("locomo-v1", (1, 2, 3, 4, 5), {"f1": lambda p: locomo_f1(p.answer, p.gold, p.category)})
"""Stemmed F1 with LoCoMo's category rules; category 5 by abstention, outside the overall mean."""

CHATS_V1 = ScoringProtocol("chats-v1", tuple(NAMES), _MEM0, NAMES)
"""LongMemEval and MSC by the metrics of `mem0-v1`, as Memory-R1 scores them; their own tables are a judge's."""

PROTOCOLS = {protocol.name: protocol for protocol in (MEM0_V1, LOCOMO_V1)}


def question_weighted(means: Mapping[int, float], counts: Mapping[int, int]) -> float:
    """The mean over questions from means and counts by category: what papers call overall.

    Raises:
        ValueError: the categories differ, or there are no questions.
    """
    questions = sum(counts.values())
    if means.keys() != counts.keys() or questions == 0:
        raise ValueError(f"means are of categories {sorted(means)}, counts {dict(counts)}; expected equal ones")
    return sum(means[c] * counts[c] for c in means) / questions


def _by_dialogue(scored: Sequence[Scored], metric: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for s in scored:
        found.setdefault(s.prediction.dialogue, []).append(s.values[metric])
    return found


def _once(scored: Sequence[Scored]) -> list[Scored]:
    first: dict[tuple[str, int, str, str], Scored] = {}
    for s in scored:
        p = s.prediction
        first.setdefault((p.dialogue, p.category, p.question.strip(), p.gold), s)
    return list(first.values())


def _evidence(predictions: Sequence[Prediction]) -> dict[str, Interval]:
    found: dict[str, dict[str, list[float]]] = {}
    for p in predictions:
        if not p.evidence:
            continue
        if p.evidence_in_candidates is not None:
            found.setdefault("in_candidates", {}).setdefault(p.dialogue, []).append(p.evidence_in_candidates)
        found.setdefault("in_used", {}).setdefault(p.dialogue, []).append(evidence_recall(p.used, p.evidence))
    return {name: hierarchical_bootstrap({0: values}) for name, values in found.items()}


def _plain(means: Mapping[str, Interval]) -> dict[str, dict[str, float | int]]:
    return {name: interval.to_json() for name, interval in means.items()}
