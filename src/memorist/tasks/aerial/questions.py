"""Questions about scenes from above, whose answers come from what was drawn and never from pixels: eight tasks in three
stages, and one more (section 6.2 of the specification of UAV-VL-R1; names of the paper's eight are not public)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from memorist.tasks.aerial.scene import (
    COLOURS,
    ENVIRONMENTS,
    HOME,
    SHAPES,
    SIDE,
    VEHICLES,
    Placer,
    Scene,
    Thing,
    Wanted,
    paint,
)

STAGES: dict[str, int] = {
    "colour": 1, "shape": 1, "size": 1, "count": 2, "presence": 2, "transport": 2, "relation": 3, "scene": 3,
    "location": 3,
}  # fmt: skip
"""Attributes, objects, spatial relations and the whole."""
EIGHT = tuple(name for name in STAGES if name != "location")
MOST = 6
"""Things that are counted."""
LARGER = 1.5
"""How many times as large, or as far, the one has to be of two things that are compared."""
RELATIONS = ("left", "right", "above", "below")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
CELLS = tuple("centre" if (row, col) == ("middle", "centre") else f"{row} {col}" for row in ROWS for col in COLUMNS)
PLURALS = {"car": "cars", "truck": "trucks", "boat": "boats", "plane": "planes", "tree": "trees"}
DISTRACTORS = 4


@dataclass(frozen=True)
class Question:
    """A question about a scene. kind: how answers are compared (`rules.correct`). choices: the answers that there are,
    where they are few. rationale: what one sees who answers. scene: what was drawn; nothing where a file is shown.
    stage_given: of the task, where it is none of those here."""

    task: str
    text: str
    answer: str
    kind: str
    choices: tuple[str, ...]
    rationale: str
    scene: Scene = field(default_factory=lambda: Scene("urban"))
    stage_given: int = 0

    @property
    def stage(self) -> int:
        """In which it is learnt."""
        return self.stage_given or STAGES[self.task]


Maker = Callable[["_Draft"], "Question | None"]


class _Draft:
    """A scene that is being made so that a question has the answer that was drawn for it: so answers are balanced."""

    def __init__(self, task: str, rng: random.Random, unseen: bool) -> None:
        self.task, self.rng, self.unseen = task, rng, unseen
        self.environment = rng.choice(tuple(ENVIRONMENTS))
        self.placer = Placer(rng, crowded=unseen)

    def add(self, kind: str, colour: str = "", **how: object) -> Thing | None:
        """Place a thing; in a scene unlike the others in one of the colours that they do not have."""
        colour = colour or paint(self.rng, kind, self.unseen)
        return self.placer.place(Wanted(kind, colour, **how))  # type: ignore[arg-type]

    def others(self, *without: str, most: int = DISTRACTORS) -> None:
        """Some things that are not asked about."""
        kinds = [kind for kind in (*VEHICLES, "tree", "building") if kind not in without]
        for _ in range(self.rng.randint(1, most)):
            kind = self.rng.choice(kinds)
            self.add(kind, **({"shape": self.rng.choice(SHAPES)} if kind == "building" else {}))

    def vehicle(self) -> str:
        """The one that is at home here, or in a third of the scenes any."""
        return self.rng.choice(VEHICLES) if self.rng.random() < 1 / 3 else HOME[self.environment]

    def asked(self, text: str, answer: str, kind: str, choices: tuple[str, ...], rationale: str) -> Question:
        """The question. What is drawn last lies on top of nothing: things do not touch."""
        things = self.placer.things
        self.rng.shuffle(things)
        made = Scene(self.environment, tuple(things), self.rng.random() < 0.5)
        return Question(self.task, text, answer, kind, choices, rationale, made)


def question(task: str, seed: int, *, unseen: bool = False) -> Question:
    """A question of a task about a scene of its own. unseen: whether things have colours and places that no other scene
    has."""
    attempt = 0
    while True:
        rng = random.Random(f"aerial/{task}/{seed}/{attempt}")
        found = _MAKERS[task](_Draft(task, rng, unseen))
        if found is not None:
            return found
        attempt += 1


def _colour(draft: _Draft) -> Question | None:
    kind = draft.vehicle()
    colour = paint(draft.rng, kind, draft.unseen)
    if not all(draft.add(kind, colour) for _ in range(draft.rng.randint(1, 3))):
        return None
    draft.others(kind)
    text = draft.rng.choice((f"What colour are the {PLURALS[kind]}?", f"Which colour has every {kind}?"))
    return draft.asked(text, colour, "choice", tuple(COLOURS), f"the {PLURALS[kind]} are {colour}")


def _shape(draft: _Draft) -> Question | None:
    shape = draft.rng.choice(SHAPES)
    if draft.add("building", shape=shape, marked=True) is None:
        return None
    draft.others()
    text = draft.rng.choice(("What is the shape of the marked building?", "Which outline has the marked building?"))
    return draft.asked(text, shape, "choice", SHAPES, f"the marked building is a {shape}")


def _size(draft: _Draft) -> Question | None:
    one, other = draft.rng.sample(("car", "truck", "boat", "plane", "tree"), 2)
    large, small = draft.add(one, long=draft.rng.randint(12, 16)), draft.add(other, long=draft.rng.randint(5, 7))
    if large is None or small is None or large.area < LARGER * small.area:
        return None
    draft.others(one, other)
    first, second = draft.rng.sample((one, other), 2)
    text = draft.rng.choice((f"Which is larger, the {first} or the {second}?", f"Larger: {first} or {second}?"))
    return draft.asked(text, one, "choice", (first, second), f"the {one} is larger than the {other}")


def _count(draft: _Draft) -> Question | None:
    kind = draft.rng.choice((*VEHICLES, "tree"))
    wanted = draft.rng.randint(0, MOST)
    if not all(draft.add(kind) for _ in range(wanted)):
        return None
    draft.others(kind)
    text = draft.rng.choice((f"How many {PLURALS[kind]} are there?", f"Count the {PLURALS[kind]}."))
    return draft.asked(text, str(wanted), "int", (), " ".join([kind] * wanted) or "none")


def _presence(draft: _Draft) -> Question | None:
    kind, there = draft.rng.choice((*VEHICLES, "tree")), draft.rng.random() < 0.5
    if there and not all(draft.add(kind) for _ in range(draft.rng.randint(1, 2))):
        return None
    draft.others(kind)
    answer = "yes" if there else "no"
    text = draft.rng.choice((f"Is there a {kind}?", f"Can a {kind} be seen?"))
    return draft.asked(text, answer, "yesno", ("yes", "no"), f"{'a' if there else 'no'} {kind}")


def _transport(draft: _Draft) -> Question | None:
    kind = draft.rng.choice(VEHICLES)
    if draft.rng.random() < 2 / 3:
        draft.environment = next(name for name, home in HOME.items() if home == kind)
    if not all(draft.add(kind) for _ in range(draft.rng.randint(1, 3))):
        return None
    draft.others(*VEHICLES)
    text = draft.rng.choice(("Which kind of vehicle is there?", "What sort of transport can be seen?"))
    return draft.asked(text, kind, "choice", VEHICLES, f"there is a {kind}")


def _relation(draft: _Draft) -> Question | None:
    one, other = draft.rng.sample((*VEHICLES, "tree"), 2)
    answer = draft.rng.choice(RELATIONS)
    first, second = draft.add(one), draft.add(other)
    if first is None or second is None or relation(first, second) != answer:
        return None
    draft.others(one, other)
    text = draft.rng.choice((f"Where is the {one}, seen from the {other}?", f"Where is the {one} from the {other}?"))
    seen = f"the {one} is {cell(first)}, the {other} {cell(second)}"
    return draft.asked(text, answer, "choice", RELATIONS, seen)


def relation(one: Thing, other: Thing) -> str | None:
    """Where a thing is from another, by the larger distance of their middles; None where neither is clearly larger."""
    across, down = one.middle[0] - other.middle[0], one.middle[1] - other.middle[1]
    if abs(across) >= LARGER * abs(down) and across:
        return "left" if across < 0 else "right"
    if abs(down) >= LARGER * abs(across) and down:
        return "above" if down < 0 else "below"
    return None


def _scene(draft: _Draft) -> Question | None:
    draft.others()
    text = draft.rng.choice(("What kind of place is this?", "Which environment is shown?"))
    return draft.asked(text, draft.environment, "choice", tuple(ENVIRONMENTS), f"the ground is {draft.environment}")


def _location(draft: _Draft) -> Question | None:
    kind, wanted = draft.rng.choice((*VEHICLES, "tree")), draft.rng.choice(CELLS)
    placed = draft.add(kind)
    if placed is None or (cell(placed) != wanted and not draft.unseen):
        return None
    draft.others(kind)
    return draft.asked(f"In which part of the picture is the {kind}?", cell(placed), "cell", CELLS, f"the {kind}")


def cell(thing: Thing) -> str:
    """In which of nine parts of the picture the middle of a thing is."""
    x, y = thing.middle
    return CELLS[3 * min(2, int(3 * y / SIDE)) + min(2, int(3 * x / SIDE))]


_MAKERS: dict[str, Maker] = {
    "colour": _colour, "shape": _shape, "size": _size, "count": _count, "presence": _presence,
    "transport": _transport, "relation": _relation, "scene": _scene, "location": _location,
}  # fmt: skip
