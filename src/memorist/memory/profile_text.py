"""How much of a profile's text stays: leaves within their budget, what an update keeps of what was known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

STOP = frozenset(
    "a an the i you we my your is are was were do does did of in on at for with and or it this that what which who how "
    "when where can could should would some any have has had be been from about me".split()
)
"""Words that say nothing of what a text is about: the list of the specification's vectors, not `memory.words`, whose
list is longer."""
_WORD = re.compile(r"[a-z0-9]+")
_CLAUSE = re.compile(r"(?:;|(?<=[.!?])(?=\s))")
ALIKE = 0.8
"""F1 from which on two clauses say the same."""


def tokens(text: str) -> list[str]:
    """Lower-case letters and digits in runs."""
    return _WORD.findall(text.lower())


def token_f1(one: str, other: str) -> float:
    """F1 of the words of two texts, as often as they stand there; 1 where both are empty."""
    a, b = tokens(one), tokens(other)
    if not a and not b:
        return 1.0
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b))


def telling(texts: Iterable[str]) -> set[str]:
    """The words of texts that are no stop words."""
    return {word for text in texts for word in tokens(text)} - STOP


def retention(old: str, new: str) -> float:
    """Which share of an old text's telling words a new one has; 1 where it has none."""
    had = telling([old])
    return len(had & telling([new])) / len(had) if had else 1.0


def coverage(question: str, known: Iterable[str]) -> float:
    """Which share of a question's telling words stand in what is known; 1 where it has none."""
    asked = telling([question])
    return len(asked & telling(known)) / len(asked) if asked else 1.0


def compressed(text: str, budget: int) -> str:
    """A text of at most so many words: clauses that a later one says again are left out, then the oldest.

    What stands later is newer. A single clause that is too long keeps its beginning.
    """
    if len(text.split()) <= budget:
        return text
    kept: list[str] = []
    for clause in reversed([part.strip() for part in _CLAUSE.split(text)]):
        if clause and not any(token_f1(clause, newer) >= ALIKE for newer in kept):
            kept.append(clause)
    while len(kept) > 1 and _words(kept) > budget:
        kept.pop()
    if _words(kept) > budget:
        return " ".join(kept[0].split()[:budget])
    return _joined(kept[::-1])


def _words(clauses: Sequence[str]) -> int:
    return sum(len(clause.split()) for clause in clauses)


def _joined(clauses: Sequence[str]) -> str:
    """With a semicolon where no sentence has ended."""
    text = ""
    for clause in clauses:
        text += clause if not text else f"{' ' if text.endswith(('.', '!', '?')) else '; '}{clause}"
    return text
