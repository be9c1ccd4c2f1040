"""From a configuration's fields to its layers: which layers attend, slide or recur, and which have experts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from memorist.errors import PlanError, nearest
from memorist.fit.plan.architecture import Layer
from memorist.fit.plan.fields import Family, Fields
from memorist.fit.plan.layers import (
    NO_MIXER,
    FeedForward,
    Mixer,
    attention,
    delta_net,
    latent_attention,
    mamba,
    mamba2,
)

KINDS = {
    "full_attention": "full", "attention": "full", "sliding_attention": "sliding", "linear_attention": "recurrent",
    "mamba": "recurrent", "moe": "moe", "mlp": "mlp",
}  # fmt: skip
PATTERN = {"M": "recurrent", "*": "full", "-": "mlp", "E": "moe"}
DEFAULT = "default: every layer attends to all"
ALONE = {"mlp", "moe"}
"""Layers without a mixer."""


def read_layers(fields: Fields, family: Family, hidden: int) -> tuple[Layer, ...]:
    """All layers.

    Raises:
        PlanError: sizes are missing, impossible, or do not fit each other.
    """
    rules = list(_layer_rules(fields, family, fields.number("num_hidden_layers")))
    rule, kinds = rules[0]
    for other, said in rules[1:]:
        if other != DEFAULT and [k == "recurrent" for k in said] != [k == "recurrent" for k in kinds]:
            fields.warnings.append(f"{rule} and {other} contradict about which layers attend; {rule} is used")
    fields.notes.append(f"layers by {rule}")
    mixers = _mixers(fields, family, hidden, set(kinds))
    parts = _feed_forwards(fields, family, hidden, kinds)
    if ALONE & set(kinds):  # Each layer is a mixer or a feed-forward part, not both.
        parts = [part if kind in ALONE else FeedForward(hidden) for kind, part in zip(kinds, parts, strict=True)]
    return tuple(Layer(mixers[kind], part, family.norms) for kind, part in zip(kinds, parts, strict=True))


def _layer_rules(fields: Fields, family: Family, count: int) -> Iterator[tuple[str, list[str]]]:
    """Every rule that this configuration has for what its layers are, by priority."""

    def listed(name: str, kinds: list[str]) -> tuple[str, list[str]]:
        if len(kinds) != count:
            raise PlanError(f"{fields.where}: {name} has {len(kinds)} layers and num_hidden_layers is {count}")
        return name, kinds

    def at(name: str, places: set[int]) -> tuple[str, list[str]]:
        if places - set(range(count)):
            raise PlanError(f"{fields.where}: {name} names layer {max(places)}; num_hidden_layers is {count}")
        return name, ["full" if i in places else "recurrent" for i in range(count)]

    for name in ("layer_types", "layers_block_type"):
        if named := fields.get(name):
            for kind in named:
                if kind not in KINDS:
                    raise PlanError(f"{fields.where}: {name} has {kind!r}; {nearest(str(kind), KINDS)}")
            yield listed(name, [KINDS[kind] for kind in named])
    for name in ("attn_layer_indices", "full_attn_idxs"):
        if (places := fields.get(name)) is not None:
            yield at(name, set(places))
    if pattern := fields.get("hybrid_override_pattern"):
        if set(pattern) - set(PATTERN):
            raise PlanError(f"{fields.where}: hybrid_override_pattern is {pattern!r}; expected only {''.join(PATTERN)}")
        yield listed("hybrid_override_pattern", [PATTERN[letter] for letter in pattern])
    if fields.get("attn_layer_period"):
        period, offset = fields.number("attn_layer_period"), fields.number("attn_layer_offset", default=0, least=0)
        yield at("attn_layer_period", {i for i in range(count) if i % period == offset})
    if fields.get("full_attention_interval"):
        every = fields.number("full_attention_interval")
        yield at("full_attention_interval", {i for i in range(count) if (i + 1) % every == 0})
    if side := fields.get("mamba_config"):
        yield at("mamba_config.json", set(side.get("attn_layers", ())))
    asked, window, first = (fields.get(n) for n in ("use_sliding_window", "sliding_window", "max_window_layers"))
    every = fields.number("sliding_window_pattern", default=6)
    sliding: Collection[int] = {
        "all": range(count),
        "even": range(0, count, 2),
        "pattern": [i for i in range(count) if (i + 1) % every],
        "asked": range(first or 0, count) if asked else (),
    }[family.sliding]
    if sliding and asked is not False and window is not None and fields.number("sliding_window"):
        yield "sliding_window", ["sliding" if i in sliding else "full" for i in range(count)]
    else:
        yield DEFAULT, ["full"] * count


def _mixers(fields: Fields, family: Family, hidden: int, kinds: set[str]) -> dict[str, Mixer]:
    """The mixer of each kind that occurs."""
    made: dict[str, Mixer] = dict.fromkeys(ALONE, NO_MIXER)
    if kinds & {"full", "sliding"}:
        made["full"] = full = _attention(fields, family, hidden)
        if "sliding" in kinds:
            if full.kind == "MLA":
                raise PlanError(f"{fields.where}: sliding layers with latent attention (kv_lora_rank); not known")
            if fields.get("use_sliding_window") is False:
                fields.warnings.append(
                    "use_sliding_window is false and layers slide: they contradict, the layers are used"
                )
            made["sliding"] = replace(full, kind=f"sliding {full.kind}", window=fields.number("sliding_window"))
    if "recurrent" in kinds:
        made["recurrent"] = _recurrent(fields, hidden)
    return made


def _attention(fields: Fields, family: Family, hidden: int) -> Mixer:
    heads = fields.number("num_attention_heads")
    kv_heads = fields.number("num_key_value_heads", default=heads)
    biased = fields.get("attention_bias", False)
    if fields.get("kv_lora_rank") is not None:
        fields.asked.update(("head_dim", "qk_head_dim"))  # Sums of the sizes below.
        fields.notes.append("MLA: the latent is cached; a backend that keeps keys and values per head needs far more")
        return latent_attention(
            hidden,
            heads,
            kv_rank=fields.number("kv_lora_rank"),
            rope=fields.number("qk_rope_head_dim"),
            nope=fields.number("qk_nope_head_dim"),
            value=fields.number("v_head_dim"),
            q_rank=None if fields.get("q_lora_rank") is None else fields.number("q_lora_rank"),
        )
    if heads % kv_heads:
        raise PlanError(
            f"{fields.where}: {heads} query heads on {kv_heads} key-value heads; expected a divisor of them"
        )
    if fields.get("head_dim") is None and hidden % heads:
        raise PlanError(f"{fields.where}: hidden_size {hidden} on {heads} heads without head_dim; expected a multiple")
    return attention(
        hidden,
        heads,
        kv_heads,
        fields.number("head_dim", default=hidden // heads),
        qkv_bias=bool(fields.get("qkv_bias", biased or family.qkv_bias)),
        out_bias=bool(biased if family.out_bias is None else family.out_bias),
        gated=family.gate,
    )


def _recurrent(fields: Fields, hidden: int) -> Mixer:
    """The one kind of recurrent layer that the fields describe."""
    if (side := fields.get("mamba_config")) is not None:  # M1's conversion, arXiv 2504.10449
        inner = Fields(side, f"{fields.where}: mamba_config.json")
        state = Fields(side.get("ssm_cfg") or {}, inner.where).number("d_state", default=16)
        return mamba(hidden, inner.number("d_inner"), state, 4, -(-hidden // 16), shared=inner.number("d_xb"))
    if fields.get("linear_num_value_heads") is not None:
        return delta_net(
            hidden,
            fields.number("linear_num_key_heads"),
            fields.number("linear_num_value_heads"),
            fields.number("linear_key_head_dim"),
            fields.number("linear_value_head_dim"),
            fields.number("linear_conv_kernel_dim"),
        )
    for name, assumed in (("mamba_conv_bias", True), ("use_conv_bias", True), ("mamba_proj_bias", False)):
        if fields.get(name, assumed) is not assumed:
            fields.warnings.append(f"{name} is {not assumed}: counted as if it were {assumed}")
    expand = fields.number("mamba_expand", "expand", default=2)
    conv = fields.number("mamba_d_conv", "conv_kernel", default=4)
    if fields.first("mamba_n_heads", "mamba_num_heads") is not None:
        heads = fields.number("mamba_n_heads", "mamba_num_heads")
        automatic = fields.get("mamba_d_head") == "auto"
        return mamba2(
            hidden,
            heads,
            expand * hidden // heads if automatic else fields.number("mamba_d_head", "mamba_head_dim"),
            fields.number("mamba_d_state", "ssm_state_size"),
            fields.number("mamba_n_groups", "n_groups", default=1),
            conv,
        )
    if fields.get("mamba_d_state") is not None:
        automatic = fields.get("mamba_dt_rank", "auto") == "auto"
        rank = -(-hidden // 16) if automatic else fields.number("mamba_dt_rank")
        return mamba(hidden, expand * hidden, fields.number("mamba_d_state"), conv, rank)
    raise PlanError(
        f"{fields.where}: recurrent layers of no known kind; expected linear_num_value_heads (delta net), "
        "mamba_n_heads (Mamba-2), mamba_d_state (Mamba) or a mamba_config.json (M1)"
    )


def _feed_forwards(fields: Fields, family: Family, hidden: int, kinds: Sequence[str]) -> list[FeedForward]:
    """The feed-forward part of each layer."""
    experts = fields.number("n_routed_experts", "num_experts", "num_local_experts", default=0, least=0)
    sparse = [bool(experts) and kind != "mlp" and _is_sparse(fields, i) for i, kind in enumerate(kinds)]
    parts = {}
    if not all(sparse):
        width = fields.number("intermediate_size")
        bias = bool(fields.get("mlp_bias", False))
        parts[False] = FeedForward(hidden, width, projections=family.projections, bias=bias)
    if experts:
        # Without a width of their own, experts are as wide as the field for dense layers says.
        active, wide = fields.number("num_experts_per_tok"), fields.number("moe_intermediate_size", default=0)
        wide = wide or fields.number("intermediate_size")
        if active > experts:
            raise PlanError(f"{fields.where}: num_experts_per_tok is {active} and there are {experts} experts")
        shared = fields.number("n_shared_experts", default=0, least=0) * wide
        parts[True] = FeedForward(
            hidden,
            fields.number("shared_expert_intermediate_size", default=shared, least=0),
            experts,
            active,
            wide,
            projections=family.projections,
            expert_bias=family.expert_bias,
            shared_gate=family.shared_gate,
        )
        fields.asked.add("intermediate_size")
    return [parts[at] for at in sparse]


def _is_sparse(fields: Fields, layer: int) -> bool:
    """Whether a layer of a model with experts has them."""
    step, offset = (
        fields.number("expert_layer_period", default=1),
        fields.number("expert_layer_offset", default=0, least=0),
    )
    return (
        layer >= fields.number("first_k_dense_replace", default=0, least=0)
        and layer % fields.number("moe_layer_freq", default=1) == 0
        and (layer + 1) % fields.number("decoder_sparse_step", default=1) == 0
        and layer % step == offset
        and layer not in fields.get("mlp_only_layers", ())
    )
