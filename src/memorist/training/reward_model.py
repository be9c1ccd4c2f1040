"""A reward model with two heads: how good each step of an episode is, and how good the whole (section 4.3 of the
specification of Datarus-R1, arXiv 2508.13382, whose own is not public).

Both are read from a copy of a policy's layers in one pass: a step where the next message begins, so that what it led to
is seen and nothing later; the episode at its last token. Beside what stands there, both know how surprising the most
surprising token of the message was (of all messages), by the same layers: with states alone, a judge that had learnt
from 15,000 pairs still took the mean of one column for that of another in three of ten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from memorist.decision import Action, Distribution, Observation
from memorist.models.causal import CausalPolicy
from memorist.models.registry import open_policy
from memorist.models.rows import RowBatch, Unit

STEP, SMALL = 1.0, 0.01
"""Weights of the steps' loss and of the episodes' squares."""
SURPRISE = 10.0
"""How much faster than other weights those of surprises move: they are two numbers that begin at 0."""
HEADS = "heads.safetensors"
AGGREGATES = ("mean", "min", "geometric")


@dataclass(frozen=True)
class Judged:
    """An episode's messages, as actions of one window that goes on, and whether each is right (where that is known)."""

    actions: tuple[Action, ...]
    right: tuple[bool, ...] = ()


def in_one_window(policy: CausalPolicy, messages: Sequence[tuple[Observation, str]]) -> tuple[Action, ...]:
    """Messages with what was seen before each, as actions of one window that goes on, as the policy would have written
    them."""
    actions: list[Action] = []
    asked: Observation | None = None
    for seen, text in messages:
        asked = seen if asked is None else asked.then(actions[-1], seen.prompt, max_tokens=seen.max_tokens)
        actions.append(policy.encode(asked, text))
    return tuple(actions)


@dataclass(frozen=True)
class Scores:
    """Logits: of each message but the last, and of the whole."""

    steps: tuple[float, ...]
    episode: float

    def value(self, *, middle: float = 0.0, steps: float = 0.5, aggregate: str = "mean") -> float:
        """H, 0 to 1: what the steps are worth together, and the whole.

        Args:
            middle: the logit of an episode that is worth 0.5.
            steps: how much the steps weigh.
            aggregate: "mean", "min" or "geometric" (mean).
        """
        whole = sigmoid(self.episode - middle)
        if not self.steps:
            return whole
        return steps * aggregated([sigmoid(step) for step in self.steps], aggregate) + (1 - steps) * whole


def aggregated(values: Sequence[float], how: str) -> float:
    """Values of steps as one."""
    if how == "min":
        return min(values)
    if how == "geometric":
        return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))
    return sum(values) / len(values)


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), for any x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


class Heads(torch.nn.Module):
    """A number for steps and one for episodes, from what the last layer says and how surprising what was written is.

    Args:
        width: of the layers.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, 2, device=device)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)
        self.surprise = torch.nn.Parameter(torch.zeros(2, device=device))


class RewardModel:
    """A copy of a policy's layers with a head for steps and one for episodes.

    Args:
        policy: whose layers it starts from.
        lr: of its AdamW.
        budget: tokens of a batch.
    """

    def __init__(self, policy: CausalPolicy, *, lr: float = 1e-3, budget: int = 8192) -> None:
        self.trunk, self.budget, self.middle = policy.twin(f"{policy.name}-judge"), budget, 0.0
        model = self.trunk.model
        self.heads = Heads(model.config.get_text_config().hidden_size, model.device)
        self.optimizer = torch.optim.AdamW(
            [*self.trunk.parameters(), *self.heads.parameters()], lr=lr, betas=(0.9, 0.95), weight_decay=0.01
        )

    def learn(self, better: Sequence[Judged], worse: Sequence[Judged]) -> dict[str, float]:
        """One update on pairs: Bradley and Terry's loss of episodes, cross-entropy of steps, and episodes' squares kept
        small; what is worth logging."""
        episodes = [*better, *worse]
        steps, wholes, asked = self._logits(episodes)
        count = len(better)
        ahead = wholes[:count] - wholes[count:]
        labels = torch.tensor(
            [float(right) for one in episodes for right in one.right[: len(one.actions) - 1]], device=wholes.device
        )
        of_steps = torch.nn.functional.binary_cross_entropy_with_logits(steps, labels) if len(labels) else steps.sum()
        loss = -torch.nn.functional.logsigmoid(ahead).mean() + STEP * of_steps + SMALL * (wholes**2).mean()
        loss.backward()
        every = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(every, 1.0))
        # One step that is not finite would spoil every weight.
        broken = not math.isfinite(norm + float(loss.detach()))
        if not broken:
            self.optimizer.step()
        self.optimizer.zero_grad()
        agreed = ((steps > 0) == (labels > 0.5)).float().mean() if len(labels) else torch.tensor(math.nan)
        ranked = float((ahead > 0).float().mean())
        facts = {"loss": float(loss.detach()), "pairs": ranked, "right_steps": float(agreed), "tokens": float(asked)}
        return facts | ({"skipped": 1.0} if broken else {})

    def scores(self, episodes: Sequence[Judged]) -> list[Scores]:
        """What it thinks of episodes."""
        with torch.no_grad():
            steps, wholes, _ = self._logits(episodes)
        told, at = steps.tolist(), 0
        found = []
        for one, whole in zip(episodes, wholes.tolist(), strict=True):
            count = len(one.actions) - 1
            found.append(Scores(tuple(told[at : at + count]), whole))
            at += count
        return found

    def calibrate(self, episodes: Sequence[Judged]) -> None:
        """Let the middle one of these be worth 0.5."""
        self.middle = float(np.median([one.episode for one in self.scores(episodes)]))

    def values(self, episodes: Sequence[Judged], *, steps: float = 0.5, aggregate: str = "mean") -> list[float]:
        """H of episodes, 0 to 1."""
        return [one.value(middle=self.middle, steps=steps, aggregate=aggregate) for one in self.scores(episodes)]

    def _logits(self, episodes: Sequence[Judged]) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Of all steps in order, of all episodes, and how many tokens that took."""
        # All tokens are read, whoever wrote them and however they were drawn.
        units = [
            [Unit(replace(action, spans=(), distribution=Distribution()), 0.0, 1.0) for action in one.actions]
            for one in episodes
        ]
        places = {id(unit): (i, k) for i, own in enumerate(units) for k, unit in enumerate(own)}
        found: dict[tuple[int, int], torch.Tensor] = {}
        surprise: dict[tuple[int, int], torch.Tensor] = {}
        tokens = 0
        for batch in self.trunk.rows([unit for own in units for unit in own], self.budget):
            out, least = self.trunk.around(partial(self._heads, batch))
            surprise |= {places[id(unit)]: value for unit, value in zip(batch.units, least, strict=True)}
            tokens += int(batch.length.sum())
            for place, (i, k), last in _read(batch, places):
                if k and not last:
                    found[(i, k - 1)] = out[place, 0]
                if last and k == len(units[i]) - 1:
                    found[(i, -1)] = out[place, 1]
        of_step, of_whole = SURPRISE * self.heads.surprise
        steps = [found[(i, k)] - of_step * surprise[(i, k)] for i, own in enumerate(units) for k in range(len(own) - 1)]
        told = torch.stack(steps) if steps else self.heads.linear.weight.new_zeros(0)
        wholes = [
            found[(i, -1)] - of_whole * torch.stack([surprise[(i, k)] for k in range(len(own))]).amax()
            for i, own in enumerate(units)
        ]
        return told, torch.stack(wholes), tokens

    def _heads(self, batch: RowBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Both numbers at each token, and the surprise of each unit's most surprising one."""
        hidden, logp = self.trunk.hidden_and_score(batch)
        whose = torch.from_numpy(batch.unit).to(logp.device)
        most = logp.new_zeros(len(batch.units)).scatter_reduce(0, whose, -logp, "amax")
        found: torch.Tensor = self.heads.linear(hidden.float())
        return found, most

    def state(self) -> dict[str, torch.Tensor]:
        """All that is learnt."""
        heads = {f"heads.{name}": value.detach() for name, value in self.heads.state_dict().items()}
        return {**self.trunk.state(), **heads, "heads.middle": torch.tensor([self.middle], dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        own = {name: value for name, value in tensors.items() if not name.startswith("heads.")}
        self.trunk.restore(own)
        self.heads.load_state_dict({name: tensors[f"heads.{name}"] for name in self.heads.state_dict()})
        self.middle = float(tensors["heads.middle"])

    def save(self, folder: Path) -> None:
        """Write layers and heads."""
        self.trunk.save(folder)
        tensors = {name: value.detach().contiguous() for name, value in self.heads.state_dict().items()}
        save_file(tensors | {"middle": torch.tensor([self.middle], dtype=torch.float64)}, folder / HEADS)

    @classmethod
    def load(cls, folder: Path, *, lr: float = 1e-3) -> RewardModel:
        """One that was saved.

        Raises:
            PolicyError: there is none.
        """
        found = cls(open_policy(str(folder)), lr=lr)
        tensors = load_file(folder / HEADS)
        found.middle = float(tensors.pop("middle"))
        found.heads.load_state_dict(tensors)
        return found


def _read(batch: RowBatch, places: dict[int, tuple[int, int]]) -> list[tuple[int, tuple[int, int], bool]]:
    """Of each unit's first and last token of a batch: its place, whose it is, and whether it is the last."""
    found = []
    for at, (unit, place) in enumerate(zip(batch.unit.tolist(), batch.place.tolist(), strict=True)):
        whose = batch.units[unit]
        if place == 0:
            found.append((at, places[id(whose)], False))
        if place == len(whose.action.tokens) - 1:
            found.append((at, places[id(whose)], True))
    return found
