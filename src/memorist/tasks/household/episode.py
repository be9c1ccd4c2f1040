"""What is to be found where: an instruction that several things match, what was seen of them before, what the user
knows, and what acting costs. Everything is a function of a seed."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

from memorist.errors import DataError
from memorist.tasks.household.scene import VALUES, Cell, Scene, Thing, build

HOURS = 48.0
"""After so many hours a thing is still where it was with probability 1/e."""
SEEN, RECORDED = 0.8, 0.8
"""How likely something was seen before, and each attribute of it noted."""
KNOWS_ROOM, KNOWS_PLACE, PATIENCE = 0.5, 0.0, 5


@dataclass(frozen=True)
class Prices:
    """What acts cost: a metre, a question (`ask`, and this times `fatigue` more for each one before), a look at
    memory; and what it costs beside them not to find what is meant (`failure`)."""

    metre: float = 1.0
    ask: float = 0.5
    fatigue: float = 0.5
    memory: float = 0.05
    failure: float = 25.0

    def question(self, before: int) -> float:
        """The price of one more question after so many."""
        return self.ask * (1 + self.fatigue * before)


@dataclass(frozen=True)
class Noted:
    """Something that was seen some hours ago. What was not noted is None."""

    hours: float
    category: str
    color: str | None
    material: str | None
    size: str | None
    receptacle: str
    room: str
    thing: str = ""
    """Which it was: hidden from who acts."""

    def fits(self, thing: Thing) -> bool:
        """Whether it may have been this thing, by what was noted."""
        return all(getattr(self, name) in (None, getattr(thing, name)) for name in ("category", *VALUES))


@dataclass(frozen=True)
class Episode:
    """One search. candidates: what the instruction matches, the target first."""

    id: str
    scene: Scene
    start: Cell
    instruction: str
    candidates: tuple[str, ...]
    memory: tuple[Noted, ...]
    knows: frozenset[str]
    patience: int = PATIENCE
    prices: Prices = Prices()
    budget: float = math.inf
    attributes: tuple[tuple[str, str], ...] = ()
    """What the instruction says of what is meant, by name."""
    most_steps: int = 24
    """More than the specification's 20: two questions, eighteen places and a stop are 21, and its table needs them."""

    def __post_init__(self) -> None:
        """Refuse what has no end.

        Raises:
            DataError: what is meant is not there, or there is no way to it from the start.
        """
        meant = self.scene.thing.get(self.candidates[0]) if self.candidates else None
        if meant is None:
            told = f"candidates are {self.candidates}; expected things of the scene, the one that is meant first"
            raise DataError("household", "-", self.id, told)
        if self.start not in self.scene.walkable or self.scene.view(meant.receptacle, self.start) is None:
            raise DataError(
                "household", "-", self.id, f"{meant.receptacle} cannot be reached from {self.start}; expected a way"
            )

    @property
    def target(self) -> Thing:
        """What is meant."""
        return self.scene.thing[self.candidates[0]]

    @property
    def category(self) -> str:
        """What it is called."""
        return self.target.category

    @property
    def shortest(self) -> float:
        """Metres to the target, for who knows where it is."""
        found = self.scene.view(self.target.receptacle, self.start)
        assert found is not None
        return found[1]


def episode(
    seed: int, distractors: int = 3, *, clutter: int = 0, prices: Prices | None = None, instruction: str = "category"
) -> Episode:
    """The search of a seed.

    Args:
        distractors: things of the target's category beside it.
        prices: of acts; None for the default ones.
        instruction: "category"; "shared": with an attribute that all candidates have, if there is one; "exact": with
            all of the target's.

    Raises:
        DataError: there is no such instruction, or the home has no room.
    """
    scene, candidates = build(seed, distractors, clutter=clutter)
    rng = random.Random(f"episode/{seed}/{distractors}/{clutter}")
    start = rng.choice(sorted(cell for cells in scene.rooms.values() for cell in cells if cell in scene.walkable))
    memory = tuple(noted for name in candidates if (noted := _noted(scene, scene.thing[name], rng)) is not None)
    knows = set(VALUES)
    if rng.random() < KNOWS_ROOM:
        knows.add("room")
    if rng.random() < KNOWS_PLACE:
        knows.add("receptacle")
    words, meant = _asked(scene, candidates, instruction)
    text = f"Bring me the {' '.join([*words.values(), scene.thing[meant[0]].category])}."
    order = sorted(memory, key=lambda noted: noted.hours)
    return Episode(
        f"search-{seed}-{distractors}", scene, start, text, meant, tuple(order), frozenset(knows),
        prices=prices or Prices(), attributes=tuple(words.items()),
    )  # fmt: skip


def _noted(scene: Scene, thing: Thing, rng: random.Random) -> Noted | None:
    if rng.random() >= SEEN:
        return None
    hours = rng.uniform(1, 48)
    place = thing.receptacle
    if rng.random() < 1 - math.exp(-hours / HOURS):
        place = rng.choice([r.id for r in scene.receptacles if r.id != place])
    told = {name: getattr(thing, name) if rng.random() < RECORDED else None for name in VALUES}
    return Noted(hours, thing.category, **told, receptacle=place, room=scene.by_id[place].room, thing=thing.id)


def _asked(scene: Scene, candidates: tuple[str, ...], how: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """What an instruction says of what is meant, and what that matches."""
    target = scene.thing[candidates[0]]
    words: dict[str, str] = {}
    if how == "shared":
        same = [n for n in VALUES if len({getattr(scene.thing[c], n) for c in candidates}) == 1]
        words = {name: getattr(target, name) for name in same[:1]}
    elif how == "exact":
        words = {name: getattr(target, name) for name in VALUES}
    elif how != "category":
        raise DataError("household", "-", how, f"instruction is {how!r}; expected category, shared or exact")
    every = (*candidates, *(t.id for t in scene.things if t.id not in candidates))
    meant = tuple(
        name for name in every
        if scene.thing[name].category == target.category
        and all(getattr(scene.thing[name], attribute) == value for attribute, value in words.items())
    )  # fmt: skip
    return words, meant


def priced(search: Episode, prices: Prices) -> Episode:
    """The same search at other prices."""
    return replace(search, prices=prices)
