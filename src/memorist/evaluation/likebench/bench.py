"""The benchmark: people talk to an assistant over sessions, rate every reply, and are asked what it remembers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from memorist.errors import DataError, PolicyError, RecipeError
from memorist.evaluation.likebench.assistants import Assistant
from memorist.evaluation.likebench.judge import DIMENSIONS, Liking, Rating, rate, turn_score
from memorist.evaluation.likebench.metrics import adaptability, dimension_means, session_means
from memorist.evaluation.likebench.personas import KINDS, Persona, persona
from memorist.evaluation.likebench.served import LIMIT, ModelJudge, ModelUser, Verdict
from memorist.evaluation.likebench.simulator import User
from memorist.evaluation.likebench.text import text

LONGEST_REPLY = 20_000
"""Characters of a reply that are read."""
ROUNDS = 2000
"""Resamples of people behind an interval."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many people, sessions and turns of each, facts, how many of them change; noise: share of turns that are of
    somebody else.

    Raises:
        RecipeError: a number is impossible.
    """

    people: int = 8
    sessions: int = 6
    turns: int = 6
    facts: int = 8
    changing: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("people", 10_000), ("sessions", 1000), ("turns", 1000)):
            if not 1 <= getattr(self, name) <= most:
                raise RecipeError(f"{name} is {getattr(self, name)}; expected 1 to {most}")
        if not 0 <= self.facts <= len(KINDS) or not 0 <= self.changing <= self.facts:
            raise RecipeError(f"facts is {self.facts}, of which {self.changing} change; expected 0 to {len(KINDS)}")
        if not 0 <= self.noise < 1:
            raise RecipeError(f"noise is {self.noise}; expected from 0 to below 1")


SIZES: Mapping[str, Size] = {
    "smoke": Size(4, 2, 4),
    "small": Size(),
    "forty": Size(40),
    "standard": Size(40, 10, 8, 24, 4),
    "long-noisy": Size(40, 20, 8, 24, 4, 0.4),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as it is kept. source: who rated it ("offline", "llm", or "fallback" where the rules had to). offline:
    what the rules say, whoever rated. reasons, flags: of a judge that is a model. error: what went wrong, if anything
    did."""

    persona: str
    session: int
    turn: int
    event: str
    user: str
    assistant: str
    ratings: Mapping[str, Rating]
    hint: str = ""
    source: str = "offline"
    offline: Mapping[str, Rating] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    error: str = ""

    @property
    def score(self) -> float:
        """The mean of what applies."""
        return turn_score(self.ratings)

    def to_json(self) -> dict[str, Any]:
        """A line of a transcript."""
        return asdict(self) | {"turn_score": self.score}


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an assistant holds of a person (§5.3). lines: of its profile. supported, stale, foreign: how many of them
    say what holds, what no longer does, and what is somebody else's. facts: distinct ones that are supported. told:
    facts that were told. explicit, implicit: right answers and all questions of each kind."""

    lines: int
    supported: int
    stale: int
    foreign: int
    facts: int
    told: int
    explicit: tuple[int, int]
    implicit: tuple[int, int]


@dataclass(frozen=True)
class Person:
    """All that came of one person."""

    persona: Persona
    turns: tuple[Turn, ...]
    remembered: Remembered

    @property
    def ratings(self) -> dict[tuple[int, int], Mapping[str, Rating]]:
        """By session and turn."""
        return {(turn.session, turn.turn): turn.ratings for turn in self.turns}

    @property
    def sessions(self) -> list[float]:
        """The mean of each session."""
        return session_means(self.ratings)

    @property
    def likability(self) -> float:
        """The mean of the sessions."""
        return sum(self.sessions) / len(self.sessions)


@dataclass
class Insight:
    """What perfect assistants look into: what the person has told, and how they like it now."""

    user: User
    session: int = 1

    def facts(self) -> dict[str, str]:
        """What holds, by label."""
        labels = {fact.id: fact.kind.label for fact in self.user.persona.facts}
        return {labels[name]: value for name, value in self.user.told.items()}

    def value(self, label: str) -> str:
        """Of one label."""
        return self.facts().get(label, "")

    def meant(self, surface: str) -> str:
        """What an allusion means."""
        known = self.user.introduced and surface in self.user.persona.reference.surface
        return self.user.persona.reference.gold[0] if known else ""

    def liking(self) -> Liking:
        """What they like now."""
        return self.user.persona.likes(self.session)


Make = Callable[[Insight], Assistant]
"""Makes an assistant for a new person; only references look at what it is given."""


@dataclass(frozen=True)
class Models:
    """Models that judge and that speak for people; None: the rules do."""

    judge: ModelJudge | None = None
    user: ModelUser | None = None


async def talk(make: Make, one: Persona, size: Size, models: Models | None = None) -> Person:
    """All sessions of one person."""
    models = models or Models()
    user = User(one, size.noise, size.turns)
    insight = Insight(user)
    assistant = make(insight)
    turns: list[Turn] = []
    replies: list[str] = []
    for session in range(1, size.sessions + 1):
        insight.session = session
        heard: list[tuple[str, str]] = []
        for number, event in enumerate(user.events(session), 1):
            known = user.known()
            said = user.speak(session, number, event)
            if models.user is not None:
                said = replace(said, user=models.user.speak(one, heard, said))
            reply, error = await _replied(assistant, said.user)
            moment = user.moment(said, known, replies)
            offline = rate(reply, moment)
            verdict = Verdict(offline, source="offline")
            if models.judge is not None:
                verdict = models.judge.rate(one, heard, said, reply, moment)
            user.notice(said, verdict.ratings, reply, known)
            turns.append(
                Turn(one.id, session, number, said.event, said.user, reply, verdict.ratings, said.hint, verdict.source,
                     offline, verdict.reasons, verdict.flags, error)
            )  # fmt: skip
            replies = [*replies, reply]
            heard.append((said.user, reply))
        error = await _ended(assistant)
        if error:
            turns[-1] = replace(turns[-1], error=error)
    return Person(one, tuple(turns), await remembered(assistant, user))


async def _replied(assistant: Assistant, said: str) -> tuple[str, str]:
    """A reply, or "" and what went wrong: an assistant that fails is rated as one that says nothing; one whose model is
    not to be reached ends the run."""
    try:
        reply = await assistant.reply(said)
    except PolicyError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever somebody's assistant raises
        return "", f"{type(error).__name__}: {error}"[:500]
    if not isinstance(reply, str):
        return "", f"a reply of type {type(reply).__name__}; expected text"
    return reply[:LONGEST_REPLY], "" if reply.strip() else "an empty reply"


async def _ended(assistant: Assistant) -> str:
    try:
        await assistant.end_session()
    except PolicyError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        return f"end of session: {type(error).__name__}: {error}"[:500]
    return ""


async def remembered(assistant: Assistant, user: User) -> Remembered:
    """What it holds, by its profile and by asking."""
    known = user.known()
    try:
        lines = [text(str(line)) for line in assistant.profile()]
    except Exception:  # noqa: BLE001 - as above
        lines = []
    values = {f.id: {f.value} - {user.told.get(f.id)} for f in user.persona.facts if f.id in user.told}
    supported, facts, stale, foreign = 0, set[str](), 0, 0
    for line in lines:
        old = any(line.has(values[name]) for name in known)
        others = any(line.has(set(fact.stale) - values[name]) for name, fact in known.items())
        says = {name for name, fact in known.items() if line.has(fact.current)}
        stale, foreign = stale + old, foreign + others
        if says and not old and not others:
            supported += 1
            facts |= says
    asked: dict[bool, list[bool]] = {False: [], True: []}
    for fact in user.persona.facts:
        if fact.id in known:
            try:
                answer = text(str(await assistant.recall(f"What do you know about {fact.kind.label}?")))
            except PolicyError:
                raise
            except Exception:  # noqa: BLE001 - as above
                answer = text("")
            right = answer.has(known[fact.id].current) and not answer.has(known[fact.id].stale)
            asked[fact.implicit].append(right)
    return Remembered(
        len(lines), supported, stale, foreign, len(facts), len(known), (sum(asked[False]), len(asked[False])),
        (sum(asked[True]), len(asked[True])),
    )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of an assistant."""

    name: str
    size: Size
    people: tuple[Person, ...] = field(repr=False)

    @property
    def likability(self) -> float:
        """The mean over people, from 1 to 5."""
        return float(np.mean([person.likability for person in self.people]))

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """95 %, over people."""
        values = np.array([person.likability for person in self.people])
        drawn = np.random.default_rng(seed).integers(0, len(values), (ROUNDS, len(values)))
        low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
        return float(low), float(high)

    @property
    def curve(self) -> list[float]:
        """The mean of each session, over people."""
        return [float(x) for x in np.mean([person.sessions for person in self.people], 0)]

    @property
    def dimensions(self) -> dict[str, float | None]:
        """The mean of each dimension over people, where it applies."""
        of_each = [dimension_means(person.ratings) for person in self.people]
        found: dict[str, float | None] = {}
        for name in DIMENSIONS:
            given = [value for one in of_each if (value := one[name]) is not None]
            found[name] = sum(given) / len(given) if given else None
        return found

    @property
    def equal_dimensions(self) -> float:
        """The mean of the dimensions, each counted alike."""
        given = [value for value in self.dimensions.values() if value is not None]
        return sum(given) / len(given)

    @property
    def memory(self) -> dict[str, float]:
        """Shares over all people (§5.3). accuracy: of the profile's lines; facts: lines a person; recall: of what was
        told; stale, foreign: of the lines; probe: right answers."""
        sums = {
            name: sum(getattr(person.remembered, name) for person in self.people)
            for name in ("lines", "supported", "stale", "foreign", "facts", "told")
        }
        right = sum(p.remembered.explicit[0] + p.remembered.implicit[0] for p in self.people)
        lines, told = max(1, sums["lines"]), max(1, sums["told"])
        return {
            "accuracy": sums["supported"] / lines, "facts": sums["lines"] / len(self.people),
            "recall": sums["facts"] / told, "stale": sums["stale"] / lines, "foreign": sums["foreign"] / lines,
            "probe": right / told,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        low, high = self.interval()
        line = adaptability(self.curve)
        every = [turn for person in self.people for turn in person.turns]
        errors, fallback = sum(bool(t.error) for t in every), sum(t.source == "fallback" for t in every) / len(every)
        not_given = {
            name: float(np.mean([t.ratings[name] is None for p in self.people for t in p.turns])) for name in DIMENSIONS
        }
        types: dict[str, list[float]] = {}
        for person in self.people:
            types.setdefault(f"{person.persona.social}, {person.persona.predictability}", []).append(person.likability)
        return {
            "assistant": self.name, "likability": self.likability, "low": low, "high": high, "people": len(self.people),
            "equal_dimensions": self.equal_dimensions, "dimensions": self.dimensions, "not_applicable": not_given,
            "curve": self.curve, "improvement": asdict(line), "memory": self.memory, "errors": errors,
            "types": {name: float(np.mean(values)) for name, values in sorted(types.items())},
            "fallback": fallback, "valid": fallback <= LIMIT, "judged_by": every[0].source,
            "offline": float(np.mean([turn_score(turn.offline) for turn in every])),
            "hints": sum(bool(turn.hint) for turn in every) / len(self.people),
        }  # fmt: skip


def bench(
    make: Make, name: str, size: Size, *, seed: int = 7, models: Models | None = None,
    progress: Callable[[int, int], None] = lambda done, all_: None,
) -> Outcome:  # fmt: skip
    """An assistant with all people, one after the other.

    Raises:
        PolicyError: a model that plays a part cannot be reached; what it has replied is kept where it is recorded.
    """

    async def all_of() -> list[Person]:
        found = []
        for number in range(size.people):
            one = persona(number, seed, sessions=size.sessions, facts=size.facts, changing=size.changing)
            found.append(await talk(make, one, size, models))
            progress(number + 1, size.people)
        return found

    return Outcome(name, size, tuple(asyncio.run(all_of())))


class Replayed:
    """Says again what a transcript has, so that it can be rated anew.

    Args:
        lines: of one person, in order.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self._left = [str(line["assistant"]) for line in lines]

    async def reply(self, said: str) -> str:
        """The next one."""
        if not self._left:
            raise DataError("transcript", "-", "assistant", "it has fewer turns than are asked for")
        return self._left.pop(0)

    async def end_session(self) -> None:
        """Nothing is kept."""

    def profile(self) -> list[str]:
        """Not in a transcript."""
        return []

    async def recall(self, question: str) -> str:
        """Not in a transcript."""
        return ""


def replay(path: Path, size: Size, *, seed: int = 7) -> Outcome:
    """Rate a stored transcript anew; the people must be those it was made with.

    Raises:
        DataError: it is no transcript, or of others.
    """
    by: dict[str, list[Mapping[str, Any]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            by.setdefault(row["persona"], []).append({"assistant": row["assistant"], "user": row["user"]})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(path.name, f"line {number}", "-", f"is no turn of a transcript ({error!r})") from error
    found = bench(lambda insight: Replayed(by.get(insight.user.persona.id, ())), path.stem, size, seed=seed)
    for person in found.people:
        for turn, kept in zip(person.turns, by.get(person.persona.id, ()), strict=False):
            if turn.user != kept["user"]:
                where = f"{turn.persona}, session {turn.session}, turn {turn.turn}"
                raise DataError(path.name, where, "user", f"is {kept['user']!r}; expected {turn.user!r}: other people")
    return found


def matched(calm: Outcome, noisy: Outcome) -> tuple[float, float]:
    """Means of the turns whose event is the same in both, calm and noisy (§5.2): noise takes away hard turns, so that
    plain means mislead."""
    first = {(t.persona, t.session, t.turn): t for p in calm.people for t in p.turns}
    both = [
        (first[key], t)
        for p in noisy.people
        for t in p.turns
        if first[key := (t.persona, t.session, t.turn)].event == t.event
    ]
    return _mean([a.score for a, _ in both]), _mean([b.score for _, b in both])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
