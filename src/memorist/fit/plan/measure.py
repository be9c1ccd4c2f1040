"""Measuring what the planner predicts, with the policy that samples and learns here: time, memory, decode rate.

The reference models are Llamas of given sizes with random weights; speed and memory do not depend on the weights.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from memorist.decision import Action, Distribution, Observation
from memorist.fit.plan.architecture import Architecture
from memorist.fit.plan.config import read_config
from memorist.fit.plan.workload import Workload
from memorist.models.causal import CausalPolicy
from memorist.models.rows import Unit
from memorist.models.sampler import Request


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a reference model. Its heads are 32 wide, its feed-forward part three times the hidden size."""

    layers: int
    hidden: int
    vocab: int = 1024

    def config(self) -> LlamaConfig:
        """As transformers wants it."""
        heads = max(1, self.hidden // 32)
        return LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=3 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )

    def architecture(self) -> Architecture:
        """As the planner sees it."""
        return read_config(self.config().to_dict()).architecture


class NumberTokenizer:
    """Texts are numbers, which are token ids. No id ends a text, so that lengths are exact."""

    chat_template = None
    pad_token_id = 0

    def __init__(self, vocab: int) -> None:
        self.eos_token_id = vocab

    def encode(self, text: str, **_: Any) -> list[int]:
        """Ids of a text."""
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int], **_: Any) -> str:
        """Text of ids."""
        return " ".join(map(str, ids))


def open_shape(shape: Shape) -> CausalPolicy:
    """A policy of this shape, on the accelerator if there is one, as local policies run."""
    torch.manual_seed(0)
    config = shape.config()
    accelerator = torch.cuda.is_available()
    config._attn_implementation = "sdpa" if accelerator else "eager"
    model = LlamaForCausalLM(config).to("cuda" if accelerator else "cpu")
    return CausalPolicy(model, NumberTokenizer(shape.vocab), f"{shape.layers}x{shape.hidden}")


def trainer_workload(prompts: int, group_size: int, prompt: int, new: int, budget: int) -> Workload:
    """What this repository's trainer does with one-turn groups: FP32, no checkpointing, logits of actions only."""
    row = prompt + group_size * new
    return Workload(
        prompts=prompts,
        group_size=group_size,
        prompt_tokens=prompt,
        new_tokens=new,
        weights="fp32",
        cache="fp32",
        optimizer="adamw-fp32",
        checkpointing=False,
        scores=not torch.cuda.is_available(),
        micro_tokens=max(budget // row, 1) * row,
        logits="written",
    )


class TrialUpdate:
    """A policy with its optimizer and the rows of one step of a workload."""

    def __init__(self, policy: CausalPolicy, workload: Workload, vocab: int) -> None:
        self.policy = policy
        self.optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)
        draw = np.random.default_rng(0)
        units = []
        for _ in range(workload.prompts):
            prompt = tuple(map(int, draw.integers(0, vocab, workload.prompt_tokens)))
            for _ in range(workload.group_size):
                tokens = tuple(map(int, draw.integers(0, vocab, workload.new_tokens)))
                units.append(Unit(Action("", prompt, tokens, (0.0,) * len(tokens)), 1.0, 1e-3))
        self.batches = policy.rows(units, workload.micro_tokens)

    def update(self) -> None:
        """One update, as the trainer does it."""
        for batch in self.batches:
            logp = self.policy.score(batch)
            loss = -(logp * torch.from_numpy(batch.weight).to(logp.device)).sum()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def update_seconds(trial: TrialUpdate, repeats: int = 3) -> float:
    """Median time of an update, after one that warms up."""
    return _median(trial.update, repeats)


def decode_seconds(policy: CausalPolicy, vocab: int, batch: int, prompt: int, new: int, repeats: int = 9) -> float:
    """Time of one of `new` decode steps of `batch` sequences that share a prompt, without the prefill: the median of
    differences between neighbours, which what else the machine does meets alike."""
    ids = np.random.default_rng(1).integers(0, vocab, prompt)

    def sample(tokens: int) -> Callable[[], Any]:
        observation = Observation(" ".join(map(str, ids)), max_tokens=tokens)
        requests = [Request(observation, Distribution(), seed) for seed in range(batch)]
        return lambda: policy.sample(requests)

    long, short = sample(new + 1), sample(1)
    long(), short()
    return statistics.median(_time(long) - _time(short) for _ in range(repeats)) / new


def matmul_flops(size: int = 1024, repeats: int = 5) -> float:
    """Operations/s of a square product in the precision that the local policies use on CPUs, or 16-bit elsewhere."""
    accelerator = torch.cuda.is_available()
    size = size * 8 if accelerator else size
    kind = torch.bfloat16 if accelerator else torch.float32
    a = torch.ones(size, size, dtype=kind, device="cuda" if accelerator else "cpu")
    return 2 * size**3 / _best(lambda: a @ a, repeats)


def copy_bandwidth(size: int = 2**28, repeats: int = 5) -> float:
    """Bytes/s read and written while `size` bytes are copied."""
    source = torch.ones(size // 4, device="cuda" if torch.cuda.is_available() else "cpu")
    target = torch.empty_like(source)
    return 2 * size / _best(lambda: target.copy_(source), repeats)


def _time(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _median(call: Callable[[], Any], repeats: int) -> float:
    call()
    return statistics.median(_time(call) for _ in range(repeats))


def _best(call: Callable[[], Any], repeats: int) -> float:
    call()
    return min(_time(call) for _ in range(repeats))
