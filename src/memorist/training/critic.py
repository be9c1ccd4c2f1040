"""What states are worth: the value function of PPO. It is no part of the policy and never saved with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from memorist.models.causal import CausalPolicy
from memorist.models.rows import RowBatch, Unit
from memorist.training.credit import Numbers
from memorist.training.devices import Devices

MOST_VALUE_NORM = 1.0


class Critic:
    """A copy of the policy's layers with a linear head: the value of a state is read where a token is predicted.

    Args:
        policy: whose layers it starts from. devices: over which they are divided.
        lr: of its own AdamW.
        clip: how far a value may move from what it was when the step began before its gradient stops (arXiv
            1707.06347's implementation; the spec's default is 0.5).
    """

    def __init__(self, policy: CausalPolicy, devices: Devices, *, lr: float, clip: float) -> None:
        self.trunk = policy.twin(f"{policy.name}-critic")
        devices.shard(self.trunk)
        self.clip = clip
        model = self.trunk.model
        self.head = torch.nn.Linear(model.config.get_text_config().hidden_size, 1, device=model.device)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        # Apart, for the trunk may be sharded.
        groups = [{"params": part} for part in self._parts()]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)

    def parameters(self) -> list[torch.nn.Parameter]:
        """All that learns; the trunk's own head gets no gradient."""
        return [parameter for part in self._parts() for parameter in part]

    def _parts(self) -> list[list[torch.nn.Parameter]]:
        return [self.trunk.parameters(), list(self.head.parameters())]

    def values(self, batch: RowBatch) -> torch.Tensor:
        """The value before each action token of a batch, shape (N,)."""
        found: torch.Tensor = self.trunk.around(lambda: self.head(self.trunk.hidden(batch).float())[:, 0])
        return found

    def judge(self, units: Sequence[Unit], budget: int) -> list[Numbers]:
        """The values before each unit's policy tokens, without gradient."""
        found: dict[int, list[float]] = {id(unit): [] for unit in units}
        with torch.no_grad():
            for batch in self.trunk.rows(units, budget):
                for unit, value in zip(batch.unit, self.values(batch).tolist(), strict=True):
                    found[id(batch.units[unit])].append(value)
        return [np.array(found[id(unit)], np.float64) for unit in units]

    def loss(self, batch: RowBatch) -> torch.Tensor:
        """Half the squared error to the returns, the larger of clipped and free, weighted like the policy's loss."""
        now = self.values(batch)
        weight, before, returns = (
            torch.from_numpy(x).to(now.device) for x in (batch.weight, batch.values, batch.returns)
        )
        near = before + (now - before).clamp(-self.clip, self.clip)
        return (weight * torch.maximum((now - returns) ** 2, (near - returns) ** 2)).sum() / 2

    def step(self) -> None:
        """Learn from the gradients gathered."""
        for part in self._parts():
            torch.nn.utils.clip_grad_norm_(part, MOST_VALUE_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
