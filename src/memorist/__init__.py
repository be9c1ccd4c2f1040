"""Memorist: language-model agents that manage their own memory.

Read in this order to understand the whole: `memory.record`, `memory.bank`, `decision`, `agents.memory_r1`,
`training.rollout`, `training.credit`, `training.objective`, `training.trainer`.
"""

from memorist._version import __version__
from memorist.conversation import Conversation, Message, Session
from memorist.memory.record import Code, Kind, MemoryRecord, Operation, Result, Scope

__all__ = [
    "Code",
    "Conversation",
    "Kind",
    "MemoryRecord",
    "Message",
    "Operation",
    "Result",
    "Scope",
    "Session",
    "__version__",
]
