"""A model in memory with only the experts of a task; changing the task reads only those that are not there yet.

Slots hold experts; router rows follow the slots. The full routers stay in memory (for DeepSeek-R1 213 MB), so that it
is seen how much of the routers' mass falls on experts that are absent: much of it says that the task has changed.
Change tasks between requests, and drop caches of keys and values then: they came from other experts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from memorist.errors import ExpertsError
from memorist.fit.experts.checkpoint import Checkpoint, open_checkpoint
from memorist.fit.experts.prune import check_choice
from memorist.fit.experts.scores import Array, Ids
from memorist.fit.experts.shards import Reader, Written
from memorist.fit.experts.simulate import masked, router_of
from memorist.fit.experts.weights import (
    as_computed,
    fill,
    fill_experts,
    make_room,
    put,
    read_tensor,
    skeleton,
    stored_as,
)

_ROUTER = ("weight", "bias", "e_score_correction_bias")


class LazyModel:
    """A causal model whose experts come from disk as they are needed.

    model: the transformers model, to be called as any other. bytes_read: from its files so far.
    """

    def __init__(self, folder: Path, keep: Ids) -> None:
        """Load all that is not an expert, and the chosen experts, [L, M].

        Raises:
            ExpertsError: the checkpoint or the choice cannot be worked with.
        """
        self.checkpoint: Checkpoint = open_checkpoint(folder)
        chosen = check_choice(keep, self.checkpoint, "global")
        self._reader = Reader()
        self.model = skeleton(self.checkpoint, chosen.shape[1])
        self._slots = chosen.copy()
        self._routers: list[dict[str, torch.Tensor]] = []
        self._mass = np.zeros((len(chosen), 2))  # (absent, all), summed over tokens
        self._load()

    @property
    def bytes_read(self) -> int:
        """From the checkpoint's files, headers not counted."""
        return self._reader.bytes_read

    @property
    def experts(self) -> Ids:
        """Which expert is in which slot, [L, M]."""
        return self._slots.copy()

    @property
    def absent_mass(self) -> Array:
        """Share of the routers' mass on absent experts per layer since the last change, [L]; NaN before any token."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self._mass[:, 0] / self._mass[:, 1])

    def switch(self, keep: Ids) -> int:
        """Load the experts of another choice of as many; those that are there stay. Returns the bytes read.

        Raises:
            ExpertsError: the choice cannot work, or is of another number of experts.
        """
        chosen = check_choice(keep, self.checkpoint, "global")
        if chosen.shape != self._slots.shape:
            raise ExpertsError(f"{chosen.shape[1]} experts for {self._slots.shape[1]} slots; load the model again")
        moved = 0
        for row, number in enumerate(self.checkpoint.moe_layers):
            free = [slot for slot, expert in enumerate(self._slots[row]) if expert not in chosen[row]]
            new = [int(expert) for expert in chosen[row] if expert not in self._slots[row]]
            layer = self.model.model.layers[number]
            moved += fill_experts(layer, number, self.checkpoint, self._reader, zip(free, new, strict=True))
            self._slots[row, free] = new
            self._route(row, layer)
        self._mass[:] = 0
        return moved

    @contextmanager
    def only(self, keep: Ids) -> Iterator[Any]:
        """Route only to some of the experts that are in memory, [L, M], while inside.

        Raises:
            ExpertsError: one of them is not in memory.
        """
        if keep.shape[0] != len(self._slots) or any(
            not np.isin(wanted, here).all() for wanted, here in zip(keep, self._slots, strict=True)
        ):
            raise ExpertsError("a choice with experts that are not in memory; switch to it, or load the union")
        pairs = zip(keep, self._slots, strict=True)
        slots = np.stack([np.nonzero(np.isin(here, wanted))[0] for wanted, here in pairs])
        with masked(self.model, slots) as model:
            yield model

    def close(self) -> None:
        """Close the files; the model stays as it is."""
        self._reader.close()

    def __enter__(self) -> LazyModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _load(self) -> None:
        checkpoint, base = self.checkpoint, self.model.model
        fill(base.embed_tokens, "model.embed_tokens.", checkpoint, self._reader)
        fill(base.norm, "model.norm.", checkpoint, self._reader)
        if stored_as(checkpoint, "lm_head.weight") is not None:
            fill(self.model.lm_head, "lm_head.", checkpoint, self._reader)
        else:
            self.model.lm_head.weight = base.embed_tokens.weight
        for number, layer in enumerate(base.layers):
            fill(layer, f"model.layers.{number}.", checkpoint, self._reader, self._rows(number))
            if number in checkpoint.moe_layers:
                self._load_experts(number, layer)

    def _rows(self, number: int) -> tuple[int, ...] | None:
        """No rows of the routers yet: they are cut from the full ones."""
        return () if number in self.checkpoint.moe_layers else None

    def _load_experts(self, number: int, layer: Any) -> None:
        row = self.checkpoint.moe_layers.index(number)
        make_room(layer, number, self.checkpoint)
        fill_experts(layer, number, self.checkpoint, self._reader, enumerate(map(int, self._slots[row])))
        router = router_of(layer)
        where = f"model.layers.{number}.mlp.{'router' if router is getattr(layer.mlp, 'router', None) else 'gate'}."
        stored = {name: stored_as(self.checkpoint, where + name) for name in _ROUTER}
        self._routers.append(
            {name: read_tensor(self._reader, Written(one)) for name, one in stored.items() if one is not None}
        )
        for name, value in (("num_group", 1), ("topk_group", 1), ("topk_method", "greedy")):
            if hasattr(router, name):
                setattr(router, name, value)
        self._route(row, layer)
        router.register_forward_pre_hook(lambda module, args: self._watch(row, args[0]))

    def _route(self, row: int, layer: Any) -> None:
        slots = torch.as_tensor(self._slots[row])
        for name, full in self._routers[row].items():
            rows = full[slots]
            put(router_of(layer), name, as_computed(self.checkpoint, name, rows))

    def _watch(self, row: int, hidden: torch.Tensor) -> None:
        full, rows = self._routers[row], torch.as_tensor(self._slots[row])
        with torch.no_grad():
            logits = hidden.reshape(-1, hidden.shape[-1]).float() @ full["weight"].float().T + full.get("bias", 0)
        mass = logits.sigmoid() if "e_score_correction_bias" in full else logits.softmax(dim=-1)
        total = float(mass.sum())
        self._mass[row] += (total - float(mass[:, rows].sum()), total)
