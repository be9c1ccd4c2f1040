"""ESearch: one agent that walks, asks and remembers, its tasks, and what its bank knows of a home later on."""

from __future__ import annotations

import asyncio
import json
import random
import re
import string
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from memorist.agents.components.household_prompts import (
    choices,
    chosen,
    compact,
    kept,
    question,
    some_letters,
)
from memorist.agents.esearch import ESearch, ESearchSettings, Outcome
from memorist.agents.search_heuristics import SEARCHERS, AskThenSweep, MemoryAndAsk, MemoryOnly, Searcher, searched
from memorist.agents.search_planner import Belief, Planner
from memorist.cli import app
from memorist.decision import Action, Decision, Observation, Trajectory
from memorist.errors import RecipeError
from memorist.evaluation.household import by_script, gone, homes, run, write_report
from memorist.memory.record import Code as BankCode
from memorist.memory.record import Operation
from memorist.memory.scratch import ScratchBank
from memorist.recipe import load_recipe, read_recipe
from memorist.tasks.household.belief import QUESTIONS, places, remaining, told
from memorist.tasks.household.episode import Episode, Prices, episode
from memorist.tasks.household.notes import BEGIN, HOME, after, forget_moved, read_notes, write_notes
from memorist.tasks.household.searching import HOMES, SEEDS, SPLITS, HouseholdData, HouseholdTask, in_turn
from memorist.tasks.household.world import Act, Code, Household
from memorist.training.credit import Worth
from test_endpoint import completion, serving

TASKS = HouseholdData(homes=12, least=1, most=4).tasks(0)


class Scripted:
    """Writes what a searcher does, as the agent asks for it; sees nothing but the prompt's length."""

    def __init__(self, make: Callable[[], Searcher], write: Callable[[Household, Act], str]) -> None:
        self.make, self.write = make, write
        self.house: Household | None = None
        self.seen: list[Observation] = []

    async def act(self, observation: Observation) -> Action:
        assert self.house is not None
        self.seen.append(observation)
        return Action(self.write(self.house, self.searcher.next(self.house)))

    def watch(self, agent: ESearch) -> None:
        """Look over the agent's shoulder: its next search is the one that is decided about."""
        usual = Household

        def made(*args: Any, **kwargs: Any) -> Household:
            self.house, self.searcher = usual(*args, **kwargs), self.make()
            return self.house

        import memorist.agents.esearch as place

        place.Household = made  # type: ignore[attr-defined,assignment]


@pytest.fixture(autouse=True)
def as_before() -> Any:
    import memorist.agents.esearch as place

    yield
    place.Household = Household  # type: ignore[attr-defined]


def letter(house: Household, act: Act) -> str:
    offered = choices(house)
    return string.ascii_lowercase[next(i for i, one in enumerate(offered) if one.act == act)]


def ran(task: HouseholdTask, make: Callable[[], Searcher], **how: Any) -> tuple[Outcome, Scripted, ScratchBank]:
    seeker = Scripted(make, letter if how.get("style") == "compact" else lambda _, act: str(act))
    bank = task.bank.fork()
    agent = ESearch(bank=bank, seeker=seeker, **how)
    seeker.watch(agent)
    return asyncio.run(agent.run(task)), seeker, bank


class Says:
    """Always the next of some replies."""

    def __init__(self, replies: list[str]) -> None:
        self.replies = replies
        self.seen: list[Observation] = []

    async def act(self, observation: Observation) -> Action:
        self.seen.append(observation)
        return Action(self.replies[min(len(self.seen), len(self.replies)) - 1])


class TestTheAgent:
    @pytest.mark.parametrize("style", ["full", "compact"])
    @pytest.mark.parametrize("make", [MemoryOnly, AskThenSweep, MemoryAndAsk])
    def test_it_does_what_a_searcher_does_alone(self, style: str, make: Callable[[], Searcher]) -> None:
        for task in TASKS:
            outcome, _, _ = ran(task, make, style=style)
            alone = Household(task.searches[0])
            searcher = make()
            while not alone.over:
                alone.act(searcher.next(alone))
            [house] = outcome.houses
            assert (house.success, house.cost, house.steps) == (alone.success, alone.cost, alone.steps)

    def test_a_list_of_choices_has_all_that_searchers_do_and_says_what_it_costs(self) -> None:
        task = TASKS[2]
        _, seeker, _ = ran(task, MemoryAndAsk, style="compact")
        first = seeker.seen[0].prompt
        assert first.startswith(f"Find: {task.searches[0].category} ") and "worth 25" in first
        assert "memory 0.05 = a\ncolor 0.50 = b\n" in first and first.endswith("Act:")
        assert all(len(one.prompt) < 800 for one in seeker.seen)

    def test_who_is_not_told_of_costs_sees_none(self) -> None:
        for style in ("full", "compact"):
            house = Says(["?"])
            asyncio.run(ESearch(bank=ScratchBank(), seeker=house, style=style, costs=False).run(TASKS[0]))
            seen = "".join(one.prompt + one.system for one in house.seen)
            assert "cost" not in seen and "worth" not in seen and "0.5" not in seen

    def test_all_that_was_said_stays_in_one_window(self) -> None:
        _, seeker, _ = ran(TASKS[1], MemoryAndAsk, style="full")
        last = seeker.seen[-1]
        assert len(last.after) == len(seeker.seen) - 1
        assert "You have spent" in last.prompt and TASKS[1].searches[0].instruction in last.after[0][0].prompt

    @pytest.mark.parametrize("style", ["full", "compact"])
    def test_what_cannot_be_read_ends_a_search_and_costs_it(self, style: str) -> None:
        outcome = asyncio.run(ESearch(bank=ScratchBank(), seeker=Says(["hello"]), style=style).run(TASKS[0]))
        [house] = outcome.houses
        assert house.reason == "invalid" and house.invalid == 3 and not house.success
        terms = {term.name: term.value for term in TASKS[0].score(outcome)}
        assert terms["invalid"] == pytest.approx(-0.15) and terms["success"] == 0

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.text(max_size=12) | st.sampled_from([*"abcdefghij", "<action>Stop(x)</action>"]), min_size=1))
    def test_whatever_is_said_it_does_not_raise(self, replies: list[str]) -> None:
        for style in ("full", "compact"):
            outcome = asyncio.run(ESearch(bank=ScratchBank(), seeker=Says(replies), style=style).run(TASKS[3]))
            assert outcome.houses[0].over and outcome.houses[0].steps <= outcome.houses[0].search.most_steps

    def test_what_was_answered_is_read_from_answers_to_its_own_questions(self) -> None:
        search = replace(episode(3, 3), knows=frozenset(("color", "room")))
        house = Household(search)
        for act in (
            Act("Ask", "Which color is it?"),
            Act("Ask", "Which size is it?"),
            Act("Ask", "In which room is it?"),
        ):
            house.act(act)
        known = told(house)
        assert known.known == {"color": search.target.color} and known.asked == {"color", "size", "room"}
        assert known.room == search.scene.names[search.scene.by_id[search.target.receptacle].room]

    def test_letters_stand_for_what_is_offered_and_for_nothing_else(self) -> None:
        offered = choices(Household(TASKS[0].searches[0]))
        assert chosen(" a ", offered) == offered[0].act
        assert chosen("ab", offered) is None and chosen("", offered) is None and chosen("z", offered) is None
        assert compact(Household(TASKS[0].searches[0]), offered).count(" = ") == len(offered)


class TestHomes:
    def several(self, count: int = 3) -> HouseholdTask:
        return HouseholdData(homes=2, least=3, most=3, searches=count).tasks(0)[1]

    def test_what_was_seen_in_one_search_is_remembered_in_the_next(self) -> None:
        task = self.several()
        outcome, _, bank = ran(task, MemoryAndAsk, style="compact")
        first, second = outcome.houses[:2]
        assert {code for results in outcome.results for code in (r.code for r in results)} <= {
            BankCode.APPLIED, BankCode.UNCHANGED
        }  # fmt: skip
        known = {one.thing: one for one in read_notes(bank.fork(), after(12))}
        assert set(first.seen) <= set(known)
        assert {n.thing for n in second.recalled} >= set(list(first.seen)[:1])
        assert all(n.hours == pytest.approx(12) for n in second.recalled if n.thing in first.seen)

    def test_who_remembers_nothing_finds_only_what_was_known_before(self) -> None:
        task = self.several()
        outcome, _, bank = ran(task, MemoryAndAsk, style="compact", notes="none")
        assert outcome.results == () and len(bank.list(HOME)) == len(task.searches[0].memory)

    @pytest.mark.parametrize(
        ("style", "reply"), [("full", "I keep <remember>{0}, nothing-9</remember>"), ("compact", "a")]
    )
    def test_who_chooses_remembers_what_it_names_and_nothing_else(self, style: str, reply: str) -> None:
        search = episode(11, 3)
        agent = ESearch(bank=ScratchBank(), seeker=Says([reply]), style=style, notes="chosen")
        house = Household(search)
        for place in dict.fromkeys(thing.receptacle for thing in search.scene.things):
            house.act(Act("Navigate", place))
        first = next(iter(house.seen))
        agent.seeker = Says([reply.format(first)])
        asyncio.run(agent._remember(house, after(1)))
        assert [one.thing for one in read_notes(agent.bank, after(1))] == [first]
        agent.seeker = Says(["<remember>" if style == "full" else "?"])
        other = ESearch(bank=ScratchBank(), seeker=agent.seeker, style=style, notes="chosen")
        assert asyncio.run(other._remember(house, after(1))) == () and not other.bank.list(HOME)

    def test_what_is_not_where_it_was_said_to_be_is_forgotten(self) -> None:
        search = next(s for s in map(episode, range(40)) if any(
            s.scene.thing[n.thing].receptacle != n.receptacle for n in s.memory))  # fmt: skip
        moved = [n for n in search.memory if search.scene.thing[n.thing].receptacle != n.receptacle]
        bank = ScratchBank()
        write_notes(bank, search.memory, BEGIN, search.scene)
        house = Household(search)
        house.act(Act("Navigate", moved[0].receptacle))
        asyncio.run(ESearch(bank=bank, seeker=Says([""]))._remember(house, BEGIN))
        left = {one.thing for one in read_notes(bank, BEGIN)}
        assert moved[0].thing not in left
        assert left >= {n.thing for n in search.memory if n.receptacle != moved[0].receptacle}

    def test_a_thing_that_is_seen_elsewhere_is_known_there_alone(self) -> None:
        search = episode(5, 3)
        bank = ScratchBank()
        [old] = search.memory[:1]
        write_notes(bank, [old], BEGIN, search.scene)
        moved = replace(
            old, hours=0.0, receptacle=next(r.id for r in search.scene.receptacles if r.id != old.receptacle)
        )
        write_notes(bank, [moved], after(5), search.scene)
        [found] = read_notes(bank, after(6))
        assert found.receptacle == moved.receptacle and found.hours == pytest.approx(1)
        assert [c.kind for c in bank.history(bank.list(HOME)[0].id, HOME)] == ["ADD", "UPDATE"]

    def test_notes_are_what_the_search_says_where_nothing_was_seen_since(self) -> None:
        for task in TASKS:
            search = task.searches[0]
            found = read_notes(task.bank, BEGIN)
            assert [replace(one, hours=round(one.hours, 3)) for one in found] == [
                replace(one, hours=round(one.hours, 3)) for one in search.memory
            ]

    def test_later_searches_are_in_the_same_home_with_things_moved(self) -> None:
        first = episode(7, 3)
        found = in_turn(first, 4, 7)
        assert found[0] is first and len({one.id for one in found}) == 4
        assert all(one.scene.walkable == first.scene.walkable and not one.memory for one in found[1:])
        assert any(one.scene.things != first.scene.things for one in found[1:])
        assert in_turn(first, 4, 7)[3] == found[3]


class TestTasks:
    def test_costs_rank_what_was_found_and_do_not_make_failing_cheaply_worth_more(self) -> None:
        """Vectors 3 and 4 of the specification: by linear costs a group that fails rewards giving up."""
        task = TASKS[0]
        found, _, _ = ran(task, SEARCHERS["oracle"], style="full")
        gave_up = replace(found, houses=(Household(task.searches[0]),))
        tried = replace(found, houses=(replace(found.houses[0], success=False),))

        def worth(outcome: Outcome, gate: str) -> float:
            return Worth(gate=gate)(Trajectory(task.id, 0, (), task.score(outcome)))

        assert worth(gave_up, "") > worth(tried, "")
        assert worth(gave_up, "success") == worth(tried, "success") == 0 < worth(found, "success") < 1

    def test_homes_of_the_splits_differ_and_are_the_same_each_time(self) -> None:
        names = {split: [t.id for t in HouseholdData(split=split, homes=5).tasks(0)] for split in SPLITS}
        assert len({name for some in names.values() for name in some}) == 5 * len(SPLITS)
        again = HouseholdData(homes=5).tasks(1)
        assert [t.id for t in again] == names["train"] and [t.size for t in again] == [1, 2, 3, 4, 1]

    def test_prices_are_drawn_for_each_home_and_told(self) -> None:
        tasks = HouseholdData(homes=6, prices="drawn").tasks(0)
        prices = [task.searches[0].prices for task in tasks]
        assert len(set(prices)) == 6 and all(10 <= p.failure <= 200 and 0.5 <= p.metre <= 1.5 for p in prices)
        assert prices == [task.searches[0].prices for task in HouseholdData(homes=6, prices="drawn").tasks(0)]
        said = {}
        for failure in (0.0, 10.0, 25.0, 90.0, 1e6):
            house = Household(replace(tasks[0].searches[0], prices=Prices(failure=failure)))
            said[failure] = compact(house, choices(house)).split("worth ")[1].split()[0]
        assert said == {0.0: "12", 10.0: "12", 25.0: "25", 90.0: "100", 1e6: "200"}

    def test_what_is_measured_is_of_all_searches(self) -> None:
        task = HouseholdData(homes=1, searches=2).tasks(0)[0]
        outcome, _, _ = ran(task, SEARCHERS["oracle"], style="full")
        found = task.measures(outcome)
        assert found["success"] == 1 and found["swc"] == 1 and found["asks"] == found["reads"] == 0
        assert found["cost"] == pytest.approx(sum(house.cost.total for house in outcome.houses) / 2)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"split": "tset"}, "test"), ({"prices": "free"}, "drawn"), ({"least": 5, "most": 2}, "expected 0 or more"),
            ({"homes": 0}, "expected 1 or more"), ({"clutter": 99}, "50 or less"), ({"searches": 0}, "1 or more"),
        ],
    )  # fmt: skip
    def test_data_that_cannot_be_is_refused(self, wrong: dict[str, Any], said: str) -> None:
        recipe = {
            "agent": {"name": "esearch"},
            "models": {"seeker": "bundled-seeker"},
            "data": {"kind": "household", **wrong},
        }
        with pytest.raises(RecipeError, match=said):
            read_recipe(recipe)

    def test_an_agent_that_cannot_be_is_refused(self) -> None:
        for wrong, said in (({"style": "ful"}, "full"), ({"notes": "some"}, "none"), ({"reply": 0}, "1 or more")):
            with pytest.raises(RecipeError, match=said):
                ESearchSettings(**wrong).check()  # type: ignore[arg-type]


def test_an_unreachable_or_unseen_thing_is_told_and_costs_a_step() -> None:
    said = ['<action>Navigate("nowhere-1")</action>', '<action>Stop("mug-1")</action>', "<action>Fly()</action>"]
    outcome = asyncio.run(ESearch(bank=ScratchBank(), seeker=Says(said)).run(TASKS[0]))
    [house] = outcome.houses
    assert [step.code for _, step in house.log] == [Code.UNKNOWN_PLACE, Code.UNSEEN, Code.UNKNOWN_NAME]


class TestJudging:
    def test_a_report_shows_what_each_is_worth_and_ways_that_were_gone(self, tmp_path: Path) -> None:
        data = homes(6)
        found = {name: by_script(SEARCHERS[name], data) for name in ("memory-and-ask", "ask-then-sweep")}
        write_report(tmp_path / "report.html", found)
        page = (tmp_path / "report.html").read_text()
        assert page.count("<polyline") == 2 * 4 and "ask-then-sweep" in page and "script" not in page.lower()
        assert "http" not in page.replace("http-equiv", "")

    def test_the_way_that_was_gone_is_as_long_as_what_was_walked(self) -> None:
        for house in by_script(MemoryAndAsk, homes(8)):
            way, stops = gone(house)
            scene = house.search.scene
            assert (len(way) - 1) * scene.cell_size == pytest.approx(house.distance)
            assert way[-1] == house.at and set(way) <= scene.walkable and set(stops) <= set(way)
            assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in pairwise(way))

    def test_text_of_models_is_escaped(self, tmp_path: Path) -> None:
        outcome = asyncio.run(ESearch(bank=ScratchBank(), seeker=Says(["<img src=x onerror=y>"])).run(TASKS[0]))
        write_report(tmp_path / "report.html", {"<b>model</b>": list(outcome.houses)})
        page = (tmp_path / "report.html").read_text()
        assert "<img" not in page and "&lt;img" in page and "<b>model" not in page

    def test_the_command_judges_scripts_and_the_base(self, tmp_path: Path) -> None:
        pytest.importorskip("torch")
        asked = ["eval", "household", "--homes", "3", "--out", str(tmp_path), "--json"]
        found = json.loads(CliRunner().invoke(app, asked).stdout)
        assert found["oracle"]["success"] == 1 and {"planner", "bundled-seeker"} <= set(found)
        assert (tmp_path / "report.html").exists()
        none = CliRunner().invoke(app, ["eval", "household", "--homes", "0"])
        assert isinstance(none.exception, RecipeError) and "expected 1 or more" in str(none.exception)

    def test_a_run_of_another_agent_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "recipe.yaml").write_text("name: other\n")
        with pytest.raises(RecipeError, match="does not search homes"):
            run(tmp_path, None, homes(1), tmp_path, True, Console(quiet=True), Console(quiet=True))


class TestBelief:
    @pytest.mark.parametrize("seed", range(6))
    def test_it_is_what_worlds_drawn_from_it_say(self, seed: int) -> None:
        """The exact shares beside the planner's samples, after some acts of a searcher."""
        search = episode(seed, 3)
        house, searcher = Household(search), MemoryAndAsk()
        for _ in range(3):
            house.act(searcher.next(house))
        assert not house.over
        known = told(house)
        belief = Belief(dict(known.known), known.room)
        worlds = belief.worlds(house, random.Random(seed), 4000)
        exact = places(house, known.known, known.room)
        assert sum(exact.values()) == pytest.approx(1)
        for place in {w.places[0] for w in worlds} | set(exact):
            share = sum(w.places[0] == place for w in worlds) / len(worlds)
            assert share == pytest.approx(exact.get(place, 0.0), abs=0.05)

    def test_asking_remembering_and_looking_bring_the_end_nearer_on_average(self) -> None:
        """What is learnt costs entropy, never adds to it on average: over 60 homes each act brings the end nearer."""
        gained: dict[str, list[float]] = {}
        for task in HouseholdData(homes=60).tasks(0):
            alone, searcher = Household(task.searches[0]), MemoryAndAsk()
            while not alone.over:
                alone.act(searcher.next(alone))
            for (said, _), before, after_ in zip(alone.log, left := remaining(alone), left[1:], strict=False):
                gained.setdefault(said.partition("(")[0], []).append(before - after_)
        assert {name: sum(some) > 0 for name, some in gained.items()} == {
            "<action>GetMemory": True, "<action>Ask": True, "<action>Navigate": True
        }  # fmt: skip

    def test_who_is_shaped_is_paid_for_each_act_and_what_came_of_it(self) -> None:
        task = HouseholdData(homes=1, least=3, most=3, shaping=2.0).tasks(0)[0]
        outcome, seeker, _ = ran(task, MemoryAndAsk, style="compact")
        decisions = [Decision("seeker", "x", one, Action("")) for one in seeker.seen]
        terms = task.placed(outcome, decisions)
        assert [term.decision for term in terms] == list(range(len(decisions)))
        assert task.placed(outcome, decisions[1:]) == ()
        [house] = outcome.houses
        left = remaining(house)
        assert terms[0].value == pytest.approx(2.0 * 0.02 * (left[0] - left[1] - 0.05))
        assert sum(term.value for term in terms) == pytest.approx(0.04 * (left[0] - house.cost.total)), "what is saved"
        lost = replace(outcome, houses=(replace(house, success=False),))
        assert task.placed(lost, decisions)[-1].value == pytest.approx(-0.04 * 25)
        assert replace(task, shaping=0.0).placed(outcome, decisions) == ()
        with pytest.raises(RecipeError, match="shaping"):
            HouseholdData(shaping=-1.0).check()


def test_a_model_behind_a_real_server_is_judged_in_one_window(tmp_path: Path) -> None:
    """The server's program goes from place to place and stops at the first thing of the kind that it is told of."""

    def answer(n: int, body: dict[str, Any]) -> Any:
        said = [m["content"] for m in body["messages"] if m["role"] == "user"]
        assert "<action>" in body["messages"][0]["content"]
        wanted = re.search(r"Bring me the (\w+)", said[0])
        assert wanted is not None
        there = re.search(rf"({wanted[1]}-\d+) \(", said[-1])
        places = re.findall(r"[a-z]+-\d+", said[0].partition("Places:")[2])
        act = f'Stop("{there[1]}")' if there else f'Navigate("{places[len(said) - 1]}")'
        return completion(f"<think>next</think> <action>{act}</action>")

    with serving(answer) as (url, seen):
        asked = ["eval", "household", "--homes", "4", "--endpoint", f"{url}#m", "--out", str(tmp_path), "--json"]
        found = json.loads(CliRunner().invoke(app, asked).stdout)
        assert len(seen) > 4 and max(len(body["messages"]) for body in seen) > 3
        once = len(seen)
        again = json.loads(CliRunner().invoke(app, asked).stdout)
        assert again == found and len(seen) == once, "replies are kept"
    [name] = set(found) - {*SEARCHERS, "planner"}
    assert found[name]["cost"] > 0 and found[name]["asks"] == 0


def test_the_recipe_trains_the_bundled_base_and_every_letter_stands_for_something(tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    from memorist.evaluation.runs import train
    from memorist.log import read_trajectories

    recipe = load_recipe("esearch")
    short = replace(recipe.stages[0], steps=1, tasks=3, siblings=4)
    data = replace(recipe.data, homes=6, searches=2)  # type: ignore[type-var]
    train(replace(recipe, stages=(short,), data=data), tmp_path)
    [step] = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"success", "with_failures", "swc"} <= set(step["measures"]) and step["terms"]["invalid"] == 0
    assert step["ratio_error_1"] < 1e-4 and step["tokens"] > 0
    [file] = (tmp_path / "trajectories").glob("*.jsonl")
    for trajectory in read_trajectories(file):
        for decision in trajectory.decisions:
            offered = re.findall(r" = (\w)$", decision.observation.prompt, re.MULTILINE)
            assert decision.action.text in offered


class TestWhatAReaderFound:
    def test_what_is_seen_again_where_it_was_is_known_to_be_there_since(self) -> None:
        for task in HouseholdData(homes=12, least=3, most=3, searches=3).tasks(0):
            outcome, _, bank = ran(task, MemoryAndAsk, style="compact")
            known = {one.thing: one for one in read_notes(bank, after(24))}
            for thing in outcome.houses[1].seen:
                assert known[thing].hours == pytest.approx(12)

    @pytest.mark.parametrize(
        "payload",
        [
            {"color": 5}, {"color": ["a"]}, {"receptacle": ["a"]}, {"receptacle": "nowhere-1"}, {"seen": "yesterday"},
            {"seen": "2025-01-01T00:00:00"}, {"category": None}, {"room": "no room"},
        ],
    )  # fmt: skip
    def test_whatever_lies_in_the_bank_nothing_raises_and_nothing_else_is_lost(self, payload: dict[str, Any]) -> None:
        search = episode(4, 2)
        bank = ScratchBank()
        [good] = search.memory[:1]
        write_notes(bank, [good], BEGIN, search.scene)
        [record] = bank.list(HOME)
        bank.apply(
            [Operation("ADD", "odd", key="tip", payload={**record.payload, **payload}),
             Operation("ADD", "a desk", key="desk", payload={"receptacle": good.receptacle})],
            HOME, at=BEGIN,
        )  # fmt: skip
        for make in (MemoryOnly, MemoryAndAsk, Planner):
            house, searcher = Household(search, notes=lambda: read_notes(bank, BEGIN)), make()
            while not house.over:
                assert choices(house)
                house.act(searcher.next(house))
            assert house.success or house.reason == "stop"
            forget_moved(bank.fork(), house, BEGIN)
        assert {record.key for record in bank.list(HOME)} == {good.thing, "tip", "desk"}
        forget_moved(bank, replace_visited(search, good.receptacle), BEGIN)
        assert "desk" in {record.key for record in bank.list(HOME)}, "it is no note of a thing"

    def test_who_chooses_nothing_still_forgets_what_is_not_there(self) -> None:
        search = episode(4, 2)
        [noted] = search.memory[:1]
        elsewhere = next(r.id for r in search.scene.receptacles if r.id != search.scene.thing[noted.thing].receptacle)
        bank = ScratchBank()
        write_notes(bank, [replace(noted, receptacle=elsewhere)], BEGIN, search.scene)
        house = replace_visited(search, elsewhere, search.scene.thing[noted.thing].receptacle)
        asyncio.run(ESearch(bank=bank, seeker=Says(["-"]), style="compact", notes="chosen")._remember(house, BEGIN))
        assert not bank.list(HOME)

    def test_acts_are_paid_where_what_to_keep_is_asked_in_between(self) -> None:
        task = HouseholdData(homes=1, searches=2, shaping=1.0).tasks(0)[0]
        seeker = Scripted(MemoryAndAsk, letter)
        agent = ESearch(bank=task.bank.fork(), seeker=seeker, style="compact", notes="chosen")
        seeker.watch(agent)
        outcome = asyncio.run(agent.run(task))
        decisions = [Decision("seeker", "x", one, Action("")) for one in seeker.seen]
        [asked] = [i for i, one in enumerate(seeker.seen) if one.prompt.endswith("Keep:")]
        assert outcome.others == (1, 0) and asked == len(outcome.houses[0].log)
        assert [term.decision for term in task.placed(outcome, decisions)] == [
            i for i in range(len(decisions)) if i != asked
        ]

    def test_splits_never_have_a_home_in_common(self) -> None:
        for wrong in ({"seed": 100}, {"seed": -1}, {"homes": 100_001}):
            with pytest.raises(RecipeError, match="splits would have homes in common"):
                HouseholdData(**wrong).check()  # type: ignore[arg-type]
        begin = sorted(SPLITS.values())
        assert all(b - a >= SEEDS * HOMES for a, b in pairwise(begin))

    def test_values_that_our_homes_do_not_have_are_heard(self) -> None:
        search = episode(6, 3)
        target = search.target
        things = tuple(replace(t, color="yellow") if t.id == target.id else t for t in search.scene.things)
        search = replace(search, scene=replace(search.scene, things=things))
        house = Household(search)
        house.act(question("color"))
        assert told(house).known == {"color": "yellow"}
        for make in (AskThenSweep, MemoryAndAsk):
            assert searched(search, make()).success

    def test_where_nothing_is_left_something_can_still_be_done(self) -> None:
        search = episode(8, 1)
        house = Household(replace(search, most_steps=100))
        for name in QUESTIONS:
            house.act(question(name))
        house.act(Act("GetMemory"))
        for receptacle in search.scene.receptacles:
            house.act(Act("Navigate", receptacle.id))
        house.seen, house.visible = {}, ()
        assert choices(house) and all(one.act.name == "Navigate" for one in choices(house))

    @pytest.mark.parametrize(("reply", "kept_"), [("none", 0), ("-", 0), ("ab", 2), ("b", 1), ("z", 0), ("a, b", 0)])
    def test_letters_of_what_to_keep_are_letters_of_the_list(self, reply: str, kept_: int) -> None:
        assert len(kept(reply, episode(1, 2).scene.things[:3], letters=True)) == kept_

    def test_names_with_blanks_and_bars_can_be_kept(self) -> None:
        things = [replace(episode(1, 2).scene.things[0], id=name) for name in ("my mug", "Mug|1|-2")]
        assert kept("<remember>Mug|1|-2; my mug</remember>", things, letters=False) == things
        assert kept("<remember>mug</remember>", things, letters=False) == []

    def test_a_thought_about_an_action_is_none(self) -> None:
        house = Household(episode(2, 1))
        done = house.message('<think>Not <action>Stop("x")</action> yet.</think><action>GetMemory()</action>')
        assert done.code is Code.DONE and house.read == 1

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_the_grammar_of_what_to_keep_has_each_letter_once(self, count: int) -> None:
        llguidance = pytest.importorskip("llguidance")
        grammar = llguidance.LLMatcher.grammar_from_lark(some_letters(str(count)))
        assert not llguidance.LLMatcher.validate_grammar(grammar)


def replace_visited(search: Episode, *places_: str) -> Household:
    """A search after a look at some places."""
    house = Household(search)
    for place in places_:
        house.act(Act("Navigate", place))
    return house
