"""Streams of statements from invented lives as dialogue tasks: is what holds found afterwards, and nothing stale?

A question is about one thing that somebody told of. It is answered where a statement that holds stands in a memory that
is shown, word for word; one that holds no more is stale there. Nothing here says which operation was right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar

from memorist.catalogue import find
from memorist.conversation import Message
from memorist.decision import Decision, Reward
from memorist.errors import RecipeError, need_known
from memorist.memory.record import Code, MemoryRecord, Operation, Scope
from memorist.memory.scratch import minilm_bank
from memorist.persons import Person, told_of
from memorist.tasks.dialogue import UNDATED, DialogueTask
from memorist.tasks.lives import KINDS, SPLITS, VOICES, Fact, Life, Said, Subject
from memorist.tasks.locomo import Question

TELLING = ("ADD", "UPDATE", "DELETE")


@dataclass(frozen=True, slots=True)
class LifeQuestion(Question):
    """One question. told: for each thing that holds, the statements that tell it, any of which will do; stale:
    statements that hold no more. All as they were said."""

    told: tuple[tuple[str, ...], ...] = ()
    stale: tuple[str, ...] = ()


@dataclass(frozen=True)
class StreamTask(DialogueTask):
    """A stream with its questions. worth: ids of the statements that tell something new when they are said."""

    worth: frozenset[str] = frozenset()


@dataclass
class _Thing:
    """What is known of a person and a subject, by form and value: what tells it, in groups (itself, each detail)."""

    person: Person
    subject: Subject
    holds: dict[tuple[str, str], list[list[str]]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    ended: str = ""


def told(life: Life, name: str, statements: int) -> Iterator[tuple[Message, Said]]:
    """What a life tells next, in so many messages hours apart, each with what is right about it."""
    time = datetime(2025, 1, 1, 9) + timedelta(days=life.rng.randrange(300))
    made = 0
    while made < statements:
        said = life.step(KINDS | {"new": 5.0})
        if said is not None:
            yield Message(life.me.name, said.text, f"{name}/{made}", time, statements=(said.text,)), said
            time += timedelta(hours=life.rng.randint(1, 60))
            made += 1


def _begun(name: str, split: str, seed: int) -> tuple[random.Random, Life]:
    """Who it is about, and what chance is drawn from as their life goes on and questions are asked."""
    rng = random.Random(f"stream/{split}/{seed}/{name}")
    return rng, Life(rng, split=split, voice=rng.choice(VOICES), rough=0.3, subjects_=rng.randint(3, 7))


def stream(name: str, statements: int, *, split: str = "train", seed: int = 0) -> StreamTask:
    """One person's stream of so many statements, and a question for each thing that was told of."""
    rng, life = _begun(name, split, seed)
    messages: list[Message] = []
    worth: set[str] = set()
    things: dict[tuple[Person, str], _Thing] = {}
    for message, said in told(life, name, statements):
        messages.append(message)
        if said.operation in TELLING:
            worth.add(message.id)
        _happened(said, things)
    ids = {message.text: message.id for message in messages}
    asked = tuple(question for thing in things.values() for question in _questions(thing, life, ids, rng))
    return StreamTask(name, (life.me.name,), tuple(messages), asked, worth=frozenset(worth))


def moments(name: str, statements: int, *, split: str = "train", seed: int = 0) -> list[StreamTask]:
    """Each statement of a life as a task of its own: from a bank in which all before it was written down as is right,
    with a question for each thing that was told of by then. What was decided wrong before is nobody's temptation here:
    over a bank with stale memories any statement is better off in the place of one of them, whatever it is about."""
    rng, life = _begun(name, split, seed)
    tasks: list[StreamTask] = []
    ids: dict[str, str] = {}
    things: dict[tuple[Person, str], _Thing] = {}
    right = _Right(life.me.name)
    for message, said in told(life, name, statements):
        before = right.bank.fork()
        right.write(message, said)
        _happened(said, things)
        ids[message.text] = message.id
        asked = tuple(question for thing in things.values() for question in _questions(thing, life, ids, rng))
        worth = frozenset([message.id] if said.operation in TELLING else [])
        if asked:
            tasks.append(StreamTask(message.id, (life.me.name,), (message,), asked, before, worth=worth))
    return tasks


class _Right:
    """A bank that is written as is right."""

    def __init__(self, user: str) -> None:
        self.bank, self.scope = minilm_bank(), Scope(user)
        self.held: dict[tuple[Person, str, str, str], MemoryRecord] = {}

    def write(self, message: Message, said: Said) -> None:
        """Do what is right about a statement."""
        if said.operation == "NOOP" or said.fact is None:
            return
        old = self.held.pop(self._key(said.fact), None)
        text = f"{old.text} {said.text}" if old is not None and said.joins else said.text
        written = Operation(said.operation, text, old.id if old is not None else None)
        [result] = self.bank.apply([written], self.scope, at=message.time or UNDATED, source=[message.id])
        after = said.fact if said.joins else said.after
        if after is not None and result.record is not None:
            self.held[self._key(after)] = result.record

    @staticmethod
    def _key(fact: Fact) -> tuple[Person, str, str, str]:
        return fact.person, fact.subject.name, fact.form, fact.value


def _happened(said: Said, things: dict[tuple[Person, str], _Thing]) -> None:
    """Keep the books of what holds by statement."""
    if said.fact is None:
        return
    thing = things.setdefault((said.fact.person, said.fact.subject.name), _Thing(said.fact.person, said.fact.subject))
    key = (said.fact.form, said.fact.value)
    if said.operation == "ADD":
        thing.holds[key if said.fact.value else ("detail", said.text)] = [[said.text]]
    elif said.operation == "NOOP" and key in thing.holds:
        thing.holds[key][0].append(said.text)
    elif said.operation == "UPDATE" and said.joins:
        thing.holds[key].append([said.text])
    elif said.operation in ("UPDATE", "DELETE"):
        thing.gone += [one for group in thing.holds.pop(key) for one in group]
        if said.after is not None:
            thing.holds[said.after.form, said.after.value] = [[said.text]]
        else:
            thing.ended = said.text


def _questions(thing: _Thing, life: Life, ids: Mapping[str, str], rng: random.Random) -> Iterator[LifeQuestion]:
    """One, if anything was told; its evidence are the ids of the first statements that tell each thing, or of the last
    one."""
    text = rng.choice(thing.subject.asks)
    if thing.person is not life.me or life.voice == "third":
        text = told_of(text, thing.person)
    told = tuple(tuple(group) for groups in thing.holds.values() for group in groups)
    last = tuple(ids[group[0]] for group in told) or ((ids[thing.ended],) if thing.ended else ())
    holding = {one for group in told for one in group}
    if last:
        stale = tuple(one for one in dict.fromkeys(thing.gone) if one not in holding)
        yield LifeQuestion(text, "", 4, last, told=told, stale=stale)


def current(task: Any, outcome: Any, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
    """current, stale, junk: of what holds, the share that is among the memories shown; minus the share of questions
    that are shown something that holds no more; minus the share of messages that were stored, by themselves or with or
    in place of a memory, and told nothing new."""
    found: list[float] = []
    stale: list[float] = []
    for question, answer in zip(task.questions, outcome.answers, strict=True):
        shown = [record.text for record in answer.candidates]
        if question.told:
            seen = [any(one in text for one in group for text in shown) for group in question.told]
            found.append(sum(seen) / len(seen))
        stale.append(float(any(one in text for one in question.stale for text in shown)))
    junk = sum(
        result.operation.kind in ("ADD", "UPDATE") and not set(result.operation.source[-1:]) & task.worth
        for results in outcome.results
        for result in results
        if result.code is Code.APPLIED
    )
    rewards = [Reward("junk", -junk / max(1, len(task.messages)))]
    if found:
        rewards.append(Reward("current", sum(found) / len(found)))
    if stale:
        rewards.append(Reward("stale", -sum(stale) / len(stale)))
    return tuple(rewards)


@dataclass(frozen=True)
class LivesData:
    """Streams of invented lives.

    lives: how many. statements: of each. rewards: terms, by their names in the catalogue. bank: which bank runs start
    from. moments: whether each statement is a task of its own, from a bank as is right by then (of MiniLM's vectors).
    """

    kind: str = "lives"
    split: str = "train"
    lives: int = 400
    statements: int = 24
    seed: int = 0
    rewards: tuple[str, ...] = ("current",)
    bank: str = "minilm"
    moments: bool = False

    exercise: ClassVar[str] = "dialogue"

    def check(self, where: str = "data") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist, or a number is too small.
        """
        need_known(f"{where}.split", self.split, SPLITS)
        for name in ("lives", "statements"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{where}.{name} is {getattr(self, name)}; expected 1 or more")
        for i, name in enumerate(self.rewards):
            find("rewards", name, f"{where}.rewards[{i}]")
        find("banks", self.bank, f"{where}.bank")
        if self.moments and self.bank != "minilm":
            raise RecipeError(f"{where}.bank is {self.bank!r}; expected 'minilm' where {where}.moments is true")

    def tasks(self, seed: int) -> list[DialogueTask]:
        """The streams; `seed`, the run's, changes nothing of them."""
        if self.moments:
            lives = (moments(f"life-{i}", self.statements, split=self.split, seed=self.seed) for i in range(self.lives))
            return [replace(one, rewards=self.rewards) for life in lives for one in life]
        bank = find("banks", self.bank, "data.bank")
        made = (stream(f"life-{i}", self.statements, split=self.split, seed=self.seed) for i in range(self.lives))
        return [replace(one, bank=bank(), rewards=self.rewards) for one in made]
