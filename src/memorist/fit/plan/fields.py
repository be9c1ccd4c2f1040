"""A configuration's fields, and what a family's code fixes beside them.

What was asked for is remembered, so that whatever is left over can be warned about by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memorist.errors import PlanError

NOT_SIZES = frozenset("""
architectures auto_map model_type transformers_version _name_or_path use_cache is_decoder add_cross_attention
bos_token_id eos_token_id pad_token_id decoder_start_token_id sep_token_id cls_token_id tie_encoder_decoder
hidden_act hidden_activation mlp_hidden_act initializer_range rms_norm_eps layer_norm_eps layer_norm_epsilon norm_eps
rope_theta rope_scaling rope_parameters rope_interleave rope_local_base_freq partial_rotary_factor attn_rotary_emb
no_rope_layers no_rope_layer_interval initial_context_length attention_dropout hidden_dropout embd_pdrop resid_pdrop
output_router_logits router_aux_loss_coef aux_loss_alpha seq_aux router_jitter_noise norm_topk_prob scoring_func
topk_method n_group topk_group routed_scaling_factor ep_size z_loss_coefficient pretraining_tp clip_qkv
attn_logit_softcapping final_logit_softcapping query_pre_attn_scalar swiglu_limit swiglu_alpha cache_implementation
time_step_limit time_step_min time_step_max time_step_floor mamba_chunk_size chunk_size use_mamba_kernels
num_logits_to_keep calc_logits_for_entire_prompt rescale_prenorm_residual residual_in_fp32 mamba_hidden_act
embedding_multiplier residual_multiplier logits_scaling attention_multiplier output_attentions output_hidden_states
return_dict experts_per_token use_qk_norm qk_norm use_bidirectional_attention chunk_size_feed_forward
problem_type id2label label2id use_mrope mrope_section original_max_position_embeddings
_sliding_window_pattern use_associative_scan use_mambapy
""".split())  # fmt: skip
"""Fields that change no size: known, and silently passed over."""


@dataclass(frozen=True, slots=True)
class Family:
    """What a family's code fixes and its configurations do not say.

    sliding: which layers `sliding_window` is for where no field says so: "all", "even" (0, 2, …), "pattern" (all but
    every sixth), "asked" (only where `use_sliding_window` is set). gate: attention's queries also make a gate.
    """

    tied: bool = False
    qkv_bias: bool = False
    out_bias: bool | None = None
    norms: int = 2
    sliding: str = "asked"
    gate: bool = False
    shared_gate: bool = False
    expert_bias: bool = False
    projections: int = 3


FAMILIES = {
    **dict.fromkeys(("llama", "olmo", "olmo2", "olmoe", "qwen3", "qwen3_moe", "smollm3", "granite"), Family()),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "bamba", "jamba"), Family()),
    **dict.fromkeys(("mistral", "mixtral", "phi3"), Family(sliding="all")),
    "qwen2": Family(qkv_bias=True, out_bias=False),
    "qwen2_moe": Family(qkv_bias=True, out_bias=False, shared_gate=True),
    "qwen3_next": Family(gate=True, shared_gate=True),
    "gemma": Family(tied=True),
    "gemma2": Family(tied=True, norms=4, sliding="even"),
    "gemma3_text": Family(tied=True, norms=4, sliding="pattern"),
    "gpt_oss": Family(sliding="even", expert_bias=True, qkv_bias=True),
    "nemotron_h": Family(projections=2, norms=1),
}


@dataclass(slots=True)
class Fields:
    """A configuration that remembers what was asked of it, so that the rest can be named."""

    data: Mapping[str, Any]
    where: str
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def get(self, name: str, default: Any = None) -> Any:
        """A value; null is as good as absent."""
        self.asked.add(name)
        value = self.data.get(name)
        return default if value is None else value

    def number(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`, under the first of these names that is there.

        Raises:
            PlanError: it is something else, or absent without a default.
        """
        value = self.first(*names)
        if value is None and default is not None:
            return default
        if value is None:
            raise PlanError(
                f"{self.where}: {names[0]!r} is missing; the model's code fills it in: save the whole configuration "
                "with AutoConfig.from_pretrained(…).save_pretrained(…), or add the field"
            )
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            name = next(name for name in names if self.get(name) is not None)
            raise PlanError(f"{self.where}: {name} is {value!r}; expected a whole number of {least} or more")
        return value

    def first(self, *names: str) -> Any:
        """The value of the first of several names for one thing; a warning where others disagree."""
        found = {name: value for name in names if (value := self.get(name)) is not None}
        used = next(iter(found), "")
        for name, value in found.items():
            warning = f"{used} is {found[used]!r} and {name} is {value!r}: they contradict, {used} is used"
            if value != found[used] and warning not in self.warnings:
                self.warnings.append(warning)
        return found.get(used)

    def leftover(self) -> None:
        """Warn of every field that nobody asked for and that may matter."""
        unknown = [name for name in sorted(set(self.data) - self.asked - NOT_SIZES) if self.data[name] is not None]
        if unknown:
            named = ", ".join(map(repr, unknown))
            self.warnings.append(f"fields that are not used: {named}; if they change sizes, this plan does not know")
