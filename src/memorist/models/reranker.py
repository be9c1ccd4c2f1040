"""RMM's reranker: a linear layer with a residual on question and memories, drawn from as a Plackett–Luce law.

Equations 1 to 3 of arXiv 2503.08026 in NumPy, gradients by hand: it runs and learns where torch is not installed.
`models.choices` hands the same arrays to the trainer. The paper does not say how several memories are drawn at once,
nor what the probability of a set is. Here the scores divided by tau get independent Gumbel noise and the largest are
taken,
in order: exactly drawing without replacement by softmax, one after the other. (Taking the largest before dividing by
tau, as the paper prints it, would leave tau without effect on what is taken: `literal` gives those probabilities.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from memorist.catalogue import find
from memorist.decision import Action
from memorist.errors import PolicyError, need_known
from memorist.models.sampler import Request

Numbers = npt.NDArray[np.float64]
HOW = ("per-step", "factorised", "set-mean")
"""How rewards of items meet the law: each with its own draw, each as if drawn alone, or their mean with the whole."""
TAU = 0.5
BASELINE = 0.5
RATE = 1e-3
MOST_KNOWN = 20_000
"""Vectors that are kept."""


class Embeds(Protocol):
    """Text to vectors: a bank's embedder."""

    name: str
    size: int

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Shape (len(texts), size)."""
        ...


def log_softmax(z: Numbers) -> Numbers:
    """Natural logarithm of the softmax, shape (K,)."""
    shifted = z - z.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def gumbel(uniform: Numbers) -> Numbers:
    """Noise from uniform numbers (eq. 2)."""
    return np.asarray(-np.log(-np.log(uniform)))


def draw(z: Numbers, count: int, rng: np.random.Generator | None) -> tuple[int, ...]:
    """`count` of K in order, by the law of logits z; the largest, the earlier of equal ones, where `rng` is None."""
    keys = z if rng is None else z + rng.gumbel(size=len(z))
    return tuple(int(i) for i in np.argsort(-keys, kind="stable")[:count])


def law(z: Numbers, order: Sequence[int]) -> Numbers:
    """The log-probability of each draw given those before it, shape (M,); their sum is the order's (Plackett–Luce)."""
    left, found = np.ones(len(z), bool), []
    for item in order:
        found.append(log_softmax(z[left])[int(left[:item].sum())])
        left[item] = False
    return np.array(found)


def score_gradient(z: Numbers, order: Sequence[int], weights: Sequence[float], how: str = "per-step") -> Numbers:
    """What rises fastest by the logits z, shape (K,): Σ weight of an item · its log-probability.

    Raises:
        RecipeError: there is no such way.
    """
    need_known("how", how, HOW)
    found, left = np.zeros_like(z), np.ones(len(z), bool)
    if how == "set-mean":
        weights = [float(np.mean(weights))] * len(order)
    for item, weight in zip(order, weights, strict=True):
        found[left] -= weight * np.exp(log_softmax(z[left]))
        found[item] += weight
        if how != "factorised":
            left[item] = False
    return found


def literal(s: Numbers, noise: Numbers, tau: float = TAU) -> Numbers:
    """Probabilities as the paper prints them: noise first, then tau (eq. 2)."""
    return np.exp(log_softmax((s + noise) / tau))


class LinearReranker:
    """Orders memories for a question: s = (q + W_q q)ᵀ (m + W_m m). Weights begin at zero: the retriever's own order.

    Args:
        embedder: what makes vectors of questions and memories; unit vectors of the bank's embedder.
        tau: what scores are divided by. The paper's 0.5 is for its own scale: unit vectors differ by some hundredths,
            and 0.5 draws from them almost uniformly, so recipes that learn set less.
    """

    def __init__(self, embedder: Embeds, *, tau: float = TAU, name: str = "linear-reranker") -> None:
        self.embedder, self.tau, self.name = embedder, tau, name
        self.query, self.memory = np.zeros((2, embedder.size, embedder.size))
        self._known: dict[str, Numbers] = {}

    def vectors(self, texts: Sequence[str]) -> Numbers:
        """Embeddings, shape (len(texts), d). The same memories come up again and again, so theirs are kept."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(new) > MOST_KNOWN:
            self._known.clear()
            new = list(dict.fromkeys(texts))
        for text, vector in zip(new, self.embedder.embed(new) if new else (), strict=True):
            self._known[text] = np.asarray(vector, np.float64)
        return np.stack([self._known[text] for text in texts]) if texts else np.zeros((0, self.embedder.size))

    def scores(self, q: Numbers, m: Numbers) -> Numbers:
        """Of memories m, shape (K, d), for a question q, shape (d,): shape (K,) (eq. 1)."""
        return np.asarray((m + m @ self.memory.T) @ (q + self.query @ q))

    def gradient(
        self, q: Numbers, m: Numbers, order: Sequence[int], weights: Sequence[float], how: str = "per-step"
    ) -> tuple[Numbers, Numbers]:
        """By W_q and W_m, each of shape (d, d): of Σ weight · log-probability (eq. 3)."""
        by_score = score_gradient(self.scores(q, m) / self.tau, order, weights, how) / self.tau
        by_query = np.outer(by_score @ (m + m @ self.memory.T), q)
        return by_query, np.outer(q + self.query @ q, by_score @ m)

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Of each request's options, `choose` in order (all, where there are fewer); greedy ones the best."""
        return [self._choose(request) for request in requests]

    def _choose(self, request: Request) -> Action:
        seen = request.observation
        if not seen.options:
            return Action("", distribution=request.distribution)
        q, m = self.vectors([seen.prompt])[0], self.vectors(seen.options)
        # The distribution's own temperature multiplies tau, so that 1 is the policy as it is.
        z = self.scores(q, m) / (self.tau * (request.distribution.temperature or 1.0))
        greedy = request.distribution.greedy
        order = draw(z, seen.choose, None if greedy else np.random.default_rng(request.seed))
        logprobs = (0.0,) * len(order) if greedy else tuple(map(float, law(z, order)))
        text = " ".join(map(str, order))
        return Action(text, tokens=order, logprobs=logprobs, choice=order, distribution=request.distribution)

    def learn(
        self, batch: Sequence[tuple[str, Sequence[str], Sequence[int], Sequence[float]]], *, rate: float = RATE,
        baseline: float = BASELINE, how: str = "per-step",
    ) -> None:  # fmt: skip
        """One step of ascent on questions, options, what was drawn of them and each one's reward; the mean over the
        batch (the paper's has 4).

        Raises:
            PolicyError: a reward is not finite; the weights stay as they were.
        """
        steps = []
        for question, options, order, rewards in batch:
            if not np.isfinite(rewards).all():
                raise PolicyError(f"rewards for {question!r} are {list(rewards)}; expected finite numbers")
            q, m = self.vectors([question])[0], self.vectors(options)
            steps.append(self.gradient(q, m, order, [reward - baseline for reward in rewards], how))
        if not steps:
            return
        query, memory = (rate * sum(parts) / len(steps) for parts in zip(*steps, strict=True))
        self.query += query
        self.memory += memory

    def save(self, folder: Path) -> None:
        """Write reranker.npz: the weights, tau and the embedder's name."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "reranker.new.npz"
        np.savez(file, query=self.query, memory=self.memory, tau=self.tau, embedder=self.embedder.name)
        file.rename(folder / "reranker.npz")

    @classmethod
    def load(cls, folder: str | Path, embedder: Embeds | None = None) -> LinearReranker:
        """From a folder that `save` wrote.

        Raises:
            PolicyError: there is none, or it is damaged.
        """
        file = Path(folder) / "reranker.npz"
        try:
            with np.load(file, allow_pickle=False) as held:
                made = cls(embedder or _open(str(held["embedder"])), tau=float(held["tau"]), name=file.parent.name)
                made.query, made.memory = held["query"].astype(np.float64), held["memory"].astype(np.float64)
        except (OSError, KeyError, ValueError) as error:
            raise PolicyError(f"{file} cannot be read as a reranker ({error}); expected what one saved") from error
        if made.query.shape != made.memory.shape or made.query.shape != (made.embedder.size,) * 2:
            raise PolicyError(
                f"{file} has weights of shape {made.query.shape}; expected {(made.embedder.size,) * 2} of "
                f"{made.embedder.name!r}"
            )
        return made


def _open(embedder: str) -> Any:
    return find("openers", "embedder", "embedder")(embedder)


def open_reranker(name: str, tau: float = TAU) -> LinearReranker:
    """By name: "linear" or "linear@TAU" (untrained, on the bundled embedder), or a folder."""
    kind, _, given = name.partition("@")
    if kind == "linear":
        try:
            return LinearReranker(_open("minilm"), tau=float(given) if given else tau)
        except ValueError as error:
            raise PolicyError(f"reranker {name!r}: {given!r} is no number; expected e.g. 'linear@0.1'") from error
    return LinearReranker.load(name)
