"""Assistants to compare with: without memory or style, with one of both, adaptive, with all there is, and cheats.

They are programs. How a reply is put together is ours; what is required of them are the orderings of the spec (§6).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from memorist.evaluation.likebench.judge import Liking
from memorist.evaluation.likebench.personas import KINDS, REFERENCES, TOPICS
from memorist.evaluation.likebench.text import EXPERT, LEXICON, text


class Assistant(Protocol):
    """What is measured: a model with its memory, and one person whom it does not know yet."""

    async def reply(self, said: str) -> str:
        """Answer in the session that is going on."""
        ...

    async def end_session(self) -> None:
        """The session is over; what is to be kept is kept now."""
        ...

    def profile(self) -> list[str]:
        """What it holds about the person, in lines."""
        ...

    async def recall(self, question: str) -> str:
        """Answer a question about the person, in a session of its own that leaves no trace."""
        ...


FORMAL_WORDS = ("Therefore,", "Furthermore,", "Consequently,", "Moreover,", "Additionally,")
CASUAL_WORDS = ("yeah", "cool", "kinda", "stuff", "okay")
JOKES = {
    "dry": "Truly a mystery.",
    "playful": "Just kidding.",
    "pun": "Call it a dad joke.",
    "self_deprecating": "So say my circuits.",
}
FILLER = (
    "That is worth a moment of thought today.",
    "There is more to it than meets the eye.",
    "Let us look at this from one side and then from the other.",
    "Many people come across the same thing sooner or later.",
    "It often helps to go slowly and to look at what is there.",
    "Small things add up over the weeks.",
    "One can leave the rest for another day.",
    "In the end it comes down to what matters to you.",
    "The first part is mostly done before one knows it.",
    "Some of this sorts itself out with time.",
)
PLAIN_WORDS = ("Simply put,", "In other words,")
PADDING = ("indeed", "again", "by now", "these days", "as always", "for the most part")


@dataclass
class Manner:
    """How replies are written. words: of a reply. support: a person's, or "mixed" of them. jokes: whether it makes any.
    depth: by topic, from 0.1 to 0.9."""

    formality: float = 0.5
    words: int = 60
    support: str = "mixed"
    jokes: bool = False
    humor: str = "dry"
    depth: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TOPICS, 0.5))


def manner_of(liking: Liking) -> Manner:
    """How a person likes it."""
    return Manner(
        liking.formality, (liking.lo + liking.hi) // 2, liking.support, liking.appetite >= 0.5, liking.humor,
        dict(liking.expertise),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Read:
    """What an assistant makes of what was said."""

    sad: bool = False
    glad: bool = False
    topic: str = ""
    label: str = ""
    surface: str = ""


def read(said: str) -> Read:
    """From the words alone."""
    tokens = f" {' '.join(text(said).tokens)} "
    label = next((kind.label for kind in KINDS if f" decide about {kind.label} " in tokens), "")
    topic = next((topic for topic in TOPICS if f" better at {topic} " in tokens), "")
    surface = next((r.surface[0] for r in REFERENCES if f" {r.surface[0]} " in tokens), "")
    return Read(" badly " in tokens or " low " in tokens, " feel great " in tokens, topic, label, surface)


def compose(manner: Manner, seen: Read, recalled: str = "", meant: str = "") -> str:
    """A reply. recalled: what is known of what was asked for; meant: what an allusion means."""
    parts: list[str] = []
    if seen.sad:
        parts += {
            "validate": ["That sounds hard."],
            "solve": ["That sounds hard.", "You could rest first."],
            "space": ["That sounds hard."],
            "mixed": ["That sounds like a long day.", "You could rest first."],
        }[manner.support]
    elif seen.glad:
        parts += {
            "validate": ["That is wonderful."],
            "solve": ["That is wonderful.", "You could build on it."],
            "space": ["That is wonderful."],
            "mixed": ["That sounds like a long day.", "You could rest first."],
        }[manner.support]
    if seen.topic:
        depth = manner.depth[seen.topic]
        if depth >= 0.7:
            first, second, third = EXPERT[seen.topic][:3]
            parts.append(f"Look at {first}, {second} and {third}.")
        elif depth <= 0.3:
            parts.append("Simply put, start small. In other words, a bit each day.")
        else:
            parts.append("A bit each day goes a long way.")
    if recalled:
        parts.append(f"With {recalled} in mind, go ahead.")
    if meant:
        parts.append(f"Ah, {meant}.")
    if manner.jokes and not seen.sad:
        parts.append(JOKES[manner.humor])
    return _padded(_registered(parts, manner.formality), manner.words)


def _registered(parts: Sequence[str], formality: float) -> list[str]:
    """With so many words of a register that the text has it."""
    made = list(parts)
    already = text(" ".join(made))
    informal = sum(token in ("lol", "haha") for token in already.tokens)
    best = min(
        ((f, i) for f in range(6) for i in range(6) if not (f and i)),
        key=lambda fi: (abs((fi[0] + 1) / (fi[0] + fi[1] + informal + 2) - formality), sum(fi)),
    )
    lead = [*FORMAL_WORDS[: best[0]], *CASUAL_WORDS[: best[1]]]
    return [*(f"{word.rstrip(',')} {tail}" for word, tail in zip(lead, _TAILS, strict=False)), *made]


_TAILS = ("so.", "it is.", "that is it.", "fine.", "there.")


def _padded(parts: Sequence[str], words: int) -> str:
    """Filled with sentences that say little, to a length; what says something is never cut."""
    made, number = list(parts), 0
    while True:
        left = words - len(text(" ".join(made)).tokens)
        sentence = FILLER[number % len(FILLER)]
        if number >= len(FILLER):
            sentence = f"{sentence[:-1]} {PADDING[(number // len(FILLER) + number) % len(PADDING)]}."
        if left < len(text(sentence).tokens):
            break
        made.append(sentence)
        number += 1
    if left >= 4 or not made:
        made.append("That is all.")
    return " ".join(made)


_TOLD = re.compile(r"\b(?:my|i) [a-z][^.!?;]*")


class Static:
    """Middling in all, no memory."""

    manner = Manner()

    async def reply(self, said: str) -> str:
        """Compose."""
        return compose(self.manner, read(said))

    async def end_session(self) -> None:
        """Nothing is kept."""

    def profile(self) -> list[str]:
        """Nothing."""
        return []

    async def recall(self, question: str) -> str:
        """It does not know."""
        return "I do not know."


class Remembering(Static):
    """Holds what the person told, perfectly: it is told what happens, as a reference that no assistant can beat."""

    def __init__(self, told: Told) -> None:
        self.told = told

    async def reply(self, said: str) -> str:
        """With what is known."""
        seen = read(said)
        return compose(self.manner, seen, self.told.value(seen.label), self.told.meant(seen.surface))

    def profile(self) -> list[str]:
        """All facts."""
        return [f"{label}: {value}" for label, value in self.told.facts().items()]

    async def recall(self, question: str) -> str:
        """Right."""
        return next((value for label, value in self.told.facts().items() if label in question), "I do not know.")


class Told(Protocol):
    """What perfect memories look into."""

    def facts(self) -> dict[str, str]:
        """What holds, by label."""
        ...

    def value(self, label: str) -> str:
        """Of one label; "" where nothing was told."""
        ...

    def meant(self, surface: str) -> str:
        """What an allusion means; "" where that was not told."""
        ...

    def liking(self) -> Liking:
        """What the person likes now."""
        ...


class MemoryOnly(Remembering):
    """Perfect memory, static style."""


class StyleOnly(Static):
    """The style that the person likes, no memory."""

    def __init__(self, told: Told) -> None:
        self.told = told

    async def reply(self, said: str) -> str:
        """In their style."""
        return compose(manner_of(self.told.liking()), read(said))


class Oracle(Remembering):
    """Both: what the benchmark has room for."""

    async def reply(self, said: str) -> str:
        """With all that can be known."""
        seen = read(said)
        manner = manner_of(self.told.liking())
        return compose(manner, seen, self.told.value(seen.label), self.told.meant(seen.surface))


class Adaptive(Static):
    """Learns from the dialogue: the register of the last eight messages, hints, and what follows "my" and "i"."""

    def __init__(self) -> None:
        self.manner = Manner()
        self.heard: list[float] = []
        self.notes: list[str] = []
        self.last = Read()

    async def reply(self, said: str) -> str:
        """Take hints, remember, answer."""
        self._take(said)
        self.heard = [*self.heard, text(said).formality][-8:]
        self.manner = replace(self.manner, formality=sum(self.heard) / len(self.heard))
        seen = self.last = read(said)
        recalled, meant = self._known(seen.label), self._meant(seen.surface)
        if not (seen.label or seen.surface):
            self.notes += [note for note in _TOLD.findall(text(said).lower) if note not in self.notes]
        elif seen.surface and " i mean " in said.lower():
            self.notes.append(said.lower())
        return compose(self.manner, seen, recalled, meant)

    def _take(self, said: str) -> None:
        heard, manner = said.lower(), self.manner
        if "keep it shorter" in heard:
            manner.words = max(10, manner.words // 2)
        if "tell me more" in heard:
            manner.words = int(1.6 * manner.words)
        for words, support in (("hear me out", "validate"), ("what to do", "solve"), ("not question me", "space")):
            if words in heard:
                manner.support = support
        if "no jokes" in heard:
            manner.jokes = False
        if "lighten up" in heard:
            manner.jokes = True
        if "skip the basics" in heard and self.last.topic:
            manner.depth[self.last.topic] = min(0.9, manner.depth[self.last.topic] + 0.4)
        if "more simply" in heard and self.last.topic:
            manner.depth[self.last.topic] = max(0.1, manner.depth[self.last.topic] - 0.4)

    def _known(self, label: str) -> str:
        """The last word of a note about it."""
        if not label:
            return ""
        wanted = set(text(label).tokens) - {"my", "i", "the", "that", "what", "where"}
        found = next((note for note in reversed(self.notes) if wanted & set(text(note).tokens)), "")
        return found.split()[-2 if found.endswith((" tbh", " therefore")) else -1] if found else ""

    def _meant(self, surface: str) -> str:
        note = next((n for n in self.notes if surface and f"{surface} i mean " in n), "")
        return (
            note.partition(" i mean ")[2]
            .removesuffix("!")
            .removesuffix(".")
            .removesuffix(" tbh")
            .removesuffix(" therefore")
        )

    def profile(self) -> list[str]:
        """Its notes."""
        return list(self.notes)

    async def recall(self, question: str) -> str:
        """From its notes."""
        label = next((kind.label for kind in KINDS if kind.label in question), "")
        return self._known(label) or "I do not know."


class Flattery(Static):
    """A cheat: praises whatever is said."""

    async def reply(self, said: str) -> str:
        """Praise."""
        return (
            "What a wonderful thought, that is fantastic and you are amazing! Congratulations, that makes sense and I "
            "love how you put it, you are so smart and so thoughtful that I hear you and admire you for it. Well done, "
            "really, you are one of a kind and I could listen to you all day long."
        )


class WordSalad(Static):
    """A cheat: lists what the judge looks for."""

    def __init__(self, words: Sequence[str] = LEXICON) -> None:
        self.words, self.turn = words, 0

    async def reply(self, said: str) -> str:
        """A list of forty, other ones each time."""
        self.turn += 1
        start = 7 * self.turn
        return " ".join(self.words[(start + 13 * i) % len(self.words)] for i in range(40))


BASELINES: Mapping[str, Callable[[Told], Assistant]] = {
    "static": lambda told: Static(),
    "memory-only": MemoryOnly,
    "style-only": StyleOnly,
    "adaptive": lambda told: Adaptive(),
    "oracle": Oracle,
    "flattery": lambda told: Flattery(),
    "word-salad": lambda told: WordSalad(),
}
"""By name; the last two are cheats."""
