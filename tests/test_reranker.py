"""RMM's reranker: the spec's vectors, the law against counting, gradients against differences, learning from
citations."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memorist.decision import Distribution, Observation
from memorist.errors import PolicyError, RecipeError
from memorist.memory.embed import HashedEmbedder
from memorist.models.reranker import LinearReranker, draw, gumbel, law, literal, open_reranker, score_gradient
from memorist.models.sampler import Request

Q = np.array([1.0, 0.0])
M = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
VECTOR_1 = np.array([1.10, 0.45, 1.02])


def small(tau: float = 1.0) -> LinearReranker:
    """In two dimensions."""
    return LinearReranker(HashedEmbedder(2), tau=tau)


def trained() -> LinearReranker:
    made = small()
    made.query, made.memory = np.array([[0, 0.5], [0.5, 0]]), np.diag([0.1, -0.1])
    return made


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum()


class TestTheSpecsVectors:
    def test_1_scores(self) -> None:
        s = trained().scores(Q, M)
        assert s == pytest.approx(VECTOR_1)
        assert softmax(s / 0.5) == pytest.approx([0.470660, 0.128270, 0.401070], abs=1e-6)

    def test_2_noise_and_the_literal_probabilities(self) -> None:
        noise = gumbel(np.array([0.5, 0.9, 0.2]))
        assert noise == pytest.approx([0.366513, 2.250367, -0.475885], abs=1e-6)
        assert VECTOR_1 + noise == pytest.approx([1.466513, 2.700367, 0.544115], abs=1e-6)
        assert draw(VECTOR_1 + noise, 2, None) == (1, 0)
        assert literal(VECTOR_1, noise) == pytest.approx([0.077200, 0.910599, 0.012202], abs=1e-6)

    @pytest.mark.parametrize(
        ("order", "wanted"),
        [((0, 2), 0.261236), ((2, 0), 0.248040), ((0, 1), 0.147735), ((2, 1), 0.129488), ((1, 0), 0.111019),
         ((1, 2), 0.102483)],
    )  # fmt: skip
    def test_3_the_law(self, order: tuple[int, ...], wanted: float) -> None:
        assert np.exp(law(VECTOR_1, order).sum()) == pytest.approx(wanted, abs=1e-6)

    @pytest.mark.parametrize(
        ("how", "tau", "by_score", "by_query", "by_memory", "after"),
        [
            ("per-step", 1.0, [0.254685, -1.058731, 0.804045], [0.737113, -0.415494], [0.737113, -0.415494],
             [1.001475, -0.000831, 0.600220]),
            ("factorised", 1.0, [0.990629, -1.319508, 0.328879], [1.187956, -1.056405], [1.187956, -1.056405],
             [1.002377, -0.002114, 0.599735]),
            ("set-mean", 1.0, [-0.254685, -0.232582, 0.487267], None, None, None),
            ("per-step", 0.5, None, [1.582167, -0.773357], None, None),
        ],
    )  # fmt: skip
    def test_4_gradients(self, how, tau, by_score, by_query, by_memory, after) -> None:  # type: ignore[no-untyped-def]
        made, weights = small(tau), [1 - 0.5, -1 - 0.5]
        z = made.scores(Q, M) / tau
        assert softmax(z) == pytest.approx([0.490629, 0.180492, 0.328879], abs=1e-6) or tau != 1
        if by_score:
            assert score_gradient(z, (0, 1), weights, how) == pytest.approx(by_score, abs=1e-6)
        query, memory = made.gradient(Q, M, (0, 1), weights, how)
        if by_query:
            assert query == pytest.approx(np.array([[by_query[0], 0], [by_query[1], 0]]), abs=1e-6)
        if by_memory:
            assert memory == pytest.approx(np.array([by_memory, [0, 0]]), abs=1e-6)
        if after:
            made.query, made.memory = 1e-3 * query, 1e-3 * memory
            assert made.scores(Q, M) == pytest.approx(after, abs=1e-6)

    def test_5_advantages(self) -> None:
        for cited, wanted in ((0.2, -1.1), (0.4, -0.7)):
            assert cited * (1 - 0.5) + (1 - cited) * (-1 - 0.5) == pytest.approx(wanted)

    def test_8_of_fewer_than_asked_for_all_are_taken(self) -> None:
        order = draw(VECTOR_1, 5, np.random.default_rng(0))
        assert sorted(order) == [0, 1, 2]
        assert law(VECTOR_1, order)[-1] == 0


@given(hnp.arrays(np.float64, st.integers(1, 4), elements=st.floats(-3, 3)))
def test_the_law_sums_to_one(z: np.ndarray) -> None:
    for count in range(1, len(z) + 1):
        assert sum(np.exp(law(z, order).sum()) for order in permutations(range(len(z)), count)) == pytest.approx(1)


def test_draws_follow_the_law() -> None:
    rng, counts = np.random.default_rng(0), dict.fromkeys(permutations(range(3), 2), 0)
    for _ in range(20_000):
        counts[draw(VECTOR_1, 2, rng)] += 1
    for order, count in counts.items():
        assert count / 20_000 == pytest.approx(np.exp(law(VECTOR_1, order).sum()), abs=0.012)


@pytest.mark.parametrize("how", ["per-step", "factorised"])
def test_gradients_are_those_of_central_differences(how: str) -> None:
    rng = np.random.default_rng(1)
    made = LinearReranker(HashedEmbedder(3), tau=0.7)
    made.query, made.memory = rng.normal(size=(2, 3, 3)) * 0.3
    q, m, order, weights = rng.normal(size=3), rng.normal(size=(5, 3)), (3, 0, 4), (0.5, -1.5, 0.2)

    def value() -> float:
        z = made.scores(q, m) / made.tau
        alone = z - np.log(np.exp(z).sum())
        found = law(z, order) if how == "per-step" else alone[list(order)]
        return float(np.dot(weights, found))

    for weight, gradient in zip((made.query, made.memory), made.gradient(q, m, order, weights, how), strict=True):
        for place in np.ndindex(3, 3):
            weight[place] += 1e-5
            above = value()
            weight[place] -= 2e-5
            below = value()
            weight[place] += 1e-5
            assert gradient[place] == pytest.approx((above - below) / 2e-5, abs=1e-6)


def ask(made: LinearReranker, options: tuple[str, ...], choose: int, *, seed: int = 0, temperature: float = 1.0):  # type: ignore[no-untyped-def]
    seen = Observation("what does Anna drink?", options=options, choose=choose)
    return made.sample([Request(seen, Distribution(temperature), seed)])[0]


class TestActing:
    options = ("Anna drinks tea", "Ben has a dog", "Anna lives in Rome")

    def test_untrained_and_greedy_it_keeps_the_retrievers_order(self) -> None:
        made = LinearReranker(HashedEmbedder())
        vectors = made.vectors(["what does Anna drink?", *self.options])
        assert ask(made, self.options, 3, temperature=0).choice == tuple(np.argsort(-(vectors[1:] @ vectors[0])))

    def test_what_it_drew_has_its_log_probability(self) -> None:
        made = LinearReranker(HashedEmbedder(), tau=0.2)
        action = ask(made, self.options, 2)
        vectors = made.vectors(["what does Anna drink?", *self.options])
        z = made.scores(vectors[0], vectors[1:]) / 0.2
        assert action.logprobs == pytest.approx(tuple(law(z, action.choice)))
        assert action == ask(made, self.options, 2)

    def test_of_nothing_nothing_is_chosen(self) -> None:
        assert ask(LinearReranker(HashedEmbedder()), (), 2).choice == ()


def test_the_cited_share_rises_where_needs_are_not_what_is_similar() -> None:
    # Somebody whose answers lie in what is said of a dog, whatever is asked.
    made = LinearReranker(HashedEmbedder(64), tau=0.2)
    rng = np.random.default_rng(0)
    things = ["tea", "chess", "maps", "boats", "jazz", "bread", "rain", "stars"]
    shares = []
    for _ in range(150):
        batch = []
        for _ in range(4):
            thing = str(rng.choice(things))
            options = tuple(f"the dog likes {one}" if i == 3 else f"Anna and {one}" for i, one in enumerate(things))
            seen = Observation(f"Anna and {thing}?", options=options, choose=2)
            action = made.sample([Request(seen, Distribution(), int(rng.integers(1 << 30)))])[0]
            cited = [1.0 if "dog" in options[i] else -1.0 for i in action.choice]
            shares.append(np.mean([c > 0 for c in cited]))
            batch.append((seen.prompt, options, action.choice, cited))
        made.learn(batch, rate=0.05, baseline=-0.5)
    assert np.mean(shares[:12]) < 0.3
    assert np.mean(shares[-100:]) > 0.45  # one of two is the dog's: 0.5 is all there is


class TestFiles:
    def test_what_is_saved_is_read_again(self, tmp_path: Path) -> None:
        made = LinearReranker(HashedEmbedder(16), tau=0.3)
        made.query += 0.5
        made.save(tmp_path / "mine")
        again = LinearReranker.load(tmp_path / "mine")
        assert (again.query == made.query).all()
        assert (again.tau, again.name, again.embedder.name) == (0.3, "mine", made.embedder.name)

    def test_what_is_none_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "reranker.npz").write_bytes(b"nothing of the kind")
        for folder in (tmp_path, tmp_path / "not-there"):
            with pytest.raises(PolicyError, match=r"reranker\.npz"):
                LinearReranker.load(folder)

    def test_weights_of_another_size_are_refused(self, tmp_path: Path) -> None:
        LinearReranker(HashedEmbedder(16)).save(tmp_path)
        with pytest.raises(PolicyError, match=r"\(16, 16\)"):
            LinearReranker.load(tmp_path, HashedEmbedder(8))

    def test_a_temperature_is_a_number(self) -> None:
        with pytest.raises(PolicyError, match="'warm' is no number"):
            open_reranker("linear@warm")


def test_bad_steps_leave_the_weights() -> None:
    made = LinearReranker(HashedEmbedder(8))
    with pytest.raises(PolicyError, match="finite numbers"):
        made.learn([("a", ("b", "c"), (0,), (float("inf"),))])
    assert not made.query.any()
    with pytest.raises(RecipeError, match="per-step"):
        made.learn([("a", ("b", "c"), (0,), (1.0,))], how="per-set")
    made.learn([])
