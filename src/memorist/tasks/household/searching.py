"""Searches of a household as tasks: one, or several in the same home, where what was remembered helps later."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar, Protocol

from memorist.decision import Decision, Reward
from memorist.errors import RecipeError, need_known
from memorist.memory.bank import MemoryBank
from memorist.memory.scratch import ScratchBank
from memorist.tasks.household.belief import remaining, still_there
from memorist.tasks.household.episode import Episode, Prices, episode
from memorist.tasks.household.measures import COSTS, UNREADABLE, swc, with_failures
from memorist.tasks.household.notes import BEGIN, write_notes
from memorist.tasks.household.scene import Scene, Thing
from memorist.tasks.household.world import Household

SPLITS = {"train": 0, "validation": 10_000_000, "test": 20_000_000, "base": 30_000_000}
"""Where the seeds of each begin."""
SEEDS, HOMES = 100, 100_000
"""Sets of homes of a split, and homes of a set."""
PRICES = ("default", "drawn")
ALIKE = 5
"""Acts are compared with each other where what is still to be spent differs by less."""
BETWEEN = 12.0
"""Hours from one search in a home to the next."""


class HomeOutcome(Protocol):
    """What an agent's searches give back."""

    @property
    def houses(self) -> Sequence[Household]:
        """Each search as it ended."""
        ...

    @property
    def others(self) -> Sequence[int]:
        """Of each search, how many decisions after it were no acts."""
        ...


@dataclass(frozen=True)
class HouseholdTask:
    """Searches in one home, one after the other. bank: what is remembered of it before. shaping: what
    an act is paid for itself alone for bringing the end nearer, of what is saved by that."""

    id: str
    searches: tuple[Episode, ...]
    shaping: float = 0.0
    bank: MemoryBank = field(default_factory=ScratchBank, compare=False)

    cuts: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        first = self.searches[0]
        write_notes(self.bank, first.memory, BEGIN, first.scene)

    @property
    def size(self) -> int:
        """Things that look alike, beside the one that is meant, in the first search."""
        return len(self.searches[0].candidates) - 1

    def score(self, outcome: HomeOutcome) -> tuple[Reward, ...]:
        """success: share that was found. metres, asked, memory: what was spent on each, and invalid: what could not be
        done, below 0; all as means of the searches."""
        count = len(self.searches)
        spent = [house.cost for house in outcome.houses]
        rate = COSTS / self.searches[0].prices.failure / count
        return (
            Reward("success", sum(house.success for house in outcome.houses) / count),
            Reward("metres", -rate * sum(cost.metres for cost in spent)),
            Reward("asked", -rate * sum(cost.asked for cost in spent)),
            Reward("memory", -rate * sum(cost.memory for cost in spent)),
            Reward("invalid", -UNREADABLE * sum(house.invalid for house in outcome.houses) / count),
        )

    def placed(self, outcome: HomeOutcome, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
        """With shaping, a term for each act, compared with siblings' acts that had about as far to go: how much nearer
        it brought the end, by what is known then, less what it cost; the last one by what came of it. So each act has
        the advantage that a critic would give it which reckons with `belief.still_to_walk`. It is paid for itself
        alone: this is no potential in the sense that leaves the best policy as it is, and is an option for that."""
        if not self.shaping:
            return ()
        found: list[Reward] = []
        begun = 0
        for house, others in zip(outcome.houses, outcome.others, strict=True):
            prices = house.search.prices
            left = [metres * prices.metre for metres in remaining(house)]
            after = [*left[1:], 0.0 if house.success else left[-1] + prices.failure]
            for step, (_, done) in enumerate(house.log):
                gain = left[step] - after[step] - done.cost.total
                name = f"nearer-from-{ALIKE * round(left[step] / ALIKE)}"
                found.append(Reward(name, self.shaping * COSTS / prices.failure * gain, begun + step))
            begun += len(house.log) + others
        return tuple(found) if len(decisions) == begun else ()

    def measures(self, outcome: HomeOutcome) -> dict[str, float]:
        """Means of what searches are judged by (`measures`)."""
        count = len(self.searches)
        return {
            "success": sum(house.success for house in outcome.houses) / count,
            "cost": sum(house.cost.total for house in outcome.houses) / count,
            "with_failures": sum(map(with_failures, outcome.houses)) / count,
            "swc": sum(map(swc, outcome.houses)) / count,
            "asks": sum(house.asked for house in outcome.houses) / count,
            "reads": sum(house.read for house in outcome.houses) / count,
        }


@dataclass(frozen=True)
class HouseholdData:
    """Searches of homes that no other split has.

    homes: how many. least, most: things that look like the one that is meant, in turn. prices: "default", or "drawn"
    for each home: a metre from 0.5 to 1.5, a question from 0.25 to 1, its rise with each one before from 0 to 1, a
    failure from 10 to 200. searches: in each home, one after the other; things are moved in between. clutter: other
    things in it. shaping: see `HouseholdTask`.
    """

    kind: str = "household"
    split: str = "train"
    homes: int = 1000
    least: int = 1
    most: int = 4
    prices: str = "default"
    searches: int = 1
    clutter: int = 0
    shaping: float = 0.0
    seed: int = 0

    exercise: ClassVar[str] = "household"

    def check(self, where: str = "data") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist, or a number is impossible.
        """
        need_known(f"{where}.split", self.split, SPLITS)
        need_known(f"{where}.prices", self.prices, PRICES)
        if not 0 <= self.least <= self.most <= 10:
            raise RecipeError(f"{where}.least is {self.least} and most {self.most}; expected 0 or more, up to 10")
        if not 0 <= self.seed < SEEDS or self.homes > HOMES:
            raise RecipeError(
                f"{where}.seed is {self.seed} and homes {self.homes}; expected a seed of 0 to {SEEDS - 1} and up to "
                f"{HOMES:,} homes: splits would have homes in common"
            )
        for name, below in (("homes", 1), ("searches", 1), ("clutter", 0)):
            if getattr(self, name) < below:
                raise RecipeError(f"{where}.{name} is {getattr(self, name)}; expected {below} or more")
        if not 0 <= self.shaping < math.inf:
            raise RecipeError(f"{where}.shaping is {self.shaping}; expected 0 (none) or more")
        if self.clutter > 50:
            raise RecipeError(f"{where}.clutter is {self.clutter}; expected 50 or less")

    def tasks(self, seed: int) -> list[HouseholdTask]:
        """The homes; `seed`, the run's, changes nothing of them."""
        return [self._task(number) for number in range(self.homes)]

    def _task(self, number: int) -> HouseholdTask:
        name = SPLITS[self.split] + HOMES * self.seed + number
        alike = self.least + number % (self.most - self.least + 1)
        prices = drawn_prices(name) if self.prices == "drawn" else Prices()
        first = replace(home(name, alike, self.clutter), prices=prices)
        return HouseholdTask(f"{self.split}-{name}-{alike}", tuple(in_turn(first, self.searches, name)), self.shaping)


@lru_cache(8192)
def home(seed: int, alike: int, clutter: int) -> Episode:
    """A search; the same home is drawn once in a process."""
    return episode(seed, alike, clutter=clutter)


def drawn_prices(seed: int) -> Prices:
    """Prices of a seed."""
    rng = random.Random(f"prices/{seed}")
    failure = 10 * 20 ** rng.random()
    return Prices(rng.uniform(0.5, 1.5), rng.uniform(0.25, 1.0), rng.uniform(0.0, 1.0), failure=failure)


def in_turn(first: Episode, count: int, seed: int) -> list[Episode]:
    """A search, and others in the same home: of another of the things that look alike, from elsewhere, after each
    thing has been moved as memory's age says."""
    rng = random.Random(f"in-turn/{seed}")
    found = [first]
    while len(found) < count:
        scene = _moved(found[-1].scene, rng)
        candidates = list(first.candidates)
        rng.shuffle(candidates)
        start = rng.choice(sorted(c for cells in scene.rooms.values() for c in cells if c in scene.walkable))
        name = f"{first.id}-{len(found)}"
        found.append(replace(first, id=name, scene=scene, start=start, candidates=tuple(candidates), memory=()))
    return found


def _moved(scene: Scene, rng: random.Random) -> Scene:
    places = [r.id for r in scene.receptacles]
    stays = still_there(BETWEEN)

    def moved(thing: Thing) -> Thing:
        if rng.random() < stays:
            return thing
        return replace(thing, receptacle=rng.choice([place for place in places if place != thing.receptacle]))

    return replace(scene, things=tuple(moved(thing) for thing in scene.things))
