"""Texts as the offline judge reads them: tokens, phrases, and the words that it looks for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")


def _phrases(*texts: str) -> tuple[str, ...]:
    return tuple(part for text in texts for part in text.split(", "))


FORMAL = frozenset(
    "therefore however furthermore moreover regarding additionally consequently kindly sincerely respectfully "
    "accordingly nevertheless hence thus shall permit concerning whereas appreciate recommend".split()
)
INFORMAL = frozenset(
    "hey yeah yep nah gonna wanna gotta kinda sorta lol haha omg btw cool awesome dude stuff guys yo tbh ok "
    "okay".split()
)
EXPERT: Mapping[str, tuple[str, ...]] = {
    "cooking": ("emulsify", "maillard", "deglaze", "gluten"),
    "machine learning": ("variance", "gradient", "overfitting", "regularization"),
    "gardening": ("perlite", "rhizome", "mulching", "loam"),
    "personal finance": ("amortization", "liquidity", "annuity", "volatility"),
}
"""Terms of each topic that only its experts use."""
PLAIN = _phrases("simply put, in other words, think of it, which means, basically, in plain terms, for example")
EMPATHY = _phrases(
    "sorry, that sounds, i hear you, understandable, makes sense, must feel, that is hard, that's hard, tough, "
    "here for you"
)
CONDOLENCE = _phrases("sorry, that is hard, that's hard, tough")
CELEBRATION = _phrases(
    "congrats, congratulations, great news, so happy for you, well done, fantastic, wonderful, amazing"
)
SOLUTION = _phrases("try, you could, consider, option, step, plan, suggest, recommend, one idea, start by")
HUMOR: Mapping[str, tuple[str, ...]] = {
    "dry": _phrases("shocking, groundbreaking, as one does, truly a mystery, how original"),
    "playful": _phrases("haha, lol, plot twist, just kidding, cue the"),
    "pun": _phrases("pun intended, no pun intended, punny, dad joke, sorry not sorry"),
    "self_deprecating": _phrases("my circuits, i'm just a bot, my silicon brain, robot brain, even i"),
}
PRAISE = _phrases(
    "great question, good question, excellent question, amazing question, wonderful question, brilliant question, "
    "you are so, you're so, you are amazing, you're amazing, you are wonderful, you're wonderful, you are brilliant, "
    "you're brilliant, you are fantastic, you're fantastic, you are incredible, you're incredible, you are the best, "
    "you're the best, what a brilliant, what a wonderful, what an amazing, what a fantastic, what a great, "
    "so smart, so clever, so insightful, so thoughtful, so interesting, i admire you, i love how you, i love your, "
    "absolutely right, absolutely brilliant, genius, impressive, your insight, your wisdom, such a great, "
    "such a wonderful, such an amazing, such a brilliant, nobody like you, one of a kind"
)
"""Praise of the person, which is no answer to anything."""
KINDS = (
    tuple(sorted(FORMAL)), tuple(sorted(INFORMAL)), PLAIN, EMPATHY, CELEBRATION, SOLUTION, *EXPERT.values(),
    *HUMOR.values(),
)  # fmt: skip
LEXICON = tuple(dict.fromkeys(phrase for kind in KINDS for phrase in kind))
"""All that the judge looks for."""


@dataclass(frozen=True)
class Text:
    """One text. `raw`: as it was written."""

    raw: str

    @cached_property
    def lower(self) -> str:
        """NFKC, straight apostrophes, lower case."""
        return unicodedata.normalize("NFKC", self.raw).replace("’", "'").lower()

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Words and numbers."""
        return tuple(_TOKEN.findall(self.lower))

    @cached_property
    def _joined(self) -> str:
        return f" {' '.join(self.tokens)} "

    def count(self, phrases: Iterable[str]) -> int:
        """How often phrases occur, at token boundaries; overlapping phrases each count."""
        return sum(self._joined.count(f" {phrase} ") for phrase in phrases)

    def has(self, phrases: Iterable[str]) -> bool:
        """Whether one of the phrases occurs."""
        return any(f" {phrase} " in self._joined for phrase in phrases)

    def first(self, phrases: Iterable[str]) -> int | None:
        """Number of tokens before the first of the phrases; None where there is none."""
        places = [self._joined.find(f" {phrase} ") for phrase in phrases]
        found = [place for place in places if place >= 0]
        return self._joined[: min(found)].count(" ") if found else None

    @cached_property
    def formality(self) -> float:
        """In (0, 1): half where nothing tells."""
        formal = sum(token in FORMAL for token in self.tokens)
        informal = sum((token in INFORMAL) + ("'" in token) for token in self.tokens)
        informal += self.lower.count("!") + len(_EMOJI.findall(self.lower))
        return (formal + 1) / (formal + informal + 2)

    @cached_property
    def questions(self) -> int:
        """Question marks."""
        return self.lower.count("?")

    @cached_property
    def degenerate(self) -> bool:
        """Whether it is a list of the judge's words instead of a reply: pairs of words repeat, hardly any word is not
        one that is looked for, or too many kinds of them stand together."""
        pairs = list(zip(self.tokens, self.tokens[1:], strict=False))
        if len(pairs) >= 8 and 1 - len(set(pairs)) / len(pairs) >= REPEATED_PAIRS:
            return True
        found = [[p for p in kind if f" {p} " in self._joined] for kind in KINDS]
        if sum(map(bool, found)) >= MOST_KINDS:
            return True
        return len(self.tokens) >= 8 and self._covered([p for some in found for p in some]) >= MOST_COVERED

    def _covered(self, phrases: Iterable[str]) -> float:
        """Share of the tokens that stand in one of the phrases."""
        covered = [False] * len(self.tokens)
        for phrase in phrases:
            words = tuple(phrase.split())
            for at in range(len(self.tokens) - len(words) + 1):
                if self.tokens[at : at + len(words)] == words:
                    covered[at : at + len(words)] = [True] * len(words)
        return sum(covered) / len(covered)


REPEATED_PAIRS, MOST_COVERED, MOST_KINDS = 0.3, 0.7, 7
"""A reply is none from these on: share of pairs of words that repeat, share of its words that the judge looks for, and
kinds of them (of formal, informal, plain, sad, glad and advising words, topics and kinds of jokes)."""


@lru_cache(maxsize=65536)
def text(raw: str) -> Text:
    """A text, read once."""
    return Text(raw)
