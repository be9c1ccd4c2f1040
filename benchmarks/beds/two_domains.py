"""A tiny mixture of experts on two domains that share their symbols: each domain continues a symbol by a permutation of
its own, and in training first sees its own experts only. So it is known which experts a domain needs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memorist.fit.experts.calibrate import calibrate, signature
from memorist.fit.experts.checkpoint import open_checkpoint
from memorist.fit.experts.retrieve import recognise
from memorist.fit.experts.select import Routing, choose, random_scores
from memorist.fit.experts.simulate import decoder_layers, mask_router, masked, router_of

SYMBOLS, FIRST, LENGTH, JUMPS = 48, (60, 61), 24, 0.15
TINY = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 16, "moe_intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_experts": 16, "num_experts_per_tok": 2,
    "norm_topk_prob": True, "output_router_logits": True, "router_aux_loss_coef": 0.001, "tie_word_embeddings": False,
}  # fmt: skip
PLANTED = (range(10), range(6, 16))
KEPT, CALIBRATED, RANDOM_MASKS = 8, 8, 8


def sequences(domain: int, count: int, length: int, maps: Any, generator: np.random.Generator) -> Any:
    """x_{t+1} = π(x_t) but for random jumps; the first token names the domain."""
    found = np.empty((count, length), dtype=np.int64)
    found[:, 0], found[:, 1] = FIRST[domain], generator.integers(0, SYMBOLS, count)
    for at in range(2, length):
        jumps = generator.random(count) < JUMPS
        found[:, at] = np.where(jumps, generator.integers(0, SYMBOLS, count), maps[domain][found[:, at - 1]])
    return torch.from_numpy(found)


def train_tiny(seed: int, maps: Any, generator: np.random.Generator, steps: int) -> Any:
    """Two thirds of the steps with each domain's experts apart, the rest free."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3_moe", **TINY))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        optimizer.zero_grad()
        for domain in (0, 1):
            batch = sequences(domain, 16, LENGTH, maps, generator)
            planted = np.array([list(PLANTED[domain])] * 2)
            chosen = planted if step < steps * 2 // 3 else np.tile(np.arange(16), (2, 1))
            undo = [
                mask_router(router_of(at), keep, "global")
                for at, keep in zip(decoder_layers(model), chosen, strict=True)
            ]
            (model(input_ids=batch, labels=batch).loss / 2).backward()
            for take_off in undo:
                take_off()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval().requires_grad_(False)


def accuracy(model: Any, batch: Any, mapped: Any) -> float:
    """Share of positions whose most likely next token is π of the token there; the first two say nothing of π."""
    with torch.no_grad():
        guessed = model(input_ids=batch, output_router_logits=False).logits[:, 1:].argmax(-1)
    return float((guessed == torch.from_numpy(mapped)[batch[:, 1:]]).float().mean())


def tiny_seed(seed: int, steps: int) -> dict[str, list[float]]:
    """In-domain accuracies by scorer for both domains, off-domain ones, and retrieval of 20 prompts."""
    generator = np.random.default_rng(seed)
    maps = [generator.permutation(SYMBOLS) for _ in FIRST]
    model = train_tiny(seed, maps, generator, steps)
    tests = [sequences(domain, 64, LENGTH, maps, generator) for domain in (0, 1)]
    found: dict[str, list[float]] = {"full": [accuracy(model, tests[d], maps[d]) for d in (0, 1)]}
    with tempfile.TemporaryDirectory() as made:
        model.save_pretrained(made)
        checkpoint = open_checkpoint(Path(made))
        samples = [sequences(d, CALIBRATED, LENGTH, maps, generator).tolist() for d in (0, 1)]
        tasks = [calibrate(checkpoint, given, str(d)) for d, given in enumerate(samples)]
        patterns = {task.task: task.scores("peu") for task in tasks}
        right = 0
        for number in range(20):
            [prompt] = sequences(number % 2, 1, 12, maps, generator).tolist()
            right += recognise(signature(checkpoint, prompt, 2), patterns).task == str(number % 2)
    routing = Routing.of(checkpoint)
    for scorer in tasks[0].sums:
        keep = [choose(task.scores(scorer), KEPT, routing) for task in tasks]
        for name, other in ((scorer, 0), (f"{scorer} off-domain", 1)):
            found[name] = []
            for domain in (0, 1):
                with masked(model, keep[domain ^ other]):
                    found[name].append(accuracy(model, tests[domain], maps[domain]))
    found["random"] = []
    for draw in range(RANDOM_MASKS):
        with masked(model, choose(random_scores(2, 16, 100 * seed + draw), KEPT, routing)):
            found["random"] += [accuracy(model, tests[domain], maps[domain]) for domain in (0, 1)]
    return found | {"retrieval": [float(right)]}
