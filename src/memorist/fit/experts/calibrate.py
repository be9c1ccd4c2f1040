"""One pass over a task's samples, layer by layer: never more than one layer's experts in memory.

All samples go through a layer before the next is read. What a layer is called with beside the hidden states (masks,
positions) is caught once, by running the model with stand-ins for its layers, so that no architecture's own code is
repeated here. Statistics of all scorers come from the same pass; PEU's threshold, a mean over all tokens, needs only
one layer's leaders at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from memorist.errors import ExpertsError
from memorist.fit.experts.checkpoint import Checkpoint
from memorist.fit.experts.scores import Array, Ids, adaptive_threshold, leaders, output_aware, routed_sums, turned
from memorist.fit.experts.shards import Reader
from memorist.fit.experts.simulate import router_of
from memorist.fit.experts.statistics import Statistics
from memorist.fit.experts.weights import fill, fill_experts, make_room, skeleton
from memorist.fit.samples import data_hash

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class _Call:
    """What one layer is called with for one sample, beside the hidden states."""

    args: tuple[Any, ...]
    options: dict[str, Any]


class _StandIn(torch.nn.Module):
    """In place of a layer: lets hidden states pass and keeps how it was called."""

    def __init__(self, real: Any) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.hidden: list[torch.Tensor] = []
        for name in ("attention_type", "layer_type"):  # Some models ask a layer which mask it wants.
            if hasattr(real, name):
                setattr(self, name, getattr(real, name))

    def forward(self, hidden: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        """Keep the call."""
        self.hidden.append(hidden)
        self.calls.append(_Call(args, options))
        return hidden


class _RoutersKnown(Exception):
    """The router of the last layer that is asked has answered."""


@dataclass(slots=True)
class _Watch:
    """Hooks on one layer with experts: the last sample's routing, and its experts' outputs."""

    stop_at_router: bool = False
    handles: list[Any] = field(default_factory=list)
    before: Any = None
    routed: Any = None
    norms: Any = None
    added: Any = None

    def on(self, layer: Any) -> None:
        norm, experts = layer.post_attention_layernorm, layer.mlp.experts
        self.handles = [
            norm.register_forward_pre_hook(self._residual),
            router_of(layer).register_forward_hook(self._routing),
            experts.register_forward_hook(self._outputs),
        ]

    def off(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _residual(self, module: Any, args: Any) -> None:
        self.before = args[0].reshape(-1, args[0].shape[-1])

    def _routing(self, module: Any, args: Any, found: Any) -> None:
        if not isinstance(found, tuple) or len(found) != 3:
            raise ExpertsError(
                f"{type(module).__name__} gives no (logits, weights, experts); transformers 5.23 is known"
            )
        self.routed = found
        if self.stop_at_router:
            raise _RoutersKnown

    def _outputs(self, module: Any, args: Any, found: Any) -> None:
        hidden, ids = args[0], args[1]
        one = torch.ones(len(hidden), 1, dtype=hidden.dtype)
        # Each slot alone, with weight 1, through forward itself: hooks do not run again.
        slots = [module.forward(hidden, ids[:, at : at + 1], one).double().norm(dim=-1) for at in range(ids.shape[1])]
        self.norms, self.added = torch.stack(slots, dim=1), found


def _plain(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().double().numpy())


def calibrate(
    checkpoint: Checkpoint,
    samples: Sequence[Sequence[int]],
    task: str,
    *,
    description: str = "",
    skip_first: bool = False,
    progress: Progress | None = None,
) -> Statistics:
    """Run the model over the samples and keep what every scorer needs.

    Args:
        checkpoint: the model; weights of 16 or 32 bits.
        samples: token ids of each, at least one token in each.
        task: its name.
        description: the task in words.
        skip_first: leave each sample's first token out; attention sinks have residuals of their own size.
        progress: called with (layers done, layers).

    Raises:
        ExpertsError: no samples, ids outside the vocabulary, a quantised checkpoint, or weights that are missing.
    """
    collected: list[dict[str, Array]] = []
    thresholds: list[float] = []

    def collect(watch: _Watch, run: Callable[[int], None]) -> None:
        rows, leading = [], []
        for at in range(len(samples)):
            run(at)
            rows.append(_of_sample(watch, checkpoint.experts, skip_first))
            leading.append(_leading(watch, checkpoint.active, skip_first))
        threshold, routed = _of_routers(leading, checkpoint.experts)
        collected.append({name: np.stack([row[name] for row in rows]) for name in rows[0]} | routed)
        thresholds.append(threshold)

    _pass(checkpoint, samples, collect, len(checkpoint.moe_layers), routers_only=False, progress=progress)
    counts = np.array([len(sample) - skip_first for sample in samples], dtype=np.int64)
    return Statistics(
        task,
        checkpoint.fingerprint,
        checkpoint.kind,
        checkpoint.experts,
        checkpoint.active,
        checkpoint.moe_layers,
        {name: np.stack([layer[name] for layer in collected], axis=1) for name in collected[0]},
        counts,
        np.array(thresholds),
        data_hash(samples),
        description,
        {"samples": len(samples), "skip_first": skip_first},
    )


def signature(checkpoint: Checkpoint, tokens: Sequence[int], layers: int = 1) -> Array:
    """PEU of one prompt in the first layers with experts, [layers, N]; experts of the last of them are not read."""
    found: list[Array] = []

    def collect(watch: _Watch, run: Callable[[int], None]) -> None:
        run(0)
        _, routed = _of_routers([_leading(watch, checkpoint.active, False)], checkpoint.experts)
        found.append(routed["peu"][0] / len(tokens))

    _pass(checkpoint, [tokens], collect, layers, routers_only=True, progress=None)
    return np.stack(found)


def _of_sample(watch: _Watch, experts: int, skip_first: bool) -> dict[str, Array]:
    _, weights, ids = watch.routed
    start = int(skip_first)
    before, added = _plain(watch.before)[start:], _plain(watch.added)[start:]
    chosen: Ids = ids.numpy()[start:]
    return output_aware(chosen, _plain(weights)[start:], _plain(watch.norms)[start:], turned(before, added), experts)


def _leading(watch: _Watch, active: int, skip_first: bool) -> tuple[Ids, Array]:
    return leaders(_plain(watch.routed[0])[int(skip_first) :], active)


def _of_routers(leading: Sequence[tuple[Ids, Array]], experts: int) -> tuple[float, dict[str, Array]]:
    """(r of the layer, sums of PEU and TCESS for each sample, [S, N])."""
    threshold = adaptive_threshold(np.concatenate([values for _, values in leading]))
    peu = [routed_sums(ids, values, experts, threshold=threshold, transform="max") for ids, values in leading]
    return threshold, {"peu": np.stack(peu), "tcess": np.stack([routed_sums(*one, experts) for one in leading])}


def _pass(
    checkpoint: Checkpoint,
    samples: Sequence[Sequence[int]],
    collect: Callable[[_Watch, Callable[[int], None]], None],
    depth: int,
    *,
    routers_only: bool,
    progress: Progress | None,
) -> None:
    """Take all samples through the layers, and hand each of the first `depth` with experts to `collect`."""
    _check_samples(checkpoint, samples)
    last = checkpoint.moe_layers[depth - 1]
    with Reader() as reader, torch.no_grad():
        model = skeleton(checkpoint, checkpoint.experts)
        base = model.model
        layers = list(base.layers)
        stand_ins = [_StandIn(layer) for layer in layers]
        base.layers, base.norm = torch.nn.ModuleList(stand_ins), torch.nn.Identity()
        fill(base.embed_tokens, "model.embed_tokens.", checkpoint, reader)
        for sample in samples:
            base(input_ids=torch.tensor([list(sample)]), use_cache=False)
        hidden = stand_ins[0].hidden
        for stand_in in stand_ins[1:]:
            stand_in.hidden.clear()
        for number, layer in enumerate(layers[: last + 1]):
            lean = routers_only and number == last
            fill(layer, f"model.layers.{number}.", checkpoint, reader)
            if number in checkpoint.moe_layers and not lean:
                make_room(layer, number, checkpoint)
                fill_experts(layer, number, checkpoint, reader, ((at, at) for at in range(checkpoint.experts)))
            run = _runner(layer, stand_ins[number].calls, hidden)
            if number in checkpoint.moe_layers:
                watch = _Watch(stop_at_router=lean)
                watch.on(layer)
                collect(watch, run)
                watch.off()
            else:
                for at in range(len(samples)):
                    run(at)
            layer.to("meta")  # Its memory is free for the next one.
            if progress is not None:
                progress(number + 1, last + 1)


def _runner(layer: Any, calls: Sequence[_Call], hidden: list[torch.Tensor]) -> Callable[[int], None]:
    def run(at: int) -> None:
        call = calls[at]
        try:
            found = layer(hidden[at], *call.args, **call.options)
        except _RoutersKnown:
            return
        hidden[at] = found[0] if isinstance(found, tuple) else found

    return run


def _check_samples(checkpoint: Checkpoint, samples: Sequence[Sequence[int]]) -> None:
    if not samples or not all(samples):
        raise ExpertsError("no samples, or an empty one; calibration needs text that the model will meet")
    vocabulary, largest = checkpoint.config.get("vocab_size"), max(map(max, samples))
    if isinstance(vocabulary, int) and largest >= vocabulary:
        raise ExpertsError(f"token {largest} of a vocabulary of {vocabulary}: the data are for another tokenizer")
