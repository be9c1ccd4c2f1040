"""Who comes in: a key that is known, has the right and does not ask too often."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from memorist.errors import ServeError
from memorist.memory.stored import ROOM
from memorist.serve.keys import Key, Keys
from memorist.serve.telling import problem_messages

CALLS = "/v1/"
"""What paths of calls begin with."""


class Waiting(ServeError):
    """Too many requests for now. wait: seconds."""

    def __init__(self, wait: float, message: str) -> None:
        self.wait = wait
        super().__init__(429, message)


@dataclass(frozen=True)
class Gate:
    """Of a server. clock: says when a key has expired."""

    keys: Keys
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Around an application: who has no key is turned away before what they send is read."""

        async def door(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"].startswith(CALLS):
                header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
                try:
                    self.key(secret_of(header))
                except ServeError as error:
                    name = scope.get("state", {}).get("id", "")
                    for message in problem_messages(error.status, str(error), name, [(b"www-authenticate", b"Bearer")]):
                        await send(message)
                    return
            await app(scope, receive, send)

        return door

    def key(self, secret: str, right: str = "") -> Key:
        """The key with a secret; what is written from here on has to find room in its tenant's memory.

        Raises:
            ServeError: there is none, or it has not this right.
        """
        key = self.keys.of(secret, self.clock())
        if right and right not in key.rights:
            raise ServeError(403, f"this key may {', '.join(key.rights) or 'nothing'}; {right!r} was asked for")
        ROOM.set(key.room)  # whatever is written for this request
        return key

    def enter(self, state: MutableMapping[str, Any], secret: str, *rights: str) -> Key:
        """Count a request of a key, whose name logs take from the request's state.

        Raises:
            ServeError: as `key`.
            Waiting: it asks too often.
        """
        key = self.key(secret)
        state["key"] = key.name
        for right in rights:
            self.key(secret, right)
        if wait := self.keys.spend(key):
            raise Waiting(wait, f"more than {key.per_minute} requests a minute; ask again in {wait:.1f} s")
        return key


def secret_of(header: str) -> str:
    """What a header says after the word Bearer."""
    kind, _, secret = header.partition(" ")
    return secret.strip() if kind.lower() == "bearer" else ""
