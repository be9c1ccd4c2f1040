"""Invented lives, told in varied English: statements with what a memory should do about each, and what holds.

How people tell of their homes, jobs, pets and so on stands in `tasks/cases/lives.txt`, written by hand. Here sentences
are drawn from it about a person and those around them, in the first person or the third, in several registers, with
typos, small talk, run-ons and questions between them. No sentence of evaluation data is in it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path

from memorist.errors import DataError, need_known
from memorist.persons import HE, SHE, Person, told_of
from memorist.tasks.statements import Case

SPLITS = {"train": 0, "validation": 1}
"""Splits share no value of a subject where it has four or more; every fourth is of "validation"."""
FORMS = ("state", "change", "moved", "end", "again", "more", "wish", "other", "plan", "done", "off")
VOICES = ("first", "third")
TRIES = 200


@dataclass(frozen=True)
class Subject:
    """What can be told of. many: whether several values hold side by side. values, details: what templates are filled
    with. asks: questions about it. forms: templates by kind."""

    name: str
    many: bool
    values: tuple[str, ...]
    details: tuple[str, ...]
    asks: tuple[str, ...]
    forms: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Talk:
    """What is said and tells nothing that is worth keeping, and how sentences are roughened."""

    idle: tuple[str, ...]
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    relatives: tuple[str, ...]
    names: tuple[str, ...]


def read_subjects(text: str, where: str = "lives") -> list[Subject]:
    """The subjects of a text in the form of `tasks/cases/lives.txt`.

    Raises:
        DataError: a line has another form.
    """
    found: list[Subject] = []
    held: dict[str, tuple[str, ...]] = {}
    head = ("", "")
    for number, line in enumerate([*text.splitlines(), "[] one"], 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if heading := re.fullmatch(r"\[(\w*)\] (one|many)", line):
            if head[0]:
                forms = {kind: held[kind] for kind in FORMS if kind in held}
                found.append(Subject(head[0], head[1] == "many", held["v"], held["d"], held["ask"], forms))
            head, held = (heading[1], heading[2]), {}
            continue
        kind, colon, rest = line.partition(":")
        if not colon or kind not in ("v", "d", "ask", *FORMS):
            raise DataError(where, f"line {number}", kind[:20], f"expected one of v, d, ask, {', '.join(FORMS)}")
        held[kind] = tuple(part.strip() for part in rest.split(";") if part.strip())
    return found


def _file(name: str) -> str:
    return (Path(str(resources.files("memorist"))) / "tasks" / "cases" / name).read_text(encoding="utf-8")


@lru_cache
def subjects() -> tuple[Subject, ...]:
    """Those that come with the package."""
    return tuple(read_subjects(_file("lives.txt"), "lives.txt"))


@lru_cache
def talk() -> Talk:
    """What comes with the package."""
    parts: dict[str, list[str]] = {}
    kind = ""
    for line in _file("talk.txt").splitlines():
        line = line.rstrip()
        if heading := re.fullmatch(r"\[([a-z]+)\]", line):
            kind = heading[1]
        elif line and not line.startswith("#"):
            parts.setdefault(kind, []).append(line.replace("_", " ") if kind in ("openers", "closers") else line)
    return Talk(*(tuple(parts[name]) for name in ("idle", "openers", "closers", "relatives", "names")))


@dataclass
class Fact:
    """What holds of somebody. form: "state", or "plan" where it is to come. text: as it is remembered."""

    person: Person
    subject: Subject
    value: str
    form: str
    text: str
    details: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Said:
    """A statement, and what is right about it: operation, the fact that it is of as it was, whether both are joined,
    and the fact that holds then. kind: which form the statement has."""

    text: str
    operation: str
    kind: str
    fact: Fact | None = None
    joins: bool = False
    after: Fact | None = None


class Life:
    """One person's life and those around them, as it goes on.

    Args:
        rng: what chance is drawn from.
        split: whose values.
        voice: "first": "I live in Porto", or "third": "Ada lives in Porto".
        rough: share of statements that are roughened.
    """

    def __init__(
        self, rng: random.Random, *, split: str = "train", voice: str = "first", rough: float = 0.4, subjects_: int = 8
    ) -> None:
        need_known("split", split, SPLITS)
        need_known("voice", voice, VOICES)
        self.rng, self.split, self.voice, self.rough = rng, split, voice, rough
        self.subjects = rng.sample(subjects(), min(subjects_, len(subjects())))
        name = rng.choice(talk().names)
        self.me = Person(name, *(SHE if rng.random() < 0.5 else HE))
        self.others = [self._relative() for _ in range(3)]
        self.facts: list[Fact] = []
        self.gone: list[Fact] = []

    def _relative(self) -> Person:
        word = self.rng.choice(talk().relatives)
        if word[0].isupper():
            return Person(word, *(SHE if self.rng.random() < 0.5 else HE))
        own = "my" if self.voice == "first" else self.me.own
        return Person(word.replace("my", own, 1), *(SHE if self.rng.random() < 0.5 else HE))

    # What can happen.

    def step(self, kinds: Mapping[str, float]) -> Said | None:
        """Something that is said next, of a kind drawn by its weight; None where nothing of that kind can be."""
        kind = self.rng.choices(list(kinds), list(kinds.values()))[0]
        said = getattr(self, f"_{kind}")()
        return self._roughened(said) if said is not None else None

    def _of(self, person: Person | None = None) -> Person:
        return person or (self.me if self.rng.random() < 0.72 else self.rng.choice(self.others))

    def _values(self, subject: Subject) -> list[str]:
        every = len(subject.values) >= 4
        return [v for i, v in enumerate(subject.values) if not every or (i % 4 == 3) == (self.split == "validation")]

    def _held(self, person: Person, subject: Subject, form: str | None = None) -> list[Fact]:
        return [f for f in self.facts if f.person == person and f.subject == subject and form in (None, f.form)]

    def _fill(self, template: str, person: Person, value: str, old: str = "", detail: str = "") -> str | None:
        """A template about somebody; None where they do not come up in it."""
        text = template.replace("{v}", "\0").replace("{o}", "\1").replace("{d}", "\2")
        if person is not self.me or self.voice == "third":
            told = told_of(text, person)
            if told == text:
                return None
            text = told
        text = text.replace("\0", value).replace("\1", old).replace("\2", detail)
        return text[:1].upper() + text[1:]

    def _say(
        self, kind: str, subject: Subject, person: Person, value: str, old: str = "", detail: str = ""
    ) -> str | None:
        forms = [t for t in subject.forms.get(kind, ()) if old or "{o}" not in t]
        self.rng.shuffle(forms)
        return next((text for t in forms if (text := self._fill(t, person, value, old, detail))), None)

    def _new(self) -> Said | None:
        """Something that is not known yet."""
        person, subject = self._of(), self.rng.choice(self.subjects)
        held = self._held(person, subject)
        form = self.rng.choice([f for f in ("state", "state", "plan") if f in subject.forms])
        if (held and not subject.many and any(f.form == form for f in held)) or len(held) > 2:
            return None
        free = [v for v in self._values(subject) if v not in {f.value for f in held}]
        if not free:
            return None
        value = self.rng.choice(free)
        kind = "change" if form == "state" and not held and self.rng.random() < 0.15 else form
        text = self._say(kind, subject, person, value)
        return self._added(Fact(person, subject, value, form, text), kind) if text else None

    def _added(self, fact: Fact, kind: str) -> Said:
        self.facts.append(fact)
        return Said(fact.text, "ADD", kind, fact, after=fact)

    def _change(self) -> Said | None:
        """What was is otherwise now."""
        fact = self._some()
        if fact is None:
            return None
        subject, person = fact.subject, fact.person
        kind = "moved" if fact.form == "plan" else "change"
        free = [v for v in self._values(subject) if v not in {f.value for f in self._held(person, subject)}]
        if kind not in subject.forms or not free:
            return None
        value = self.rng.choice(free)
        plain = kind == "change" and not subject.many and self.rng.random() < 0.25
        if subject.many and kind == "change":
            # With several side by side only a statement that names the old one says which one is gone.
            kinds = [t for t in subject.forms[kind] if "{o}" in t]
            made = self._fill(self.rng.choice(kinds), person, value, fact.value) if kinds else None
        else:
            made = self._say("state" if plain else kind, subject, person, value, fact.value)
        return self._replaced(fact, value, made, "contradiction" if plain else kind, fact.form) if made else None

    def _replaced(self, fact: Fact, value: str, text: str, kind: str, form: str) -> Said:
        self.gone.append(Fact(fact.person, fact.subject, fact.value, fact.form, fact.text))
        self.facts.remove(fact)
        after = Fact(fact.person, fact.subject, value, form, text)
        self.facts.append(after)
        return Said(text, "UPDATE", kind, fact, after=after)

    def _some(self, *forms: str) -> Fact | None:
        some = [f for f in self.facts if not forms or f.form in forms]
        return self.rng.choice(some) if some else None

    def _end(self) -> Said | None:
        """What was is no more."""
        fact = self._some()
        if fact is None:
            return None
        kind = "off" if fact.form == "plan" else "end"
        text = self._say(kind, fact.subject, fact.person, fact.value)
        if text is None:
            return None
        self.facts.remove(fact)
        self.gone.append(fact)
        return Said(text, "DELETE", kind, fact)

    def _done(self) -> Said | None:
        """A plan came true. Where the present is remembered too, two memories would be stale: left out."""
        fact = self._some("plan")
        if fact is None or (self._held(fact.person, fact.subject, "state") and not fact.subject.many):
            return None
        text = self._say("done", fact.subject, fact.person, fact.value)
        return self._replaced(fact, fact.value, text, "done", "state") if text else None

    def _again(self) -> Said | None:
        """What is known, in the same words or others."""
        fact = self._some()
        if fact is None:
            return None
        kind = "again" if self.rng.random() < 0.55 else fact.form
        text = fact.text if self.rng.random() < 0.08 else self._say(kind, fact.subject, fact.person, fact.value)
        return Said(text, "NOOP", "again", fact) if text else None

    def _more(self) -> Said | None:
        """A detail of what is known; where it is not known, something new."""
        if self.rng.random() < 0.15:
            return self._lone_detail()
        fact = self._some("state")
        if fact is None or len(self._held(fact.person, fact.subject)) > 1:
            return None
        return self._detail(fact.person, fact.subject, fact)

    def _detail(self, person: Person, subject: Subject, fact: Fact | None) -> Said | None:
        free = [d for d in subject.details if fact is None or d not in fact.details]
        if not free or "more" not in subject.forms or len(free) + 2 < len(subject.details):
            return None
        detail = self.rng.choice(free)
        text = self._say("more", subject, person, fact.value if fact else "", detail=detail)
        if text is None:
            return None
        if fact is None:
            return Said(text, "ADD", "detail", Fact(person, subject, "", "state", text))
        old = Fact(person, subject, fact.value, fact.form, fact.text)
        fact.details.append(detail)
        fact.text = f"{fact.text} {text}"
        return Said(text, "UPDATE", "more", old, joins=True)

    def _lone_detail(self) -> Said | None:
        person, subject = self._of(), self.rng.choice(self.subjects)
        return None if self._held(person, subject) else self._detail(person, subject, None)

    def _wish(self) -> Said | None:
        """What is only imagined."""
        person, subject = self._of(), self.rng.choice(self.subjects)
        held = {f.value for f in self._held(person, subject)}
        free = [v for v in self._values(subject) if v not in held]
        text = self._say("wish", subject, person, self.rng.choice(free)) if free else None
        return Said(text, "NOOP", "wish") if text else None

    def _other(self) -> Said | None:
        """Of somebody else, often what is the same as here."""
        person, subject = self.rng.choice(self.others), self.rng.choice(self.subjects)
        if self._held(person, subject) or "other" not in subject.forms:
            return None
        mine = [f.value for f in self.facts if f.subject == subject]
        value = self.rng.choice(mine if mine and self.rng.random() < 0.5 else self._values(subject))
        text = self.rng.choice(subject.forms["other"]).replace("{r}", person.name).replace("{v}", value)
        text = text[:1].upper() + text[1:]
        settled = "loves" in text or "stand" in text or "left" in text  # not what the subject says
        fact = Fact(person, subject, value, "other" if settled else "state", text)
        return self._added(fact, "other")

    def _ask(self) -> Said | None:
        """A question."""
        subject = self.rng.choice(self.subjects)
        text = self.rng.choice(subject.asks)
        person = self._of()
        asked = text if person is self.me and self.voice == "first" else told_of(text, person)
        return Said(asked, "NOOP", "ask")

    def _idle(self) -> Said | None:
        """Small talk, jokes, orders to the memory."""
        text = self.rng.choice(talk().idle)
        if self.voice == "third":
            text = told_of(text, self.me)
        return Said(text, "NOOP", "idle")

    # How it is said.

    def _roughened(self, said: Said) -> Said:
        if self.rng.random() >= self.rough:
            return said
        return replace(said, text=rough(said.text, self.rng))


def rough(text: str, rng: random.Random) -> str:
    """As people type: without capitals or marks, with typos, openers, closers."""
    how = rng.random()
    words = talk()
    if how < 0.2:
        text = text.lower()
    elif how < 0.3:
        text = text.rstrip(".")
    elif how < 0.45:
        text = typo(text, rng)
    elif how < 0.6:
        keep = text.split(" ")[0] in ("I", "I'm", "I've", "I'd", "I'll") or rng.random() < 0.3
        text = rng.choice(words.openers) + (text if keep else text[:1].lower() + text[1:])
    elif how < 0.75:
        text = text.rstrip(".") + rng.choice(words.closers)
    elif how < 0.85:
        text = re.sub(r"\b([Ii])'(m|ve|ll|d)\b", lambda m: m[1] + m[2], text).replace("n't", "nt")
    elif how < 0.95:
        idle = rng.choice(words.idle)
        text = f"{idle.rstrip('.')}, {text[:1].lower() + text[1:]}" if text[:2] != "I " else f"{idle} {text}"
    else:
        text = text.rstrip(".").upper() if rng.random() < 0.3 else typo(text.lower(), rng)
    return text


def typo(text: str, rng: random.Random) -> str:
    """With a wrong letter in forty or so."""
    letters = list(text)
    for _ in range(max(1, len(letters) // 40)):
        if len(letters) < 4:
            break
        i, how = rng.randrange(1, len(letters) - 1), rng.random()
        if how < 0.4:
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
        elif how < 0.7:
            del letters[i]
        else:
            letters.insert(i, letters[i])
    return "".join(letters)


KINDS = {
    "new": 3.0, "change": 3.0, "end": 2.6, "done": 0.8, "again": 2.6, "more": 2.2, "wish": 1.2, "other": 1.0,
    "ask": 0.6, "idle": 1.0,
}  # fmt: skip
"""How often each is tried in a case."""


def life_cases(count: int, *, split: str = "train", seed: int = 0) -> Iterator[Case]:
    """Statements with what is held when they are made, each from a life of its own; without end where `count` is
    0."""
    made, number = 0, 0
    while not count or made < count:
        rng = random.Random(f"life/{split}/{seed}/{number}")
        number += 1
        case = _case(rng, split)
        if case is not None:
            made += 1
            yield case


def _case(rng: random.Random, split: str) -> Case | None:
    life = Life(rng, split=split, voice=rng.choice(VOICES), rough=0.0, subjects_=rng.randint(2, 6))
    for _ in range(rng.randint(1, 9)):
        life.step({"new": 4.0, "other": 1.0, "more": 0.6, "change": 0.4, "end": 0.2})
    life.rough = 0.45
    held = [(f, f.text) for f in life.facts]
    said = None
    for _ in range(TRIES):
        if (said := life.step(KINDS)) is not None:
            break
    if said is None:
        return None
    rng.shuffle(held)
    texts = tuple(dict.fromkeys(text for _, text in held))
    target = None
    if said.operation in ("UPDATE", "DELETE"):
        assert said.fact is not None
        target = texts.index(said.fact.text)
    return Case(said.kind, texts, said.text, said.operation, target, said.joins)


def shown(cases: Sequence[Case]) -> str:
    """Cases in the form of `tasks/cases`, to be read by people."""
    codes = {"ADD": "A", "NOOP": "N", "DELETE": "D"}
    return "\n".join(
        f"= {' ;; '.join(c.memories)}\n{codes.get(c.operation, 'J' if c.joins else 'U')}"
        f"{'' if c.target is None else c.target} {c.statement}"
        for c in cases
    )
