"""Scenes from above, drawn with Pillow: an environment, vehicles, trees, buildings (section 6.2 of the specification of
UAV-VL-R1, whose own pictures are photographs)."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from memorist.errors import DataError

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

ENVIRONMENTS: dict[str, Colour] = {
    "urban": (150, 150, 150), "rural": (70, 130, 60), "harbour": (60, 110, 160), "airport": (120, 125, 120)
}  # fmt: skip
"""Ground of each; all but the rural have something of their own too (`_ground`)."""
COLOURS: dict[str, Colour] = {
    "red": (200, 40, 40), "blue": (40, 70, 200), "white": (235, 235, 235), "yellow": (230, 200, 40),
    "black": (25, 25, 25),
}  # fmt: skip
VEHICLES = ("car", "truck", "boat", "plane")
SHAPES = ("circle", "square", "triangle")
KINDS = (*VEHICLES, "tree", "building")
HOME = dict(zip(ENVIRONMENTS, ("car", "truck", "boat", "plane"), strict=True))
"""The vehicle that an environment most often has."""
UNSEEN = frozenset({("car", "yellow"), ("truck", "black"), ("boat", "red"), ("plane", "blue")})
"""What no scene has but those that are drawn to be unlike the others."""
SIDE = 56
"""Pixels by which sizes are told; larger pictures show the same scene with more of them."""
ATTEMPTS = 50
MARK: Colour = (235, 30, 200)
FOLIAGE, ROAD, RUNWAY, QUAY = (25, 80, 30), (95, 95, 98), (70, 70, 74), (170, 150, 120)


@dataclass(frozen=True)
class Thing:
    """Something in a scene. box: left, top, right, bottom in units of `SIDE`, right and bottom included. shape: of
    buildings. marked: whether it has an outline that nothing else has."""

    kind: str
    colour: str
    box: Box
    shape: str = ""
    marked: bool = False

    @property
    def middle(self) -> tuple[float, float]:
        """Of its box."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def area(self) -> int:
        """Of its box."""
        left, top, right, bottom = self.box
        return (right - left + 1) * (bottom - top + 1)


@dataclass(frozen=True)
class Wanted:
    """Something that is to be placed. long: its longer side; 0 for what is usual."""

    kind: str
    colour: str
    shape: str = ""
    marked: bool = False
    long: int = 0


@dataclass(frozen=True)
class Scene:
    """What is there."""

    environment: str
    things: tuple[Thing, ...] = ()
    across: bool = False
    """Whether the road, runway or quay runs from left to right."""

    def of(self, kind: str) -> list[Thing]:
        """Things of a kind."""
        return [thing for thing in self.things if thing.kind == kind]

    def png(self, side: int = SIDE) -> bytes:
        """The picture as a file, `side` pixels wide and high.

        Raises:
            DataError: Pillow is not installed, or the side is below `SIDE`.
        """
        out = io.BytesIO()
        self.picture(side).save(out, "PNG")
        return out.getvalue()

    def picture(self, side: int = SIDE) -> Any:
        """The picture, a PIL image; see `png`."""
        try:
            from PIL import Image, ImageDraw
        except ImportError as error:
            raise DataError("scene", "-", "Pillow", "is not installed: pip install 'memorist[vision]'") from error
        if side < SIDE:
            raise DataError("scene", "-", "side", f"is {side}; expected {SIDE} or more")
        image = Image.new("RGB", (side, side), ENVIRONMENTS[self.environment])
        pen = _Pen(ImageDraw.Draw(image), side / SIDE)
        _ground(pen, self)
        for thing in self.things:
            _draw(pen, thing)
        return image

    def to_json(self) -> dict[str, Any]:
        """As plain objects."""
        return asdict(self)

    @staticmethod
    def read(given: Mapping[str, Any]) -> Scene:
        """What `to_json` gave.

        Raises:
            DataError: it is no scene; the message names what is wrong.
        """
        try:
            things = tuple(Thing(**{**thing, "box": tuple(map(int, thing["box"]))}) for thing in given["things"])
            found = Scene(str(given["environment"]), things, bool(given.get("across", False)))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError("scene", "-", "things", f"are no things with kind, colour and box ({error})") from error
        if found.environment not in ENVIRONMENTS:
            raise DataError(
                "scene", "-", "environment", f"is {found.environment!r}; expected one of {', '.join(ENVIRONMENTS)}"
            )
        for thing in things:
            if thing.kind not in KINDS or thing.colour not in (*COLOURS, "green"):
                raise DataError("scene", "-", "things", f"have {thing.colour!r} {thing.kind!r}; expected known ones")
            if len(thing.box) != 4 or thing.box[2] < thing.box[0] or thing.box[3] < thing.box[1]:
                raise DataError("scene", "-", "box", f"is {thing.box}; expected left, top, right, bottom")
        return found


@dataclass
class Placer:
    """Places things so that none touches another. crowded: whether all are in one half of the scene."""

    rng: random.Random
    crowded: bool = False
    things: list[Thing] = field(default_factory=list)

    def __post_init__(self) -> None:
        low, high = (0, SIDE - 1), (0, SIDE - 1)
        if self.crowded:
            half = self.rng.choice(((0, SIDE // 2 + 3), (SIDE // 2 - 4, SIDE - 1)))
            low, high = self.rng.choice(((half, high), (low, half)))
        self.wide, self.high = low, high

    def place(self, wanted: Wanted) -> Thing | None:
        """It where there is room for it; None where none was found."""
        for _ in range(ATTEMPTS):
            wide, high = self._size(wanted)
            left = self.rng.randint(self.wide[0] + 1, max(self.wide[0] + 1, self.wide[1] - wide))
            top = self.rng.randint(self.high[0] + 1, max(self.high[0] + 1, self.high[1] - high))
            box = (left, top, left + wide - 1, top + high - 1)
            if box[2] < SIDE - 1 and box[3] < SIDE - 1 and not any(_near(box, other.box) for other in self.things):
                self.things.append(Thing(wanted.kind, wanted.colour, box, wanted.shape, wanted.marked))
                return self.things[-1]
        return None

    def _size(self, wanted: Wanted) -> tuple[int, int]:
        usual = {"car": (6, 7), "truck": (8, 9), "boat": (7, 9), "plane": (8, 10), "tree": (5, 7), "building": (9, 12)}
        long = wanted.long or self.rng.randint(*usual[wanted.kind])
        ratio = {"car": 0.6, "truck": 0.45, "boat": 0.5}.get(wanted.kind, 1.0)
        short = max(3, round(long * ratio))
        return (long, short) if self.rng.random() < 0.5 else (short, long)


def _near(one: Box, other: Box, gap: int = 1) -> bool:
    return not (
        one[2] + gap < other[0] or other[2] + gap < one[0] or one[3] + gap < other[1] or other[3] + gap < one[1]
    )


def paint(rng: random.Random, kind: str, unseen: bool, among: Sequence[str] = tuple(COLOURS)) -> str:
    """A colour for a kind: of the pairs that scenes have, or (`unseen`) that they have not, where there are such."""
    if kind == "tree":
        return "green"
    fitting = [colour for colour in among if ((kind, colour) in UNSEEN) == unseen]
    return rng.choice(fitting or [colour for colour in among if (kind, colour) not in UNSEEN])


@dataclass(frozen=True)
class _Pen:
    """Draws in units of `SIDE`."""

    draw: Any
    scale: float

    def box(self, box: tuple[float, ...]) -> list[int]:
        begin = [math.floor(at * self.scale + 0.5) for at in box[:2]]
        end = [math.floor((at + 1) * self.scale + 0.5) - 1 for at in box[2:]]
        return [*begin, *map(max, begin, end)]

    def rectangle(self, box: tuple[float, ...], colour: Colour) -> None:
        self.draw.rectangle(self.box(box), fill=colour)

    def ellipse(self, box: tuple[float, ...], colour: Colour) -> None:
        self.draw.ellipse(self.box(box), fill=colour)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        self.draw.polygon([(round(x * self.scale), round(y * self.scale)) for x, y in points], fill=colour)


def _ground(pen: _Pen, scene: Scene) -> None:
    if scene.environment == "rural":
        return
    low, high, colour = {
        "urban": (24, 31, ROAD), "harbour": (0, 6, QUAY), "airport": (22, 33, RUNWAY)
    }[scene.environment]  # fmt: skip
    pen.rectangle((0, low, SIDE - 1, high) if scene.across else (low, 0, high, SIDE - 1), colour)
    if scene.environment == "harbour":
        return
    for at in range(3, SIDE, 10):  # the line in the middle
        middle = (low + high) / 2
        line = (at, middle, at + 4, middle) if scene.across else (middle, at, middle, at + 4)
        pen.rectangle(line, (220, 220, 220))


def _draw(pen: _Pen, thing: Thing) -> None:
    left, top, right, bottom = thing.box
    colour = FOLIAGE if thing.kind == "tree" else COLOURS[thing.colour]
    wide = right - left >= bottom - top
    x, y = thing.middle
    if thing.marked:
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), MARK)
    if thing.kind == "tree" or thing.shape == "circle":
        pen.ellipse(thing.box, colour)
    elif thing.shape == "triangle":
        pen.polygon([(left, bottom + 1), (right + 1, bottom + 1), (x + 0.5, top)], colour)
    elif thing.kind == "boat":
        ends = [(left, y + 0.5), (x, top), (right + 1, y + 0.5), (x, bottom + 1)]
        pen.polygon(ends, colour)
    elif thing.kind == "plane":
        pen.rectangle((left, y - 0.5, right, y + 0.5), colour)
        pen.rectangle((x - 0.5, top, x + 0.5, bottom), colour)
    else:
        pen.rectangle(thing.box, colour)
    if thing.kind == "truck":  # its cab
        cab = (right - 1, top, right, bottom) if wide else (left, bottom - 1, right, bottom)
        pen.rectangle(cab, (150, 150, 155))
    if thing.kind == "car":  # its window
        window = (x - 0.5, top + 1, x + 0.5, bottom - 1) if wide else (left + 1, y - 0.5, right - 1, y + 0.5)
        pen.rectangle(window, (150, 190, 220))
