"""The YAML of one run, as dataclasses. Unknown keys are refused with the nearest valid one.

name: memory-r1
seed: 0
agent: {name: memory-r1, style: compact, candidates: 4}
models: {manager: bundled, answerer: bundled}
data: {split: train, dialogues: 400}
stages:
  - {kind: rl, role: manager, cut: turns, steps: 60}
  - {kind: rl, role: answerer, cut: questions, steps: 60}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import yaml

from memorist.catalogue import find
from memorist.errors import RecipeError, nearest
from memorist.plain import without_defaults
from memorist.recipe_checks import check


class AgentSettings(Protocol):
    """Which agent, and how it is set: a frozen dataclass, offered as an agent in the catalogue."""

    @property
    def name(self) -> str:
        """By which recipes know it."""
        ...

    @property
    def roles(self) -> tuple[str, ...]:
        """The models that it is handed."""
        ...

    @property
    def exercise(self) -> str:
        """Which kind of tasks it can be given."""
        ...

    def check(self, where: str) -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist, or is impossible.
        """
        ...

    def build(self, **given: Any) -> Any:
        """The agent around a bank and an actor for each role."""
        ...


class DataSettings(Protocol):
    """What is trained on: a frozen dataclass, offered as data in the catalogue."""

    @property
    def kind(self) -> str:
        """By which recipes know it."""
        ...

    @property
    def exercise(self) -> str:
        """Which kind of tasks it gives."""
        ...

    def check(self, where: str) -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist, or is impossible.
        """
        ...

    def tasks(self, seed: int) -> Sequence[Any]:
        """Whole tasks to train on."""
        ...


_CHOSEN = {AgentSettings: ("agents", "name", "memory-r1"), DataSettings: ("data", "kind", "dialogues")}
"""Settings that are one of several: a kind of the catalogue, the key that names which, and its default."""


@dataclass(frozen=True)
class WeightSettings:
    """What of the models learns, and how it is computed.

    lora: rank of a LoRA adapter for each role that learns (0: all weights learn). lora_alpha: the adapter counts
    alpha / rank. precision: "float32", or "bf16": products in bfloat16 beside float32 weights. checkpointing: whether
    layers are computed again for the backward pass instead of kept. together: siblings that are written at once (0:
    all); fewer keep less in memory and take longer.
    """

    lora: int = 0
    lora_alpha: int = 32
    precision: str = "float32"
    checkpointing: bool = False
    together: int = 0


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    kind: "rl", "rejection" (SFT on the starting policy's own successes) or "sft" (on what `teacher` does: a model, or
    the heuristic "similarity" or "add-only"), "distill" (`teacher`, a local model, says how likely it is what the
    policy samples; or, where `paths` is "teacher", the policy comes to hold for likely what the teacher does, at each
    token that the teacher samples, by the "reverse" or the "forward" `divergence`, and with `align` to have its layers'
    outputs) or "reward" (a judge learns from the pairs that `data` gives).
    role: who learns; all others are frozen and greedy. cut: "whole", "turns" or "questions".
    steps: updates of the weights' outer loop. tasks, siblings: group count and size per step. least, limit: the
    smallest and the largest task that is drawn, by its size (words of a document, hops of a question; limit 0: any).
    dialogues: how many are acted out to cut small tasks from; leads: the steps that one acting out serves; lead: how
    they are acted out, as actions are "sampled" or "greedy", which keeps what is explored out of what is stood on.
    questions: asked after a turn at most. again: share of a step's small tasks that are played again, those of the same
    acting out whose best sibling was furthest above the mean. lr: learning rate; it rises over `warmup` steps and falls
    to 0 over the last `cooldown` share of all. temperature, top_k: what the learning role draws its actions from (top_k
    0: all tokens); a high temperature over few tokens explores without breaking the form. updates: passes over a step's
    rows.
    rule, reduction, epsilon, gamma, gae_lambda, relative, whiten, floors: see `training.credit`. rewards: weights of
    reward terms by name (those left out count 1); rewards_end: what they go over into, along half a cosine from step
    `rewards_from` to the end (empty: they stay). gate: a reward term; where it is 0, none lowers a run's worth.
    redraw: how often groups whose runs are all worth the same are replaced by new ones in a step. critic_lr,
    value_clip: of the critic that rule "ppo" has. clip_low, clip_high, dual, entropy, cap: see `training.objective`.
    beta: weight of the KL to the stage's start, estimated by `kl` (k1, k2, k3) and put into the loss or the reward
    (`kl_in`).
    truncated: whether actions that the token limit cut carry loss ("counted") or only their reward ("left-out").
    share: whether "all" decisions of a run have its advantage or those of its "last" window alone.
    data: what this stage trains on, if not on the recipe's; replay: share of a step's tasks that are of the stages
    before. reference: whether the start that `beta` and "rejection" mean is the "stage"'s or the "run"'s. require:
    least values of what the recipe's evaluations measure after it ("held-out.correct": 0.5), else the run stops.
    success: reward from which "rejection" imitates a run. optimizer: "adamw" or "sgd". baseline: of rule "fixed".
    """

    kind: str = "rl"
    role: str = "manager"
    cut: str = "turns"
    steps: int = 50
    tasks: int = 32
    limit: int = 0
    least: int = 0
    siblings: int = 8
    dialogues: int = 6
    leads: int = 4
    lead: str = "sampled"
    again: float = 0.0
    questions: int = 3
    lr: float = 5e-4
    warmup: int = 3
    cooldown: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    updates: int = 1
    rule: str = "grpo"
    reduction: str = "token"
    epsilon: float = 1e-6
    gamma: float = 1.0
    gae_lambda: float = 1.0
    relative: bool = False
    whiten: bool = True
    rewards: Mapping[str, float] = field(default_factory=dict)
    rewards_end: Mapping[str, float] = field(default_factory=dict)
    rewards_from: int = 0
    gate: str = ""
    floors: Mapping[str, float] = field(default_factory=dict)
    redraw: int = 0
    critic_lr: float = 1e-3
    value_clip: float = 0.5
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual: float = 3.0
    beta: float = 0.0
    kl: str = "k3"
    kl_in: str = "loss"
    entropy: float = 0.0
    cap: float = 0.0
    truncated: str = "counted"
    grad_norm: float = 1.0
    budget: int = 8192
    success: float = 1.0
    teacher: str = "similarity"
    paths: str = "own"
    divergence: str = "reverse"
    align: float = 0.0
    optimizer: str = "adamw"
    share: str = "all"
    baseline: float = 0.0
    data: DataSettings | None = None
    replay: float = 0.0
    reference: str = "stage"
    require: Mapping[str, float] = field(default_factory=dict)

    def rewards_at(self, step: int) -> Mapping[str, float]:
        """The weights of reward terms at a step, from 0 (the cosine curriculum of arXiv 2508.13382; its constants are
        not public). A function of the step alone, so a run that goes on has them where they were."""
        if not self.rewards_end:
            return self.rewards
        done = (step - self.rewards_from) / max(1, self.steps - self.rewards_from)
        early = (1 + math.cos(math.pi * min(1.0, max(0.0, done)))) / 2
        return {
            name: late + (self.rewards.get(name, 1.0) - late) * early
            for name in {**self.rewards, **self.rewards_end}
            for late in [self.rewards_end.get(name, 1.0)]
        }

    @property
    def needs_start(self) -> bool:
        """Whether it uses the policy that it started from: to stay near it, or to imitate its successes."""
        return self.kind in ("rejection", "distill") or (self.kind == "rl" and self.beta > 0)


@dataclass(frozen=True)
class Recipe:
    """One run.

    judges: reward models by name, and the role from whose layers each starts when its stage begins; from then on what
    it thinks of a run is a reward term of this name. evaluations: data on which the models act greedily before the
    first stage and after each; what tasks measure goes to evaluations.jsonl. checkpoint_every: steps between
    checkpoints. log_every: of each stage, the first step and every one whose number this divides is written down as
    trajectories; 0: none.
    """

    name: str = "run"
    seed: int = 0
    agent: AgentSettings = field(default_factory=lambda: _read(AgentSettings, {}, "agent"))
    models: Mapping[str, str] = field(default_factory=lambda: {"manager": "bundled", "answerer": "bundled"})
    weights: WeightSettings = field(default_factory=WeightSettings)
    data: DataSettings = field(default_factory=lambda: _read(DataSettings, {}, "data"))
    stages: tuple[Stage, ...] = ()
    judges: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, DataSettings] = field(default_factory=dict)
    checkpoint_every: int = 20
    log_every: int = 50

    @property
    def learning(self) -> list[str]:
        """The roles that learn to act, sorted."""
        return sorted({stage.role for stage in self.stages if stage.kind != "reward"})

    def fingerprint(self) -> str:
        """Twelve hex digits that change with every setting.

        What has its default does not count: a later version that knows more settings can go on with an older run.
        """
        text = json.dumps(without_defaults(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_plain(recipe: Any) -> Any:
    """Dataclasses as plain objects."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def available() -> dict[str, Path]:
    """Shipped recipes by name."""
    root = Path(str(resources.files("memorist"))) / "recipes"
    return {path.stem: path for path in sorted(root.glob("*.yaml"))}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe file, or a shipped one by name.

    Raises:
        RecipeError: there is none, it is not YAML, or a key or value is wrong.
    """
    path = Path(name_or_path)
    if not path.is_file():
        shipped = available()
        if str(name_or_path) not in shipped:
            raise RecipeError(
                f"recipe {str(name_or_path)!r} is neither a file nor shipped; {nearest(str(name_or_path), shipped)}"
            )
        path = shipped[str(name_or_path)]
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {error}") from error
    return read_recipe(data, str(path))


def read_recipe(data: Any, where: str = "recipe") -> Recipe:
    """A recipe from plain objects.

    Raises:
        RecipeError: a key or value is wrong; the message names the place and the nearest valid key.
    """
    recipe: Recipe = _read(Recipe, data, where)
    check(recipe, where)
    return recipe


def _read(kind: Any, data: Any, where: str) -> Any:
    if kind in _CHOSEN:
        if not isinstance(data, Mapping):
            raise RecipeError(f"{where}: expected keys and values, got {type(data).__name__}")
        group, key, default = _CHOSEN[kind]
        kind = find(group, _read(str, data.get(key, default), f"{where}.{key}"), f"{where}.{key}")
    if dataclasses.is_dataclass(kind):
        if not isinstance(data, Mapping):
            raise RecipeError(f"{where}: expected keys and values, got {type(data).__name__}")
        hints = typing.get_type_hints(kind)
        for key in data:
            if key not in hints:
                raise RecipeError(f"{where}: unknown key {key!r}; {nearest(str(key), hints)}")
        return kind(**{key: _read(hints[key], value, f"{where}: {key}") for key, value in data.items()})  # type: ignore[operator]
    origin = typing.get_origin(kind)
    if origin is types.UnionType:  # something, or None
        return None if data is None else _read(typing.get_args(kind)[0], data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise RecipeError(f"{where}: expected a list, got {data!r}")
        inner = typing.get_args(kind)[0]
        return tuple(_read(inner, item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise RecipeError(f"{where}: expected keys and values, got {data!r}")
        inner = typing.get_args(kind)[1]
        return {str(key): _read(inner, value, f"{where}.{key}") for key, value in data.items()}
    if kind is float and isinstance(data, int | float | str) and not isinstance(data, bool):
        try:  # YAML reads 5e-4 as a string.
            number = float(data)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
        raise RecipeError(f"{where} is {data!r}; expected a number")
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise RecipeError(f"{where} is {data!r}; expected {kind.__name__}")
    return data
