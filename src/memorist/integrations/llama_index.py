"""A memory block of LlamaIndex: what is remembered about the last message goes into the prompt, and what leaves the
short-term memory is read.

    from llama_index.core.memory import Memory as ChatMemory

    memory = Memory("memory.db")
    chat = ChatMemory.from_defaults(memory_blocks=[MemoristBlock(memory=memory, user="anna")])
"""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory.memory import BaseMemoryBlock
from pydantic import Field

from memorist.library.memory import Memory
from memorist.memory.record import Scope


class MemoristBlock(BaseMemoryBlock[str]):
    """One person's memory as a block of text.

    What is told is data: a line for each record, with its id.
    """

    name: str = "long_term_memory"
    memory: Any = Field(description="the memory")
    user: str = Field(description="whose it is")
    max_tokens: int = Field(default=1000, description="tokens that what is recalled may have")
    accept_short_term_memory: bool = True

    def __init__(self, memory: Memory, user: str, **how: Any) -> None:
        super().__init__(memory=memory, user=user, **how)

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        asked = next((m.content for m in reversed(messages or []) if m.role == "user" and m.content), "")
        if not asked:
            return ""
        found = await asyncio.to_thread(self.memory.context, asked, Scope(self.user), max_tokens=self.max_tokens)
        return str(found.text)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        said = [{"role": str(m.role.value), "content": m.content} for m in messages if m.content]
        if said:
            await asyncio.to_thread(self.memory.observe, said, Scope(self.user))

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """Fewer lines, the least fitting ones first to go; None where nothing is left. Four characters are taken for a
        token."""
        lines, gone = content.splitlines(), 0
        while lines and gone < 4 * tokens_to_truncate:
            gone += len(lines.pop()) + 1
        return "\n".join(lines) or None
