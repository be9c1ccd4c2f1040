"""What several test files need: a tiny language model made on the spot, without a network."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from memorist.models.causal import CausalPolicy

# A test that waits for a busy machine is no failure: durations are measured in benchmarks/, not here.
settings.register_profile("memorist", deadline=None)
settings.load_profile("memorist")

MakeTiny = Callable[..., "CausalPolicy"]


def _confines() -> bool:
    """Whether cells of notebooks can be confined here: Linux, and a kernel with Landlock."""
    try:
        import sandlock
    except ImportError:
        return False
    return bool(sandlock.landlock_abi_version() >= sandlock.min_landlock_abi())


needs_sandbox = pytest.mark.skipif(not _confines(), reason="cells of notebooks cannot be confined here")


def pytest_configure(config: pytest.Config) -> None:
    """Numbers that tests know are the CPU's; what GPUs add is tested by `make test-gpu`."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def make_tiny() -> MakeTiny:
    """Makes a randomly initialised two-layer Llama over bytes; the same seed, the same weights."""

    def make(seed: int = 0, *, words: tuple[str, ...] = (), window: int = 512) -> CausalPolicy:
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        from memorist.models.causal import CausalPolicy

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<pad>")
        tokenizer.add_tokens([f"<spare{i}>" for i in range(40 - len(words))] + list(words))
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=window,
            initializer_range=0.1,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            attn_implementation="eager",
        )
        return CausalPolicy(LlamaForCausalLM(config), tokenizer, f"tiny-{seed}")

    return make


@pytest.fixture(scope="session")
def tiny(make_tiny: MakeTiny) -> CausalPolicy:
    """One such policy for all tests that do not train it."""
    return make_tiny()
