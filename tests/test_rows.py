"""Merging decisions into rows changes what is computed, never what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memorist.decision import Action, Author, Decision, Distribution, Observation, Span  # noqa: E402
from memorist.models.causal import CausalPolicy  # noqa: E402
from memorist.models.rows import Unit, pack  # noqa: E402
from memorist.models.sampler import Request  # noqa: E402
from memorist.training.objective import Clip, imitation_loss, policy_loss  # noqa: E402

NARROW = Distribution(temperature=0.7, top_k=50)


@pytest.fixture(scope="module")
def actions(tiny: CausalPolicy) -> list[Action]:
    """Siblings of several prompts, of unequal length, under two distributions."""
    asked = [
        Request(Observation(prompt, max_tokens=3 + i), distribution, 10 * number + i)
        for number, prompt in enumerate(["Anna lives in Rome and", "Memories:", "x" * 30])
        for i, distribution in enumerate([Distribution(), NARROW, Distribution(), NARROW, Distribution()])
    ]
    return tiny.sample(asked)


def units(actions: Sequence[Action]) -> list[Unit]:
    """With advantages of both signs, weights that differ, and old log-probabilities for which some are clipped."""
    return [
        Unit(
            replace(action, logprobs=tuple(p - 0.15 * (i % 3) for p in action.logprobs)),
            (-1.0) ** i * (0.5 + i % 3),
            1.0 / (50 + i),
        )
        for i, action in enumerate(actions)
    ]


def gradient(
    policy: CausalPolicy, given: Sequence[Unit], *, budget: int = 300, share: bool = True
) -> tuple[float, torch.Tensor]:
    """Loss and gradient."""
    policy.model.zero_grad()
    total = 0.0
    for batch in pack(given, budget=budget, share=share):
        loss, _ = policy_loss(policy.score(batch), batch, Clip())
        loss.backward()
        total += float(loss.detach())
    found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in policy.parameters()]
    return total, torch.cat([g.flatten() for g in found])


def near(first: tuple[float, torch.Tensor], second: tuple[float, torch.Tensor]) -> bool:
    same_loss = first[0] == pytest.approx(second[0], rel=1e-5)
    return same_loss and float((first[1] - second[1]).norm() / second[1].norm()) < 1e-5


class TestSharing:
    def test_shared_rows_give_the_loss_and_gradient_of_plain_rows(
        self, tiny: CausalPolicy, actions: list[Action]
    ) -> None:
        shared = gradient(tiny, units(actions))
        plain = gradient(tiny, units(actions), share=False)
        assert near(shared, plain)

    def test_a_shared_row_costs_its_prompt_once(self, actions: list[Action]) -> None:
        shared, plain = pack(units(actions), budget=1), pack(units(actions), budget=1, share=False)
        size = lambda batches: sum(batch.tokens.size for batch in batches)  # noqa: E731
        tokens = sum(len(a.tokens) for a in actions)
        assert size(shared) == tokens + len("Anna lives in Rome and") + len("Memories:") + 30
        assert size(plain) == tokens + 5 * (len("Anna lives in Rome and") + len("Memories:") + 30)
        assert len(shared) == 3 and len(plain) == 15

    def test_plain_rows_are_known_as_such(self, actions: list[Action]) -> None:
        assert all(batch.plain for batch in pack(units(actions), budget=300, share=False))
        assert not any(batch.plain for batch in pack(units(actions), budget=300))

    def test_a_branch_sees_the_prompt_and_itself(self, actions: list[Action]) -> None:
        (batch,) = pack(units(actions[:5]), budget=300)
        allowed, segment = batch.attention()[0], batch.segment[0]
        prompt = len(actions[0].prompt)
        for place in range(len(segment)):
            seen = np.flatnonzero(allowed[place])
            assert place in seen and seen.max() == place
            assert set(segment[seen]) <= {0, segment[place]}
            assert (seen < prompt).sum() == min(prompt, place + 1)
            assert batch.positions[0, place] == len(seen) - 1

    def test_equal_prompts_merge_and_others_never(self, actions: list[Action]) -> None:
        rows = pack(units(actions), budget=10_000)
        assert [batch.tokens.shape[0] for batch in rows] == [3]
        assert [int(s.max()) for s in rows[0].segment] == [5, 5, 5]


class TestInvariance:
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(order=st.permutations(range(15)), budget=st.sampled_from([1, 40, 90, 200, 10_000]), share=st.booleans())
    def test_neither_order_nor_budget_changes_anything(
        self, tiny: CausalPolicy, actions: list[Action], order: list[int], budget: int, share: bool
    ) -> None:
        all_units = units(actions)
        expected = gradient(tiny, all_units)
        found = gradient(tiny, [all_units[i] for i in order], budget=budget, share=share)
        assert near(found, expected)

    def test_packing_the_same_units_gives_the_same_rows(self, actions: list[Action]) -> None:
        first, second = (pack(units(actions), budget=90) for _ in range(2))
        assert len(first) == len(second)
        assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(first, second, strict=True))

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2), st.integers(0, 5)), max_size=12), st.integers(1, 60)
    )
    def test_every_token_is_there_once_and_batches_keep_the_budget(
        self, shapes: list[tuple[int, int, int]], budget: int
    ) -> None:
        made = [
            Unit(Action("", (kind + 1,) * prompt, (7,) * count, (-1.0,) * count), float(i), 1.0 + i)
            for i, (prompt, kind, count) in enumerate(shapes)
        ]
        batches = pack(made, budget=budget)
        assert sum(len(b.targets) for b in batches) == sum(count for _, _, count in shapes)
        carried = [u for u in made if u.action.tokens]
        total = sum(u.advantage * u.weight * len(u.action.tokens) for u in carried)
        assert sum(float((b.advantage * b.weight).sum()) for b in batches) == pytest.approx(total, rel=1e-5)
        for batch in batches:
            assert batch.tokens.size <= budget or len(batch.tokens) == 1
            predicted = batch.positions[batch.target_row, batch.target_from]
            lengths = (batch.segment == 0).sum(1)[batch.target_row]
            assert (predicted >= lengths - 1).all()


class TestWhatCarriesLoss:
    def test_actions_without_tokens_or_weight_contribute_nothing(
        self, tiny: CausalPolicy, actions: list[Action]
    ) -> None:
        kept = units(actions[:4])
        empty = Action("", actions[0].prompt)
        more = [*kept, Unit(empty, 5.0, 1.0), Unit(actions[5], 5.0, 0.0), Unit(actions[1], 0.0, 0.1)]
        assert near(gradient(tiny, more), gradient(tiny, kept))
        assert pack([Unit(empty, 1.0, 1.0), Unit(actions[0], 1.0, 0.0)], budget=100) == []
        assert pack([], budget=100) == []

    def test_spans_that_a_tool_wrote_carry_no_loss(self, tiny: CausalPolicy, actions: list[Action]) -> None:
        action = actions[4]
        count = len(action.tokens)
        assert count == 7
        spans = (Span(0, 2), Span(2, 5, Author.TOOL), Span(5, 6, Author.ENVIRONMENT), Span(6, 7))
        marked = replace(action, spans=spans)
        (batch,) = pack([Unit(marked, 1.0, 0.5)], budget=100)
        (whole,) = pack([Unit(action, 1.0, 0.5)], budget=100)
        mine = [0, 1, 6]
        assert batch.targets.tolist() == [action.tokens[i] for i in mine]
        assert batch.tokens.tolist() == whole.tokens.tolist()  # a tool's tokens are seen all the same
        with torch.no_grad():
            assert torch.allclose(tiny.score(batch), tiny.score(whole)[mine], atol=1e-6)
        assert Decision("r", "p", Observation(""), marked).policy_tokens == 3

    def test_tokens_that_a_tool_wrote_change_the_gradient_only_as_context(
        self, tiny: CausalPolicy, actions: list[Action]
    ) -> None:
        """The sum over the policy's tokens alone is what the loss is."""
        action = replace(actions[4], spans=(Span(0, 3), Span(3, 7, Author.TOOL)))
        cut = replace(actions[4], tokens=action.tokens[:3], logprobs=action.logprobs[:3])
        assert near(gradient(tiny, [Unit(action, 1.0, 0.1)]), gradient(tiny, [Unit(cut, 1.0, 0.1)]))

    def test_imitation_is_the_weighted_likelihood(self, tiny: CausalPolicy) -> None:
        action = tiny.encode(Observation("Where?"), "Rome")
        (batch,) = pack([Unit(action, 1.0, 0.2)], budget=100)
        with torch.no_grad():
            logp = tiny.score(batch)
            loss, facts = imitation_loss(logp, batch)
            ids = torch.tensor([action.prompt + action.tokens])
            every = torch.log_softmax(tiny.model(ids).logits[0], -1)
        start = len(action.prompt) - 1
        plain = sum(float(every[start + i, t]) for i, t in enumerate(action.tokens))
        assert float(loss) == pytest.approx(-0.2 * plain, rel=1e-5) == facts["nll"]
