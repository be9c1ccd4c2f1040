"""A listener and an answerer that need no language model: the chooser decides about each statement, the embedder finds
its leaf, and a question is answered by the clause that is nearest to it.

What a person says is taken apart into statements (`components.splitter`); each is chosen about beside the clauses of
the tree that are nearest to it, as `agents.offline` does with memories: a new one goes to the leaf whose name is
nearest, one that takes a clause's place or adds to it goes where that clause stands, one that ends it takes it out.
What is said of others is left out, save how somebody of one's own is called, and so is what is of today alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from memorist.agents.components.splitter import statements_in
from memorist.agents.profile_heuristics import heard_in, known_in, part_of
from memorist.decision import Action, Distribution, Observation
from memorist.memory.embed import Embedder, Vectors
from memorist.memory.minilm import MiniLM
from memorist.memory.profile_edits import edits_between
from memorist.memory.profile_schema import Schema, persona_schema
from memorist.models.chooser import Chooser, chosen, options
from memorist.models.sampler import Request, Sampler

NEAREST = 4
"""Clauses that a statement is chosen about beside."""
BETWEEN = "; "
_GREEDY = Distribution(temperature=0.0)
_OTHERS = "|".join(
    "mother father mum mom dad parents? (?:step|grand|god)\\w+ sisters? brothers? siblings? aunts? uncles? cousins? "
    "nieces? nephews? wife husband partner girlfriend boyfriend fianc\\w+ ex sons? daughters? child children kids? "
    "friends? neighbou?rs? colleagues? boss manager teachers? trainer coach doctor dentist barber landlord landlady "
    "lodger tenant (?:flat|room|house)-?mates? postman librarian students? clients? in-laws?".split()
)
_OF_OTHERS = re.compile(
    rf"(?:he|she|they|(?:my|our)(?: \w+)? (?:{_OTHERS}))\b(?!(?:'s name)? (?:is|are) (?:called|named)\b)", re.IGNORECASE
)
_OF_ME = re.compile(r"(?:\w+[ ,]+){0,3}(?:i|my|mine|we|our)\b", re.IGNORECASE)
_PASSING = re.compile(
    r"\b(?:today|tonight|this (?:morning|afternoon|evening|week|weekend)|yesterday|right now|last night)\b",
    re.IGNORECASE,
)


def of_oneself(statement: str) -> bool:
    """Whether a statement tells something lasting of the one who makes it: its subject is neither a thing nor somebody
    else ("My sister is called Imogen" is of one's own family), and it is not of what is so today."""
    return bool(_OF_ME.match(statement)) and not (_OF_OTHERS.match(statement) or _PASSING.search(statement))


@dataclass(frozen=True)
class Clause:
    """A part of a leaf's text."""

    path: str
    text: str


class OfflineListener:
    """Reads the prompts of `PersonaTree` and writes edits.

    Args:
        chooser: what decides; None for the one that comes with the package.
        embedder: what finds leaves and clauses.
        schema: the leaves.
    """

    name = "offline"

    def __init__(
        self, chooser: Sampler | None = None, embedder: Embedder | None = None, schema: Schema | None = None
    ) -> None:
        self.chooser = Chooser() if chooser is None else chooser
        self.embedder = MiniLM() if embedder is None else embedder
        self.schema = schema or persona_schema()
        self._leaves: Vectors | None = None
        self._paths: list[str] = []

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Listen to each."""
        found = []
        for request in requests:
            known = known_in(request.observation.prompt)
            own = self.heard(known, heard_in(request.observation.prompt))
            found.append(Action("\n".join(map(str, edits_between(known, own)))))
        return found

    def heard(self, known: Mapping[str, str], said: Sequence[str]) -> dict[str, str]:
        """The leaves as they are after what was said."""
        clauses = [Clause(path, part) for path, text in known.items() for part in text.split(BETWEEN) if part]
        for message in said:
            for statement in statements_in(message):
                if of_oneself(statement):
                    clauses = self._chosen(clauses, statement.rstrip(".").replace(BETWEEN, ", "))
        own: dict[str, list[str]] = {path: [] for path in known}
        for clause in clauses:
            own.setdefault(clause.path, []).append(clause.text)
        return {path: BETWEEN.join(texts) for path, texts in own.items()}

    def _chosen(self, clauses: list[Clause], statement: str) -> list[Clause]:
        near = nearest(self.embedder, statement, clauses, NEAREST)
        seen = Observation(statement, options=options([one.text for one in near]))
        [action] = self.chooser.sample([Request(seen, _GREEDY, 0)])
        kind, target = chosen(action.choice[0])
        if target is None:
            return [*clauses, Clause(self.leaf(statement), statement)] if kind == "ADD" else clauses
        old = near[target]
        new = {"UPDATE": [Clause(old.path, statement)], "JOIN": [old, Clause(old.path, statement)]}.get(kind, [])
        place = clauses.index(old)
        return [*clauses[:place], *new, *clauses[place + 1 :]]

    def leaf(self, statement: str) -> str:
        """The leaf of which the name, with that above it, or an example is nearest to a statement."""
        if self._leaves is None:
            told = [(readable(path), path) for path in self.schema.leaves]
            told += [(text, path) for path, texts in examples(self.schema).items() for text in texts]
            self._leaves = self.embedder.embed([text for text, _ in told])
            self._paths = [path for _, path in told]
        [vector] = self.embedder.embed([statement])
        return self._paths[int(np.argmax(self._leaves @ vector))]


class OfflineAnswerer:
    """Answers with what the tree says, under the names of its leaf, that is nearest to the question, or with a line of
    the dialogue where one is nearer; word for word. "" where there is neither.

    It reads the prompts of `PersonaTree`.
    """

    name = "offline"

    def __init__(self, embedder: Embedder | None = None) -> None:
        self.embedder = MiniLM() if embedder is None else embedder

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Answer each."""
        return [Action(f"Answer: {self._answer(request.observation.prompt)}") for request in requests]

    def _answer(self, prompt: str) -> str:
        profile, question = ("\n".join(part_of(prompt, tag)) for tag in ("profile", "question"))
        clauses = list(_clauses(json.loads(profile))) if profile.startswith("{") else []
        told = [f"{readable(one.path)}: {one.text}" for one in clauses]
        said = [line for line in part_of(prompt, "dialogue") if line]
        if not (told or said):
            return ""
        vectors = self.embedder.embed([question, *told, *said])
        best = int(np.argmax(vectors[1:] @ vectors[0]))
        return clauses[best].text if best < len(clauses) else said[best - len(clauses)].partition(": ")[2]


def _clauses(nested: Any, above: str = "") -> Iterator[Clause]:
    for name, value in nested.items():
        path = f"{above}.{name}" if above else name
        if isinstance(value, str):
            yield from (Clause(path, part) for part in value.split(BETWEEN) if part)
        else:
            yield from _clauses(value, path)


def nearest(embedder: Embedder, said: str, clauses: Sequence[Clause], k: int) -> list[Clause]:
    """The clauses that are nearest to what was said, nearest first."""
    if not clauses:
        return []
    vectors = embedder.embed([said, *(one.text for one in clauses)])
    order = np.argsort(-(vectors[1:] @ vectors[0]), kind="stable")[:k]
    return [clauses[i] for i in order]


def examples(schema: Schema) -> dict[str, tuple[str, ...]]:
    """What people say, by the leaf that it belongs to; of those leaves that a schema has."""
    file = resources.files("memorist") / "memory" / "schemas" / "personatree_examples.txt"
    by_end = {".".join(path.split(".")[-2:]): path for path in schema.leaves}
    found: dict[str, tuple[str, ...]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        end, _, texts = line.partition(": ")
        if not line.startswith("#") and end in by_end:
            found[by_end[end]] = tuple(text.strip() for text in texts.split(";"))
    return found


def readable(path: str) -> str:
    """The last two names of a path as words."""
    return ": ".join(part.replace("_", " ").lower() for part in path.split(".")[-2:])
