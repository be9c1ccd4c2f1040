"""Keys of the server: who may do what, and whose memories a request can reach at all.

A key is bound to a tenant, and may be bound to one user of it. What a request says is only ever looked for inside that,
so no header, path or body reaches further. The file holds digests; a secret is shown once, when its key is made.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from memorist.errors import ArgumentError, ServeError, need_known
from memorist.memory.record import Scope

RIGHTS = ("read", "write", "erase")
PREFIX = "mem_"
"""What secrets begin with, so that those who search for leaked ones find them."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Key:
    """name: in logs. digest: SHA-256 of the secret. tenant: whose memories. user: of the tenant, where it may reach one
    alone. rights: of `RIGHTS`. per_minute: requests (0: no limit). most: live records that the tenant may have for it
    to write more (0: no limit). expires: from when on it is refused.

    Raises:
        ArgumentError: a name has other characters than letters, digits, - and _, or a right is not known.
    """

    name: str
    digest: str
    tenant: str
    user: str = ""
    rights: tuple[str, ...] = ("read", "write")
    per_minute: int = 600
    expires: datetime | None = None
    most: int = 0

    def __post_init__(self) -> None:
        for what in ("name", "tenant"):
            if not _NAME.fullmatch(getattr(self, what)):
                raise ArgumentError(
                    f"{what} of a key is {getattr(self, what)!r}; expected up to 64 letters, digits, - and _"
                )
        for right in self.rights:
            need_known("right of a key", right, RIGHTS)
        for what in ("per_minute", "most"):
            if getattr(self, what) < 0:
                raise ArgumentError(f"{what} of a key is {getattr(self, what)}; expected 0 (no limit) or more")

    def scope(self, user: str, agent: str = "", session: str = "") -> Scope:
        """A scope inside the key's reach. The tenant's name has no colon, so that no user's name leads to another one.

        Raises:
            ScopeError: there is no user, or it cannot be stored.
            ServeError: the key is another user's.
        """
        if self.user and user not in ("", self.user):
            raise ServeError(403, f"this key is of user {self.user!r}; it was asked about {user!r}")
        asked = Scope(user or self.user, agent, session)
        return Scope(f"{self.users}{asked.user}", agent, session)

    @property
    def users(self) -> str:
        """What the names of its tenant's users begin with in the memory."""
        return f"{self.tenant}:"

    @property
    def room(self) -> tuple[str, int] | None:
        """What its tenant's users are called, and how many live records they may have; None where there is no limit."""
        return (self.users, self.most) if self.most else None

    def has_expired(self, now: datetime) -> bool:
        """Whether it is refused."""
        return self.expires is not None and self.expires <= now


def shown(scope: Scope) -> Scope:
    """A scope as its tenant knows it."""
    return Scope(scope.user.partition(":")[2], scope.agent, scope.session)


def digest_of(secret: str) -> str:
    """What the file keeps of a secret. Secrets are random and long, so nothing slower is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def read_keys(file: Path) -> dict[str, Key]:
    """Keys by digest.

    Raises:
        ServeError: the file is missing or is none of keys.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        keys = [Key(**row | {"rights": tuple(row["rights"]), "expires": _moment(row.get("expires"))}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ServeError(
            500, f"{file}: no file of keys ({error}); make one: memorist key NAME --tenant TENANT --keys {file}"
        ) from error
    return {key.digest: key for key in keys}


def add_key(
    file: Path, name: str, tenant: str, *, user: str = "", rights: Sequence[str] = ("read", "write"),
    per_minute: int = 600, expires: datetime | None = None, most: int = 0,
) -> str:  # fmt: skip
    """Add a key to a file, which is made where there is none; its secret, which is kept nowhere.

    Raises:
        ArgumentError: a part of it is wrong, or the name is taken.
        ServeError: the file is none of keys.
    """
    known = list(read_keys(file).values()) if file.exists() else []
    if any(key.name == name for key in known):
        raise ArgumentError(f"a key named {name!r} is in {file} already; give another name, or take that one out")
    secret = PREFIX + secrets.token_urlsafe(32)
    key = Key(name, digest_of(secret), tenant, user, tuple(rights), per_minute, _aware(expires), most)
    rows = [asdict(one) | {"expires": one.expires.isoformat() if one.expires else None} for one in (*known, key)]
    handle, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # nobody else may read it
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(json.dumps(rows, indent=1) + "\n")
    if file.exists():  # who reads it may be another user than who adds a key
        before = file.stat()
        with suppress(OSError):
            os.chown(beside, before.st_uid, before.st_gid)
    Path(beside).replace(file)
    return secret


def _moment(text: str | None) -> datetime | None:
    return _aware(datetime.fromisoformat(text)) if text else None


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


@dataclass
class Keys:
    """Those that a server knows, and how much each has asked lately.

    Args:
        known: by digest.
        clock: seconds.
    """

    known: Mapping[str, Key]
    clock: Callable[[], float] = time.monotonic
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, secret: str, now: datetime) -> Key:
        """The key with this secret.

        Raises:
            ServeError: there is none, or it has expired.
        """
        key = self.known.get(digest_of(secret)) if secret else None
        if key is None or key.has_expired(now):
            problem = "the key has expired" if key else "no key, or one that is not known"
            raise ServeError(401, f"{problem}; expected the header Authorization: Bearer {PREFIX}…")
        return key

    def spend(self, key: Key) -> float:
        """Count a request; seconds to wait where there were too many, else 0. A full minute's may come at once."""
        if not key.per_minute:
            return 0.0
        with self._lock:
            now, rate = self.clock(), key.per_minute / 60
            left, before = self._left.get(key.digest, (float(key.per_minute), now))
            left = min(float(key.per_minute), left + (now - before) * rate)
            self._left[key.digest] = (left - 1 if left >= 1 else left, now)
            return 0.0 if left >= 1 else (1 - left) / rate
