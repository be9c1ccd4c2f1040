"""A loaded model that routes only to some experts, without writing anything: equal to the pruned checkpoint.

Masking is done on the logits before the gate function. After it, gates that are not renormalised (Qwen2-MoE, OLMoE,
DeepSeek-V2) would weigh the kept experts less than a pruned router does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from memorist.errors import ExpertsError
from memorist.fit.experts.scores import Ids


def decoder_layers(model: Any) -> Any:
    """The decoder layers of a causal model, or of its base."""
    return getattr(model, "model", model).layers


def router_of(layer: Any) -> Any:
    """The module that chooses experts in a layer; None in dense layers."""
    block: Any = getattr(layer, "mlp", None)
    if not hasattr(block, "experts"):
        return None
    return block.router if hasattr(block, "router") else block.gate


class _Masked(TorchFunctionMode):
    """Within it, the router's linear map gives −inf for experts that are not kept."""

    def __init__(self, gone: torch.Tensor) -> None:
        super().__init__()
        self._gone = gone

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return found.masked_fill(self._gone, float("-inf")) if func is torch.nn.functional.linear else found


def _masked_forward(router: Any, gone: torch.Tensor) -> Callable[[Any], Any]:
    original = router.forward

    def forward(hidden: Any) -> Any:
        with _Masked(gone):
            return original(hidden)

    return forward


@contextmanager
def masked(model: Any, keep: Ids, mode: str = "global") -> Iterator[Any]:
    """Route only to the kept experts of each layer, [L, M], while inside.

    Args:
        model: a transformers model of one of the known architectures.
        keep: as for `prune`.
        mode: "global" also switches the router's groups off, as `prune` does; "balanced" leaves them.

    Raises:
        ExpertsError: not as many rows as the model has layers with experts.
    """
    routers = [router for layer in decoder_layers(model) if (router := router_of(layer)) is not None]
    if len(routers) != len(keep):
        raise ExpertsError(f"a choice for {len(keep)} layers; the model has {len(routers)} with experts")
    undo: list[Callable[[], None]] = []
    try:
        for router, chosen in zip(routers, keep, strict=True):
            undo.append(mask_router(router, chosen, mode))
        yield model
    finally:
        for step in undo:
            step()


def mask_router(router: Any, chosen: Ids, mode: str) -> Callable[[], None]:
    """Mask one router to the chosen experts, [M]; returns what takes the mask off."""
    gone = torch.ones(router.weight.shape[0], dtype=torch.bool, device=router.weight.device)
    gone[torch.as_tensor(chosen)] = False
    bias = getattr(router, "e_score_correction_bias", None)
    kept_bias = None if bias is None else bias.clone()
    names = ("num_group", "topk_group", "topk_method") if mode == "global" else ()
    before = {name: getattr(router, name) for name in names if hasattr(router, name)}
    router.forward = _masked_forward(router, gone)
    if bias is not None:
        # A logit of −inf is a sigmoid of 0: the choice would go by the correction bias alone.
        bias.masked_fill_(gone, float("-inf"))
    for name in before:
        setattr(router, name, "greedy" if name == "topk_method" else 1)

    def undo() -> None:
        del router.forward
        if bias is not None:
            bias.copy_(kept_bias)
        for name, value in before.items():
            setattr(router, name, value)

    return undo
