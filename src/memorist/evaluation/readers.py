"""What MemAgent and MemSearcher are compared with: gold memories, tuned heuristics, and one search for the question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from memorist.agents.components.notes import Notes
from memorist.agents.memagent import MemAgent, Outcome
from memorist.agents.text_heuristics import QUERIES, FirstSentences, QuestionWords, names, sentences
from memorist.memory.record import Scope
from memorist.models.sampler import Sampler
from memorist.scoring import boxed
from memorist.tasks.corpus import Corpus
from memorist.tasks.long_document import LongDocumentTask
from memorist.tasks.searching import SearchTask
from memorist.training.rollout import Run, Seat, play


class GoldMemory(MemAgent):
    """Answers from the sentences of a document that hold the evidence and what they are about: what a perfect reader
    keeps."""

    async def run(self, task: Any) -> Outcome:
        """Write them down, then answer."""
        scope = Scope("document")
        Notes(self.bank, scope).write(gold_memory(task))
        reply = await self.answer(task.question, scope)
        return Outcome((), (self.memory(scope),), reply, boxed(reply) or "")


def gold_memory(task: LongDocumentTask) -> str:
    """For each piece of evidence the first sentence that holds it and the name that led to it."""
    held, known = [], names(task.question)
    told = sentences(task.document)
    for piece in task.evidence:
        found = [s for s in told if piece in s and any(name in s for name in known) and s not in held]
        held += found[:1]
        known = [piece]
    return " ".join(held) or "-"


def points(groups: Iterable[Sequence[Run]], measure: str = "") -> dict[str, list[float]]:
    """Of each task's one run, in points: its answer's reward, or what it `measure`s."""
    found = {}
    for (run,) in groups:
        facts = run.trajectory.facts.get("measures", {})
        value = facts[measure] if measure else next(r.value for r in run.trajectory.rewards if r.name == "answer")
        found[run.trajectory.task] = [100 * value]
    return found


def reading_heuristics() -> list[FirstSentences]:
    """The keep-the-first-sentences heuristic, as it can be set."""
    return [FirstSentences(keep, newest=newest) for keep in (1, 2, 3) for newest in (False, True)]


def choosing_heuristics() -> list[FirstSentences]:
    """Stronger ones: the first sentences that share words with the question; and the apt part of what the base
    imitates, alone."""
    sharing = [FirstSentences(keep, shared=shared) for keep in (1, 2, 3) for shared in (1, 2, 3)]
    return [*sharing, FirstSentences(error=1.0, apt=1.0)]


def searching_heuristics() -> list[QuestionWords]:
    """The search-the-question-words heuristic, as it can be set: how often, what is kept."""
    grid = [(s, k) for s in (1, 2, 3) for k in (1, 2)]
    return [QuestionWords(s, keep=k) for s, k in grid]


def following_heuristics() -> list[QuestionWords]:
    """Stronger ones: names are searched, and sentences kept that share words with the question; and the apt part of
    what the base imitates, alone."""
    grid = [(s, q, k, w) for s in (1, 2, 3) for q in QUERIES for k in (1, 2) for w in (0, 1, 2)]
    following = [QuestionWords(s, query=q, keep=k, shared=w) for s, q, k, w in grid]
    return [*following, *(QuestionWords(s, error=1.0, apt=1.0) for s in (1, 2, 3))]


def tuned(
    build: Callable[..., Any],
    role: str,
    tasks: Sequence[Any],
    heuristics: Sequence[Any],
    answerer: Sampler | None = None,
) -> Any:
    """Of the heuristics the one that answers most of these (training) tasks right; with `answerer`, the last word is
    its."""

    def score(heuristic: Any) -> float:
        seat = Seat(Reading(heuristic, answerer) if answerer else heuristic)
        values = [v for vs in points(play(build, tasks, {role: seat})).values() for v in vs]
        return sum(values) / len(values)

    best = max(heuristics, key=score)
    return Reading(best, answerer) if answerer else best


class Reading:
    """A heuristic that reads, before a model that answers: so that memories are compared and not ways to answer."""

    def __init__(self, heuristic: Any, answerer: Sampler) -> None:
        self.heuristic, self.answerer = heuristic, answerer
        self.name = heuristic.name

    def sample(self, requests: Sequence[Any]) -> list[Any]:
        """Answers by the model, all else by the heuristic."""
        asked = [request.observation.prompt.endswith("Answer:\n") for request in requests]
        answers = iter(
            self.answerer.sample([r for r, a in zip(requests, asked, strict=True) if a]) if any(asked) else []
        )
        others = iter(self.heuristic.sample([r for r, a in zip(requests, asked, strict=True) if not a]))
        return [next(answers) if a else next(others) for a in asked]


def words_read(corpus: Corpus, ids: Iterable[str]) -> int:
    """How many words documents have; what was read twice counts twice."""
    return sum(len(corpus.by_id[name].contents.split()) for name in ids)


def one_search(task: SearchTask, words: int) -> set[str]:
    """What the best documents for the question are, up to the one with which so many words are read."""
    assert isinstance(task.corpus, Corpus)
    found: set[str] = set()
    read = 0
    for one in task.corpus.search(task.question, len(task.corpus.documents)):
        if read >= words:
            break
        found.add(one.document.id)
        read += len(one.document.contents.split())
    return found
