"""Bringing rows of another memory in: each is added, known already, or broken, and none stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from memorist.conversation import Message
from memorist.library.importing import Broken, Fact, Row, Talk
from memorist.library.results import Imported, refusal
from memorist.memory.record import Code, Operation, Result, Scope
from memorist.memory.sqlite import SQLiteBank

TOGETHER = 500
"""Facts that are written in one commit."""

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

    bank: SQLiteBank
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
        place = self.scope if self.scope.session else replace(self.scope, session=talk.id)
        for result in self.observe(talk.messages, place):
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
            if not self._write(facts, place):
                for number, fact in self._waiting:
                    self._write([fact], place, number)
        self._waiting = []

    def _write(self, facts: Sequence[Fact], place: Scope, number: int | None = None) -> bool:
        """Write facts as one commit; False if one is refused, which then is noted under its number."""
        ops: list[Operation] = []
        ids: dict[int, str] = {}
        known, mine = 0, set()
        for fact in facts:
            there = None if fact.id is None else self.bank.holder(fact.id)
            if there == place or fact.id in mine:
                known += 1
                continue
            record_id = fact.id if fact.id is not None and there is None else self.ids()
            mine.add(record_id)
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
