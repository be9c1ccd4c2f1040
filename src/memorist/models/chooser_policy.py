"""The chooser as a policy that the trainer can teach, and back into the file that serves it without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import gelu
from transformers import BertConfig, BertModel

from memorist.decision import Action, Distribution, Observation
from memorist.errors import PolicyError
from memorist.models.choices import ChoiceBatch, batch_choices
from memorist.models.chooser import ALONE, LONGEST, OUTPUTS, drawn, memories_of, readable
from memorist.models.rows import Unit
from memorist.models.sampler import Request

PAIRS = 32
"""Statements with a memory that are computed at once, of about the same length."""


class ChooserNet(torch.nn.Module):
    """BERT, the mean over its tokens, one hidden layer, and six outputs."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)
        self.inner = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.out = torch.nn.Linear(config.hidden_size, len(OUTPUTS))

    def forward(self, ids: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """From shape (B, T) to (B, 6)."""
        hidden = self.bert(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
        here = mask[..., None].float()
        return torch.as_tensor(self.out(gelu(self.inner((hidden * here).sum(1) / here.sum(1)))))


class ChooserPolicy:
    """Chooses among ADD, NOOP and UPDATE, JOIN, DELETE of each memory; see `models.chooser`."""

    why_plain = ""
    cannot = ("ppo",)

    def __init__(self, net: ChooserNet, tokenizer: Any, name: str) -> None:
        self.net, self.tokenizer, self.name = net.eval(), tokenizer, name  # without dropout, as it serves
        self.precision, self.checkpointing = "float32", False
        # What words mean is not learnt again: few are in what is trained on.
        net.bert.embeddings.word_embeddings.weight.requires_grad_(False)

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Choose."""
        with torch.no_grad():
            found = self.options([request.observation for request in requests])
        return [drawn(z.double().numpy(), request) for z, request in zip(found, requests, strict=True)]

    def options(self, seen: Sequence[Observation]) -> list[torch.Tensor]:
        """The logits of each observation's options. What several observations share is computed once: siblings hold
        mostly the same memories."""
        asked = [[(one.prompt, text) for text in ("", *memories_of(one.options))] for one in seen]
        outputs = self.outputs(list(dict.fromkeys(pair for pairs in asked for pair in pairs)))
        found = []
        for pairs in asked:
            out = torch.stack([outputs[pair] for pair in pairs])
            noop = torch.logsumexp(torch.cat([out[:1, 1], out[1:, 2]]), 0)
            found.append(torch.cat([out[0, :1], noop[None], out[1:, len(ALONE) + 1 :].reshape(-1)]))
        return found

    def outputs(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], torch.Tensor]:
        """The six outputs for each statement and memory."""
        read = self.tokenizer.encode_batch([(readable(a), readable(b)) for a, b in pairs])
        order = sorted(range(len(pairs)), key=lambda i: len(read[i].ids))
        found: dict[tuple[str, str], torch.Tensor] = {}
        for start in range(0, len(order), PAIRS):
            part = order[start : start + PAIRS]
            long = max(len(read[i].ids) for i in part)
            given = [
                torch.tensor([getattr(read[i], kind) + [0] * (long - len(read[i].ids)) for i in part])
                for kind in ("ids", "type_ids", "attention_mask")
            ]
            for i, row in zip(part, self.net(*given), strict=True):
                found[pairs[i]] = row
        return found

    def parameters(self) -> list[Any]:
        """What may change."""
        return [weight for weight in self.net.parameters() if weight.requires_grad]

    def rows(self, units: Sequence[Unit], budget: int) -> list[ChoiceBatch]:
        """Batches of at most `budget` choices."""
        return batch_choices(units, budget)

    def score(self, batch: ChoiceBatch) -> torch.Tensor:
        """The log-probability of each choice, shape (N,)."""
        return self.score_with_entropy(batch)[0]

    def score_with_entropy(self, batch: ChoiceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each choice the log-probability, and the entropy of what it was drawn from in nats, shape (N,) each."""
        seen = [unit.seen for unit in batch.units if unit.seen is not None]
        scores, entropies = [], []
        for unit, z in zip(batch.units, self.options(seen), strict=True):
            law = torch.log_softmax(z / (unit.action.distribution.temperature or 1.0), 0)
            scores.append(law[unit.action.tokens[0]])
            entropies.append(-(law.exp() * law).sum())
        return torch.stack(scores), torch.stack(entropies)

    def encode(self, observation: Observation, text: str) -> Action:
        """The choice that a number names.

        Raises:
            PolicyError: it names no option.
        """
        if not (text.isascii() and text.isdigit() and int(text) < len(observation.options)):
            raise PolicyError(f"{text!r} is no choice; expected a number below {len(observation.options)}")
        chosen = (int(text),)
        return Action(text, tokens=chosen, logprobs=(0.0,), choice=chosen, distribution=Distribution())

    def state(self) -> dict[str, torch.Tensor]:
        """The weights that may change."""
        return {n: w.detach() for n, w in self.net.named_parameters() if w.requires_grad}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        own = dict(self.net.named_parameters())
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)

    def frozen(self, name: str) -> ChooserPolicy:
        """One that stays as this one is now."""
        found = self.twin(name)
        found.net.requires_grad_(False)
        return found

    def twin(self, name: str) -> ChooserPolicy:
        """One that starts as this one is now and learns on its own."""
        copy = ChooserNet(self.net.bert.config)
        copy.load_state_dict(self.net.state_dict())
        return ChooserPolicy(copy, self.tokenizer, name)

    def save(self, folder: Path, *, write: bool = True) -> None:
        """Write model.onnx, its matrices in 8 bits, and tokenizer.json: what `models.chooser.Chooser` serves. Products
        are of integers there, so what is served differs a little from what was trained."""
        if not write:
            return
        from onnx import helper

        from memorist.models.onnx_encoder import Graph, encoder

        config, g = self.net.bert.config, Graph(named=True, whole=True)
        tensors = {n.removeprefix("bert."): w.detach().numpy() for n, w in self.net.state_dict().items()}
        _, total = encoder(
            g, tensors, heads=config.num_attention_heads, layers=config.num_hidden_layers,
            epsilon=config.layer_norm_eps, longest=LONGEST, types="types",
        )  # fmt: skip
        here = g("Cast", "mask", to=1)
        mean = g("Div", total, g("ReduceSum", here, g.weight([1]), keepdims=1))
        g.nodes.append(
            helper.make_node(
                "Identity", [g.linear(g("Gelu", g.linear(mean, tensors, "inner")), tensors, "out")], ["outputs"]
            )
        )
        model = g.model("chooser", ["ids", "types", "mask"], "outputs", len(OUTPUTS))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.new.onnx").write_bytes(model.SerializeToString(deterministic=True))
        (folder / "model.new.onnx").rename(folder / "model.onnx")
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, name: str = "") -> ChooserPolicy:
        """From a folder that `save` wrote.

        Raises:
            PolicyError: there is none, it is damaged, or onnx is not installed.
        """
        folder = Path(folder)
        try:
            import onnx
            from onnx import numpy_helper
            from tokenizers import Tokenizer
        except ImportError as error:
            raise PolicyError(f"to train a chooser needs {error.name}: pip install 'memorist[train]'") from error
        try:
            model = onnx.load(folder / "model.onnx")
            held = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            net = _net(held)
        except Exception as error:  # whatever a damaged file makes a reader raise
            raise PolicyError(f"{folder} cannot be read as a chooser ({error}); expected what one saved") from error
        return cls(net, prepared(tokenizer), name or folder.name)


def prepared(tokenizer: Any) -> Any:
    """As the chooser reads: without padding, at most `LONGEST` tokens."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST, strategy="longest_first")
    return tokenizer


def bert_config(layers: int, width: int = 384, vocabulary: int = 30522, places: int = LONGEST) -> BertConfig:
    """MiniLM's shape, of so many layers."""
    return BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=12,
        intermediate_size=4 * width, max_position_embeddings=places, layer_norm_eps=1e-12, attn_implementation="sdpa",
    )  # fmt: skip


def _net(held: Mapping[str, Any]) -> ChooserNet:
    """The network of a file's weights, its integers made floats again."""
    layers = 1 + max(int(found[1]) for name in held if (found := re.match(r"encoder\.layer\.(\d+)\.", name)))
    words = held["words.int8"] * held["words.scale"]
    tensors = {
        "embeddings.word_embeddings.weight": words,
        "embeddings.position_embeddings.weight": held["places.table"],
        "embeddings.token_type_embeddings.weight": held["types.table"],
    }
    for name, value in held.items():
        if name.endswith(".int8") and name != "words.int8":
            own = name.removesuffix(".int8")
            tensors[f"{own}.weight"] = (value * held[f"{own}.scale"]).T
        elif name.endswith((".bias", ".weight")):
            tensors[name] = value
    net = ChooserNet(bert_config(layers, words.shape[1], len(words), len(held["places.table"])))
    own_names = {n: n.removeprefix("bert.") for n in dict(net.named_parameters())}
    net.load_state_dict(
        {n: torch.from_numpy(np.array(tensors[o], np.float32)) for n, o in own_names.items()}, strict=False
    )
    return net
