"""A home from above as a picture: rooms, receptacles, who searches, and what can be seen."""

from __future__ import annotations

from typing import Any

from memorist.errors import DataError
from memorist.tasks.household.world import Household

SIDE = 16
"""Pixels of a cell."""
WALL, FLOOR, HERE = (60, 60, 66), (236, 233, 226), (30, 90, 200)
PLACE, VISITED, OTHER = (150, 120, 90), (196, 178, 158), (160, 60, 160)
COLORS = {
    "red": (200, 40, 40),
    "blue": (50, 80, 210),
    "green": (40, 150, 70),
    "white": (250, 250, 250),
    "black": (20, 20, 20),
}


def picture(house: Household) -> Any:
    """A PIL image, `SIDE` pixels a cell. What has not been seen is not drawn.

    Raises:
        DataError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise DataError("picture", "-", "Pillow", "is not installed: pip install 'memorist[household]'") from error
    scene = house.search.scene
    cells = {*scene.walkable, *(r.cell for r in scene.receptacles), *(c for cs in scene.rooms.values() for c in cs)}
    wide, high = 2 + max(x for x, _ in cells), 2 + max(y for _, y in cells)
    image = Image.new("RGB", (wide * SIDE, high * SIDE), WALL)
    draw = ImageDraw.Draw(image)

    def box(cell: tuple[int, int], inset: int = 0) -> tuple[int, int, int, int]:
        x, y = cell[0] * SIDE, cell[1] * SIDE
        return x + inset, y + inset, x + SIDE - 1 - inset, y + SIDE - 1 - inset

    for cell in scene.walkable:
        draw.rectangle(box(cell), fill=FLOOR)
    for receptacle in scene.receptacles:
        visited = receptacle.id in house.visited
        draw.rectangle(box(receptacle.cell, 1), fill=VISITED if visited else PLACE)
        for thing in scene.on[receptacle.id] if visited else ():
            inset = 4 if thing.size == "large" else 6
            draw.ellipse(box(receptacle.cell, inset), fill=COLORS.get(thing.color, OTHER), outline=WALL)
    draw.ellipse(box(house.at, 3), fill=HERE)
    return image
