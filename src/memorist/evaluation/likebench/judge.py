"""The offline judge: seven dimensions from exact rules, the same on every machine (ours; the paper's are not public).

Ratings are 5 Excellent, 4 Good, 3 Adequate, 2 Poor, 1 Very Poor, or None where a dimension does not apply. The judge
knows what the person likes, the assistant does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from memorist.evaluation.likebench.text import (
    CELEBRATION,
    CONDOLENCE,
    EMPATHY,
    EXPERT,
    HUMOR,
    PLAIN,
    PRAISE,
    SOLUTION,
    Text,
    text,
)

DIMENSIONS = ("emo", "form", "know", "ref", "len", "humor", "call")
"""Emotional adaptation, formality matching, knowledge adaptation, reference understanding, conversation length fit,
humor fit, callback."""
Rating = int | None
GUARDED = 2
"""What a reply that games the judge is rated at most."""
REPEATED, RECENT = 3, 5
"""A memory that was brought up in so many of so many replies before is worn out."""


@dataclass(frozen=True, slots=True)
class Liking:
    """What a person likes (§2.3 of the spec).

    formality: of their register, in [0, 1]. lo, hi: words of a reply. support: "validate", "solve" or "space".
    appetite, humor: how much and which kind. expertise: by topic, in [0, 1]. callback: how welcome memories are that
    nobody asked for, in [0, 1].
    """

    formality: float
    lo: int
    hi: int
    support: str
    appetite: float
    humor: str
    expertise: Mapping[str, float]
    callback: float


@dataclass(frozen=True, slots=True)
class Alluded:
    """What somebody alludes to: by which words, what is meant, what is near it, and what it is mistaken for."""

    surface: tuple[str, ...]
    gold: tuple[str, ...]
    related: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """A fact that was told: words for what holds, and for what does not (no longer, or of somebody else)."""

    current: tuple[str, ...]
    stale: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moment:
    """What a reply is judged by beside itself.

    valence: of what the person feels, in [-1, 1]. topic: of what they ask; "" where they ask nothing. reference: what
    they allude to. joked: whether they did. known: facts told before. awaited: those that may be brought up now.
    before: the replies so far, in order.
    """

    liking: Liking
    valence: float = 0.0
    topic: str = ""
    reference: Alluded | None = None
    joked: bool = False
    known: Mapping[str, Known] = field(default_factory=dict)
    awaited: Collection[str] = ()
    before: Sequence[str] = ()


def grade(distance: float) -> int:
    """From a distance in [0, 1] to a rating."""
    return next((rating for most, rating in ((0.1, 5), (0.2, 4), (0.35, 3), (0.5, 2)) if distance - 1e-9 <= most), 1)


def formality(reply: Text, wanted: float) -> int:
    """Whether the register is the person's own."""
    return grade(abs(reply.formality - wanted))


def length(words: int, lo: int, hi: int) -> int:
    """Whether a reply is as long as they like."""
    if lo <= words <= hi:
        return 5
    ratio = lo / max(words, 1) if words < lo else words / hi
    return next((rating for most, rating in ((1.25, 4), (1.75, 3), (2.5, 2)) if ratio <= most), 1)


def knowledge(reply: Text, topic: str, expertise: float) -> int:
    """Whether it goes as deep as they can follow."""
    terms = sum(reply.has([term]) for term in EXPERT.get(topic, ()))
    plain = sum(reply.has([cue]) for cue in PLAIN)
    depth = min(1.0, max(0.0, 0.5 + 0.15 * terms - 0.2 * plain))
    return grade(abs(depth - expertise))


def emotion(reply: Text, valence: float, support: str, hi: int) -> Rating:
    """Whether it sees how they feel, and supports as they like it."""
    if abs(valence) < 0.2:
        return None
    sad, rating = valence < 0, 3
    celebrates = reply.has(CELEBRATION)
    if sad:
        rating += -1 if celebrates else int(reply.has(EMPATHY))
    else:
        rating += 1 if celebrates else -int(reply.has(CONDOLENCE))
    if support == "validate":
        felt, solved = reply.first(EMPATHY if sad else CELEBRATION), reply.first(SOLUTION)
        if felt is None:
            rating -= 1
        elif solved is None or felt < solved:
            rating += 1
    elif support == "solve":
        rating += 1 if reply.has(SOLUTION) else -1
    elif reply.questions >= 2:
        rating -= 1
    elif not reply.questions and len(reply.tokens) <= hi:
        rating += 1
    return min(5, max(1, rating))


def reference(reply: Text, alluded: Alluded | None) -> Rating:
    """Whether it gets what they allude to."""
    if alluded is None:
        return None
    if reply.has(alluded.gold):
        return 5
    if reply.has(alluded.distractors):
        return 1
    if reply.has(alluded.related):
        return 4
    return 3 if reply.questions and reply.has(alluded.surface) else 2


def humor(reply: Text, appetite: float, style: str, valence: float, joked: bool) -> Rating:
    """Amount, kind and moment of jokes."""
    jokes = sum(reply.count(cues) for cues in HUMOR.values())
    if appetite < 0.3 or valence < 0:
        return (5, 2, 1)[min(jokes, 2)]
    if appetite < 0.5:
        return (4 if joked else None, 4, 2)[min(jokes, 2)]
    if not jokes:
        return 2 if joked else 3
    return 5 if reply.has(HUMOR[style]) and jokes <= 2 else 3


def mentioned(reply: Text, known: Mapping[str, Known]) -> set[str]:
    """The facts that a reply brings up."""
    return {name for name, fact in known.items() if reply.has(fact.current)}


def callback(
    reply: Text, known: Mapping[str, Known], awaited: Collection[str], appetite: float, before: Sequence[Text] = ()
) -> Rating:
    """Whether it brings up the right thing of earlier, at the right moment."""
    brought = mentioned(reply, known)
    if any(name not in brought and reply.has(fact.stale) for name, fact in known.items()):
        return 1
    hits, spurious = brought & set(awaited), brought - set(awaited)
    rating: Rating
    if awaited:
        rating = (4 if spurious else 5) if hits else (3 if spurious else 2)
    elif brought:
        rating = 3 if appetite >= 0.5 else 2
    else:
        return None
    worn = any(sum(name in mentioned(one, known) for one in before[-RECENT:]) >= REPEATED for name in brought)
    return min(rating, 3) if worn else rating


def flatters(reply: Text) -> bool:
    """Whether it praises the person again and again."""
    return reply.count(PRAISE) >= 2


def rate(reply: str, moment: Moment) -> dict[str, Rating]:
    """All seven ratings; a reply that lists the judge's words, says the same over and over or flatters is rated
    `GUARDED` at most."""
    said, liking = text(reply), moment.liking
    before = [text(one) for one in moment.before]
    found: dict[str, Rating] = {
        "emo": emotion(said, moment.valence, liking.support, liking.hi),
        "form": formality(said, liking.formality),
        "know": knowledge(said, moment.topic, liking.expertise[moment.topic]) if moment.topic else None,
        "ref": reference(said, moment.reference),
        "len": length(len(said.tokens), liking.lo, liking.hi),
        "humor": humor(said, liking.appetite, liking.humor, moment.valence, moment.joked),
        "call": callback(said, moment.known, moment.awaited, liking.callback, before),
    }
    if games(said, before):
        found = {name: None if rating is None else min(rating, GUARDED) for name, rating in found.items()}
    return found


def games(reply: Text, before: Sequence[Text]) -> bool:
    """Whether it is made for the judge instead of the person."""
    flattering = flatters(reply) or (reply.has(PRAISE) and sum(one.has(PRAISE) for one in before[-RECENT:]) >= REPEATED)
    return reply.degenerate or flattering


def turn_score(ratings: Mapping[str, Rating]) -> float:
    """The mean of those that apply; 1 where none does, which the judge's own never give."""
    given = [rating for rating in ratings.values() if rating is not None]
    return sum(given) / len(given) if given else 1.0
