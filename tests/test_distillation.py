"""Distillation along a teacher's path: sums that do not depend on rows, adapters, teachers of other kinds."""
# ruff: noqa: F811

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from hybrids import converted
from memorist.decision import Observation
from memorist.errors import RecipeError
from memorist.models.adapters import with_adapter
from memorist.models.causal import CausalPolicy
from memorist.models.rows import Unit
from memorist.training.distillation import check_alike, distillation_loss
from test_stages import DISTILL, RECIPE, run
from test_trainer import Killed, base, fresh, killed_after  # noqa: F401


def other(base: CausalPolicy) -> CausalPolicy:
    """One that gives something else."""
    found = fresh(base)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return found


def unit(base: CausalPolicy, text: str = "right", weight: float = 1.0) -> Unit:
    """What somebody wrote about a lever."""
    return Unit(base.encode(Observation(f"a lever {len(text)}:"), text), 1.0, weight)


def test_what_is_aligned_does_not_depend_on_who_shares_a_batch(base: CausalPolicy) -> None:
    policy, units = other(base), [unit(base, "right" * n, 0.1) for n in range(1, 5)]
    sums = []
    with torch.no_grad():
        for budget in (1000, 20):
            every = policy.rows(units, budget)
            sums.append((len(every), sum(float(distillation_loss(policy, base, one, 1.0)[0]) for one in every)))
    assert sums[0][0] < sums[1][0] and sums[0][1] == pytest.approx(sums[1][1], rel=1e-4) and sums[0][1] > 0


def test_adapters_of_one_base_learn_each_its_own(base: CausalPolicy) -> None:
    first = with_adapter(fresh(base), "first", rank=2, alpha=4)
    second = with_adapter(first, "second", rank=2, alpha=4)
    teacher = other(base)
    for mine, theirs in ((first, second), (second, first)):
        [batch] = mine.rows([unit(base)], 100)
        with torch.no_grad():
            theirs.score(batch)  # whoever computed last
        distillation_loss(mine, teacher, batch, 0.0)[0].backward()
        assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in mine.parameters())
        assert all(p.grad is None or float(p.grad.abs().max()) == 0 for p in theirs.parameters())
        for parameter in mine.parameters():
            parameter.grad = None


def test_a_teacher_of_another_size_is_refused_only_where_layers_are_aligned(base: CausalPolicy) -> None:
    sizes = {"hidden_size": 64, "head_dim": 16, "num_hidden_layers": 3, "vocab_size": base.model.config.vocab_size + 7}
    config = LlamaConfig(**{**base.model.config.to_dict(), **sizes})
    config._attn_implementation = "eager"
    teacher = CausalPolicy(LlamaForCausalLM(config), base.tokenizer, "wide")
    with pytest.raises(RecipeError, match="3 of 64; expected as many"):
        check_alike(base, teacher, 1.0)
    check_alike(base, teacher, 0.0)
    [batch] = base.rows([unit(base)], 100)
    assert math.isfinite(float(distillation_loss(base, teacher, batch, 0.0)[0].detach()))


def test_rows_are_those_that_the_teacher_can_read(base: CausalPolicy, tmp_path: Path) -> None:
    """Siblings of one prompt share a row of a Llama; a teacher with a state would read one after the other."""
    mixed = converted(base, tmp_path / "made")
    shared = {}
    for name in (str(mixed.source), str(tmp_path / "made" / "base")):
        seen: list[Mapping[str, Any]] = []
        stage = replace(DISTILL, teacher=name, paths="teacher", steps=1, tasks=2, siblings=4)
        recipe = replace(RECIPE, stages=(stage,), evaluations={})
        run(base, tmp_path / f"run-{len(shared)}", recipe, progress=seen.append).run()
        shared[name] = seen[0]["shared_share"]
    assert shared[str(mixed.source)] == 0.0 < shared[str(tmp_path / "made" / "base")]


def test_a_killed_run_goes_on_to_the_same_weights_and_keeps_no_teacher(base: CausalPolicy, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    other(base).save(teacher)
    stage = replace(DISTILL, teacher=str(teacher), paths="teacher", steps=3, tasks=2, siblings=1)
    recipe = replace(RECIPE, stages=(stage,), evaluations={}, checkpoint_every=1)
    whole = run(base, tmp_path / "whole", recipe)
    whole.run()
    with pytest.raises(Killed):
        run(base, tmp_path / "killed", recipe, progress=killed_after(2)).run()
    kept = sorted((tmp_path / "killed").rglob("*.safetensors"))
    names = {name for file in kept for name in load_file(file)}
    assert names and not any("start" in f"{file.name} {name}" for file in kept for name in load_file(file))
    again = run(base, tmp_path / "killed", recipe)
    again.run(resume=True)
    for role, policy in whole.policies.items():
        for name, value in policy.state().items():
            assert torch.equal(value, again.policies[role].state()[name]), name
