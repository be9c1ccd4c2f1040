"""Homes of AI2-THOR: a scene dumped once and searched here afterwards, or searched in the simulator itself.

Built by hand against the metadata that the library documents (`ai2thor` 5.0); it has never met a running simulator.
Things have no color there and rarely one of our materials: the user knows what can be read off, and nothing else.

    from ai2thor.controller import Controller  # pip install 'memorist[thor]'
    controller = Controller(scene="FloorPlan1", **SETTINGS)
    dumped(controller).scene.write("kitchen.json")
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Any, Protocol

from memorist.errors import DataError
from memorist.tasks.household.episode import Episode, Noted, Prices
from memorist.tasks.household.notes import seen_now
from memorist.tasks.household.scene import VALUES, Cell, Receptacle, Scene, Thing
from memorist.tasks.household.world import Household

GRID = 0.25
SETTINGS: Mapping[str, Any] = {
    "agentMode": "default", "gridSize": GRID, "snapToGrid": True, "visibilityDistance": 1.5, "rotateStepDegrees": 90,
    "fieldOfView": 90, "width": 300, "height": 300,
}  # fmt: skip
"""How a controller is made."""
LARGE = 0.25
"""Metres of a thing's longest side from which on it is large."""
UNKNOWN = "unknown"
_ROOMS = ((1, 30, "kitchen"), (201, 230, "living room"), (301, 330, "bedroom"), (401, 430, "bathroom"))
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Event(Protocol):
    """What the simulator says after an action."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Of the scene."""
        ...

    @property
    def frame(self) -> Any:
        """What is seen, shape (H, W, 3)."""
        ...


class Controller(Protocol):
    """`ai2thor.controller.Controller`, as far as it is used."""

    @property
    def last_event(self) -> Event:
        """What the last action gave."""
        ...

    def step(self, action: str, **given: Any) -> Event:
        """Do something."""
        ...


@dataclass(frozen=True)
class Dumped:
    """A scene, and what of it the simulator calls how. objects: its id of each receptacle and thing. poses: those that
    each receptacle can be reached from, by cell. height: of the agent's position; corner: the cell that became (0, 0).
    """

    scene: Scene
    objects: Mapping[str, str] = field(default_factory=dict)
    poses: Mapping[str, Mapping[Cell, Mapping[str, Any]]] = field(default_factory=dict)
    height: float = 0.0
    corner: Cell = (0, 0)

    def position(self, cell: Cell) -> dict[str, float]:
        """Where a cell is."""
        return {"x": (cell[0] + self.corner[0]) * GRID, "y": self.height, "z": -(cell[1] + self.corner[1]) * GRID}


def dumped(controller: Controller, house: Mapping[str, Any] | None = None) -> Dumped:
    """The scene that a controller shows.

    Args:
        house: of ProcTHOR, for its rooms; else the scene is one.

    Raises:
        DataError: the simulator refuses, or there is no place that things lie on and that can be reached.
    """
    reached = _returned(controller, "GetReachablePositions")
    if not reached:
        raise DataError("ai2thor", "-", "GetReachablePositions", "no position can be reached; expected some")
    objects = controller.last_event.metadata["objects"]
    raw = {_cell(one) for one in reached}
    corner = (min(x for x, _ in raw), min(y for _, y in raw))
    walkable = frozenset((x - corner[0], y - corner[1]) for x, y in raw)

    def here(position: Mapping[str, float]) -> Cell:
        x, y = _cell(position)
        return x - corner[0], y - corner[1]

    rooms, names = _rooms(walkable, house, here, str(controller.last_event.metadata.get("sceneName", "")))
    room_of = {cell: room for room, cells in rooms.items() for cell in cells}
    held: list[Receptacle] = []
    poses: dict[str, dict[Cell, Mapping[str, Any]]] = {}
    called: dict[str, str] = {}
    names_of = _named(objects)
    for one in objects:
        if not one.get("receptacle") or one.get("pickupable"):
            continue
        given = _returned(controller, "GetInteractablePoses", objectId=one["objectId"])
        found = {here(pose): pose for pose in given or ()}
        views = tuple(sorted(cell for cell in found if cell in walkable))
        if views:
            kind, openable = _words(one["objectType"]), bool(one.get("openable"))
            name, cell = names_of[one["objectId"]], here(one["position"])
            room = min((_apart(view, cell), room_of[view]) for view in views)[1]
            held.append(Receptacle(name, kind, room, cell, openable, views))
            poses[name] = {view: found[view] for view in views}
            called[name] = one["objectId"]
    if not held:
        raise DataError("ai2thor", "-", "objects", "no receptacle can be reached; expected some")
    things = tuple(_things(objects, names_of, called))
    name = str(controller.last_event.metadata.get("sceneName", "scene"))
    scene = Scene(name, GRID, walkable, rooms, names, tuple(held), things)
    return Dumped(scene, called, poses, float(reached[0]["y"]), corner)


def search_in(
    controller: Controller, category: str, seed: int, *, hours: float = 12.0, prices: Prices | None = None,
    house: Mapping[str, Any] | None = None,
) -> tuple[Dumped, Episode]:  # fmt: skip
    """A search for something of a category, which lay elsewhere some hours ago: things are thrown about twice, and
    where they were the first time is remembered.

    Raises:
        DataError: nothing is called so, or the simulator refuses.
    """
    _returned(controller, "InitialRandomSpawn", randomSeed=2 * seed, forceVisible=True)
    before = dumped(controller, house)
    _returned(controller, "InitialRandomSpawn", randomSeed=2 * seed + 1, forceVisible=True)
    now = dumped(controller, house)
    rng = random.Random(f"thor/{seed}")
    candidates = [thing.id for thing in now.scene.things if thing.category == category]
    if not candidates:
        known = sorted({thing.category for thing in now.scene.things})
        raise DataError("ai2thor", "-", category, f"nothing is called {category!r}; expected one of {', '.join(known)}")
    rng.shuffle(candidates)
    lay = [thing for thing in before.scene.things if thing.category == category]
    notes = [replace(seen_now(thing, before.scene), hours=hours) for thing in lay]
    target = now.scene.thing[candidates[0]]
    knows = {name for name in VALUES if getattr(target, name) != UNKNOWN} | {"room"}
    ways = now.scene.steps(now.scene.by_id[target.receptacle].views[0])
    start = rng.choice(sorted(ways))
    name, said = f"{now.scene.id}-{seed}", f"Bring me the {category}."
    memory = tuple(map(_nothing_guessed, notes))
    return now, Episode(
        name, now.scene, start, said, tuple(candidates), memory, frozenset(knows), prices=prices or Prices()
    )


@dataclass
class ThorHousehold(Household):
    """A search in the simulator: ways cost what its paths are long, to which place one goes it goes, what is closed is
    opened, and what it says is visible is seen. `frame` is the picture from there. It is driven by `message` and `act`;
    the agent searches what was dumped."""

    controller: Controller | None = None
    dump: Dumped | None = None
    frame: Any = None

    def _way(self, receptacle: str) -> tuple[Cell, float] | None:
        assert self.controller is not None and self.dump is not None, "made by `in_simulator`"
        found = super()._way(receptacle)
        return found and (found[0], walked(self.controller, self.dump, receptacle, self.at))

    def _look(self, receptacle: str) -> str:
        assert self.controller is not None and self.dump is not None, "made by `in_simulator`"
        told = super()._look(receptacle)
        pose = self.dump.poses[receptacle][self.at]
        names = ("x", "y", "z", "rotation", "standing", "horizon")
        given = {name: pose[name] for name in names if name in pose}
        position = {name: given.pop(name) for name in ("x", "y", "z")}
        turned = given.get("rotation", 0.0)
        given["rotation"] = turned if isinstance(turned, Mapping) else {"x": 0.0, "y": turned, "z": 0.0}
        event = self.controller.step("Teleport", position=position, **given)
        if self.search.scene.by_id[receptacle].openable:
            event = self.controller.step("OpenObject", objectId=self.dump.objects[receptacle], forceAction=True)
        self.frame = event.frame
        visible = {one["objectId"] for one in event.metadata["objects"] if one.get("visible")}
        here = tuple(thing for thing in self.visible if self.dump.objects[thing.id] in visible)
        hidden = {thing.id for thing in self.visible} - {thing.id for thing in here}
        if not hidden:
            return told
        self.visible, self.seen = here, {name: thing for name, thing in self.seen.items() if name not in hidden}
        held = ", ".join(f"{t.id} ({t.color} {t.material}, {t.size})" for t in here)
        return f"On {receptacle} in the {self.room_of(receptacle)}: {held or 'nothing'}."


def in_simulator(controller: Controller, dump: Dumped, search: Episode) -> ThorHousehold:
    """A search that is acted out there, from where it begins."""
    controller.step("Teleport", position=dump.position(search.start))
    return ThorHousehold(search, controller=controller, dump=dump)


def walked(controller: Controller, dump: Dumped, receptacle: str, at: Cell) -> float:
    """Metres to a receptacle by the simulator's own path; by ours, over the cells, where it finds none.

    Raises:
        DataError: there is no way at all.
    """
    event = controller.step(
        "GetShortestPath", objectId=dump.objects[receptacle], position=dump.position(at), raise_for_failure=False
    )
    if event.metadata.get("lastActionSuccess"):
        corners = event.metadata["actionReturn"]["corners"]
        return sum(sum((a[k] - b[k]) ** 2 for k in ("x", "y", "z")) ** 0.5 for a, b in pairwise(corners))
    found = dump.scene.view(receptacle, at)
    if found is None:
        raise DataError("ai2thor", "-", receptacle, "cannot be reached; expected a way over the floor")
    return found[1]


def _returned(controller: Controller, action: str, **given: Any) -> Any:
    event = controller.step(action, **given)
    if not event.metadata.get("lastActionSuccess", True):
        said = event.metadata.get("errorMessage", "no reason")
        raise DataError("ai2thor", "-", action, f"the simulator refused ({said}); expected it to be done")
    return event.metadata.get("actionReturn")


def _cell(position: Mapping[str, float]) -> Cell:
    """On the grid; further back is further down."""
    return round(position["x"] / GRID), round(-position["z"] / GRID)


def _words(kind: str) -> str:
    return _CAPITAL.sub("_", kind).lower()


def _named(objects: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What everything is called here, by the simulator's ids: the same wherever things lie."""
    order = sorted((_words(one["objectType"]), one["objectId"]) for one in objects)
    kinds = groupby(order, lambda one: one[0])
    return {name: f"{kind}-{number}" for kind, some in kinds for number, (_, name) in enumerate(some)}


def _things(objects: Iterable[Mapping[str, Any]], names: Mapping[str, str], called: dict[str, str]) -> Iterable[Thing]:
    """What can be carried and lies on a receptacle that is known; `called` learns what the simulator calls it."""
    places = set(called)
    for one in objects:
        parents = [names[parent] for parent in one.get("parentReceptacles") or () if parent in names]
        place = next((parent for parent in parents if parent in places), None)
        if not one.get("pickupable") or place is None:
            continue
        name = names[one["objectId"]]
        called[name] = one["objectId"]
        materials = [material.lower() for material in one.get("salientMaterials") or ()]
        sides = (one.get("axisAlignedBoundingBox") or {}).get("size") or {}
        size = "large" if max(sides.values(), default=0.0) >= LARGE else "small"
        yield Thing(name, _words(one["objectType"]), UNKNOWN, (materials or [UNKNOWN])[0], size, place)


def _nothing_guessed(noted: Noted) -> Noted:
    """What cannot be read off was not noted."""
    color, material, size = (None if value == UNKNOWN else value for value in (noted.color, noted.material, noted.size))
    return replace(noted, color=color, material=material, size=size)


def _rooms(
    walkable: frozenset[Cell], house: Mapping[str, Any] | None, here: Callable[[Mapping[str, float]], Cell], name: str
) -> tuple[dict[str, tuple[Cell, ...]], dict[str, str]]:
    """Cells of each room, and what it is called; cells in none are of the nearest."""
    if house is None:
        number = int(re.sub(r"\D", "", name) or 0)
        kind = next((kind for first, last, kind in _ROOMS if first <= number <= last), "room")
        return {"room-0": tuple(sorted(walkable))}, {"room-0": kind}
    rooms: dict[str, list[Cell]] = {str(room["id"]): [] for room in house["rooms"]}
    edges = {str(room["id"]): [here(corner) for corner in room["floorPolygon"]] for room in house["rooms"]}
    for cell in sorted(walkable):
        inside = [room for room, polygon in edges.items() if _inside(cell, polygon)]
        rooms[(inside or [min(edges, key=lambda room: _away(cell, edges[room]))])[0]].append(cell)
    kinds = {str(room["id"]): _words(str(room.get("roomType", "room"))).replace("_", " ") for room in house["rooms"]}
    return {room: tuple(cells) for room, cells in rooms.items()}, kinds


def _inside(cell: Cell, polygon: Sequence[Cell]) -> bool:
    """Whether a cell lies in a polygon, by how often a ray from it crosses the edges."""
    x, y = cell
    crossed = False
    for (ax, ay), (bx, by) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (ay > y) != (by > y) and x < (bx - ax) * (y - ay) / (by - ay) + ax:
            crossed = not crossed
    return crossed


def _away(cell: Cell, polygon: Sequence[Cell]) -> float:
    return min(_apart(cell, corner) for corner in polygon)


def _apart(one: Cell, other: Cell) -> float:
    """The square of how far cells are apart."""
    return (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2
