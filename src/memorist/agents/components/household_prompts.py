"""How one who searches a household is asked: by rules that any model can follow, or by a list of what can be done,
which a small one is trained on."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from memorist.agents.components.tags import blocks
from memorist.tasks.household.belief import QUESTIONS, Told, told
from memorist.tasks.household.episode import Prices
from memorist.tasks.household.scene import VALUES, Thing
from memorist.tasks.household.world import Act, Household

RULES = """You look for something in a home. Several things may be called so; one is meant. Each step, write one action
inside <action> and </action> and nothing after it. You may think first. The actions:
<action>Navigate("place")</action> walks to a place, or to something that was seen, and shows what is there;
<action>Ask("question")</action> asks the one who wants it;
<action>GetMemory("what")</action> says where such things were seen, and when: they may have been moved;
<action>Stop("thing")</action> ends the search with something that is in front of you."""
KEEP = """You have looked for something in a home and will look for other things there later. Say which of what you saw
is worth remembering: their names, one after the other, inside <remember> and </remember>; nothing else is kept."""
COSTS = "Spend little: each of these is paid for as you are told. Not to find it costs most."
NEAR, MOST = 3, 16
"""Places that are offered because they are near; choices in a list at most."""
DEAREST = 60
"""From which cost on all are told alike."""
WORTH = (12, 25, 50, 100, 200)
"""What it is worth to find a thing is told as the one of these that is nearest by ratio: each is seen often enough to
mean something."""


def question(name: str) -> Act:
    """Asks for an attribute, or for the room."""
    return Act("Ask", "In which room is it?" if name == "room" else f"Which {name} is it?")


@dataclass(frozen=True)
class Choice:
    """Something to do next, as it is told."""

    text: str
    act: Act


def choices(house: Household, costs: bool = True) -> list[Choice]:
    """What can sensibly be done: remember, ask, stop at what may be meant and is here, go where such a thing was seen
    or is remembered, or to what is near. What does not fit what is known is not offered: small models compare badly."""
    known, search = told(house), house.search
    found: list[Choice] = []
    if not house.read:
        found.append(Choice(f"memory{_priced(search.prices.memory, costs)}", Act("GetMemory", search.category)))
    price = search.prices.question(house.asked)
    for name in QUESTIONS:
        if name not in known.asked and name not in known.known:
            found.append(Choice(f"{name}{_priced(price, costs)}", question(name)))
    here = [thing for thing in house.visible if thing.category == search.category and known.fits(thing.looks)]
    found += [Choice(f"stop {_looks(one.looks)}", Act("Stop", one.id)) for one in here]
    found += _ways(house, known, costs)
    return found[:MOST] or _ways(house, Told(), costs, again=True)[:MOST]


def _ways(house: Household, known: Told, costs: bool, again: bool = False) -> list[Choice]:
    """Where to go, by what it costs; where one has been too, where nothing else is left."""
    scene, search = house.search.scene, house.search
    metres = {one.id: view[1] for one in scene.receptacles if (view := scene.view(one.id, house.at)) is not None}
    rooms = {one.id: scene.names[one.room] for one in scene.receptacles}
    found: list[tuple[float, str, str]] = []
    taken = set() if again else set(house.visited)
    for note in house.recalled:
        looks, place = (note.color, note.material, note.size), note.receptacle
        if place not in taken and place in metres and known.fits(looks, rooms[place]):
            taken.add(place)
            found.append((metres[place], place, f" {note.hours:.0f} h {_looks(looks)}"))
    for thing in house.seen.values():
        may = thing.category == search.category and known.fits(thing.looks, rooms[thing.receptacle])
        if may and thing.receptacle != house.standing and thing.receptacle in metres:
            found.append((metres[thing.receptacle], thing.receptacle, f" seen {_looks(thing.looks)}"))
    left = sorted((way, place) for place, way in metres.items() if place not in taken)
    there = [one for one in left if rooms[one[1]] == known.room][:NEAR]
    near = [one for one in left if one not in there][: NEAR if not there else 1]
    found += [(way, place, " there") for way, place in there] + [(way, place, "") for way, place in near]
    rate = search.prices.metre
    return [
        Choice(f"go{_priced(way * rate, costs)}{said}", Act("Navigate", place)) for way, place, said in sorted(found)
    ]


def worth(prices: Prices) -> int:
    """What finding is worth, as it is told."""
    return min(WORTH, key=lambda one: abs(math.log(max(prices.failure, 1) / one)))


def compact(house: Household, offered: Sequence[Choice], costs: bool = True) -> str:
    """What is looked for, what is known of it, and what can be done, each with its letter."""
    known, search = told(house), house.search
    wanted = [known.known.get(name, "?") for name in VALUES]
    lines = [
        f"Find: {search.category} {len(search.candidates)}{f' worth {worth(search.prices)}' if costs else ''}",
        f"Known: {' '.join([*wanted, known.room or '?'])}",
    ]
    lines += [f"{one.text} = {letter}" for one, letter in zip(offered, string.ascii_lowercase, strict=False)]
    return "\n".join([*lines, "Act:"])


def one_letter(given: str) -> str:
    """A grammar of one letter among the first so many."""
    return "start: " + " | ".join(f'"{letter}"' for letter in string.ascii_lowercase[: int(given)])


def some_letters(given: str) -> str:
    """A grammar of any letters among the first so many, each once and in order; of none."""
    return "start: " + " ".join(f'"{letter}"?' for letter in string.ascii_lowercase[: int(given)])


def chosen(reply: str, offered: Sequence[Choice]) -> Act | None:
    """What a reply's letter stands for; None where it stands for nothing."""
    letter = reply.strip()
    place = string.ascii_lowercase.find(letter) if len(letter) == 1 else -1
    return offered[place].act if 0 <= place < len(offered) else None


def _priced(price: float, costs: bool) -> str:
    """A cost, more roughly the larger it is, so that there are few to learn."""
    if not costs:
        return ""
    near = round(price / 0.05) * 0.05 if price < 1 else round(price * 2) / 2 if price < 10 else round(price)
    return f" {near:.2f}" if price < 1 else f" {min(near, DEAREST):g}"


def _looks(looks: Sequence[str | None]) -> str:
    return " ".join(value or "?" for value in looks)


def keeping(things: Sequence[Thing], wanted: str) -> str:
    """Asks what of the things that were seen is to be remembered, each with its letter."""
    lines = [
        f"{one.category} {_looks(one.looks)} = {letter}"
        for one, letter in zip(things, string.ascii_lowercase, strict=False)
    ]
    return "\n".join([f"Found: {wanted}", *lines, "Keep:"])


def kept(reply: str, things: Sequence[Thing], *, letters: bool) -> list[Thing]:
    """What a reply says is to be remembered: letters of a list, or names in a tag; of what cannot be read, nothing."""
    if letters:
        named = reply.strip()
        known = named.isalpha() and set(named) <= set(string.ascii_lowercase[: len(things)])
        return [one for one, letter in zip(things, string.ascii_lowercase, strict=False) if known and letter in named]
    said = " ".join(blocks(reply, "remember") or ())
    return [one for one in things if re.search(rf"(?<![\w-]){re.escape(one.id)}(?![\w-])", said)]
