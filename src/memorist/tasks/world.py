"""A synthetic world of dialogues in LoCoMo's own JSON schema, so that one loader reads both.

Two people talk in sessions over months. Facts appear, change, are enriched, retracted, planned and done; between
them stand chit-chat, repetitions, wishes, and the same attributes of relatives. Questions of LoCoMo's five
categories follow with evidence ids. Everything is a function of (split, seed, difficulty, grammar).

Splits share neither people nor values. Gold operations travel along for diagnosis and for the ceiling row only;
nothing here, and no reward, reads them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from memorist.tasks.locomo import Dialogue, format_date, load_json
from memorist.tasks.phrasing import (
    ATTRIBUTES,
    DETAILED,
    ENDINGS,
    GRAMMARS,
    ONSETS,
    PEOPLE,
    RELATIVES,
    SYLLABLES,
    VOWELS,
    WORDS,
    Frame,
    Grammar,
)

WORLD_VERSION = "2"
SPLITS = ("base", "train", "validation", "test")
DIFFICULTIES = {"easy": (4, 8), "medium": (8, 10), "hard": (16, 12)}
"""Name to (sessions, turns a session)."""

# How often each kind of statement is made, where the state allows it.
_WEIGHTS = {
    "state": 5.0, "change": 2.0, "retract": 1.6, "plan": 1.0, "done": 1.5, "maybe": 1.6, "again": 0.8,
    "other": 1.4, "detail": 1.2, "chat": 1.4,
}  # fmt: skip


class Vocabulary:
    """The people and values of one split. Word lists are divided among the splits; names of places, firms and
    pets are built of syllables, with a different first syllable in each split."""

    def __init__(self, split: str, rng: random.Random) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
        self._index = SPLITS.index(split)
        self._rng = rng
        self._used: set[str] = set()

    def _share(self, words: tuple[str, ...]) -> list[str]:
        return [w for i, w in enumerate(words) if i % len(SPLITS) == self._index]

    def people(self) -> tuple[str, str]:
        """Two names; in the base split mostly invented ones."""
        if self._index == 0 and self._rng.random() < 0.8:
            return self._invent("name"), self._invent("name")
        first, second = self._rng.sample(self._share(PEOPLE), 2)
        return first, second

    def value(self, attribute: str) -> str:
        """A value that this dialogue has not used yet."""
        for _ in range(100):
            # The base split also sees invented words everywhere: a base that must copy, not remember.
            invent = attribute in ("city", "name") or (self._index == 0 and self._rng.random() < 0.6)
            word = self._invent(attribute) if invent else self._rng.choice(self._share(WORDS[attribute]))
            if word not in self._used:
                self._used.add(word)
                return word
        return self._invent("name")

    def _invent(self, attribute: str) -> str:
        for _ in range(1000):
            word = self._any_word() if self._index == 0 else self._syllables()
            if word not in _LISTED and (self._index or _split_of(word) in (None, 0)):
                return word.capitalize() if attribute in ("city", "name", "language") else word
        raise AssertionError("a thousand words in a row belong to other splits")

    def _any_word(self) -> str:
        """Any word, not just of certain syllables: a base that copies what it has never seen."""
        if self._rng.random() < 0.4:
            # The head of one word and the tail of another: letters as they follow each other in real words.
            head, tail = (self._rng.choice(_BLENDED) for _ in range(2))
            return (head[: self._rng.randint(2, len(head) - 1)] + tail[self._rng.randint(1, len(tail) - 2) :]).lower()
        parts = self._rng.choice((1, 2, 2, 3))
        word = "".join(self._rng.choice(ONSETS) + self._rng.choice(VOWELS) for _ in range(parts))
        return (word if self._rng.random() < 0.8 else word[1:]) + self._rng.choice(ENDINGS)

    def _syllables(self) -> str:
        """Two or three syllables, the first of this split's."""
        first = self._rng.choice(self._share(SYLLABLES))
        return first + "".join(self._rng.choices(SYLLABLES, k=self._rng.choice((1, 1, 2)))) + self._rng.choice(ENDINGS)


# Listed words belong to the split that lists them.
_LISTED = frozenset(word.lower() for word in (*PEOPLE, *(w for words in WORDS.values() for w in words)))
_BLENDED = tuple(w for words in WORDS.values() for i, w in enumerate(words) if i % len(SPLITS) == 0 and len(w) > 3)
_SYLLABIC = re.compile(f"(?:{'|'.join(SYLLABLES)}){{2,3}}(?:{'|'.join(ENDINGS)})")


def _split_of(word: str) -> int | None:
    """Whose an invented word is, by its first syllable; None if none of the splits but the base could invent it."""
    return SYLLABLES.index(word[:2]) % len(SPLITS) if _SYLLABIC.fullmatch(word) else None


@dataclass
class _Fact:
    """What holds about one (person, attribute): the value, and the turns that matter."""

    value: str | None = None
    set_at: str = ""
    set_on: datetime | None = None
    retracted_at: str = ""
    plan: str | None = None
    plan_at: str = ""
    detail: str | None = None
    detail_at: str = ""


@dataclass
class _Person:
    name: str
    other: str
    facts: dict[str, _Fact] = field(default_factory=lambda: {a: _Fact() for a in ATTRIBUTES})
    relatives: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Statement:
    """One turn's content: third person, first person, and what a perfect manager would do with it."""

    kind: str
    third: str
    first: str
    gold: tuple[dict[str, str], ...]


def generate(
    split: str, count: int, *, seed: int = 0, difficulty: str = "easy", grammar: str = "a"
) -> list[dict[str, Any]]:
    """`count` dialogues as LoCoMo samples.

    Args:
        split: "base", "train", "validation" or "test"; they share neither people nor values.
        count: how many dialogues.
        seed: another seed, other dialogues.
        difficulty: "easy", "medium" or "hard": longer dialogues, more to confuse.
        grammar: "a", or "b" for phrasings that training never sees.

    Raises:
        ValueError: an argument is none of these.
    """
    for name, given, known in (("difficulty", difficulty, DIFFICULTIES), ("grammar", grammar, GRAMMARS)):
        if given not in known:
            raise ValueError(f"{name} is {given!r}; expected one of {', '.join(known)}")
    return [_Writer(split, seed, i, difficulty, grammar).sample() for i in range(count)]


def dialogues(split: str, count: int, **options: Any) -> list[Dialogue]:
    """The same, read by the LoCoMo loader."""
    return load_json(generate(split, count, **options), f"synthetic-{split}")


class _Writer:
    """Writes one dialogue."""

    def __init__(self, split: str, seed: int, index: int, difficulty: str, grammar: str) -> None:
        self.id = f"syn-{split}-{grammar}-{difficulty}-{seed}-{index}"
        self.rng = random.Random(f"{WORLD_VERSION}/{self.id}")
        self.words = Vocabulary(split, self.rng)
        self.grammar: Grammar = GRAMMARS[grammar]
        self.sessions, self.turns = DIFFICULTIES[difficulty]
        first, second = self.words.people()
        self.people = (_Person(first, second), _Person(second, first))

    def sample(self) -> dict[str, Any]:
        """The whole dialogue as a LoCoMo sample."""
        a, b = self.people
        conversation: dict[str, Any] = {"speaker_a": a.name, "speaker_b": b.name}
        observation: dict[str, Any] = {}
        gold: list[dict[str, str]] = []
        day = datetime(2022, 1, 3, 9) + timedelta(days=self.rng.randrange(300))
        for number in range(1, self.sessions + 1):
            day += timedelta(days=self.rng.randint(4, 40))
            time = day.replace(hour=self.rng.randint(8, 21), minute=self.rng.randrange(60))
            turns: list[dict[str, str]] = []
            facts: dict[str, list[list[str]]] = {a.name: [], b.name: []}
            opener = self.rng.randrange(2)
            for k in range(1, self.turns + 1):
                person = self.people[(opener + k) % 2]
                dia_id = f"D{number}:{k}"
                said = self._statement(person, dia_id, time)
                lead = self.rng.choice(self.grammar.openers).format(T=person.other)
                turns.append({"speaker": person.name, "dia_id": dia_id, "text": lead + said.first})
                facts[person.name].append([said.third, dia_id])
                gold += [{"dia_id": dia_id, "kind": said.kind, **operation} for operation in said.gold]
            conversation[f"session_{number}_date_time"] = format_date(time)
            conversation[f"session_{number}"] = turns
            observation[f"session_{number}_observation"] = facts
        return {
            "sample_id": self.id,
            "conversation": conversation,
            "observation": observation,
            "qa": self._questions(),
            "gold_operations": gold,
        }

    def _statement(self, person: _Person, turn: str, time: datetime) -> _Statement:
        """Choose what is said next, and let it happen."""
        options = [(kind, attr) for kind in _WEIGHTS for attr in self._possible(person, kind)]
        kinds = sorted({kind for kind, _ in options})
        kind = self.rng.choices(kinds, [_WEIGHTS[k] for k in kinds])[0]
        attr = self.rng.choice([attr for k, attr in options if k == kind])
        if kind == "chat":
            third, first = self.rng.choice(self.grammar.chat)
            names = {"S": person.name, "T": person.other}
            return _Statement(kind, third.format(**names), first.format(**names), ({"event": "NONE"},))
        return getattr(self, f"_say_{kind}")(person, attr, turn, time)

    def _possible(self, person: _Person, kind: str) -> Iterator[str]:
        """Attributes of which `kind` can be said now."""
        for attr, fact in person.facts.items():
            known = fact.value is not None
            if (
                kind == "state"
                and not known
                and not fact.plan
                and sum(f.value is not None for f in person.facts.values()) < 6
            ):
                yield attr
            elif kind in ("change", "again") and known:
                yield attr
            elif kind == "retract" and known and attr != "city":
                yield attr
            elif kind == "plan" and known and fact.plan is None:
                yield attr
            elif kind == "done" and fact.plan is not None:
                yield attr
            elif kind in ("maybe", "other") and known:
                yield attr
            elif kind == "detail" and known and attr in DETAILED and fact.detail is None:
                yield attr
        if kind == "chat":
            yield ""

    def _words(self, person: _Person, kind: str, attr: str, value: str, relative: str = "") -> tuple[str, str]:
        frame = self.grammar.frames[attr]
        third, first = self.rng.choice(self.grammar.statements[kind])
        forms = {
            "S": person.name,
            "r": relative,
            "s": frame.third.format(v=value),
            "b": frame.base.format(v=value),
            "g": frame.doing.format(v=value),
        }
        return article(third.format(**forms)), article(first.format(**forms))

    def _set(self, fact: _Fact, value: str, turn: str, time: datetime) -> None:
        fact.value, fact.set_at, fact.set_on, fact.retracted_at = value, turn, time, ""

    def _say_state(self, person: _Person, attr: str, turn: str, time: datetime) -> _Statement:
        value = self.words.value(attr)
        third, first = self._words(person, "state", attr, value)
        self._set(person.facts[attr], value, turn, time)
        return _Statement("state", third, first, ({"event": "ADD"},))

    def _say_change(self, person: _Person, attr: str, turn: str, time: datetime) -> _Statement:
        fact, value = person.facts[attr], self.words.value(attr)
        third, first = self._words(person, "change", attr, value)
        gold = {"event": "UPDATE", "target": fact.set_at}
        self._set(fact, value, turn, time)
        return _Statement("change", third, first, (gold,))

    def _say_retract(self, person: _Person, attr: str, turn: str, time: datetime) -> _Statement:
        fact = person.facts[attr]
        third, first = self._words(person, "retract", attr, str(fact.value))
        gold = [{"event": "DELETE", "target": fact.set_at}]
        if fact.detail is not None:
            gold.append({"event": "DELETE", "target": fact.detail_at})
        fact.value, fact.retracted_at, fact.detail = None, turn, None
        return _Statement("retract", third, first, tuple(gold))

    def _say_plan(self, person: _Person, attr: str, turn: str, time: datetime) -> _Statement:
        fact = person.facts[attr]
        fact.plan, fact.plan_at = self.words.value(attr), turn
        third, first = self._words(person, "plan", attr, fact.plan)
        return _Statement("plan", third, first, ({"event": "ADD"},))

    def _say_done(self, person: _Person, attr: str, turn: str, time: datetime) -> _Statement:
        fact = person.facts[attr]
        value, plan_at = str(fact.plan), fact.plan_at
        third, first = self._words(person, "done", attr, value)
        gold = [{"event": "UPDATE", "target": plan_at}]
        if fact.value is not None:
            gold.append({"event": "DELETE", "target": fact.set_at})
        fact.plan = None
        self._set(fact, value, turn, time)
        return _Statement("done", third, first, tuple(gold))

    def _say_maybe(self, person: _Person, attr: str, turn: str, time: datetime) -> _Statement:
        third, first = self._words(person, "maybe", attr, self.words.value(attr))
        return _Statement("maybe", third, first, ({"event": "NONE"},))

    def _say_again(self, person: _Person, attr: str, turn: str, time: datetime) -> _Statement:
        third, first = self._words(person, "again", attr, str(person.facts[attr].value))
        return _Statement("again", third, first, ({"event": "NONE"},))

    def _say_other(self, person: _Person, attr: str, turn: str, time: datetime) -> _Statement:
        free = [r for r in RELATIVES if (r, attr) not in person.relatives]
        relative, value = self.rng.choice(free), self.words.value(attr)
        third, first = self._words(person, "other", attr, value, relative)
        person.relatives[(relative, attr)] = (value, turn)
        return _Statement("other", third, first, ({"event": "ADD"},))

    def _say_detail(self, person: _Person, attr: str, turn: str, time: datetime) -> _Statement:
        fact, frame = person.facts[attr], self.grammar.frames[attr]
        fact.detail = self.words.value("colour" if attr == "car" else "name")
        fact.detail_at = turn
        forms = {"S": person.name, "d": fact.detail}
        return _Statement(
            "detail", frame.detail.format(**forms), frame.detail_first.format(**forms), ({"event": "ADD"},)
        )

    def _questions(self) -> list[dict[str, Any]]:
        qa: list[dict[str, Any]] = []
        for person in self.people:
            for attr, fact in person.facts.items():
                qa += self._about(person, attr, fact, self.grammar.frames[attr])
            for (relative, attr), (value, turn) in person.relatives.items():
                ask = self.grammar.frames[attr].ask_other.format(S=person.name, r=relative)
                qa.append(_qa(ask, value, 4, turn))
        qa += self._about_both()
        qa += self._unanswerable()
        self.rng.shuffle(qa)
        return qa

    def _about(self, person: _Person, attr: str, fact: _Fact, frame: Frame) -> Iterator[dict[str, Any]]:
        name = person.name
        if fact.value is not None:
            yield _qa(frame.ask.format(S=name), fact.value, 4, fact.set_at)
            assert fact.set_on is not None
            if self.rng.random() < 0.35:
                when = article(self.grammar.when.format(S=name, b=frame.base.format(v=fact.value)))
                yield _qa(when, f"{fact.set_on.day} {fact.set_on:%B %Y}", 2, fact.set_at)
        elif fact.retracted_at:
            yield _qa(frame.ask.format(S=name), "none", 4, fact.retracted_at)
        if fact.plan is not None:
            yield _qa(frame.ask_plan.format(S=name), fact.plan, 4, fact.plan_at)
        if fact.detail is not None:
            yield _qa(frame.ask_detail.format(S=name), fact.detail, 4, fact.detail_at)
        if frame.likely and (fact.value is not None or fact.retracted_at) and self.rng.random() < 0.15:
            answer = "likely yes" if fact.value is not None else "likely no"
            yield _qa(f"Would {name} {frame.likely}?", answer, 3, fact.retracted_at or fact.set_at)

    def _about_both(self) -> Iterator[dict[str, Any]]:
        a, b = self.people
        for attr in ATTRIBUTES:
            x, y = a.facts[attr], b.facts[attr]
            if x.value is not None and y.value is not None and self.rng.random() < 0.6:
                ask = self.grammar.frames[attr].ask_both.format(S=a.name, T=b.name)
                yield _qa(ask, f"{x.value}, {y.value}", 1, x.set_at, y.set_at)

    def _unanswerable(self) -> Iterator[dict[str, Any]]:
        """Category 5: asked of a person or relative of whom it was never said, while it was of another."""
        for person in self.people:
            for (_, attr), (value, turn) in person.relatives.items():
                strangers = [r for r in RELATIVES if (r, attr) not in person.relatives]
                if not strangers:
                    continue
                stranger = self.rng.choice(strangers)
                if self.rng.random() < 0.3:
                    ask = self.grammar.frames[attr].ask_other.format(S=person.name, r=stranger)
                    yield {"question": ask, "category": 5, "evidence": [turn], "adversarial_answer": value}


def article(sentence: str) -> str:
    """The sentence with "an" where a vowel follows."""
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", sentence)


def _qa(question: str, answer: str, category: int, *evidence: str) -> dict[str, Any]:
    return {"question": question, "answer": answer, "category": category, "evidence": list(evidence)}
