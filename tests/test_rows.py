"""Merging decisions into rows changes what is computed, never what comes out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memorist.decision import Action, Author, Decision, Distribution, Media, Observation, Span  # noqa: E402
from memorist.errors import PolicyError  # noqa: E402
from memorist.models.causal import CausalPolicy  # noqa: E402
from memorist.models.rows import Unit, pack  # noqa: E402
from memorist.models.sampler import Request  # noqa: E402
from memorist.training.objective import imitation_loss, policy_loss  # noqa: E402

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
    policy: CausalPolicy, given: Sequence[Unit], *, budget: int = 300, share: bool = True, pairs: float = math.inf
) -> tuple[float, torch.Tensor]:
    """Loss and gradient."""
    policy.model.zero_grad()
    total = 0.0
    for batch in pack(given, budget=budget, share=share, pairs=pairs):
        loss, _ = policy_loss(policy.score(batch), batch)
        loss.backward()
        total += float(loss.detach())
    found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in policy.parameters()]
    return total, torch.cat([g.flatten() for g in found])


def near(first: tuple[float, torch.Tensor], second: tuple[float, torch.Tensor]) -> bool:
    # Where units nearly cancel, what is left is smaller than the rounding of its parts.
    same_loss = first[0] == pytest.approx(second[0], rel=1e-5, abs=1e-6)
    return same_loss and float((first[1] - second[1]).norm()) <= 1e-5 * max(float(second[1].norm()), 0.1)


def siblings(prompts: list[tuple[int, ...]], completions: list[tuple[int, ...]]) -> list[Unit]:
    return [
        Unit(Action("", prompt, tokens, (-1.0,) * len(tokens)), 1.0, 1.0)
        for prompt in prompts
        for tokens in completions
    ]


def sizes(batches: Sequence[Any]) -> list[int]:
    """Tokens of every row, without padding."""
    return sorted(int(length) for batch in batches for length in batch.length)


class TestSharing:
    def test_shared_rows_give_the_loss_and_gradient_of_plain_rows(
        self, tiny: CausalPolicy, actions: list[Action]
    ) -> None:
        shared = gradient(tiny, units(actions))
        plain = gradient(tiny, units(actions), share=False)
        assert near(shared, plain)

    def test_a_shared_row_costs_what_is_common_once(self) -> None:
        made = siblings([(1, 2, 3)], [(4, 5), (4, 6), (7,)]) + siblings([(8, 9)], [(1,), (1,)])
        assert sizes(pack(made, budget=8)) == [3, 7]
        assert sizes(pack(made, budget=1, share=False)) == [3, 3, 4, 5, 5]
        # A row that would not fit the budget is begun anew, with its prompt once more.
        assert sizes(pack(made, budget=6)) == [3, 4, 6]

    def test_a_decision_whose_prompt_extends_an_earlier_one_is_on_the_same_path(self) -> None:
        """Three turns of one window: nothing is computed twice, and the row needs no mask."""
        window, made = (1, 2, 3), []
        for turn in range(3):
            action = Action("", window, (10 + turn, 20), (-1.0, -1.0))
            made.append(Unit(action, 1.0, 1.0))
            window = (*window, *action.tokens, 30 + turn)
        [batch] = pack(made, budget=100)
        assert batch.tokens.tolist() == [[1, 2, 3, 10, 20, 30, 11, 20, 31, 12, 20]] and batch.plain
        assert batch.target_from.tolist() == [2, 3, 5, 6, 8, 9]
        assert batch.targets.tolist() == [10, 20, 11, 20, 12, 20]

    def test_what_is_merged_is_worth_the_pairs_of_a_dense_mask(self) -> None:
        common, long = (1, 2), tuple(range(50, 90))
        made = siblings([(*common, 3, *long), (*common, 4, *long)], [(5,)])
        assert sizes(pack(made, budget=1000)) == [86]
        assert sizes(pack(made, budget=1000, pairs=100)) == [44, 44]  # 2 tokens saved, 3,524 pairs more
        assert sizes(pack(made, budget=1000, pairs=1762)) == [86]

    def test_plain_rows_are_known_as_such(self, actions: list[Action]) -> None:
        assert all(batch.plain for batch in pack(units(actions), budget=300, share=False))
        assert not any(batch.plain for batch in pack(units(actions), budget=300))

    def test_a_token_sees_its_path_and_nothing_else(self) -> None:
        #            1 - 2 - 3 - 4        columns 0 1 2 3
        #                 \\ 5 - 6         columns 4 5
        #                      \\ 7        column 6
        made = siblings([(1, 2)], [(3, 4), (5, 6), (5, 7)])
        [batch] = pack(made, budget=100)
        assert batch.tokens.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
        assert batch.positions.tolist() == [[0, 1, 2, 3, 2, 3, 3]]
        seen = [set(np.flatnonzero(row)) for row in batch.attention()[0]]
        assert seen == [{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}, {0, 1, 4}, {0, 1, 4, 5}, {0, 1, 4, 6}]
        near_by = [set(np.flatnonzero(row)) for row in batch.attention(window=2)[0]]
        assert near_by == [{0}, {0, 1}, {1, 2}, {2, 3}, {1, 4}, {4, 5}, {4, 6}]

    def test_equal_prompts_merge_and_others_only_in_what_they_share(self, actions: list[Action]) -> None:
        [batch] = pack(units(actions), budget=10_000)
        together = {unit.action.prompt + unit.action.tokens for unit in units(actions)}
        nodes = {sequence[:end] for sequence in together for end in range(1, len(sequence) + 1)}
        assert int(batch.length.sum()) == len(nodes)


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
            assert batch.tokens.size <= budget or (len(batch.tokens) == 1 and batch.plain)


@st.composite
def walks(draw: Any) -> list[list[Unit]]:
    """Trajectories whose windows extend, branch, are rewritten, or repeat; few ids, so that much is common."""
    ids = st.integers(3, 6)
    found = []
    for _ in range(draw(st.integers(1, 4))):
        window = tuple(draw(st.lists(ids, min_size=1, max_size=4)))
        trajectory = []
        for _ in range(draw(st.integers(1, 4))):
            tokens = tuple(draw(st.lists(ids, min_size=1, max_size=4)))
            old = tuple(draw(st.lists(st.floats(-8, -3), min_size=len(tokens), max_size=len(tokens))))
            trajectory.append(Unit(Action("", window, tokens, old), draw(st.sampled_from([-1.0, 0.5, 2.0])), 0.1))
            seen = tuple(draw(st.lists(ids, max_size=3)))
            window = (*window, *tokens, *seen) if draw(st.booleans()) else (*window[:2], *seen, 3)
        found.append(trajectory)
    return found


class TestPictures:
    """Placeholders have equal ids whatever they show."""

    def seen(self, digest: str, *tail: int) -> Unit:
        media = (Media(1, 4, digest),) if digest else ()
        return Unit(Action("", (5, 9, 9, 9, 6), (7, *tail), (-1.0,) * (1 + len(tail)), media=media), 1.0, 1.0)

    def tokens(self, *units: Unit) -> int:
        return sum(int(batch.length.sum()) for batch in pack(units, budget=1000))

    def test_two_that_show_different_things_are_not_merged(self) -> None:
        assert self.tokens(self.seen("cat", 1), self.seen("dog", 2)) == 7 + 6  # all but the token before the picture
        assert self.tokens(self.seen("cat", 1), self.seen("", 2)) == 7 + 6

    def test_the_same_one_is_computed_once(self) -> None:
        assert self.tokens(self.seen("cat", 1), self.seen("cat", 2)) == 7 + 1

    def test_rows_hold_the_tokens_themselves(self) -> None:
        (batch,) = pack([self.seen("cat", 1), self.seen("dog", 2)], budget=1000)
        assert sorted(batch.tokens[0].tolist()) == sorted([5, 9, 9, 9, 6, 7, 1, 9, 9, 9, 6, 7, 2])

    def test_a_policy_that_reads_text_refuses_them(self, tiny: CausalPolicy) -> None:
        (batch,) = pack([self.seen("cat", 1)], budget=1000)
        with pytest.raises(PolicyError, match="saw pictures"):
            tiny.score(batch)


class TestTrees:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(walks(), st.sampled_from([8, 30, 1000]), st.sampled_from([0.0, 5.0, float("inf")]))
    def test_any_tree_gives_the_loss_and_gradient_of_a_row_for_each_decision(
        self, tiny: CausalPolicy, trajectories: list[list[Unit]], budget: int, pairs: float
    ) -> None:
        made = [unit for trajectory in trajectories for unit in trajectory]
        merged = gradient(tiny, made, budget=budget, pairs=pairs)
        assert near(merged, gradient(tiny, made, share=False))

    @settings(max_examples=100, deadline=None)
    @given(walks(), st.integers(1, 40))
    def test_each_target_is_predicted_from_its_own_path(self, trajectories: list[list[Unit]], budget: int) -> None:
        made = [unit for trajectory in trajectories for unit in trajectory]
        expected = Counter(
            ((*u.action.prompt, *u.action.tokens[:i]), token, float(np.float32(u.action.logprobs[i])), u.advantage)
            for u in made
            for i, token in enumerate(u.action.tokens)
        )
        found: Counter[Any] = Counter()
        for batch in pack(made, budget=budget):
            allowed = batch.attention()
            for n, (row, column) in enumerate(zip(batch.target_row, batch.target_from, strict=True)):
                seen = allowed[row, column]
                assert batch.positions[row][seen].tolist() == list(range(int(seen.sum())))
                path = tuple(batch.tokens[row][seen].tolist())
                found[(path, int(batch.targets[n]), float(batch.old[n]), float(batch.advantage[n]))] += 1
        assert found == expected


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
