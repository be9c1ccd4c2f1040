"""Ways to search a household that are written down: baselines of a trained one, and what its base imitates (section 6.5
of the specification). Each is made anew for a search, sees what one who acts can see, and knows the home's plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from memorist.tasks.household.belief import told_by
from memorist.tasks.household.episode import Episode, Noted
from memorist.tasks.household.scene import VALUES, Thing
from memorist.tasks.household.world import Act, Household


class Searcher(Protocol):
    """Decides what to do next."""

    def next(self, house: Household) -> Act:
        """The next act of a search that is not over."""
        ...


def nearest(house: Household, places: list[str]) -> str:
    """The nearest of some receptacles, ties by their ids; the first where none can be reached."""
    found = [(view[1], place) for place in places if (view := house.search.scene.view(place, house.at)) is not None]
    return min(found)[1] if found else places[0]


def _left(place: str, house: Household) -> bool:
    """Whether there is such a place, which was not looked at and can be reached."""
    scene = house.search.scene
    return place in scene.by_id and place not in house.visited and scene.view(place, house.at) is not None


class _Sweep:
    """Goes from place to place, nearest first, and stops at what fits."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.pending = ""

    def next(self, house: Household) -> Act:
        """Listen, stop, or go on."""
        self._listen(house)
        self.known = {**dict(house.search.attributes), **self.known}
        for thing in house.visible:
            if self.fits(thing, house):
                return Act("Stop", thing.id)
        return self._further(house)

    def fits(self, thing: Thing, house: Household) -> bool:
        """Whether it may be what is meant."""
        return thing.category == house.search.category and all(getattr(thing, k) == v for k, v in self.known.items())

    def _further(self, house: Household) -> Act:
        left = [r.id for r in house.search.scene.receptacles if _left(r.id, house)]
        if left:
            return Act("Navigate", nearest(house, left))
        return Act("Stop", next(iter(house.seen), "nothing"))

    def ask(self, attribute: str) -> Act:
        """Ask for an attribute, and remember that it was asked."""
        self.pending = attribute
        return Act("Ask", f"Which {attribute} is it?")

    def _listen(self, house: Household) -> None:
        """Take the answer to the last question."""
        if self.pending and house.log:
            said, done = house.log[-1]
            self.known |= {name: value for name, value in told_by(said, done.seen) if name in VALUES}
            self.pending = ""


class BruteForce(_Sweep):
    """Stops at the first thing of the category."""


class AskThenSweep(_Sweep):
    """Asks for some attributes, then looks for what has them."""

    def __init__(self, attributes: tuple[str, ...] = ("color", "material")) -> None:
        super().__init__()
        self.questions = list(attributes)

    def next(self, house: Household) -> Act:
        """Ask first."""
        self._listen(house)
        while self.questions:
            name = self.questions.pop(0)
            if name not in dict(house.search.attributes):
                return self.ask(name)
        return super().next(house)


class MemoryOnly(_Sweep):
    """Goes where things of the category were, nearest first, stops at the first, then sweeps."""

    def next(self, house: Household) -> Act:
        """Remember first."""
        if not house.read:
            return Act("GetMemory", house.search.category)
        return super().next(house)

    def _further(self, house: Household) -> Act:
        left = [one.receptacle for one in house.recalled if _left(one.receptacle, house)]
        return Act("Navigate", nearest(house, left)) if left else super()._further(house)


class MemoryAndAsk(_Sweep):
    """Remembers, asks what that leaves open, goes where what fits was, then sweeps with what it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def next(self, house: Household) -> Act:
        """Remember, ask, go."""
        self._listen(house)
        self.known = {**dict(house.search.attributes), **self.known}
        if not house.read:
            return Act("GetMemory", house.search.category)
        held = house.recalled
        if "color" not in self.asked | self.known.keys():
            self.asked.add("color")
            colors = {one.color for one in held}
            if len(held) < len(house.search.candidates) or len(colors) > 1 or None in colors:
                return self.ask("color")
        if "material" not in self.asked | self.known.keys():
            self.asked.add("material")
            if len(self._fitting(held)) > 1:
                return self.ask("material")
        return super().next(house)

    def _fitting(self, held: tuple[Noted, ...]) -> list[Noted]:
        return [one for one in held if all(getattr(one, k) in (None, v) for k, v in self.known.items())]

    def _further(self, house: Household) -> Act:
        left = [one for one in self._fitting(house.recalled) if _left(one.receptacle, house)]
        whole = [one for one in left if all(getattr(one, name) is not None for name in VALUES)]
        if left:
            return Act("Navigate", nearest(house, [one.receptacle for one in whole or left]))
        return super()._further(house)


class Oracle:
    """Knows where it is: the bound."""

    def next(self, house: Household) -> Act:
        """Go there and stop."""
        target = house.search.target
        return Act("Stop", target.id) if house.standing == target.receptacle else Act("Navigate", target.receptacle)


SEARCHERS: dict[str, Callable[[], Searcher]] = {
    "brute-force": BruteForce,
    "memory-only": MemoryOnly,
    "ask-then-sweep": AskThenSweep,
    "memory-and-ask": MemoryAndAsk,
    "oracle": Oracle,
}


def searched(search: Episode, searcher: Searcher) -> Household:
    """A search to its end."""
    house = Household(search)
    while not house.over:
        house.act(searcher.next(house))
    return house
