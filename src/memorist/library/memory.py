"""The `Memory` that people install: a durable bank and an agent behind one face, offline, in one file."""

from __future__ import annotations

import builtins
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from memorist.agents.memory_r1 import by_one_model
from memorist.agents.rules import RuleAgent
from memorist.conversation import Message
from memorist.errors import ArgumentError, BankError, PolicyError, UnreadError
from memorist.library import arguments, opening
from memorist.library.bringing import Bringing
from memorist.library.counting import Counter
from memorist.library.exporting import write_records
from memorist.library.importing import read_rows
from memorist.library.messages import Said, filled, read_message, unfed
from memorist.library.observing import BuildObserver, Observer, now
from memorist.library.results import Context, Erased, Imported, New, Usage, own, own_result, refusal
from memorist.memory.bank import Guard, Hit, need_scope
from memorist.memory.embed import Embedder, Vectors
from memorist.memory.record import Change, Code, MemoryRecord, Operation, Result, Scope
from memorist.memory.sqlite_file import claim
from memorist.memory.stored import StoredBank
from memorist.models.endpoint import Endpoint, blocking


class Memory:
    """A memory in one SQLite file or a PostgreSQL database, safe to share between threads and processes. `AsyncMemory`
    is the same to await.

    Every call names its scope: who it is about (`Scope(user, agent, session)`). Reads with an empty agent or session
    cover all of the user's. Times without a zone are in UTC.

    Args:
        path: the file, or a PostgreSQL database (`postgresql://USER@HOST/DATABASE`); None for `memory.db` in the
            platform's data directory.
        embedder: by name or itself; None for the one that it was made with, "minilm" for a new one.
        agent: what `observe` asks: an `Endpoint`, whose model extracts and decides; or a function from a bank to an
            agent; None for rules that need no model.
        guard: called with each operation and its scope before it is written; a text that it returns is the reason for
            which the operation is refused.
        clock: says what time it is.
        ids: makes a new record's id.
        read_only: refuse to write, and create nothing.

    Raises:
        BankError: it cannot be opened, is damaged, or was made by a newer version or with another embedder.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        embedder: str | Embedder | None = None,
        agent: BuildObserver | Endpoint | None = None,
        guard: Guard | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        ids: Callable[[], str] = lambda: secrets.token_hex(8),
        read_only: bool = False,
    ) -> None:
        self._clock, self._ids = clock, ids
        self._bank = opening.open_bank(
            path, embedder, ids=lambda commit, index: ids(), guard=guard, read_only=read_only
        )
        self._endpoint = agent if isinstance(agent, Endpoint) else None
        build = by_one_model(agent) if isinstance(agent, Endpoint) else agent or RuleAgent
        self._agent: Observer = build(self._bank)
        self._counted = Counter()

    # Writing.

    def add(
        self,
        text: str,
        scope: Scope,
        *,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
        expires: datetime | timedelta | None = None,
        at: datetime | None = None,
        source: Sequence[str] = (),
        near: float | None = None,
    ) -> Result:
        """Remember a text word by word; it is on disk when this returns.

        What is remembered already, word by word in the same scope, is not stored twice: the result is `unchanged`, with
        the record that there is.

        Args:
            text: what to remember.
            scope: whose it is.
            metadata: plain JSON data to filter by.
            key: a name that is unique in the scope.
            expires: when it is not to be found any more: a time, or a time from now.
            at: when it was said; None for now.
            source: ids of messages or documents that it came from.
            near: a cosine, e.g. 0.97, from which on a text of nearly the same meaning counts as the same.

        Raises:
            ScopeError: `scope` is not a Scope.
            RefusedError: the text is empty or longer than 1,000,000 characters, metadata is not plain data, the key is
                taken, or the guard says no.
        """
        return self.add_many([New(text, metadata, key, expires, at, source)], scope, near=near)[0]

    def add_many(self, items: Iterable[New | str], scope: Scope, *, near: float | None = None) -> builtins.list[Result]:
        """Remember texts word by word, in one commit: all of them are on disk when this returns, or none. `near`: see
        `add`.

        Raises:
            ScopeError: `scope` is not a Scope.
            RefusedError: one of them cannot be stored (see `add`); none is.
        """
        with self._counted("add"):
            need_scope(scope)
            arguments.need_several(items)
            arguments.need_share("near", near)
            new = [New(item) if isinstance(item, str) else item for item in items]
            return self._write([arguments.addition(item, self._clock()) for item in new], scope, once=True, near=near)

    def observe(
        self, messages: Sequence[Said] | Said, scope: Scope, *, at: datetime | None = None
    ) -> builtins.list[Result]:
        """Let the agent read messages and decide what to remember; each result has the operation and its reason.

        A message is a `Message`, an object with `role` and `content`, or the text that the user said. What came out of
        memory (a context that was pasted in, a record that the assistant repeats) is not remembered again.

        Args:
            messages: in the order in which they were said.
            scope: whose memory.
            at: when they were said, where they do not say; None for now.

        Raises:
            ScopeError: `scope` is not a Scope.
            DataError: a message has none of these forms.
            UnreadError: a model does not answer; it has what came of the messages before, and those that are not read.
        """
        with blocking():
            return now(self.observing(messages, scope, at=at))

    async def observing(
        self, messages: Sequence[Said] | Said, scope: Scope, *, at: datetime | None = None
    ) -> builtins.list[Result]:
        """`observe`, to await."""
        with self._counted("observe"):
            need_scope(scope)
            arguments.need_type("at", at, datetime | None)
            given = [messages] if isinstance(messages, str | Message | Mapping) else messages
            arguments.need_type("messages", given, Iterable)
            read = [read_message(one, number, at or self._clock()) for number, one in enumerate(given, 1)]
            unread = [m for m in (unfed(message, scope, self._bank) for message in read) if m.shown.strip()]
            results: builtins.list[Result] = []
            for number, message in enumerate(unread):
                try:
                    async for some in self._agent.observe([message], scope):
                        results += map(own_result, some)
                except PolicyError as error:
                    problem = f"{number} of {len(unread)} messages were read, then: {error}"
                    raise UnreadError(problem, results, unread[number:]) from error
            return results

    def update(
        self,
        record_id: str,
        text: str,
        scope: Scope,
        *,
        metadata: Mapping[str, Any] | None = None,
        expires: datetime | timedelta | None = None,
        at: datetime | None = None,
        reason: str = "",
    ) -> Result:
        """Replace a record's text; the old one stays in its history, and is what reads as of then show.

        Metadata and `expires` stay as they are where none are given.

        Raises:
            ScopeError: `scope` is not a Scope.
            RefusedError: there is no such record in this scope, or the text cannot be stored (see `add`).
        """
        with self._counted("update"):
            arguments.need_type("record_id", record_id, str)
            if expires is None:
                arguments.need_unexpired(self._bank.get(record_id, need_scope(scope)), self._clock())
            op = Operation(
                "UPDATE", text, record_id, None, metadata, reason, arguments.until(expires, self._clock()), at
            )
            return self._write([op], scope)[0]

    def expire(self, record_id: str, scope: Scope, *, at: datetime | None = None) -> Result:
        """Hide a record from `at` on (None: from now on); it stays in its history until it is deleted.

        Raises:
            ScopeError: `scope` is not a Scope.
            RefusedError: there is no such record in this scope.
        """
        with self._counted("expire"):
            arguments.need_type("record_id", record_id, str)
            arguments.need_type("at", at, datetime | None)
            found = self._bank.get(record_id, need_scope(scope))
            text, said = ("?", None) if found is None else (found.text, found.updated)
            return self._write([Operation("UPDATE", text, record_id, expires=at or self._clock(), at=said)], scope)[0]

    def delete(self, record_id: str, scope: Scope, *, timeout: float = 10.0) -> Erased:
        """Remove a record with its history, and its bytes from the file; see `erase`.

        Raises:
            ScopeError: `scope` is not a Scope.
            RefusedError: there never was such a record in this scope.
        """
        with self._counted("delete"):
            arguments.need_type("record_id", record_id, str)
            if not self._bank.history(record_id, need_scope(scope)):
                raise refusal(Result(Operation("DELETE", id=record_id), Code.UNKNOWN_ID), scope)
            return self._erased(scope, [record_id], timeout)

    def erase(self, scope: Scope, *, timeout: float = 10.0) -> Erased:
        """Remove all that a scope covers, with its history, and its bytes from every file that the memory owns.

        It is hidden at once. The bytes are gone when this returns, unless a reader holds older pages for longer than
        `timeout` seconds: then `pending` names it, and the next who opens or closes the file finishes.

        Raises:
            ScopeError: `scope` is not a Scope.
        """
        with self._counted("erase"):
            return self._erased(need_scope(scope), None, timeout)

    def purge(self, scope: Scope, *, timeout: float = 10.0) -> Erased:
        """Remove what has expired, with its history and bytes."""
        with self._counted("purge"):
            gone = [record.id for record in self._bank.page(scope) if record.has_expired(self._clock())]
            return self._erased(scope, gone, timeout) if gone else Erased(0)

    # Reading.

    def search(
        self,
        query: str | Vectors,
        scope: Scope,
        *,
        k: int = 10,
        mode: str = "fused",
        where: Mapping[str, Any] | None = None,
        half_life: timedelta | None = None,
        as_of: int | datetime | None = None,
        vector: Vectors | None = None,
        explain: bool = False,
    ) -> builtins.list[Hit]:
        """The `k` records that answer `query` best; the order of equals is by age, and the same every time.

        Args:
            query: text, or a vector of the embedder's size (with mode "vector").
            scope: whose records.
            k: how many at most.
            mode: "fused" by words and by meaning, "lexical" by words, "vector" by meaning.
            where: a filter on metadata, e.g. `{"topic": "food", "price": {"lt": 20}}`; see `memorist.memory.filters`.
            half_life: let what was updated so long ago count half as much.
            as_of: what held at a time, or stood at a commit; None for now.
            vector: the query's vector, where it is at hand.
            explain: give each hit the parts of its score.

        Raises:
            ScopeError: `scope` is not a Scope.
            FilterError: `where` is not a filter.
            ValueError: an unknown mode, or a vector of another size.
        """
        with self._counted("search"):
            arguments.need_count("k", k)
            arguments.need_moment(as_of)
            if half_life is not None and half_life <= timedelta(0):
                raise ArgumentError(f"half_life is {half_life}; expected a time above 0")
            found = self._bank.find(
                query, scope, k=k, mode=mode, where=where, vector=vector,
                now=as_of if isinstance(as_of, datetime) else self._clock(), half_life=half_life, as_of=as_of,
            )  # fmt: skip
            return found if explain else [Hit(hit.record, hit.score) for hit in found]

    def context(
        self,
        query: str,
        scope: Scope,
        *,
        max_tokens: int = 1000,
        k: int = 50,
        where: Mapping[str, Any] | None = None,
        count: Callable[[str], int] | None = None,
        as_of: int | datetime | None = None,
    ) -> Context:
        """The memories to put before a model that is to answer `query`, best first, in at most `max_tokens` tokens.

        Args:
            query: what is asked, or the last message.
            scope: whose memories.
            max_tokens: of the whole text.
            k: how many memories at most.
            where: a filter; see `search`.
            count: tokens of a text; None for one per three bytes, which is more than models need for English.
            as_of: what held at a time, or stood at a commit; None for now.

        Raises:
            ScopeError: `scope` is not a Scope.
            FilterError: `where` is not a filter.
        """
        with self._counted("context"):
            measure = count or (lambda text: -(-len(text.encode()) // 3))
            arguments.need_moment(as_of)
            arguments.need_count("k", k)
            arguments.need_type("max_tokens", max_tokens, int)
            moment = as_of if isinstance(as_of, datetime) else self._clock()
            hits = self._bank.find(query, scope, k=k, where=where, now=moment, as_of=as_of)
            return filled([hit.record for hit in hits], max_tokens, measure)

    def get(self, record_id: str, scope: Scope, *, as_of: int | None = None) -> MemoryRecord | None:
        """The record, if it is there, is in this scope and has not expired."""
        with self._counted("get"):
            arguments.need_type("as_of", as_of, int | None)
            arguments.need_type("record_id", record_id, str)
            found = self._bank.get(record_id, scope, as_of=as_of)
            return None if found is None or (as_of is None and found.has_expired(self._clock())) else own(found)

    def list(
        self,
        scope: Scope,
        *,
        where: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int | None = None,
        as_of: int | datetime | None = None,
    ) -> builtins.list[MemoryRecord]:
        """Records in this scope, oldest first; with `limit`, page by page from the one after `after` on."""
        with self._counted("list"):
            arguments.need_moment(as_of)
            now = as_of if isinstance(as_of, datetime) else self._clock()
            return self._bank.page(scope, where=where, after=after, limit=limit, now=now, as_of=as_of)

    def history(self, record_id: str, scope: Scope) -> builtins.list[Change]:
        """Every change of a record, oldest first, with reasons."""
        with self._counted("history"):
            arguments.need_type("record_id", record_id, str)
            return self._bank.history(record_id, scope)

    def usage(self) -> dict[str, Usage]:
        """Calls, errors, seconds and tokens by operation since this memory was opened."""
        return self._counted.so_far()

    # Copies.

    def export(self, path: str | os.PathLike[str], scope: Scope) -> int:
        """Write the live records of a scope to a new JSONL file, with the changes that led to them; how many they are.

        Raises:
            ScopeError: `scope` is not a Scope.
            BankError: there is a file at `path`.
        """
        with self._counted("export"):
            need_scope(scope)
            claim(Path(path))
            if not self._bank.read_only:
                self._bank.note_copy(path, "export", at=self._clock())
            return write_records(self._bank, Path(path), scope)

    def import_file(
        self,
        path: str | os.PathLike[str],
        scope: Scope | None,
        *,
        form: str | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Imported:
        """Bring in what this library or another one exported; what is there already is not stored twice.

        Facts are kept word by word, with their times and ids; conversations are read by the agent.

        Args:
            path: a file in one of the forms of `memorist.library.importing`.
            scope: whose everything becomes, save rows of scopes that it covers, which keep theirs; None for their own.
            form: memorist, jsonl, mem0, graphiti, chatgpt or claude; None looks which it is.
            progress: called with the number of rows that are done.

        Raises:
            DataError: the file cannot be read, or is in none of the forms. A broken row is in the result, by number.
        """
        with self._counted("import"):
            if scope is not None:
                need_scope(scope)
            bringing = Bringing(self._bank, scope, self.observe, self._clock, self._ids, progress)
            return bringing.all(read_rows(Path(path), form))

    def register_log(self, path: str | os.PathLike[str], scope: Scope) -> None:
        """Say that a file (trajectories of a run, a transcript) holds what the scope's user said: from now on it is the
        memory's own, and removed as a whole with the next `delete` or `erase` of anything of that user's.

        Raises:
            ScopeError: `scope` is not a Scope.
            BankError: there is no such file.
        """
        with self._counted("register_log"):
            if not Path(path).is_file():
                raise BankError(f"{path}: there is no such file; write the log first, then register it")
            self._bank.own_log(path, scope)

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Write a whole copy of the memory, every scope and all history, while others go on using it.

        Raises:
            BankError: there is a file at `path`, or it cannot be written.
        """
        with self._counted("backup"):
            self._bank.backup(path, at=self._clock())

    @property
    def bank(self) -> StoredBank:
        """What stores it."""
        return self._bank

    def close(self) -> None:
        """Close it."""
        self._bank.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Inside.

    def _write(
        self, operations: Sequence[Operation], scope: Scope, *, once: bool = False, near: float | None = None
    ) -> builtins.list[Result]:
        results = self._bank.apply(operations, scope, at=self._clock(), once=once, near=near, whole=True)
        for result in results:
            if not result.code.accepted:
                raise refusal(result, scope)
        return [own_result(result) for result in results]

    def _erased(self, scope: Scope, ids: Sequence[str] | None, timeout: float) -> Erased:
        live = self._bank.erase(scope, ids=ids)
        return Erased(live, self._bank.settle(timeout), tuple(self._bank.copies()))
