"""Bringing rows of another memory in: each is added, known already, or broken, and none stops the others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from memorist.conversation import Message
from memorist.errors import UnreadError
from memorist.library.importing import Broken, Fact, Row, Talk
from memorist.library.results import Imported, refusal
from memorist.memory.record import Code, Operation, Result, Scope, clean_text
from memorist.memory.stored import StoredBank

ODD = (ValueError, TypeError, LookupError, OverflowError)
"""What a row may hold that nobody has thought of raises one of these; what the file cannot do is another error."""

TOGETHER = 500
"""Facts that are written in one commit."""

MOST_SILENT = 3
"""Conversations in a row that a model may fail on before no more are tried."""

Observe = Callable[[Sequence[Message], Scope], Sequence[Result]]


@dataclass
class Bringing:
    """One import into a bank.

    Args:
        bank: where to.
        scope: whose everything is, save rows of scopes that it covers, which keep theirs; None for the rows' own.
        observe: lets the agent read a conversation.
        clock: when a fact was said that does not say it.
        ids: makes the ids of records that have none, or one that is in use.
        progress: called with the number of rows that are done.
    """

    bank: StoredBank
    scope: Scope | None
    observe: Observe
    clock: Callable[[], datetime]
    ids: Callable[[], str]
    progress: Callable[[int], None] = lambda done: None
    added: int = 0
    known: int = 0
    broken: list[tuple[int, str]] = field(default_factory=list)
    _waiting: list[tuple[int, Fact]] = field(default_factory=list)
    _place: Scope | None = None
    _silent: int = 0

    def all(self, rows: Iterable[tuple[int, Row]]) -> Imported:
        """Bring in all rows, in order."""
        for done, (number, row) in enumerate(rows, 1):
            if isinstance(row, Broken):
                self.broken.append((number, row.problem))
            elif isinstance(row, Talk):
                self._flush()
                self._talk(number, row)
            else:
                self._fact(number, row)
            self.progress(done)
        self._flush()
        told = tuple(f"row {number}: {problem}" for number, problem in sorted(self.broken))
        return Imported(self.added, self.known, told)

    def _where(self, own: Scope | None) -> Scope | None:
        if self.scope is None or (own is not None and self.scope.covers(own)):
            return own
        return self.scope

    def _talk(self, number: int, talk: Talk) -> None:
        if self.scope is None:
            self.broken.append((number, "a conversation does not say whose it is; give a scope"))
            return
        place = self.scope if self.scope.session else replace(self.scope, session=clean_text(talk.id))
        if self._silent >= MOST_SILENT:
            self.broken.append((number, "was not read: the model does not answer"))
            return
        try:
            results, self._silent = self.observe(talk.messages, place), 0
        except UnreadError as error:
            results, self._silent = error.results, self._silent + 1
            self.broken.append((number, f"was not read to its end: {error}"))
        for result in results:
            self.added += result.code == Code.APPLIED
            self.known += result.code == Code.UNCHANGED

    def _fact(self, number: int, fact: Fact) -> None:
        place = self._where(fact.scope)
        if place is None:
            self.broken.append((number, "does not say whose it is; give a scope"))
            return
        if place != self._place or len(self._waiting) == TOGETHER:
            self._flush()
        self._place = place
        self._waiting.append((number, fact))

    def _flush(self) -> None:
        """Write what waits: in one commit, or where something in it is refused one by one."""
        if self._waiting and self._place is not None:
            place, facts = self._place, [fact for _, fact in self._waiting]
            try:
                written = self._write(facts, place)
            except ODD:
                written = False
            for number, fact in self._waiting if not written else ():
                try:
                    self._write([fact], place, number)
                except ODD as error:
                    self.broken.append((number, f"cannot be stored: {error}"))
        self._waiting = []

    def _id(self, given: str | None, place: Scope) -> str:
        """The id that a fact gets here: its own, or where another scope has that one, always the same other one."""
        if given is None:
            return self.ids()
        holder = self.bank.holder(given)
        if holder is None or holder == place:
            return given
        own = "\0".join((given, place.user, place.agent, place.session))
        return hashlib.sha256(own.encode()).hexdigest()[:16]

    def _text(self, record_id: str, place: Scope) -> str | None:
        """What a record of this place says, or said last; None if there never was one."""
        if self.bank.holder(record_id) != place:
            return None
        return self.bank.history(record_id, place)[-1].record.text

    def _write(self, facts: Sequence[Fact], place: Scope, number: int | None = None) -> bool:
        """Write facts as one commit; False if one is refused, which then is noted under its number."""
        ops: list[Operation] = []
        ids: dict[int, str] = {}
        known = 0
        mine: dict[str, str] = {}
        for fact in facts:
            text = clean_text(fact.past[-1].text)
            record_id = self._id(fact.id, place)
            there = mine.get(record_id) if record_id in mine else self._text(record_id, place)
            if there is not None:
                if there == text:
                    known += 1
                elif number is None:
                    return False  # to be told by number
                else:
                    self.broken.append(
                        (number, f"id {fact.id!r} is here with another text, which stays: {there[:80]!r}")
                    )
                continue
            mine[record_id] = text
            ids[len(ops)] = record_id
            ops += [replace(op, id=None if op.kind == "ADD" else record_id) for op in fact.past]
        changing = any(op.kind != "ADD" for op in ops)
        results = self.bank.apply(
            ops, place, at=self.clock(), once=not changing, whole=True, ids=lambda commit, index: ids[index]
        )
        refused = next((result for result in results if not result.code.accepted), None)
        if refused is not None:
            if number is not None:
                self.broken.append((number, str(refusal(refused, place))))
            return False
        self.known += known + sum(r.code == Code.UNCHANGED for r in results if r.operation.kind == "ADD")
        self.added += sum(r.code == Code.APPLIED for r in results if r.operation.kind == "ADD")
        return True
