"""What can be known of where something is, exactly: of each place how likely what is meant lies there, by what was
seen, remembered and answered (section 6.3 of the specification)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from memorist.tasks.household.episode import HOURS, Noted
from memorist.tasks.household.scene import VALUES, Cell, Scene, Thing
from memorist.tasks.household.world import Household

QUESTIONS = (*VALUES, "room")
"""What one can ask for."""
METRES_A_BIT = 4.0
"""About what a bit of not knowing costs in a sweep: 18 places are 4.2 bits and some 20 metres."""


def still_there(hours: float) -> float:
    """How likely something is where it was seen so many hours ago."""
    return math.exp(-hours / HOURS)


def entropy(shares: Sequence[float]) -> float:
    """In bits, of shares of any sum."""
    total = sum(shares)
    return -sum(s / total * math.log2(s / total) for s in shares if s > 0) if total else 0.0


def unmatched(memory: Sequence[Noted], seen: Sequence[Thing]) -> list[Noted]:
    """Memories of things that have not been seen since, as far as looks tell."""
    left = list(memory)
    for thing in seen:
        fitting = sorted((one for one in left if one.fits(thing)), key=lambda one: one.receptacle != thing.receptacle)
        if fitting:
            left.remove(fitting[0])
    return left


def places(house: Household, known: Mapping[str, str], room: str = "") -> dict[str, float]:
    """How likely what is meant lies on each receptacle; of sum 1, or empty where nothing fits what is known.

    Args:
        known: attributes of what is meant, by name.
        room: its room; "" where that is not known.
    """
    scene, search = house.search.scene, house.search
    left = [one.id for one in scene.receptacles if one.id not in house.visited]
    seen = [thing for thing in house.seen.values() if thing.category == search.category]
    found: dict[str, float] = {}

    def add(weight: float, where: Mapping[str, float]) -> None:
        for place, share in where.items():
            if room in ("", scene.names[scene.by_id[place].room]):
                found[place] = found.get(place, 0.0) + weight * share

    for thing in seen:
        add(_alike((thing.color, thing.material, thing.size), known), {thing.receptacle: 1.0})
    noted = unmatched(house.recalled, seen)
    for one in noted:
        add(_alike((one.color, one.material, one.size), known), _lies(one, left, len(scene.receptacles)))
    others = max(0, len(search.candidates) - len(seen) - len(noted))
    if left and others:
        add(others * _alike((None, None, None), known), dict.fromkeys(left, 1 / len(left)))
    total = sum(found.values())
    return {place: share / total for place, share in found.items() if share > 0} if total else {}


def _alike(looks: Sequence[str | None], known: Mapping[str, str]) -> float:
    """How likely something of these looks has what is known; None may be anything."""
    share = 1.0
    for name, value in zip(VALUES, looks, strict=True):
        if name in known:
            share *= 1 / len(VALUES[name]) if value is None else float(value == known[name])
    return share


def _lies(noted: Noted, left: Sequence[str], count: int) -> dict[str, float]:
    """Where something that was seen may be, of the places that are left; of sum 1, unless it is in none."""
    others = [place for place in left if place != noted.receptacle]
    moved = (1 - still_there(noted.hours)) / max(1, count - 1)
    shares = dict.fromkeys(others, moved)
    if noted.receptacle in left:
        shares[noted.receptacle] = still_there(noted.hours)
    total = sum(shares.values())
    return {place: share / total for place, share in shares.items()} if total else {}


def still_to_walk(house: Household, known: Mapping[str, str], room: str = "") -> float:
    """About how many metres are left: to where it may be, on average, and what a bit of not knowing costs in each."""
    likely = places(house, known, room)
    if not likely:
        return 0.0
    scene = house.search.scene
    away = sum(share * _away(scene, house.at, place) for place, share in likely.items())
    return away + METRES_A_BIT * entropy(list(likely.values()))


def _away(scene: Scene, at: Cell, place: str) -> float:
    found = scene.view(place, at)
    return 0.0 if found is None else found[1]


@dataclass
class Told:
    """What one was told of what is meant. known: attributes; room: its room; asked: what one asked for."""

    known: dict[str, str] = field(default_factory=dict)
    room: str = ""
    asked: set[str] = field(default_factory=set)

    def fits(self, looks: Sequence[str | None], room: str = "") -> bool:
        """Whether something of these looks, in this room, may be meant; None, or "", may be anything."""
        alike = all(looks[i] in (None, self.known.get(name, looks[i])) for i, name in enumerate(VALUES))
        return alike and (not room or not self.room or room == self.room)


def told(house: Household) -> Told:
    """What the instruction and the answers to one's own questions say."""
    found = Told(dict(house.search.attributes))
    for said, step in house.log:
        if said.startswith("<action>Ask("):
            found.asked |= {name for name in QUESTIONS if f" {name}" in said}
            for name, value in told_by(said, step.seen):
                if name == "room":
                    found.room = value
                else:
                    found.known[name] = value
    return found


def told_by(said: str, answer: str) -> Iterator[tuple[str, str]]:
    """What an answer to a question of one attribute, or of the room, says: its name and value."""
    name = next((name for name in QUESTIONS if f" {name}" in said), "")
    if name == "room" and answer.startswith("In the "):
        yield name, answer.removeprefix("In the ").rstrip(".")
    elif name in VALUES and answer.startswith("It is "):
        yield name, answer.removeprefix("It is ").rstrip(".")


def remaining(house: Household) -> list[float]:
    """What was still to be walked, about, before each step of a search that has been: seen as it was then."""
    again = Household(house.search, notes=lambda: list(house.recalled))
    found: list[float] = []
    for said, _ in house.log:
        known = told(again)
        found.append(still_to_walk(again, known.known, known.room))
        again.message(said)
    return found
