"""Attention by blocks: what eager attention gives, without the pairs that nobody sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from transformers.models.qwen3.modeling_qwen3 import eager_attention_forward  # noqa: E402

from memorist.decision import Action  # noqa: E402
from memorist.models import attention  # noqa: E402
from memorist.models.attention import BLOCKS, attend, seen  # noqa: E402
from memorist.models.causal import CausalPolicy  # noqa: E402
from memorist.models.rows import Unit, pack  # noqa: E402

MakeTiny = Callable[..., CausalPolicy]


class Module(torch.nn.Module):
    num_key_value_groups = 2


def as_mask(allowed: torch.Tensor) -> torch.Tensor:
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]


def results(attend: Callable[..., Any], tensors: list[torch.Tensor], mask: torch.Tensor) -> list[torch.Tensor]:
    """What is attended to, and gradients of it where the query sees a key."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    found, _ = attend(Module().eval(), *leaves, mask, scaling=0.3)
    real = (mask >= 0).any(-1)[:, 0, :, None, None]
    found = torch.where(real, found, 0.0)
    (found * torch.arange(found.numel()).view_as(found).sin()).sum().backward()
    return [found.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@st.composite
def masks(draw: Any) -> torch.Tensor:
    """What each query sees of the keys, in rows of the same length; some see nothing (padding)."""
    batch, queries, keys = (draw(st.integers(1, most)) for most in (2, 23, 23))
    bits = draw(st.lists(st.booleans(), min_size=batch * queries * keys, max_size=batch * queries * keys))
    allowed = torch.tensor(bits).view(batch, queries, keys)
    return allowed & (torch.ones_like(allowed).tril() if draw(st.booleans()) else True)


@given(masks(), st.integers(0, 9))
def test_it_gives_what_eager_attention_gives(allowed: torch.Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch, queries, keys = allowed.shape
    shapes = [(batch, 4, queries, 8), (batch, 2, keys, 8), (batch, 2, keys, 8)]
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "QUERIES", 5)
        patch.setattr(attention, "KEYS", 3)
        ours = results(attend, tensors, as_mask(allowed))
    theirs = results(eager_attention_forward, tensors, as_mask(allowed))
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_keys_that_no_query_of_a_block_sees_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "QUERIES", 4)
    monkeypatch.setattr(attention, "KEYS", 2)
    causal = torch.ones(8, 8, dtype=torch.bool).tril()
    causal[4:, 2:4] = False  # the second half does not see a branch of the first
    causal[7, 7] = False
    assert seen(as_mask(causal[None])) == [[0, 1], [0, 2, 3]]


def test_a_tree_row_costs_what_its_branches_see(make_tiny: MakeTiny) -> None:
    policy = make_tiny(window=2048)
    prompt = tuple(i % 250 for i in range(640))
    tails = [tuple((7 * i + k) % 250 for i in range(128)) for k in range(8)]
    units = [Unit(Action("", prompt, tail, (0.0,) * 128), 1.0, 1.0) for tail in sorted(tails)]
    [batch] = pack(units, budget=2048)
    assert policy.attention == BLOCKS

    def products() -> float:
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            policy.score(batch)
        [attended] = [n for kind, n in counted.get_flop_counts()["Global"].items() if str(kind) == "aten.bmm"]
        return float(attended)

    length, pairs = 640 + 8 * 128, 640 * (640 + 128) / 2 + 8 * 128 * (640 + 128)
    ours = products()
    policy.model.set_attn_implementation("eager")
    assert ours / products() == pytest.approx(pairs / length**2, rel=1e-6)


def test_a_model_whose_attention_is_another_keeps_it(tiny: CausalPolicy) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    config = Gemma2Config(vocab_size=64, num_key_value_heads=2, **sizes, attn_logit_softcapping=1.0)
    model = Gemma2ForCausalLM._from_config(config, attn_implementation="eager")
    policy = CausalPolicy(model, tiny.tokenizer, "soft")
    assert policy.attention == "eager"
    assert model.config._attn_implementation == "eager"
