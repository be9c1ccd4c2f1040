"""The library to await: the file, the embedder and models behind endpoints are worked with beside the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime
from functools import partial, update_wrapper
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from memorist.errors import BankError
from memorist.library.memory import Memory
from memorist.library.messages import Said
from memorist.memory.record import Result, Scope
from memorist.memory.stored import StoredBank
from memorist.models.endpoint import Endpoint

P = ParamSpec("P")
T = TypeVar("T")


READERS = 32
"""Calls of `observe` that may wait for a model at once."""


def _beside(
    method: Callable[Concatenate[Memory, P], T],
) -> Callable[Concatenate[AsyncMemory, P], Coroutine[Any, Any, T]]:
    """A method of `Memory`, run in a thread of its own pool."""

    async def call(self: AsyncMemory, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(self._threads, partial(method, self.memory, *args, **kwargs))

    update_wrapper(call, method)
    return call


class AsyncMemory:
    """`Memory` with every method to await; it takes what `Memory` takes.

    A call that is cancelled may still be carried out as a whole; never in part.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self.memory = Memory(path, **options)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="memorist")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="memorist-observe")
        self._closed = False
        agent = options.get("agent")
        self._waits = agent is not None and not isinstance(agent, Endpoint)

    add = _beside(Memory.add)
    add_many = _beside(Memory.add_many)
    update = _beside(Memory.update)
    expire = _beside(Memory.expire)
    delete = _beside(Memory.delete)
    erase = _beside(Memory.erase)
    purge = _beside(Memory.purge)
    search = _beside(Memory.search)
    context = _beside(Memory.context)
    get = _beside(Memory.get)
    list = _beside(Memory.list)
    history = _beside(Memory.history)
    export = _beside(Memory.export)
    import_file = _beside(Memory.import_file)
    register_log = _beside(Memory.register_log)
    backup = _beside(Memory.backup)

    async def observe(self, messages: Sequence[Said] | Said, scope: Scope, *, at: datetime | None = None) -> Any:
        """As `Memory.observe`; while a model thinks, other tasks run.

        An agent of your own may wait for what this event loop brings, so it runs on it, with its work on the file.
        """
        if self._waits:
            found: Sequence[Result] = await self.memory.observing(messages, scope, at=at)
            return found
        return await self._run(self._readers, partial(self.memory.observe, messages, scope, at=at))

    async def beside(self, call: Callable[[StoredBank], T]) -> T:
        """What a call of the bank gives, made in a thread of its own pool."""
        return await self._run(self._threads, partial(call, self.memory.bank))

    async def _run(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        if self._closed:
            raise BankError("the memory is closed; open it again")
        # What holds for whoever asks (`memory.stored.ROOM`, `stored_jobs.UNDER`) holds for what is done for them.
        return await asyncio.get_running_loop().run_in_executor(threads, partial(copy_context().run, call))

    def usage(self) -> Any:
        """As `Memory.usage`."""
        return self.memory.usage()

    async def close(self) -> None:
        """Close the file, when what has begun is done."""
        self._closed = True
        for threads in (self._readers, self._threads):
            await asyncio.to_thread(threads.shutdown)
        self.memory.close()

    async def __aenter__(self) -> AsyncMemory:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
