"""Tree rows on real architectures: loss and gradient of a row for each decision, or plain rows with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from memorist.decision import Action, Distribution  # noqa: E402
from memorist.models import causal  # noqa: E402
from memorist.models.causal import CausalPolicy  # noqa: E402
from memorist.models.distributions import warp  # noqa: E402
from memorist.models.rows import Unit  # noqa: E402
from memorist.training.objective import policy_loss  # noqa: E402

SIZES: dict[str, Any] = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "attn_implementation": "eager", "head_dim": 8,
    "initializer_range": 0.1, "tie_word_embeddings": False,
}  # fmt: skip
MIXED = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen3": ("qwen3", {}),
    "qwen3, window": ("qwen3", {"use_sliding_window": True, **MIXED}),
    "mistral, window": ("mistral", {"sliding_window": 6}),
    "gemma3, window": ("gemma3_text", MIXED),
    "qwen3_moe": ("qwen3_moe", EXPERTS),
}


def policy(kind: str, **options: Any) -> CausalPolicy:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(SIZES | options))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")

    class Ids:
        eos_token_id, pad_token_id, chat_template = 1, 0, None

    return CausalPolicy(model, Ids(), kind)


def decisions() -> list[Unit]:
    """Siblings of a long prompt, a window that goes on after one of them, and another prompt."""
    draw = np.random.default_rng(1)
    ids = lambda n: tuple(int(i) for i in draw.integers(2, 90, n))  # noqa: E731
    prompt = ids(20)
    siblings = [(prompt, ids(n)) for n in (4, 7, 1)]
    later = [((*prompt, *siblings[1][1], *ids(3)), ids(5)) for _ in range(2)]
    return [
        Unit(Action("", seen, done, (-4.0,) * len(done)), (-1.0) ** i, 0.05 + 0.01 * i)
        for i, (seen, done) in enumerate([*siblings, *later, (ids(9), ids(6))])
    ]


def gradient(policy: CausalPolicy, batches: Any) -> tuple[float, torch.Tensor]:
    policy.model.zero_grad()
    total = 0.0
    for batch in batches:
        loss, _ = policy_loss(policy.score(batch), batch)
        loss.backward()
        total += float(loss.detach())
    return total, torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("family", FAMILIES)
def test_trees_give_loss_and_gradient_of_plain_rows(family: str) -> None:
    kind, options = FAMILIES[family]
    made = policy(kind, **options)
    assert made.why_plain == ""
    trees = made.rows(decisions(), 500)
    assert not all(batch.plain for batch in trees)
    plain = [batch for unit in decisions() for batch in made.rows([unit], 500)]
    assert all(batch.plain for batch in plain) and len(plain) == 6
    (loss, found), (expected_loss, expected) = gradient(made, trees), gradient(made, plain)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_pieces_of_the_vocabulary_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = policy("llama")
    mixed = [
        replace(unit, action=replace(unit.action, distribution=Distribution(1.0 + i % 2, top_k=i % 3 * 20)))
        for i, unit in enumerate(decisions())
    ]
    batches = made.rows(mixed, 500)
    loss, found = gradient(made, batches)
    monkeypatch.setattr(causal, "LOGITS", 3 * 90)
    assert gradient(made, batches)[0] == pytest.approx(loss, rel=1e-6)
    assert torch.allclose(gradient(made, batches)[1], found, atol=1e-6)


@pytest.mark.parametrize("legal", [None, ((1, 2, 3, 4, 5, 6), None)])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_likely_tokens_alone_give_what_the_whole_vocabulary_gives(
    monkeypatch: pytest.MonkeyPatch, temperature: float, legal: tuple[tuple[int, ...] | None, ...] | None
) -> None:
    made = policy("llama")
    drawn = Distribution(temperature, top_k=40, legal=legal)
    some = [
        replace(u, action=replace(u.action, distribution=drawn, tokens=(3, *u.action.tokens[1:]))) for u in decisions()
    ]
    batches = made.rows(some, 500)
    with torch.no_grad():
        scores = [made.score_with_entropy(batch) for batch in batches]
    loss, found = gradient(made, batches)
    monkeypatch.setattr(causal, "by_rows", lambda head: False)
    with torch.no_grad():
        for (logp, entropy), batch in zip(scores, batches, strict=True):
            expected = made.score_with_entropy(batch)
            assert torch.allclose(logp, expected[0], atol=1e-5) and torch.allclose(entropy, expected[1], atol=1e-5)
            assert logp.isneginf().any()  # some were not among the likely ones
    expected_loss, expected_found = gradient(made, batches)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert float((found - expected_found).norm() / expected_found.norm()) < 1e-5


@pytest.mark.parametrize("top_k", [0, 3])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gemma2", {"final_logit_softcapping": 0.05, "head_dim": 8}),
        ("cohere", {"logit_scale": 4.0}),
        ("granite", {"logits_scaling": 0.25}),
    ],
)
def test_what_a_model_makes_of_its_heads_logits_is_scored_too(kind: str, options: dict[str, Any], top_k: int) -> None:
    """Else it would be sampled from one law and learn under another."""
    made = policy(kind, **options)
    [unit] = [replace(u, action=replace(u.action, distribution=Distribution(top_k=top_k))) for u in decisions()[:1]]
    [batch] = made.rows([unit], 500)
    ids = torch.tensor([unit.action.prompt + unit.action.tokens])
    with torch.no_grad():
        logits = made.model(ids).logits[0, len(unit.action.prompt) - 1 : -1]
        found, written = made.score(batch), torch.tensor(unit.action.tokens)
        head = made.model.get_output_embeddings()(made.hidden(batch))
    every = warp(logits, unit.action.distribution)
    assert not torch.allclose(head, logits, atol=1e-3)
    assert torch.allclose(found, every.gather(1, written[:, None])[:, 0], atol=1e-5)


def test_entropies_are_those_of_the_distributions_that_actions_are_drawn_from() -> None:
    made = policy("llama")
    for drawn in (Distribution(), Distribution(temperature=2.0), Distribution(top_k=3), Distribution(top_p=0.5)):
        [unit] = [replace(u, action=replace(u.action, distribution=drawn)) for u in decisions()[:1]]
        [batch] = made.rows([unit], 500)
        with torch.no_grad():
            (logp, entropy), again = made.score_with_entropy(batch), made.score(batch)
            ids = torch.tensor([unit.action.prompt + unit.action.tokens])
            logits = made.model(ids).logits[0, len(unit.action.prompt) - 1 : -1]
        every = warp(logits, drawn)
        wanted = torch.special.entr(every.exp()).sum(-1)
        assert torch.allclose(entropy, wanted, atol=1e-5) and (logp == again).all()
        assert float(entropy.max()) <= np.log(drawn.top_k or 90) + 1e-5


def test_a_window_matters() -> None:
    """The masks are not trivially equal: with the window cut away, the same weights give another loss."""
    kind, options = FAMILIES["gemma3, window"]
    cut, whole = policy(kind, **options), policy(kind, **(options | {"sliding_window": 200}))
    whole.model.load_state_dict(cut.model.state_dict())
    assert gradient(cut, cut.rows(decisions(), 500))[0] != pytest.approx(
        gradient(whole, whole.rows(decisions(), 500))[0], rel=1e-3
    )


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        ("qwen3_moe", EXPERTS | {"output_router_logits": True}, "auxiliary loss would see a shared prompt once"),
        (
            "bamba",
            {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
            "layers that take no tree mask: linear_attention",
        ),
    ],
)
def test_what_cannot_branch_gets_plain_rows_with_a_reason(kind: str, options: dict[str, Any], why: str) -> None:
    made = policy(kind, **options)
    assert why in made.why_plain
    batches = made.rows(decisions(), 500)
    assert all(batch.plain for batch in batches) and sum(len(batch.length) for batch in batches) == 6
    loss, _ = gradient(made, batches)
    one_by_one = [batch for unit in decisions() for batch in made.rows([unit], 500)]
    assert loss == pytest.approx(gradient(made, one_by_one)[0], rel=1e-4)


def test_a_policy_whose_trees_are_wrong_says_so_and_goes_on_with_plain_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if an architecture ignored the mask it was given."""
    made = policy("llama")
    usual: Callable[..., Any] = made.model.model.forward

    def deaf(*arguments: Any, attention_mask: Any = None, **options: Any) -> Any:
        short = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
        return usual(*arguments, attention_mask=short, **options)

    monkeypatch.setattr(made.model.model, "forward", deaf)
    assert made.why_plain.startswith("tree rows are off by")
    assert all(batch.plain for batch in made.rows(decisions(), 500))


def test_of_experts_those_count_that_a_token_is_sent_to() -> None:
    few, many = (policy("qwen3_moe", **EXPERTS | {"num_experts": n}) for n in (2, 8))
    assert few.pairs < many.pairs < 1.2 * few.pairs  # the router alone grows
