"""The parts of a transformer layer as sizes: what they hold, keep and cost.

Each function makes one kind of mixer from its public definition. Left out, because they are below 1e-4 of any model:
norms inside attention, biases of routers, attention sinks. Kept bytes: Table 1 of arXiv 2505.09343.
"""

from __future__ import annotations

from dataclasses import dataclass

Matrices = tuple[tuple[int, int], ...]
"""(inputs, outputs) of each weight matrix."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes of one element in the cache of attention and convolutions, and in recurrent states."""

    cache: float = 2.0
    state: float = 2.0


@dataclass(frozen=True, slots=True)
class Mixer:
    """What mixes tokens: attention or a recurrence.

    extras: parameters beside the matrices (biases, convolutions, decays). cache: elements kept per token. conv, state:
    elements kept per sequence, in the cache's precision and in that of states. score_width: heads · (d_qk + d_v), what
    attention multiplies for each visible token; decode_width: the same against what is cached. heads, kv_heads,
    head_dim: of attention, 0 otherwise. window: most tokens that are kept (None: all).
    """

    kind: str
    matrices: Matrices = ()
    extras: int = 0
    cache: int = 0
    conv: int = 0
    state: int = 0
    score_width: int = 0
    decode_width: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    window: int | None = None

    @property
    def attends_to_all(self) -> bool:
        """Whether it is attention without a window."""
        return self.heads > 0 and self.window is None

    def cache_bytes(self, precision: Precision) -> float:
        """Bytes kept per token."""
        return self.cache * precision.cache

    def state_bytes(self, precision: Precision) -> float:
        """Bytes kept per sequence, whatever its length."""
        return self.conv * precision.cache + self.state * precision.state


NO_MIXER = Mixer("none")
"""Of a layer that is only a feed-forward part, as in Nemotron-H."""


def attention(
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    window: int | None = None,
    qkv_bias: bool = False,
    out_bias: bool = False,
    gated: bool = False,
) -> Mixer:
    """MHA, GQA or MQA: as many key-value heads as query heads, fewer, or one. gated: queries also make a gate."""
    name = "MHA" if kv_heads == heads else "MQA" if kv_heads == 1 else "GQA"
    q, kv = heads * head_dim, kv_heads * head_dim
    return Mixer(
        name if window is None else f"sliding {name}",
        ((hidden, q * (1 + gated)), (hidden, kv), (hidden, kv), (q, hidden)),
        extras=qkv_bias * (q + 2 * kv) + out_bias * hidden,
        cache=2 * kv,
        score_width=2 * q,
        decode_width=2 * q,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        window=window,
    )


def latent_attention(
    hidden: int, heads: int, *, kv_rank: int, rope: int, nope: int, value: int, q_rank: int | None = None
) -> Mixer:
    """MLA: one latent and one rotary key per token are kept, from which all heads' keys and values are made.

    Decoding works on the latent itself, with the up projections absorbed into queries and output.
    """
    query = heads * (nope + rope)
    queries: Matrices = ((hidden, query),) if q_rank is None else ((hidden, q_rank), (q_rank, query))
    return Mixer(
        "MLA",
        (*queries, (hidden, kv_rank + rope), (kv_rank, heads * (nope + value)), (heads * value, hidden)),
        cache=kv_rank + rope,
        score_width=heads * (nope + rope + value),
        decode_width=heads * (2 * kv_rank + rope),
        heads=heads,
        kv_heads=heads,
        head_dim=value,
    )


def mamba(hidden: int, inner: int, state: int, conv: int, rank: int, *, shared: int | None = None) -> Mixer:
    """Mamba-1. shared: width of x and B where several heads share them, as in M1's conversion (arXiv 2504.10449)."""
    if shared is None:
        first: Matrices = ((hidden, 2 * inner), (inner, rank + 2 * state))
    else:
        first = ((hidden, 2 * inner + 2 * shared + rank),)
    return Mixer(
        "Mamba",
        (*first, (rank, inner), (inner, hidden)),
        extras=inner * (conv + state + 3),  # convolution and A; biases of convolution and dt, and D
        conv=inner * conv,
        state=inner * state,
    )


def mamba2(hidden: int, heads: int, head_dim: int, state: int, groups: int, conv: int) -> Mixer:
    """Mamba-2: one decay per head, B and C shared in groups."""
    inner = heads * head_dim
    channels = inner + 2 * groups * state
    return Mixer(
        "Mamba-2",
        ((hidden, inner + channels + heads), (inner, hidden)),
        extras=channels * (conv + 1) + 3 * heads + inner,  # convolution; dt, A and D; the gated norm
        conv=channels * conv,
        state=inner * state,
    )


def delta_net(hidden: int, key_heads: int, value_heads: int, key_dim: int, value_dim: int, conv: int) -> Mixer:
    """Gated delta rule, as in Qwen3-Next."""
    values = value_heads * value_dim
    channels = 2 * key_heads * key_dim + values
    return Mixer(
        "delta net",
        ((hidden, channels + values), (hidden, 2 * value_heads), (values, hidden)),
        extras=channels * conv + 2 * value_heads + value_dim,  # convolution; dt and A; the gated norm
        conv=channels * conv,
        state=values * key_dim,
    )


@dataclass(frozen=True, slots=True)
class FeedForward:
    """A dense MLP of `width` (0: none), with `count` experts of `expert_width` of which `active` run.

    projections: 3 with a gate, 2 without. shared_gate: a gate of one output decides how much of the dense part (the
    shared experts) counts.
    """

    hidden: int
    width: int = 0
    count: int = 0
    active: int = 0
    expert_width: int = 0
    projections: int = 3
    bias: bool = False
    expert_bias: bool = False
    shared_gate: bool = False

    @property
    def matrices(self) -> Matrices:
        """The dense part."""
        if not self.width:
            return ()
        gate: Matrices = ((self.hidden, 1),) if self.shared_gate else ()
        return ((self.hidden, self.width),) * (self.projections - 1) + ((self.width, self.hidden), *gate)

    @property
    def router(self) -> int:
        """Parameters that choose the experts."""
        return self.hidden * self.count

    @property
    def extras(self) -> int:
        """Biases of the dense part."""
        return self.bias * ((self.projections - 1) * self.width + self.hidden)

    @property
    def expert(self) -> int:
        """Parameters of one expert."""
        biases = self.expert_bias * ((self.projections - 1) * self.expert_width + self.hidden)
        return self.projections * self.hidden * self.expert_width + biases

    @property
    def active_width(self) -> int:
        """Width that one token goes through."""
        return self.width + self.active * self.expert_width
