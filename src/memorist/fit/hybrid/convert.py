"""A Llama checkpoint becomes a hybrid: most attention layers turn into Mamba-2 layers, whose memory does not grow.

After M1 (arXiv 2504.10449) and the paper that it builds on (arXiv 2408.15237). Without its softmax attention is a
recurrence with decay 1: queries read a state (C), keys write to it (B), values are written (x). What has a place there
is copied. The container is transformers' Bamba, so that stock classes open it, with as many groups as query heads: the
rows of each key and value are repeated for the heads that share it (M1's released code repeats parts of heads, and most
queries meet other keys).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BambaConfig, LlamaConfig

from memorist.errors import HybridError
from memorist.fit.folders import check_new, whole_folder

FAMILY = "llama"
STARTS = ("linear", "released")
"""Where a layer starts: as linear attention (nothing decays, each token is written whole, no convolution), or as M1's
released code has it."""
CONVOLVED = 4
"""Tokens that the convolution before a recurrence sees."""
SLOWEST, FASTEST = 1e-3, 0.1
"""Steps that M1's code draws from."""
DECAY = 0.01
"""Of a state with each token, where a layer starts as linear attention."""
BESIDE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "chat_template.jinja",
)
NAMES = {
    "post_attention_layernorm": "pre_ff_layernorm",
    "mlp.": "feed_forward.",
    "model.norm.": "model.final_layernorm.",
}
"""What is called otherwise in the container."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written. state: bytes that a sequence keeps whatever its length; token: bytes more for each of its
    tokens; before: the same for the model that it came from (all in 16 bits, recurrences too)."""

    folder: Path
    attention: tuple[int, ...]
    layers: int
    parameters: int
    state: int
    token: int
    before: int


def convert(model: Path, out: Path, attention: Sequence[int], *, start: str = "linear", seed: int = 0) -> Converted:
    """Write the hybrid of a Llama checkpoint.

    Args:
        model: its folder; it is only read.
        out: a folder that does not exist yet.
        attention: layers that keep their attention, from 0.
        start: what recurrent layers start as, see `STARTS`.
        seed: of what has nothing to be copied from.

    Raises:
        HybridError: the model is of another family, has biases or heads of another width, a layer is not there, or the
            folder exists.
    """
    check_new(out, HybridError)
    config = checked(model)
    layers = kept(attention, config.num_hidden_layers)
    if start not in STARTS:
        raise HybridError(f"start is {start!r}; expected one of {', '.join(STARTS)}")
    source = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    found = hybrid(config, source.state_dict(), layers, start, seed)
    with whole_folder(out, HybridError) as work:
        found.save_pretrained(work)
        for name in BESIDE:
            if (model / name).is_file():
                (work / name).write_bytes((model / name).read_bytes())
        note = {"source": model.name, "attention_layers": list(layers), "start": start}
        described = json.loads((work / "config.json").read_text(encoding="utf-8")) | {"hybrid": note}
        (work / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return Converted(
        out, layers, config.num_hidden_layers, sum(p.numel() for p in found.parameters()),
        state_bytes(found.config), token_bytes(found.config), token_bytes(config),
    )  # fmt: skip


def checked(model: Path) -> LlamaConfig:
    """A model's configuration.

    Raises:
        HybridError: the model cannot be converted.
    """
    try:
        config = AutoConfig.from_pretrained(str(model))
    except (OSError, ValueError, KeyError) as error:
        raise HybridError(
            f"{model}: no model to convert ({error}); expected a folder with a Llama checkpoint"
        ) from error
    if config.model_type != FAMILY:
        raise HybridError(f"{model} is {config.model_type!r}; only {FAMILY!r} was verified, other families are refused")
    biased = [name for name in ("attention_bias", "mlp_bias") if getattr(config, name, False)]
    if biased:
        raise HybridError(f"{model} has {' and '.join(biased)}: in a recurrent layer biases have nowhere to go")
    width = config.head_dim or config.hidden_size // config.num_attention_heads
    if width * config.num_attention_heads != config.hidden_size:
        raise HybridError(
            f"{model} has {config.num_attention_heads} heads of {width} in a width of {config.hidden_size}; expected "
            "heads that fill the width, as a state has to"
        )
    return config


def kept(attention: Sequence[int], layers: int) -> tuple[int, ...]:
    """The layers that keep their attention, in order.

    Raises:
        HybridError: one is not there or twice, or there are none.
    """
    strange = [layer for layer in attention if not 0 <= layer < layers]
    if strange or len(set(attention)) < len(attention):
        raise HybridError(f"attention layers {list(attention)}; expected different ones of 0 to {layers - 1}")
    if not attention:
        raise HybridError("no attention layer: such a model cannot be asked how much it has read; keep one or more")
    return tuple(sorted(attention))


def hybrid(
    config: LlamaConfig, weights: Mapping[str, torch.Tensor], attention: Sequence[int], start: str, seed: int
) -> Any:
    """The model with what has a place in it copied from weights.

    Raises:
        HybridError: a weight has no place, or one is missing.
    """
    shape = _container(config, attention)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
    placed = dict(_placed(config, weights, attention))
    missing, strange = model.load_state_dict(placed, strict=False)
    fresh = ("mamba.in_proj", "mamba.conv1d", "mamba.dt_bias", "mamba.A_log", "mamba.D", "mamba.norm")
    tied = ["lm_head.weight"] if config.tie_word_embeddings else []
    missing = [name for name in missing if not any(part in name for part in fresh) and name not in tied]
    if missing or strange:
        raise HybridError(f"weights without a place: {strange or 'none'}; places without a weight: {missing or 'none'}")
    with torch.no_grad():
        for number, layer in enumerate(model.model.layers):
            if number not in attention:
                _begin(layer.mamba, config, weights, f"model.layers.{number}.self_attn.", start)
    return model.eval()


def _container(config: LlamaConfig, attention: Sequence[int]) -> BambaConfig:
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    # Told anew: the container turns half of each head only where nothing else is said.
    rope = dict(config.rope_parameters or {"rope_type": "default", "rope_theta": 10000.0}) | {
        "partial_rotary_factor": 1.0
    }
    return BambaConfig(
        vocab_size=config.vocab_size, tie_word_embeddings=config.tie_word_embeddings, hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size, num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=heads, num_key_value_heads=config.num_key_value_heads, hidden_act=config.hidden_act,
        initializer_range=config.initializer_range, rms_norm_eps=config.rms_norm_eps, pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id,
        max_position_embeddings=config.max_position_embeddings, attn_layer_indices=list(attention), mamba_n_heads=heads,
        mamba_d_head=width, mamba_n_groups=heads, mamba_d_state=width, mamba_d_conv=CONVOLVED, mamba_expand=1,
        rope_parameters=rope,
    )  # fmt: skip


def _placed(
    config: LlamaConfig, weights: Mapping[str, torch.Tensor], attention: Sequence[int]
) -> list[tuple[str, torch.Tensor]]:
    """Weights by their names in the container; of replaced attention what has a place as it is."""
    found = []
    for name, value in weights.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        number = int(name.split(".")[2]) if name.startswith("model.layers.") else -1
        if number >= 0 and number not in attention and ".self_attn." in name:
            if not name.endswith("o_proj.weight"):
                continue
            name = name.replace("self_attn.o_proj", "mamba.out_proj")
        for old, new in NAMES.items():
            name = name.replace(old, new)
        found.append((name, value))
    return found


def _begin(mixer: Any, config: LlamaConfig, weights: Mapping[str, torch.Tensor], place: str, start: str) -> None:
    """What a recurrent layer starts as. Rows of its projection: gate, values, keys, queries, steps."""
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    wide = config.hidden_size
    width = wide // heads
    query, key, value = (weights[f"{place}{name}_proj.weight"] for name in "qkv")
    spread = torch.arange(shared * width).view(shared, width).repeat_interleave(heads // shared, 0).flatten()
    rows = mixer.in_proj.weight
    bound = wide**-0.5
    torch.nn.init.uniform_(rows, -bound, bound)
    rows[wide : 4 * wide] = torch.cat([value[spread], key[spread], query])
    mixer.D.fill_(1.0 if start == "released" else 0.0)
    mixer.norm.weight.fill_(1.0)
    if start == "released":
        torch.nn.init.uniform_(mixer.conv1d.weight, -(CONVOLVED**-0.5), CONVOLVED**-0.5)
        mixer.A_log.copy_(torch.empty(heads).uniform_(1, 16).log())
        span = torch.tensor(FASTEST / SLOWEST).log()
        steps = SLOWEST * (torch.rand(heads) * span).exp()
    else:
        mixer.conv1d.weight.zero_()
        mixer.conv1d.weight[..., -1] = 1.0
        rows[4 * wide :].mul_(0.1)
        mixer.A_log.fill_(torch.tensor(DECAY).log())
        steps = torch.ones(heads)
    if mixer.conv1d.bias is not None:
        mixer.conv1d.bias.zero_()
    mixer.dt_bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # softplus gives the steps back


def state_bytes(config: Any, *, size: int = 2) -> int:
    """Bytes that the recurrent layers of a hybrid keep of a sequence, whatever its length; `size` of a number.

    A convolution keeps its tokens' channels, a recurrence a matrix for each head.
    """
    recurrent = sum(kind == "linear_attention" for kind in getattr(config, "layer_types", ()) or ())
    if not recurrent:
        return 0
    inner = config.mamba_expand * config.hidden_size
    channels = inner + 2 * config.mamba_n_groups * config.mamba_d_state
    return int(recurrent * size * (channels * config.mamba_d_conv + inner * config.mamba_d_state))


def token_bytes(config: Any, *, size: int = 2) -> int:
    """Bytes of keys and values that a token adds; `size` of a number."""
    kinds = getattr(config, "layer_types", None)
    attending = sum(kind != "linear_attention" for kind in kinds) if kinds else config.num_hidden_layers
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * size * attending * config.num_key_value_heads * width)
