"""What is noted of people after talks, in the third person and at length: cases of what a memory should do about it.

Notes are drawn from `tasks/cases/observed.txt`, written by hand, in several wordings. Near each other they are mostly
not the same: another place, another day. A note of something that is held already, in whatever words, is known; a later
detail of it is joined, and so is a view to another view about the same. No sentence of evaluation data is in it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from memorist.errors import need_known
from memorist.tasks.lives import SPLITS
from memorist.tasks.statements import Case

PEOPLE = {
    **dict.fromkeys(("Mara", "Lena", "Nadia", "Greta", "Yara", "Ines", "Rosa"), "she"),
    **dict.fromkeys(("Ivo", "Pavel", "Oscar", "Samir", "Tom", "Levi", "Hugo"), "he"),
    **dict.fromkeys(("Wren", "Kit"), "they"),
}
FORMS = {"she": ("her", "her", "she"), "he": ("his", "him", "he"), "they": ("their", "them", "they")}
SLOT = re.compile(r"{(\w+)}")
LONGEST = 6
"""Memories beside a note."""


@dataclass(frozen=True)
class Told:
    """One thing that can be noted. wordings: without a subject. detail: that can be told later; "" if none. view:
    whether it is a view or a habit."""

    wordings: tuple[str, ...]
    detail: str
    view: bool


@dataclass(frozen=True)
class Noted:
    """A thing that was noted of a person, with what its slots were filled by."""

    who: str
    told: Told
    slots: tuple[tuple[str, str], ...]

    def text(self, wording: int, tail: str = "") -> str:
        """In one of its wordings."""
        return self._filled(f"{self.told.wordings[wording % len(self.told.wordings)]}{tail}")

    def detail(self) -> str:
        """What can be told of it later."""
        return self._filled(self.told.detail)

    def _filled(self, text: str) -> str:
        found = dict(self.slots)
        told = SLOT.sub(lambda slot: found.get(slot[1], slot[0]), text)
        return f"{self.who} {told}."


@lru_cache
def _read() -> tuple[tuple[Told, ...], Mapping[str, tuple[str, ...]]]:
    file = Path(str(resources.files("memorist"))) / "tasks" / "cases" / "observed.txt"
    told: list[Told] = []
    pools: dict[str, tuple[str, ...]] = {}
    heading = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            heading = line.strip("[]")
        elif heading in ("event", "view"):
            wordings, _, detail = line.partition(" ## ")
            told.append(Told(tuple(wordings.split(" ;; ")), detail, heading == "view"))
        else:
            pools[heading] = tuple(part if part.startswith(",") else part.strip() for part in line.split("; "))
    return tuple(told), pools


def slots_of(told: Told) -> set[str]:
    """What a thing is about."""
    return set(SLOT.findall(told.wordings[0])) - {"their", "them", "they", "when", "month", "year", "count"}


THEMES = ("craft", "cause", "friend")
"""Two views of one person about the same of these belong together."""


def themes_of(one: Noted) -> set[tuple[str, str]]:
    """What a view is about; an event is about none."""
    found = dict(one.slots)
    return {(slot, found[slot]) for slot in slots_of(one.told) if slot in THEMES} if one.told.view else set()


def things() -> tuple[Told, ...]:
    """All that can be noted."""
    return _read()[0]


class Notes:
    """One person's notes.

    Args:
        split: of values and things; every fifth thing is of "validation".
    """

    def __init__(self, rng: random.Random, split: str = "train") -> None:
        need_known("split", split, SPLITS)
        self.rng = rng
        self.who = rng.choice(list(PEOPLE))
        self.known = [one for i, one in enumerate(things()) if (i % 5 == 4) == (split == "validation")]
        self.usual = {name: rng.choice(values) for name, values in _read()[1].items() if name != "tail"}

    def noted(self, told: Told, usual: float = 0.75) -> Noted:
        """A thing with slots drawn anew; `usual`: how often one has what is usual for this person, so that notes of
        different things share their words."""
        pools, (their, them, they) = _read()[1], FORMS[PEOPLE[self.who]]
        drawn = {name: self.rng.choice(pools[name]) for name in self.usual}
        drawn |= {name: value for name, value in self.usual.items() if self.rng.random() < usual}
        return Noted(self.who, told, tuple({**drawn, "their": their, "them": them, "they": they}.items()))

    def tail(self) -> str:
        """What is said of how it was."""
        if self.rng.random() < 0.45:
            return ""
        tail = self.rng.choice(_read()[1]["tail"])
        return tail if tail.startswith(",") else f" {tail}"


def observed_cases(count: int | None = None, *, split: str = "train", seed: int = 0) -> Iterator[Case]:
    """Cases of notes; without end where no count is given."""
    rng, made = random.Random(f"observed/{split}/{seed}"), 0
    while count is None or made < count:
        yield _case(Notes(rng, split))
        made += 1


def _case(notes: Notes) -> Case:
    rng = notes.rng
    subject = notes.noted(rng.choice(notes.known))
    how = rng.random()
    near = [one for one in notes.known if slots_of(one) & slots_of(subject.told)] or notes.known
    drawn = [rng.choice(near if rng.random() < 0.8 else notes.known) for _ in range(rng.randint(1, 5))]
    beside = [notes.noted(one) for one in dict.fromkeys(drawn) if one is not subject.told]
    if rng.random() < 0.5:  # the same kind of thing, but not the same
        other = notes.noted(subject.told, 0.3)
        if any(dict(other.slots)[slot] != dict(subject.slots)[slot] for slot in slots_of(subject.told)):
            beside.append(other)
    beside = [one for one in beside if not themes_of(one) & themes_of(subject)]
    memories = [_memory(notes, one) for one in beside]
    first, second = rng.sample(range(len(subject.told.wordings)), 2)
    alike = [
        one for one in notes.known if one.view and one is not subject.told and slots_of(one) & slots_of(subject.told)
    ]
    of: str | None = None
    operation, joins = "ADD", False
    said = subject.text(first, notes.tail())
    if how < 0.3 and themes_of(subject) and alike:
        other = Noted(subject.who, rng.choice(alike), subject.slots)
        if themes_of(other) & themes_of(subject):
            of, operation, joins = other.text(rng.randrange(3), notes.tail()), "UPDATE", True
    elif how > 0.85 and subject.told.detail:
        of, said, operation, joins = said, subject.detail(), "UPDATE", True
    elif how > 0.7:
        memories.append(f"{said} {memories.pop()}" if memories and rng.random() < 0.3 else said)
        said, operation = subject.text(second, notes.tail() if rng.random() < 0.5 else ""), "NOOP"
    if of is not None and memories and rng.random() < 0.25:
        of = f"{of} {memories.pop()}"
    memories = [m for m in dict.fromkeys(memories) if m != of]
    rng.shuffle(memories)
    memories = memories[: LONGEST - (of is not None)] + ([of] if of is not None else [])
    rng.shuffle(memories)
    target = memories.index(of) if of is not None else None
    return Case("observed", tuple(memories), said, operation, target, joins)


def _memory(notes: Notes, one: Noted) -> str:
    """As it may be held: with its detail, or joined to another."""
    text = one.text(notes.rng.randrange(3), notes.tail())
    if one.told.detail and notes.rng.random() < 0.3:
        return f"{text} {one.detail()}"
    if notes.rng.random() < 0.15:
        return f"{text} {notes.noted(notes.rng.choice(notes.known)).text(0, notes.tail())}"
    return text
