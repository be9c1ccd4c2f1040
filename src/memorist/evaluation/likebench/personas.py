"""Simulated people: what they like, what they tell and when, drawn by hashes so that they are the same everywhere.

Each draw is a hash of the seed, the person and the name of what is drawn (§3.2 of the spec), so that a draw more or
less changes no other. What an assistant is to find out stands nowhere in what it is shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from memorist.evaluation.likebench.facets import FACETS
from memorist.evaluation.likebench.judge import Alluded, Liking
from memorist.evaluation.likebench.text import EXPERT, HUMOR

T = TypeVar("T")
SOCIAL, PREDICTABLE = ("social", "antisocial"), ("predictable", "unpredictable")
CENTRES = (15, 30, 60, 110)
"""Words of a reply that people like."""
SUPPORT = ("validate", "solve", "space")
TOPICS = tuple(EXPERT)
EXPERTISE = (0.1, 0.5, 0.9)


def u(seed: int, *names: object) -> float:
    """A number in [0, 1), the same wherever it is asked for."""
    digest = hashlib.sha256("|".join(map(str, (seed, *names))).encode()).hexdigest()
    return int(digest[:8], 16) / 2**32


def pick(values: Sequence[T], x: float) -> T:
    """The value at a share of the list."""
    return values[int(len(values) * x)]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fact can be about. label: how the person refers to it without telling. states, hints: how it is told
    plainly, and how so that it must be understood. of_another: how somebody else's is told."""

    label: str
    values: tuple[str, ...]
    states: str
    hints: str
    of_another: str


def _kinds() -> tuple[Kind, ...]:
    file = Path(str(resources.files("memorist"))) / "evaluation" / "likebench" / "facts.txt"
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            label, values, states, hints, of_another = line.split(" ;; ")
            found.append(Kind(label, tuple(values.split("/")), states, hints, of_another))
    return tuple(found)


KINDS = _kinds()
"""Facts in their order; the first eight are the spec's."""

REFERENCES = (
    Alluded(("the usual place",), ("blue door cafe", "blue door"), ("cafe", "coffee shop"), ("red lion",)),
    Alluded(("that old film",), ("night ferry",), ("film", "movie"), ("paper moon",)),
    Alluded(("the big day",), ("boat race",), ("race", "regatta"), ("chess final",)),
    Alluded(("you know who",), ("mister pemberton", "pemberton"), ("landlord",), ("miss abernathy",)),
)
NAMES = ("Alex", "Robin", "Sasha", "Kim", "Charlie", "Jules", "Noor", "Toni")


@dataclass(frozen=True)
class Fact:
    """What holds of a person. implicit: never told plainly. then: what it changes to; "" if it does not. number: among
    the person's facts."""

    number: int
    kind: Kind
    value: str
    implicit: bool = False
    then: str = ""

    @property
    def id(self) -> str:
        """Sorts as the number does."""
        return f"f{self.number:03d}"


@dataclass(frozen=True)
class Persona:
    """One person. seed, id: what all draws are made from. liking: what they like in the first session."""

    id: str
    seed: int
    name: str
    social: str
    predictability: str
    liking: Liking
    directness: float
    question_tolerance: int
    reference_rate: float
    facts: tuple[Fact, ...]
    reference: Alluded
    sessions: int

    def u(self, *names: object) -> float:
        """A draw of this person's."""
        return u(self.seed, self.id, *names)

    @property
    def drifts_in(self) -> int:
        """The session from which on they like something else; 0 where none is."""
        return (self.sessions + 1) // 2 + 1 if self.predictability == "unpredictable" and self.sessions > 1 else 0

    def likes(self, session: int) -> Liking:
        """What they like in a session, from 1."""
        return self._later if self.drifts_in and session >= self.drifts_in else self.liking

    @cached_property
    def _later(self) -> Liking:
        old = self.liking
        register = 1 - old.formality if abs(old.formality - 0.5) > 0.2 else old.formality
        centre = next(c for c in CENTRES if band(c) == (old.lo, old.hi))
        lo, hi = band({15: 30, 30: 60, 60: 30, 110: 60}[centre])
        return replace(old, formality=register, lo=lo, hi=hi)

    @property
    def facets(self) -> dict[str, str]:
        """How they are, in sentences, by facet."""
        return {name: sentence(self.name, name, self.u(f"facet|{name}")) for name in FACETS}

    @property
    def summary(self) -> str:
        """Who they are, in prose, as a model that plays them is told; without numbers or names of traits."""
        liking = self.liking
        register = "formal, careful" if liking.formality >= 0.6 else "casual" if liking.formality <= 0.4 else "plain"
        like = {"validate": "be heard before any advice", "solve": "be told what to do", "space": "be left in peace"}
        jokes = "does not care for jokes" if liking.appetite < 0.3 else f"enjoys {liking.humor.replace('_', '-')} jokes"
        level = {0.1: "nothing", 0.5: "something", 0.9: "a great deal"}
        knows = ", ".join(f"{level[e]} of {topic}" for topic, e in liking.expertise.items())
        memory = "is pleased" if liking.callback >= 0.5 else "is not pleased"
        some = list(self.facets.values())[:8]
        return " ".join(
            [
                f"{self.name} writes in a {register} way and likes replies that are {_size(liking)}.",
                f"When something goes badly, {self.name} wants to {like[liking.support]}.",
                f"{self.name} {jokes}, knows {knows}, and {memory} when earlier things are brought up unasked.",
                *some,
            ]
        )  # fmt: skip


def _size(liking: Liking) -> str:
    return {15: "a line long", 30: "short", 60: "of middling length", 110: "long"}[
        next(c for c in CENTRES if band(c) == (liking.lo, liking.hi))
    ]


def band(centre: int) -> tuple[int, int]:
    """Words that are liked, by the middle."""
    return round(0.67 * centre), round(1.33 * centre)


def persona(number: int, seed: int = 7, *, sessions: int = 6, facts: int = 8, changing: int = 0) -> Persona:
    """One person.

    Args:
        number: of the person, from 0.
        seed: of all draws.
        sessions: that they talk in.
        facts: that they tell, at most 24; from nine on a quarter of them is never told plainly.
        changing: how many of them change.
    """
    name = f"p{number:03d}"

    def draw(slot: str) -> float:
        return u(seed, name, slot)

    lo, hi = band(pick(CENTRES, draw("length")))
    liking = Liking(
        0.15 + 0.7 * draw("formality"), lo, hi, pick(SUPPORT, draw("support")), draw("humor"),
        pick(tuple(HUMOR), draw("hstyle")), {topic: pick(EXPERTISE, draw(f"exp|{topic}")) for topic in TOPICS},
        draw("callback"),
    )  # fmt: skip
    told = []
    for k, kind in enumerate(KINDS[:facts]):
        value = pick(kind.values, draw(f"fact|{k}"))
        then = kind.values[(kind.values.index(value) + 1) % len(kind.values)] if k < changing else ""
        told.append(Fact(k, kind, value, implicit=facts > 8 and k % 4 == 3, then=then))
    return Persona(
        name, seed, pick(NAMES, draw("name")), pick(SOCIAL, draw("social")), pick(PREDICTABLE, draw("pred")), liking,
        draw("direct"), pick((0, 1, 2), draw("qtol")), 0.1 + 0.3 * draw("refrate"), tuple(told),
        pick(REFERENCES, draw("ref")), sessions,
    )  # fmt: skip


def sentence(name: str, facet: str, level: float) -> str:
    """One facet in words; how far from the middle says how often."""
    situation, high, low = FACETS[facet]
    away = abs(level - 0.5)
    how = "almost always" if away >= 0.35 else "usually" if away >= 0.15 else "sometimes"
    return f"When {situation}, {name} {how} {high if level >= 0.5 else low}."


def to_json(one: Persona) -> dict[str, Any]:
    """As a file keeps it."""
    liking = one.liking
    return {
        "id": one.id, "seed": one.seed, "social": one.social, "predictability": one.predictability,
        "demographics": {"name": one.name},
        "facets": {name: {"text": text, "level": one.u(f"facet|{name}")} for name, text in one.facets.items()},
        "style": {
            "formality": liking.formality, "reply_length": [liking.lo, liking.hi], "support_style": liking.support,
            "humor": {"appetite": liking.appetite, "style": liking.humor}, "expertise": dict(liking.expertise),
            "reference_rate": one.reference_rate, "callback_appetite": liking.callback, "directness": one.directness,
            "question_tolerance": one.question_tolerance,
        },
        "facts": [
            {"id": f.id, "key": f.kind.label, "value": f.value, "then": f.then,
             "kind": "implicit" if f.implicit else "explicit"} for f in one.facts
        ],
        "references": [{"surface": list(one.reference.surface), "gold": list(one.reference.gold)}],
        "summary": one.summary,
    }  # fmt: skip
