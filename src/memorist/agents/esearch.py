"""ESearch: something is looked for in a home by walking, asking and remembering, at the least cost.

After arXiv 2512.18571, whose prompts and constants are not public; those here are our choice. The model sees either
all that was said and done in one window (`full`), or in each step a list of what can be done, with what each costs, and
answers with a letter (`compact`). What it remembers of a home lies in its memory bank: `GetMemory` reads there, and
what was seen in a search is written there when it is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol

from memorist.agents.components.household_prompts import COSTS, KEEP, RULES, choices, chosen, compact, keeping, kept
from memorist.decision import Observation
from memorist.errors import RecipeError, need_known
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Result
from memorist.models.sampler import Actor
from memorist.tasks.household.episode import Episode
from memorist.tasks.household.notes import after, forget_moved, read_notes, seen_now, write_notes
from memorist.tasks.household.scene import Thing
from memorist.tasks.household.searching import BETWEEN
from memorist.tasks.household.world import Household, described

STYLES = ("full", "compact")
NOTES = ("all", "chosen", "none")


class HomeExercise(Protocol):
    """What `run` needs of a task."""

    @property
    def searches(self) -> Sequence[Episode]:
        """One after the other, in the same home."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What came of the searches. others: of each, how many decisions after it were about what to remember. results: of
    what was remembered after each."""

    houses: tuple[Household, ...]
    others: tuple[int, ...]
    results: tuple[tuple[Result, ...], ...] = ()


class ESearch:
    """The agent. It is handed its bank and its model and does not know whether it is being trained.

    Args:
        bank: what is remembered of the home.
        seeker: acts.
        style: "full" or "compact".
        costs: whether it is told what acts cost.
        notes: what of the things that were seen is remembered when a search is over: "all", what the seeker then names
            ("chosen"), or "none".
        reply: tokens that a message may have.
    """

    roles = ("seeker",)

    def __init__(
        self, *, bank: MemoryBank, seeker: Actor, style: str = "full", costs: bool = True, notes: str = "all",
        reply: int = 256,
    ) -> None:  # fmt: skip
        need_known("agent.style", style, STYLES)
        need_known("agent.notes", notes, NOTES)
        self.bank, self.seeker = bank, seeker
        self.style, self.costs, self.notes, self.reply = style, costs, notes, reply

    async def run(self, task: HomeExercise) -> Outcome:
        """Search until each search is over."""
        houses: list[Household] = []
        results: list[tuple[Result, ...]] = []
        others: list[int] = []
        for number, search in enumerate(task.searches):
            at = after(number * BETWEEN)
            houses.append(await self.search(search, at))
            others.append(0)
            if self.notes != "none" and number + 1 < len(task.searches):
                others[-1] = int(self.notes == "chosen" and bool(houses[-1].seen))
                results.append(await self._remember(houses[-1], at))
        return Outcome(tuple(houses), tuple(others), tuple(results))

    async def search(self, search: Episode, at: datetime) -> Household:
        """One search to its end."""
        house = Household(search, notes=lambda: read_notes(self.bank, at))
        if self.style == "compact":
            await self._by_letters(house)
        else:
            await self._in_one_window(house)
        return house

    async def _by_letters(self, house: Household) -> None:
        while not house.over:
            offered = choices(house, self.costs)
            # Where few things can be done, a small model named letters that stood for nothing.
            seen = Observation(
                compact(house, offered, self.costs), max_tokens=self.reply, grammar=f"letters:{len(offered)}"
            )
            reply = await self.seeker.act(seen)
            act = chosen(reply.text, offered)
            if act is None:
                house.message(reply.text[:200])
            else:
                house.act(act)

    async def _in_one_window(self, house: Household) -> None:
        rules = f"{RULES}\n{COSTS}" if self.costs else RULES
        asked = Observation(described(house.search, self.costs), rules, max_tokens=self.reply)
        while not house.over:
            reply = await self.seeker.act(asked)
            done = house.message(reply.text)
            asked = asked.then(reply, f"{done.seen} {self._paid(house)}".strip())

    def _paid(self, house: Household) -> str:
        if not self.costs:
            return ""
        price = house.search.prices.question(house.asked)
        return f"(You have spent {house.cost.total:.2f}; the next question costs {price:.2f}.)"

    async def _remember(self, house: Household, at: datetime) -> tuple[Result, ...]:
        """Write down what was seen, and forget what is not where it was said to be."""
        scene = house.search.scene
        things = list(house.seen.values())
        if self.notes == "chosen" and things:
            things = await self._chosen(things, house.search.category)
        notes = [seen_now(thing, scene) for thing in things]
        return (*write_notes(self.bank, notes, at, scene), *forget_moved(self.bank, house, at))

    async def _chosen(self, things: list[Thing], wanted: str) -> list[Thing]:
        asked = keeping(things, wanted)
        letters = self.style == "compact"
        if not letters:
            names = ", ".join(f"{one.id} ({one.color} {one.material}, {one.size})" for one in things)
            asked = f"You looked for a {wanted} and saw: {names}."
        # A grammar of any of the letters, in their order.
        legal = f"some-letters:{len(things)}" if letters else ""
        seen = Observation(asked, "" if letters else KEEP, max_tokens=self.reply, grammar=legal)
        reply = await self.seeker.act(seen)
        return kept(reply.text, things, letters=letters)


@dataclass(frozen=True)
class ESearchSettings:
    """How recipes set it.

    style: "full" or "compact". costs: whether it is told what acts cost. notes: "all" that was seen is remembered for
    the next search in the same home, or what the seeker names ("chosen"), or "none". reply: tokens of a message.
    """

    name: str = "esearch"
    style: str = "full"
    costs: bool = True
    notes: str = "all"
    reply: int = 256

    roles: ClassVar[tuple[str, ...]] = ESearch.roles
    exercise: ClassVar[str] = "household"

    def check(self, where: str = "agent") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist, or a number is too small.
        """
        need_known(f"{where}.style", self.style, STYLES)
        need_known(f"{where}.notes", self.notes, NOTES)
        if self.reply < 1:
            raise RecipeError(f"{where}.reply is {self.reply}; expected 1 or more")

    def build(self, **given: Any) -> ESearch:
        """The agent around `bank` and `seeker`."""
        return ESearch(**given, style=self.style, costs=self.costs, notes=self.notes, reply=self.reply)
