"""The household: vectors of its specification, acts that cannot be, and what written-down searchers are worth in it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorist.agents.search_heuristics import SEARCHERS, searched
from memorist.agents.search_planner import Belief, Planner, gain
from memorist.errors import DataError
from memorist.tasks.household.belief import still_there
from memorist.tasks.household.episode import Episode, Prices, episode, priced
from memorist.tasks.household.measures import measured, spl, swc
from memorist.tasks.household.scene import VALUES, Receptacle, Scene, Thing, around, build
from memorist.tasks.household.world import Act, Code, Household, answered, read_act, replayed

MAP = """\
#########
#A..#..1#
#...D...#
#2..#..3#
#########"""


def small() -> Episode:
    """The specification's hand-checkable home: a red mug is meant, a green one and a blue one are there."""
    cells = {(x, y): c for y, line in enumerate(MAP.splitlines()) for x, c in enumerate(line)}
    walkable = frozenset(cell for cell, c in cells.items() if c in "A.D")
    held = tuple(
        Receptacle(c, "table", "home", cell, False, tuple(n for n in around(cell) if n in walkable))
        for cell, c in sorted(cells.items(), key=lambda item: item[1])
        if c.isdigit()
    )
    things = tuple(
        Thing(f"{color}-mug", "mug", color, "metal", "small", place)
        for color, place in (("red", "3"), ("green", "2"), ("blue", "1"))
    )
    scene = Scene("small", 1.0, walkable, {"home": tuple(sorted(walkable))}, {"home": "kitchen"}, held, things)
    knows = frozenset((*VALUES, "room"))
    return Episode("small", scene, (1, 1), "Bring me the mug.", tuple(t.id for t in things), (), knows)


def played(*acts: Act) -> Household:
    return replayed(small(), acts)


ASK = Act("Ask", "Which color is it?")


class TestVectors:
    def test_view_cells_and_distances(self) -> None:
        scene = small().scene
        assert [scene.view(place, (1, 1)) for place in "123"] == [((6, 1), 7.0), ((1, 2), 1.0), ((7, 2), 7.0)]
        assert [scene.view(place, (1, 2)) for place in "13"] == [((6, 1), 6.0), ((7, 2), 6.0)]
        found = scene.view("3", (6, 1))
        assert found is not None and found[1] == 2.0

    def test_costs(self) -> None:
        straight = played(Act("GetMemory"), ASK, Act("Navigate", "3"), Act("Stop", "red-mug"))
        assert straight.success and straight.cost.total == pytest.approx(7.55)
        swept = played(ASK, Act("Navigate", "2"), Act("Navigate", "1"), Act("Navigate", "3"), Act("Stop", "red-mug"))
        assert swept.success and swept.cost.total == pytest.approx(9.5)
        asked = played(ASK, ASK, ASK)
        assert asked.cost.asked == pytest.approx(2.25) and [Prices().question(n) for n in range(3)] == [0.5, 0.75, 1.0]

    def test_measures(self) -> None:
        runs = [
            played(Act("GetMemory"), ASK, Act("Navigate", "3"), Act("Stop", "red-mug")),
            played(ASK, Act("Navigate", "2"), Act("Navigate", "1"), Act("Navigate", "3"), Act("Stop", "red-mug")),
            played(Act("Stop", "red-mug")),
            played(ASK, ASK, Act("Navigate", "2"), Act("Navigate", "1"), Act("Navigate", "3"), Act("Stop", "blue-mug")),
        ]
        found = measured(runs)
        assert [run.success for run in runs] == [True, True, False, False]
        assert found.success == 0.5 and found.spl == pytest.approx(0.4444, abs=1e-4)
        assert found.swc == pytest.approx(0.4160, abs=1e-4) and found.cost == pytest.approx(6.825)
        assert found.cost_of_successes == pytest.approx(8.525) and found.with_failures == pytest.approx(19.325)


class TestActs:
    @pytest.mark.parametrize(
        ("said", "code"),
        [
            ("", Code.UNREADABLE), ("I walk to the desk", Code.UNREADABLE),
            ("<action>Navigate</action>", Code.UNREADABLE),
            ("<action>Navigate(2)</action><action>Ask()</action>", Code.SEVERAL),
            ("<action>Fly(2)</action>", Code.UNKNOWN_NAME), ("<action>Navigate(99)</action>", Code.UNKNOWN_PLACE),
            ("<action>Navigate([0, 0])</action>", Code.UNKNOWN_PLACE),
            ("<action>Navigate(red-mug)</action>", Code.UNSEEN),
            ("<action>Stop(red-mug)</action>", Code.UNSEEN), ("<action>Stop(nothing)</action>", Code.UNSEEN),
        ],
    )  # fmt: skip
    def test_what_cannot_be_done_has_a_code_and_costs_a_step(self, said: str, code: Code) -> None:
        house = Household(small())
        step = house.message(said)
        assert step.code is code and step.cost.total == 0 and (house.steps, house.invalid) == (1, 1)
        assert not house.over
        house.message(said)
        assert house.message(said).over and house.reason == "invalid" and not house.success
        assert house.message("<action>Navigate(2)</action>").code is Code.OVER and house.steps == 3

    def test_a_room_that_is_walled_off_cannot_be_reached(self) -> None:
        search = small()
        shut = replace(search.scene, walkable=search.scene.walkable - {(4, 2)})
        with pytest.raises(DataError, match=r"3 cannot be reached from \(1, 1\)"):
            replace(search, scene=shut)
        open_to = replace(search, scene=shut, candidates=("green-mug", "red-mug", "blue-mug"))
        house = Household(open_to)
        assert house.act(Act("Navigate", "3")).code is Code.UNREACHABLE
        for make in (*SEARCHERS.values(), Planner):
            found = searched(open_to, make())
            assert found.over and found.invalid == 0
        assert measured([searched(open_to, SEARCHERS["oracle"]())]).swc == 1
        with pytest.raises(DataError, match="expected things of the scene"):
            replace(search, candidates=("a yellow mug",))
        assert house.act(Act("Navigate", "[7, 2]")).code is Code.UNREACHABLE and house.cost.total == 0

    def test_what_is_seen_stays_known_and_only_what_is_here_can_be_taken(self) -> None:
        house = played(Act("Navigate", "2"), Act("Navigate", "[1, 1]"))
        assert set(house.seen) == {"green-mug"} and house.visible == ()
        assert house.act(Act("Navigate", "green-mug")).seen == "On 2 in the kitchen: green-mug (green metal, small)."
        assert house.act(Act("Navigate", "2")).cost.total == 0
        assert house.act(Act("Stop", "green-mug")).code is Code.WRONG and house.reason == "stop"

    def test_asking_without_end_is_charged_and_answered_no_more(self) -> None:
        house = Household(small())
        said = [house.act(ASK).seen for _ in range(7)]
        assert said == ["It is red."] * 5 + ["I'm busy now."] * 2
        assert house.cost.asked == pytest.approx(0.5 * (7 + 0.5 * 21))

    def test_steps_and_money_end(self) -> None:
        assert played(*[Act("GetMemory")] * 30).reason == "steps"
        house = Household(Episode(**{**small().__dict__, "budget": 1.0}))
        assert not house.act(ASK).over and house.act(ASK).over and house.reason == "budget"

    def test_memory_names_what_is_gone_and_that_is_found_out_there(self) -> None:
        stale = [e for i in range(60) for e in [episode(i)] if any(
            n.receptacle != e.scene.thing[n.thing].receptacle for n in e.memory)]  # fmt: skip
        assert stale
        search = stale[0]
        gone = next(n for n in search.memory if n.receptacle != search.scene.thing[n.thing].receptacle)
        house = Household(search)
        assert f"on {gone.receptacle} in" in house.act(Act("GetMemory", search.category)).seen
        house.act(Act("Navigate", gone.receptacle))
        assert gone.thing not in house.seen
        assert house.act(Act("GetMemory", "unicorn")).seen == "You remember nothing of that."
        for asked in ("", f"{search.category}s", f"where is the {search.category}?"):
            assert house.act(Act("GetMemory", asked)).seen.count("ago") == len(search.memory) == len(house.recalled)

    @given(st.lists(st.text(max_size=40) | st.sampled_from([
        "<action>Navigate(1)</action>", "<action>Ask(Is it the blue one?)</action>", "<action>GetMemory()</action>",
        '<action>Stop("green-mug")</action>', "<action>Navigate([2, 1])</action>", "<action>Ask()</action>",
        "<action>Navigate([99999999999999999999, -1])</action>",
    ]), max_size=30))  # fmt: skip
    @settings(deadline=None)
    def test_whatever_is_said_nothing_raises_and_the_same_comes_of_the_same(self, said: list[str]) -> None:
        houses = [Household(small()), Household(small())]
        for text in said:
            steps = [house.message(text) for house in houses]
            assert steps[0] == steps[1] and steps[0].cost.total >= 0
        assert houses[0].cost == houses[1].cost and houses[0].steps <= small().most_steps

    @given(st.text())
    def test_any_message_is_read(self, said: str) -> None:
        found = read_act(said)
        assert isinstance(found, Act | Code)
        assert read_act(str(Act("Ask", "Which color is it?"))) == ASK


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Which color is it?", "It is red."), ("What colour does it have?", "It is red."),
        ("Is it the blue one?", "No."), ("Is it red?", "Yes."), ("What is it made of?", "It is metal."),
        ("How big is it?", "It is small."), ("Where is it?", "In the kitchen."), ("Which room?", "In the kitchen."),
        ("On what furniture?", "I don't remember."), ("Please?", "I do not understand."), ("", "I do not understand."),
        ("Is it red or blue?", "I do not understand."), ("Is it the red one, not the blue one?", "No."),
        ("On which furniture is it?", "I don't remember."), ("Is it red metal?", "Yes."),
    ],
)  # fmt: skip
def test_a_user_answers_of_what_is_meant(question: str, answer: str) -> None:
    assert answered(question, small()) == answer


class TestHomes:
    def test_a_home_is_a_function_of_its_seed(self) -> None:
        assert build(3)[0] == build(3)[0] != build(4)[0] and episode(3) == episode(3) != episode(4)
        dear = priced(episode(3), Prices(ask=1.0))
        assert dear.scene == episode(3).scene and dear.prices.question(1) == 1.5

    @pytest.mark.parametrize("seed", range(8))
    def test_every_place_can_be_reached_and_candidates_differ(self, seed: int) -> None:
        scene, candidates = build(seed, 4, clutter=6)
        looks = [scene.thing[name].looks for name in candidates]
        assert len(set(looks)) == 5 and len({scene.thing[name].receptacle for name in candidates}) == 5
        assert {scene.thing[name].category for name in candidates} == {scene.thing[candidates[0]].category}
        assert (
            all(t.category != scene.thing[candidates[0]].category for t in scene.things[5:]) and len(scene.things) == 11
        )
        start = next(iter(scene.walkable))
        assert len(scene.steps(start)) == len(scene.walkable)
        assert all(scene.view(r.id, start) is not None for r in scene.receptacles) and len(scene.receptacles) == 18

    def test_what_a_thing_is_called_does_not_say_whether_it_is_meant(self) -> None:
        ranks = [sorted(e.candidates, key=lambda name: int(name.rpartition("-")[2])).index(e.candidates[0])
                 for e in (episode(seed, 3) for seed in range(60))]  # fmt: skip
        assert all(8 <= ranks.count(rank) <= 24 for rank in range(4))

    def test_what_an_instruction_says_is_known_to_who_searches(self) -> None:
        searches = [episode(seed, 3, instruction="exact") for seed in range(15)]
        for make in (SEARCHERS["brute-force"], SEARCHERS["memory-only"]):
            assert all(searched(one, make()).success for one in searches)
        assert measured([searched(one, Planner()) for one in searches]).asks < 1

    def test_an_instruction_matches_exactly_its_candidates(self) -> None:
        exact = episode(5, 4, instruction="exact")
        assert len(exact.candidates) == 1 and exact.target.color in exact.instruction
        for seed in range(20):
            shared = episode(seed, 1, instruction="shared")
            words = shared.instruction.removeprefix("Bring me the ").rstrip(".").split()
            for thing in shared.scene.things:
                fits = thing.category == words[-1] and all(word in thing.looks for word in words[:-1])
                assert fits == (thing.id in shared.candidates)
        with pytest.raises(DataError, match="expected category, shared or exact"):
            episode(1, instruction="all")
        for wrong in ((18, 0), (-1, 0), (3, 90)):
            with pytest.raises(DataError, match="expected fewer than 18"):
                build(1, wrong[0], clutter=wrong[1])

    def test_json_in_and_out(self, tmp_path: Path) -> None:
        scene, _ = build(7)
        scene.write(tmp_path / "home.json")
        assert Scene.read(tmp_path / "home.json") == scene

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda d: d.pop("rooms"), "not a scene"), (lambda d: d.update(cell_size="big"), "not a scene"),
            (lambda d: d.update(cell_size=-1), "above 0"), (lambda d: d["walkable"].append([1]), "not a scene"),
            (lambda d: d["things"][0].update(receptacle="moon"), "lies on moon"),
            (lambda d: d["receptacles"].append(d["receptacles"][0]), "comes twice"),
            (lambda d: d["receptacles"][0].update(views=[]), "seen from nowhere"),
            (lambda d: d["receptacles"][0].update(room="attic"), "in room attic"),
            (lambda d: d["rooms"].update(attic=[]), "attic has no name"),
            (lambda d: d.update(cell_size=float("nan")), "above 0"),
            (lambda d: d["walkable"].append([float("inf"), 1]), "not a scene"),
        ],
    )  # fmt: skip
    def test_a_broken_scene_is_refused(self, tmp_path: Path, change: Callable[[Any], Any], told: str) -> None:
        data = json.loads(json.dumps(build(7)[0].to_json()))
        change(data)
        (tmp_path / "home.json").write_text(json.dumps(data))
        with pytest.raises(DataError, match=told):
            Scene.read(tmp_path / "home.json")

    def test_a_file_that_is_none_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "home.json").write_text('{"id": "x')
        for name in ("home.json", "nowhere.json"):
            with pytest.raises(DataError, match="cannot be read"):
                Scene.read(tmp_path / name)


@pytest.mark.parametrize(
    ("distractors", "name", "success", "weighted"),
    [
        (0, "brute-force", 1.0, 0.458), (1, "brute-force", 0.507, 0.339), (1, "ask-then-sweep", 0.987, 0.418),
        (1, "memory-and-ask", 0.96, 0.582), (3, "brute-force", 0.233, 0.171), (3, "memory-only", 0.22, 0.195),
        (3, "ask-then-sweep", 0.98, 0.375), (3, "memory-and-ask", 0.893, 0.515), (4, "oracle", 1.0, 1.0),
    ],
)  # fmt: skip
def test_written_down_searchers_are_worth_what_the_prototype_measured(
    distractors: int, name: str, success: float, weighted: float
) -> None:
    runs = [searched(episode(seed, distractors), SEARCHERS[name]()) for seed in range(100)]
    found = measured(runs)
    assert found.success == pytest.approx(success, abs=0.13) and found.swc == pytest.approx(weighted, abs=0.12)
    assert all(0 <= swc(run) <= spl(run) <= 1 for run in runs)


class TestPlanner:
    def test_what_a_belief_is_reckoned_with(self) -> None:
        assert still_there(24.0) == pytest.approx(0.6065, abs=1e-4)  # half the scale, as the vector's 12 of 24 hours
        assert gain(["red", "red", "blue", "green"]) == pytest.approx(1.5)
        assert gain(["red", "red", "blue", "blue"]) == pytest.approx(1.0) and gain(["red"] * 3) == 0.0

    def test_worlds_hold_all_that_is_known(self) -> None:
        for seed in range(12):
            house = Household(episode(seed, 3))
            house.act(Act("GetMemory", house.search.category))
            house.act(Act("Navigate", house.search.scene.receptacles[0].id))
            belief = Belief({"color": house.search.target.color})
            worlds = belief.worlds(house, random.Random(0))
            assert len(worlds) > 8
            for world in worlds:
                assert len(world.looks) == 4 and world.looks[0][0] == house.search.target.color
                here = [p for p in world.places if p in house.visited]
                assert len(here) == len([t for t in house.visible if t.category == house.search.category])

    def test_it_costs_less_than_what_is_written_down_and_asks_less_where_asking_is_dear(self) -> None:
        found = {}
        for ask in (0.25, 6.0):
            searches = [priced(episode(seed, 3), Prices(ask=ask, fatigue=0.0)) for seed in range(25)]
            found[ask] = measured([searched(one, Planner()) for one in searches])
        other = measured([searched(one, SEARCHERS["memory-and-ask"]()) for one in searches])
        assert found[6.0].with_failures < other.with_failures and found[6.0].asks < found[0.25].asks
        assert found[0.25].success > 0.9 and found[0.25].swc <= 1


class TestGymnasium:
    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_it_is_an_environment_as_gymnasium_checks_them(self) -> None:
        pytest.importorskip("gymnasium")
        from gymnasium.utils.env_checker import check_env

        from memorist.tasks.household.gym import SearchEnv

        check_env(SearchEnv(render_mode="rgb_array"), skip_render_check=False)

    def test_who_looks_sees_a_picture_of_what_has_been_seen_and_nothing_else(self) -> None:
        pytest.importorskip("gymnasium")
        import numpy as np
        from gymnasium.utils.env_checker import check_env

        from memorist.tasks.household.gym import SearchEnv

        env = SearchEnv(images=True)
        check_env(env, skip_render_check=True)
        seen, _ = env.reset(seed=5)
        assert isinstance(seen, dict) and env.observation_space.contains(seen) and env.house is not None
        assert env.png().startswith(b"\x89PNG")
        scene = env.house.search.scene
        place = env.house.search.target.receptacle
        after = env.step(f'<action>Navigate("{place}")</action>')[0]
        assert isinstance(after, dict) and (after["image"] != seen["image"]).any()
        x, y = scene.by_id[place].cell
        spot = (slice(y * 16 + 4, y * 16 + 12), slice(x * 16 + 4, x * 16 + 12))
        assert len(np.unique(seen["image"][spot].reshape(-1, 3), axis=0)) == 1
        assert len(np.unique(after["image"][spot].reshape(-1, 3), axis=0)) > 1

    def test_a_search_that_is_played_through_it_earns_what_it_is_worth(self) -> None:
        pytest.importorskip("gymnasium")
        from memorist.tasks.household.gym import SearchEnv

        env = SearchEnv(distractors=2)
        told, _ = env.reset(seed=5)
        assert isinstance(told, str)
        assert env.reset(seed=5)[0] == told and "3 things are called so" in told and "A metre costs 1" in told
        assert env.house is not None
        searcher, earned, over = SEARCHERS["oracle"](), 0.0, False
        while not over:
            _, reward, stopped, cut, info = env.step(str(searcher.next(env.house)))
            earned, over = earned + reward, stopped or cut
        assert info["success"] and earned == pytest.approx(1 - 0.02 * info["cost"])
        again = env.step("<action>GetMemory()</action>")
        assert again[4]["code"] == "invalid:over" and again[1] < 0, "what was found is paid once"
        env.reset(seed=5)
        assert env.step("hello")[1] == -0.05


def test_a_picture_shows_what_was_seen_and_no_more() -> None:
    image_module = pytest.importorskip("PIL.Image")
    from memorist.tasks.household.picture import COLORS, picture

    house = Household(small())
    before = picture(house)
    assert isinstance(before, image_module.Image) and before.size == (9 * 16, 5 * 16)
    house.act(Act("Navigate", "3"))
    after = picture(house)
    assert COLORS["red"] in {color for _, color in after.getcolors(4096)}
    assert COLORS["red"] not in {color for _, color in before.getcolors(4096)}
