"""Models behind an OpenAI-compatible endpoint: they act, and return text alone, so they play roles but never learn.

Needs httpx2 (`pip install 'memorist[endpoint]'`), which is imported when something is asked.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from memorist.decision import Action, Distribution, Observation, Stop
from memorist.errors import PolicyError
from memorist.models.sampler import Request

AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
"""Statuses after which the same request may succeed."""

LONGEST_WAIT = 30.0
"""Seconds between two attempts at most, whatever the endpoint asks for."""

_blocking: ContextVar[bool] = ContextVar("_blocking", default=False)


@contextmanager
def blocking() -> Iterator[None]:
    """In this block an endpoint that is awaited answers before it returns, so that no event loop is needed."""
    token = _blocking.set(True)
    try:
        yield
    finally:
        _blocking.reset(token)


@dataclass
class Spent:
    """What an endpoint was used for: calls, attempts that failed, tokens, and money where prices are known."""

    calls: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


@dataclass
class Endpoint:
    """A sampler, and an actor, that asks `POST url/chat/completions`.

    Args:
        url: the base, e.g. "http://localhost:8000/v1".
        model: the model's name there.
        key: sent as a bearer token; never shown.
        timeout: seconds for one attempt.
        attempts: how often a request is tried that fails for now (busy, timed out, connection lost).
        prices: of a million prompt and completion tokens, in any currency.
        together: requests of one batch that are under way at once.
        temperature: of what agents ask.
        extra: more fields of the request, e.g. {"chat_template_kwargs": {"enable_thinking": False}}.
        sleep: waits between attempts.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    attempts: int = 4
    prices: tuple[float, float] = (0.0, 0.0)
    together: int = 8
    temperature: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    spent: Spent = field(default_factory=Spent)
    _lock: Any = field(default_factory=Lock, repr=False, compare=False)
    _client: Any = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """One action for each request, in order; several are under way at once.

        Raises:
            PolicyError: the endpoint does not answer, or not with a chat completion.
        """
        if len(requests) < 2:
            return [self._ask(r.observation, r.distribution, r.seed) for r in requests]
        with ThreadPoolExecutor(min(self.together, len(requests))) as pool:
            return list(pool.map(lambda r: self._ask(r.observation, r.distribution, r.seed), requests))

    async def act(self, observation: Observation) -> Action:
        """What agents call; other tasks run while the endpoint thinks.

        Raises:
            PolicyError: the endpoint does not answer, or not with a chat completion.
        """
        distribution = Distribution(temperature=self.temperature)
        if _blocking.get():
            return self._ask(observation, distribution, None)
        body, trouble = self._body(observation, distribution, None), ""
        for attempt in range(self.attempts):
            if attempt:
                await asyncio.sleep(self._pause(attempt, trouble))
            answer, trouble = await self._post_async(body)
            if answer is not None:
                return self._action(answer)
        raise self._gave_up(trouble)

    def _ask(self, observation: Observation, distribution: Distribution, seed: int | None) -> Action:
        body, trouble = self._body(observation, distribution, seed), ""
        for attempt in range(self.attempts):
            if attempt:
                self.sleep(self._pause(attempt, trouble))
            answer, trouble = self._post(body)
            if answer is not None:
                return self._action(answer)
        raise self._gave_up(trouble)

    def _body(self, observation: Observation, distribution: Distribution, seed: int | None) -> dict[str, Any]:
        if observation.options:
            raise PolicyError(f"{self.model!r} returns text, and cannot choose among options; give the role a chooser")
        said = (("system", observation.system), ("user", observation.prompt))
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": _sendable(text)} for role, text in said if text or role == "user"],
            "max_tokens": observation.max_tokens,
            "temperature": distribution.temperature,
        }
        if distribution.top_p < 1:
            body["top_p"] = distribution.top_p
        if seed is not None:
            body["seed"] = seed % 2**31
        return body | dict(self.extra)

    def _post(self, body: Mapping[str, Any]) -> tuple[Any, str]:
        httpx = _library()
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=self.timeout, headers=self._headers())
                weakref.finalize(self, self._client.close)
            self.spent.calls += 1
        try:
            return self._read(self._client.post(self._place(), json=body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self._failed(error)

    async def _post_async(self, body: Mapping[str, Any]) -> tuple[Any, str]:
        httpx = _library()
        with self._lock:
            self.spent.calls += 1
        try:
            # One for each call: a client belongs to the event loop that it was made on.
            async with httpx.AsyncClient(timeout=self.timeout, headers=self._headers()) as client:
                return self._read(await client.post(self._place(), json=body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self._failed(error)

    def _place(self) -> str:
        return f"{self.url.rstrip('/')}/chat/completions"

    def _headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}

    def _failed(self, error: Exception) -> tuple[None, str]:
        with self._lock:
            self.spent.failures += 1
        return None, f"{type(error).__name__}: {error or 'no answer'}"

    def _read(self, response: Any) -> tuple[Any, str]:
        """The completion, or what to say of a failure that may pass.

        Raises:
            PolicyError: the failure will not pass.
        """
        said = " ".join(response.text.split())[:200]
        trouble = f"status {response.status_code}: {said}"
        if response.status_code in AGAIN:
            self._failed(PolicyError(trouble))
            return None, f"{trouble} (retry after {response.headers.get('retry-after', '')})"
        if response.status_code >= 400:
            self._failed(PolicyError(trouble))
            hint = {401: "check the key", 403: "check the key", 404: "check the url and the model's name"}
            advice = hint.get(response.status_code, "the request was refused")
            raise PolicyError(f"{self.model!r} at {self.url} answered {trouble}; {advice}")
        try:
            answer = json.loads(response.text)
            if not isinstance(answer["choices"][0]["message"]["content"], str | None):
                raise TypeError
        except (ValueError, TypeError, KeyError, IndexError, RecursionError):
            self._failed(PolicyError(said))
            return None, f"no chat completion but {said!r}"
        return answer, ""

    def _action(self, answer: Mapping[str, Any]) -> Action:
        usage, choice = answer.get("usage") or {}, answer["choices"][0]
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        read, written = (count if isinstance(count, int) else 0 for count in counts)
        with self._lock:
            self.spent.prompt_tokens += read
            self.spent.completion_tokens += written
            self.spent.cost += (read * self.prices[0] + written * self.prices[1]) / 1e6
        stop = Stop.LENGTH if choice.get("finish_reason") == "length" else Stop.END
        return Action(choice["message"]["content"] or "", stop=stop)

    def _pause(self, attempt: int, trouble: str) -> float:
        """Seconds before the next attempt: as the endpoint asks, or twice as long each time, with some chance in it."""
        wanted = trouble.rpartition("(retry after ")[2].rstrip(")")
        try:
            return min(LONGEST_WAIT, max(0.0, float(wanted)))
        except ValueError:
            return min(LONGEST_WAIT, float(0.5 * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)))

    def _gave_up(self, trouble: str) -> PolicyError:
        return PolicyError(
            f"{self.model!r} at {self.url} did not answer in {self.attempts} attempts; the last: {trouble}. "
            "Check that the server runs and the url is right"
        )


def _sendable(text: str) -> str:
    """Without lone surrogates, which no request can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _library() -> Any:
    try:
        import httpx2
    except ImportError as error:
        raise PolicyError("endpoints need httpx2: pip install 'memorist[endpoint]'") from error
    return httpx2
