"""Trajectories on disk: all of it comes back, and what is no log says where."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorist.decision import (
    Action,
    Author,
    Decision,
    Distribution,
    Media,
    Observation,
    Picture,
    Reward,
    Span,
    Stop,
    Trajectory,
)
from memorist.errors import DataError
from memorist.log import read_trajectories, read_trajectory, write_trajectories
from memorist.training.rollout import Rounds, Seat, rollout

SAID = st.text(st.characters(exclude_categories=()))  # lone surrogates too: people paste anything
IDS = st.lists(st.integers(0, 10**6), max_size=5).map(tuple)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEGAL = st.none() | st.lists(st.none() | IDS, max_size=3).map(tuple)
SPANS = st.lists(st.builds(Span, st.integers(0, 9), st.integers(0, 9), st.sampled_from(Author)), max_size=3).map(tuple)
NINE = st.integers(0, 9)
ACTIONS = st.builds(
    Action,
    SAID,
    IDS,
    IDS,
    st.lists(FLOATS, max_size=5).map(tuple),
    IDS,
    st.sampled_from(Stop),
    st.builds(Distribution, FLOATS, FLOATS, st.integers(0, 9), LEGAL, st.text(max_size=3)),
    SPANS,
    st.lists(st.builds(Media, NINE, NINE, st.text(max_size=3), st.tuples(NINE, NINE)), max_size=2).map(tuple),
)
TEXTS = st.lists(st.text(), max_size=3).map(tuple)
ASKED = (SAID, SAID, TEXTS, st.integers(1, 3), st.integers(1, 99))
PICTURES = st.lists(st.builds(Picture, st.tuples(NINE, NINE), st.text(max_size=3), st.binary()), max_size=2).map(tuple)
FIRST = st.builds(Observation, *ASKED, st.just(()), st.text(max_size=3), TEXTS, PICTURES)
AFTER = st.lists(st.tuples(FIRST, ACTIONS), max_size=2).map(tuple)
OBSERVATIONS = st.builds(Observation, *ASKED, AFTER, st.text(max_size=3), TEXTS, PICTURES)
DECISIONS = st.lists(st.builds(Decision, st.text(), st.text(), OBSERVATIONS, ACTIONS), max_size=3).map(tuple)
REWARDS = st.lists(
    st.builds(Reward, st.text(), FLOATS, st.none() | st.integers(0, 9), st.none() | st.tuples(st.just(1), st.just(2))),
    max_size=3,
).map(tuple)
FACTS = st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()))
TRAJECTORIES = st.builds(Trajectory, st.text(), st.integers(0, 2**63 - 1), DECISIONS, REWARDS, FACTS)


@given(st.lists(TRAJECTORIES, max_size=3))
def test_what_was_written_comes_back_exactly(tmp_path_factory: pytest.TempPathFactory, given: list[Trajectory]) -> None:
    file = tmp_path_factory.mktemp("log") / "deeper" / "runs.jsonl"
    assert write_trajectories(file, given) == len(given)
    assert list(read_trajectories(file)) == given
    assert [path.name for path in file.parent.iterdir()] == ["runs.jsonl"]


def test_every_field_is_drawn() -> None:
    """What is added to decisions has to come back too."""
    assert [len(fields(kind)) for kind in (Observation, Action, Distribution, Media, Picture, Span)] == [
        9,
        9,
        5,
        4,
        3,
        3,
    ]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_trajectories(tmp_path / f"{name}.jsonl", [Trajectory(name, 1, (), ())])
    assert [one.task for one in read_trajectories(tmp_path)] == ["a", "b", "c"]


def test_people_can_read_it(tmp_path: Path) -> None:
    said = Decision("manager", "p", Observation("Ann moved to Zürich."), Action("ADD", (1, 2), (3,), (-0.5,)))
    write_trajectories(tmp_path / "x.jsonl", [Trajectory("t", 1, (said,), (Reward("answers", 1.0),))])
    text = (tmp_path / "x.jsonl").read_text(encoding="utf-8")
    assert "Ann moved to Zürich." in text and "legal" not in text and "options" not in text


def test_a_logged_run_is_replayed_without_its_model(tmp_path: Path) -> None:
    from memorist.memory.scratch import ScratchBank
    from memorist.models.scripted import ScriptedSampler

    class Parrot:
        def __init__(self, *, bank: Any, parrot: Any) -> None:
            self.parrot = parrot

        async def run(self, task: Any) -> str:
            said = [(await self.parrot.act(Observation(word))).text for word in ("one", "two")]
            return " ".join(said)

    class Echo:
        id = "echo"
        bank = ScratchBank()

        def score(self, outcome: str) -> tuple[Reward, ...]:
            return (Reward("length", float(len(outcome))),)

    import asyncio

    def run(sampler: Any, replay: Any = ()) -> Any:
        rounds = Rounds({"parrot": Seat(sampler)})
        return asyncio.run(rounds.run_all([lambda: rollout(Parrot, Echo(), rounds, seed=3, replay=replay)]))[0]

    first = run(ScriptedSampler(["eins", "zwei"]))
    write_trajectories(tmp_path / "log.jsonl", [first.trajectory])
    logged = next(read_trajectories(tmp_path / "log.jsonl"))
    again = run(ScriptedSampler([]), logged.decisions)
    assert again.outcome == "eins zwei" and again.trajectory.rewards == logged.rewards


WHOLE = json.dumps({
    "task": "t", "seed": 1, "rewards": [{"name": "r", "value": 1.0}],
    "decisions": [{"role": "m", "policy": "p", "observation": {"prompt": "?"}, "action": {"text": "!"}}],
})  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"seed": 1, ', "", "trajectory"),
        ('"seed": 1', '"seed": "x"', "trajectory"),
        ('"role": "m", ', "", "decisions[0]"),
        ('{"prompt": "?"}', "[]", "decisions[0]"),
        ('{"text": "!"}', '{"text": "!", "stop": "tired"}', "decisions[0]"),
        ('{"text": "!"}', '{"text": "!", "tokens": 3}', "decisions[0]"),
        ('{"text": "!"}', '{"text": "!", "tokens": ["x"]}', "decisions[0]"),
        ('{"text": "!"}', '{"words": "!"}', "decisions[0]"),
        ('"value": 1.0', '"worth": 1.0', "rewards"),
        ('"value": 1.0', '"value": 1.0, "span": [1]', "rewards"),
        (WHOLE, "[]", "trajectory"),
        (WHOLE, "7", "trajectory"),
        (WHOLE, WHOLE[:-9], "line"),
        (WHOLE, "[" * 100_000, "line"),
    ],
)
def test_what_is_no_trajectory_is_refused_by_line_and_field(old: str, new: str, field: str, tmp_path: Path) -> None:
    assert old in WHOLE
    read_trajectory(WHOLE)
    file = tmp_path / "log.jsonl"
    file.write_text(WHOLE + "\n" + WHOLE.replace(old, new) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(read_trajectories(file))
    assert (caught.value.file, caught.value.record, caught.value.field) == (str(file), "2", field)


def test_a_log_that_is_not_there_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_trajectories(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="give one that holds logged trajectories"):
        list(read_trajectories(tmp_path))
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_trajectories(tmp_path))
