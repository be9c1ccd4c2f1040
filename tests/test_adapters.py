"""LoRA, half precision and layers computed again: other ways to the same agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from memorist.agents.memory_r1 import MemoryR1Settings  # noqa: E402
from memorist.decision import Distribution, Observation  # noqa: E402
from memorist.errors import PolicyError, RecipeError  # noqa: E402
from memorist.evaluation.exam import sit  # noqa: E402
from memorist.evaluation.runs import greedy_seats, train  # noqa: E402
from memorist.models.adapters import AdapterPolicy, with_adapter  # noqa: E402
from memorist.models.causal import CausalPolicy  # noqa: E402
from memorist.models.registry import open_policy  # noqa: E402
from memorist.models.rows import Unit, pack  # noqa: E402
from memorist.models.sampler import Request  # noqa: E402
from memorist.recipe import Recipe, Stage, WeightSettings, read_recipe  # noqa: E402
from memorist.tasks.dialogue import DialogueData  # noqa: E402
from memorist.tasks.world import dialogues  # noqa: E402
from memorist.training.metrics import read_metrics  # noqa: E402
from memorist.training.trainer import open_roles  # noqa: E402

MakeTiny = Callable[..., CausalPolicy]
REQUESTS = [Request(Observation(p, max_tokens=6), Distribution(), i) for i, p in enumerate(["a", "bcd", "e f"])]


def loss(policy: CausalPolicy, units: list[Unit]) -> torch.Tensor:
    return sum((-policy.score(batch).sum() for batch in pack(units, budget=10_000)), torch.zeros(()))


def learn(policy: CausalPolicy, units: list[Unit], steps: int = 5) -> None:
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for _ in range(steps):
        loss(policy, units).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def units(make_tiny: MakeTiny) -> list[Unit]:
    return [Unit(action, 1.0, 1.0) for action in make_tiny().sample(REQUESTS)]


class TestAdapters:
    def test_a_new_one_changes_nothing(self, make_tiny: MakeTiny, units: list[Unit]) -> None:
        before = loss(make_tiny(), units)
        assert torch.equal(loss(with_adapter(make_tiny(), "manager", rank=4, alpha=8), units), before)

    def test_roles_share_a_base_and_each_learns_its_own(self, make_tiny: MakeTiny, units: list[Unit]) -> None:
        base = make_tiny()
        first, second = (with_adapter(base, role, rank=4, alpha=8) for role in ("manager", "answerer"))
        alone = AdapterPolicy(base, "", "base")
        known, weights = loss(alone, units).item(), {n: p.clone() for n, p in base.model.named_parameters()}
        learn(first, units)
        assert loss(first, units).item() < known - 0.1
        assert loss(second, units).item() == loss(alone, units).item() == known
        changed = {n for n, p in base.model.named_parameters() if not torch.equal(p, weights[n])}
        assert changed and all(".manager." in name for name in changed)
        kept = loss(first, units).item()
        learn(second, units[:1])
        assert loss(first, units).item() == kept != loss(second, units).item() and alone.parameters() == []

    def test_what_is_frozen_stays_and_a_twin_goes_its_own_way(self, make_tiny: MakeTiny, units: list[Unit]) -> None:
        for policy in (with_adapter(make_tiny(), "manager", rank=4, alpha=8), make_tiny()):
            learn(policy, units)
            start, twin = policy.frozen("start"), policy.twin("critic")
            then = loss(policy, units).item()
            assert loss(start, units).item() == loss(twin, units).item() == then
            learn(policy, units)
            assert loss(start, units).item() == loss(twin, units).item() == then > loss(policy, units).item()
            learn(twin, units[:1])
            assert loss(start, units).item() == then != loss(twin, units).item()

    def test_one_that_is_added_after_the_base_has_computed_counts(self, make_tiny: MakeTiny, units: list[Unit]) -> None:
        policy = with_adapter(make_tiny(), "manager", rank=4, alpha=8)
        learn(policy, units)
        then = loss(policy, units).item()
        assert loss(AdapterPolicy(policy, "", "base"), units).item() != then
        assert loss(policy.twin("critic"), units).item() == then

    def test_saved_it_is_small_names_its_base_and_is_the_same_when_opened(self, tmp_path: Path) -> None:
        policy = with_adapter(open_policy("bundled"), "manager", rank=2, alpha=4)
        units = [Unit(action, 1.0, 1.0) for action in policy.sample(REQUESTS)]
        learn(policy, units, 2)
        policy.save(tmp_path / "manager")
        again = open_policy(str(tmp_path / "manager"))
        assert loss(again, units).item() == pytest.approx(loss(policy, units).item(), rel=1e-6)
        assert (tmp_path / "manager" / "adapter_model.safetensors").stat().st_size < 200_000
        assert not (tmp_path / "manager" / "model.safetensors").exists()

    def test_weights_of_another_rank_are_refused(self, make_tiny: MakeTiny) -> None:
        first, second = (with_adapter(make_tiny(), "manager", rank=r, alpha=8) for r in (2, 4))
        with pytest.raises((PolicyError, RuntimeError)):
            second.restore(first.state())
        with pytest.raises(PolicyError, match="adapter settings"):
            second.restore({})


class TestPrecision:
    def test_bf16_is_near_and_scored_as_it_was_drawn(self, make_tiny: MakeTiny, units: list[Unit]) -> None:
        full, half = make_tiny(), make_tiny()
        half.precision = "bf16"
        assert loss(half, units).item() == pytest.approx(loss(full, units).item(), rel=0.02)
        assert loss(half, units).item() != loss(full, units).item()
        assert {p.dtype for p in half.parameters()} == {torch.float32}
        assert not half.why_plain
        drawn = half.sample(REQUESTS)
        (batch,) = pack([Unit(action, 1.0, 1.0) for action in drawn], budget=10_000)
        assert float((half.score(batch).detach() - torch.from_numpy(batch.old)).abs().max()) < 0.1

    def test_layers_computed_again_give_the_same_gradient(self, make_tiny: MakeTiny, units: list[Unit]) -> None:
        usual, again = make_tiny(), make_tiny()
        again.checkpointing = True
        for policy in (usual, again):
            loss(policy, units).backward()
        for a, b in zip(usual.parameters(), again.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-7)
        assert not any(module.training for module in again.model.modules())

    def test_layers_are_computed_again(self, make_tiny: MakeTiny, units: list[Unit]) -> None:
        policy = make_tiny()
        assert policy.attention  # what it tries first is not counted
        calls: list[int] = []
        policy.model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
        loss(policy, units).backward()
        once = len(calls)
        policy.checkpointing = True
        loss(policy, units).backward()
        assert len(calls) == 3 * once


class TestRecipes:
    STAGE = Stage(role="manager", cut="turns", steps=2, tasks=4, siblings=2, dialogues=1, leads=1, temperature=2.0)

    def recipe(self, **weights: object) -> Recipe:
        stages = (self.STAGE, replace(self.STAGE, role="answerer", cut="questions"), replace(self.STAGE, rule="ppo"))
        settings = WeightSettings(**weights)  # type: ignore[arg-type]
        recipe = Recipe(agent=MemoryR1Settings(), weights=settings, stages=stages)
        return replace(recipe, data=DialogueData(dialogues=2), checkpoint_every=1)

    @pytest.mark.promise
    def test_memory_r1_is_trained_with_adapters_and_goes_on_after_a_kill(self, tmp_path: Path) -> None:
        recipe = self.recipe(lora=2, lora_alpha=4)
        whole = train(recipe, tmp_path / "whole").policies

        class Killed(BaseException):
            pass

        for last in ((0, 1), (1, 2), (2, 1)):

            def kill(step: object, last: tuple[int, int] = last) -> None:
                if (step["stage"], step["step"]) == last:  # type: ignore[index]
                    raise Killed

            with pytest.raises(Killed):
                train(recipe, tmp_path / "cut", resume=True, progress=kill)
        cut = train(recipe, tmp_path / "cut", resume=True).policies
        for role in ("manager", "answerer"):
            one, other = whole[role].state(), cut[role].state()
            assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
        seats = greedy_seats(recipe.models, tmp_path / "whole")
        assert sit("trained", recipe.agent.build, dialogues("test", 1), seats).asked()

    @pytest.mark.promise
    def test_bf16_and_checkpointing_train(self, tmp_path: Path) -> None:
        recipe = self.recipe(precision="bf16", checkpointing=True)
        train(replace(recipe, stages=recipe.stages[:1]), tmp_path)
        assert all(m["ratio_error_1"] < 0.05 for m in read_metrics(tmp_path / "metrics.jsonl") if "ratio_error_1" in m)

    def test_roles_that_do_not_learn_are_the_base(self) -> None:
        recipe = self.recipe(lora=2)
        roles = open_roles(replace(recipe, stages=recipe.stages[:1]))
        assert roles["manager"].model is roles["answerer"].model
        assert roles["answerer"].parameters() == [] and len(roles["manager"].parameters()) > 10

    @pytest.mark.parametrize(
        ("weights", "said"),
        [({"precision": "bf61"}, "'bf16'"), ({"lora": -1}, "rank of 0"), ({"lora": 2, "lora_alpha": 0}, "1 or more")],
    )
    def test_settings_that_cannot_work_are_refused(self, weights: dict[str, object], said: str) -> None:
        with pytest.raises(RecipeError, match=said):
            read_recipe({"weights": weights})
