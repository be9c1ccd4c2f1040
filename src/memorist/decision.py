"""What is written down when an agent acts: decisions, trajectories, rewards.

A `Decision` holds what a policy saw and did exactly as it was: the sampled token ids (never text to be tokenised
again), the log-probability of each, and the distribution they were drawn from. Training needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class Stop(StrEnum):
    """Why an action ended."""

    END = "end"
    """The policy said that it was done."""
    LENGTH = "length"
    """The token limit cut it."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """The prompt left no room; nothing was sampled."""


class Author(StrEnum):
    """Who wrote a span of an action. Only what the policy wrote carries loss."""

    POLICY = "policy"
    TOOL = "tool"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [start, end) of an action, and who wrote them."""

    start: int
    end: int
    author: Author = Author.POLICY


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it is shown to models: upright, in red, green and blue (`models.pictures.read_picture`).

    size: pixels across and down. digest: of size and pixels, so whatever shows the same is the same. pixels: rows from
    the top, three bytes a pixel; logs leave them out.
    """

    size: tuple[int, int]
    digest: str
    pixels: bytes = field(default=b"", repr=False, compare=False, metadata={"logged": False})


@dataclass(frozen=True, slots=True)
class Media:
    """Prompt tokens [start, end) that stand for something other than text, and the digest of what they stand for.
    grid: how many of them lie below each other, and how many side by side."""

    start: int
    end: int
    digest: str
    grid: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class Distribution:
    """How an action was drawn. `temperature` 0 is greedy. `legal` limits its first positions, in order, to token ids
    (None: all); `grammar` its whole text (`Observation.grammar`)."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    legal: tuple[tuple[int, ...] | None, ...] | None = None
    grammar: str = ""

    @property
    def greedy(self) -> bool:
        """Whether the most likely action is taken."""
        return self.temperature == 0.0

    def legal_at(self, position: int) -> tuple[int, ...] | None:
        """The token ids that a position is limited to (None: all)."""
        return self.legal[position] if self.legal is not None and position < len(self.legal) else None


@dataclass(frozen=True, slots=True)
class Observation:
    """What a policy is asked: text to go on from, or options to choose among.

    `prompt` is the text of one user turn (with `system` before it); how it becomes tokens is the policy's
    business. `options`, when given, makes the action an ordered choice of `choose` of them instead of text. `after`
    holds what was asked and done before in the same window, in order: of tokens that were sampled there, exactly those
    are seen again. `grammar` is what the text must match, by its name in the catalogue, with what it is made for
    after a colon ("profile-edits:FILE"): local models write nothing else (`models.grammars`), samplers that cannot be
    limited may. `ends` are texts of which the first ends what is written, itself included. `pictures` are
    shown before the prompt's text, to policies that can see.
    """

    prompt: str
    system: str = ""
    options: tuple[str, ...] = ()
    choose: int = 1
    max_tokens: int = 256
    after: tuple[tuple[Observation, Action], ...] = ()
    grammar: str = ""
    ends: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def shown(self) -> tuple[Picture, ...]:
        """All pictures of the window, in the order of their turns."""
        return (*(one for asked, _ in self.after for one in asked.pictures), *self.pictures)

    def then(self, action: Action, prompt: str, *, max_tokens: int | None = None) -> Observation:
        """What is asked next in the same window, once `action` was the answer to this."""
        asked = replace(self, after=())
        limit = self.max_tokens if max_tokens is None else max_tokens
        return Observation(prompt, max_tokens=limit, after=(*self.after, (asked, action)), ends=self.ends)


@dataclass(frozen=True, slots=True)
class Action:
    """What a policy did. Samplers that only return text leave the rest empty and play frozen roles.

    prompt: token ids seen, shape (P,). tokens: ids written, shape (T,). logprobs: shape (T,), under
    `distribution`. choice: indices of the chosen options, in order. media: what some of the prompt's tokens stand for.
    """

    text: str
    prompt: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    choice: tuple[int, ...] = ()
    stop: Stop = Stop.END
    distribution: Distribution = Distribution()
    spans: tuple[Span, ...] = ()
    media: tuple[Media, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """One action of a policy in one role, with what it saw."""

    role: str
    policy: str
    observation: Observation
    action: Action

    @property
    def policy_tokens(self) -> int:
        """Number of tokens that the policy itself wrote."""
        if not self.action.spans:
            return len(self.action.tokens)
        return sum(s.end - s.start for s in self.action.spans if s.author is Author.POLICY)


@dataclass(frozen=True, slots=True)
class Reward:
    """One term: on the whole trajectory, on a decision, or on tokens [start, end) of a decision."""

    name: str
    value: float
    decision: int | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The decisions of one run in order, its reward terms, and facts worth keeping (for people, never for loss)."""

    task: str
    seed: int
    decisions: tuple[Decision, ...]
    rewards: tuple[Reward, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def total(self, weights: Mapping[str, float] | None = None) -> float:
        """Weighted sum of the terms on the whole trajectory; terms without a weight count 1."""
        weights = weights or {}
        return sum(weights.get(r.name, 1.0) * r.value for r in self.rewards if r.decision is None)
