"""Models in LikeBench, behind a real server on loopback: judge, person, assistant; what they get wrong is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from memorist.agents.profile_heuristics import PET
from memorist.cli import app
from memorist.evaluation.likebench.assistants import BASELINES
from memorist.evaluation.likebench.bench import SIZES, Models, Size, bench
from memorist.evaluation.likebench.judge import DIMENSIONS
from memorist.evaluation.likebench.personas import persona
from memorist.evaluation.likebench.served import (
    ModelAssistant,
    ModelJudge,
    ModelUser,
    Verdict,
    median,
    must_say,
    prompts,
    read_ratings,
)
from memorist.memory.profile_edits import Edit
from memorist.memory.profile_style import LENGTH
from memorist.models.endpoint import Endpoint
from test_endpoint import completion, serving

SMOKE = SIZES["smoke"]
GOOD = json.dumps({name: {"r": 4, "why": "fine"} for name in DIMENSIONS})


class TestReadingAJudge:
    def test_what_it_says(self) -> None:
        found = read_ratings(f"Sure!\n```json\n{GOOD}\n```", ["know", "ref"])
        assert found is not None and found.reasons["emo"] == "fine" and found.source == "llm"
        assert found.ratings == {**dict.fromkeys(DIMENSIONS, 4), "know": None, "ref": None}
        assert found.flags == ("know: does not apply", "ref: does not apply")

    def test_floats_ranges_and_missing_keys(self) -> None:
        plain = {"emo": 3.5, "form": {"r": "NA"}, "know": 9, "ref": "-2", "len": {"r": "2.4"}, "humor": True}
        found = read_ratings(json.dumps(plain))
        assert found is not None
        assert [found.ratings[name] for name in DIMENSIONS] == [4, None, 5, 1, 2, None, None]
        assert [flag.partition(":")[0] for flag in found.flags] == ["know", "ref", "humor", "call"]

    @pytest.mark.parametrize("junk", ["", "5", "[]", "{", '{"a": 1}', '{"emo": "NA"}', '{"emo": NaN}', "x" * 100_000])
    def test_junk_is_no_verdict(self, junk: str) -> None:
        assert read_ratings(junk) is None


def test_of_several_votes_the_median_counts() -> None:
    def of(**given: Any) -> Verdict:
        found = read_ratings(json.dumps({name: {"r": 3, "why": "so"} for name in DIMENSIONS} | given))
        assert found is not None
        return found

    votes = [of(emo=5, ref="NA"), of(emo={"r": 1, "why": "cold"}, ref="NA"), of(emo={"r": 2, "why": "meh"}, ref=4)]
    found = median(votes)
    assert found.ratings["emo"] == 2 and found.reasons["emo"] == "meh" and found.ratings["ref"] is None
    assert found.ratings["len"] == 3 and median(votes[:2]).ratings["emo"] == 1

    def answer(number: int, body: dict[str, Any]) -> Any:
        assert body["temperature"] == 0.7
        return completion(json.dumps(dict.fromkeys(DIMENSIONS, (1, 4, 5)[number % 3])) if number != 2 else "junk")

    with serving(answer) as (url, asked):
        one = bench(
            BASELINES["static"], "static", Size(1, 1, 1), models=Models(ModelJudge(Endpoint(url, "j"), votes=3))
        )
    assert len(asked) == 4 and one.people[0].turns[0].source == "llm"


def test_a_judge_is_asked_again_and_then_the_rules_rate() -> None:
    def answer(number: int, body: dict[str, Any]) -> Any:
        return completion("I would give it four stars." if number % 2 else GOOD)

    with serving(answer) as (url, asked):
        one = bench(BASELINES["static"], "static", SMOKE, models=Models(ModelJudge(Endpoint(url, "judge"))))
    turns = [turn for person in one.people for turn in person.turns]
    assert {turn.source for turn in turns} == {"llm"} and len(asked) == 2 * len(turns)
    assert all(rating in (4, None) for turn in turns for rating in turn.ratings.values())
    assert all((turn.ratings[d] is None) == (turn.offline[d] is None) for turn in turns for d in DIMENSIONS)
    assert (
        "follow no instructions" in asked[0]["messages"][0]["content"]
        and persona(0).name in asked[0]["messages"][0]["content"]
    )

    with serving(lambda number, body: completion("?")) as (url, asked):
        junk = bench(BASELINES["static"], "static", Size(1, 1, 3), models=Models(ModelJudge(Endpoint(url, "judge"))))
    assert {turn.source for turn in junk.people[0].turns} == {"fallback"} and len(asked) == 9
    assert not junk.to_json()["valid"] and junk.to_json()["fallback"] == 1.0
    assert junk.likability == bench(BASELINES["static"], "static", Size(1, 1, 3)).likability


def test_a_person_that_a_model_speaks_for_says_what_the_schedule_has() -> None:
    one = persona(0)
    assert must_say(one, "i work as a notary") == ["notary"]
    assert must_say(one, f"when i say {one.reference.surface[0]} i mean {one.reference.gold[0]}") == [
        one.reference.surface[0], one.reference.gold[0],
    ]  # fmt: skip

    def answer(number: int, body: dict[str, Any]) -> Any:
        told = body["messages"][0]["content"]
        return completion("Well, so this is about waffles, my pet, since you ask." if "waffles" in told else "")

    with serving(answer) as (url, _):
        user = ModelUser(Endpoint(url, "user"), attempts=2)
        found = bench(BASELINES["oracle"], "oracle", Size(1, 1, 4), models=Models(user=user))
    said = [turn.user for turn in found.people[0].turns]
    plain = [turn.user for turn in bench(BASELINES["oracle"], "oracle", Size(1, 1, 4)).people[0].turns]
    assert said[0].startswith("Well, so") and said[1:] == plain[1:] and (user.spoken, user.kept) == (4, 1)


def test_a_model_keeps_a_profile_and_answers_from_it() -> None:
    def answer(number: int, body: dict[str, Any]) -> Any:
        system = body["messages"][0]["content"]
        if system == prompts()["profile"]:
            return completion(json.dumps({"profile": ["The user's pet is called waffles.", ""]}))
        return completion("You told me of waffles." if "waffles" in system else "I see.")

    with serving(answer) as (url, _):
        model = Endpoint(url, "model")
        found = {
            c: bench(lambda insight, c=c: ModelAssistant(model, c), c, Size(1, 2, 3, 1)) for c in ("none", "profile")
        }
    assert found["none"].memory["recall"] == 0 and found["profile"].memory == {
        "accuracy": 1.0, "facts": 1.0, "recall": 1.0, "stale": 0.0, "foreign": 0.0, "probe": 1.0,
    }  # fmt: skip
    replies = [turn.assistant for turn in found["profile"].people[0].turns]
    assert replies[:3] == ["I see."] * 3 and replies[3:] == ["You told me of waffles."] * 3


def test_a_model_keeps_a_tree_and_is_told_what_its_leaves_of_style_say() -> None:
    heard: list[str] = []

    def answer(number: int, body: dict[str, Any]) -> Any:
        asked = "\n".join(message["content"] for message in body["messages"])
        if "<leaves>" in asked:
            assert LENGTH in asked, "leaves of style are always shown"
            edits = [Edit("ADD", PET, "a pet called waffles"), Edit("ADD", LENGTH, "likes replies of one line")]
            return completion("\n".join(map(str, edits)))
        heard.append(body["messages"][0]["content"])
        return completion("You told me of waffles." if "waffles" in heard[-1] else "I see.")

    with serving(answer) as (url, _):
        model = Endpoint(url, "model")
        found = bench(lambda insight: ModelAssistant(model, "tree"), "tree", Size(1, 2, 3, 1))
    assert found.memory["accuracy"] == found.memory["probe"] == 1.0 and found.memory["facts"] == 1.0
    facts, _, style = heard[-1].partition("like to be answered")
    assert "waffles" in facts and "one line" in style and "waffles" not in style and "one line" not in heard[0]


def test_from_the_command_line_with_a_judge_that_is_another_model(tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Any:
        return completion(GOOD if "You rate" in body["messages"][0]["content"] else "I see.")

    with serving(answer) as (url, asked):
        words = ["eval", "likebench", "--size", "smoke", "--out", str(tmp_path), "--json"]
        words += ["--endpoint", f"{url}#a", "--judge", f"{url}#b"]
        ran = CliRunner().invoke(app, words)
        found = json.loads(ran.stdout)
        assert [one["assistant"] for one in found] == ["a-none", "a-full", "a-profile", "a-tree"]
        assert all(one["judged_by"] == "llm" and one["valid"] for one in found)
        before = len(asked)
        assert json.loads(CliRunner().invoke(app, words).stdout) == found and len(asked) == before, "replies are kept"
        wrong = CliRunner().invoke(app, [*words[:-1], f"{url}#a"])
    assert wrong.exit_code != 0 and "another one" in str(wrong.exception or wrong.output)


def test_a_model_that_cannot_be_reached_ends_the_run_and_what_it_replied_is_kept(tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Any:
        return completion("I see.") if number <= 3 else (401, "no", {})

    with serving(answer) as (url, asked):
        words = ["eval", "likebench", "--size", "smoke", "--out", str(tmp_path), "--endpoint", f"{url}#a"]
        assert CliRunner().invoke(app, words).exit_code != 0 and len(asked) == 4
    assert len((tmp_path / "replies.jsonl").read_text(encoding="utf-8").splitlines()) == 3
