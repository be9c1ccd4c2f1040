"""Models behind vLLM's and SGLang's own interfaces: samplers that return the token ids they drew, with
log-probabilities.

Unlike `models.endpoint`, which is sent text and returns text, these are sent token ids by our own rules (`prompting`)
and keep
what was sampled, so their actions can be trained on: by a policy with the same tokenizer, under `cap`, since server and
trainer never round alike.

vLLM: `POST /v1/completions` with `return_token_ids` (0.10.2 and later). Its log-probabilities are those of the raw
distribution unless it runs with `--logprobs-mode processed_logprobs`. SGLang: `POST /generate` with `return_logprob`;
its log-probabilities are those after the temperature. Neither says them after top-p or top-k. So a request whose
log-probabilities would not be those of its distribution is refused, save where `exact` says that the server has been
told to.

Needs httpx2 and transformers (`pip install 'memorist[endpoint,train]'`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from memorist.decision import Action, Distribution, Observation, Stop
from memorist.errors import PolicyError, need_known
from memorist.http import Service
from memorist.models.ends import Ends
from memorist.models.prompting import observation_ids
from memorist.models.sampler import Request

KINDS = ("vllm", "sglang")


@dataclass
class TokenServer:
    """A sampler of tokens.

    Args:
        kind: "vllm" or "sglang".
        url: the server's base, e.g. "http://localhost:8000".
        model: its name there (vLLM), and of the tokenizer: a folder, or a name on a hub.
        key: sent as a bearer token; never shown.
        exact: whether the server's log-probabilities are those of the distribution that it draws from, whatever it is.
        timeout, attempts, sleep: as of endpoints.
        together: requests of one batch that are under way at once.

    Raises:
        PolicyError: there is no such kind of server.
    """

    kind: str
    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    exact: bool = False
    timeout: float = 120.0
    attempts: int = 4
    together: int = 32
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    tokenizer: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        need_known("kind", self.kind, KINDS)
        self._service = Service(
            self.url, self.model, PolicyError, self.key, self.timeout, self.attempts, self.sleep
        )  # fmt: skip
        if self.tokenizer is None:
            from transformers import AutoTokenizer

            try:
                self.tokenizer = AutoTokenizer.from_pretrained(self.model)
            except (OSError, ValueError) as error:
                raise PolicyError(f"no tokenizer of {self.model!r} ({error}); give its folder as the model") from error
        self._ends = Ends(partial(self.tokenizer.decode, skip_special_tokens=True))

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """One action for each request, in order; several are under way at once.

        Raises:
            PolicyError: the server does not answer, not with token ids, or would give log-probabilities of another
                distribution.
        """
        with ThreadPoolExecutor(max(1, min(self.together, len(requests)))) as pool:
            return list(pool.map(self._ask, requests))

    def _ask(self, request: Request) -> Action:
        seen, drawn = request.observation, request.distribution
        if seen.options:
            raise PolicyError(f"{self.model!r} writes text; it was asked to choose among options")
        self._check(drawn)
        prompt = tuple(observation_ids(self.tokenizer, self.model, seen))
        place, body, read = self._form(prompt, request)
        tokens, logprobs, cut = self._service.post(place, body, read)
        return self._action(seen, drawn, prompt, tokens, logprobs, cut)

    def _check(self, drawn: Distribution) -> None:
        """Refuse what would be scored under another distribution than it was drawn from."""
        if drawn.legal is not None:
            raise PolicyError(f"{self.model!r} cannot be limited to token ids; give the role a local policy")
        warmed = self.kind == "vllm" and drawn.temperature not in (0.0, 1.0)
        if not self.exact and not drawn.greedy and (warmed or drawn.top_p < 1 or drawn.top_k):
            told = "vllm serve --logprobs-mode processed_logprobs" if self.kind == "vllm" else "a server that does"
            raise PolicyError(
                f"{self.kind} does not say the log-probabilities of temperature {drawn.temperature:g}, top_p "
                f"{drawn.top_p:g}, top_k {drawn.top_k}; expected temperature 1 and all tokens, or {told} and exact=True"
            )

    def _form(self, prompt: tuple[int, ...], request: Request) -> tuple[str, dict[str, Any], Callable[[Any], Any]]:
        """Where to ask, what, and how to read the answer."""
        drawn, most, seed = request.distribution, request.observation.max_tokens, request.seed % 2**31
        ends = {"stop": list(request.observation.ends)} if request.observation.ends else {}
        if self.kind == "vllm":
            body = {
                "model": self.model, "prompt": list(prompt), "max_tokens": most, "temperature": drawn.temperature,
                "top_p": drawn.top_p, "top_k": drawn.top_k or -1, "seed": seed, "logprobs": 0, "return_token_ids": True,
                "add_special_tokens": False, "skip_special_tokens": False, "include_stop_str_in_output": True,
            } | ends  # fmt: skip
            return "v1/completions", body, _read_vllm
        params = {
            "max_new_tokens": most, "temperature": drawn.temperature, "top_p": drawn.top_p, "top_k": drawn.top_k or -1,
            "sampling_seed": seed, "skip_special_tokens": False, "no_stop_trim": True,
        } | ends  # fmt: skip
        return "generate", {"input_ids": list(prompt), "sampling_params": params, "return_logprob": True}, _read_sglang

    def _action(
        self, seen: Observation, drawn: Distribution, prompt: tuple[int, ...], tokens: tuple[int, ...],
        logprobs: tuple[float, ...], cut: bool,
    ) -> Action:  # fmt: skip
        ended = bool(tokens) and tokens[-1] == self.tokenizer.eos_token_id
        text = self.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
        stop = Stop.LENGTH if cut and not ended else Stop.END
        action = Action(text, prompt, tokens, logprobs, stop=stop, distribution=drawn)
        return self._ends.finished(action, seen.ends, self.tokenizer.eos_token_id)


Drawn = tuple[tuple[int, ...], tuple[float, ...], bool]


def _read_vllm(answer: Any) -> Drawn:
    choice = answer["choices"][0]
    return _drawn(choice["token_ids"], choice["logprobs"]["token_logprobs"], choice.get("finish_reason") == "length")


def _read_sglang(answer: Any) -> Drawn:
    told = answer["meta_info"]
    pairs = told["output_token_logprobs"]
    cut = (told.get("finish_reason") or {}).get("type") == "length"
    return _drawn([pair[1] for pair in pairs], [pair[0] for pair in pairs], cut)


def _drawn(tokens: Sequence[Any], logprobs: Sequence[Any], cut: bool) -> Drawn:
    if len(tokens) != len(logprobs):
        raise ValueError(f"{len(tokens)} token ids and {len(logprobs)} log-probabilities")
    return tuple(map(int, tokens)), tuple(map(float, logprobs)), cut


def open_server(name: str) -> TokenServer:
    """By name: "vllm:http://localhost:8000#MODEL" or "sglang:http://localhost:30000#MODEL".

    Raises:
        PolicyError: the name has not this form.
    """
    kind, _, rest = name.partition(":")
    url, _, model = rest.partition("#")
    if kind not in KINDS or not url.startswith(("http://", "https://")) or not model:
        raise PolicyError(f"server {name!r}; expected e.g. vllm:http://localhost:8000#FOLDER")
    return TokenServer(kind, url, model)
