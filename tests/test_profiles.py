"""Histories with the right profile tree at every moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memorist.agents.personatree import PersonaTreeSettings
from memorist.agents.profile_heuristics import RuleListener, heard_in
from memorist.agents.profile_offline import OfflineAnswerer
from memorist.decision import Action, Stop
from memorist.errors import RecipeError
from memorist.memory.embed import HashedEmbedder
from memorist.memory.profile_edits import edits_between, read_edits
from memorist.memory.profile_schema import persona_schema
from memorist.memory.profile_tree import ProfileTree
from memorist.memory.record import Scope
from memorist.memory.scratch import ScratchBank
from memorist.models.sampler import Request
from memorist.recipe import load_recipe
from memorist.tasks.lives import subjects
from memorist.tasks.profile_rewards import state
from memorist.tasks.profiles import LEAVES, ProfileQuestion, ProfilesData, history
from memorist.training.rollout import Seat, play

AT = datetime(2025, 1, 1, tzinfo=UTC)


def test_every_subject_has_a_leaf_of_its_own() -> None:
    assert set(LEAVES) == {subject.name for subject in subjects()}
    assert set(LEAVES.values()) <= persona_schema().known and len(set(LEAVES.values())) == len(LEAVES)


@pytest.mark.parametrize("number", range(12))
def test_its_edits_lead_to_its_trees_and_are_worth_all(number: int) -> None:
    tree = ProfileTree(ScratchBank(), Scope("p"), guard="off", budget=10_000)
    for heard in history(f"p{number}", 30):
        assert state(tree, heard.edits, heard.edits) == 1.0
        assert all(not one.code.rejected for one in tree.apply(heard.edits, at=AT))
        assert tree.leaves() == {path: heard.tree[path] for path in tree.leaves()} and len(tree.leaves()) == len(
            heard.tree
        )


def test_they_have_all_that_a_listener_must_tell_apart() -> None:
    kinds: dict[str, int] = {}
    others = 0
    for number in range(40):
        told = history(f"p{number}", 30, split="validation")
        others += len(told[-1].others)
        for heard in told:
            for edit in heard.edits:
                kinds[edit.kind] = kinds.get(edit.kind, 0) + 1
    assert all(kinds[kind] > 40 for kind in ("ADD", "UPDATE", "DELETE")) and kinds["NO_OP"] > 300 and others > 40


def test_they_are_the_same_every_time_and_differ_by_name_and_split() -> None:
    texts = lambda *a, **k: [h.message.text for h in history(*a, **k)]  # noqa: E731
    assert texts("a", 20) == texts("a", 20) != texts("b", 20)
    assert texts("a", 20) != texts("a", 20, split="validation") and texts("a", 20, seed=1) != texts("a", 20)


class Says:
    """A listener that says what a function makes of a task's prompt."""

    name = "says"

    def __init__(self, reply: Callable[[str], str]) -> None:
        self.reply = reply

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        return [Action(self.reply(request.observation.prompt)) for request in requests]


COMPACT = PersonaTreeSettings(style="compact", pairs=1, mode="fast")
EVERY = ("profile_state", "profile_strict", "profile_graded", "profile_form")


def earned(reply: Callable[[str], str], data: ProfilesData) -> list[dict[str, float]]:
    seats = {"listener": Seat(Says(reply)), "answerer": Seat(OfflineAnswerer(HashedEmbedder()))}
    groups = play(COMPACT.build, data.tasks(0), seats)
    return [{reward.name: reward.value for reward in run.trajectory.rewards} for (run,) in groups]


def right(data: ProfilesData) -> Callable[[str], str]:
    """Who knows what is right about every message."""
    known = {
        message.text: "\n".join(map(str, edits_between(a, b)))
        for task in data.tasks(0)
        for message, a, b in zip(task.messages, task.trees, task.trees[1:], strict=False)
    }
    return lambda prompt: known[heard_in(prompt)[0]]


def test_who_is_right_earns_all_and_who_is_not_less() -> None:
    data = ProfilesData(people=4, statements=12, rewards=EVERY)
    assert all(value == 1.0 for one in earned(right(data), data) for value in one.values())
    nothing = earned(lambda prompt: "NO_OP()", data)
    assert {one["state"] for one in nothing} >= {1.0, -1.0} and all(one["form"] == 1.0 for one in nothing)
    assert {one["strict"] for one in nothing} >= {1.0, -0.5}
    babble = earned(lambda prompt: "I would say that nothing has changed.", data)
    assert all(one["form"] == -1.0 for one in babble)
    assert [one["state"] for one in babble] == [one["state"] for one in nothing]


def test_several_messages_in_a_row_are_paid_each_and_again_when_they_are_asked_for() -> None:
    data = ProfilesData(people=6, statements=12, span=4, rewards=("profile_state", "profile_asked"))
    tasks = data.tasks(0)
    assert all(len(task.messages) == 4 and len(task.trees) == 5 for task in tasks) and len(tasks) == 18
    found = earned(right(data), data)
    assert all(one[f"state-{n}"] == 1.0 for one in found for n in range(4))
    asked = [value for one in found for name, value in one.items() if name.startswith("asked")]
    assert asked and set(asked) <= {0.0, 1.0} and sum(asked) > len(asked) / 2


def test_what_was_missed_before_is_not_held_against_a_later_reply() -> None:
    data = ProfilesData(people=8, statements=12, span=4, rewards=("profile_state",))
    alone = ProfilesData(people=8, statements=12, rewards=("profile_state",))
    nothing = lambda prompt: "NO_OP()"  # noqa: E731
    quiet = [one["state"] == 1.0 for one in earned(nothing, alone)]
    later = [one[f"state-{n}"] == 1.0 for one in earned(nothing, data) for n in range(4)]
    assert all(b or not a for a, b in zip(quiet, later, strict=True)) and 0 < sum(quiet) < len(quiet)


@pytest.mark.parametrize("pairs", [1, 3])
def test_a_reply_about_several_messages_is_one(pairs: int) -> None:
    data = ProfilesData(people=3, statements=12, span=4, rewards=EVERY)
    settings = replace(COMPACT, pairs=pairs, words=10_000)
    groups = play(settings.build, data.tasks(0), {"listener": Seat(RuleListener()), "answerer": Seat(RuleListener())})
    for (run,) in groups:
        names = {reward.name.partition("-")[0] for reward in run.trajectory.rewards}
        assert names == {"state", "strict", "graded", "form"}


def test_what_was_never_written_is_not_paid_when_it_is_asked_for() -> None:
    data = ProfilesData(people=6, statements=12, span=4, rewards=("profile_asked",))
    asked = [value for one in earned(lambda prompt: "NO_OP()", data) for value in one.values()]
    assert asked and sum(asked) < sum(value for one in earned(right(data), data) for value in one.values())


def test_foreign_is_what_never_held_of_the_person() -> None:
    for number in range(20):
        told = history(f"p{number}", 40)
        ever = {part.partition(",")[0].removeprefix("planned: ") for one in told for text in one.tree.values()
                for part in text.split("; ")}  # fmt: skip
        assert not told[-1].others & ever


def test_what_was_written_early_is_paid_where_it_was_written() -> None:
    data = ProfilesData(people=6, statements=12, span=4, rewards=("profile_asked",))
    seats = {"listener": Seat(Says(right(data))), "answerer": Seat(OfflineAnswerer(HashedEmbedder()))}
    places = set()
    for (run,) in play(COMPACT.build, data.tasks(0), seats):
        for reward in run.trajectory.rewards:
            path = reward.name.removeprefix("asked-")
            assert reward.decision is not None
            wrote = [
                i for i, results in enumerate(run.outcome.results) if any(r.operation.key == path for r in results)
            ]
            assert reward.decision == wrote[-1]
            places.add(reward.decision)
    assert len(places) > 2


def test_a_question_is_answered_by_any_value_that_holds() -> None:
    question = ProfileQuestion("Where do I live?", "Porto", 4, (), values=("Porto", "the old town"), path="x")
    assert question.right("I live in Porto.") and question.right("the Old Town") and not question.right("Portobello")
    for heard in history("p1", 30):
        for one in heard.questions:
            assert one.right(heard.tree[one.path]) and one.text.endswith("?")


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong, told in (
        ({"span": 0}, "span is 0"),
        ({"rewards": ()}, "rewards is empty"),
        ({"split": "test"}, "split"),
    ):
        with pytest.raises(RecipeError, match=told):
            ProfilesData(**wrong).check()
    with pytest.raises(RecipeError, match="style"):
        PersonaTreeSettings(style="short").check()


def test_the_rules_err_as_often_as_they_are_told_and_only_with_an_embedder() -> None:
    with pytest.raises(ValueError, match="embedder"):
        RuleListener(error=0.5)
    data = ProfilesData(people=10, statements=20)
    prompts = []
    for task in data.tasks(0):
        lines = "".join(f"{path}: {text}\n" for path, text in task.trees[0].items())
        prompts.append(f"Known:\n{lines}New:\n{task.messages[0].text}\nEdits:\n")
    same, erring = RuleListener(), RuleListener(error=0.5, embedder=HashedEmbedder())
    differ = sum(same.edits(p) != erring.edits(p, seed) for seed, p in enumerate(prompts))
    assert 0.2 * len(prompts) < differ < 0.5 * len(prompts)
    assert [erring.edits(p, 3) for p in prompts] == [erring.edits(p, 3) for p in prompts]


@pytest.mark.parametrize("name", ["personatree", "personatree-sft"])
def test_the_recipes_train_a_listener_that_writes_edits_of_leaves_alone(name: str, tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    from memorist.evaluation.runs import train
    from memorist.log import read_trajectories

    recipe = load_recipe(name)
    small = replace(recipe.stages[0], steps=2, tasks=4, siblings=3)
    data = replace(recipe.data, people=3, statements=8)
    train(replace(recipe, stages=(small,), data=data, log_every=1), tmp_path)
    assert (tmp_path / "policies" / "listener" / "model.safetensors").is_file()
    known, replies = persona_schema().known, 0
    for file in sorted((tmp_path / "trajectories").glob("*.jsonl")):
        for trajectory in read_trajectories(file):
            for decision in trajectory.decisions:
                assert decision.action.distribution.grammar == decision.observation.grammar == "profile-edits"
                if decision.action.stop is Stop.END:
                    read = read_edits(decision.action.text)
                    assert read.found and not read.bad and {edit.path for edit in read.found} <= {"", *known}
                    replies += 1
    assert replies > 10
