"""Asking a JSON service: what may pass is tried again, what will not is named. Needs httpx2, imported when asked."""

from __future__ import annotations

import asyncio
import json
import random
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar

from memorist.errors import MemoristError

T = TypeVar("T")

AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
"""Statuses after which the same request may succeed."""

LONGEST_WAIT = 30.0
"""Seconds between two attempts at most, whatever the service asks for."""

_ADVICE = {401: "check the key", 403: "check the key", 404: "check the url and the model's name"}


class _Failed(Exception):
    """An attempt that failed for now; `wait` is what the service asks for."""

    def __init__(self, what: str, wait: str = "") -> None:
        self.wait = wait
        super().__init__(what)


@dataclass
class Service:
    """One service.

    Args:
        url: the base of its places.
        name: what errors call it.
        error: what is raised when it fails for good.
        key: sent as a bearer token; never shown.
        timeout: seconds for one attempt.
        attempts: how often a request is tried that fails for now (busy, timed out, connection lost, junk).
        sleep: waits between attempts.
    """

    url: str
    name: str
    error: type[MemoristError]
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    attempts: int = 4
    sleep: Callable[[float], None] = time.sleep
    calls: int = 0
    failures: int = 0
    _client: Any = None
    _lock: Any = field(default_factory=Lock)

    def __post_init__(self) -> None:
        if self.key is not None:
            self.key = self.key.strip()  # a key from a file ends its line
            if not self.key or not self.key.isascii() or not self.key.isprintable():
                raise self.error(f"the key for {self.name!r} is empty, or has letters that keys do not have; check it")
        if not isinstance(self.url, str) or not self.url.startswith(("http://", "https://")):
            raise self.error(f"the url of {self.name!r} is {self.url!r}; expected e.g. http://localhost:8000/v1")
        if self.attempts < 1:
            raise self.error(f"attempts for {self.name!r} is {self.attempts}; expected 1 or more")

    def post(self, place: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """What `read` makes of the answer; where it raises, the answer was junk.

        Raises:
            MemoristError: of the kind that this service raises: it does not answer, or not in the right form.
        """
        httpx = self._library()
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=self.timeout, headers=self._headers())
                weakref.finalize(self, self._client.close)
        trouble: _Failed | None = None
        for attempt in range(self.attempts):
            if attempt:
                self.sleep(self._pause(attempt, trouble))
            try:
                with self._attempt(httpx):
                    return self._read(self._client.post(f"{self.url.rstrip('/')}/{place}", json=body), read)
            except _Failed as failed:
                trouble = failed
        raise self._gave_up(trouble)

    async def post_async(self, place: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """`post`, to await."""
        httpx = self._library()
        trouble: _Failed | None = None
        for attempt in range(self.attempts):
            if attempt:
                await asyncio.sleep(self._pause(attempt, trouble))
            try:
                with self._attempt(httpx):
                    # One for each call: a client belongs to the event loop that it was made on.
                    async with httpx.AsyncClient(timeout=self.timeout, headers=self._headers()) as client:
                        return self._read(await client.post(f"{self.url.rstrip('/')}/{place}", json=body), read)
            except _Failed as failed:
                trouble = failed
        raise self._gave_up(trouble)

    def _pause(self, attempt: int, trouble: _Failed | None) -> float:
        """Seconds before an attempt: as the service asks, or longer each time, with some chance in it."""
        try:
            wanted = max(0.0, float(trouble.wait if trouble is not None else ""))
        except ValueError:
            wanted = 0.5 * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
        return min(LONGEST_WAIT, wanted)

    def _attempt(self, httpx: Any) -> _Attempt:
        return _Attempt(self, (httpx.HTTPError, httpx.InvalidURL))

    def _read(self, response: Any, read: Callable[[Any], T]) -> T:
        said = " ".join(response.text.split())[:200]
        trouble = f"status {response.status_code}: {said}"
        if response.status_code in AGAIN:
            raise _Failed(trouble, response.headers.get("retry-after", ""))
        if response.status_code >= 400:
            advice = _ADVICE.get(response.status_code, "the request was refused")
            raise self.error(f"{self.name!r} at {self.url} answered {trouble}; {advice}")
        try:
            return read(json.loads(response.text))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise _Failed(f"not what was asked for but {said!r}") from error

    def _headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}

    def _gave_up(self, trouble: _Failed | None) -> MemoristError:
        return self.error(
            f"{self.name!r} at {self.url} did not answer in {self.attempts} attempts; the last: {trouble}. "
            "Check that the server runs and the url is right"
        )

    def _library(self) -> Any:
        try:
            import httpx2
        except ImportError as error:
            raise self.error("endpoints need httpx2: pip install 'memorist[endpoint]'") from error
        return httpx2


@dataclass
class _Attempt:
    """Counts an attempt, and makes what the library raises a failure for now."""

    service: Service
    passing: tuple[type[Exception], ...]

    def __enter__(self) -> None:
        with self.service._lock:
            self.service.calls += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        with self.service._lock:
            self.service.failures += 1
        if isinstance(error, self.passing):
            said = str(error) or "no answer"
            if self.service.key:
                said = said.replace(self.service.key, "…")
            raise _Failed(f"{type(error).__name__}: {said}") from error
