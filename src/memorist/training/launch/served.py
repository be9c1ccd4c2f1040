"""Runs whose tokens somebody else samples: what a cluster's trainer needs of an agent, without knowing the agent.

A served run (verl says session) is one run of an agent on a task; the policy that learns is behind a function from
token ids to token ids. Out come the windows of the run: prompt, what followed, which of it the policy wrote, and the
run's reward. Nothing here is of one trainer; `launch.verl` puts it into verl's form.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

from memorist.catalogue import find
from memorist.decision import Action, Decision, Distribution, Observation, Stop, Trajectory
from memorist.errors import PolicyError, RecipeError
from memorist.models.ends import Ends
from memorist.models.prompting import observation_ids
from memorist.models.registry import open_role
from memorist.models.rows import written_by_policy
from memorist.models.sampler import Actor, Request
from memorist.recipe import Recipe, Stage, load_recipe
from memorist.training.credit import REDUCTIONS
from memorist.training.learner import worth_of
from memorist.training.rollout import derive


class Sampled(Protocol):
    """What a server gives back for a prompt."""

    @property
    def token_ids(self) -> Sequence[int]:
        """What it wrote, the end token included where it wrote one."""
        ...

    @property
    def log_probs(self) -> Sequence[float] | None:
        """Of each token, under the distribution that it was drawn from."""
        ...


Generate = Callable[[Sequence[int], int], Awaitable[Sampled]]
"""From a prompt and a number of tokens at most."""


@dataclass(frozen=True)
class Window:
    """Tokens of one window. mask: of each token after the prompt whether the policy wrote it; logprobs: 0 where not."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    mask: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class ServedRun:
    """A run: its windows in order, what it is worth, and its reward terms by name."""

    windows: tuple[Window, ...]
    reward: float
    terms: Mapping[str, float]
    trajectory: Trajectory


class TokenActor:
    """A role that a server plays: it is sent token ids, and what it samples is kept as it is."""

    def __init__(self, role: str, tokenizer: Any, generate: Generate, distribution: Distribution, log: list[Decision]):
        self.role, self.tokenizer, self.generate = role, tokenizer, generate
        self.distribution, self.log = distribution, log
        self._ends = Ends(partial(tokenizer.decode, skip_special_tokens=True))

    async def act(self, observation: Observation) -> Action:
        """Ask the server.

        Raises:
            PolicyError: a choice is asked for, which no text server makes.
        """
        if observation.options:
            raise PolicyError(f"{self.role!r} is asked to choose among options; a server of text cannot")
        place = len(self.log)
        self.log.append(Decision(self.role, "server", observation, Action("")))  # its place, whoever answers first
        prompt = tuple(observation_ids(self.tokenizer, "server", observation))
        found = await self.generate(prompt, observation.max_tokens)
        tokens = tuple(map(int, found.token_ids))[: observation.max_tokens]
        ended = bool(tokens) and tokens[-1] == self.tokenizer.eos_token_id
        text = self.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
        logprobs = tuple(map(float, found.log_probs or [0.0] * len(tokens)))[: len(tokens)]
        stop = Stop.END if ended else Stop.LENGTH
        action = Action(text, prompt, tokens, logprobs, stop=stop, distribution=self.distribution)
        action = self._ends.finished(action, observation.ends, self.tokenizer.eos_token_id)
        self.log[place] = Decision(self.role, "server", observation, action)
        return action


@dataclass(frozen=True)
class _Frozen:
    """A role that does not learn, played greedily in this process."""

    role: str
    sampler: Any
    log: list[Decision]

    async def act(self, observation: Observation) -> Action:
        [action] = self.sampler.sample([Request(observation, Distribution(temperature=0.0), 0)])
        self.log.append(Decision(self.role, self.sampler.name, observation, action))
        return action


async def play_served(
    recipe: Recipe, task: Any, tokenizer: Any, generate: Generate, distribution: Distribution, *, number: int = 0
) -> ServedRun:
    """One run of the recipe's agent.

    Args:
        number: of the run among its siblings, for the trajectory's seed.

    Raises:
        RecipeError: the task rewards single decisions, which would be lost.
    """
    [stage] = recipe.stages
    if stage.rewards_end:
        raise RecipeError("stages[0].rewards_end is set; a served run does not know of which step it is: leave it out")
    log: list[Decision] = []
    actors: dict[str, Actor] = {
        role: TokenActor(role, tokenizer, generate, distribution, log)
        if role == stage.role
        else _Frozen(role, _frozen(name), log)
        for role, name in recipe.models.items()
    }
    outcome = await recipe.agent.build(bank=task.bank.fork(), **actors).run(task)
    rewards = task.score(outcome)
    if hasattr(task, "placed") and (placed := task.placed(outcome, log)):
        raise RecipeError(
            f"task {task.id!r} rewards single decisions ({placed[0].name}); a served run has one number, so take that "
            "reward out of the recipe's data"
        )
    trajectory = Trajectory(task.id, derive(recipe.seed, number), tuple(log), rewards)
    terms = {reward.name: reward.value for reward in rewards if reward.decision is None}
    return ServedRun(windows(log, stage.role), worth_of(stage)(trajectory), terms, trajectory)


def windows(decisions: Sequence[Decision], role: str) -> tuple[Window, ...]:
    """The role's decisions as windows: one that goes on where another ended is in the same window, what stands between
    them was not written by the policy."""
    found: list[Window] = []
    for decision in decisions:
        action = decision.action
        if decision.role != role or not action.tokens:
            continue
        mask = tuple(map(int, written_by_policy(action)))
        wrote = Window(action.prompt, action.tokens, mask, action.logprobs)
        before = (*found[-1].prompt, *found[-1].response) if found and decision.observation.after else ()
        if before and action.prompt[: len(before)] == before:
            last, between = found.pop(), action.prompt[len(before) :]
            wrote = Window(
                last.prompt,
                (*last.response, *between, *action.tokens),
                (*last.mask, *(0,) * len(between), *wrote.mask),
                (*last.logprobs, *(0.0,) * len(between), *wrote.logprobs),
            )
        found.append(wrote)
    return tuple(found)


@lru_cache(maxsize=8)
def _frozen(name: str) -> Any:
    return open_role(name)


@lru_cache(maxsize=4)
def known(place: str) -> tuple[Recipe, Sequence[Any]]:
    """A recipe's file and its tasks, read once in a process."""
    recipe = load_recipe(Path(place))
    return recipe, recipe.data.tasks(recipe.seed)


RULES = {"grpo": True, "grpo-no-std": False}
"""Credit rules that verl has for runs of several windows, and whether they divide by the deviation."""


def _term(name: str) -> Any:
    return find("rewards", name, "data.rewards")


def refuse(recipe: Recipe) -> Stage:
    """The recipe's stage, if a trainer of whole runs with one number each can run it.

    Raises:
        RecipeError: it asks for what such a trainer has not; the message names it and what does it.
    """
    problems = []
    if len(recipe.stages) != 1 or recipe.stages[0].kind != "rl":
        raise RecipeError(
            f"{recipe.name!r} has stages {', '.join(s.kind for s in recipe.stages) or 'none'}; expected one of kind rl "
            "(run the others with `memorist train`, and start from their policies)"
        )
    [stage] = recipe.stages
    if stage.rule == "ppo":
        problems.append("rule ppo (a critic along several windows)")
    elif stage.rule not in RULES:
        problems.append(f"rule {stage.rule} (expected {' or '.join(RULES)})")
    if stage.reduction != REDUCTIONS[0]:
        problems.append(f"reduction {stage.reduction} (expected {REDUCTIONS[0]})")
    if stage.cut != "whole":
        problems.append(f"cut {stage.cut} (expected whole)")
    if stage.share != "all":
        problems.append(f"share {stage.share} (expected all)")
    for name in ("redraw", "again", "cap", "entropy"):
        if getattr(stage, name):
            problems.append(f"{name} {getattr(stage, name):g} (expected 0)")
    if stage.kl_in != "loss":
        problems.append(f"kl_in {stage.kl_in} (expected loss)")
    name = recipe.models[stage.role]
    if name.partition("@")[0] == "linear" or (Path(name) / "reranker.npz").is_file():
        problems.append(f"a policy that chooses ({name})")
    if stage.cooldown:
        problems.append(f"cooldown {stage.cooldown:g} (expected 0)")
    if stage.truncated != "counted":
        problems.append(f"truncated {stage.truncated} (expected counted)")
    if stage.optimizer != "adamw":
        problems.append(f"optimizer {stage.optimizer} (expected adamw)")
    if recipe.weights.lora:
        problems.append(f"weights.lora {recipe.weights.lora} as we have it (expected 0; verl has settings of its own)")
    rewards = getattr(recipe.data, "rewards", ())
    problems += [f"reward {name} (on single choices)" for name in rewards if getattr(_term(name), "needs", "")]
    for name in ("reward_chunks", "reward_turns"):
        if getattr(recipe.data, name, False):
            problems.append(f"{name} (on single decisions)")
    if problems:
        raise RecipeError(
            f"{recipe.name!r} cannot run on verl: it has no {'; no '.join(problems)}. `memorist train` has all of them"
        )
    return stage
