"""What a hybrid of attention and recurrent layers keeps in memory and how fast it writes, beside the Llama that it came
from; and whether what is put aside and gone on from is exact.

    python benchmarks/hybrid.py [--json results/hybrid-speed.json] [--layers 8] [--read 32768] [--context 8192]

The Llama is made here (8 layers, 128 wide, 4 heads, keys for each), the hybrid converted from it with 2 layers that
attend; the conversion's row is of the bundled base. Memory: bytes that a sequence keeps after 32 k tokens. Decoding: a
batch of 32 goes on from a context of 8 k, in turns; the Llama from buffers of full length (a static cache), the hybrid
as it is sampled. Bound of both: keys, values and states that a step reads, at the speed at which this machine copies.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM

from memorist.fit.hybrid.convert import convert, hybrid
from memorist.models.attention import attending
from memorist.models.causal import CausalPolicy
from memorist.models.decoding import Growing, Recorded
from memorist.models.registry import bundled_folder, open_policy, quiet_libraries
from memorist.models.states import State

Row = dict[str, Any]
VOCABULARY = 512
CHUNK = 1024


def pair(layers: int, width: int, window: int) -> tuple[Any, Any, list[int]]:
    """A Llama and its hybrid: of every four layers the last one attends."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=window, initializer_range=0.05,
        bos_token_id=None, eos_token_id=0, pad_token_id=0, attn_implementation="sdpa",
    )  # fmt: skip
    model, kept = LlamaForCausalLM(config).eval(), list(range(3, layers, 4))
    other = hybrid(config, model.state_dict(), kept, "linear", 0)
    other.set_attn_implementation("sdpa")
    return model, other, kept


def policy(model: Any, name: str) -> CausalPolicy:
    """Of a model made here; what is read are ids, so any tokenizer does."""
    return CausalPolicy(model, open_policy("bundled").tokenizer, name)


def kept_bytes(model: Any, name: str, length: int) -> int:
    """Bytes of a sequence after so many tokens."""
    state = State(policy(model, name))
    for first in range(0, length, CHUNK):
        state.append([n * 7919 % VOCABULARY for n in range(first, min(length, first + CHUNK))])
    return state.bytes


def forked(model: Any) -> float:
    """The largest difference in logits of eight greedy forks from eight runs of their own."""
    mine, start = policy(model, "hybrid"), [n * 7919 % VOCABULARY for n in range(200)]
    state, worst = State(mine), 0.0
    state.append(start)
    for number, fork in enumerate(state.fork(8)):
        alone = State(mine)
        alone.append(start)
        token = 3 + number
        for _ in range(32):
            first, second = fork.append([token]), alone.append([token])
            worst, token = max(worst, float((first - second).abs().max())), int(second.argmax())
    return worst


def unchanged() -> float:
    """The largest difference in logits of the bundled base converted with all attention kept."""
    ids = torch.arange(1024).view(4, 256) * 7919 % 2048
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        convert(bundled_folder(), Path(folder) / "all", range(4))
        first, second = (
            AutoModelForCausalLM.from_pretrained(one)(ids).logits for one in (bundled_folder(), Path(folder) / "all")
        )
    return float((first - second).abs().max())


class Steps:
    """A batch that writes token after token behind one context, which it read once."""

    def __init__(self, model: Any, way: type[Growing] | type[Recorded], batch: int, context: int, room: int) -> None:
        ids = (torch.arange(context) * 7919 % VOCABULARY)[None]
        cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            for first in range(0, context, CHUNK):
                some, end = ids[:, first : first + CHUNK], min(context, first + CHUNK)
                places = torch.arange(first, end)[None]
                model(input_ids=some, attention_mask=torch.ones(1, end, dtype=torch.long), position_ids=places,
                      past_key_values=cache, use_cache=True, logits_to_keep=1)  # fmt: skip
            rows, mask = torch.zeros(batch, dtype=torch.long), torch.ones(batch, context, dtype=torch.long)
            self.step = way(model, cache, rows, mask, torch.full((batch,), context - 1), room)
        self.tokens = torch.arange(batch) % VOCABULARY

    def __call__(self) -> float:
        """Seconds of a step."""
        with torch.inference_mode():
            began = perf_counter()
            self.tokens = self.step(self.tokens).argmax(-1)
            return perf_counter() - began


def read_bytes(step: Any) -> int:
    """Keys, values and states that a step reads."""
    parts = []
    for layer in step.cache.layers:
        states = [*getattr(layer, "conv_states", {}).values(), *getattr(layer, "recurrent_states", {}).values()]
        parts += [*states, getattr(layer, "keys", None), getattr(layer, "values", None)]
    return sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))


def copied_per_second() -> float:
    """Bytes a second that a copy reads here."""
    source = torch.ones(2**26)
    target, times = torch.empty_like(source), []
    for _ in range(5):
        began = perf_counter()
        target.copy_(source)
        times.append(perf_counter() - began)
    return float(source.nbytes / statistics.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--read", type=int, default=32_768)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    quiet_libraries()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    llama, other, attends = pair(args.layers, args.width, args.read + 256)
    kept = {"peer": None, "peer_value": None, "seeds": 1, "device": "2 CPU cores", "how": "python benchmarks/hybrid.py",
            "date": datetime.now(UTC).date().isoformat(), "layers": args.layers, "attends": attends}  # fmt: skip
    sizes = {name: kept_bytes(model, name, args.read) for name, model in (("llama", llama), ("hybrid", other))}
    share = sizes["hybrid"] / sizes["llama"]
    rows: list[Row] = [
        kept | {"row": "hybrid.conversion.all-attention.difference", "value": unchanged(),
                "unit": "abs logit", "n": 1024},
        kept | {"row": "hybrid.fork.difference", "value": forked(other), "unit": "abs logit", "n": 256},
        kept | {"row": "hybrid.memory-share", "value": share, "unit": "share", "n": args.read, "peer": "llama",
                "peer_value": 1.0, "bytes": sizes},
    ]  # fmt: skip
    room = 2 * args.steps + 8
    with attending(llama, "sdpa"):
        steps = {"llama": Steps(llama, Recorded, args.batch, args.context, room),
                 "hybrid": Steps(other, Growing, args.batch, args.context, room)}  # fmt: skip
        times: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(args.steps + 3):
            for name, step in steps.items():
                took = step()
                if number >= 3:
                    times[name].append(took)
    median = {name: statistics.median(found) for name, found in times.items()}
    speed, read = copied_per_second(), {name: read_bytes(step.step) for name, step in steps.items()}
    rows.append(
        {"row": "hybrid.decode-speedup", "value": median["llama"] / median["hybrid"], "unit": "ratio", "n": args.steps}
        | kept
        | {"peer": "llama", "peer_value": 1.0, "ms": {name: 1000 * one for name, one in median.items()}, "bytes": read,
           "bound_share": {name: read[name] / speed / median[name] for name in median}}
    )  # fmt: skip
    print(json.dumps(rows, indent=1))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
