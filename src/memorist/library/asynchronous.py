"""The library to await: models are awaited on the event loop, the file and the embedder are worked on beside it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial, update_wrapper
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from memorist.library.memory import Memory
from memorist.library.messages import Said
from memorist.memory.record import Result, Scope

P = ParamSpec("P")
T = TypeVar("T")


def _beside(
    method: Callable[Concatenate[Memory, P], T],
) -> Callable[Concatenate[AsyncMemory, P], Coroutine[Any, Any, T]]:
    """A method of `Memory`, run in a thread of its own pool."""

    async def call(self: AsyncMemory, /, *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(method, self.memory, *args, **kwargs))

    update_wrapper(call, method)
    return call


class AsyncMemory:
    """`Memory` with every method to await; it takes what `Memory` takes.

    A call that is cancelled may still be carried out as a whole; never in part.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self.memory = Memory(path, **options)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="memorist")

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
        """As `Memory.observe`; while a model thinks, other tasks run."""
        found: Sequence[Result] = await self.memory.observing(messages, scope, at=at)
        return found

    def usage(self) -> Any:
        """As `Memory.usage`."""
        return self.memory.usage()

    async def close(self) -> None:
        """Close the file, when what has begun is done."""
        await asyncio.to_thread(self._threads.shutdown)
        self.memory.close()

    async def __aenter__(self) -> AsyncMemory:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
