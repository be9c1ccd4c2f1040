"""LoCoMo through an endpoint: replies are kept, a run that was cut off goes on, a judge's verdicts are counted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx2")
pytest.importorskip("nltk")

from memorist.decision import Distribution, Observation
from memorist.errors import DataError, PolicyError
from memorist.evaluation.judge import judge, read_verdict
from memorist.evaluation.protocols import Prediction
from memorist.models.endpoint import Endpoint
from memorist.models.recorded import Recorded, open_recorded
from memorist.models.sampler import Request
from memorist.models.scripted import ScriptedSampler
from memorist.tasks.world import generate
from test_endpoint import completion, serving

GREEDY = Distribution(temperature=0.0)


def asked(*prompts: str) -> list[Request]:
    return [Request(Observation(prompt), GREEDY, seed) for seed, prompt in enumerate(prompts)]


def test_what_was_asked_is_asked_once(tmp_path: Path) -> None:
    with serving(lambda n, body: completion(f"{n}: {body['messages'][-1]['content']}")) as (url, seen):
        recorded = Recorded(Endpoint(url, "m", prices=(1.0, 10.0), together=1), tmp_path / "replies.jsonl")
        first = [action.text for action in recorded.sample(asked("a", "b", "a"))]
        assert first == ["1: a", "2: b", "1: a"] and len(seen) == 2
        again = Recorded(Endpoint(url, "m"), tmp_path / "replies.jsonl")
        assert [action.text for action in again.sample(asked("b", "a"))] == ["2: b", "1: a"] and len(seen) == 2
        assert (again.spent.calls, again.spent.prompt_tokens, again.spent.cost) == (2, 200, pytest.approx(4e-4))
        other = Recorded(Endpoint(url, "other"), tmp_path / "replies.jsonl")
        other.sample(asked("a"))
        assert len(seen) == 3  # another model's replies are others


def test_another_draw_is_another_reply(tmp_path: Path) -> None:
    warm = Distribution()
    with serving(lambda n, body: completion(f"{n} {body['seed']}")) as (url, seen):
        recorded = Recorded(Endpoint(url, "m", together=1), tmp_path / "replies.jsonl")
        draws = [Request(Observation("a"), warm, seed) for seed in (5, 6, 5)]
        assert [action.text for action in recorded.sample(draws)] == ["1 5", "2 6", "1 5"] and len(seen) == 2


def test_a_line_that_was_cut_off_is_asked_again_and_any_other_junk_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    with serving(lambda n, body: completion("x")) as (url, seen):
        Recorded(Endpoint(url, "m"), file).sample(asked("a", "b"))
        file.write_bytes(file.read_bytes()[:-9])
        Recorded(Endpoint(url, "m"), file).sample(asked("a", "b"))
        assert len(seen) == 3 and len(file.read_text().splitlines()) == 2
        file.write_text("junk\n" + file.read_text())
        with pytest.raises(DataError, match="line 1"):
            Recorded(Endpoint(url, "m"), file)


def test_a_failure_keeps_what_came_before(tmp_path: Path) -> None:
    def answer(n: int, body: dict[str, Any]) -> Any:
        return completion("x") if n < 3 else (400, "no", {})

    with serving(answer) as (url, _):
        recorded = Recorded(Endpoint(url, "m", together=1), tmp_path / "replies.jsonl")
        with pytest.raises(PolicyError):
            recorded.sample(asked("a", "b", "c", "d"))
        assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 2
    with pytest.raises(PolicyError, match="names no model"):
        open_recorded("http://localhost/v1", tmp_path / "x")


def prediction(answer: str, gold: str = "Leeds", category: int = 4) -> Prediction:
    return Prediction("d", f"where {answer}?", category, gold, answer)


def test_verdicts_that_cannot_be_read_are_counted_and_count_as_wrong() -> None:
    replies = {"Leeds": '{"verdict": "right"}', "York": 'Sure! {"verdict": "WRONG"}', "Hull": "I would say right"}
    grader = ScriptedSampler(lambda o: replies[re.search(r"\nAnswer: (.*)", o.prompt)[1]])  # type: ignore[index]
    found = judge([prediction("Leeds"), prediction("York"), prediction("Hull"), prediction("?", "", 5)], grader)
    assert found.right == (True, False, False, None) and found.unread == 1
    assert found.to_json()["share_right"]["value"] == pytest.approx(1 / 3)
    assert read_verdict('{"verdict": 1}') is None and read_verdict("") is None


def reply(prompt: str, system: str) -> str:
    """What a good model would say to each of the agent's questions, from the prompts alone."""
    if "verdict" in system:
        return '{"verdict": "right"}'
    if "facts" in system:
        said = re.search(r"Message: (.*)", prompt)
        return json.dumps({"facts": [said[1]] if said else []})
    if "Answer" in system or "Question" in prompt:
        return "**Answer:** Leeds"
    return json.dumps({"memory": [{"id": "new", "text": "something", "event": "ADD"}]})


def world(folder: Path) -> Path:
    file = folder / "locomo.json"
    file.write_text(json.dumps(generate("test", 1)))
    return file


def run(url: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    file = folder / "locomo.json"
    command = [sys.executable, "-m", "memorist", "eval", "locomo", "--file", str(file), "--endpoint", f"{url}#m"]
    command += ["--out", str(folder / "out"), "--json", *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"MEMORIST_KEY": "secret"}
    )


def test_killed_and_run_again_it_asks_only_what_is_new(tmp_path: Path) -> None:
    world(tmp_path)

    def answer(n: int, body: dict[str, Any]) -> Any:
        time.sleep(0.01)
        said = {m["role"]: m["content"] for m in body["messages"]}
        return completion(reply(said["user"], said.get("system", "")))

    with serving(answer) as (url, seen):
        first = run(url, tmp_path)
        while len(seen) < 20 and first.poll() is None:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        kept = len((tmp_path / "out" / "replies.jsonl").read_bytes().split(b"\n")) - 1
        assert 10 < kept <= len(seen)
        second = run(url, tmp_path, "--judge", f"{url}#judge", "--prices", "1,2")
        out, err = second.communicate(timeout=120)
        assert second.returncode == 0, err
        found = json.loads(out)
        assert {body["authorization"] for body in seen if body["model"] == "m"} == {"Bearer secret"}
        asked_ = [json.dumps(body["messages"]) for body in seen[kept:]]
        assert len(asked_) - len(set(asked_)) <= 8  # what was under way when it was killed
        assert set(found["systems"]) == {"memory-r1"} and found["spent"]["model"]["calls"] > kept
        assert found["judged"]["memory-r1"]["unread"] == 0 and found["spent"]["judge"]["cost"] == 0
        assert found["spent"]["model"]["cost"] > 0
        rows = [json.loads(line) for line in (tmp_path / "out" / "locomo.jsonl").read_text().splitlines()]
        assert {row["protocol"] for row in rows} == {"mem0-v1", "locomo-v1"}
        assert {row["judged_right"] for row in rows if row["category"] != 5} == {True}
        before = len(seen)
        third = run(url, tmp_path, "--judge", f"{url}#judge")
        again = json.loads(third.communicate(timeout=120)[0])
        assert len(seen) == before and again["systems"] == found["systems"]


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    world(tmp_path)
    for more, said in (
        (["--prices", "cheap"], "--prices"),
        (["--run", "demo"], "--run"),
        (["--agent", "rmm"], "memory-r1"),
        (["--conversation", "conv-1"], "has no conv-1"),
    ):
        process = run("http://127.0.0.1:9/v1", tmp_path, *more)
        assert said in process.communicate(timeout=60)[1] and process.returncode == 2
        assert "--conversation" in more or not (tmp_path / "out").exists()  # nothing is made before it is checked
