"""The household with Gymnasium's interface: text in, text out."""

from __future__ import annotations

import string
from typing import Any

import gymnasium
from gymnasium import spaces

from memorist.tasks.household.episode import Prices, episode
from memorist.tasks.household.measures import COSTS, UNREADABLE, with_failures
from memorist.tasks.household.picture import picture
from memorist.tasks.household.searching import HOMES, SEEDS
from memorist.tasks.household.world import Code, Household, described

LONGEST = 4000


class SearchEnv(gymnasium.Env[str, str]):
    """One search after the other, each of its seed; without one, a home of the train split.

    An action is a message with one call: <action>Navigate("desk-3")</action>, Ask, GetMemory or Stop. A step's reward
    is what it costs, below 0, also for what cannot be done, and 1 when the right thing is found; `info` has the code,
    the costs by kind and what was spent.

    Args:
        distractors, prices: of the searches.
        render_mode: "rgb_array" for pictures from above.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, distractors: int = 3, prices: Prices | None = None, render_mode: str | None = None) -> None:
        self.distractors, self.prices, self.render_mode = distractors, prices, render_mode
        letters = string.ascii_letters + string.digits + string.punctuation + " \n"
        self.observation_space = spaces.Text(LONGEST, charset=letters)
        self.action_space = spaces.Text(LONGEST, charset=letters)
        self.house: Household | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """A new search; the same one for the same seed."""
        super().reset(seed=seed)
        number = int(self.np_random.integers(SEEDS * HOMES)) if seed is None else seed
        search = episode(number, self.distractors, prices=self.prices)
        self.house = Household(search)
        return described(search), self._info("", "")

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Do what a message says."""
        assert self.house is not None, "reset comes first"
        done = self.house.message(action)
        reward = (
            float(done.code is Code.FOUND)
            - COSTS * done.cost.total / self.house.search.prices.failure
            - UNREADABLE * done.code.invalid
        )
        stopped = self.house.reason in ("stop", "invalid")
        return done.seen[:LONGEST], reward, stopped, done.over and not stopped, self._info(str(done.code), done.seen)

    def _info(self, code: str, seen: str) -> dict[str, Any]:
        assert self.house is not None
        cost = self.house.cost
        return {
            "code": code, "metres": cost.metres, "asked": cost.asked, "memory": cost.memory, "cost": cost.total,
            "success": self.house.success, "with_failures": with_failures(self.house),
        }  # fmt: skip

    def render(self) -> Any:
        """A picture from above, shape (H, W, 3), where asked for."""
        import numpy as np

        return np.asarray(picture(self.house)) if self.render_mode == "rgb_array" and self.house else None
