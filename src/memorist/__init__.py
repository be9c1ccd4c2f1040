"""Memorist: language-model agents that manage their own memory.

Read in this order to understand the whole: `memory.record`, `memory.bank`, `decision`, `agents.memory_r1`,
`training.rollout`, `training.credit`, `training.objective`, `training.trainer`.
"""

from memorist._version import __version__
from memorist.conversation import Conversation, Message, Session
from memorist.errors import MemoristError, RefusedError, UnreadError
from memorist.library.asynchronous import AsyncMemory
from memorist.library.memory import Memory
from memorist.library.results import Context, Erased, Imported, New
from memorist.memory.bank import Hit
from memorist.memory.record import Code, Kind, MemoryRecord, Operation, Result, Scope
from memorist.models.endpoint import Endpoint

__all__ = [
    "AsyncMemory",
    "Code",
    "Context",
    "Conversation",
    "Endpoint",
    "Erased",
    "Hit",
    "Imported",
    "Kind",
    "MemoristError",
    "Memory",
    "MemoryRecord",
    "Message",
    "New",
    "Operation",
    "RefusedError",
    "Result",
    "Scope",
    "Session",
    "UnreadError",
    "__version__",
]
