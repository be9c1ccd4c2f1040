"""What a GPU adds computes what the CPU computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memorist.decision import Action, Distribution, Observation  # noqa: E402
from memorist.models import writing  # noqa: E402
from memorist.models.causal import CausalPolicy  # noqa: E402
from memorist.models.rows import Unit  # noqa: E402
from memorist.models.sampler import Request  # noqa: E402
from memorist.training.objective import policy_loss  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
PROMPTS = ["a", "Anna lives in Rome.", "Memories:\nNew:\nx\nOperations:\n", "Anna lives in Oslo."]
KINDS = [Distribution(), Distribution(temperature=0.7, top_p=0.8, top_k=5), Distribution(temperature=0.0)]


@pytest.fixture
def on_gpu(make_tiny: Callable[..., CausalPolicy]) -> Iterator[CausalPolicy]:
    policy = make_tiny()
    policy.model.to("cuda")
    policy.model.set_attn_implementation("sdpa")
    yield policy


def asked(tokens: int = 24) -> list[Request]:
    return [
        Request(Observation(PROMPTS[n % 4], max_tokens=tokens + n % 5), KINDS[n % 3], n) for n in range(24)
    ]  # fmt: skip


def units(actions: list[Action]) -> list[Unit]:
    return [Unit(action, 1.0 - n % 3, 0.01) for n, action in enumerate(actions)]


def loss_and_gradient(policy: CausalPolicy, given: list[Unit]) -> tuple[float, torch.Tensor]:
    policy.model.zero_grad()
    total = 0.0
    for batch in policy.rows(given, 512):
        loss, _ = policy_loss(policy.score(batch), batch)
        loss.backward()
        total += float(loss.detach())
    return total, torch.cat([p.grad.flatten().cpu() for p in policy.parameters()])


def test_recorded_steps_write_what_steps_write_that_are_not(
    on_gpu: CausalPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = on_gpu.sample(asked())
    assert writing.may_record(on_gpu.model, on_gpu.model.device, 24)
    monkeypatch.setattr(writing, "may_record", lambda *_: False)
    grown = on_gpu.sample(asked())
    assert [a.tokens for a in recorded] == [a.tokens for a in grown]
    for one, other in zip(recorded, grown, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_recorded_steps_see_new_weights(on_gpu: CausalPolicy) -> None:
    for precision in ("float32", "bf16"):
        on_gpu.precision = precision
        before = on_gpu.sample(asked())
        with torch.no_grad():
            for parameter in on_gpu.parameters():
                parameter.mul_(1.5)
        after = on_gpu.sample(asked())
        assert [a.tokens for a in before] != [a.tokens for a in after]
        for action in after[:3]:
            [batch] = on_gpu.rows([Unit(action, 1.0, 1.0)], 512)
            with torch.no_grad():
                scored = on_gpu.score(batch).cpu().tolist()
            allowed = 1e-3 if precision == "float32" else 0.5
            assert action.logprobs == pytest.approx(scored, abs=allowed)


def test_loss_and_gradient_are_the_cpus(on_gpu: CausalPolicy, make_tiny: Callable[..., CausalPolicy]) -> None:
    here = make_tiny()
    given = units(here.sample(asked()))
    assert not on_gpu.why_plain
    loss, gradient = loss_and_gradient(here, given)
    loss_there, gradient_there = loss_and_gradient(on_gpu, given)
    assert loss_there == pytest.approx(loss, rel=1e-4, abs=1e-6)
    assert torch.allclose(gradient_there, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


def test_half_precision_shares_prompts_too(on_gpu: CausalPolicy) -> None:
    on_gpu.precision = "bf16"
    given = units(on_gpu.sample(asked()))
    assert not on_gpu.why_plain
    assert sum(int(batch.length.sum()) for batch in on_gpu.rows(given, 512)) < sum(
        len(u.action.prompt) + len(u.action.tokens) for u in given
    )
