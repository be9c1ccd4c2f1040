"""LoRA through peft: one frozen base, an adapter for each role that learns."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from memorist.decision import Action, Observation, Picture
from memorist.errors import PolicyError
from memorist.models.causal import CausalPolicy
from memorist.models.rows import RowBatch
from memorist.models.sampler import Request
from memorist.models.tensors import placed_like, whole
from memorist.models.writing import Prompt, Stood

FILE = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


class AdapterPolicy(CausalPolicy):
    """A base with one of its adapters. Policies of several roles may share the base: each puts its own adapter in place
    before it computes.

    Args:
        base: the model; its own weights never change.
        adapter: the adapter's name in the model; "" for the base alone.
    """

    def __init__(self, base: CausalPolicy, adapter: str, name: str) -> None:
        super().__init__(base.model, base.tokenizer, name, source=base.source)
        self.adapter = adapter
        self._reads: CausalPolicy = base._reads if isinstance(base, AdapterPolicy) else base
        self.sees = base.sees
        self.precision, self.checkpointing, self.together = base.precision, base.checkpointing, base.together
        self.around = base.around

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """One action per request, with this adapter in place."""
        self.take_place()
        return super().sample(requests)

    def see(self, pictures: Sequence[Picture]) -> None:
        """Show the base pictures."""
        self._reads.see(pictures)

    def make_room(self) -> None:
        """Drop what the base has kept."""
        self._reads.make_room()

    def prompt(self, observation: Observation) -> Prompt:
        """The observation as the base reads it."""
        return self._reads.prompt(observation)

    def inputs(self, tokens: torch.Tensor, positions: torch.Tensor, media: Sequence[Stood]) -> dict[str, Any]:
        """What the model is called with, as of the base; an adapter may change how pictures are seen."""
        return self._reads.inputs(tokens, positions, media)

    @cached_property
    def attention(self) -> str:
        """How the base attends."""
        return self._reads.attention

    def states(self, batch: RowBatch, *, every: bool = False) -> list[torch.Tensor]:
        """What a scoring pass needs, with this adapter in place."""
        self.take_place()
        return super().states(batch, every=every)

    def take_place(self) -> None:
        """Let the shared model be this adapter's."""
        model = self.model
        if getattr(model, "memorist_adapter", None) == self.adapter:
            return
        if self.adapter:
            model.enable_adapters()
            model.set_adapter(self.adapter)
        else:
            model.disable_adapters()
        model.memorist_adapter = self.adapter

    def _own(self) -> dict[str, torch.nn.Parameter]:
        mark = f".{self.adapter}."
        return {n: p for n, p in self.model.named_parameters() if ".lora_" in n and mark in n} if self.adapter else {}

    def parameters(self) -> list[Any]:
        """The adapter's tensors."""
        return list(self._own().values())

    def state(self) -> dict[str, torch.Tensor]:
        """The adapter's weights, by names that do not hold its own."""
        return {name.replace(f".{self.adapter}.", "."): whole(value.detach()) for name, value in self._own().items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave.

        Raises:
            PolicyError: the tensors are of another adapter.
        """
        own = {name.replace(f".{self.adapter}.", "."): value for name, value in self._own().items()}
        if own.keys() != tensors.keys():
            raise PolicyError(
                f"{self.name!r} has {len(own)} adapter tensors and was given {len(tensors)} others; use the adapter "
                "settings that they were made with"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(placed_like(tensors[name], value))

    def frozen(self, name: str) -> CausalPolicy:
        """A policy that stays as this one is now: the same base with a copy of the adapter."""
        return self._copied(f"{self.adapter}-start", name)

    def twin(self, name: str) -> CausalPolicy:
        """A policy that starts as this one is now and learns on its own: another adapter of the same base."""
        return self._copied(f"{self.adapter}-twin", name)

    def _copied(self, adapter: str, name: str) -> AdapterPolicy:
        if adapter not in self.model.peft_config:
            mine = self.model.peft_config[self.adapter]
            _add(self.model, adapter, mine.r, mine.lora_alpha)
        copied = AdapterPolicy(self, adapter, name)
        copied.restore(self.state())
        return copied

    def save(self, folder: Path, *, write: bool = True) -> None:
        """Write the adapter as peft does, with the name of its base, and the tokenizer."""
        weights = self.state()
        if not write:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.model.peft_config[self.adapter].save_pretrained(folder)
        save_file({f"base_model.model.{name}": value for name, value in weights.items()}, folder / WEIGHTS)
        self.tokenizer.save_pretrained(folder)
        config = json.loads((folder / FILE).read_text(encoding="utf-8"))
        (folder / FILE).write_text(json.dumps(config | {"base_model_name_or_path": self.source}, indent=1))


def with_adapter(base: CausalPolicy, adapter: str, *, rank: int, alpha: int, seed: int = 0) -> AdapterPolicy:
    """The base with a new adapter on all linear layers but the head, which changes nothing yet.

    Args:
        rank: of the two matrices that an adapter adds to each layer. alpha: their product counts alpha / rank.
        seed: of the first weights.

    Raises:
        PolicyError: peft is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _add(base.model, adapter, rank, alpha)
    return AdapterPolicy(base, adapter, base.name)


def load_adapter(folder: Path, base: CausalPolicy, name: str) -> AdapterPolicy:
    """The base with an adapter that was saved in a folder."""
    base.model.load_adapter(str(folder), adapter_name="saved")
    base.model.memorist_adapter = "saved"
    return AdapterPolicy(base, "saved", name)


def _add(model: Any, adapter: str, rank: int, alpha: int) -> None:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise PolicyError("adapters need peft: pip install 'memorist[train]'") from error
    # Without dropout: a policy must score as it samples.
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", bias="none")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several are meant
        model.add_adapter(config, adapter)
    model.enable_adapters()  # they stay switched off where the base alone has computed last
    model.memorist_adapter = adapter
    model.eval()
