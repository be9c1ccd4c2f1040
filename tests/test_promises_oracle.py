"""TRL's loss as an oracle: where one window is the whole run, our loss and gradient are theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl", reason="TRL is compared with where it is installed: pip install trl==1.16.0")

from memorist.decision import Action, Decision, Observation, Reward, Trajectory  # noqa: E402
from memorist.models.causal import CausalPolicy  # noqa: E402
from memorist.training.credit import How, credit  # noqa: E402
from memorist.training.objective import Clip, Objective, policy_loss  # noqa: E402
from memorist.training.rollout import Group, Run  # noqa: E402

pytestmark = [pytest.mark.promise, pytest.mark.filterwarnings("ignore")]

# TRL's name of the reduction, ours; the coefficient of the KL; TRL's scaling of rewards, our rule.
CASES = [
    ("bnpo", "token", 0.0, "group", "grpo"),
    ("bnpo", "token", 0.1, "none", "grpo-no-std"),
    ("grpo", "trajectory", 0.0, "none", "grpo-no-std"),
    ("grpo", "trajectory", 0.2, "group", "grpo"),
]


def played() -> list[Group]:
    """Two groups of four completions of unequal length, with log-probabilities of an earlier policy."""
    draw = np.random.default_rng(3)
    groups = []
    for number in range(2):
        prompt = tuple(int(i) for i in draw.integers(0, 250, 7 + 3 * number))
        group = []
        for _ in range(4):
            tokens = tuple(int(i) for i in draw.integers(0, 250, draw.integers(2, 9)))
            logprobs = tuple(float(x) for x in draw.uniform(-6.5, -4.5, len(tokens)))
            decision = Decision("writer", "p", Observation("x"), Action("", prompt, tokens, logprobs))
            reward = Reward("r", float(draw.integers(0, 3)))
            group.append(Run(None, Trajectory("t", 0, (decision,), (reward,))))
        groups.append(group)
    return groups


def padded(rows: list[tuple[Any, ...]], fill: float, *, left: bool = False) -> torch.Tensor:
    most = max(map(len, rows))
    return torch.tensor(
        [[fill] * (most - len(r)) * left + list(r) + [fill] * (most - len(r)) * (not left) for r in rows]
    )


def alone(policy: CausalPolicy, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> list[float]:
    """Log-probabilities by one plain pass of the model."""
    ids = torch.tensor([[*prompt, *tokens]])
    with torch.no_grad():
        logp = policy.model(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
    return list(map(float, logp[len(prompt) - 1 :]))


@pytest.mark.parametrize(("loss_type", "reduction", "beta", "scaling", "rule"), CASES)
def test_loss_and_gradient_are_those_of_trl(
    make_tiny: Callable[..., CausalPolicy], tmp_path: Path, loss_type: str, reduction: str, beta: float, scaling: str,
    rule: str,
) -> None:  # fmt: skip
    from datasets import Dataset

    policy, start = make_tiny(1), make_tiny(1)
    with torch.no_grad():  # near enough that no estimate of the divergence is clamped, which is ours alone
        for parameter in start.model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    groups = played()
    units = credit(groups, "writer", how=How(rule, reduction, epsilon=1e-4)).units
    how = Objective(Clip(0.2, 0.2, dual=0.0), beta=beta)
    total = 0.0
    for batch in policy.rows(units, 10_000):
        with torch.no_grad():
            reference = start.score(batch) if beta else None
        loss, _ = policy_loss(policy.score(batch), batch, how, reference=reference)
        loss.backward()
        total += float(loss.detach())
    ours = {name: p.grad.clone() for name, p in policy.model.named_parameters()}

    settings = trl.GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=4, loss_type=loss_type, beta=0.0,
        scale_rewards=scaling, epsilon=0.2, use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False,
        temperature=1.0, max_completion_length=16, use_bias_correction_kl=False,
    )  # fmt: skip
    theirs = make_tiny(1)
    trainer = trl.GRPOTrainer(
        model=theirs.model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=settings,
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 8), processing_class=theirs.tokenizer,
    )  # fmt: skip
    runs = [run for group in groups for run in group]
    actions = [run.trajectory.decisions[0].action for run in runs]
    rewards = torch.tensor([[run.reward for run in group] for group in groups])
    advantages = rewards - rewards.mean(1, keepdim=True)
    if scaling == "group":
        advantages = advantages / (rewards.std(1, keepdim=True) + 1e-4)
    inputs = {
        "prompt_ids": padded([a.prompt for a in actions], 0, left=True),
        "prompt_mask": padded([(1,) * len(a.prompt) for a in actions], 0, left=True),
        "completion_ids": padded([a.tokens for a in actions], 0),
        "completion_mask": padded([(1,) * len(a.tokens) for a in actions], 0),
        "advantages": advantages.flatten(),
        "old_per_token_logps": padded([a.logprobs for a in actions], 0.0),
        "num_items_in_batch": torch.tensor(float(sum(len(a.tokens) for a in actions))),
    }
    if beta:
        inputs["ref_per_token_logps"] = padded([alone(start, a.prompt, a.tokens) for a in actions], 0.0)
    trainer.beta = beta  # set late: it would look for the reference on a hub
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    assert total == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-6)
    for name, parameter in theirs.model.named_parameters():
        assert torch.allclose(parameter.grad, ours[name], rtol=1e-4, atol=1e-5 * float(ours[name].abs().max())), name
