"""Tiny mixtures of experts of the seven architectures, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

COMMON = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts_per_tok": 2, "max_position_embeddings": 64,
    "tie_word_embeddings": False, "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": None,
    "pad_token_id": None,
}  # fmt: skip
_LATENT = {
    "n_routed_experts": 8, "n_shared_experts": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4, "v_head_dim": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "num_hidden_layers": 3,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "qwen2_moe": {"num_experts": 8, "shared_expert_intermediate_size": 8},
    "qwen3_moe": {"num_experts": 8, "head_dim": 8, "mlp_only_layers": [1], "num_hidden_layers": 3},
    "olmoe": {"num_experts": 8},
    "mixtral": {"num_local_experts": 8, "intermediate_size": 8},
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "gpt_oss": {
        "num_local_experts": 8, "head_dim": 8, "intermediate_size": 8, "sliding_window": 4,
        "rope_scaling": {"rope_type": "default", "rope_theta": 10000.0},
    },
}  # fmt: skip


def make_moe(kind: str, **changes: Any) -> Any:
    """A random model; also biases and correction biases are random."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from memorist.models.registry import quiet_libraries

    quiet_libraries()
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(COMMON | KINDS[kind] | changes))
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    with torch.no_grad():
        for name, buffer in (*model.named_buffers(), *model.named_parameters()):
            if "bias" in name:
                buffer.copy_(torch.randn_like(buffer) * 0.1)
    return model


def save_moe(folder: Path, kind: str, *, shard: str = "50GB", fused: bool = False, **changes: Any) -> Any:
    """Make one and save it, in files of at most `shard`; fused: experts as one tensor on disk."""
    model = make_moe(kind, **changes)
    model.save_pretrained(folder, max_shard_size=shard, save_original_format=not fused)
    return model


def some_experts(layers: int, keep: int = 4, experts: int = 8) -> Any:
    """A choice that differs between layers, [layers, keep]."""
    generator = np.random.default_rng(3)
    return np.sort(np.stack([generator.permutation(experts)[:keep] for _ in range(layers)]), axis=1)
