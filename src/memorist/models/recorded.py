"""A model behind an endpoint whose replies are kept in a file: a run that was cut off goes on where it stopped.

What was asked before, word for word and with the same limits, is answered from the file. So a run that is begun again
asks only what is new, and costs only that; its agent does what it did, as long as nothing is drawn by chance.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from memorist.decision import Action, Stop
from memorist.errors import DataError, PolicyError
from memorist.models.endpoint import Endpoint, Spent, spending
from memorist.models.sampler import Request


@dataclass
class Recorded:
    """A sampler.

    Args:
        endpoint: what is asked.
        file: JSON Lines; made where it is not there, added to where it is.
        told: called after each reply with what has been spent so far, the file's earlier replies included.
    """

    endpoint: Endpoint
    file: Path
    told: Callable[[Spent], None] = lambda spent: None
    spent: Spent = field(default_factory=Spent)
    name: str = field(init=False, default="")
    _known: dict[str, Action] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        self.name = self.endpoint.name
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            self._read()

    def _read(self) -> None:
        """Take what the file holds. A last line that was cut off is removed: it will be asked again."""
        whole = 0
        with open(self.file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                try:
                    row = json.loads(line)
                    self._keep(row)
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(
                        str(self.file), f"line {number}", "-", f"is no recorded reply ({error}); move the file away"
                    ) from error
        with open(self.file, "r+b") as file:
            file.truncate(whole)

    def _keep(self, row: dict[str, Any]) -> None:
        self._known[row["key"]] = Action(row["text"], stop=Stop(row["stop"]))
        self.spent.calls += 1
        self.spent.prompt_tokens += row["prompt_tokens"]
        self.spent.completion_tokens += row["completion_tokens"]
        self.spent.cost += row["cost"]

    def _key(self, request: Request) -> str:
        observation, distribution = request.observation, request.distribution
        asked = [(o.prompt, o.system, a.text) for o, a in observation.after]
        how = (distribution.temperature, distribution.top_p, observation.max_tokens, dict(self.endpoint.extra))
        plain: list[Any] = [self.name, asked, observation.system, observation.prompt, how]
        if not distribution.greedy:
            plain.append(request.seed)  # another draw is another reply
        if observation.ends:
            plain.append({"ends": observation.ends})
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """One action for each request, in order; what is the same is asked once.

        Raises:
            PolicyError: the endpoint does not answer; what it answered before is in the file.
        """
        keys = [self._key(request) for request in requests]
        new = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._known}
        if new:
            with ThreadPoolExecutor(min(self.endpoint.together, len(new))) as pool:
                for _ in pool.map(lambda item: self._ask(*item), new.items()):
                    pass
        return [
            replace(self._known[key], distribution=request.distribution)
            for key, request in zip(keys, requests, strict=True)
        ]

    def _ask(self, key: str, request: Request) -> None:
        # A seed would make the same question another request, for nothing where the likeliest reply is taken.
        seed = None if request.distribution.greedy else request.seed
        with spending() as spent:
            action = self.endpoint.ask(request.observation, request.distribution, seed)
        row = {
            "key": key, "text": action.text, "stop": action.stop.value, "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens, "cost": spent.cost,
        }  # fmt: skip
        line = json.dumps(row, ensure_ascii=True) + "\n"
        with self._lock:
            with open(self.file, "a", encoding="ascii") as file:
                file.write(line)
            self._keep(row)
            self.told(self.spent)


def open_recorded(
    name: str, file: Path, *, key: str | None = None, told: Callable[[Spent], None] = lambda spent: None,
    prices: tuple[float, float] = (0.0, 0.0),
) -> Recorded:  # fmt: skip
    """The model that "URL#MODEL" names, recorded.

    Raises:
        PolicyError: the name has another form.
    """
    url, sign, model = name.partition("#")
    if not sign or not model or not url.startswith(("http://", "https://")):
        raise PolicyError(f"{name!r} names no model behind an endpoint; expected e.g. http://localhost:8000/v1#MODEL")
    return Recorded(Endpoint(url, model, key, prices=prices), file, told)
