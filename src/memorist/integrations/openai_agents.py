"""A session of the OpenAI Agents SDK that lies in the memory: `Runner.run(agent, "…", session=MemoristSession(…))`.

    memory = Memory("memory.db")
    session = MemoristSession("2026-05-01", memory, user="anna")

What is said in it can be searched like everything else of the person's, goes when they are erased, and is read by the
memory's agent where `observe` says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from memorist.errors import ArgumentError, MemoristError
from memorist.library.memory import Memory
from memorist.library.results import New
from memorist.memory.record import MemoryRecord, Scope

AGENT = "openai-agents"
"""The agent whose part of a user's memory a transcript is."""
LONGEST = 100_000
"""Characters of an item that it is found by; the item itself is kept whole."""


class MemoristSession:
    """Implements the SDK's `Session`.

    Args:
        session_id: of the conversation; one per user and id.
        memory: where it lies.
        user: whose it is.
        observe: whether the memory's agent reads what the person says, and keeps what is worth keeping.
    """

    session_settings: Any = None

    def __init__(self, session_id: str, memory: Memory, *, user: str, observe: bool = True) -> None:
        if not session_id:
            raise ArgumentError("session_id is empty; give each conversation a name of its own")
        self.session_id, self.memory, self.user, self.observe = session_id, memory, user, observe
        self._scope = Scope(user, AGENT, session_id)

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """The conversation so far, oldest first; the last `limit` of it."""
        found = await asyncio.to_thread(self._records)
        return [record.payload["item"] for record in (found if limit is None else found[len(found) - limit :])]

    async def add_items(self, items: Sequence[Any]) -> None:
        """Add to the end; all are on disk when this returns."""
        await asyncio.to_thread(self._add, list(items))

    async def pop_item(self) -> Any:
        """Take the last one away; None where there is none."""
        return await asyncio.to_thread(self._pop)

    async def clear_session(self) -> None:
        """Erase the conversation. What the memory learnt of it stays; `Memory.erase` takes that too."""
        await asyncio.to_thread(self.memory.erase, self._scope)

    def _records(self) -> list[MemoryRecord]:
        return self.memory.list(self._scope)

    def _add(self, items: Sequence[Mapping[str, Any]]) -> None:
        if not items:
            return
        number = len(self._records())
        # Equal items are not one: each has its number. Nor are they what was said word by word, which the memory's
        # agent would take for its own and not read again.
        new = [
            New(
                json.dumps(item, ensure_ascii=False, default=str)[:LONGEST],
                {"item": dict(item), "number": number + place},
            )
            for place, item in enumerate(items)
        ]
        self.memory.add_many(new, self._scope)
        said = [{"role": "user", "content": _said(item)} for item in items if item.get("role") == "user"]
        said = [message for message in said if message["content"].strip()]
        if self.observe and said:
            self.memory.observe(said, Scope(self.user))

    def _pop(self) -> Any:
        found = self._records()
        if not found:
            return None
        try:
            self.memory.delete(found[-1].id, self._scope)
        except MemoristError:  # another one took it
            return None
        return found[-1].payload["item"]


def _said(item: Mapping[str, Any]) -> str:
    """The text of an item; empty where it has none."""
    content = item.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str))
