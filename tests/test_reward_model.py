"""The reward model of notebooks: what episodes and steps are worth, learnt from pairs of which one has a mistake."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import needs_sandbox

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memorist.agents.datarus import DatarusSettings  # noqa: E402
from memorist.agents.datarus_pairs import pairs  # noqa: E402
from memorist.decision import Observation  # noqa: E402
from memorist.models.causal import CausalPolicy  # noqa: E402
from memorist.tasks.notebook.episodes import NotebookData  # noqa: E402
from memorist.tasks.notebook.experts import CORRUPTIONS, VISIBLE, Corrupted  # noqa: E402
from memorist.training.reward_model import Judged, RewardModel, Scores, aggregated, in_one_window  # noqa: E402

pytestmark = needs_sandbox

if TYPE_CHECKING:
    from conftest import MakeTiny

COMPACT = DatarusSettings(style="compact")


def judged(policy: CausalPolicy, words: list[str], wrong: int | None = None) -> Judged:
    """An episode in one window: a question, then messages."""
    asked, actions = Observation(f"{words[0]}:"), []
    for number, word in enumerate(words[1:]):
        action = policy.encode(asked, word)
        actions.append(action)
        asked = asked.then(action, f"{number}?")
    return Judged(tuple(actions), tuple(number != wrong for number in range(len(actions))))


def toy(policy: CausalPolicy, seed: int) -> tuple[Judged, Judged]:
    """Messages name what the question asks for; in the worse episode one names something else."""
    rng = random.Random(seed)
    asked, count = rng.choice("abcd"), rng.randint(2, 4)
    wrong = rng.randrange(count)
    other = rng.choice([letter for letter in "abcd" if letter != asked])
    worse = [asked, *(other if number == wrong else asked for number in range(count))]
    return judged(policy, [asked, *[asked] * count]), judged(policy, worse, wrong)


class TestScores:
    def test_steps_are_put_together_in_three_ways(self) -> None:
        """Vector 5."""
        steps = [0.9, 0.2, 0.8]
        found = {how: 0.5 * aggregated(steps, how) + 0.5 * 0.7 for how in ("mean", "min", "geometric")}
        assert found == pytest.approx({"mean": 0.666667, "min": 0.45, "geometric": 0.612074}, abs=1e-6)

    def test_a_score_is_between_0_and_1_whatever_the_logits_are(self) -> None:
        assert Scores((0.0, 0.0), 0.0).value() == 0.5 and Scores((), 3.0).value(middle=3.0) == 0.5
        assert 0 <= Scores((-1e4, 1e4), -1e4).value() <= 1 and Scores((1e4,), 1e4).value(aggregate="geometric") == 1


class TestLearning:
    def test_pairs_and_steps_are_told_apart(self, make_tiny: MakeTiny) -> None:
        policy = make_tiny(words=("a", "b", "c", "d"))
        model = RewardModel(policy, lr=1e-2)
        for step in range(150):
            both = [toy(policy, 1000 * step + n) for n in range(16)]
            facts = model.learn([one for one, _ in both], [other for _, other in both])
        held_out = [toy(policy, 10**6 + n) for n in range(100)]
        better, worse = (model.scores([pair[side] for pair in held_out]) for side in (0, 1))
        ranked = sum(one.episode > other.episode for one, other in zip(better, worse, strict=True))
        seen = [(score > 0) == right for (_, pair), scores in zip(held_out, worse, strict=True)
                for score, right in zip(scores.steps, pair.right, strict=False)]  # fmt: skip
        assert ranked >= 90 and sum(seen) / len(seen) >= 0.9
        assert facts["pairs"] >= 0.8 and facts["tokens"] > 0
        model.calibrate([pair[0] for pair in held_out])
        assert sum(model.values([pair[0] for pair in held_out])) > sum(model.values([pair[1] for pair in held_out]))

    def test_before_it_has_learnt_the_loss_is_that_of_a_coin(self, make_tiny: MakeTiny) -> None:
        """Vector 4 at a difference of 0: 0.693147 for episodes, and as much for steps."""
        policy = make_tiny()
        facts = RewardModel(policy).learn(*([side] for side in toy(policy, 0)))
        assert facts["loss"] == pytest.approx(2 * 0.693147, abs=1e-5)

    def test_a_step_is_judged_by_what_came_of_it_and_by_nothing_later(self, make_tiny: MakeTiny) -> None:
        policy = make_tiny()
        model = RewardModel(policy)
        torch.nn.init.normal_(model.heads.linear.weight)
        whole, begun = model.scores([judged(policy, ["q", "a", "b", "c"]), judged(policy, ["q", "a", "b", "d"])])
        assert whole.steps == pytest.approx(begun.steps, abs=1e-5) and whole.episode != pytest.approx(begun.episode)
        other = model.scores([judged(policy, ["q", "a", "c", "c"])])[0]
        assert other.steps[0] == pytest.approx(whole.steps[0], abs=1e-5)
        assert other.steps[1] != pytest.approx(whole.steps[1], abs=1e-5)

    def test_it_is_saved_and_read(self, make_tiny: MakeTiny, tmp_path: Path) -> None:
        policy = make_tiny()
        model = RewardModel(policy)
        both = [toy(policy, n) for n in range(4)]
        model.learn([one for one, _ in both], [other for _, other in both])
        model.calibrate([one for one, _ in both])
        model.save(tmp_path)
        again = RewardModel.load(tmp_path)
        episodes = [one for pair in both for one in pair]
        assert again.values(episodes) == pytest.approx(model.values(episodes), abs=1e-5)


def test_a_judge_of_an_adapter_is_read_again(make_tiny: MakeTiny, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from memorist.models.adapters import with_adapter

    make_tiny(window=512).save(tmp_path / "base")
    base = CausalPolicy.load(tmp_path / "base")
    model = RewardModel(with_adapter(base, "arm", rank=2, alpha=4, seed=0))
    both = [toy(base, n) for n in range(2)]
    model.learn([one for one, _ in both], [other for _, other in both])
    model.save(tmp_path / "judge")
    again = RewardModel.load(tmp_path / "judge")
    assert again.values([both[0][0]]) == pytest.approx(model.values([both[0][0]]), abs=1e-5)


class TestPairs:
    def test_an_episode_is_one_window_as_the_policy_would_have_written_it(self, make_tiny: MakeTiny) -> None:
        policy = make_tiny(window=4096)
        [pair] = pairs(NotebookData(split="validation", questions=1).tasks(0), COMPACT)
        actions = in_one_window(policy, pair.better.messages)
        assert [action.text for action in actions] == [text for _, text in pair.better.messages]
        for before, after in pairwise(actions):
            assert after.prompt[: len(before.prompt) + len(before.tokens)] == (*before.prompt, *before.tokens)
        assert "<observation>" in policy.tokenizer.decode(actions[-1].prompt)

    def test_one_of_the_moves_is_wrong_and_all_before_it_are_the_same(self) -> None:
        tasks = NotebookData(split="validation", questions=24).tasks(0)
        found = pairs(tasks, COMPACT)
        assert len(found) > 18 and len({pair.kind for pair in found}) >= 4
        for pair in found:
            wrong = pair.worse.right.index(False)
            assert pair.worse.right.count(False) == 1 and all(pair.better.right)
            assert pair.worse.messages[:wrong] == pair.better.messages[:wrong]
            assert pair.worse.messages[wrong][0] == pair.better.messages[wrong][0]
            assert pair.worse.messages[wrong][1] != pair.better.messages[wrong][1]

    @pytest.mark.parametrize("kind", CORRUPTIONS)
    def test_every_kind_occurs(self, kind: str) -> None:
        tasks = NotebookData(questions=120).tasks(0)
        assert any(Corrupted(task, kind).step is not None for task in tasks)

    def test_answers_of_visible_corruptions_are_mostly_wrong(self) -> None:
        tasks = NotebookData(split="validation", questions=36).tasks(0)
        found = pairs(tasks, COMPACT, kinds=VISIBLE)
        known = {task.id: task for task in tasks}
        from memorist.tasks.notebook.steps import parse

        rights = [known[pair.task].right(parse(pair.worse.messages[-1][1]).answer) for pair in found]
        goods = [known[pair.task].right(parse(pair.better.messages[-1][1]).answer) for pair in found]
        assert all(goods) and sum(rights) < 0.2 * len(rights)
