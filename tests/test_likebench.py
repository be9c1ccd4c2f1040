"""LikeBench from the people to the report: the spec's vectors, its orderings, cheats, odd assistants, transcripts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memorist.cli import app
from memorist.errors import DataError, RecipeError
from memorist.evaluation.likebench.assistants import BASELINES, Flattery, Static
from memorist.evaluation.likebench.bench import SIZES, Outcome, Size, bench, matched, replay
from memorist.evaluation.likebench.joined import ASSISTANTS, Joined
from memorist.evaluation.likebench.metrics import adaptability
from memorist.evaluation.likebench.personas import KINDS, REFERENCES, persona, to_json, u
from memorist.evaluation.likebench.report import effects, write
from memorist.evaluation.likebench.simulator import JOKES, User, register
from memorist.evaluation.likebench.text import LEXICON, text
from memorist.memory.profile_style import Style

FORTY = SIZES["forty"]


@pytest.fixture(scope="module")
def measured() -> dict[str, Outcome]:
    return {name: bench(make, name, FORTY) for name, make in BASELINES.items()}


class TestPeople:
    def test_draws_are_those_of_the_spec(self) -> None:
        assert u(7, "p001", 1, 1, "event") == 0.5087014641612768 and u(7, "p001", 1, 2, "event") == 0.57878980319947
        assert u(0, "p000", 1, 1, "mood") == 0.9267657622694969

    def test_the_first_person_is_that_of_the_spec(self) -> None:
        one = persona(0)
        liking = one.liking
        assert (one.social, one.predictability, liking.support, liking.humor) == (
            "social", "unpredictable", "validate", "dry",
        )  # fmt: skip
        numbers = (liking.formality, liking.appetite, liking.callback, one.directness)
        assert [round(x, 4) for x in numbers] == [0.8352, 0.5003, 0.0824, 0.6927] and (liking.lo, liking.hi) == (20, 40)
        assert list(liking.expertise.values()) == [0.5, 0.9, 0.9, 0.1]
        assert [fact.value for fact in one.facts] == [
            "waffles", "kyoto", "notary", "imogen", "oboe", "shellfish", "fiat", "origami",
        ]  # fmt: skip

    def test_how_they_like_it_drifts_where_they_are_unpredictable(self) -> None:
        one = persona(0)
        assert one.drifts_in == 4 and one.likes(3) == one.liking
        assert one.likes(4).formality == pytest.approx(1 - one.liking.formality) and one.likes(4).lo == 40
        steady = next(p for i in range(9) if (p := persona(i)).predictability == "predictable")
        assert steady.drifts_in == 0 and steady.likes(6) == steady.liking

    def test_registers_can_be_heard(self) -> None:
        lines = [register("i live in lisbon", formality) for formality in (0.7, 0.3, 0.5)]
        assert [text(line).formality for line in lines] == [0.75, 0.2, 0.5]
        for kind in KINDS:
            told = [kind.states, kind.hints, kind.of_another, f"something to decide about {kind.label}"]
            assert all(text(one).formality == 0.5 for one in told) and not any(text(one).has(LEXICON) for one in told)
            assert all(one.count("{}") == 1 for one in told[:3])
        assert not any(text(joke).has(LEXICON) for joke in JOKES)

    def test_words_for_facts_are_of_one_fact_alone(self) -> None:
        values = [value for kind in KINDS for value in kind.values]
        assert len(values) == len(set(values)) and not set(values) & set(LEXICON)
        assert len({surface for one in REFERENCES for surface in one.surface}) == len(REFERENCES)

    def test_nothing_that_is_hidden_is_in_what_a_model_that_plays_them_reads(self) -> None:
        one = persona(1, facts=24, changing=4)
        assert not any(character.isdigit() for character in one.summary)
        kept = json.loads(json.dumps(to_json(one)))
        assert len(kept["facets"]) == 35 and {fact["kind"] for fact in kept["facts"]} == {"explicit", "implicit"}

    def test_long_sessions_have_updates_and_noise_is_of_somebody_else(self) -> None:
        one = persona(3, sessions=10, facts=24, changing=4)
        user = User(one, noise=0.4, turns=8)
        said = [user.speak(s, t, e) for s in range(1, 11) for t, e in enumerate(user.events(s), 1)]
        assert {"update", "distract", "callback", "reference"} <= {line.event for line in said}
        assert user.changed and any(user.strangers.values())
        for name, known in user.known().items():
            assert not set(known.current) & set(known.stale), name


class TestOrderings:
    def test_likability_lies_where_the_spec_has_it(self, measured: dict[str, Outcome]) -> None:
        bands = {"static": 3.66, "memory-only": 3.89, "adaptive": 4.22, "style-only": 4.75, "oracle": 4.99}
        for name, value in bands.items():
            assert measured[name].likability == pytest.approx(value, abs=0.15), name

    def test_orderings(self, measured: dict[str, Outcome]) -> None:
        likability = {name: one.likability for name, one in measured.items()}
        assert likability["static"] < likability["memory-only"] < likability["style-only"] < likability["oracle"]
        assert likability["static"] < likability["adaptive"] < likability["oracle"]
        slope = {name: adaptability(one.curve).slope for name, one in measured.items()}
        assert slope["adaptive"] > 0.03 > abs(slope["static"])
        found = effects(measured)
        assert found["style"] > found["memory"] > 0 and effects({"static": measured["static"]}) == {}

    def test_noise_lowers_what_is_learnt_and_bands_hold_with_it(self, measured: dict[str, Outcome]) -> None:
        noisy = {name: bench(BASELINES[name], name, Size(40, noise=0.4)) for name in ("static", "adaptive", "oracle")}
        for name, value in {"static": 3.74, "adaptive": 4.17, "oracle": 4.99}.items():
            assert noisy[name].likability == pytest.approx(value, abs=0.15), name
        assert adaptability(noisy["adaptive"].curve).slope < adaptability(measured["adaptive"].curve).slope
        calm, rough = matched(measured["adaptive"], noisy["adaptive"])
        assert calm > rough
        assert noisy["adaptive"].memory["foreign"] > 0 == noisy["oracle"].memory["foreign"]

    def test_cheats_are_liked_less_than_what_does_nothing(self, measured: dict[str, Outcome]) -> None:
        for cheat in ("flattery", "word-salad"):
            assert measured[cheat].likability < measured["static"].likability - 1

    def test_it_is_the_same_every_time(self, measured: dict[str, Outcome]) -> None:
        assert bench(BASELINES["adaptive"], "adaptive", FORTY).to_json() == measured["adaptive"].to_json()


class TestJoined:
    def test_it_is_liked_more_than_what_keeps_notes(self) -> None:
        people = bench(ASSISTANTS["joined"], "joined", Size(3, 3, 6), seed=200)
        notes = bench(BASELINES["adaptive"], "adaptive", Size(3, 3, 6), seed=200)
        assert people.likability > notes.likability + 0.1
        assert people.memory["accuracy"] > 0.9 > notes.memory["accuracy"] and people.memory["probe"] > 0.8

    def test_what_people_let_on_steers_it_and_is_kept_in_leaves_of_style(self) -> None:
        one = Joined()
        for said in ("hey, i live in leeds tbh!", "Please keep it shorter. No jokes please.", "just hear me out first"):
            asyncio.run(one.reply(said))
        style = Style.of(one.tree.leaves())
        assert style.fewer and style.jokes is False and style.support == "validate"
        assert len(asyncio.run(one.reply("and so on")).split()) < style.fewer
        asyncio.run(one.reply("Tell me more next time."))
        assert Style.of(one.tree.leaves()).more
        assert one.profile() == ["I live in leeds"] and "leeds" in asyncio.run(one.recall("Where do I live?"))

    def test_an_allusion_is_learnt_and_what_was_can_be_read_back(self) -> None:
        one = Joined()
        asyncio.run(one.reply("When i say the usual place i mean blue door cafe."))
        asyncio.run(one.reply("When i say the usual place i mean red lion."))
        first = one.tree.versions()[0]
        assert Style.of(one.tree.leaves()).allusions == {"the usual place": "red lion"}
        assert Style.of(one.tree.leaves(as_of=first)).allusions == {"the usual place": "blue door cafe"}


class Odd(Static):
    """Fails in another way each turn."""

    def __init__(self) -> None:
        self.turn = 0

    async def reply(self, said: str) -> str:
        self.turn += 1
        if self.turn % 4 == 1:
            raise RuntimeError("no")
        return ("", 7, "x" * 1_000_000)[self.turn % 4 - 2]  # type: ignore[return-value]

    async def end_session(self) -> None:
        raise OSError("disk")

    async def recall(self, question: str) -> str:
        raise ValueError("what?")


class TestOddInput:
    def test_an_assistant_that_fails_is_rated_as_one_that_says_nothing(self) -> None:
        found = bench(lambda insight: Odd(), "odd", SIZES["smoke"])
        errors = [turn.error for turn in found.people[0].turns]
        assert "RuntimeError" in errors[0] and "empty" in errors[1] and "of type int" in errors[2]
        assert "end of session: OSError" in errors[3] and found.to_json()["errors"] >= 6 * 4
        assert found.likability < 3 and found.memory["recall"] == 0

    @pytest.mark.parametrize(
        "wrong", [{"people": 0}, {"sessions": 0}, {"turns": -1}, {"facts": 25}, {"changing": 9}, {"noise": 1.0}]
    )
    def test_impossible_sizes_are_named(self, wrong: dict[str, float]) -> None:
        with pytest.raises(RecipeError, match="expected"):
            Size(**wrong)  # type: ignore[arg-type]

    def test_one_turn_and_nothing_to_tell(self) -> None:
        found = bench(lambda insight: Flattery(), "x", Size(1, 1, 1, 0))
        assert len(found.people[0].turns) == 1 and found.to_json()["memory"]["recall"] == 0


class TestCommand:
    def test_report_and_transcripts(self, measured: dict[str, Outcome], tmp_path: Path) -> None:
        path = write([measured["adaptive"], measured["oracle"]], tmp_path)
        page = path.read_text(encoding="utf-8")
        assert "<script" not in page and page.count("<svg") == 2 and "humor fit" in page
        again = replay(tmp_path / "adaptive.jsonl", FORTY)
        assert again.likability == measured["adaptive"].likability
        rows = (tmp_path / "adaptive.jsonl").read_text(encoding="utf-8").splitlines()
        (tmp_path / "cut.jsonl").write_text("\n".join([rows[0][:40], *rows[1:]]), encoding="utf-8")
        with pytest.raises(DataError, match="line 1"):
            replay(tmp_path / "cut.jsonl", FORTY)
        with pytest.raises(DataError, match="other people"):
            replay(tmp_path / "adaptive.jsonl", FORTY, seed=8)

    def test_from_the_command_line(self, tmp_path: Path) -> None:
        words = ["eval", "likebench", "--size", "smoke", "--out", str(tmp_path)]
        ran = CliRunner().invoke(app, [*words, "--assistant", "static", "--assistant", "oracle", "--json"])
        found = json.loads(ran.stdout)
        assert [one["assistant"] for one in found] == ["static", "oracle"] and (tmp_path / "report.html").exists()
        shown = CliRunner().invoke(app, [*words, "--assistant", "static"])
        assert "likability" in shown.stdout and "report:" in shown.stdout
        for wrong in (["--assistant", "statik"], ["--size", "tiny"], ["--run", str(tmp_path)]):
            assert CliRunner().invoke(app, [*words, *wrong]).exit_code != 0
