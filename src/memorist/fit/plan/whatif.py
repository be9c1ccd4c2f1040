"""The same model with other parts: MHA, GQA, latent attention, a hybrid, pruned experts. For comparing, not converting.

What such a change does to quality is not computed here: that is measured, by the evaluation of a converted model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from memorist.errors import PlanError
from memorist.fit.plan.architecture import Architecture, Layer
from memorist.fit.plan.layers import Mixer, attention, latent_attention, mamba

GQA_HEADS = 8
LATENT = {"kv_rank": 512, "rope": 64, "nope": 128, "value": 128}
"""DeepSeek-V3's."""
KEPT_ATTENTION = 5
"""One layer in so many keeps attention in a hybrid, about as in M1 (6 of 28, arXiv 2504.10449)."""


def variants(architecture: Architecture, *, kept_experts: float = 0.5) -> dict[str, Architecture]:
    """The model as given, and what it would be with other attention, as a hybrid, and with fewer experts.

    Variants that do not apply are left out: those equal to the model, and pruning where there are no experts.

    Raises:
        PlanError: the share of kept experts is impossible.
    """
    made = {
        "as given": architecture,
        "dense (MHA)": _with(architecture, lambda mixer: _heads(mixer, architecture.hidden, mixer.heads)),
        "GQA": _with(architecture, lambda mixer: _heads(mixer, architecture.hidden, GQA_HEADS)),
        "MLA": _with(architecture, lambda mixer: _latent(mixer, architecture.hidden)),
        "hybrid": replace(architecture, layers=tuple(_hybrid(architecture))),
    }
    if architecture.experts:
        made["pruned"] = pruned(architecture, kept_experts)
    return {name: one for name, one in made.items() if name == "as given" or one.layers != architecture.layers}


def pruned(architecture: Architecture, kept: float) -> Architecture:
    """With this share of each layer's routed experts; a token still goes through as many.

    Raises:
        PlanError: the share is not in 0 to 1, or leaves fewer experts than a token goes through.
    """
    layers = []
    for layer in architecture.layers:
        part = layer.feed_forward
        count = round(part.count * kept)
        if part.count and not (0 < kept <= 1 and count >= part.active):
            raise PlanError(
                f"{kept:g} of {part.count} experts kept; expected up to 1, and at least {part.active} of them"
            )
        layers.append(replace(layer, feed_forward=replace(part, count=count)))
    return replace(architecture, layers=tuple(layers))


def _with(architecture: Architecture, change: Callable[[Mixer], Mixer]) -> Architecture:
    layers = tuple(replace(layer, mixer=change(layer.mixer)) for layer in architecture.layers)
    return replace(architecture, layers=layers)


def _heads(mixer: Mixer, hidden: int, most: int) -> Mixer:
    """Attention with at most so many key-value heads, as many as divide the query heads; biases are not kept."""
    if not mixer.heads:
        return mixer
    kv_heads = max(n for n in range(1, min(most, mixer.heads) + 1) if mixer.heads % n == 0)
    if kv_heads == mixer.kv_heads and mixer.kind != "MLA":
        return mixer
    return attention(hidden, mixer.heads, kv_heads, mixer.head_dim, window=mixer.window)


def _latent(mixer: Mixer, hidden: int) -> Mixer:
    if not mixer.attends_to_all or mixer.kind == "MLA":
        return mixer
    return latent_attention(hidden, mixer.heads, **LATENT)


def _hybrid(architecture: Architecture) -> Iterator[Layer]:
    """Full attention in every fifth of the layers that have it; in the others Mamba in M1's form.

    There queries, keys and values of the attention become C, B and x.
    """
    seen, hidden = 0, architecture.hidden
    for layer in architecture.layers:
        mixer = layer.mixer
        if mixer.attends_to_all:
            seen += 1
            if seen % KEPT_ATTENTION:
                inner, shared = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
                mixer = mamba(hidden, inner, 16, 4, -(-hidden // 16), shared=shared)
        yield replace(layer, mixer=mixer)


def break_even(given: Architecture, form: Architecture) -> float | None:
    """Tokens from which on a form keeps less than the model as given: state over what is saved per token.

    None where it has no more state, or saves nothing per token.
    """
    saved = given.cache_bytes_per_token() - form.cache_bytes_per_token()
    state = form.state_bytes() - given.state_bytes()
    return state / saved if saved > 0 and state > 0 else None
