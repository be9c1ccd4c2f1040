"""Reward models as part of a run: a stage of kind "reward" teaches one from pairs, and from then on what it thinks of a
run is a reward term under its name."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from memorist.decision import Reward
from memorist.errors import RecipeError
from memorist.models.causal import CausalPolicy
from memorist.recipe import Recipe, Stage
from memorist.training import checkpoint
from memorist.training.learner import learning_rate
from memorist.training.reward_model import Judged, RewardModel, in_one_window
from memorist.training.rollout import Group, Run

JUDGES = "judges"
CALIBRATED = 200
"""Pairs at most that say which score is worth 0.5."""
AT_ONCE = 64
"""Episodes that are judged in one go."""
Tensors = dict[str, dict[str, torch.Tensor]]


@dataclass
class Judges:
    """The reward models of a run, by name; a recipe says from which role's layers each starts."""

    recipe: Recipe
    models: dict[str, RewardModel] = field(default_factory=dict)
    _pairs: dict[tuple[int | str, str], list[tuple[Judged, Judged]]] = field(default_factory=dict)

    def pairs(self, place: int | str, data: Any, policy: CausalPolicy) -> list[tuple[Judged, Judged]]:
        """Pairs of data, as the policy's tokens; they are made once in a process.

        Args:
            place: the stage's number, or the evaluation's name, whose data they are.

        Raises:
            RecipeError: the data gives none.
        """
        key = place, policy.name
        if key not in self._pairs:
            self._pairs[key] = [
                (Judged(in_one_window(policy, pair.better.messages), pair.better.right),
                 Judged(in_one_window(policy, pair.worse.messages), pair.worse.right))
                for pair in data.pairs(self.recipe.agent, self.recipe.seed)
            ]  # fmt: skip
        if not self._pairs[key]:
            raise RecipeError(f"data of kind {data.kind!r} gave no pairs; expected other kinds, or more questions")
        return self._pairs[key]

    def accuracy(self, data: Any, place: str) -> dict[str, float]:
        """For each judge that has learnt, the share of pairs that it ranks rightly, and of steps that it judges so."""
        found: dict[str, float] = {}
        for name, model in self.models.items():
            known = self.pairs(place, data, model.trunk)
            better, worse = ([pair[side] for pair in known] for side in (0, 1))
            good, bad = self._scored(model, better), self._scored(model, worse)
            found[name] = sum(a.episode > b.episode for a, b in zip(good, bad, strict=True)) / len(known)
            steps = [
                (score > 0) == right
                for one, told in zip([*better, *worse], [*good, *bad], strict=True)
                for score, right in zip(told.steps, one.right, strict=False)
            ]
            found[f"{name}-steps"] = sum(steps) / max(1, len(steps))
        return found

    def _scored(self, model: RewardModel, episodes: Sequence[Judged]) -> list[Any]:
        return [
            score for i in range(0, len(episodes), AT_ONCE) for score in model.scores(episodes[i : i + AT_ONCE])
        ]  # fmt: skip

    def judged(self, groups: Sequence[Group]) -> list[Group]:
        """Runs with a term of each judge that has learnt: H, 0 to 1, of the decisions of the role that it started
        from."""
        for name, model in self.models.items():
            role = self.recipe.judges[name]
            runs = [run for group in groups for run in group]
            episodes = [Judged(tuple(d.action for d in run.trajectory.decisions if d.role == role)) for run in runs]
            some = [i for i, one in enumerate(episodes) if one.actions and all(a.tokens for a in one.actions)]
            scores = self._scored(model, [episodes[i] for i in some])
            values = {i: score.value(middle=model.middle) for i, score in zip(some, scores, strict=True)}
            # What wrote no tokens is worth nothing to a judge.
            told = iter([_with(run, name, values.get(i, 0.0)) for i, run in enumerate(runs)])
            groups = [[next(told) for _ in group] for group in groups]
        return list(groups)

    def tensors(self) -> Tensors:
        """What a checkpoint keeps of them."""
        return {f"judge-{name}": model.state() for name, model in self.models.items()}

    def restore(self, policies: Mapping[str, CausalPolicy], saved: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Those that had learnt when a checkpoint was written."""
        for name, role in self.recipe.judges.items():
            if f"judge-{name}" in saved:
                self.models[name] = RewardModel(policies[role])
                self.models[name].restore(saved[f"judge-{name}"])

    def save(self, folder: Path) -> None:
        """Write those that have learnt."""
        for name, model in self.models.items():
            model.save(folder / JUDGES / name)


class JudgeLearner:
    """A stage in which a judge learns; as a `Learner` is of a policy.

    Args:
        number: of the stage. policy: from whose layers the judge starts.
        saved: what a checkpoint kept, to go on from there; empty at a stage's start.
    """

    start = None

    def __init__(
        self, judges: Judges, number: int, stage: Stage, policy: CausalPolicy,
        saved: Mapping[str, Mapping[str, torch.Tensor]],
    ) -> None:  # fmt: skip
        self.judges, self.number, self.stage = judges, number, stage
        self.model = RewardModel(policy, lr=stage.lr, budget=stage.budget)
        if saved:
            self.model.restore(saved[f"judge-{stage.role}"])
            checkpoint.restore_optimizer(self.model.optimizer, saved["optimizer"])
        judges.models[stage.role] = self.model

    def tensors(self) -> Tensors:
        """What it needs to go on, but for the judge's weights."""
        return {"optimizer": checkpoint.optimizer_tensors(self.model.optimizer)}

    def update(self, step: int, groups: Sequence[Group], seed: int) -> dict[str, float]:
        """Learn from some pairs, and after the last step be calibrated; what is worth logging."""
        stage, known = self.stage, self.judges.pairs(self.number, self.stage.data, self.model.trunk)
        for group in self.model.optimizer.param_groups:
            group["lr"] = learning_rate(stage, step)
        drawn = random.Random(seed).sample(known, min(stage.tasks, len(known)))
        facts = self.model.learn([better for better, _ in drawn], [worse for _, worse in drawn])
        if step + 1 == stage.steps:
            some = random.Random(self.judges.recipe.seed).sample(known, min(CALIBRATED, len(known)))
            self.model.calibrate([one for pair in some for one in pair])
        return facts | {"reward": facts["pairs"]}


def _with(run: Run, name: str, value: float) -> Run:
    if any(reward.name == name for reward in run.trajectory.rewards):
        raise RecipeError(f"judge {name!r} is named as a reward term of its task is; expected another name")
    rewards = (*run.trajectory.rewards, Reward(name, value))
    return replace(run, trajectory=replace(run.trajectory, rewards=rewards))
