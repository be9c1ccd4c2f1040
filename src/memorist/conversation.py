"""What people and assistants said: messages in sessions in conversations.

These are the only inputs that agents see. They are frozen: a run never edits what was said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

PROGRAMS = frozenset(("assistant", "system", "tool", "developer", "function", "model", "ai", "bot", "chatbot"))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    `caption` is a machine description of a shared picture, which models may read. `statements` are facts
    that a dataset ships with the turn (LoCoMo's observations); they stand in for an extraction model.
    """

    speaker: str
    text: str
    id: str = ""
    time: datetime | None = None
    caption: str = ""
    statements: tuple[str, ...] = ()

    @property
    def by_person(self) -> bool:
        """Whether the speaker is not one of the names that programs go by in chats."""
        return self.speaker.lower() not in PROGRAMS

    @property
    def shown(self) -> str:
        """The text as models read it, with the picture described."""
        return f"{self.text} [shares: {self.caption}]" if self.caption else self.text


@dataclass(frozen=True, slots=True)
class Session:
    """Messages of one sitting, in order."""

    id: str
    messages: tuple[Message, ...]
    time: datetime | None = None

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Sessions between the same speakers, oldest first."""

    id: str
    speakers: tuple[str, ...]
    sessions: tuple[Session, ...]

    def messages(self) -> Iterator[Message]:
        """All turns in the order in which they were said."""
        for session in self.sessions:
            yield from session
