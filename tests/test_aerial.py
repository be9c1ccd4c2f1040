"""Scenes from above, questions whose answers come from what was drawn, and the rules that reward answers."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.errors import DataError
from memorist.tasks.aerial.questions import CELLS, EIGHT, STAGES, cell, question, relation
from memorist.tasks.aerial.rules import WORDS, answer, correct, counted, form, one_number, whole
from memorist.tasks.aerial.scene import COLOURS, SIDE, UNSEEN, Scene, Thing

MANY = range(60)


def thing(kind: str, *box: int) -> Thing:
    return Thing(kind, "red", box)  # type: ignore[arg-type]


class TestScenes:
    def test_the_specifications_scene(self) -> None:
        scene = Scene("urban", (thing("car", 4, 4, 8, 11), thing("car", 40, 44, 44, 51), thing("tree", 24, 24, 30, 30)))
        assert len(scene.of("car")) == 2 and not scene.of("boat")
        assert cell(scene.things[1]) == "bottom right" and cell(scene.things[2]) == "centre"

    @pytest.mark.parametrize("task", STAGES)
    def test_things_do_not_touch_and_lie_in_the_picture(self, task: str) -> None:
        for seed in MANY:
            things = question(task, seed, unseen=seed % 2 == 1).scene.things
            for n, one in enumerate(things):
                left, top, right, bottom = one.box
                assert 0 < left <= right < SIDE - 1 and 0 < top <= bottom < SIDE - 1
                for other in things[:n]:
                    assert (
                        right + 1 < other.box[0] or other.box[2] + 1 < left
                        or bottom + 1 < other.box[1] or other.box[3] + 1 < top
                    )  # fmt: skip

    def test_a_scene_is_a_function_of_task_and_seed(self) -> None:
        assert question("count", 3) == question("count", 3) != question("count", 4)
        assert question("count", 3).scene != question("presence", 3).scene

    def test_what_is_unlike_the_others_is_in_no_other_scene(self) -> None:
        def pairs(unseen: bool) -> set[tuple[str, str]]:
            return {
                (t.kind, t.colour)
                for task in STAGES
                for s in MANY
                for t in question(task, s, unseen=unseen).scene.things
            }

        assert not pairs(False) & UNSEEN and pairs(True) >= UNSEEN

    def test_it_is_read_as_it_was_written(self) -> None:
        made = question("relation", 1).scene
        assert Scene.read(made.to_json()) == made

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"environment": "moon"}, "urban"), ({"things": 3}, "things"), ({"things": [{"kind": "car"}]}, "box"),
            ({"things": [{"kind": "cow", "colour": "red", "box": [1, 1, 2, 2]}]}, "cow"),
            ({"things": [{"kind": "car", "colour": "red", "box": [5, 1, 2, 2]}]}, "left"),
            ({"things": [{"kind": "car", "colour": "red", "box": ["x", 1, 2, 2]}]}, "box"),
        ],
    )  # fmt: skip
    def test_what_is_no_scene_is_refused(self, wrong: dict[str, Any], said: str) -> None:
        with pytest.raises(DataError, match=said):
            Scene.read(question("count", 1).scene.to_json() | wrong)

    def test_pictures_of_several_sizes_show_the_same(self) -> None:
        image = pytest.importorskip("PIL.Image")
        scene = Scene("rural", (Thing("car", "red", (10, 20, 17, 24)),))
        for side in (56, 112, 224):
            seen = image.open(io.BytesIO(scene.png(side))).convert("RGB")
            assert seen.size == (side, side)
            at = round(11 * side / SIDE), round(20.5 * side / SIDE)
            assert seen.getpixel(at) == COLOURS["red"] and seen.getpixel((1, 1)) == (70, 130, 60)
        with pytest.raises(DataError, match="56 or more"):
            scene.png(20)

    def test_a_thing_of_each_kind_changes_the_picture(self) -> None:
        pytest.importorskip("PIL.Image")
        drawn = {Scene("airport", (Thing(kind, "blue", (4, 4, 12, 10), shape),)).png() for kind, shape in (
            ("car", ""), ("truck", ""), ("boat", ""), ("plane", ""), ("tree", ""), ("building", "circle"),
            ("building", "square"), ("building", "triangle"))}  # fmt: skip
        assert len(drawn | {Scene("airport").png()}) == 9


class TestQuestions:
    def test_eight_tasks_in_three_stages(self) -> None:
        assert len(EIGHT) == 8 and {STAGES[task] for task in EIGHT} == {1, 2, 3}

    @pytest.mark.parametrize("task", STAGES)
    def test_answers_are_those_of_the_scene(self, task: str) -> None:
        for seed in MANY:
            asked = question(task, seed, unseen=seed % 3 == 2)
            scene, said = asked.scene, asked.answer
            assert asked.stage == STAGES[task] and (said in asked.choices or not asked.choices)
            assert correct(said, said, asked.kind)
            words = asked.text.replace("?", "").replace(",", "").replace(".", "").split()
            named = [kind for kind in ("car", "truck", "boat", "plane", "tree") if {kind, f"{kind}s"} & set(words)]
            if task == "count":
                assert int(said) == len(scene.of(named[0]))
            elif task == "presence":
                assert (said == "yes") == bool(scene.of(named[0]))
            elif task == "colour":
                assert {t.colour for t in scene.of(named[0])} == {said}
            elif task == "shape":
                assert [t.shape for t in scene.things if t.marked] == [said]
            elif task == "size":
                [large], [small] = (scene.of(kind) for kind in (said, next(k for k in named if k != said)))
                assert large.area >= 1.5 * small.area
            elif task == "transport":
                assert {t.kind for t in scene.things} - {"tree", "building"} == {said}
            elif task == "relation":
                [one], [other] = (scene.of(kind) for kind in sorted(named, key=words.index))
                assert relation(one, other) == said
            elif task == "scene":
                assert scene.environment == said
            else:
                assert cell(scene.of(named[0])[0]) == said

    @pytest.mark.parametrize("task", EIGHT)
    def test_who_always_says_the_same_is_seldom_right(self, task: str) -> None:
        made = [question(task, seed) for seed in range(300)]
        fewest = min(len(one.choices) or 7 for one in made)
        assert Counter(one.answer for one in made).most_common(1)[0][1] < 300 * 1.4 / fewest

    def test_all_parts_of_a_picture_are_asked_for(self) -> None:
        assert {question("location", seed).answer for seed in range(200)} == set(CELLS)

    def test_a_relation_is_clear_or_there_is_none(self) -> None:
        middle = thing("car", 20, 20, 24, 24)
        assert relation(thing("car", 0, 19, 4, 23), middle) == "left"
        assert relation(thing("car", 21, 40, 25, 44), middle) == "below"
        assert relation(thing("car", 30, 30, 34, 34), middle) is None and relation(middle, middle) is None


class TestRules:
    @pytest.mark.parametrize(
        ("text", "whole_form", "soft", "said"),
        [
            ("<think>I see 3 cars.</think><answer>3</answer>", 1, 1.0, "3"),
            ("<think>x</think> 3", 0, 0.5, None),
            ("<answer>3</answer><think>x</think>", 0, 1.0, "3"),
            ("<think>x</think><answer>3</answer><answer>4</answer>", 0, 0.5, "4"),
            ("<think></think><answer>3</answer>", 0, 1.0, "3"),
            ("ok <think>x</think><answer>3</answer>", 0, 1.0, "3"),
            (" \n<think>a\nb</think>\n <answer>3</answer>\n", 1, 1.0, "3"),
        ],
    )
    def test_form(self, text: str, whole_form: int, soft: float, said: str | None) -> None:
        assert (form(text), form(text, soft=True), answer(text)) == (whole_form, soft, said)

    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("3", 3), ("Three", 3), ("3 cars", 3), ("three cars.", 3), ("3.0", 3), ("12,000", 12000), ("3 or 4", None),
            ("about", None), ("There are three cars and 2 trucks", None), ("3.5", None), ("", None), ("-2", -2),
        ],
    )  # fmt: skip
    def test_whole_numbers(self, text: str, number: int | None) -> None:
        assert whole(text) == number

    @pytest.mark.parametrize(
        ("said", "gold", "value"), [("3", 3, 1), ("4", 3, 0.3333), ("6", 3, 0), ("0", 0, 1), ("1", 0, 0), (None, 3, 0)]
    )
    def test_counts_that_are_nearly_right(self, said: str | None, gold: int, value: float) -> None:
        assert counted(said, gold) == pytest.approx(value, abs=1e-4)

    @pytest.mark.parametrize(
        ("said", "gold", "kind", "right"),
        [
            ("The Car.", "car", "choice", True), ("automobile", "car", "choice", True),
            ("scar", "car", "choice", False),
            ("ship", "boat", "choice", True), ("Yes, there is", "yes", "yesno", True), ("no", "yes", "yesno", False),
            ("maybe yes", "yes", "yesno", False), ("13", "3", "int", False), ("three", "3", "int", True),
            ("upper left", "top left", "cell", True), ("middle", "centre", "cell", True),
            ("middle centre", "centre", "cell", True), ("bottom center", "bottom centre", "cell", True),
            ("left", "top left", "cell", False), ("10.05", "10", "float", True), ("10.2", "10", "float", False),
            (None, "car", "choice", False), ("", "car", "choice", False), ("", "no", "yesno", False),
        ],
    )  # fmt: skip
    def test_answers(self, said: str | None, gold: str, kind: str, right: bool) -> None:
        assert correct(said, gold, kind) is right

    @given(st.text(max_size=60), st.sampled_from(["choice", "yesno", "int", "cell", "float"]))
    def test_any_text_is_judged(self, text: str, kind: str) -> None:
        gold = {"choice": "car", "yesno": "yes", "int": "3", "cell": "top left", "float": "2.5"}[kind]
        correct(text, gold, kind)
        assert 0 <= form(text) <= 1 and 0 <= counted(text, 3) <= 1

    @given(st.integers(0, 10**9))
    def test_numbers_are_read_as_they_are_written(self, number: int) -> None:
        assert whole(str(number)) == whole(f"{number:,}") == whole(f"about {number}.0 of them") == number
        assert number > 10 or one_number(WORDS[number]) == number
