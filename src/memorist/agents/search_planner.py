"""A planner for searching a household: what it believes of things and places, and the act that is cheapest on average
over worlds drawn from that (sections 6.3 and 6.4 of the specification). A strong baseline, no part of it is learnt."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from memorist.tasks.household.belief import entropy, still_there, told_by, unmatched
from memorist.tasks.household.episode import Noted
from memorist.tasks.household.scene import VALUES, Cell, Scene, Thing
from memorist.tasks.household.world import Act, Household

WORLDS, PLACES = 16, 4
"""Worlds that an act is tried in, and places that are tried."""
READS = 1.0
"""Memory is looked at first where that costs at most so much, and else not at all: what it would say is not weighed."""
Looks = tuple[str, str, str]
_NAMES = tuple(VALUES)


def gain(values: Sequence[str]) -> float:
    """Bits that the answer to a question tells of which of equally likely candidates is meant, by the value of each."""
    groups = [values.count(value) for value in dict.fromkeys(values)]
    return entropy([1.0] * len(values)) - sum(n / len(values) * entropy([1.0] * n) for n in groups)


@dataclass(frozen=True)
class World:
    """What may be: the looks and the place of each candidate, the meant one first."""

    looks: tuple[Looks, ...]
    places: tuple[str, ...]


@dataclass
class Belief:
    """What is known of a search. known: attributes of what is meant; room: its room, once told. asked: attributes and
    "room". refused: whether the user answers no more."""

    known: dict[str, str] = field(default_factory=dict)
    room: str = ""
    asked: set[str] = field(default_factory=set)
    refused: bool = False

    def fits(self, looks: Mapping[str, str | None]) -> bool:
        """Whether something with these looks may be meant; None may be anything."""
        return all(looks[name] in (None, value) for name, value in self.known.items())

    def worlds(self, house: Household, rng: random.Random, count: int = WORLDS) -> list[World]:
        """Worlds in which all that is known is so."""
        found: list[World] = []
        for _ in range(40 * count):
            made = self._drawn(house, rng)
            if made is not None:
                found.append(made)
                if len(found) == count:
                    break
        return found

    def _drawn(self, house: Household, rng: random.Random) -> World | None:
        scene, search = house.search.scene, house.search
        seen = [t for t in house.seen.values() if t.category == search.category]
        noted = unmatched(house.recalled, seen)
        left = [r.id for r in scene.receptacles if r.id not in house.visited]
        things: list[tuple[Looks, str]] = [(t.looks, t.receptacle) for t in seen]
        for one in noted:
            place = _placed(one, left, len(scene.receptacles), rng)
            if place is None:
                return None
            things.append((_filled(one, rng), place))
        while len(things) < len(search.candidates):
            if not left:
                return None
            color, material, size = (rng.choice(VALUES[name]) for name in _NAMES)
            things.append(((color, material, size), rng.choice(left)))
        may = [
            i for i, (looks, place) in enumerate(things)
            if self.fits(dict(zip(_NAMES, looks, strict=True)))
            and self.room in ("", scene.names[scene.by_id[place].room])
        ]  # fmt: skip
        # Each thing was meant with equal odds before: a world where few fit what was said is the less likely for it.
        if not may or rng.random() >= len(may) / len(things):
            return None
        meant = rng.choice(may)
        order = [meant, *(i for i in range(len(things)) if i != meant)]
        return World(tuple(things[i][0] for i in order), tuple(things[i][1] for i in order))


def _placed(noted: Noted, left: Sequence[str], places: int, rng: random.Random) -> str | None:
    """Where something that was seen may be now, of the places that are left; None where it is in none."""
    others = [place for place in left if place != noted.receptacle]
    stays = still_there(noted.hours) if noted.receptacle in left else 0.0
    moved = (1 - still_there(noted.hours)) * len(others) / max(1, places - 1)
    if stays + moved <= 0:
        return None
    return noted.receptacle if rng.random() < stays / (stays + moved) else rng.choice(others)


def _filled(noted: Noted, rng: random.Random) -> Looks:
    color, material, size = (getattr(noted, name) or rng.choice(VALUES[name]) for name in _NAMES)
    return color, material, size


class Planner:
    """Tries each act in worlds drawn from what it believes, completes it by going where it may be and sweeping, and
    does what costs least, a failure counted.

    Args:
        seed: of the worlds.
    """

    def __init__(self, seed: int = 0, worlds: int = WORLDS) -> None:
        self.rng, self.count, self.belief = random.Random(seed), worlds, Belief()
        self._pending = ""
        self._views: dict[tuple[str, Cell], tuple[Cell, float] | None] = {}

    def next(self, house: Household) -> Act:
        """The cheapest act."""
        self._listen(house)
        self.belief.known = {**dict(house.search.attributes), **self.belief.known}
        if not house.read and house.search.prices.memory <= READS:
            return Act("GetMemory", house.search.category)
        worlds = self.belief.worlds(house, self.rng, self.count)
        if not worlds:
            return self._anywhere(house)
        acts = self._acts(house)
        best = min(acts, key=lambda act: (self._expected(act, house, worlds), str(act)))
        if best.name == "Ask":
            self._pending = next(n for n in (*_NAMES, "room") if n in best.given)
            self.belief.asked.add(self._pending)
        return best

    def _listen(self, house: Household) -> None:
        if self._pending and house.log:
            said, done = house.log[-1]
            self.belief.refused = self.belief.refused or "busy" in done.seen
            for name, value in told_by(said, done.seen):
                if name == "room":
                    self.belief.room = value
                else:
                    self.belief.known[name] = value
            self._pending = ""

    def _anywhere(self, house: Household) -> Act:
        left = [r.id for r in house.search.scene.receptacles if r.id not in house.visited]
        if left:
            scene = house.search.scene
            return Act("Navigate", min(left, key=lambda place: (self._metres(scene, house.at, place), place)))
        return Act("Stop", next(iter(house.seen), "nothing"))

    def _acts(self, house: Household) -> list[Act]:
        here = [t for t in house.visible if t.category == house.search.category and self._may(t)]
        acts = [Act("Stop", thing.id) for thing in here]
        if not self.belief.refused:
            unknown = [name for name in _NAMES if name not in self.belief.asked | self.belief.known.keys()]
            acts += [Act("Ask", f"Which {name} is it?") for name in unknown]
            acts += [Act("Ask", "In which room is it?")] if "room" not in self.belief.asked else []
        acts += [Act("Navigate", place) for place in self._order(house, house.at, set(house.visited))[:PLACES]]
        acts += [
            Act("Navigate", t.receptacle)
            for t in house.seen.values()
            if t.category == house.search.category and self._may(t) and t.receptacle != house.standing
        ]
        return acts or [self._anywhere(house)]

    def _may(self, thing: Thing) -> bool:
        return self.belief.fits({name: getattr(thing, name) for name in _NAMES})

    def _order(
        self, house: Household, at: Cell, visited: set[str], known: Mapping[str, str] | None = None
    ) -> list[str]:
        """Places left, those first where something that may be meant was seen, the likeliest for their distance
        first."""
        scene = house.search.scene
        known = self.belief.known if known is None else known
        likely: dict[str, float] = {}
        for one in house.recalled:
            if one.receptacle not in visited and all(getattr(one, k) in (None, v) for k, v in known.items()):
                likely[one.receptacle] = likely.get(one.receptacle, 0.0) + still_there(one.hours)
        metres = {r.id: self._metres(scene, at, r.id) for r in scene.receptacles if r.id not in visited}
        room = self.belief.room
        near = sorted(metres, key=lambda p: (room not in ("", scene.names[scene.by_id[p].room]), metres[p], p))
        return sorted(near, key=lambda place: -likely.get(place, 0.0) / (1.0 + metres[place]))

    def _metres(self, scene: Scene, at: Cell, place: str) -> float:
        found = self._view(scene, at, place)
        return math.inf if found is None else found[1]

    def _view(self, scene: Scene, at: Cell, place: str) -> tuple[Cell, float] | None:
        key = (place, at)
        if key not in self._views:
            self._views[key] = scene.view(place, at)
        return self._views[key]

    def _expected(self, act: Act, house: Household, worlds: Sequence[World]) -> float:
        return sum(self._tried(act, house, world) for world in worlds) / len(worlds)

    def _tried(self, act: Act, house: Household, world: World) -> float:
        """What an act and a plain completion cost in a world."""
        prices, known, visited = house.search.prices, dict(self.belief.known), set(house.visited)
        if act.name == "Stop":
            thing = house.seen[act.given]
            right = (thing.looks, thing.receptacle) == (world.looks[0], world.places[0])
            return 0.0 if right else prices.failure
        if act.name == "Ask":
            name = next((n for n in _NAMES if n in act.given), "room")
            cost = prices.question(house.asked)
            if name != "room":
                known[name] = world.looks[0][_NAMES.index(name)]
                return cost + self._completed(house, world, house.at, visited, known, house.standing)
            told = house.search.scene.by_id[world.places[0]].room
            plain = self._completed(house, world, house.at, visited, known, house.standing)
            helped = self._completed(house, world, house.at, visited, known, house.standing, told)
            return cost + 0.5 * (plain + helped)
        return self._completed(house, world, house.at, visited, known, "", first=act.given)

    def _completed(
        self, house: Household, world: World, at: Cell, visited: set[str], known: Mapping[str, str], standing: str,
        room: str = "", first: str = "",
    ) -> float:  # fmt: skip
        """Go where it may be, then sweep, and stop at the first that has what is known."""
        scene, price, cost = house.search.scene, house.search.prices.metre, 0.0
        failed = house.search.prices.failure
        lies: dict[str, list[int]] = {}
        for i, place in enumerate(world.places):
            lies.setdefault(place, []).append(i)

        def has(some: Iterable[int]) -> bool:
            told = [(_NAMES.index(name), value) for name, value in known.items()]
            return any(all(world.looks[i][at_] == value for at_, value in told) for i in some)

        # What was seen and may be meant is gone back to when nothing is left.
        order = [first] if first else ([standing] if standing else [])
        while True:
            if not order:
                places = self._order(house, at, visited, known)
                order = [place for place in places if room in ("", scene.by_id[place].room)][:1]
                order = order or [place for place in lies if place in visited and has(lies[place])][:1]
                if not order:
                    return cost + failed
            place = order.pop()
            found = self._view(scene, at, place)
            if found is None:
                return cost + failed
            if place != standing:
                at, cost = found[0], cost + found[1] * price
            standing = place
            visited = visited | {place}
            for i in lies.get(place, ()):
                if has([i]):
                    return cost + (0.0 if i == 0 else failed)
            if len(visited) >= len(scene.receptacles) and not has(range(len(world.looks))):
                return cost + failed
