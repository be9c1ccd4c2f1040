"""Memorist: language-model agents that manage their own memory.

Read in this order to understand the whole: `memory.record`, `memory.bank`, `decision`, `agents.memory_r1`,
`training.rollout`, `training.credit`, `training.objective`, `training.trainer`.
"""

from memorist._version import __version__
from memorist.conversation import Conversation, Message, Session
from memorist.library.asynchronous import AsyncMemory
from memorist.library.memory import Memory
from memorist.library.results import New
from memorist.memory.record import Code, Kind, MemoryRecord, Operation, Result, Scope
from memorist.models.endpoint import Endpoint

__all__ = [
    "AsyncMemory",
    "Code",
    "Conversation",
    "Endpoint",
    "Kind",
    "Memory",
    "MemoryRecord",
    "Message",
    "New",
    "Operation",
    "Result",
    "Scope",
    "Session",
    "__version__",
]
