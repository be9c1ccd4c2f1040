"""Runs share batches in deterministic rounds, write to forks of their own, and can be replayed and branched."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorist.decision import Action, Decision, Distribution, Observation, Reward
from memorist.errors import ReplayMismatch, RewardError
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.models.sampler import Actor, Request
from memorist.training.rollout import Recorder, Rounds, Run, Seat, derive, play, rollout

AT = datetime(2023, 5, 8)
SAMPLED = Distribution()


@dataclass
class Counting:
    """Each action is a function of its own request alone; the batches are written down."""

    name: str = "counting"
    batches: list[list[Request]] = field(default_factory=list)

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        self.batches.append(list(requests))
        return [self._one(r) for r in requests]

    def _one(self, request: Request) -> Action:
        seed = 0 if request.distribution.greedy else request.seed
        return Action(hashlib.sha256(f"{request.observation.prompt}/{seed}".encode()).hexdigest()[:6])

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


@dataclass(frozen=True)
class Notes:
    """A task: so many notes to write, then so many questions."""

    id: str
    notes: int
    questions: int = 0
    bank: MemoryBank = field(default_factory=ScratchBank)

    def score(self, outcome: list[str]) -> tuple[Reward, ...]:
        return (Reward("length", float(len(outcome))), Reward("of a decision", 5.0, decision=0))


class Writer:
    """Writes what its writer says, seeing all that it wrote before; asks its reader at the end."""

    def __init__(self, *, bank: MemoryBank, writer: Actor, reader: Actor) -> None:
        self.bank, self.writer, self.reader = bank, writer, reader

    async def run(self, task: Notes) -> list[str]:
        said = []
        for number in range(task.notes):
            seen = "|".join(r.text for r in self.bank.list(Scope("anna")))
            reply = await self.writer.act(Observation(f"{number}:{seen}"))
            self.bank.apply([Operation("ADD", reply.text)], Scope("anna"), at=AT)
            said.append(reply.text)
        for number in range(task.questions):
            said.append((await self.reader.act(Observation(f"question {number}"))).text)
        return said


def seats(reader: Counting | None = None) -> tuple[dict[str, Seat], Counting, Counting]:
    writer, reader = Counting(), reader or Counting("reader")
    return {"writer": Seat(writer, SAMPLED), "reader": Seat(reader)}, writer, reader


def texts(run: Run) -> list[str]:
    return [d.action.text for d in run.trajectory.decisions]


class TestRounds:
    def test_all_live_runs_share_each_batch(self) -> None:
        roles, writer, _ = seats()
        play(Writer, [Notes("a", 3), Notes("b", 1), Notes("c", 2)], roles, siblings=2)
        assert writer.sizes == [6, 4, 2]

    def test_a_batch_is_in_the_order_of_the_runs(self) -> None:
        roles, writer, _ = seats()
        play(Writer, [Notes("a", 2), Notes("b", 2)], roles, siblings=2, seed=7)
        expected = [derive(derive(7, task, sibling), 1) for task in range(2) for sibling in range(2)]
        assert [r.seed for r in writer.batches[1]] == expected
        assert {r.role for r in writer.batches[1]} == {"writer"}

    def test_equal_greedy_questions_are_asked_once_and_remembered(self) -> None:
        roles, _, reader = seats()
        play(Writer, [Notes("a", 1, 2)], roles, siblings=8)
        assert reader.sizes == [1, 1]
        play(Writer, [Notes("b", 2, 3)], roles, siblings=4, seed=1)
        assert reader.sizes == [1, 1, 1]  # only "question 2" was new

    def test_sampled_questions_are_never_remembered(self) -> None:
        roles, writer, _ = seats()
        play(Writer, [Notes("a", 1)], roles, siblings=4)
        assert writer.sizes == [4] and len({r.seed for r in writer.batches[0]}) == 4

    def test_the_memory_of_greedy_answers_does_not_change_who_shares_a_batch(self) -> None:
        """Else a resumed training, whose memory is empty, would round differently from an undisturbed one."""

        class Reader(Writer):
            async def run(self, task: Notes) -> list[str]:
                for number in range(task.questions):
                    await self.reader.act(Observation(f"question {number}"))
                return [(await self.writer.act(Observation("note"))).text]

        tasks = [Notes("a", 0, 1), Notes("b", 0, 3)]
        roles, writer, _ = seats()
        play(Reader, tasks, roles)
        cold, writer.batches = writer.sizes, []
        play(Reader, tasks, roles)
        assert writer.sizes == cold

    def test_a_run_that_waits_for_something_else_holds_the_round(self) -> None:
        class Slow(Writer):
            async def run(self, task: Notes) -> list[str]:
                await asyncio.sleep(0.01 * task.notes)
                return await super().run(task)

        roles, writer, _ = seats()
        play(Slow, [Notes("a", 2), Notes("b", 1), Notes("c", 0)], roles)
        assert writer.sizes == [2, 1]

    def test_what_a_run_asks_side_by_side_shares_a_round_and_no_seed(self) -> None:
        class AtOnce(Writer):
            async def run(self, task: Notes) -> list[str]:
                asked = [self.writer.act(Observation("same")) for _ in range(task.notes)]
                return [action.text for action in await asyncio.gather(*asked)]

        roles, writer, _ = seats()
        groups = play(AtOnce, [Notes("a", 3), Notes("b", 1)], roles, siblings=2)
        assert writer.sizes == [8]
        assert len({r.seed for r in writer.batches[0]}) == 8
        for group in groups:
            for run in group:
                assert run.outcome == texts(run)  # written down in the order in which it was asked
                again = asyncio.run(rollout(AtOnce, run.task, Rounds(roles), replay=run.trajectory.decisions))
                assert texts(again) == texts(run)
        assert writer.sizes == [8]

    def test_no_tasks_no_groups(self) -> None:
        assert play(Writer, [], seats()[0]) == []


class TestDeterminism:
    def test_the_same_seed_gives_the_same_runs(self) -> None:
        tasks = [Notes("a", 3, 1), Notes("b", 2)]
        first, second, other = (play(Writer, tasks, seats()[0], siblings=3, seed=s) for s in (5, 5, 6))
        assert [[r.trajectory for r in g] for g in first] == [[r.trajectory for r in g] for g in second]
        assert first[0][0].trajectory.decisions != other[0][0].trajectory.decisions

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.integers(0, 4), max_size=4), st.integers(1, 4))
    def test_a_run_does_not_depend_on_who_else_runs(self, others: list[int], siblings: int) -> None:
        alone = play(Writer, [Notes("a", 3, 1)], seats()[0])[0][0]
        crowd = [Notes("a", 3, 1), *(Notes(f"o{i}", n) for i, n in enumerate(others))]
        together = play(Writer, crowd, seats()[0], siblings=siblings)[0][0]
        assert together.trajectory == alone.trajectory and together.outcome == alone.outcome

    def test_every_decision_has_a_seed_of_its_own(self) -> None:
        roles, writer, _ = seats()
        play(Writer, [Notes(str(i), 4) for i in range(5)], roles, siblings=5)
        drawn = [r.seed for batch in writer.batches for r in batch]
        assert len(set(drawn)) == len(drawn) == 100

    @settings(max_examples=50)
    @given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 1000), min_size=1, max_size=3))
    def test_seeds_derive(self, seed: int, path: list[int]) -> None:
        found = derive(seed, *path)
        assert found == derive(seed, *path) and 0 <= found < 2**63
        assert found != derive(seed, *path[:-1], path[-1] + 1)
        assert found != derive(seed + 1, *path)


class TestIsolation:
    def test_siblings_start_from_the_same_bank_and_never_touch_it_or_each_other(self) -> None:
        base = ScratchBank()
        base.apply([Operation("ADD", "before")], Scope("anna"), at=AT)
        group = play(Writer, [Notes("a", 2, bank=base)], seats()[0], siblings=4)[0]
        assert [r.text for r in base.list(Scope("anna"))] == ["before"] and base.commit == 1
        for run in group:
            assert [r.text for r in run.bank.list(Scope("anna"))] == ["before", *run.outcome]
        assert len({tuple(run.outcome) for run in group}) == 4
        assert len({run.trajectory.decisions[0].observation for run in group}) == 1
        assert len({id(run.bank) for run in group}) == 4

    def test_every_decision_is_written_down_as_it_was(self) -> None:
        run = play(Writer, [Notes("a", 2, 1)], seats()[0], seed=3)[0][0]
        assert [(d.role, d.policy) for d in run.trajectory.decisions] == [
            ("writer", "counting"), ("writer", "counting"), ("reader", "reader"),
        ]  # fmt: skip
        assert run.outcome == texts(run)
        assert run.trajectory.task == "a" and run.trajectory.seed == derive(3, 0, 0)
        assert run.reward == 3.0  # terms of single decisions are not the trajectory's


async def again(task: Notes, replay: Sequence[Decision], seed: int, build: Any = Writer) -> tuple[Run, Counting]:
    roles, writer, _ = seats()
    rounds = Rounds(roles)
    return (await rounds.run_all([lambda: rollout(build, task, rounds, seed=seed, replay=replay)]))[0], writer


class TestReplay:
    def test_a_whole_replay_asks_no_model_and_gives_the_same_run(self) -> None:
        task = Notes("a", 4)
        first = play(Writer, [task], seats()[0], seed=1)[0][0]
        second, writer = asyncio.run(again(task, first.trajectory.decisions, first.trajectory.seed))
        assert second.trajectory == first.trajectory and writer.sizes == []
        assert list(second.bank.export(Scope("anna"))) == list(first.bank.export(Scope("anna")))

    @pytest.mark.parametrize("length", [0, 1, 3])
    def test_a_prefix_is_replayed_without_a_model_and_branches_share_its_state(self, length: int) -> None:
        task = Notes("a", 4)
        first = play(Writer, [task], seats()[0], seed=1)[0][0]
        prefix = first.trajectory.decisions[:length]
        same, writer = asyncio.run(again(task, prefix, first.trajectory.seed))
        assert same.trajectory == first.trajectory and len(writer.sizes) == 4 - length
        other, _ = asyncio.run(again(task, prefix, 99))
        assert other.trajectory.decisions[:length] == prefix
        assert other.trajectory.decisions[length].observation == first.trajectory.decisions[length].observation
        assert other.trajectory.decisions[length].action != first.trajectory.decisions[length].action

    def test_a_replay_on_another_path_is_refused(self) -> None:
        first = play(Writer, [Notes("a", 2, 1)], seats()[0])[0][0]
        other = ScratchBank()
        other.apply([Operation("ADD", "changed")], Scope("anna"), at=AT)
        with pytest.raises(ReplayMismatch, match="decision 0") as caught:
            asyncio.run(again(Notes("a", 2, bank=other), first.trajectory.decisions, 0))
        assert "changed" in str(caught.value)
        with pytest.raises(ReplayMismatch, match="'writer'"):
            asyncio.run(again(Notes("a", 1, 1), first.trajectory.decisions, 0))


class Broken(RuntimeError):
    pass


class TestFailure:
    def test_a_model_s_error_reaches_the_caller(self) -> None:
        class Failing(Counting):
            def sample(self, requests: Sequence[Request]) -> list[Action]:
                if self.batches:
                    raise Broken("no more")
                return super().sample(requests)

        roles, _, _ = seats()
        roles["writer"] = Seat(Failing(), SAMPLED)
        with pytest.raises(Broken, match="no more"):
            asyncio.run(asyncio.wait_for(_played([Notes("a", 2), Notes("b", 3), Notes("c", 1, 1)], roles), 5))

    def test_an_agent_s_error_reaches_the_caller_while_others_wait(self, caplog: pytest.LogCaptureFixture) -> None:
        class Fragile(Writer):
            async def run(self, task: Notes) -> list[str]:
                if task.id == "bad":
                    await asyncio.sleep(0)
                    raise Broken("agent")
                if task.id == "elsewhere":
                    await asyncio.sleep(60)
                return await super().run(task)

        roles, writer, _ = seats()
        tasks = [Notes("a", 2), Notes("b", 2), Notes("bad", 1), Notes("elsewhere", 1)]
        with pytest.raises(Broken, match="agent"):
            play(Fragile, tasks, roles)
        assert writer.sizes == []  # nothing is asked for runs that are being ended
        assert not caplog.records

    def test_too_few_answers_from_a_model_are_an_error(self) -> None:
        class Short(Counting):
            def sample(self, requests: Sequence[Request]) -> list[Action]:
                return super().sample(requests)[:-1]

        roles, _, _ = seats()
        roles["writer"] = Seat(Short(), SAMPLED)
        with pytest.raises(ValueError, match="shorter"):
            asyncio.run(asyncio.wait_for(_played([Notes("a", 2), Notes("b", 3)], roles), 5))


async def _played(tasks: Sequence[Notes], roles: dict[str, Seat]) -> list[Run]:
    rounds = Rounds(roles)
    return await rounds.run_all(
        [lambda t=t, i=i: rollout(Writer, t, rounds, run=i, seed=i) for i, t in enumerate(tasks)]
    )


def test_a_recorder_hands_out_exactly_the_roles_that_are_seated() -> None:
    roles, _, _ = seats()
    assert sorted(Recorder(Rounds(roles), 0, 0).roles) == ["reader", "writer"]


@dataclass(frozen=True)
class Spoilt(Notes):
    """A task whose reward is no number, or which fails."""

    worth: float = float("nan")

    def score(self, outcome: list[str]) -> tuple[Reward, ...]:
        return (Reward("worth", 10.0 / self.worth),)


@pytest.mark.parametrize("worth", [float("nan"), 1e-320])
def test_a_reward_that_is_no_finite_number_is_refused_by_name(worth: float) -> None:
    with pytest.raises(RewardError, match=r"task 'x': reward 'worth' is (nan|inf); expected a finite number"):
        play(Writer, [Spoilt("x", 1, worth=worth)], {"writer": Seat(Counting()), "reader": Seat(Counting())})


def test_what_a_task_raises_says_in_which_run() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        play(Writer, [Spoilt("x", 2, worth=0.0)], {"writer": Seat(Counting()), "reader": Seat(Counting())}, seed=3)
    assert caught.value.__notes__ == [f"in a run on task 'x' with seed {derive(3, 0, 0)}, after 2 decisions"]
