"""Acting in a household: walk, ask, remember, and say what was found. The state after some acts is a function of the
search and of them; an act that cannot be is told with a code and costs a step, and nothing raises."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from memorist.tasks.household.episode import Episode, Noted
from memorist.tasks.household.scene import VALUES, Cell, Thing

INVALID = 3
"""Acts that cannot be, after which a search ends."""
RECALLED = 5
_CALL = re.compile(r"<action>\s*(?P<name>\w+)\s*\((?P<given>[^<>]*)\)\s*</action>")
_PAIR = re.compile(r"\[?\s*(-?\d+)\s*,\s*(-?\d+)\s*\]?")
_LONGEST = 2000
_WORDS = re.compile(r"[a-z]+")
_ANY_WORD = re.compile(r"[^\W_]+")


class Code(StrEnum):
    """What became of an act."""

    DONE = "done"
    FOUND = "found"
    WRONG = "wrong"
    UNREADABLE = "invalid:unreadable"
    SEVERAL = "invalid:several-actions"
    UNKNOWN_NAME = "invalid:unknown-action"
    UNKNOWN_PLACE = "invalid:unknown-place"
    UNREACHABLE = "invalid:unreachable"
    UNSEEN = "invalid:unseen-object"
    OVER = "invalid:over"

    @property
    def invalid(self) -> bool:
        """Whether it could not be done."""
        return self.startswith("invalid")


@dataclass(frozen=True, slots=True)
class Act:
    """One of Navigate, Ask, GetMemory, Stop, with what it is given."""

    name: str
    given: str = ""

    def __str__(self) -> str:
        return f"<action>{self.name}({self.given})</action>"


@dataclass(frozen=True, slots=True)
class Cost:
    """What was spent, by kind."""

    metres: float = 0.0
    asked: float = 0.0
    memory: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.metres + other.metres, self.asked + other.asked, self.memory + other.memory)

    @property
    def total(self) -> float:
        """All of it."""
        return self.metres + self.asked + self.memory


@dataclass(frozen=True, slots=True)
class Step:
    """What came of an act: what is seen, what it cost, what became of it, whether the search is over."""

    seen: str
    cost: Cost
    code: Code
    over: bool


def read_act(text: str) -> Act | Code:
    """The one action of a message, thoughts apart; a code where there is none, or more than one."""
    found = list(_CALL.finditer(text.rpartition("</think>")[2][-_LONGEST:]))
    if not found:
        return Code.UNREADABLE
    if len(found) > 1:
        return Code.SEVERAL
    given = found[0]["given"].strip()
    return Act(found[0]["name"], given.removeprefix("attr=").strip().strip("\"'").strip())


@dataclass
class Household:
    """One search as it goes on.

    at: where one stands. visited: receptacles that were looked at. visible: what can be seen from here. seen: all that
    was. recalled: what memory has said. asked, read: questions and looks at memory. distance: metres walked. notes:
    what memory holds; None for what the search says.
    """

    search: Episode
    at: Cell = (0, 0)
    standing: str = ""
    visited: list[str] = field(default_factory=list)
    visible: tuple[Thing, ...] = ()
    seen: dict[str, Thing] = field(default_factory=dict)
    recalled: tuple[Noted, ...] = ()
    asked: int = 0
    read: int = 0
    steps: int = 0
    invalid: int = 0
    distance: float = 0.0
    cost: Cost = Cost()
    over: bool = False
    success: bool = False
    reason: str = ""
    log: list[tuple[str, Step]] = field(default_factory=list)
    notes: Callable[[], Sequence[Noted]] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.at = self.search.start

    def room(self) -> str:
        """The name of the room where one stands; "doorway" between two."""
        scene = self.search.scene
        return next((scene.names[room] for room, cells in scene.rooms.items() if self.at in cells), "doorway")

    def message(self, text: str) -> Step:
        """Do what a message says."""
        act = read_act(text)
        return self._done(act, "", Cost(), text) if isinstance(act, Code) else self.act(act)

    def act(self, act: Act) -> Step:
        """Do one thing."""
        if self.over:
            return Step("The search is over.", Cost(), Code.OVER, True)
        known = {"Navigate": self._navigate, "Ask": self._ask, "GetMemory": self._remember, "Stop": self._stop}
        if act.name not in known:
            return self._done(Code.UNKNOWN_NAME, "", Cost(), str(act))
        code, seen, cost = known[act.name](act.given)
        return self._done(code, seen, cost, str(act))

    def _done(self, code: Code, seen: str, cost: Cost, said: str) -> Step:
        if self.over:
            return Step("The search is over.", Cost(), Code.OVER, True)
        self.steps += 1
        self.cost = self.cost + cost
        if code.invalid:
            self.invalid += 1
            seen = f"That cannot be done ({code.removeprefix('invalid:')})."
        ends = {
            "stop": code in (Code.FOUND, Code.WRONG), "invalid": self.invalid >= INVALID,
            "steps": self.steps >= self.search.most_steps, "budget": self.cost.total > self.search.budget,
        }  # fmt: skip
        self.reason = next((name for name, holds in ends.items() if holds), "")
        self.over, self.success = bool(self.reason), code is Code.FOUND
        step = Step(seen, cost, code, self.over)
        self.log.append((said, step))
        return step

    def _navigate(self, given: str) -> tuple[Code, str, Cost]:
        scene = self.search.scene
        if pair := _PAIR.fullmatch(given):
            return self._walk_to((int(pair[1]), int(pair[2])))
        if given in self.seen:
            given = self.seen[given].receptacle
        elif given in scene.thing:
            return Code.UNSEEN, "", Cost()
        if given not in scene.by_id:
            return Code.UNKNOWN_PLACE, "", Cost()
        if given == self.standing:
            return Code.DONE, self._look(given), Cost()
        found = self._way(given)
        if found is None:
            return Code.UNREACHABLE, "", Cost()
        self.at, metres = found
        return Code.DONE, self._look(given), self._walked(metres)

    def _way(self, receptacle: str) -> tuple[Cell, float] | None:
        """Where a receptacle is seen from, and how many metres away that is."""
        return self.search.scene.view(receptacle, self.at)

    def _walk_to(self, cell: Cell) -> tuple[Code, str, Cost]:
        scene = self.search.scene
        if cell not in scene.walkable:
            return Code.UNKNOWN_PLACE, "", Cost()
        steps = scene.steps(self.at).get(cell)
        if steps is None:
            return Code.UNREACHABLE, "", Cost()
        if cell == self.at:
            return Code.DONE, f"You are in the {self.room()}.", Cost()
        self.at, self.standing, self.visible = cell, "", ()
        return Code.DONE, f"You are in the {self.room()}.", self._walked(steps * scene.cell_size)

    def _walked(self, metres: float) -> Cost:
        self.distance += metres
        return Cost(metres=metres * self.search.prices.metre)

    def _look(self, receptacle: str) -> str:
        self.standing, self.visible = receptacle, self.search.scene.on[receptacle]
        if receptacle not in self.visited:
            self.visited.append(receptacle)
        self.seen |= {thing.id: thing for thing in self.visible}
        held = ", ".join(f"{t.id} ({t.color} {t.material}, {t.size})" for t in self.visible)
        return f"On {receptacle} in the {self.room_of(receptacle)}: {held or 'nothing'}."

    def room_of(self, receptacle: str) -> str:
        """What the room of a receptacle is called."""
        return self.search.scene.names[self.search.scene.by_id[receptacle].room]

    def _ask(self, given: str) -> tuple[Code, str, Cost]:
        cost = Cost(asked=self.search.prices.question(self.asked))
        self.asked += 1
        if self.asked > self.search.patience:
            return Code.DONE, "I'm busy now.", cost
        return Code.DONE, answered(given, self.search), cost

    def _remember(self, given: str) -> tuple[Code, str, Cost]:
        self.read += 1
        wanted = _plain(given)
        held = self.search.memory if self.notes is None else sorted(self.notes(), key=lambda one: one.hours)
        found = [one for one in held if not wanted.strip() or _asked_for(one.category, wanted)][:RECALLED]
        self.recalled = tuple(dict.fromkeys((*self.recalled, *found)))
        told = "\n".join(map(self.told, found)) or "You remember nothing of that."
        return Code.DONE, told, Cost(memory=self.search.prices.memory)

    def told(self, noted: Noted) -> str:
        """One memory as text."""
        looks = " ".join(getattr(noted, name) or "?" for name in VALUES)
        room = self.search.scene.names.get(noted.room, noted.room)
        return f"{noted.hours:.0f} h ago: {noted.category} ({looks}) on {noted.receptacle} in the {room}."

    def _stop(self, given: str) -> tuple[Code, str, Cost]:
        if given not in self.seen:
            return Code.UNSEEN, "", Cost()
        right = given == self.search.target.id and any(thing.id == given for thing in self.visible)
        return (Code.FOUND if right else Code.WRONG), "That is it." if right else "That is not it.", Cost()


_ATTRIBUTES = {
    "color": {"color", "colour"},
    "material": {"material", "made"},
    "size": {"size", "big", "large", "small"},
}
_FURNITURE = {"furniture", "receptacle", "on"}


def _plain(text: str) -> str:
    """Its words, in small letters, with a blank around each."""
    return f" {' '.join(_ANY_WORD.findall(text[:_LONGEST].casefold()))} "


def _asked_for(category: str, words: str) -> bool:
    """Whether these words name a category, one or several of it."""
    name = _plain(category)
    return any(one in words for one in (name, f"{name[:-1]}s ", f"{name[:-1]}es "))


def answered(question: str, search: Episode) -> str:
    """What the user says to a question: by its words, the first rule that fits; always of the thing that is meant. Of
    several values all must be its own."""
    words = _WORDS.findall(question.lower()[:_LONGEST])
    said, target, scene = set(words), search.target, search.scene
    values = {value: name for name, every in VALUES.items() for value in every}
    named = [(values[word], word) for word in words if word in values]
    if named and said & {"is", "it", "the"} and "or" not in said:
        known = [(name, value) for name, value in named if name in search.knows]
        if not known:
            return "I'm not sure."
        return "Yes." if all(getattr(target, name) == value for name, value in known) else "No."
    for name, meant in _ATTRIBUTES.items():
        if said & meant:
            return f"It is {getattr(target, name)}." if name in search.knows else "I don't remember."
    if said & {"where", "room", "location"} or ("which" in said and not said & _FURNITURE):
        room = scene.names[scene.by_id[target.receptacle].room]
        return f"In the {room}." if "room" in search.knows else "I don't remember."
    if said & {"in", *_FURNITURE}:
        return f"On {target.receptacle}." if "receptacle" in search.knows else "I don't remember."
    return "I do not understand."


def replayed(search: Episode, acts: Sequence[Act]) -> Household:
    """A search after some acts."""
    made = Household(search)
    for act in acts:
        made.act(act)
    return made


def described(search: Episode, costs: bool = True) -> str:
    """What one is told when a search begins; with what acts cost, or without."""
    scene, prices = search.scene, search.prices
    start = Household(search)
    places = "; ".join(
        f"{name}: {', '.join(r.id for r in scene.receptacles if r.room == room) or 'nothing'}"
        for room, name in scene.names.items()
    )
    paid = (
        f"A metre costs {prices.metre:g}, a question {prices.ask:g} and {prices.fatigue:.0%} more for each one before, "
        f"a look at memory {prices.memory:g}, not to find it {prices.failure:g}."
    )
    return " ".join([
        f"{search.instruction} {len(search.candidates)} things are called so; one is meant.",
        f"You are in the {start.room()}. Places: {places}.",
        *([paid] if costs else []),
        "What is remembered may be out of date; things are seen where one stands.",
        "Stop with what was found.",
    ])  # fmt: skip
