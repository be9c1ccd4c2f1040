"""The adapter for AI2-THOR, against metadata as its documentation says them; no simulator runs here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memorist.agents.search_heuristics import SEARCHERS, AskThenSweep, searched
from memorist.agents.search_planner import Planner
from memorist.errors import DataError
from memorist.tasks.household.scene import Scene
from memorist.tasks.household.thor import dumped, in_simulator, search_in, walked
from memorist.tasks.household.world import Act, Code, Household, replayed


@dataclass
class Event:
    metadata: dict[str, Any]
    frame: Any = "a frame"


def at(x: float, z: float, y: float = 0.9) -> dict[str, float]:
    return {"x": x, "y": y, "z": z}


@dataclass
class Kitchen:
    """Floor of 2 m by 1 m with a counter at each end and a closed fridge behind; what carries things are these."""

    name: str = "FloorPlan1"
    spawned: int = -1
    hidden: frozenset[str] = frozenset()
    paths: bool = True
    fails: str = ""
    kind: str = "Mug"
    lost: tuple[str, int] = ("", 0)
    """What is out of reach, after which spawn."""
    done: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def last_event(self) -> Event:
        return self._event(None)

    def _event(self, returned: Any, success: bool = True) -> Event:
        return Event({
            "objects": self.objects(), "actionReturn": returned, "lastActionSuccess": success, "sceneName": self.name,
            "errorMessage": "" if success else "it cannot be done",
        })  # fmt: skip

    def objects(self) -> list[dict[str, Any]]:
        places = ["CounterTop|left", "CounterTop|right", "Fridge|back"]
        held = [
            {"objectId": places[0], "objectType": "CounterTop", "receptacle": True, "position": at(-0.25, 0)},
            {"objectId": places[1], "objectType": "CounterTop", "receptacle": True, "position": at(2.25, 0)},
            {
                "objectId": places[2],
                "objectType": "Fridge",
                "receptacle": True,
                "openable": True,
                "position": at(1, -1.25),
            },
            {"objectId": "Shelf|high", "objectType": "Shelf", "receptacle": True, "position": at(9, 9)},
        ]
        lies = (self.spawned if self.spawned >= 0 else 0) % 3
        box = {"size": {"x": 0.1, "y": 0.12, "z": 0.1}}
        things = [
            ("Mug|1", self.kind, None if self.lost == ("Mug|1", self.spawned) else places[lies], ["Ceramic"]),
            ("Mug|2", self.kind, places[(lies + 1) % 3], ["Metal"]),
            ("Bowl|1", "Bowl", places[(lies + 2) % 3], []), ("Pan|1", "Pan", None, ["Metal"]),
        ]  # fmt: skip
        return held + [
            {
                "objectId": name, "objectType": kind, "pickupable": True, "receptacle": kind == "Bowl",
                "position": at(0, 0), "parentReceptacles": [place] if place else None, "salientMaterials": materials,
                "axisAlignedBoundingBox": box, "visible": name not in self.hidden,
            }
            for name, kind, place, materials in things
        ]  # fmt: skip

    def step(self, action: str, **given: Any) -> Event:
        self.done.append((action, given))
        if action == self.fails:
            return self._event(None, False)
        if action == "GetReachablePositions":
            return self._event([at(x / 4, -z / 4) for x in range(9) for z in range(5)])
        if action == "GetInteractablePoses":
            near = {"CounterTop|left": at(0, 0), "CounterTop|right": at(2, 0), "Fridge|back": at(1, -1)}
            pose = near.get(given["objectId"])
            return self._event([{**pose, "rotation": 90.0, "standing": True, "horizon": 0.0}] if pose else [])
        if action == "InitialRandomSpawn":
            self.spawned = given["randomSeed"]
        if action == "GetShortestPath" and not self.paths:
            return self._event(None, False)
        if action == "GetShortestPath":
            return self._event({"corners": [at(0, 0), at(1, 0), at(1, -1)]})
        return self._event(None)


def test_a_scene_is_dumped_with_what_can_be_reached_and_read_off(tmp_path: Path) -> None:
    found = dumped(Kitchen())
    scene = found.scene
    assert len(scene.walkable) == 45 and scene.names == {"room-0": "kitchen"} and scene.cell_size == 0.25
    assert [r.id for r in scene.receptacles] == ["counter_top-0", "counter_top-1", "fridge-0"]
    assert scene.by_id["fridge-0"].openable and scene.by_id["fridge-0"].views == ((4, 4),)
    assert [(t.category, t.material, t.size, t.receptacle) for t in scene.things] == [
        ("mug", "ceramic", "small", "counter_top-0"), ("mug", "metal", "small", "counter_top-1"),
        ("bowl", "unknown", "small", "fridge-0"),
    ]  # fmt: skip
    scene.write(tmp_path / "kitchen.json")
    again = Scene.read(tmp_path / "kitchen.json")
    assert again.things == scene.things and again.view("fridge-0", (0, 0)) == scene.view("fridge-0", (0, 0))


def test_a_search_remembers_where_things_were_before_they_were_thrown_about() -> None:
    kitchen = Kitchen()
    dump, search = search_in(kitchen, "mug", 5)
    assert [given["randomSeed"] for action, given in kitchen.done if action == "InitialRandomSpawn"] == [10, 11]
    assert {noted.receptacle for noted in search.memory} == {"counter_top-1", "fridge-0"}
    assert {thing.receptacle for thing in search.scene.things if thing.category == "mug"} == {
        "fridge-0",
        "counter_top-0",
    }
    assert all(noted.color is None and noted.hours == 12 for noted in search.memory)
    assert "color" not in search.knows and {"size", "room"} <= search.knows
    assert dump.scene is search.scene
    with pytest.raises(DataError, match="expected one of bowl, mug"):
        search_in(Kitchen(), "sofa", 1)


def test_things_are_called_the_same_wherever_they_lie() -> None:
    """One that is out of reach when the scene is dumped first takes no number from the others."""
    kitchen = Kitchen(lost=("Mug|1", 10))
    _, search = search_in(kitchen, "mug", 5)
    metal = next(thing for thing in search.scene.things if thing.material == "metal")
    [noted] = search.memory
    assert noted.thing == metal.id and noted.material == "metal"


def test_a_kind_of_two_words_is_remembered_by_them() -> None:
    kitchen = Kitchen(kind="AlarmClock")
    _, search = search_in(kitchen, "alarm_clock", 5)
    for asked in ("alarm_clock", "the alarm clock", "Alarm Clocks?"):
        house = Household(search)
        house.act(Act("GetMemory", asked))
        assert len(house.recalled) == 2, asked
    assert not replayed(search, [Act("GetMemory", "clock tower")]).recalled


def test_a_search_in_the_simulator_goes_there_opens_and_sees_what_it_says() -> None:
    kitchen = Kitchen()
    dump, search = search_in(kitchen, "mug", 5)
    house = in_simulator(kitchen, dump, search)
    kitchen.done.clear()
    seen = house.act(Act("Navigate", "fridge-0"))
    [path, teleport, opened] = kitchen.done
    assert path[0] == "GetShortestPath" and seen.cost.metres == pytest.approx(2.0), "as long as the simulator's path"
    assert teleport[0] == "Teleport" and teleport[1]["position"] == at(1, -1)
    assert teleport[1]["rotation"] == {"x": 0.0, "y": 90.0, "z": 0.0} and teleport[1]["standing"] is True
    assert opened == ("OpenObject", {"objectId": "Fridge|back", "forceAction": True})
    assert "mug" in seen.seen and house.frame == "a frame"
    hiding = Kitchen(hidden=frozenset(("Mug|1", "Mug|2")))
    dump, search = search_in(hiding, "mug", 5)
    house = in_simulator(hiding, dump, search)
    step = house.act(Act("Navigate", "fridge-0"))
    assert "mug" not in step.seen and not any(name.startswith("mug") for name in house.seen)
    assert house.act(Act("Stop", search.target.id)).code is Code.UNSEEN


def test_scripts_search_what_was_dumped() -> None:
    _, search = search_in(Kitchen(), "mug", 5)
    for make in (SEARCHERS["oracle"], partial(AskThenSweep, ("material",)), SEARCHERS["memory-and-ask"], Planner):
        found = searched(search, make())
        assert found.success and not found.invalid


def test_ways_are_the_simulators_or_ours_where_it_has_none() -> None:
    kitchen = Kitchen()
    dump = dumped(kitchen)
    assert walked(kitchen, dump, "fridge-0", (0, 0)) == pytest.approx(2.0)
    kitchen.paths = False
    assert walked(kitchen, dump, "fridge-0", (0, 0)) == pytest.approx(8 * 0.25)


def test_rooms_of_a_house_are_its_polygons() -> None:
    left = [at(-0.1, 0.1), at(0.9, 0.1), at(0.9, -1.1), at(-0.1, -1.1)]
    right = [at(0.9, 0.1), at(2.1, 0.1), at(2.1, -1.1), at(0.9, -1.1)]
    house = {"rooms": [
        {"id": "room|2", "roomType": "LivingRoom", "floorPolygon": left},
        {"id": "room|3", "roomType": "Kitchen", "floorPolygon": right},
    ]}  # fmt: skip
    scene = dumped(Kitchen(name="Procedural"), house).scene
    assert scene.names == {"room|2": "living room", "room|3": "kitchen"}
    assert sum(map(len, scene.rooms.values())) == 45 and all(scene.rooms.values())
    assert scene.by_id["counter_top-0"].room == "room|2" and scene.by_id["counter_top-1"].room == "room|3"


@pytest.mark.parametrize("action", ["GetReachablePositions", "GetInteractablePoses", "InitialRandomSpawn"])
def test_what_the_simulator_refuses_is_told(action: str) -> None:
    with pytest.raises(DataError, match=f"{action}.*it cannot be done"):
        search_in(Kitchen(fails=action), "mug", 1)
