"""One stage's learning: from played groups to new weights of the policy that learns."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from memorist.decision import Distribution, Stop
from memorist.models.causal import CausalPolicy
from memorist.models.rows import RowBatch, Unit
from memorist.models.tensors import whole
from memorist.recipe import Stage
from memorist.training import checkpoint
from memorist.training.credit import Credited, How, Worth, credit, decisions_of, is_flat
from memorist.training.critic import Critic
from memorist.training.devices import Devices
from memorist.training.distillation import distillation_loss
from memorist.training.objective import Clip, Objective, imitation_loss, policy_loss
from memorist.training.rollout import Group

Tensors = dict[str, dict[str, torch.Tensor]]


def acting(stage: Stage) -> bool:
    """Whether a stage learns from what the policy sampled, by a clipped policy gradient."""
    return stage.kind == "rl" or (stage.kind == "distill" and stage.paths == "own")


def following(stage: Stage) -> bool:
    """Whether a stage learns what a teacher holds for likely, along what that one wrote."""
    return stage.kind == "distill" and stage.paths == "teacher"


class Learner:
    """The policy that a stage trains, with its optimizer, the policy that it started from where that is needed and,
    under rule "ppo", its critic.

    Args:
        saved: what `tensors` gave, to go on from there; empty at a stage's start.
        devices: the processes among which rows are divided.
        origin: what the stage's start is instead of the policy as it is now.
    """

    def __init__(
        self, stage: Stage, policy: CausalPolicy, saved: Mapping[str, Mapping[str, torch.Tensor]], devices: Devices,
        origin: CausalPolicy | None = None,
    ) -> None:  # fmt: skip
        self.stage, self.policy, self.devices = stage, policy, devices
        self.start: CausalPolicy | None = None
        self._keeps_start = origin is None  # else it can be opened again, or is what the run began with
        if stage.needs_start and origin is not None:
            self.start = origin
        elif stage.needs_start:
            self.start = policy.frozen(f"{policy.name}-start")
            devices.shard(self.start)
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(policy.parameters(), lr=stage.lr)
        if stage.optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(policy.parameters(), lr=stage.lr, betas=(0.9, 0.95), weight_decay=0.0)
        self.critic: Critic | None = None
        if stage.kind == "rl" and stage.rule == "ppo":
            self.critic = Critic(policy, devices, lr=stage.critic_lr, clip=stage.value_clip)
        if saved:
            if self.start is not None and self._keeps_start:
                self.start.restore(saved["start"])
            checkpoint.restore_optimizer(self.optimizer, saved["optimizer"])
            if self.critic is not None:
                self.critic.trunk.restore(saved["critic"])
                self.critic.head.load_state_dict(saved["critic-head"])
                checkpoint.restore_optimizer(self.critic.optimizer, saved["critic-optimizer"])

    def tensors(self) -> Tensors:
        """What it needs to go on, but for the policy's weights."""
        found = {"optimizer": checkpoint.optimizer_tensors(self.optimizer)}
        if self.start is not None and self._keeps_start:
            found["start"] = self.start.state()
        if self.critic is not None:
            found["critic"] = self.critic.trunk.state()
            found["critic-head"] = dict(self.critic.head.state_dict())
            found["critic-optimizer"] = checkpoint.optimizer_tensors(self.critic.optimizer)
        return found

    def update(self, step: int, groups: Sequence[Group], seed: int) -> dict[str, float]:
        """Learn from the groups of a step (of the stage, from 0); what is worth logging."""
        units, facts = self._units(step, groups, seed)
        if not units:
            return facts
        # Whoever reads them all: rows that branch are wrong for a teacher that carries a state from token to token.
        start = self.start
        reader = self.policy if start is None or not getattr(start, "why_plain", "") else start
        every = reader.rows(units, self._budget(units))
        facts["row_tokens"] = sum(int(batch.length.sum()) for batch in every)
        alone = sum(len(u.action.prompt) + len(u.action.tokens) for batch in every for u in batch.units)
        facts["shared_share"] = 1 - facts["row_tokens"] / alone
        batches = self.devices.rows(every)
        before = [self._before(batch) for batch in batches]
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.stage, step)
        for update in range(self.stage.updates):
            sums: dict[str, float] = dict.fromkeys(self._sums, 0.0)
            for batch, known in zip(batches, before, strict=True):
                loss, parts = self._loss(batch, *known)
                loss.backward()
                parts["loss"] = float(loss.detach())
                if self.critic is not None:
                    missed = self.critic.loss(batch)
                    missed.backward()
                    parts["value_loss"] = float(missed.detach())
                for name, value in parts.items():
                    sums[name] += value
            sums = self.devices.add(sums)
            facts |= {f"{name}_{update + 1}": value for name, value in sums.items()}
            self.devices.add_gradients(self.policy.parameters())
            norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.stage.grad_norm)
            facts["grad_norm"] = float(whole(norm))
            if not math.isfinite(sum(sums.values()) + facts["grad_norm"]):
                # One such step would spoil every weight.
                self.optimizer.zero_grad()
                if self.critic is not None:
                    self.critic.optimizer.zero_grad()
                return facts | {"skipped": 1}
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.critic is not None:
                self.devices.add_gradients(self.critic.parameters())
                self.critic.step()
        return facts

    def _budget(self, units: Sequence[Unit]) -> int:
        """Tokens of a batch: so many that each process has one."""
        if self.devices.count == 1:
            return self.stage.budget
        tokens = sum(len(u.action.prompt) + len(u.action.tokens) for u in units)
        return min(self.stage.budget, tokens // self.devices.count + 1)

    @property
    def _sums(self) -> list[str]:
        """What a stage's loss says of each batch, the same in all processes."""
        stage = self.stage
        if following(stage):
            return ["divergence", "distance", "loss"]
        if not acting(stage):
            return ["nll", "loss"]
        found = ["loss", "clip_fraction", "entropy_estimate", "ratio_error"]
        found += ["kl"] * bool(objective(stage).beta) + ["entropy"] * bool(stage.entropy) + ["drift"] * bool(stage.cap)
        return found + ["value_loss"] * (self.critic is not None)

    def _units(self, step: int, groups: Sequence[Group], seed: int) -> tuple[list[Unit], dict[str, float]]:
        stage = self.stage
        if stage.kind == "sft" or following(stage):
            units = taught(groups, stage.role, self.policy)
            return units, {"tokens": sum(len(unit.action.tokens) for unit in units)}
        if stage.kind == "distill":
            return acted(groups, stage.role), {"groups": len(groups)}
        if stage.kind == "rejection":
            tokens = sum(d.policy_tokens for g in groups for run in g for d in decisions_of(run, stage.role))
            flat = sum(is_flat(group, worth_of(stage, step)) for group in groups)
            return successes(groups, stage, tokens, seed, step), {
                "groups": len(groups), "flat_groups": flat, "tokens": tokens
            }  # fmt: skip
        credited = self._credited(step, groups)
        facts: dict[str, float] = {
            "groups": credited.groups, "flat_groups": credited.flat_groups, "tokens": credited.tokens
        }  # fmt: skip
        needed = bool(stage.beta or stage.entropy or self.critic)
        units = [unit for unit in credited.units if unit.advantage or needed]
        if stage.truncated == "left-out":
            facts["truncated"] = sum(unit.action.stop is Stop.LENGTH for unit in units)
            units = [unit for unit in units if unit.action.stop is not Stop.LENGTH]
        return units, facts

    def _credited(self, step: int, groups: Sequence[Group]) -> Credited:
        stage = self.stage
        how = how_credited(stage, step)
        if self.critic is None:
            return credit(groups, stage.role, how=how)
        runs = [decisions_of(run, stage.role) for group in groups for run in group]
        judged = iter(self.critic.judge([Unit(d.action, 0.0, 1.0) for own in runs for d in own], stage.budget))
        values = [[next(judged) for _ in own] for own in runs]
        return credit(groups, stage.role, how=how, values=values)

    def _before(self, batch: RowBatch) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What does not change within a step: log-probabilities of the reference, and of the policy before it."""
        stage = self.stage
        with torch.no_grad():
            reference = self.start.score(batch) if self.start is not None and acting(stage) else None
            return reference, self.policy.score(batch) if acting(stage) and stage.cap else None

    def _loss(
        self, batch: RowBatch, reference: torch.Tensor | None, before: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        stage, policy = self.stage, self.policy
        if following(stage) and self.start is not None:
            return distillation_loss(policy, self.start, batch, stage.align, forward=stage.divergence == "forward")
        if not acting(stage):
            return imitation_loss(policy.score(batch), batch)
        logp, entropy = policy.score_with_entropy(batch) if stage.entropy else (policy.score(batch), None)
        return policy_loss(logp, batch, objective(stage), reference=reference, start=before, entropy=entropy)


def worth_of(stage: Stage, step: int = 0) -> Worth:
    """What a run is worth in a stage."""
    return Worth(stage.rewards_at(step), stage.gate)


def how_credited(stage: Stage, step: int = 0) -> How:
    """How a stage gives credit at a step."""
    worth = worth_of(stage, step)
    return How(
        stage.rule, stage.reduction, stage.epsilon, stage.gamma, stage.gae_lambda, stage.relative, stage.whiten, worth,
        stage.baseline, stage.share, stage.floors,
    )  # fmt: skip


def objective(stage: Stage) -> Objective:
    """What a stage descends."""
    clip = Clip(stage.clip_low, stage.clip_high, stage.dual)
    if stage.kind == "distill":
        # What a token earns is by how much the teacher holds it to be likelier: on average, less reverse divergence.
        return Objective(clip, 1.0, "k1", "reward", stage.entropy, stage.cap)
    return Objective(clip, stage.beta, stage.kl, stage.kl_in, stage.entropy, stage.cap)


def learning_rate(stage: Stage, step: int) -> float:
    """The rate of step 0, 1, …: a rise, a plateau, and a line that reaches 0 after the last step."""
    rise = (step + 1) / max(1, stage.warmup)
    fall = (stage.steps - step) / max(1.0, stage.cooldown * stage.steps)
    return stage.lr * min(1.0, rise, fall)


def successes(groups: Sequence[Group], stage: Stage, tokens: int, seed: int, step: int = 0) -> list[Unit]:
    """The starting policy's own successes, drawn again until they have as many tokens as all that was sampled."""
    worth = worth_of(stage, step)
    pool = [
        d.action
        for group in groups
        for run in group
        if worth(run.trajectory) >= stage.success
        for d in decisions_of(run, stage.role)
    ]
    rng, units, count = random.Random(seed), [], 0
    while pool and count < tokens:
        # However it was drawn, it is imitated under the policy's own distribution: a token outside the few most likely
        # ones that exploration draws from would have no gradient.
        drawn = rng.choice(pool)
        action = replace(drawn, distribution=Distribution(grammar=drawn.distribution.grammar))
        units.append(Unit(action, 1.0, 1.0 / tokens))
        count += len(action.tokens)
    return units


def acted(groups: Sequence[Group], role: str) -> list[Unit]:
    """What the policy did, all tokens alike."""
    decisions = [d for group in groups for run in group for d in decisions_of(run, role)]
    tokens = sum(d.policy_tokens for d in decisions)
    return [Unit(d.action, 0.0, 1.0 / tokens, seen=d.observation) for d in decisions if d.policy_tokens]


def taught(groups: Sequence[Group], role: str, policy: CausalPolicy) -> list[Unit]:
    """What the teacher wrote, as the policy would have written it."""
    every = [d for group in groups for run in group for d in run.trajectory.decisions if d.role == role]
    decisions = [d for d in every if d.action.stop is not Stop.PROMPT_TOO_LONG]
    actions = [policy.encode(d.observation, d.action.text) for d in decisions]
    tokens = sum(len(action.tokens) for action in actions)
    return [Unit(action, 1.0, 1.0 / tokens) for action in actions]
