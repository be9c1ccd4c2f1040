"""The household with Gymnasium's interface: text in, text out, and pictures for those who look."""

from __future__ import annotations

import io
import string
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from memorist.tasks.household.episode import Prices, episode
from memorist.tasks.household.measures import COSTS, UNREADABLE, with_failures
from memorist.tasks.household.picture import SIDE, picture
from memorist.tasks.household.searching import HOMES, SEEDS
from memorist.tasks.household.world import Code, Household, described

LONGEST = 4000


WIDE, HIGH = 28, 19
"""Cells of a home, with its walls: pictures are as large."""
Observed = str | dict[str, Any]


class SearchEnv(gymnasium.Env[Observed, str]):
    """One search after the other, each of its seed; without one, a home of the train split.

    An action is a message with one call: <action>Navigate("desk-3")</action>, Ask, GetMemory or Stop. A step's reward
    is what it costs, below 0, also for what cannot be done, and 1 when the right thing is found; `info` has the code,
    the costs by kind and what was spent.

    Args:
        distractors, prices: of the searches.
        images: whether an observation is {"text", "image"}, with a picture from above of what has been seen, of shape
            (H, W, 3), for policies that look; else it is the text alone. `png` gives the picture as a file.
        render_mode: "rgb_array" for pictures from above.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 - as Gymnasium has it

    def __init__(
        self,
        distractors: int = 3,
        prices: Prices | None = None,
        render_mode: str | None = None,
        *,
        images: bool = False,
    ) -> None:
        self.distractors, self.prices, self.render_mode, self.images = distractors, prices, render_mode, images
        letters = string.ascii_letters + string.digits + string.punctuation + " \n"
        text = spaces.Text(LONGEST, charset=letters)
        image = spaces.Box(0, 255, (HIGH * SIDE, WIDE * SIDE, 3), np.uint8)
        self.observation_space: spaces.Space[Any] = spaces.Dict({"text": text, "image": image}) if images else text
        self.action_space = spaces.Text(LONGEST, charset=letters)
        self.house: Household | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """A new search; the same one for the same seed."""
        super().reset(seed=seed)
        number = int(self.np_random.integers(SEEDS * HOMES)) if seed is None else seed
        search = episode(number, self.distractors, prices=self.prices)
        self.house = Household(search)
        return self._observed(described(search)), self._info("", "")

    def step(self, action: str) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """Do what a message says."""
        assert self.house is not None, "reset comes first"
        done = self.house.message(action)
        reward = (
            float(done.code is Code.FOUND)
            - COSTS * done.cost.total / self.house.search.prices.failure
            - UNREADABLE * done.code.invalid
        )
        stopped = self.house.reason in ("stop", "invalid")
        return (
            self._observed(done.seen[:LONGEST]),
            reward,
            stopped,
            done.over and not stopped,
            self._info(str(done.code), done.seen),
        )

    def _info(self, code: str, seen: str) -> dict[str, Any]:
        assert self.house is not None
        cost = self.house.cost
        return {
            "code": code, "metres": cost.metres, "asked": cost.asked, "memory": cost.memory, "cost": cost.total,
            "success": self.house.success, "with_failures": with_failures(self.house),
        }  # fmt: skip

    def _observed(self, text: str) -> Observed:
        return {"text": text, "image": self._pixels()} if self.images else text

    def _pixels(self) -> Any:
        """What has been seen, from above, on a canvas as large as any home."""
        assert self.house is not None
        shown = np.asarray(picture(self.house))
        canvas = np.zeros((HIGH * SIDE, WIDE * SIDE, 3), np.uint8)
        high, wide = min(len(shown), len(canvas)), min(shown.shape[1], canvas.shape[1])
        canvas[:high, :wide] = shown[:high, :wide]
        return canvas

    def png(self) -> bytes:
        """The picture of what has been seen, as a PNG file."""
        assert self.house is not None, "reset comes first"
        out = io.BytesIO()
        picture(self.house).save(out, "PNG")
        return out.getvalue()

    def render(self) -> Any:
        """A picture from above, shape (H, W, 3), where asked for."""
        return np.asarray(picture(self.house)) if self.render_mode == "rgb_array" and self.house else None
