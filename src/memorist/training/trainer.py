"""The training loop: play groups, credit them, pack rows, update. A recipe's stages run one after another.

A step is a function of the recipe, the stage, the step's number and the weights: its tasks and seeds are derived,
not drawn from a running stream. So a run that is killed goes on from its checkpoint with the same numbers.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from filelock import FileLock, Timeout

from memorist import catalogue
from memorist.decision import Distribution
from memorist.errors import RecipeError, TrainingError, need_known
from memorist.log import write_trajectories
from memorist.models.causal import CausalPolicy
from memorist.models.registry import open_policy, open_role
from memorist.models.sampler import Policy, Sampler
from memorist.models.usage import peak_memory_bytes
from memorist.recipe import Recipe, Stage, to_plain
from memorist.training import checkpoint
from memorist.training.credit import ALL_RULES, REDUCTIONS, SHARES, Worth, is_flat
from memorist.training.devices import Devices
from memorist.training.distillation import check_alike
from memorist.training.judging import JudgeLearner, Judges
from memorist.training.learner import Learner, worth_of
from memorist.training.metrics import describe, read_metrics
from memorist.training.objective import DIVERGENCES, PLACES
from memorist.training.rollout import BuildAgent, Group, Seat, derive, play, price
from memorist.training.stages import Evaluations, Exercises, write_manifest

Progress = Callable[[Mapping[str, Any]], None]
TRAJECTORIES = "trajectories"
MOST_SKIPPED = 3
"""Steps in a row that may be skipped because loss or gradient was not finite."""


@dataclass
class _Window:
    """The small tasks of one acting out, which serve some steps: each is played once before any is played anew, but a
    share goes to those that are worth playing again (after "prioritized level replay", arXiv 2010.03934: where the best
    of the siblings is far above their mean, there is something to learn)."""

    start: tuple[int, int]
    tasks: list[Any]
    next: int = 0
    regret: dict[int, float] = field(default_factory=dict)
    played: list[int] = field(default_factory=list)

    def choose(self, count: int, again: int, seed: int) -> list[Any]:
        """`count` tasks, up to `again` of them drawn by their regret from those that were played."""
        if not self.tasks:
            return []
        known = [i for i, value in self.regret.items() if value > 0]
        rng = np.random.default_rng(derive(seed, 2))
        weights = np.array([self.regret[i] for i in known], np.float64)
        again = min(again, len(known))
        drawn = rng.choice(known, again, replace=False, p=weights / weights.sum()).tolist() if again else []
        fresh = [(self.next + i) % len(self.tasks) for i in range(count - again)]
        self.next += len(fresh)
        self.played = [*drawn, *fresh]
        return [self.tasks[i] for i in self.played]

    def note(self, groups: Sequence[Group], worth: Worth) -> None:
        """Keep how far each group's best run is above its mean."""
        for i, group in zip(self.played, groups, strict=True):
            rewards = [worth(run.trajectory) for run in group]
            self.regret[i] = max(rewards) - sum(rewards) / len(rewards)


@dataclass
class Trainer:
    """One run in a folder.

    Args:
        recipe: what to do.
        build: makes the agent around a bank and actors.
        tasks: the training tasks, whole.
        folder: where recipe.yaml, metrics.jsonl, the checkpoint, the trained policies and some steps' trajectories go.
        progress: called with each step's metrics. say: called with what else is done that takes time.
    """

    recipe: Recipe
    build: BuildAgent
    tasks: Sequence[Any]
    folder: Path
    progress: Progress = lambda metrics: None
    say: Callable[[str], None] = lambda text: None
    policies: dict[str, CausalPolicy] = field(default_factory=dict)
    devices: Devices = field(default_factory=Devices)
    _window: _Window = field(default_factory=lambda: _Window((-1, -1), []))
    _origins: dict[str, CausalPolicy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.exercises = Exercises(self.recipe, self.tasks)
        self.evaluations = Evaluations(self.recipe, self.folder)
        self.judges = Judges(self.recipe)

    def run(self, *, resume: bool = False) -> dict[str, CausalPolicy]:
        """Run all stages; the trained policies by role.

        Raises:
            CheckpointError: `resume` and the checkpoint is torn or of another recipe.
            RecipeError: there are no tasks, a stage names a rule, reduction or cut that does not exist, or a model that
                returns text alone is to learn.
            RewardError: a task gave a reward that is not a finite number.
            TrainingError: loss or gradient was not finite in three steps in a row, or the folder is another process's.
        """
        self._check()
        if not self.devices.first:
            return self._run(resume)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "training.lock", blocking=False):
                return self._run(resume)
        except Timeout as held:
            raise TrainingError(
                f"another process is training in {self.folder} (a launcher that was killed may have left it behind): "
                "wait for it or stop it, or train into another folder"
            ) from held

    def _run(self, resume: bool) -> dict[str, CausalPolicy]:
        self.policies = self.policies or open_roles(self.recipe)
        learning = self.recipe.learning
        for role in learning:
            if not isinstance(self.policies[role], Policy):
                raise RecipeError(
                    f"{role!r} is to learn, but {self.policies[role].name!r} can only act: what returns text alone "
                    "plays frozen roles; give the role a local model"
                )
        for i, stage in enumerate(self.recipe.stages):
            if stage.kind == "reward":
                continue
            asked = {stage.rule, *["entropy"] * bool(stage.entropy)}
            cannot = asked & set(getattr(self.policies[stage.role], "cannot", ()))
            if cannot:
                raise RecipeError(
                    f"stages[{i}]: {self.policies[stage.role].name!r} chooses and writes no tokens; it cannot learn "
                    f"with {', '.join(sorted(cannot))}; expected another rule, and entropy 0"
                )
        for stage in self.recipe.stages:
            if stage.reference == "run" and stage.needs_start and stage.role not in self._origins:
                self._origins[stage.role] = self.policies[stage.role].frozen(f"{self.policies[stage.role].name}-start")
        self.devices.shard(*(self.policies[role] for role in learning), *self._origins.values())
        torch.manual_seed(self.recipe.seed)
        at, tensors = self._restore() if resume else ((0, 0), {})
        self.devices.wait()  # until all have read what the first one now changes
        if self.devices.first:
            (self.folder / "recipe.yaml").write_text(yaml.safe_dump(to_plain(self.recipe), sort_keys=False))
            self._rewind(at)
            self.evaluations.rewind(at[0])
        for number, stage in enumerate(self.recipe.stages):
            if number < at[0]:
                continue
            first = at[1] if number == at[0] else 0
            if not first:
                self._between(number)
            self._stage(number, stage, first, tensors if number == at[0] else {})
        self._between(len(self.recipe.stages))
        for role in learning:
            self.policies[role].save(self.folder / "policies" / role, write=self.devices.first)
        if self.devices.first:
            self.judges.save(self.folder)
        self.devices.wait()
        return self.policies

    def _check(self) -> None:
        """Refuse what cannot work before anything is loaded or played."""
        if not self.tasks:
            raise RecipeError("the recipe's data has no dialogues to train on; expected at least one")
        for i, stage in enumerate(self.recipe.stages):
            self.exercises.check(i, stage)
            if stage.kind == "reward":
                continue
            cuts = ("whole", *getattr(self.exercises.all_of(i, stage)[0], "cuts", ()))
            need_known(f"stages[{i}].rule", stage.rule, ALL_RULES)
            need_known(f"stages[{i}].reduction", stage.reduction, REDUCTIONS)
            need_known(f"stages[{i}].share", stage.share, SHARES)
            need_known(f"stages[{i}].cut", stage.cut, cuts)
            need_known(f"stages[{i}].kl", stage.kl, DIVERGENCES)
            need_known(f"stages[{i}].kl_in", stage.kl_in, PLACES)

    def _between(self, after: int) -> None:
        """Before the first stage, and after each: what the recipe evaluates, the manifest, and whether to go on."""
        missing = self.evaluations.missing(after)
        self.devices.wait()  # until all know what is missing
        for name in missing:
            where = f"after stage {after}" if after else "before the first stage"
            self.say(f"evaluating {name} {where}")
            data = self.recipe.evaluations[name]
            if hasattr(data, "pairs"):
                told = self.judges.accuracy(data, name)
                if self.devices.first:
                    self.evaluations.write(after, name, len(data.tasks(self.recipe.seed)), told)
                continue
            seats = {role: Seat(policy) for role, policy in self.policies.items()}
            tasks = data.tasks(self.recipe.seed)
            with self.devices.together(*self.policies.values()):
                groups = self._all_play(tasks, seats, 1, derive(self.recipe.seed, after, 9))
            if self.devices.first:
                self.evaluations.note(after, name, groups, tasks)
            self.devices.wait()
        self.devices.wait()
        if after:
            stage = self.recipe.stages[after - 1]
            learnt = self.judges.models[stage.role] if stage.kind == "reward" else self.policies[stage.role]
            weights = learnt.state()  # all bring the tensors together
            if self.devices.first:
                count = len(self.exercises.of(after - 1, stage))
                write_manifest(self.recipe, self.folder, after, count, weights)
            self.devices.wait()
            self.evaluations.check(after)

    def _stage(self, number: int, stage: Stage, first: int, tensors: Mapping[str, Any]) -> None:
        judging = stage.kind == "reward"
        policy = self.policies[self.recipe.judges[stage.role] if judging else stage.role]
        origin = self._origin(stage, policy)
        learner: Learner | JudgeLearner = (
            JudgeLearner(self.judges, number, stage, policy, tensors)
            if judging
            else Learner(stage, policy, tensors, self.devices, origin)
        )
        frozen = {role: Seat(p) for role, p in self.policies.items() if role != stage.role}
        teacher = open_teacher(stage.teacher, self.exercises.up_to(number, stage)) if stage.kind == "sft" else None
        began = time.monotonic()
        for step in range(first, stage.steps):
            clock = time.monotonic()
            other = stage.kind == "rejection" or stage.paths == "teacher"  # whose actions are learnt from
            sampler = teacher or (learner.start if other else None) or policy
            seats = {
                **frozen,
                stage.role: Seat(sampler, Distribution(temperature=stage.temperature, top_k=stage.top_k)),
            }
            with self.devices.together(*(seat.sampler for seat in seats.values())):
                groups = [] if judging else self.groups(number, stage, step, seats)
            played = time.monotonic()
            self._log(number, step, groups)
            facts = learner.update(step, groups, derive(self.recipe.seed, step, 5))
            metrics = {"stage": number, "kind": stage.kind, "role": stage.role, "step": step + 1, "steps": stage.steps}
            if policy.why_plain:
                metrics["plain_rows"] = policy.why_plain
            metrics |= describe(groups, stage.role, worth_of(stage, step)) | {
                k: v if math.isfinite(v) else None for k, v in facts.items()
            }
            seconds = time.monotonic() - clock
            metrics |= {"seconds": seconds, "update_seconds": time.monotonic() - played}
            metrics["tokens_per_second"] = facts.get("tokens", 0.0) / seconds
            metrics["peak_memory_bytes"] = peak_memory_bytes()
            metrics["left"] = (time.monotonic() - began) / (step + 1 - first) * (stage.steps - step - 1)
            if self.devices.first:
                with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as log:
                    log.write(json.dumps(metrics) + "\n")
                self.progress(metrics)
            self.devices.wait()
            self._stop_if_broken(metrics, groups)
            last = step + 1 == stage.steps
            if last or (step + 1) % self.recipe.checkpoint_every == 0:
                self._save((number + 1, 0) if last else (number, step + 1), learner)
                # Float results depend on who shares a batch, so on what is cached: a resumed run begins with nothing.
                for seat in frozen.values():
                    seat.cache.clear()

    def _origin(self, stage: Stage, policy: CausalPolicy) -> CausalPolicy | None:
        """What a stage's reference is, if not the policy as it is when the stage begins.

        Raises:
            RecipeError: a teacher's tokens, or what is to be aligned, are not the policy's.
        """
        if stage.kind == "distill":
            teacher = open_policy(stage.teacher).frozen(f"{stage.teacher}-teacher")
            check_alike(policy, teacher, stage.align)
            self.devices.shard(teacher)
            return teacher
        return self._origins.get(stage.role) if stage.reference == "run" else None

    def groups(self, number: int, stage: Stage, step: int, seats: Mapping[str, Seat]) -> list[Group]:
        """The step's groups: whole tasks, or small ones cut from runs of whole ones. Up to `stage.redraw` times, groups
        whose runs are all worth the same give way to groups of other tasks (after arXiv 2503.14476)."""
        seed, worth = derive(self.recipe.seed, number, step), worth_of(stage, step)
        place = step % stage.leads
        if stage.cut != "whole" and (place == 0 or self._window.start != (number, step - place)):
            self._window = _Window((number, step - place), self._cut(number, stage, step - place, seats))
        kept: list[Group] = []
        for attempt in range(stage.redraw + 1):
            # The first attempt has the step's own seed, so that a recipe without redraws plays as it always did.
            mine = derive(seed, 6, attempt) if attempt else seed
            count = stage.tasks - len(kept)
            if stage.cut == "whole":
                chosen = (
                    self.exercises.others(number, stage, count, mine)
                    if attempt
                    else self.exercises.drawn(number, stage, step, count)
                )
                groups = self._play(stage, step, chosen, seats, mine)
            else:
                chosen = self._window.choose(count, 0 if attempt else int(stage.again * count), mine)
                groups = self._play(stage, step, chosen, seats, mine)
                self._window.note(groups, worth)
            last = attempt == stage.redraw
            kept += [group for group in groups if last or not is_flat(group, worth)]
            if len(kept) == stage.tasks or not groups:
                break
        return kept

    def _play(self, stage: Stage, step: int, tasks: Sequence[Any], seats: Mapping[str, Seat], seed: int) -> list[Group]:
        """One group per task; each process plays its part, and all know what came of every one."""
        then = None
        if stage.kind == "rl" and stage.rule == "counterfactual":
            worth = worth_of(stage, step)
            then = lambda groups: price(self.build, groups, seats, stage.role, worth)  # noqa: E731
        return self._all_play(tasks, seats, stage.siblings, seed, then)

    def _all_play(
        self, tasks: Sequence[Any], seats: Mapping[str, Seat], siblings: int, seed: int,
        then: Callable[[list[Group]], list[Group]] | None = None,
    ) -> list[Group]:  # fmt: skip
        """`_play`, of whatever tasks; `then` is done where they were played."""
        numbers = self.devices.mine(range(len(tasks)))
        mine = [tasks[n] for n in numbers]
        groups = play(self.build, mine, seats, siblings=siblings, seed=seed, numbers=numbers)
        groups = self.judges.judged(groups)
        return self.devices.gather(then(groups) if then else groups, self.policies.values())

    def _cut(self, number: int, stage: Stage, step: int, seats: Mapping[str, Seat]) -> list[Any]:
        """Small tasks for `stage.leads` steps, from runs of whole ones by the present policy."""
        seed = derive(self.recipe.seed, number, step, 1)
        if stage.lead == "greedy":
            seats = {**seats, stage.role: Seat(seats[stage.role].sampler)}
        whole = self.exercises.drawn(number, stage, step // stage.leads, stage.dialogues)
        leads = play(self.build, [task.without_questions() for task in whole], seats, seed=seed)
        small = [
            piece
            for lead, task in zip(leads, whole, strict=True)
            for piece in task.cut(stage.cut, lead[0].outcome, lead[0].bank, questions=stage.questions)
        ]
        random.Random(seed).shuffle(small)
        return small

    def _stop_if_broken(self, metrics: Mapping[str, Any], groups: Sequence[Group]) -> None:
        """Stop after steps in a row whose loss or gradient was not finite, with the last step's trajectories kept."""
        if not metrics.get("skipped"):
            return
        # From the file, so that a resumed run counts as an undisturbed one does.
        recent = [bool(m.get("skipped")) for m in read_metrics(self.folder / "metrics.jsonl")][-MOST_SKIPPED:]
        if len(recent) == MOST_SKIPPED and all(recent):
            file = self.folder / "offending.jsonl"
            if self.devices.first:
                write_trajectories(file, (run.trajectory for group in groups for run in group))
            raise TrainingError(
                f"loss or gradient was not finite in {MOST_SKIPPED} steps in a row, up to step {metrics['step']} of "
                f"stage {metrics['stage']} ({metrics['role']}); that step's trajectories are in {file}. Nothing was "
                "learnt from these steps; lower the stage's lr, or raise its warmup, and start again"
            )

    def _log(self, number: int, step: int, groups: Sequence[Group]) -> None:
        """Write down the trajectories of some steps: a file each, so that a step that is run again replaces its own."""
        every = self.recipe.log_every
        if self.devices.first and every and (step == 0 or (step + 1) % every == 0):
            file = self.folder / TRAJECTORIES / f"{_logged(number, step + 1)}.jsonl"
            write_trajectories(file, (run.trajectory for group in groups for run in group))

    def _save(self, at: tuple[int, int], learner: Learner | JudgeLearner) -> None:
        # Only what learns; frozen roles may be played by samplers that have no weights.
        tensors = {f"policy-{role}": self.policies[role].state() for role in self.recipe.learning}
        tensors |= self.judges.tensors() | learner.tensors()
        state = {"recipe": self.recipe.fingerprint(), "stage": at[0], "step": at[1]}
        if self.devices.first:  # all have brought the tensors together
            checkpoint.save(self.folder / "checkpoint", state, tensors)

    def _restore(self) -> tuple[tuple[int, int], Mapping[str, Any]]:
        found = checkpoint.load(self.folder / "checkpoint", self.recipe.fingerprint())
        if found is None:
            return (0, 0), {}
        state, tensors = found
        for role in self.recipe.learning:
            self.policies[role].restore(tensors[f"policy-{role}"])
        self.judges.restore(self.policies, tensors)
        return (state["stage"], state["step"]), (tensors if state["step"] else {})

    def _rewind(self, at: tuple[int, int]) -> None:
        """Drop metrics and trajectories of steps that will be run again, and a line torn by a kill."""
        path = self.folder / "metrics.jsonl"
        kept = [m for m in read_metrics(path) if (m["stage"], m["step"]) <= at or m["stage"] < at[0]]
        path.write_text("".join(json.dumps(m) + "\n" for m in kept), encoding="utf-8")
        for file in (self.folder / TRAJECTORIES).glob("*.jsonl"):
            if file.name > f"{_logged(*at)}.jsonl":
                file.unlink()


def _logged(stage: int, step: int) -> str:
    """A name that sorts as the steps of a run do."""
    return f"stage-{stage:03d}-step-{step:06d}"


def open_teacher(name: str, tasks: Sequence[Any] = ()) -> Sampler:
    """Whom a stage imitates: a heuristic by name, or a local model.

    Args:
        tasks: of the stage, for a teacher that knows what to say of those alone.
    """
    if name not in catalogue.offered("teachers"):
        return open_policy(name)
    found: Any = catalogue.find("teachers", name, "teacher")
    teacher: Sampler = found(tasks) if getattr(found, "of_tasks", False) else found()
    return teacher


def open_roles(recipe: Recipe) -> dict[str, CausalPolicy]:
    """A policy for each role. With LoRA, roles that name the same model share it: those that learn have an adapter
    each, the others are the model alone."""
    settings = recipe.weights
    learning = set(recipe.learning)
    opened: dict[str, CausalPolicy] = {}
    found: dict[str, CausalPolicy] = {}
    for number, (role, name) in enumerate(recipe.models.items()):
        policy = opened.get(name) if settings.lora else None
        if policy is None:
            policy = opened[name] = open_role(name)
            policy.precision, policy.checkpointing = settings.precision, settings.checkpointing
            policy.together = settings.together
        if settings.lora and role in learning:
            if not isinstance(policy, CausalPolicy):
                raise RecipeError(
                    f"weights.lora is {settings.lora}, and {role!r}, which learns, is {name!r}; adapters are of "
                    "language models: set weights.lora to 0, or train this role in a run of its own"
                )
            from memorist.models.adapters import with_adapter

            seed = derive(recipe.seed, 7, number)
            policy = with_adapter(policy, role, rank=settings.lora, alpha=settings.lora_alpha, seed=seed)
        found[role] = policy
    if settings.lora:
        from memorist.models.adapters import AdapterPolicy

        bases = {opened[recipe.models[role]] for role in learning}
        found |= {r: AdapterPolicy(p, "", p.name) for r, p in found.items() if r not in learning and p in bases}
    return found
