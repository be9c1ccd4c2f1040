"""A listener without a model: sentences of some forms, each about one leaf. The baseline of trained listeners, and what
their base imitates, with errors."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from memorist.agents.components.extractors import SENTENCE
from memorist.agents.components.profile_prompts import EDITS, KNOWN, NEW
from memorist.agents.components.tags import blocks
from memorist.decision import Action
from memorist.memory.embed import Embedder, Vectors
from memorist.memory.profile_edits import Edit, edits_between
from memorist.memory.profile_schema import Schema, persona_schema
from memorist.models.sampler import Request

BETWEEN = "; "
PLANNED = "planned: "
_LEGAL = "4_Identity_Characteristics.Social_Identity."
NAME = f"{_LEGAL}Legal_and_Civic_Status.Name"
RESIDENCE = f"{_LEGAL}Migration_and_Mobility.Residence"
HEALTH = "1_Biological_Characteristics.Physiological_Status.Health_Status"
HOBBIES = "5_Behavioral_Characteristics.Interests_and_Skills.Interests_and_Hobbies"
PET = "4_Identity_Characteristics.Family_System.Caregiving_Responsibilities.Pet_Care"
_END = r"(?=[.,;!?]|\s+(?:and|but|because|now|these days|any ?more|last (?:week|month|year))\b|$)"
_OVER = re.compile(
    r"\b(?:no longer|any ?more|any longer|after all|is over|is gone|(?:i|i've|we've) (?:just )?(?:stopped|quit|gave up|"
    r"given up|cancelled|left|lost|finished|dropped|got rid|got over))\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+")
_PLACE = re.compile(r"(\*|<.*>)")
_SMALL = frozenset("a an the of to in on at for with and or my i me we our is are it that this".split())
_LEADS = frozenset("in is as to at on of by for with from called are i'm into about be me".split())
_ARTICLES = frozenset("a an the two three".split())
_ENDS = frozenset("now any every last since and but because these in is are on at".split())
NEAREST = (0.6, 0.25, 0.15)
"""How often an erring listener takes the nearest leaf, the second, the third."""


@dataclass(frozen=True)
class Form:
    """How something is said, where it goes, and whether several hold there side by side. said: its words, without the
    value's place."""

    said: str
    pattern: re.Pattern[str]
    path: str
    many: bool


def read_forms(text: str, schema: Schema) -> list[Form]:
    """Forms of the leaves that a schema has; see `profile_forms.txt`."""
    by_end = {".".join(path.split(".")[-2:]): path for path in schema.leaves}
    found: list[Form] = []
    for line in text.splitlines():
        end, bar, rest = line.partition(" | ")
        if line.startswith("#") or not bar or end not in by_end:
            continue
        count, _, forms = rest.partition(": ")
        for form in forms.split("; "):
            before, value, after = _PLACE.split(form.strip())
            close = rf"(?={re.escape(after)})" if after.strip() else _END
            said = value.strip("<>") if value != "*" else r"[^.,;!?]+?"
            pattern = re.compile(rf"(?:^|[^\w']){re.escape(before)}({said}){close}", re.IGNORECASE)
            found.append(Form(f"{before}{after}".strip(), pattern, by_end[end], count == "many"))
    return found


@lru_cache
def forms() -> tuple[Form, ...]:
    """Those that come with the package, for the released trunk."""
    file = resources.files("memorist") / "agents" / "profile_forms.txt"
    return tuple(read_forms(file.read_text(encoding="utf-8"), persona_schema()))


class RuleListener:
    """Edits by forms of sentences that the person says in the first person; what is said to be over is taken out.

    It reads the prompts of `PersonaTree`: what is known, and the dialogue.

    Args:
        error: share of replies of another kind, at random: any part of what was said into one of the nearest leaves, in
            place of what stands there or beside it; a clause taken out; a plan come true; nothing.
        embedder: what finds leaves then, by examples of what is said about each.
    """

    name = "rules"

    def __init__(self, *, error: float = 0.0, embedder: Embedder | None = None) -> None:
        self.error, self.embedder = error, embedder
        if error and embedder is None:
            raise ValueError("a listener that errs needs an embedder")
        self._vectors: Vectors | None = None

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Listen to each."""
        return [Action("\n".join(map(str, self.edits(one.observation.prompt, one.seed)))) for one in requests]

    def edits(self, prompt: str, seed: int = 0) -> list[Edit]:
        """What a dialogue says; NO_OP where it says nothing."""
        known = known_in(prompt)
        own = known.copy()
        rng = random.Random(seed)
        if self.error and rng.random() < self.error:
            self._err(" ".join(heard_in(prompt)), own, rng)
            return edits_between(known, own)
        for said in heard_in(prompt):
            for sentence in SENTENCE.split(said):
                self._heard(sentence.strip(), own)
        return edits_between(known, own)

    def _heard(self, sentence: str, own: dict[str, str]) -> None:
        if sentence.endswith("?"):
            return
        if _OVER.search(sentence):
            _forget(sentence, own)
            return
        taken: list[tuple[int, int]] = []
        for form in forms():
            match = form.pattern.search(sentence)
            if match is None or any(match.start(1) < end and begin < match.end(1) for begin, end in taken):
                continue
            taken.append(match.span(1))
            value, held = match[1].strip(), own.get(form.path, "")
            if value.lower() not in held.lower():
                own[form.path] = f"{held}{BETWEEN}{value}" if held and form.many else value

    def _err(self, said: str, own: dict[str, str], rng: random.Random) -> None:
        way, words = rng.random(), said.split()
        planned = [path for path, text in own.items() if PLANNED in text]
        if way < 0.08 and planned:
            path = self._near(said, rng, planned)
            own[path] = own[path].replace(PLANNED, "", 1)
        elif way < 0.28 and own:
            about = [path for path, text in own.items() if _words(text) & _words(said)]
            path = self._near(said, rng, about or list(own))
            parts = own[path].split(BETWEEN)
            parts.remove(_told_of(parts, said, rng))
            own[path] = BETWEEN.join(parts)
        elif way < 0.8 and len(words) > 1:
            begin, end = _part(words, rng)
            value = " ".join(words[begin:end]).strip(".,;!?\"' ").replace(BETWEEN, " ")
            value = f"{PLANNED}{value}" if rng.random() < 0.15 else value
            path = self._near(said, rng)
            own[path] = _beside(own.get(path, ""), value, said, rng)

    def _near(self, said: str, rng: random.Random, some: Sequence[str] = ()) -> str:
        """One of the leaves that are nearest to what is said; of some, if there are any."""
        if len(some) == 1:
            return some[0]
        assert self.embedder is not None
        if self._vectors is None:
            self._vectors = np.asarray(self.embedder.embed([form.said for form in forms()]))
        scores = self._vectors @ np.asarray(self.embedder.embed([said]))[0]
        order = list(dict.fromkeys(forms()[i].path for i in np.argsort(-scores)[: None if some else 20]))
        order = [path for path in order if path in some] or list(some) or order
        return rng.choices(order[: len(NEAREST)], NEAREST[: len(order)])[0]


def _told_of(parts: Sequence[str], said: str, rng: random.Random) -> str:
    """One of the clauses that share words with what is said, or any."""
    return rng.choice([part for part in parts if _words(part) & _words(said)] or parts)


def _beside(before: str, value: str, said: str, rng: random.Random) -> str:
    """A leaf's text with a value: in place of all, or of a clause; after it, as another clause or as a detail."""
    how, parts = rng.random(), before.split(BETWEEN)
    if not before or how < 0.3:
        return value
    if how < 0.5 and len(parts) > 1:
        gone = _told_of(parts, said, rng)
        return BETWEEN.join([*(part for part in parts if part != gone), value])
    return f"{before}{BETWEEN if how < 0.8 else ', '}{value}"


def _part(words: Sequence[str], rng: random.Random) -> tuple[int, int]:
    """Where a part of a sentence begins and ends: likelier after a word that leads to one, and at the end, at
    a mark, or before a word that begins something else."""
    places = range(1, len(words))
    begin = rng.choices(
        places, [4 if words[i - 1].lower() in _LEADS or words[i].lower() in _ARTICLES else 1 for i in places]
    )[0]
    ends = [i for i in range(begin + 1, len(words)) if words[i].lower() in _ENDS or words[i - 1][-1:] in ",;:"]
    if ends and rng.random() < 0.5:
        return begin, rng.choice(ends)
    return begin, len(words) if rng.random() < 0.8 else rng.randint(begin + 1, len(words))


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _SMALL


def _forget(sentence: str, own: dict[str, str]) -> None:
    """Take out the clauses of which a sentence has half of the words."""
    said = _words(sentence)
    for path, text in own.items():
        left = [part for part in text.split(BETWEEN) if 2 * len(_words(part) & said) < len(_words(part)) or not part]
        own[path] = BETWEEN.join(left)


def known_in(prompt: str) -> dict[str, str]:
    """The leaves that a prompt of `PersonaTree` shows."""
    lines = (
        prompt[len(KNOWN) :].partition(NEW)[0].splitlines() if prompt.startswith(KNOWN) else part_of(prompt, "known")
    )
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def heard_in(prompt: str) -> list[str]:
    """What people say in it."""
    if prompt.startswith(KNOWN):
        return prompt.partition(f"\n{NEW}" if f"\n{NEW}" in prompt else NEW)[2].removesuffix(EDITS).splitlines()
    lines = (line.partition(": ") for line in part_of(prompt, "dialogue"))
    return [said for speaker, _, said in lines if speaker.lower() not in ("assistant", "system", "tool")]


def part_of(prompt: str, tag: str) -> list[str]:
    """The lines of the first part in a tag."""
    found = blocks(prompt, tag)
    return found[0].splitlines() if found else []
