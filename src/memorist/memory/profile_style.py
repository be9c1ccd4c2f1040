"""Leaves of a profile that say how somebody speaks and likes to be answered.

They are texts like all others: people read them, a model is told them, versions and `undo` are the bank's. Programs
read settings out of the sentences that are written here, and pass over what else stands there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_STYLE = "5_Behavioral_Characteristics.Social_Interactions.Communication_Style."
_SKILLS = "5_Behavioral_Characteristics.Interests_and_Skills."
REGISTER, LENGTH, SUPPORT = f"{_STYLE}Expression", f"{_STYLE}Tendencies", f"{_STYLE}Listening"
JOKES = "3_Personality_Characteristics.Emotional_Characteristics.Sense_of_Humor"
DEPTH, ALLUSIONS = f"{_SKILLS}Knowledge_Base", f"{_SKILLS}Language_Use"
LEAVES = (REGISTER, LENGTH, SUPPORT, JOKES, DEPTH, ALLUSIONS)
"""In the released schema."""
BRANCHES = tuple(dict.fromkeys(".".join(path.split(".")[:2]) for path in LEAVES))
"""That they are on."""
SUPPORTED = {
    "validate": "when low, wants to be heard before any advice",
    "solve": "when low, wants to be told what to do",
    "space": "when low, wants no questions",
}
DEPTHS = {"plain": "in plain words", "deep": "in depth"}
_FORMALITY = re.compile(r"writes (?:formally|plainly|casually) \(([01]\.\d+)\)")
_MORE, _FEWER = (re.compile(rf"{word} than (\d{{1,5}}) words") for word in ("more", "fewer"))
_DEPTH = re.compile(rf"([^;]+?) ({'|'.join(DEPTHS.values())})(?=;|$)")
_MEANS = re.compile(r'"([^"]+)" is ([^;]+)')


@dataclass(frozen=True)
class Style:
    """What is known of it; None, "" or {} where nothing is.

    Args:
        formality: from 0, casual, to 1, formal.
        more, fewer: words of a reply that were too few, and too many.
        support: when low, one of `SUPPORTED`.
        jokes: whether they are liked.
        depth: by topic, one of `DEPTHS`.
        allusions: what words of theirs mean.
    """

    formality: float | None = None
    more: int | None = None
    fewer: int | None = None
    support: str = ""
    jokes: bool | None = None
    depth: Mapping[str, str] = field(default_factory=dict)
    allusions: Mapping[str, str] = field(default_factory=dict)

    def leaves(self) -> dict[str, str]:
        """As sentences by leaf, without those of which nothing is known."""
        found: dict[str, str] = {}
        if self.formality is not None:
            how = "formally" if self.formality >= 0.6 else "casually" if self.formality <= 0.4 else "plainly"
            found[REGISTER] = f"writes {how} ({self.formality:.2f})"
        bounds = [f"more than {self.more} words"] if self.more is not None else []
        bounds += [f"fewer than {self.fewer} words"] if self.fewer is not None else []
        if bounds:
            found[LENGTH] = f"likes replies of {' and '.join(bounds)}"
        if self.support:
            found[SUPPORT] = SUPPORTED[self.support]
        if self.jokes is not None:
            found[JOKES] = "likes jokes" if self.jokes else "likes no jokes"
        if self.depth:
            found[DEPTH] = "; ".join(f"{topic} {DEPTHS[how]}" for topic, how in self.depth.items())
        if self.allusions:
            found[ALLUSIONS] = "; ".join(f'"{words}" is {meaning}' for words, meaning in self.allusions.items())
        return found

    @classmethod
    def of(cls, leaves: Mapping[str, str]) -> Style:
        """What leaves say of it."""
        formality = _FORMALITY.search(leaves.get(REGISTER, ""))
        more, fewer = (form.search(leaves.get(LENGTH, "")) for form in (_MORE, _FEWER))
        jokes = leaves.get(JOKES, "")
        hows = {text: how for how, text in DEPTHS.items()}
        return cls(
            float(formality[1]) if formality else None,
            int(more[1]) if more else None,
            int(fewer[1]) if fewer else None,
            next((how for how, text in SUPPORTED.items() if text in leaves.get(SUPPORT, "")), ""),
            ("no jokes" not in jokes) if "jokes" in jokes else None,
            {topic.strip(): hows[how] for topic, how in _DEPTH.findall(leaves.get(DEPTH, ""))},
            {words: meaning.strip() for words, meaning in _MEANS.findall(leaves.get(ALLUSIONS, ""))},
        )
