"""The loss: clipping, the divergence, and their sums, against the published vectors and ten-line references."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from memorist.decision import Action  # noqa: E402
from memorist.models.rows import RowBatch, Unit, pack  # noqa: E402
from memorist.training.objective import Clip, Objective, imitation_loss, k1, k2, k3, policy_loss, surrogate  # noqa: E402


def gain(ratio: float, advantage: float, clip: Clip | None = None) -> float:
    return float(surrogate(torch.tensor(ratio), torch.tensor(advantage), clip or Clip()))


# Vectors T5 of memory-r1.md, 3 of memfactory.md, 5 of memagent.md and 5 of memsearcher.md
@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.3, 1, 1.2),
        (1.3, -1, -1.3),
        (0.7, 1, 0.7),
        (0.7, -1, -0.8),
        (1.1, 1, 1.1),
        (1.5, 0.5, 0.6),
        (0.5, 0.5, 0.25),
        (1.5, -0.5, -0.75),
        (0.5, -0.5, -0.4),
        (4, -0.5, -1.5),
        (math.exp(0.5), 1, 1.2),
        (math.exp(-0.5), 1, 0.6065307),
        (math.exp(0.5), -1, -1.6487213),
        (math.exp(-0.5), -1, -0.8),
        (math.exp(2), -1, -3.0),
    ],
)
def test_the_ratio_is_clipped_where_that_is_the_lesser_gain(ratio: float, advantage: float, expected: float) -> None:
    assert gain(ratio, advantage) == pytest.approx(expected)


def test_a_bad_action_costs_at_most_dual_times_its_advantage() -> None:
    assert gain(50.0, -1.0) == -3.0 and gain(50.0, -1.0, Clip(dual=0)) == -50.0
    assert gain(50.0, 1.0) == pytest.approx(1.2)


def test_the_upper_bound_may_be_wider() -> None:
    assert gain(1.5, 1.0, Clip(high=0.28)) == pytest.approx(1.28)
    assert gain(1.5, 0.5, Clip(high=0.28)) == pytest.approx(0.64)
    assert gain(4, -0.5, Clip(dual=0)) == pytest.approx(-2.0)
    assert gain(0.5, -1.0, Clip(low=0.1)) == pytest.approx(-0.9)


def test_k3() -> None:
    def of(logp: float, reference: float) -> float:
        return float(k3(torch.tensor(logp), torch.tensor(reference)))

    assert of(-1.0, -1.2) == pytest.approx(0.018731, abs=1e-6)
    assert of(-1.2, -1.0) == pytest.approx(0.021403, abs=1e-6)
    assert of(-1.0, -1.0) == 0.0
    for d, expected in ((0.1, 0.00517092), (-0.1, 0.00483742), (1.0, 0.71828183)):  # vector 6 of memagent.md
        assert of(-1.0, -1.0 + d) == pytest.approx(expected, abs=1e-6)
    assert of(-100.0, 0.0) == 10.0  # bounded


def rows(masks: Sequence[Sequence[int]], advantages: Sequence[float], old: float = -1.0) -> RowBatch:
    """A batch of actions of the given lengths, weighted by decision: a mean of means."""
    units = [
        Unit(Action("", (1,), (2,) * sum(mask), (old,) * sum(mask)), advantage, 1 / (len(masks) * sum(mask)))
        for mask, advantage in zip(masks, advantages, strict=True)
    ]
    (batch,) = pack(units, budget=10_000, share=False)
    return batch


def test_the_loss_of_two_rows() -> None:
    """Vector 2 of memfactory.md."""
    batch = rows([[1, 1, 1], [1, 0, 0]], [1, -1])
    logp = torch.from_numpy(batch.old).clone()
    loss, facts = policy_loss(logp, batch)
    assert float(loss) == pytest.approx(0.0, abs=1e-7) and "kl" not in facts
    reference = logp.clone()
    first = int(np.flatnonzero(batch.advantage > 0)[0])
    reference[first] += 0.2
    loss, facts = policy_loss(logp, batch, Objective(beta=0.1), reference=reference)
    assert float(loss) == pytest.approx(3.5671e-4, abs=1e-7)
    assert facts["kl"] == pytest.approx(0.0214028 / 6, abs=1e-7)


def hundredths(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low * 100, high * 100).map(lambda n: n / 100)


TOKEN = st.tuples(hundredths(-3, 3), hundredths(-3, 0), hundredths(-1, 1), hundredths(-1, 1))
VALUES = st.lists(TOKEN, min_size=1, max_size=8)
BOUND = st.sampled_from([0.1, 0.2, 0.3])


@settings(deadline=None)
@given(VALUES, BOUND, BOUND, st.sampled_from([0.0, 3.0]), st.sampled_from([0.0, 0.1]))
def test_the_loss_is_the_weighted_sum_over_tokens(
    values: list[tuple[float, float, float, float]], low: float, high: float, dual: float, beta: float
) -> None:
    units = [Unit(Action("", (1,), (2,), (old,)), a, 0.1 * (i + 1)) for i, (a, old, _, _) in enumerate(values)]
    (batch,) = pack(units, budget=10_000, share=False)
    now = torch.tensor([old + d for _, old, d, _ in values], dtype=torch.float64)
    reference = torch.tensor([old + d for _, old, _, d in values], dtype=torch.float64)
    loss, facts = policy_loss(now, batch, Objective(Clip(low, high, dual), beta), reference=reference)
    expected = clipped = 0.0
    for i, (a, old, d, e) in enumerate(values):
        ratio = math.exp(old + d - float(np.float32(old)))
        best = min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a)
        if dual and a < 0:
            best = max(best, dual * a)
        expected += 0.1 * (i + 1) * (-best + beta * (math.exp(e - d) - (e - d) - 1))
        clipped += 0.1 * (i + 1) * ((a > 0 and ratio > 1 + high) or (a < 0 and ratio < 1 - low))
    assert float(loss) == pytest.approx(expected, abs=1e-4)
    assert facts["clip_fraction"] == pytest.approx(clipped, abs=1e-4)


def test_a_clipped_token_has_no_gradient_and_others_that_of_the_policy_gradient() -> None:
    batch = rows([[1, 1]], [1.0])
    logp = (torch.from_numpy(batch.old) + torch.tensor([0.5, 0.0])).requires_grad_()
    loss, _ = policy_loss(logp, batch)
    loss.backward()
    assert logp.grad is not None and logp.grad.tolist() == [0.0, -0.5]


def test_the_divergence_pulls_towards_the_reference() -> None:
    batch = rows([[1]], [0.0])
    logp = torch.tensor([-1.0], requires_grad=True)
    loss, _ = policy_loss(logp, batch, Objective(beta=1.0), reference=torch.tensor([-0.5]))
    loss.backward()
    assert logp.grad is not None and float(logp.grad[0]) < 0  # descending raises logp


def test_k1_and_k2() -> None:
    now, then = torch.tensor([-1.0, -1.2, -50.0]), torch.tensor([-1.2, -1.0, -torch.inf])
    assert k1(now, then).tolist() == pytest.approx([0.2, -0.2, 10.0])
    assert k2(now, then).tolist() == pytest.approx([0.02, 0.02, 10.0])


@settings(deadline=None)
@given(st.lists(hundredths(-1, 1), min_size=2, max_size=5), st.lists(hundredths(-1, 1), min_size=5, max_size=5))
def test_which_estimate_belongs_into_the_loss_and_which_into_the_reward(
    logits: list[float], others: list[float]
) -> None:
    """Averaged over all actions: k1 and k3 are the divergence; k2's gradient is the divergence's, k1's is 0."""
    values = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    reference = torch.tensor(others[: len(logits)], dtype=torch.float64).log_softmax(0)
    logp = values.log_softmax(0)
    chance = logp.detach().exp()
    exact = (logp.exp() * (logp - reference)).sum()
    [wanted] = torch.autograd.grad(exact, values, retain_graph=True)
    for estimate in (k1, k3):
        assert float((chance * estimate(logp, reference)).sum().detach()) == pytest.approx(float(exact.detach()))
    [by_k2] = torch.autograd.grad((chance * k2(logp, reference)).sum(), values, retain_graph=True)
    [by_k1] = torch.autograd.grad((chance * k1(logp, reference)).sum(), values)
    assert torch.allclose(by_k2, wanted) and torch.allclose(by_k1, torch.zeros_like(by_k1), atol=1e-12)


def test_a_divergence_in_the_reward_lowers_the_advantage_and_has_no_gradient_of_its_own() -> None:
    batch = rows([[1, 1]], [1.0])
    logp = torch.from_numpy(batch.old).clone().requires_grad_()
    reference = torch.tensor([-1.0, -1.5])
    how = Objective(beta=0.4, kl="k1", kl_in="reward")
    loss, facts = policy_loss(logp, batch, how, reference=reference)
    loss.backward()
    # Advantages 1 - 0.4 · 0 and 1 - 0.4 · 0.5, each token weighted 1/2.
    assert logp.grad is not None and logp.grad.tolist() == pytest.approx([-0.5, -0.4])
    assert facts["kl"] == pytest.approx(0.25)


def test_drift_of_the_sampler_is_weighed_and_capped_and_the_ratio_begins_at_1() -> None:
    batch = rows([[1, 1, 1]], [1.0], old=-1.0)
    before = torch.tensor([-1.0, -0.5, 1.0])
    logp = before.clone().requires_grad_()
    loss, facts = policy_loss(logp, batch, Objective(cap=2.0), start=before)
    loss.backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([-1 / 3, -math.exp(0.5) / 3, -2.0 / 3])
    assert facts["ratio_error"] == 0 and facts["clip_fraction"] == 0
    assert facts["drift"] == pytest.approx((math.exp(0.5) - 1 + math.exp(2) - 1) / 3)
    # Without it the last token, far more likely for the learner than for the sampler, would be clipped away.
    assert policy_loss(before, batch)[1]["clip_fraction"] == pytest.approx(2 / 3)


def test_entropy_is_rewarded() -> None:
    batch = rows([[1, 1]], [0.0])
    entropy = torch.tensor([0.5, 1.5], requires_grad=True)
    loss, facts = policy_loss(torch.from_numpy(batch.old), batch, Objective(entropy=0.1), entropy=entropy)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-0.1) and facts["entropy"] == pytest.approx(1.0)
    assert entropy.grad is not None and entropy.grad.tolist() == pytest.approx([-0.05, -0.05])


def test_batches_of_a_step_add_up() -> None:
    units = [Unit(Action("", (1,) * n, (2,) * n, (-1.0,) * n), float(n - 3), 0.05) for n in (1, 2, 3, 4, 5)]
    whole = [float(policy_loss(torch.full((len(b.targets),), -1.1), b)[0]) for b in pack(units, budget=10_000)]
    parts = [float(policy_loss(torch.full((len(b.targets),), -1.1), b)[0]) for b in pack(units, budget=1)]
    assert len(whole) == 1 and len(parts) == 5 and sum(parts) == pytest.approx(whole[0])


def test_imitation_ignores_advantages_and_old_log_probabilities() -> None:
    batch = rows([[1, 1], [1, 0]], [1.0, -5.0], old=-7.0)
    loss, facts = imitation_loss(torch.tensor([-1.0, -2.0, -3.0]), batch)
    weights = batch.weight.tolist()
    assert float(loss) == pytest.approx(sum(w * n for w, n in zip(weights, (1, 2, 3), strict=True))) == facts["nll"]
