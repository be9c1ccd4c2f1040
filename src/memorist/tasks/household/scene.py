"""Homes: rooms of cells, receptacles that block theirs, and things on them; drawn from a seed, or read from JSON.

Cells are (x, y), x to the right and y down. Distances are geodesic: steps between the four neighbours of a cell, times
the size of a cell.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from memorist.errors import DataError

Cell = tuple[int, int]
NAMES = ("kitchen", "living room", "bedroom", "bathroom", "study", "hallway")
TYPES = ("counter", "shelf", "drawer", "fridge", "sofa", "desk", "cabinet", "table", "bench", "box")
OPENABLE = frozenset(("drawer", "fridge", "cabinet", "box"))
CATEGORIES = ("mug", "book", "key", "lamp", "pillow", "bottle", "towel", "radio", "basket", "clock")
VALUES: Mapping[str, tuple[str, ...]] = {
    "color": ("red", "blue", "green", "white", "black"),
    "material": ("wood", "metal", "glass", "plastic"),
    "size": ("small", "large"),
}
"""Attributes of things, by which those of one category differ."""
COLUMNS, ROWS, SIDE, RECEPTACLES = 3, 2, 8, 18
CELL_SIZE = 0.5
TRIES = 200


@dataclass(frozen=True)
class Receptacle:
    """Where things lie. views: cells next to it that can be walked on."""

    id: str
    type: str
    room: str
    cell: Cell
    openable: bool
    views: tuple[Cell, ...]


@dataclass(frozen=True)
class Thing:
    """Something that lies somewhere."""

    id: str
    category: str
    color: str
    material: str
    size: str
    receptacle: str

    @property
    def looks(self) -> tuple[str, str, str]:
        """What it looks like."""
        return self.color, self.material, self.size


@dataclass(frozen=True)
class Scene:
    """A home. rooms: the cells of each; names: what each is called."""

    id: str
    cell_size: float
    walkable: frozenset[Cell]
    rooms: Mapping[str, tuple[Cell, ...]]
    names: Mapping[str, str]
    receptacles: tuple[Receptacle, ...]
    things: tuple[Thing, ...]
    _views: dict[Cell, dict[str, tuple[Cell, float]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @cached_property
    def by_id(self) -> Mapping[str, Receptacle]:
        """Receptacles by their ids."""
        return {one.id: one for one in self.receptacles}

    @cached_property
    def thing(self) -> Mapping[str, Thing]:
        """Things by their ids."""
        return {one.id: one for one in self.things}

    @cached_property
    def on(self) -> Mapping[str, tuple[Thing, ...]]:
        """What lies on each receptacle."""
        return {r.id: tuple(t for t in self.things if t.receptacle == r.id) for r in self.receptacles}

    @cached_property
    def _beside(self) -> Mapping[Cell, tuple[Cell, ...]]:
        return _beside(self.walkable)

    def steps(self, start: Cell) -> Mapping[Cell, int]:
        """Steps from a cell to each that can be reached."""
        return _walked(self._beside, start)

    def view(self, receptacle: str, start: Cell) -> tuple[Cell, float] | None:
        """The nearest cell that a receptacle is seen from, ties by (y, x), and how many metres away it is; None where
        none can be reached."""
        # Of all receptacles at once: that is a hundredth of what the steps take to keep.
        if start not in self._views:
            self._views[start] = dict(self._seen_from(self.steps(start)))
        return self._views[start].get(receptacle)

    def _seen_from(self, steps: Mapping[Cell, int]) -> Iterator[tuple[str, tuple[Cell, float]]]:
        for receptacle in self.receptacles:
            reached = [(steps[c], c[1], c[0]) for c in receptacle.views if c in steps]
            if reached:
                distance, y, x = min(reached)
                yield receptacle.id, ((x, y), distance * self.cell_size)

    def to_json(self) -> dict[str, Any]:
        """As plain objects."""
        found = {key: value for key, value in asdict(self).items() if key != "_views"}
        return found | {"walkable": sorted(self.walkable)}

    @classmethod
    def from_json(cls, data: Any, where: str = "scene") -> Scene:
        """What `to_json` gave, or somebody else in that form.

        Raises:
            DataError: a part is missing or of another kind, a receptacle is nowhere to be seen from, ids come twice, or
                a thing lies on nothing.
        """
        try:
            made = cls(
                str(data["id"]), float(data["cell_size"]), frozenset(_cell(c) for c in data["walkable"]),
                {str(name): tuple(_cell(c) for c in cells) for name, cells in data["rooms"].items()},
                {str(room): str(name) for room, name in data["names"].items()},
                tuple(
                    Receptacle(str(r["id"]), str(r["type"]), str(r["room"]), _cell(r["cell"]), bool(r["openable"]),
                               tuple(_cell(c) for c in r["views"]))
                    for r in data["receptacles"]
                ),
                tuple(Thing(**{key: str(t[key]) for key in Thing.__dataclass_fields__}) for t in data["things"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                where, "-", type(data).__name__, f"not a scene ({error!r}); expected what to_json gives"
            ) from error
        for problem in made._problems():
            raise DataError(where, "-", made.id, problem)
        return made

    @classmethod
    def read(cls, file: str | Path) -> Scene:
        """From a JSON file.

        Raises:
            DataError: there is none, or it holds no scene.
        """
        try:
            data = json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(str(file), "-", "file", f"cannot be read ({error}); expected a scene as JSON") from error
        return cls.from_json(data, str(file))

    def write(self, file: str | Path) -> None:
        """As a JSON file."""
        Path(file).write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")

    def _problems(self) -> Iterator[str]:
        if not 0 < self.cell_size < math.inf:
            yield f"cell_size is {self.cell_size}; expected a number of metres above 0"
        for kind, ids in (("receptacle", [r.id for r in self.receptacles]), ("thing", [t.id for t in self.things])):
            twice = {one for one in ids if ids.count(one) > 1}
            if twice:
                yield f"{kind} {min(twice)} comes twice; expected ids of their own"
        for receptacle in self.receptacles:
            if not set(receptacle.views) & self.walkable:
                yield f"receptacle {receptacle.id} can be seen from nowhere; expected a walkable cell among its views"
            if receptacle.room not in self.names:
                yield f"receptacle {receptacle.id} is in room {receptacle.room}; expected one of names"
        if unnamed := set(self.rooms) - set(self.names):
            yield f"room {min(unnamed)} has no name; expected one in names"
        known = {r.id for r in self.receptacles}
        for thing in self.things:
            if thing.receptacle not in known:
                yield f"thing {thing.id} lies on {thing.receptacle}; expected a receptacle"


def _cell(pair: Any) -> Cell:
    x, y = pair
    return int(x), int(y)


def _beside(walkable: frozenset[Cell]) -> dict[Cell, tuple[Cell, ...]]:
    """Of each cell the neighbours that can be walked on."""
    return {cell: tuple(near for near in around(cell) if near in walkable) for cell in walkable}


def _walked(beside: Mapping[Cell, tuple[Cell, ...]], start: Cell) -> dict[Cell, int]:
    steps, front, further = {start: 0}, [start], 0
    while front:
        further += 1
        reached = []
        for cell in front:
            for near in beside.get(cell) or around(cell):
                if near not in steps and near in beside:
                    steps[near] = further
                    reached.append(near)
        front = reached
    return steps


def around(cell: Cell) -> tuple[Cell, ...]:
    """The four neighbours of a cell."""
    x, y = cell
    return (x, y - 1), (x - 1, y), (x + 1, y), (x, y + 1)


def build(
    seed: int, distractors: int = 3, *, clutter: int = 0, receptacles: int = RECEPTACLES
) -> tuple[Scene, tuple[str, ...]]:
    """A home with a thing to be found and so many that are of its category, all on receptacles of their own.

    Returns:
        The scene, and the ids of these things, the one to be found first.

    Raises:
        DataError: so many cannot be placed.
    """
    rng = random.Random(f"household/{seed}/{distractors}/{clutter}/{receptacles}")
    most = min(receptacles, len(VALUES["color"]) * len(VALUES["material"]) * len(VALUES["size"]))
    if not 0 <= distractors < most or not 0 <= clutter < 100 - most:
        told = f"{distractors} distractors and {clutter} other things; expected fewer than {most}, and not below 0"
        raise DataError("household", "-", str(distractors), told)
    for _ in range(TRIES):
        made = _home(rng, receptacles)
        if made is not None:
            walkable, rooms, names, held = made
            things = _things(rng, held, distractors, clutter)
            scene = Scene(f"home-{seed}", CELL_SIZE, walkable, rooms, names, held, things)
            return scene, tuple(thing.id for thing in things[: distractors + 1])
    raise DataError("household", "-", str(seed), f"no home with {receptacles} receptacles was found; expected fewer")


def _home(rng: random.Random, count: int) -> Any:
    """Cells, rooms, their names and receptacles; None where they do not fit."""
    rooms: dict[str, tuple[Cell, ...]] = {}
    for row in range(ROWS):
        for column in range(COLUMNS):
            left, top = 1 + column * (SIDE + 1), 1 + row * (SIDE + 1)
            cells = tuple((left + x, top + y) for y in range(SIDE) for x in range(SIDE))
            rooms[f"room-{row * COLUMNS + column}"] = cells
    doors: set[Cell] = set()
    for row in range(ROWS):
        for column in range(COLUMNS - 1):
            doors.add(((column + 1) * (SIDE + 1), 1 + row * (SIDE + 1) + rng.randrange(SIDE)))
    for row in range(ROWS - 1):
        for column in range(COLUMNS):
            doors.add((1 + column * (SIDE + 1) + rng.randrange(SIDE), (row + 1) * (SIDE + 1)))
    names = dict(zip(rooms, rng.sample(NAMES, len(rooms)), strict=True))
    beside = {near for door in doors for near in around(door)}
    free = [(cell, room) for room, cells in rooms.items() for cell in cells if cell not in beside]
    rng.shuffle(free)
    placed: list[tuple[Cell, str]] = []
    for (x, y), room in free:
        if all(max(abs(x - a), abs(y - b)) > 1 for (a, b), _ in placed):
            placed.append(((x, y), room))
            if len(placed) == count:
                break
    taken = {cell for cell, _ in placed}
    walkable = frozenset({cell for cells in rooms.values() for cell in cells} - taken | doors)
    if len(placed) < count or len(_walked(_beside(walkable), next(iter(doors)))) < len(walkable):
        return None
    held = tuple(
        Receptacle(f"{kind}-{i}", kind, room, cell, kind in OPENABLE, tuple(c for c in around(cell) if c in walkable))
        for i, ((cell, room), kind) in enumerate(zip(placed, rng.choices(TYPES, k=count), strict=True))
    )
    return (walkable, rooms, names, held) if all(one.views for one in held) else None


def _things(rng: random.Random, held: tuple[Receptacle, ...], distractors: int, clutter: int) -> tuple[Thing, ...]:
    category = rng.choice(CATEGORIES)
    every = [(c, m, s) for c in VALUES["color"] for m in VALUES["material"] for s in VALUES["size"]]
    places, numbers = rng.sample(held, distractors + 1), rng.sample(range(100), distractors + 1 + clutter)
    # Numbers are drawn: who could tell by its name which thing is meant would neither ask nor remember.
    found = [
        Thing(f"{category}-{number}", category, *looks, place.id)
        for number, looks, place in zip(numbers, rng.sample(every, distractors + 1), places, strict=False)
    ]
    for number in numbers[distractors + 1 :]:
        other = rng.choice([one for one in CATEGORIES if one != category])
        found.append(Thing(f"{other}-{number}", other, *rng.choice(every), rng.choice(held).id))
    return tuple(found)
