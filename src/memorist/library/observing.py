"""What `observe` needs of an agent, and how it is asked where nobody waits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from memorist.conversation import Message
from memorist.memory.record import Scope

T = TypeVar("T")


class Observer(Protocol):
    """What `observe` needs of an agent."""

    def observe(self, messages: Iterable[Message], scope: Scope) -> Any:
        """An async iterator of tuples of results."""
        ...


BuildObserver = Callable[[Any], Observer]
"""From a bank to an agent that writes to it."""


def now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait, without an event loop, also inside one.

    Raises:
        RuntimeError: it waits for something that only an event loop can bring.
    """
    problem: RuntimeError | None = None
    try:
        work.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    except RuntimeError as error:
        if "no running event loop" not in str(error):
            raise
        problem = error
    finally:
        work.close()
    message = "this agent waits for an event loop; use AsyncMemory, or an agent whose models answer at once"
    raise RuntimeError(message) from problem
