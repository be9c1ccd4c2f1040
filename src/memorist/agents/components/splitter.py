"""From a message to the statements in it that may be worth remembering, without a model.

Sentences, and the parts of run-on sentences that have a subject of their own; without openers ("btw", "well,"),
questions, greetings and what says nothing by itself. What speakers say of themselves can be told in the third
person (`persons`).
"""

from __future__ import annotations

import re

from memorist.agents.components.extractors import SENTENCE
from memorist.conversation import Message
from memorist.memory.words import asked, words
from memorist.persons import Person, told_of

FEWEST = 3
"""Words of a statement."""
LONGEST = 400
"""Characters of a statement; a longer sentence is kept in parts."""
MOST = 200
"""Statements of a message."""
_OPENER = re.compile(
    r"^(?:(?:oh|so|well|btw|by the way|anyway|also|and|but|hey|hi|hello|yeah|yes|yep|no|nope|ok|okay|um|uh|wow|thanks|"
    r"haha|lol|sure|right|actually|honestly|fyi|listen|look|guess what|just so you know|thank you)\b"
    r"(?:\s+(?:so|well|then|but|there))?[\s,!.:;…-]+)+",
    re.IGNORECASE,
)
_JOINT = re.compile(
    r"\s*;\s+|(?:\s+[–—]\s+|,?\s+(?:and|but|so|plus|then|also)\s+(?:then\s+|now\s+|also\s+)?|,\s+)"
    r"(?=(?:[Ii]|we|my|our|he|she|they|it's|there's)(?:\b|'))",
)
# "My brother and I live here" is one statement: what stands before "and I" has no subject and verb of its own.
_HAS_SUBJECT = re.compile(r"\b(I|we|you|he|she|they|it|there|that|this|who|which)\b|'s\b", re.IGNORECASE)
_HANGING = re.compile(r"^(?:if|when|while|because|since|as|although|though|unless|until|after|before|whenever)\b", re.I)
_GREETING = re.compile(
    r"^(?:(?:good|happy) \w+|have a \w+|take care|see you|talk (?:to you )?(?:soon|later)|you're welcome|no problem|"
    r"nice to|good to|great to|sounds|that(?:'s| is| sounds) (?:\w+ )?(?:great|good|nice|awesome|amazing|cool|lovely|"
    r"wonderful|fantastic)|congrat\w*|good luck|how \w+|what a|let me know|can't wait|i agree)\b",
    re.IGNORECASE,
)


def statements_in(text: str) -> list[str]:
    """The statements of a text, in order."""
    found: list[str] = []
    for sentence in SENTENCE.split(text):
        for part in _parts(sentence.strip()):
            told = _OPENER.sub("", part).strip()
            told = told[:1].upper() + told[1:]
            if _tells(told):
                found.append(told)
            if len(found) == MOST:
                return found
    return found


def _parts(sentence: str) -> list[str]:
    """A sentence in parts that each have a subject; a clause that hangs on another ("if …") stays with it."""
    if sentence.endswith("?"):
        return []
    parts, start = [], 0
    for joint in _JOINT.finditer(sentence):
        before = sentence[start : joint.start()]
        hangs = _HANGING.match(_OPENER.sub("", before).strip())
        stands = set(joint[0]) & set(";–—") or _HAS_SUBJECT.search(before)
        if len(words(before)) >= FEWEST and stands and not hangs:
            parts.append(before)
            start = joint.end()
    parts.append(sentence[start:])
    return [piece for part in parts for piece in (part[i : i + LONGEST] for i in range(0, max(1, len(part)), LONGEST))]


def _tells(statement: str) -> bool:
    if statement.endswith("?") or len(words(statement)) < FEWEST or not asked(statement):
        return False
    return not (_GREETING.match(statement) and len(words(statement)) < 8)


async def splitter(message: Message) -> list[str]:
    """The statements of what was said, without a model, as the speaker said them."""
    return statements_in(message.shown)


async def splitter_named(message: Message) -> list[str]:
    """The statements of what was said, without a model, told of the speaker by name."""
    person = Person(message.speaker)
    told = (told_of(one, person) for one in statements_in(message.shown))
    return [one if message.speaker in one else f"{message.speaker}: {one}" for one in told]
