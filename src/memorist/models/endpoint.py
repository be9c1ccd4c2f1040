"""Models behind an OpenAI-compatible endpoint: they act, and return text alone, so they play roles but never learn.

Needs httpx2 (`pip install 'memorist[endpoint]'`), which is imported when something is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from memorist.decision import Action, Distribution, Observation, Stop
from memorist.errors import PolicyError
from memorist.http import Service
from memorist.models.ends import cut
from memorist.models.prompting import refuse_pictures
from memorist.models.sampler import Request

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


_spending: ContextVar[Spent | None] = ContextVar("_spending", default=None)


@contextmanager
def spending() -> Iterator[Spent]:
    """What endpoints are used for in this block, by this thread or task alone."""
    spent = Spent()
    token = _spending.set(spent)
    try:
        yield spent
    finally:
        _spending.reset(token)


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
    _tokens: Spent = field(default_factory=Spent, repr=False)
    _lock: Any = field(default_factory=Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._service = Service(
            self.url, self.model, PolicyError, self.key, self.timeout, self.attempts, self.sleep
        )  # fmt: skip

    @property
    def spent(self) -> Spent:
        """What it was used for so far."""
        return replace(self._tokens, calls=self._service.calls, failures=self._service.failures)

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

    def ask(self, observation: Observation, distribution: Distribution, seed: int | None = None) -> Action:
        """One action.

        Raises:
            PolicyError: the endpoint does not answer, or not with a chat completion.
        """
        return self._ask(observation, distribution, seed)

    async def act(self, observation: Observation) -> Action:
        """What agents call; other tasks run while the endpoint thinks.

        Raises:
            PolicyError: the endpoint does not answer, or not with a chat completion.
        """
        distribution = Distribution(temperature=self.temperature)
        if _blocking.get():
            return self._ask(observation, distribution, None)
        body = self._body(observation, distribution, None)
        found: Action = await self._service.post_async("chat/completions", body, self._action)
        return replace(found, text=cut(found.text, observation.ends))

    def _ask(self, observation: Observation, distribution: Distribution, seed: int | None) -> Action:
        found: Action = self._service.post(
            "chat/completions", self._body(observation, distribution, seed), self._action
        )
        return replace(found, text=cut(found.text, observation.ends))

    def _body(self, observation: Observation, distribution: Distribution, seed: int | None) -> dict[str, Any]:
        if observation.options:
            raise PolicyError(f"{self.model!r} returns text, and cannot choose among options; give the role a chooser")
        refuse_pictures(self.model, observation)
        said = [("system", asked.system) for asked in (*(o for o, _ in observation.after), observation)][:1]
        for asked, action in observation.after:
            said += [("user", asked.prompt), ("assistant", action.text)]
        said.append(("user", observation.prompt))
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": _sendable(text)} for role, text in said if text or role != "system"],
            "max_tokens": observation.max_tokens,
            "temperature": distribution.temperature,
        }
        if distribution.top_p < 1:
            body["top_p"] = distribution.top_p
        if seed is not None:
            body["seed"] = seed % 2**31
        return body | dict(self.extra)

    def _action(self, answer: Any) -> Action:
        text = answer["choices"][0]["message"]["content"]
        if not isinstance(text, str | None):
            raise TypeError(f"content is {type(text).__name__}")
        usage, choice = answer.get("usage") or {}, answer["choices"][0]
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        read, written = (count if isinstance(count, int) else 0 for count in counts)
        with self._lock:
            for spent in filter(None, (self._tokens, _spending.get())):
                spent.prompt_tokens += read
                spent.completion_tokens += written
                spent.cost += (read * self.prices[0] + written * self.prices[1]) / 1e6
        stop = Stop.LENGTH if choice.get("finish_reason") == "length" else Stop.END
        return Action(text or "", stop=stop)


def _sendable(text: str) -> str:
    """Without lone surrogates, which no request can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
