"""The heuristics that MemAgent's and MemSearcher's base imitates, as samplers of their compact prompts: baselines to
beat. With an error rate other ways of doing each thing get some probability, which learning can then choose from.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from memorist.agents.components.fields import read_fields
from memorist.agents.memagent import UNCHANGED
from memorist.decision import Action, Observation
from memorist.models.sampler import Request

_WORD = re.compile(r"[a-z0-9]+")
_NAME = re.compile(r"[A-Z][a-z]+(?: [A-Z][a-z]+)*")
_NUMBER = re.compile(r"\b\d{4,}\b")
_NO_NAME = frozenset("A An At From In Little More No Several Sources The This Was What Which".split())
_COMMON = frozenset("a after an has in is its of that the to was what where which whom with".split())
TOOL = "wikipedia_search"


def sentences(text: str) -> list[str]:
    """The sentences of a text in their order; titles in quotes are none."""
    lines = [line for line in text.split("\n") if line and not line.startswith('"')]
    return [one.strip() for line in lines for one in re.findall(r"[^.!?]*[.!?]", line)]


def words(text: str) -> frozenset[str]:
    """The words of a text that say what it is about."""
    return frozenset(_WORD.findall(text.lower())) - _COMMON


def names(text: str) -> list[str]:
    """What a text calls by a name, in its order."""
    found = [" ".join(w for w in name.split() if w not in _NO_NAME) for name in _NAME.findall(text)]
    return [name for name in found if name]


def values(sentence: str, question: str) -> list[str]:
    """What a sentence says that could be asked for: names that the question has not, numbers, its last word."""
    known = set(names(question))
    found = [name for name in names(sentence) if name not in known] + _NUMBER.findall(sentence)
    return found or re.findall(r"\b[a-z]+(?=[.!?]$)", sentence)


def likeness(sentence: str, question: str) -> int:
    """How many words they share."""
    return len(words(sentence) & words(question))


def boxed_value(question: str, memory: str, rng: random.Random | None = None) -> str:
    """What the sentence says that shares most words with the question (the later one, where two do); with `rng`, what
    any sentence says."""
    held = sentences(memory)
    if not held:
        return "\\boxed{ none}"
    picked = rng.choice(held) if rng else max(reversed(held), key=lambda one: likeness(one, question))
    said = values(picked, question) or ["none"]
    return f"\\boxed{{ {rng.choice(said) if rng else said[-1]}}}"


class _Keeper(ABC):
    """What both do when they write a memory.

    Args:
        keep: sentences of what is new.
        newest: whether what is new stands before what is old (which falls out of a memory that is full).
        shared: words that a sentence must share with the question to be kept.
        error: share of decisions of another kind, at random.
        apt: share of these that are apt: a sentence about a name of the question, likelier the more they share; no
            change where there is none; the newest name, the newest answer.
    """

    def __init__(
        self, keep: int = 1, *, newest: bool = False, shared: int = 0, error: float = 0.0, apt: float = 0.0
    ) -> None:
        self.keep, self.newest, self.shared, self.error, self.apt = keep, newest, shared, error, apt

    @property
    def _erring(self) -> str:
        return f",error {self.error:g},apt {self.apt:g}" if self.error else ""

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Decide each request on its own."""
        return [Action(self._decide(r.observation, random.Random(r.seed))) for r in requests]

    @abstractmethod
    def _decide(self, observation: Observation, rng: random.Random) -> str:
        """The reply."""

    def _write(self, question: str, memory: str, text: str) -> str:
        """The memory anew: the first sentences of the text that share enough, with the old one."""
        fitting = [one for one in sentences(text) if likeness(one, question) >= self.shared][: self.keep]
        parts = [*fitting, memory] if self.newest else [memory, *fitting]
        return " ".join(part for part in parts if part)

    def _otherwise(self, question: str, memory: str, text: str, rng: random.Random) -> str:
        """Another memory: with a sentence more likely kept the more it shares; sometimes without the old one."""
        if rng.random() < self.apt:
            return self._aptly(question, memory, text, rng)
        known = sentences(text)
        if not known:
            return memory
        picked = rng.choices(known, [0.3 + likeness(one, question) for one in known])[0]
        kept = "" if rng.random() < 0.25 else memory
        return " ".join(part for part in (kept, picked) if part)

    def _aptly(self, question: str, memory: str, text: str, rng: random.Random) -> str:
        """The memory with a new sentence about a name of the question: likelier one that shares more words with it."""
        held, known = set(sentences(memory)), set(names(question))
        about = [one for one in sentences(text) if one not in held and known & set(names(one))]
        picked = rng.choices(about, [likeness(one, question) ** 3 for one in about]) if about else []
        return " ".join(part for part in (memory, *picked) if part)


class FirstSentences(_Keeper):
    """Reads as MemAgent does: keeps the first sentences of each chunk, answers from the one most like the question."""

    @property
    def name(self) -> str:
        """With its settings, for tables."""
        return f"first-sentences({self.keep},{'newest' if self.newest else 'oldest'},{self.shared}{self._erring})"

    def _decide(self, observation: Observation, rng: random.Random) -> str:
        asked = read_fields(observation.prompt)
        errs = rng.random() < self.error
        if "answer" in asked:
            at_random = rng if errs and rng.random() >= self.apt else None
            return boxed_value(asked["question"], asked.get("memory", asked.get("text", "")), at_random)
        question, memory, text = asked["question"], asked["memory"], asked["text"]
        if errs and rng.random() < 0.5 * (1 - self.apt):
            return UNCHANGED
        new = self._otherwise(question, memory, text, rng) if errs else self._write(question, memory, text)
        return f" {new}" if new and new != memory else UNCHANGED


QUERIES = ("question", "name", "newest")


class QuestionWords(_Keeper):
    """Searches as MemSearcher does: for the question's words, keeps the first sentences of what is found, answers when
    the memory has as many as so many searches give.

    Args:
        searches: before it answers.
        query: "question": its words; "name": the last name in it; "newest": the last name in the memory that the
            question has not, and before there is one the last name in the question.
    """

    def __init__(self, searches: int = 1, *, query: str = "question", **given: float) -> None:
        super().__init__(**given)  # type: ignore[arg-type]
        self.searches, self.query = searches, query

    @property
    def name(self) -> str:
        """With its settings, for tables."""
        return f"question-words({self.searches},{self.query},{self.keep},{self.shared}{self._erring})"

    def _decide(self, observation: Observation, rng: random.Random) -> str:
        begun = [read_fields(asked.prompt) for asked, _ in observation.after]
        asked = read_fields(observation.prompt)
        question = (begun or [asked])[0]["question"]
        memory = (begun or [asked])[0]["memory"]
        errs = rng.random() < self.error
        if "new memory" in asked:
            found = asked["found"]
            # The next thing to find is like what is remembered, too.
            about = f"{question} {memory}" if errs else question
            new = self._otherwise(about, memory, found, rng) if errs else self._write(question, memory, found)
            return f"<memory> {new or '-'}</memory>"
        # In one window that all stays in, what was kept is read out of what was found.
        for found in [f["found"] for f in [*begun, asked] if "found" in f]:
            memory = self._write(question, memory, found)
        searched = len(begun) if begun else -(-len(sentences(memory)) // self.keep)
        answers = searched >= self.searches
        if errs and searched and rng.random() < 0.5:
            answers = not answers
        aptly = errs and rng.random() < self.apt
        if answers and aptly:
            return boxed_value("", (sentences(memory) or [""])[-1])
        if answers:
            return boxed_value(question, memory, rng if errs else None)
        way = ("newest" if aptly else rng.choice(QUERIES)) if errs else self.query
        query = self._query(question, memory, way)
        call = f'{{"name": "{TOOL}", "arguments": {{"query": " {query}"}}}}'
        return f"<tool_call>{call}</tool_call>"

    def _query(self, question: str, memory: str, way: str) -> str:
        if way == "question":
            return question.rstrip("?")
        known = names(question)
        fresh = [name for name in names(memory) if name not in known] if way == "newest" else []
        return (fresh or known or [question.rstrip("?")])[-1]
