"""A model as the planner sees it: its layers, and from them parameters, bytes kept and floating-point operations.

Every sum over layers stands here once; whatever plans, compares or checks asks an `Architecture`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from memorist.fit.plan.layers import NO_MIXER, FeedForward, Mixer, Precision

FP8_BLOCK = 1 + 4 / 128**2
"""Bytes per weight: one, and an FP32 scale per 128 × 128 block (arXiv 2505.09343, section 3.1)."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes per parameter at rest: matrices of layers, experts, and all the rest (embeddings, head, norms, router)."""

    name: str
    matrix: float
    expert: float
    rest: float


STORAGES = {
    "fp32": Storage("fp32", 4, 4, 4),
    "bf16": Storage("bf16", 2, 2, 2),
    "fp8": Storage("fp8", FP8_BLOCK, FP8_BLOCK, 2),
    "int8": Storage("int8", 1 + 2 / 128, 1 + 2 / 128, 2),
    # 4-bit codes with a 2-byte scale for every 64.
    "4bit": Storage("4bit", 0.5 + 2 / 64, 0.5 + 2 / 64, 2),
}


@dataclass(frozen=True, slots=True)
class Layer:
    """A mixer and a feed-forward part, with so many norms of the hidden width."""

    mixer: Mixer
    feed_forward: FeedForward
    norms: int = 2


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder-only language model.

    hidden, vocab: widths. tied: the head is the embedding. storage: how its checkpoint keeps weights. window: most
    positions that it was made for (0: not said).
    """

    name: str
    hidden: int
    vocab: int
    tied: bool
    layers: tuple[Layer, ...]
    storage: Storage = STORAGES["bf16"]
    window: int = 0

    @property
    def embedding(self) -> int:
        """Parameters of the input embedding."""
        return self.vocab * self.hidden

    def _shapes(self) -> Iterator[tuple[int, int]]:
        """Of every matrix in the layers but routers and routed experts."""
        for layer in self.layers:
            yield from layer.mixer.matrices
            yield from layer.feed_forward.matrices

    def _matrices(self) -> int:
        return sum(i * o for i, o in self._shapes()) + sum(layer.feed_forward.router for layer in self.layers)

    def _rest(self) -> int:
        """Embeddings, norms, biases, convolutions."""
        extras = sum(
            layer.mixer.extras + layer.feed_forward.extras + layer.norms * self.hidden for layer in self.layers
        )
        return self.embedding * (1 if self.tied else 2) + self.hidden + extras

    @property
    def experts(self) -> int:
        """Parameters of all routed experts."""
        return sum(layer.feed_forward.count * layer.feed_forward.expert for layer in self.layers)

    @property
    def active_experts(self) -> int:
        """Parameters of the routed experts that one token goes through."""
        return sum(layer.feed_forward.active * layer.feed_forward.expert for layer in self.layers)

    @property
    def parameters(self) -> int:
        """All parameters, without MTP modules."""
        return self._matrices() + self._rest() + self.experts

    @property
    def active_parameters(self) -> int:
        """Parameters that one token goes through; the whole embedding counts, as in the paper."""
        return self._matrices() + self._rest() + self.active_experts

    def lora_parameters(self, rank: int) -> int:
        """Parameters of low-rank adapters on every matrix of the layers but routers and routed experts."""
        return sum(rank * (i + o) for i, o in self._shapes())

    def weight_bytes(self, storage: Storage | None = None) -> float:
        """Bytes of all weights."""
        kept = storage or self.storage
        return self._matrices() * kept.matrix + self.experts * kept.expert + self._rest() * kept.rest

    def read_bytes(self, batch: float, storage: Storage | None = None) -> float:
        """Bytes of weights that one decode step of `batch` tokens reads.

        Each of E experts is touched with probability 1 − (1 − k/E)^batch, if tokens choose independently. An untied
        input embedding is looked up, not read.
        """
        kept = storage or self.storage
        touched = 0.0
        for layer in self.layers:
            part = layer.feed_forward
            if part.count:
                share = 1 - (1 - part.active / part.count) ** batch
                touched += share * part.count * part.expert
        looked_up = 0 if self.tied else self.embedding
        return self._matrices() * kept.matrix + touched * kept.expert + (self._rest() - looked_up) * kept.rest

    def cache_bytes_per_token(self, precision: Precision = Precision()) -> float:  # noqa: B008  frozen
        """Bytes that one more token adds to a sequence that is shorter than every window."""
        return sum(layer.mixer.cache_bytes(precision) for layer in self.layers)

    def state_bytes(self, precision: Precision = Precision()) -> float:  # noqa: B008  frozen
        """Bytes per sequence of the recurrent layers."""
        return sum(layer.mixer.state_bytes(precision) for layer in self.layers)

    def sequence_bytes(self, tokens: float, precision: Precision = Precision()) -> float:  # noqa: B008  frozen
        """Bytes kept for one sequence of `tokens`: S(T) = Σ cache · min(T, window) + state."""
        return self.state_bytes(precision) + sum(
            layer.mixer.cache_bytes(precision) * min(tokens, layer.mixer.window or tokens) for layer in self.layers
        )

    def forward_flops(self, context: float, *, causal: bool = True) -> float:
        """Floating-point operations per token of a forward pass over `context` tokens.

        Two per multiplication with a weight, the head included and the embedding's lookup not; attention counts the
        visible pairs (`causal`) or the full matrix. With Table 2's accounting, training is three times this.
        """
        looked_up = 0 if self.tied else self.embedding
        weights = 2 * (self.active_parameters - looked_up)
        return weights + 2 * sum(
            layer.mixer.score_width * _visible(context, layer.mixer.window, causal) for layer in self.layers
        )

    def decode_flops(self, context: float) -> float:
        """Floating-point operations to write one token after `context` tokens."""
        looked_up = 0 if self.tied else self.embedding
        return 2 * (self.active_parameters - looked_up) + 2 * sum(
            layer.mixer.decode_width * min(context, layer.mixer.window or context) for layer in self.layers
        )

    def kinds(self) -> dict[str, int]:
        """How many layers have which mixer."""
        return dict(Counter(layer.mixer.kind for layer in self.layers if layer.mixer != NO_MIXER).most_common())


def _visible(context: float, window: int | None, causal: bool) -> float:
    """Mean number of tokens that a token sees."""
    seen = min(context, window or context)
    return seen - seen * seen / (2 * context) if causal and context else seen
