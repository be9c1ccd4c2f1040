"""The training loop learns, survives being killed with the same numbers, and says what it did."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memorist import catalogue  # noqa: E402
from memorist.agents.memory_r1 import MemoryR1  # noqa: E402
from memorist.conversation import Message  # noqa: E402
from memorist.decision import Distribution, Observation, Reward  # noqa: E402
from memorist.errors import CheckpointError, RecipeError, TrainingError  # noqa: E402
from memorist.log import read_trajectories  # noqa: E402
from memorist.memory.bank import MemoryBank  # noqa: E402
from memorist.memory.record import Operation, Scope  # noqa: E402
from memorist.memory.scratch import ScratchBank  # noqa: E402
from memorist.models.causal import CausalPolicy  # noqa: E402
from memorist.models.rows import Unit, pack  # noqa: E402
from memorist.models.sampler import Actor  # noqa: E402
from memorist.models.scripted import ScriptedSampler  # noqa: E402
from memorist.recipe import Recipe, Stage, to_plain  # noqa: E402
from memorist.tasks.dialogue import DialogueTask  # noqa: E402
from memorist.tasks.locomo import Question  # noqa: E402
from memorist.training import checkpoint  # noqa: E402
from memorist.training import learner as learner_module  # noqa: E402
from memorist.training.credit import Worth, is_flat  # noqa: E402
from memorist.training.devices import Devices  # noqa: E402
from memorist.training.learner import Learner, learning_rate, successes  # noqa: E402
from memorist.training.metrics import MEASURED, read_metrics  # noqa: E402
from memorist.training.objective import imitation_loss  # noqa: E402
from memorist.training.rollout import Seat, play, price  # noqa: E402
from memorist.training.stages import Exercises  # noqa: E402
from memorist.training.trainer import Trainer, _Window  # noqa: E402

# A choice between two arms: one token, of which "right" is rewarded.
ARMS = ("right", "wrong")


@dataclass(frozen=True)
class Lever:
    """A task for `Puller`; `notes` frozen decisions are asked first."""

    id: str
    notes: int = 0
    bank: MemoryBank = field(default_factory=ScratchBank, compare=False)
    cuts: ClassVar[tuple[str, ...]] = ("turns",)

    def score(self, outcome: str) -> tuple[Reward, ...]:
        return (Reward("won", float(outcome == ARMS[0])),)

    def without_questions(self) -> Lever:
        return self

    def cut(self, how: str, outcome: str, bank: MemoryBank, *, questions: int) -> list[Lever]:
        """Small tasks that depend on what the acting run did."""
        return [replace(self, id=f"{self.id}{how[0]}{outcome[0]}{n}") for n in range(questions)]


def always_wrong() -> ScriptedSampler:
    return ScriptedSampler(lambda _: ARMS[1])


class Puller:
    """Asks its frozen advisor, then pulls an arm."""

    neutral: ClassVar[Mapping[str, str]] = {"arm": ARMS[1]}

    def __init__(self, *, bank: MemoryBank, arm: Actor, advisor: Actor) -> None:
        self.arm, self.advisor = arm, advisor

    async def run(self, task: Lever) -> str:
        for number in range(task.notes):
            await self.advisor.act(Observation(f"{task.id} {number}?", max_tokens=3))
        return (await self.arm.act(Observation(f"{task.id}:", max_tokens=1))).text


LEVERS = [Lever(f"lever {i}", notes=i % 3) for i in range(5)]
RL = Stage(role="arm", cut="whole", steps=4, tasks=2, siblings=4, lr=3e-3, warmup=2)
RECIPE = Recipe(
    name="levers",
    seed=1,
    models={"arm": "tiny", "advisor": "tiny"},
    stages=(
        RL,
        replace(
            RL,
            cut="turns",
            leads=2,
            again=0.5,
            dialogues=2,
            steps=3,
            updates=2,
            top_k=8,
            beta=0.01,
            reduction="trajectory",
        ),
        replace(RL, kind="rejection", steps=1),
    ),
    checkpoint_every=2,
    log_every=3,
)


def taught(policy: CausalPolicy, prompts: list[str], replies: tuple[str, ...], steps: int = 25) -> CausalPolicy:
    """The policy after imitating all replies alike: a base with something to choose between."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2, weight_decay=0.0)
    actions = [policy.encode(Observation(prompt), reply) for prompt in prompts for reply in replies]
    for _ in range(steps):
        for batch in pack([Unit(action, 0.0, 1 / len(actions)) for action in actions], budget=10_000):
            imitation_loss(policy.score(batch), batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    return policy


@pytest.fixture(scope="module")
def base(make_tiny: Callable[..., CausalPolicy]) -> CausalPolicy:
    """Pulls each arm about equally often."""
    return taught(make_tiny(3, words=ARMS), [f"{lever.id}:" for lever in LEVERS], ARMS)


def fresh(base: CausalPolicy) -> CausalPolicy:
    import copy

    return CausalPolicy(copy.deepcopy(base.model), base.tokenizer, base.name)


def trainer(base: CausalPolicy, folder: Path, recipe: Recipe = RECIPE, **options: Any) -> Trainer:
    policies = {"arm": fresh(base), "advisor": fresh(base)}
    return Trainer(recipe, Puller, LEVERS, folder, policies=policies, **options)


def weights(policy: CausalPolicy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in policy.model.state_dict().items()}


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """All but the times, which no two runs share."""
    return [{k: v for k, v in m.items() if k not in MEASURED} for m in read_metrics(folder / "metrics.jsonl")]


class Killed(BaseException):
    """As sudden as a signal."""


def killed_after(count: int) -> Callable[[Mapping[str, Any]], None]:
    """A progress callback that dies after so many steps, once the step is in the metrics."""
    seen: list[Mapping[str, Any]] = []

    def progress(step: Mapping[str, Any]) -> None:
        seen.append(step)
        if len(seen) == count:
            raise Killed

    return progress


class TestLearning:
    @pytest.mark.parametrize(
        ("rule", "siblings"),
        [("grpo", 8), ("leave-one-out", 8), ("reinforce", 1), ("counterfactual", 1), ("ppo", 1)],
    )
    def test_the_rewarded_arm_is_learnt(self, base: CausalPolicy, tmp_path: Path, rule: str, siblings: int) -> None:
        stage = replace(RL, steps=20, tasks=32 // siblings, siblings=siblings, rule=rule)
        run = trainer(base, tmp_path, replace(RECIPE, stages=(stage,)))
        before = weights(run.policies["advisor"])
        trained = run.run()
        rewards = [m["reward"] for m in metrics(tmp_path)]
        assert 0.2 < sum(rewards[:2]) / 2 < 0.8 and sum(rewards[-3:]) / 3 > 0.9
        assert same(weights(trained["advisor"]), before)  # partners are frozen
        again = CausalPolicy.load(tmp_path / "policies" / "arm")
        assert same(weights(again), weights(trained["arm"]))
        assert sorted(p.name for p in (tmp_path / "policies").iterdir()) == ["arm"]

    def test_imitating_one_s_own_successes_learns_too(self, base: CausalPolicy, tmp_path: Path) -> None:
        stage = replace(RL, kind="rejection", steps=12, tasks=4, siblings=8)
        trained = trainer(base, tmp_path, replace(RECIPE, stages=(stage,))).run()
        found = metrics(tmp_path)
        assert all(0.2 < m["reward"] < 0.8 for m in found)  # it is the start that acts
        assert found[-1]["nll_1"] < found[0]["nll_1"]
        seats = {"arm": Seat(trained["arm"]), "advisor": Seat(base)}
        assert [group[0].reward for group in play(Puller, LEVERS, seats)] == [1.0] * 5

    def test_a_teacher_is_imitated(self, base: CausalPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(catalogue.BUILT_IN["teachers"], "always wrong", f"{__name__}:always_wrong")
        stage = replace(RL, kind="sft", teacher="always wrong", steps=12, siblings=1, tasks=5)
        trained = trainer(base, tmp_path, replace(RECIPE, stages=(stage,))).run()
        seats = {"arm": Seat(trained["arm"]), "advisor": Seat(base)}
        assert [group[0].outcome for group in play(Puller, LEVERS, seats)] == [ARMS[1]] * 5

    def test_updating_in_place_of_deleting_is_learnt(
        self, make_tiny: Callable[..., CausalPolicy], tmp_path: Path
    ) -> None:
        """Vector 9 of memory-r1.md: NOOP and DELETE score 0 and UPDATE scores 1, with the real agent and task."""
        operations = (
            '[{"event":"NONE"}]',
            '[{"event":"DELETE","id":"0"}]',
            '[{"event":"UPDATE","id":"0","text":"Andrew has two dogs, Buddy and Scout"}]',
        )
        bank = ScratchBank()
        at = datetime(2023, 5, 8)
        bank.apply([Operation("ADD", "Andrew has a dog called Buddy")], Scope("Andrew"), at=at)
        message = Message("Andrew", "…", "D1:1", at, statements=("Andrew adopted Scout",))
        asked = (Question("How many dogs has Andrew?", "two", 4, ("D1:1",)),)
        task = DialogueTask("kennel", ("Andrew",), (message,), asked, bank)

        def count(observation: Observation) -> str:
            dogs = sum(name in observation.prompt for name in ("Buddy", "Scout"))
            return f'{{"memories":[],"answer":"{("none", "one", "two")[dogs]}"}}'

        def build(**given: Any) -> MemoryR1:
            return MemoryR1(**given, style="compact")

        watch = ScriptedSampler([operations[0]])
        play(build, [task], {"manager": Seat(watch), "answerer": Seat(ScriptedSampler(count))})
        manager = taught(make_tiny(5, words=operations), [watch.seen[0].prompt], operations)
        stage = Stage(role="manager", cut="whole", steps=20, tasks=2, siblings=8, lr=3e-3)
        recipe = Recipe(models={"manager": "tiny", "answerer": "scripted"}, stages=(stage,))
        policies = {"manager": manager, "answerer": ScriptedSampler(count)}
        Trainer(recipe, build, [task], tmp_path, policies=policies).run()
        found = metrics(tmp_path)
        assert found[0]["reward"] < 0.7 and sum(m["reward"] for m in found[-3:]) / 3 > 0.9
        kinds = {kind for m in found for kind in m["operations"]}
        assert {"NOOP", "DELETE", "UPDATE"} <= kinds
        assert max(found[-1]["operations"], key=found[-1]["operations"].get) == "UPDATE"


class TestCritic:
    def test_it_learns_what_states_are_worth_and_is_not_saved_with_the_policy(
        self, base: CausalPolicy, tmp_path: Path
    ) -> None:
        stage = replace(RL, rule="ppo", steps=25, tasks=16, siblings=1, lr=1e-9, critic_lr=3e-3)
        run = trainer(base, tmp_path, replace(RECIPE, stages=(stage,)))
        run.run()
        found = metrics(tmp_path)
        # The policy stays: half the runs win, so what remains is half the variance of a coin.
        assert found[0]["value_loss_1"] > 0.2 and 0.09 < sum(m["value_loss_1"] for m in found[-5:]) / 5 < 0.16
        assert not list((tmp_path / "policies").rglob("*critic*"))

    def test_a_killed_run_goes_on_with_the_same_critic(self, base: CausalPolicy, tmp_path: Path) -> None:
        stage = replace(RL, rule="ppo", steps=5, siblings=1, tasks=6, updates=2)
        recipe = replace(RECIPE, stages=(stage,))
        whole = trainer(base, tmp_path / "whole", recipe).run()
        with pytest.raises(Killed):
            trainer(base, tmp_path / "cut", recipe, progress=killed_after(3)).run()
        cut = trainer(base, tmp_path / "cut", recipe).run(resume=True)
        assert same(weights(cut["arm"]), weights(whole["arm"]))
        assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


class TestCounterfactual:
    def test_each_decision_is_priced_against_the_one_that_changes_nothing(self, base: CausalPolicy) -> None:
        seats = {"arm": Seat(base, Distribution()), "advisor": Seat(base)}
        groups = play(Puller, LEVERS, seats, siblings=4, seed=1)
        assert {run.reward for group in groups for run in group} == {0.0, 1.0}
        priced = price(Puller, groups, seats, "arm", Worth())
        assert [run.without for group in priced for run in group] == [(0.0,)] * 20
        assert [[run.trajectory for run in group] for group in priced] == [[r.trajectory for r in g] for g in groups]

    def test_what_comes_before_is_replayed_and_what_comes_after_is_played_on(self) -> None:
        class Chain:
            neutral: ClassVar[Mapping[str, str]] = {"arm": "0"}

            def __init__(self, *, bank: MemoryBank, arm: Actor) -> None:
                self.arm = arm

            async def run(self, task: Any) -> list[str]:
                said: list[str] = []
                for _ in range(3):
                    said.append((await self.arm.act(Observation("".join(said)))).text)
                return said

        @dataclass(frozen=True)
        class Sum:
            id: str = "sum"
            bank: MemoryBank = field(default_factory=ScratchBank, compare=False)

            def score(self, outcome: list[str]) -> tuple[Reward, ...]:
                return (Reward("sum", float("".join(outcome))),)

        class Longer(ScriptedSampler):
            def sample(self, requests: Any) -> Any:
                return [replace(action, tokens=(1,)) for action in super().sample(requests)]

        # It writes one more than what it sees is long; so after "0" it writes "2".
        seats = {"arm": Seat(Longer(lambda o: str(len(o.prompt) + 1)))}
        groups = play(Chain, [Sum()], seats)
        assert groups[0][0].outcome == ["1", "2", "3"]
        assert price(Chain, groups, seats, "arm", Worth())[0][0].without == (23.0, 103.0, 120.0)

    def test_an_agent_that_knows_no_such_action_is_told(self, base: CausalPolicy, tmp_path: Path) -> None:
        stage = replace(RL, role="advisor", rule="counterfactual")
        with pytest.raises(RecipeError, match="no action of 'advisor' that changes nothing"):
            trainer(base, tmp_path, replace(RECIPE, stages=(stage,))).run()


class TestRedraw:
    def test_groups_that_teach_nothing_give_way_to_others(self, base: CausalPolicy, tmp_path: Path) -> None:
        run = trainer(base, tmp_path)
        seats = {"arm": Seat(base, Distribution()), "advisor": Seat(base)}
        for cut in ("whole", "turns"):
            stage = replace(RL, cut=cut, siblings=2, tasks=8, leads=2)
            flat = [is_flat(group) for group in run.groups(0, stage, 0, seats)]
            again = run.groups(1, replace(stage, redraw=20), 0, seats)
            assert any(flat) and len(again) == 8 and not any(map(is_flat, again))

    def test_after_the_last_attempt_they_stay(self, base: CausalPolicy, tmp_path: Path) -> None:
        run = trainer(base, tmp_path)
        seats = {"arm": Seat(base), "advisor": Seat(base)}  # greedy: all siblings do the same
        groups = run.groups(0, replace(RL, redraw=2, tasks=3), 0, seats)
        assert len(groups) == 3 and all(map(is_flat, groups))


def logged(folder: Path) -> dict[str, str]:
    """All logged trajectories by file."""
    return {file.name: file.read_text() for file in sorted((folder / "trajectories").iterdir())}


@pytest.fixture(scope="module")
def undisturbed(base: CausalPolicy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Weights, metrics and logged trajectories of the recipe's run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    trained = trainer(base, folder).run()
    return weights(trained["arm"]), metrics(folder), logged(folder)


class TestResume:
    @pytest.mark.parametrize("steps", [1, 2, 3, 5, 6, 8])
    def test_a_killed_run_goes_on_to_the_same_numbers(
        self, base: CausalPolicy, tmp_path: Path, undisturbed: tuple[Any, Any], steps: int
    ) -> None:
        with pytest.raises(Killed):
            trainer(base, tmp_path, progress=killed_after(steps)).run()
        assert len(metrics(tmp_path)) == steps
        trained = trainer(base, tmp_path).run(resume=True)
        assert same(weights(trained["arm"]), undisturbed[0])
        assert (metrics(tmp_path), logged(tmp_path)) == undisturbed[1:]

    def test_it_may_be_killed_again_and_again(
        self, base: CausalPolicy, tmp_path: Path, undisturbed: tuple[Any, Any]
    ) -> None:
        for _ in range(3):
            with pytest.raises(Killed):
                trainer(base, tmp_path, progress=killed_after(3)).run(resume=True)
        trained = trainer(base, tmp_path).run(resume=True)
        assert same(weights(trained["arm"]), undisturbed[0]) and metrics(tmp_path) == undisturbed[1]

    def test_a_finished_run_has_nothing_left_to_do(
        self, base: CausalPolicy, tmp_path: Path, undisturbed: tuple[Any, Any]
    ) -> None:
        trainer(base, tmp_path).run()
        trained = trainer(base, tmp_path, progress=killed_after(1)).run(resume=True)
        assert same(weights(trained["arm"]), undisturbed[0]) and metrics(tmp_path) == undisturbed[1]

    def test_a_folder_in_which_another_process_trains_is_left_alone(self, base: CausalPolicy, tmp_path: Path) -> None:
        def a_second_one(step: Mapping[str, Any]) -> None:
            with pytest.raises(TrainingError, match=f"another process is training in {tmp_path}"):
                trainer(base, tmp_path).run(resume=True)
            raise Killed

        with pytest.raises(Killed):
            trainer(base, tmp_path, progress=a_second_one).run()
        assert len(metrics(tmp_path)) == 1
        trainer(base, tmp_path).run(resume=True)  # the first one's end let go of it

    def test_a_torn_line_of_metrics_is_dropped(
        self, base: CausalPolicy, tmp_path: Path, undisturbed: tuple[Any, Any]
    ) -> None:
        with pytest.raises(Killed):
            trainer(base, tmp_path, progress=killed_after(3)).run()
        with open(tmp_path / "metrics.jsonl", "a") as log:
            log.write('{"stage": 0, "st')
        trainer(base, tmp_path).run(resume=True)
        assert metrics(tmp_path) == undisturbed[1]

    @pytest.mark.parametrize("moment", ["while writing", "between the renames", "after the renames"])
    def test_a_kill_while_saving_is_survived(
        self, base: CausalPolicy, tmp_path: Path, undisturbed: tuple[Any, Any], moment: str
    ) -> None:
        with pytest.raises(Killed):
            trainer(base, tmp_path, progress=killed_after(5)).run()
        folder, new, old = (tmp_path / f"checkpoint{end}" for end in ("", ".new", ".old"))
        if moment == "while writing":
            shutil.copytree(folder, new)
            (new / "state.json").unlink()
            (new / "policy-arm.safetensors").write_bytes(b"torn")
        elif moment == "between the renames":
            shutil.copytree(folder, new)
            folder.rename(old)
        else:
            shutil.copytree(folder, old)
        trained = trainer(base, tmp_path).run(resume=True)
        assert same(weights(trained["arm"]), undisturbed[0]) and metrics(tmp_path) == undisturbed[1]
        assert not new.exists() and not old.exists()

    def test_a_checkpoint_of_another_recipe_is_refused(self, base: CausalPolicy, tmp_path: Path) -> None:
        with pytest.raises(Killed):
            trainer(base, tmp_path, progress=killed_after(3)).run()
        other = replace(RECIPE, seed=2)
        with pytest.raises(CheckpointError, match="another recipe"):
            trainer(base, tmp_path, other).run(resume=True)

    def test_a_checkpoint_that_cannot_be_read_says_what_to_do(self, base: CausalPolicy, tmp_path: Path) -> None:
        with pytest.raises(Killed):
            trainer(base, tmp_path, progress=killed_after(3)).run()
        (tmp_path / "checkpoint" / "optimizer.safetensors").write_bytes(b"torn")
        with pytest.raises(CheckpointError, match="delete it"):
            trainer(base, tmp_path).run(resume=True)

    def test_resuming_nothing_starts(self, base: CausalPolicy, tmp_path: Path, undisturbed: tuple[Any, Any]) -> None:
        trainer(base, tmp_path).run(resume=True)
        assert metrics(tmp_path) == undisturbed[1]


def test_what_returns_text_alone_cannot_learn(base: CausalPolicy, tmp_path: Path) -> None:
    run = trainer(base, tmp_path)
    run.policies["arm"] = ScriptedSampler(["right"])  # type: ignore[assignment]
    with pytest.raises(RecipeError, match=r"'arm' is to learn, but .* can only act"):
        run.run()


class TestCheckpoint:
    def test_a_full_disk_leaves_the_previous_one_intact(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "checkpoint"
        checkpoint.save(folder, {"recipe": "a", "step": 1}, {"t": {"x": torch.ones(3)}})

        def full(*args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint, "save_file", full)
        with pytest.raises(OSError, match="No space"):
            checkpoint.save(folder, {"recipe": "a", "step": 2}, {"t": {"x": torch.zeros(3)}})
        found = checkpoint.load(folder, "a")
        assert found is not None and found[0]["step"] == 1 and found[1]["t"]["x"].tolist() == [1, 1, 1]

    def test_a_kill_at_any_rename_leaves_a_whole_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also where the kill before left only `.old`: that one is kept until the new one is in place."""
        folder = tmp_path / "checkpoint"
        checkpoint.save(folder, {"recipe": "a", "step": 1}, {"t": {"x": torch.ones(1)}})
        folder.rename(tmp_path / "checkpoint.old")
        rename = Path.rename

        def kill(self: Path, target: Any) -> Path:
            raise Killed

        monkeypatch.setattr(Path, "rename", kill)
        with pytest.raises(Killed):
            checkpoint.save(folder, {"recipe": "a", "step": 2}, {"t": {"x": torch.ones(1)}})
        monkeypatch.setattr(Path, "rename", rename)
        found = checkpoint.load(folder, "a")
        assert found is not None and found[0]["step"] == 1

    def test_none_is_none(self, tmp_path: Path) -> None:
        assert checkpoint.load(tmp_path / "checkpoint", "a") is None

    def test_nothing_is_pickled(self, base: CausalPolicy, tmp_path: Path) -> None:
        trainer(base, tmp_path).run()
        kinds = {p.suffix for p in tmp_path.rglob("*") if p.is_file()}
        assert kinds <= {".json", ".jsonl", ".yaml", ".safetensors", ".jinja", ".txt", ".lock"}


class TestPlayingAgain:
    def played(self, window: _Window, rewards: Mapping[str, list[float]], again: int, seed: int = 0) -> list[str]:
        chosen = window.choose(4, again, seed)
        runs = [[SimpleNamespace(trajectory=r) for r in rewards[name]] for name in chosen]
        window.note(runs, lambda r: r)  # type: ignore[arg-type]
        return chosen

    def test_what_siblings_fared_differently_in_is_played_again(self) -> None:
        rewards = {f"t{i}": [1.0, 0.0, 0.0, 0.0] if i % 2 else [1.0, 1.0, 1.0, 1.0] for i in range(12)}
        window = _Window((0, 0), list(rewards))
        assert self.played(window, rewards, 2) == ["t0", "t1", "t2", "t3"], "nothing is known yet"
        second = self.played(window, rewards, 2)
        assert sorted(second[:2]) == ["t1", "t3"] and second[2:] == ["t4", "t5"]
        assert set(self.played(window, rewards, 2)[:2]) <= {"t1", "t3", "t5"}

    def test_the_more_there_is_to_learn_the_more_often(self) -> None:
        rewards = {"rare": [1.0] + [0.0] * 7, "often": [1.0] * 7 + [0.0], "never": [0.0] * 8, "always": [1.0] * 8}
        window = _Window((0, 0), list(rewards))
        self.played(window, rewards, 1)
        counts = Counter(window.choose(1, 1, seed)[0] for seed in range(400))
        assert counts.keys() == {"rare", "often"} and 5 < counts["rare"] / counts["often"] < 10

    def test_none_known_none_played_again_and_no_tasks_none_at_all(self) -> None:
        assert _Window((0, 0), ["a", "b"]).choose(3, 2, 0) == ["a", "b", "a"]
        assert _Window((0, 0), []).choose(3, 2, 0) == []


class TestSteps:
    def test_the_rate_rises_stays_and_falls_to_nothing_after_the_last_step(self) -> None:
        stage = replace(RL, steps=10, lr=1.0, warmup=2, cooldown=0.4)
        assert [learning_rate(stage, step) for step in range(11)] == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0.0]
        assert learning_rate(replace(stage, cooldown=0.0), 9) == 1.0

    def test_a_step_is_a_function_of_recipe_stage_and_number(self, base: CausalPolicy, tmp_path: Path) -> None:
        run = trainer(base, tmp_path)
        seats = lambda: {"arm": Seat(base, Distribution()), "advisor": Seat(base)}  # noqa: E731
        first, again, later = (run.groups(0, RL, step, seats()) for step in (2, 2, 3))
        facts = lambda groups: [[r.trajectory for r in g] for g in groups]  # noqa: E731
        assert facts(first) == facts(again) != facts(later)

    def test_every_task_is_drawn_once_a_pass(self, base: CausalPolicy, tmp_path: Path) -> None:
        run = trainer(base, tmp_path)
        drawn = [task.id for step in range(5) for task in run.exercises.drawn(0, RL, step, 2)]
        assert sorted(drawn[:5]) == sorted(drawn[5:]) == [lever.id for lever in LEVERS]
        assert drawn[:5] != drawn[5:]

    def test_a_stage_can_want_tasks_of_some_sizes(self, base: CausalPolicy, tmp_path: Path) -> None:
        run = trainer(base, tmp_path)
        with pytest.raises(RecipeError, match="have no size"):
            run.exercises.check(0, replace(RL, limit=2))
        known = Exercises(RECIPE, [SimpleNamespace(id=size, size=size) for size in (1, 2, 3, 4)])
        for least, limit, wanted in ((0, 2, {1, 2}), (3, 0, {3, 4}), (2, 3, {2, 3}), (0, 0, {1, 2, 3, 4})):
            stage = replace(RL, least=least, limit=limit)
            assert {task.id for task in known.drawn(0, stage, 0, 8)} == wanted
            assert {task.id for task in known.others(0, stage, 60, 0)} == wanted
        with pytest.raises(RecipeError, match="size 5 to any; this data's have 1 to 4"):
            known.check(0, replace(RL, least=5))

    def test_metrics_tell_what_people_watch(self, base: CausalPolicy, tmp_path: Path) -> None:
        seen: list[Mapping[str, Any]] = []
        trainer(base, tmp_path, progress=seen.append).run()
        assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == seen
        assert [(m["stage"], m["step"], m["steps"]) for m in seen] == [(0, i, 4) for i in (1, 2, 3, 4)] + [
            (1, i, 3) for i in (1, 2, 3)
        ] + [(2, 1, 1)]
        for m in seen:
            assert {"reward", "length", "groups", "flat_groups", "tokens", "decisions", *MEASURED} <= m.keys()
            assert "plain_rows" not in m and m.get("row_tokens", 1) > 0
            assert m["groups"] == 2 and m["decisions"] == 8 and m["left"] >= 0
            assert 0 < m["update_seconds"] < m["seconds"] and m["peak_memory_bytes"] > 2**20
            if m["kind"] == "rl" and m["flat_groups"] < 2:
                assert m["ratio_error_1"] < 1e-5 and m["clip_fraction_1"] == 0.0 and m["grad_norm"] > 0
        assert any("kl_2" in m for m in seen[4:7]) and "nll_1" in seen[7] and not any("kl_1" in m for m in seen[:4])

    def test_some_steps_are_written_down_as_trajectories(self, base: CausalPolicy, tmp_path: Path) -> None:
        run = trainer(base, tmp_path)
        run.run()
        assert [file[:-6] for file in logged(tmp_path)] == [
            f"stage-{stage:03d}-step-{step:06d}" for stage, step in ((0, 1), (0, 3), (1, 1), (1, 3), (2, 1))
        ]
        first = list(read_trajectories(tmp_path / "trajectories" / "stage-000-step-000001.jsonl"))
        seats = {"arm": Seat(base, Distribution()), "advisor": Seat(base)}
        played = trainer(base, tmp_path).groups(0, RL, 0, seats)
        assert [(t.task, t.seed, t.rewards) for t in first] == [
            (r.trajectory.task, r.trajectory.seed, r.trajectory.rewards) for group in played for r in group
        ]
        assert [[d.action for d in t.decisions] for t in first] == [
            [d.action for d in r.trajectory.decisions] for group in played for r in group
        ]

    def test_a_new_run_in_the_folder_leaves_no_trajectories_of_the_old_one(
        self, base: CausalPolicy, tmp_path: Path
    ) -> None:
        trainer(base, tmp_path).run()
        trainer(base, tmp_path, replace(RECIPE, log_every=0)).run()
        assert logged(tmp_path) == {}

    def test_the_run_s_folder_describes_itself(self, base: CausalPolicy, tmp_path: Path) -> None:
        trainer(base, tmp_path).run()
        assert yaml.safe_load((tmp_path / "recipe.yaml").read_text()) == to_plain(RECIPE)

    def test_a_step_with_nothing_to_learn_from_changes_nothing_and_goes_on(
        self, base: CausalPolicy, tmp_path: Path
    ) -> None:
        class Never(Puller):
            async def run(self, task: Lever) -> str:
                await super().run(task)
                return "nothing"

        stage = replace(RL, steps=2)
        run = trainer(base, tmp_path, replace(RECIPE, stages=(stage,)))
        run.build = Never
        assert same(weights(run.run()["arm"]), weights(base))
        assert [(m["reward"], m["flat_groups"]) for m in metrics(tmp_path)] == [(0.0, 2), (0.0, 2)]

    def test_why_rows_are_plain_is_told(self, base: CausalPolicy, tmp_path: Path) -> None:
        stage = replace(RL, steps=1, beta=0.1)
        shared = trainer(base, tmp_path / "shared", replace(RECIPE, stages=(stage,)))
        plain = trainer(base, tmp_path / "plain", replace(RECIPE, stages=(stage,)))
        plain.policies["arm"].why_plain = "it carries a state"
        shared.run()
        plain.run()
        [merged], [apart] = metrics(tmp_path / "shared"), metrics(tmp_path / "plain")
        assert apart["plain_rows"] == "it carries a state" and "plain_rows" not in merged
        assert merged["row_tokens"] < apart["row_tokens"] == 8 * (len("lever 0:") + 1)

    def test_successes_are_imitated_under_the_policys_own_distribution(
        self, base: CausalPolicy, tmp_path: Path
    ) -> None:
        stage = replace(RL, kind="rejection", temperature=2.0, top_k=4)
        run = trainer(base, tmp_path)
        seats = {"arm": Seat(base, Distribution(temperature=2.0, top_k=4)), "advisor": Seat(base)}
        groups = run.groups(0, stage, 0, seats)
        units = successes(groups, stage, tokens=5, seed=0)
        assert len(units) == 5 and {unit.action.distribution for unit in units} == {Distribution()}
        assert {unit.action.text for unit in units} == {"right"}

    def test_steps_whose_loss_is_not_finite_are_skipped_and_three_in_a_row_stop_the_run(
        self, base: CausalPolicy, tmp_path: Path
    ) -> None:
        stage = replace(RL, steps=9, lr=1e30, warmup=1, beta=0.1)
        run = trainer(base, tmp_path, replace(RECIPE, stages=(stage,)))
        with pytest.raises(TrainingError, match=r"3 steps in a row, up to step \d of stage 0 \(arm\).* lower .* lr"):
            run.run()
        found = metrics(tmp_path)
        assert [bool(m.get("skipped")) for m in found] == [False, True, True, True]
        assert found[-1]["grad_norm"] is None and found[0]["grad_norm"] > 0
        assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
        last = list(read_trajectories(tmp_path / "offending.jsonl"))
        assert len(last) == 8 and {t.task for t in last} <= {lever.id for lever in LEVERS}

    def test_one_such_step_changes_nothing_and_the_run_goes_on(
        self, base: CausalPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[int] = []
        usual = learner_module.policy_loss

        def now_and_then(logp: Any, batch: Any, *more: Any, **options: Any) -> Any:
            loss, facts = usual(logp, batch, *more, **options)
            calls.append(1)
            # Infinite with a finite gradient at first: nothing but the loss itself tells.
            return (loss + float("inf") if len(calls) == 1 else loss), facts

        monkeypatch.setattr(learner_module, "policy_loss", now_and_then)
        before: dict[str, torch.Tensor] = {}
        run = trainer(base, tmp_path, replace(RECIPE, stages=(replace(RL, steps=4),)))

        def keep(step: Mapping[str, Any]) -> None:
            if step["step"] == 1:
                before.update(weights(run.policies["arm"]))

        run.progress = keep
        trained = run.run()
        found = metrics(tmp_path)
        assert [bool(m.get("skipped")) for m in found] == [True, False, False, False]
        assert same(before, weights(base)) and not same(weights(trained["arm"]), weights(base))

    def test_actions_that_the_limit_cut_may_be_left_out_of_the_loss_but_not_of_the_reward(
        self, base: CausalPolicy, tmp_path: Path
    ) -> None:
        """An arm is one token, so that every action of one token without an end was cut."""
        stage = replace(RL, steps=1, truncated="left-out")
        trained = trainer(base, tmp_path, replace(RECIPE, stages=(stage,))).run()
        [found] = metrics(tmp_path)
        assert found["truncated"] == 8 and found["reward"] > 0 and "grad_norm" not in found
        assert same(weights(trained["arm"]), weights(base))

    @pytest.mark.parametrize(
        "more",
        [{"beta": 0.1, "kl": "k2"}, {"beta": 0.1, "kl": "k1", "kl_in": "reward"}, {"entropy": 0.01}, {"cap": 2.0}],
    )
    def test_every_term_of_the_objective_learns(self, base: CausalPolicy, tmp_path: Path, more: dict[str, Any]) -> None:
        stage = replace(RL, steps=12, **more)
        trainer(base, tmp_path, replace(RECIPE, stages=(stage,))).run()
        found = metrics(tmp_path)
        assert {"beta": "kl_1", "entropy": "entropy_1", "cap": "drift_1"}[next(iter(more))] in found[0]
        assert found[-1]["reward"] > found[0]["reward"]
        # Updates see the sampler's own distribution: the first ratio is 1 whatever the terms are.
        assert all(m["ratio_error_1"] < 1e-5 for m in found if "ratio_error_1" in m)

    def test_a_step_without_a_task_goes_on_too(self, base: CausalPolicy, tmp_path: Path) -> None:
        talk = DialogueTask("quiet", ("Andrew",), (), ())
        policies = {"manager": fresh(base), "answerer": fresh(base)}
        stage = Stage(steps=2, dialogues=1)
        recipe = Recipe(models={"manager": "tiny", "answerer": "tiny"}, stages=(stage,))
        Trainer(recipe, lambda **given: MemoryR1(**given), [talk], tmp_path, policies=policies).run()
        assert [(m["reward"], m["groups"]) for m in metrics(tmp_path)] == [(0.0, 0), (0.0, 0)]


class TestRefused:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"rule": "gpro"}, r"stages\[0\].rule is 'gpro'.*grpo"),
            ({"reduction": "tokens"}, r"stages\[0\].reduction is 'tokens'.*token"),
            ({"cut": "question"}, r"stages\[0\].cut is 'question'.*turns"),
        ],
    )
    def test_a_stage_that_cannot_work_is_refused_before_anything_is_played(
        self, base: CausalPolicy, tmp_path: Path, wrong: dict[str, str], message: str
    ) -> None:
        recipe = replace(RECIPE, stages=(replace(RL, **wrong),))
        with pytest.raises(RecipeError, match=message):
            trainer(base, tmp_path / "run", recipe).run()
        assert not (tmp_path / "run").exists()

    def test_a_run_without_data_is_refused(self, base: CausalPolicy, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="no dialogues to train on"):
            Trainer(RECIPE, Puller, [], tmp_path, policies={"arm": fresh(base), "advisor": fresh(base)}).run()


@pytest.mark.parametrize(("changes", "kept"), [({}, False), ({"beta": 0.1}, True), ({"kind": "rejection"}, True)])
def test_the_stage_s_start_is_kept_only_where_it_is_used(
    tiny: CausalPolicy, changes: dict[str, Any], kept: bool
) -> None:
    learner = Learner(replace(Stage(), **changes), tiny, {}, Devices())
    assert ("start" in learner.tensors()) == kept
