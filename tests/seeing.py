"""A tiny model that sees, made here: Qwen2-VL with a tokenizer of bytes."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from memorist.models.vision import VisionPolicy

SPECIAL = ["<|pad|>", "<|end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
CHAT = (
    "{% for m in messages %}<|vision_end|>{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer(chat: str = "") -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens([AddedToken(one, normalized=False, special=True) for one in SPECIAL])
    found = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|pad|>")
    found.chat_template = chat or None
    return found


def tiny(
    seed: int = 0, *, chat: str = "", attention: str = "eager", largest: int = 10**6, tied: bool = False
) -> VisionPolicy:
    """Random weights; patches of 7 pixels, two by two of them a token: 16 tokens for 56 by 56 pixels."""
    tok = tokenizer(chat)
    names = ("pad", "end", "begin", "close", "image", "video")
    ids = dict(zip(names, tok.convert_tokens_to_ids(SPECIAL), strict=True))
    torch.manual_seed(seed)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tok), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
            "bos_token_id": None, "eos_token_id": ids["end"], "pad_token_id": ids["pad"],
        },
        vision_config={
            "depth": 2, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2, "patch_size": 7,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        image_token_id=ids["image"], video_token_id=ids["video"], vision_start_token_id=ids["begin"],
        vision_end_token_id=ids["close"], attn_implementation=attention, tie_word_embeddings=tied,
    )  # fmt: skip
    processor = Qwen2VLImageProcessorPil(
        min_pixels=14 * 14, max_pixels=largest, patch_size=7, merge_size=2, temporal_patch_size=2
    )
    return VisionPolicy(Qwen2VLForConditionalGeneration(config), tok, processor, "tiny-vision")
