"""Running agents on tasks, many at once, and writing down what they decide.

A `Recorder` stands around each model that an agent was handed. Live runs share batches in deterministic rounds: a
round ends when every live run waits for a model, then each model answers all that was asked of it at once. So a
batch is a function of the tasks and seeds, never of timing, and float results repeat.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from memorist.decision import Action, Decision, Distribution, Observation, Reward, Trajectory
from memorist.errors import RecipeError, ReplayMismatch, RewardError
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Code
from memorist.models.sampler import Actor, Request, Sampler

MAX_CACHED = 200_000


class Task(Protocol):
    """One exercise: where it starts, and how its outcome is scored."""

    @property
    def id(self) -> str:
        """Unique in its source."""
        ...

    @property
    def bank(self) -> MemoryBank:
        """The starting bank, forked by every run."""
        ...

    def score(self, outcome: Any) -> tuple[Reward, ...]:
        """Reward terms of an outcome."""
        ...


class Agent(Protocol):
    """What a rollout needs of an agent."""

    async def run(self, task: Any) -> Any:
        """Do the exercise; the outcome is what the task scores."""
        ...


BuildAgent = Callable[..., Agent]
"""Called with `bank=` and an actor for each role by name."""


@dataclass
class Seat:
    """Who plays a role, and how its actions are drawn.

    A greedy seat answers equal observations from its cache; give a seat anew when its model has learnt.
    """

    sampler: Sampler
    distribution: Distribution = field(default_factory=lambda: Distribution(temperature=0.0))
    cache: dict[Observation, Action] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A trajectory with what it left behind (which stays in the process that played it).

    `without`: what the run is worth when each decision of the role that learns, one at a time, changes nothing.
    """

    task: Any
    trajectory: Trajectory
    outcome: Any = None
    bank: Any = None
    without: tuple[float, ...] = ()

    @property
    def reward(self) -> float:
        """Sum of the whole trajectory's reward terms."""
        return self.trajectory.total()


Group = list[Run]
"""Runs of the same task from the same starting state."""


class Rounds:
    """Collects what live runs ask and answers it in batches."""

    def __init__(self, seats: Mapping[str, Seat]) -> None:
        self.seats = seats
        self._live = 0
        self._asked: list[tuple[int, str, Request, asyncio.Future[Action]]] = []
        self._ending = False

    async def ask(self, run: int, role: str, request: Request) -> Action:
        """Wait for the round's end; the answer of this role's model.

        Answers that are cached wait too, so that who shares a batch does not depend on what was asked before.
        """
        future: asyncio.Future[Action] = asyncio.get_running_loop().create_future()
        self._asked.append((run, role, request, future))
        self._end_when_all_wait()
        return await future

    async def run_all(self, runs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run coroutines together to their ends; results in order."""
        self._live = len(runs)

        async def one(start: Callable[[], Any]) -> Any:
            try:
                return await start()
            finally:
                self._live -= 1
                self._end_when_all_wait()

        return list(await asyncio.gather(*(one(run) for run in runs)))

    def _all_wait(self) -> bool:
        return bool(self._asked) and len({run for run, _, _, _ in self._asked}) >= self._live

    def _end_when_all_wait(self) -> None:
        # Not at once: a run may ask several things side by side, and all that can ask now shall share the round.
        if self._all_wait() and not self._ending:
            self._ending = True
            asyncio.get_running_loop().call_soon(self._end_round)

    def _end_round(self) -> None:
        self._ending = False
        if not self._all_wait():
            return
        # A run that was cancelled, because another failed, waits no more.
        asked = sorted((a for a in self._asked if not a[3].done()), key=lambda a: a[0])
        self._asked = []
        for role in sorted({role for _, role, _, _ in asked}):
            mine = [(request, future) for _, r, request, future in asked if r == role]
            try:
                actions = self._answer(self.seats[role], [request for request, _ in mine])
                answered = list(zip(mine, actions, strict=True))
            except BaseException as error:  # noqa: BLE001  (the runs raise it)
                for _, future in mine:
                    future.set_exception(error)
                continue
            for (_, future), action in answered:
                future.set_result(action)

    def _answer(self, seat: Seat, requests: Sequence[Request]) -> list[Action]:
        if not seat.distribution.greedy:
            return seat.sampler.sample(requests)
        new = list({r.observation: r for r in requests if r.observation not in seat.cache}.values())
        if len(seat.cache) + len(new) > MAX_CACHED:
            new = list({r.observation: r for r in requests}.values())
            seat.cache.clear()
        for request, action in zip(new, seat.sampler.sample(new) if new else [], strict=True):
            seat.cache[request.observation] = action
        return [seat.cache[r.observation] for r in requests]


class Recorder:
    """Hands an agent its roles and writes down every decision.

    The first `len(replay)` decisions are taken from a log instead of a model; what the agent sees must be what
    was seen then, or the replay is refused.
    """

    def __init__(self, rounds: Rounds, run: int, seed: int, replay: Sequence[Decision] = ()) -> None:
        self._slots: list[Decision | None] = []
        self._rounds, self._run, self._seed, self._replay = rounds, run, seed, replay
        self.roles: dict[str, Actor] = {role: _Role(self, role) for role in rounds.seats}

    @property
    def decisions(self) -> list[Decision]:
        """What was decided so far, in the order in which it was asked."""
        return [decision for decision in self._slots if decision is not None]

    async def act(self, role: str, observation: Observation) -> Action:
        """Replay or ask, and write down.

        Raises:
            ReplayMismatch: the replayed run asks for something else than the logged one.
        """
        index = len(self._slots)
        self._slots.append(None)
        seat = self._rounds.seats[role]
        if index < len(self._replay):
            logged = self._replay[index]
            if (logged.role, logged.observation) != (role, observation):
                raise ReplayMismatch(
                    f"decision {index}: the log has {logged.role!r} seeing {logged.observation.prompt[-80:]!r}, "
                    f"this run has {role!r} seeing {observation.prompt[-80:]!r}; replay with the same task, bank and "
                    "agent settings"
                )
            action = logged.action
        else:
            request = Request(observation, seat.distribution, derive(self._seed, index), role)
            action = await self._rounds.ask(self._run, role, request)
        self._slots[index] = Decision(role, seat.sampler.name, observation, action)
        return action


@dataclass(frozen=True)
class _Role:
    recorder: Recorder
    role: str

    async def act(self, observation: Observation) -> Action:
        return await self.recorder.act(self.role, observation)


def derive(seed: int, *path: int) -> int:
    """An independent 63-bit seed for a place under `seed`."""
    # As a spawn key, not as entropy: entropy [1] and [1, 0] give the same stream.
    return int(np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)[0] >> 1)


async def rollout(
    build: BuildAgent, task: Any, rounds: Rounds, *, run: int = 0, seed: int = 0, replay: Sequence[Decision] = ()
) -> Run:
    """One run of an agent on a task, in its own fork of the task's bank.

    Raises:
        RewardError: the task's reward is not a finite number.
        Exception: whatever agent and task raise, with a note that says of which run it is.
    """
    recorder = Recorder(rounds, run, seed, replay)
    bank = task.bank.fork()
    try:
        outcome = await build(bank=bank, **recorder.roles).run(task)
        rewards = task.score(outcome)
        if hasattr(task, "placed"):
            rewards += task.placed(outcome, recorder.decisions)
    except Exception as error:
        error.add_note(f"in a run on task {task.id!r} with seed {seed}, after {len(recorder.decisions)} decisions")
        raise
    for reward in rewards:
        if not math.isfinite(reward.value):
            raise RewardError(f"task {task.id!r}: reward {reward.name!r} is {reward.value}; expected a finite number")
    facts = _facts(outcome)
    if hasattr(task, "measures"):
        facts["measures"] = task.measures(outcome)
    if hasattr(task, "example"):
        facts["example"] = task.example(outcome)
    trajectory = Trajectory(task.id, seed, tuple(recorder.decisions), rewards, facts)
    return Run(task, trajectory, outcome, bank)


def _facts(outcome: Any) -> dict[str, Any]:
    """Which operations an outcome holds, and what became of them."""
    results = [result for results in getattr(outcome, "results", ()) for result in results]
    kinds = ["malformed" if r.code is Code.MALFORMED else r.operation.kind[:12] for r in results]
    codes = [r.code.value for r in results]
    return {"operations": dict(Counter(kinds)), "codes": dict(Counter(codes))} if results else {}


def price(
    build: BuildAgent, groups: Sequence[Group], seats: Mapping[str, Seat], role: str,
    worth: Callable[[Trajectory], float],
) -> list[Group]:  # fmt: skip
    """The runs with what they are worth `without` each decision of `role` that a policy wrote: a run is replayed up to
    there, the agent's neutral action is taken, and the rest is played on with the run's own seeds.

    Raises:
        RecipeError: the agent has no such action for the role.
    """
    runs = [run for group in groups for run in group]
    if not runs:
        return []
    rounds = Rounds(seats)
    agent = build(bank=runs[0].task.bank.fork(), **Recorder(rounds, 0, 0).roles)
    neutral: str | None = getattr(agent, "neutral", {}).get(role)
    if neutral is None:
        raise RecipeError(f"credit 'counterfactual': the agent says no action of {role!r} that changes nothing")
    places = [_places(run, role) for run in runs]
    branches = [(run, i) for run, own in zip(runs, places, strict=True) for i in own]

    def start(number: int) -> Callable[[], Any]:
        run, i = branches[number]
        past = run.trajectory.decisions
        replaced = (*past[:i], replace(past[i], action=Action(neutral)))
        return lambda: rollout(build, run.task, rounds, run=number, seed=run.trajectory.seed, replay=replaced)

    played = iter(asyncio.run(rounds.run_all([start(n) for n in range(len(branches))])))
    priced = iter(
        replace(run, without=tuple(worth(next(played).trajectory) for _ in own))
        for run, own in zip(runs, places, strict=True)
    )
    return [[next(priced) for _ in group] for group in groups]


def _places(run: Run, role: str) -> list[int]:
    return [i for i, d in enumerate(run.trajectory.decisions) if d.role == role and d.policy_tokens]


def play(
    build: BuildAgent, tasks: Iterable[Any], seats: Mapping[str, Seat], *, siblings: int = 1, seed: int = 0,
    numbers: Sequence[int] | None = None,
) -> list[Group]:  # fmt: skip
    """Run each task `siblings` times, all together; one group per task, in order.

    Args:
        numbers: places of the tasks among all of the step, where others are played elsewhere: seeds depend on them.
    """
    tasks = list(tasks)
    numbers = range(len(tasks)) if numbers is None else numbers
    rounds = Rounds(seats)

    def start(number: int) -> Callable[[], Any]:
        task = tasks[number // siblings]
        place = (numbers[number // siblings], number % siblings)
        return lambda: rollout(build, task, rounds, run=number, seed=derive(seed, *place))

    runs = asyncio.run(rounds.run_all([start(n) for n in range(len(tasks) * siblings)]))
    return [runs[i : i + siblings] for i in range(0, len(runs), siblings)]
