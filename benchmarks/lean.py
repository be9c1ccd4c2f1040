"""What ways of writing the siblings of a prompt cost: memory of keys and values, time, and how far log-probabilities
are from those of a whole forward pass.

    python benchmarks/lean.py [--json results/lean.json] [--siblings 16] [--prompt 1024] [--completion 256]

Ways: `expanded` (a copy of the prompt's keys and values for each sibling), `no-copy` (all siblings read one),
`sequential` (one sibling after the other, from the same). The model is a Llama made here (8 layers, 256 wide, 8 heads,
4 for keys). Bytes are those that are allocated for keys and values while siblings are written; the bound of no copy is
(P + G T) / (G (P + T)) = 0.25. Times are of one process, ways in turn, medians of the repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from memorist.decision import Action, Distribution, Observation
from memorist.models import writing
from memorist.models.causal import CausalPolicy
from memorist.models.decoding import Siblings
from memorist.models.rows import Unit
from memorist.models.sampler import Request

WAYS = ("expanded", "no-copy", "sequential")


def policy(window: int, layers: int, width: int) -> CausalPolicy:
    """A model over bytes that never ends by itself."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=window, attn_implementation="eager",
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    found = CausalPolicy(LlamaForCausalLM(config), tokenizer, "bench")
    found.end = -1  # no token ends an answer
    return found


class Watched:
    """Bytes of keys and values that a way of writing holds."""

    def __init__(self) -> None:
        self.most = 0

    def look(self, step: Any) -> None:
        """After a token."""
        tensors = [t for layer in step.cache.layers for t in (layer.keys, layer.values)]
        tensors += [t for pair in getattr(step, "prompts", ()) for t in pair]
        stores = {store.data_ptr(): store.nbytes() for store in (tensor.untyped_storage() for tensor in tensors)}
        self.most = max(self.most, sum(stores.values()))


def watched(seen: Watched) -> None:
    """Let every way of writing be looked at after each token."""
    for way in (writing.Growing, writing.Siblings):
        plain = way.__call__

        def call(self: Any, tokens: torch.Tensor, plain: Any = plain) -> torch.Tensor:
            found: torch.Tensor = plain(self, tokens)
            seen.look(self)
            return found

        way.__call__ = call  # type: ignore[method-assign]


def written(model: CausalPolicy, way: str, asked: list[Request]) -> tuple[list[Action], float]:
    """Answers, and the seconds that they took."""
    writing.SHARED_FROM = 10**9 if way == "expanded" else 1
    model.together = 1 if way == "sequential" else 0
    began = perf_counter()
    found = model.sample(asked)
    return found, perf_counter() - began


def off(model: CausalPolicy, actions: list[Action]) -> float:
    """The largest difference from log-probabilities of whole forward passes."""
    worst = 0.0
    with torch.no_grad():
        for action in actions:
            [batch] = model.rows([Unit(action, 1.0, 1.0)], len(action.prompt) + len(action.tokens) + 8)
            worst = max(worst, float((model.score(batch) - torch.tensor(action.logprobs)).abs().max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--siblings", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--completion", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    args = parser.parse_args()
    model = policy(args.prompt + args.completion, args.layers, args.width)
    text = "".join(chr(97 + i * 7 % 26) for i in range(args.prompt))
    warm = Distribution()
    asked = [Request(Observation(text, max_tokens=args.completion), warm, n) for n in range(args.siblings)]
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    actions: dict[str, list[Action]] = {}
    written(model, "no-copy", asked[:2])
    for _ in range(args.repeats):
        for way in WAYS:
            actions[way], took = written(model, way, asked)
            seconds[way].append(took)
    size: dict[str, int] = {}
    for way in WAYS:
        seen = Watched()
        plain = writing.Growing.__call__, Siblings.__call__
        watched(seen)
        written(model, way, asked)
        writing.Growing.__call__, writing.Siblings.__call__ = plain  # type: ignore[method-assign]
        size[way] = seen.most
    tokens = sum(len(action.tokens) for action in actions["no-copy"])
    median = {way: statistics.median(found) for way, found in seconds.items()}
    full = size["expanded"]
    kept = {
        "n": args.repeats, "seeds": 1, "peer": "expanded", "device": str(model.model.device),
        "how": "python benchmarks/lean.py", "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    rows = [
        row
        for way in ("no-copy", "sequential")
        for row in (
            {"row": f"lean.{way}.memory-share", "value": size[way] / full, "unit": "share", "peer_value": full} | kept,
            {"row": f"lean.{way}.speed-share", "value": median["expanded"] / median[way], "unit": "share",
             "peer_value": tokens / median["expanded"]} | kept,
        )
    ]  # fmt: skip
    worst = max(off(model, found) for found in actions.values())
    rows.append({"row": "lean.log-probability-difference", "value": worst, "unit": "abs", "peer_value": None} | kept)
    for row in rows:
        print(json.dumps(row))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
