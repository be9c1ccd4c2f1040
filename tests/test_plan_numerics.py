"""FP8 tiles and blocks, LogFMT and node-limited routing, against the paper's examples and torch's own FP8."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memorist.errors import PlanError
from memorist.fit.plan.numerics import (
    BF16,
    E4M3,
    E5M2,
    dequantise,
    fp8_matmul,
    logfmt_decode,
    logfmt_encode,
    quantise,
    relative_error,
    round_to,
    unpromoted,
)
from memorist.fit.plan.routing import expected_nodes, route

NORMAL = np.random.default_rng(0).standard_normal((4, 256))


def heavy_tailed() -> np.ndarray:
    """As outputs of residual branches: tokens of unequal size, few large values. Shape (64, 128)."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((64, 128)) * rng.lognormal(0, 1, (64, 128))


def floats(shape: tuple[int, int]) -> st.SearchStrategy[np.ndarray]:
    sizes = st.floats(1e-20, 1e20) | st.just(0.0)
    return arrays(np.float64, shape, elements=sizes | sizes.map(lambda x: -x))


class TestFP8:
    @pytest.mark.parametrize(("form", "name"), [(E4M3, "float8_e4m3fn"), (E5M2, "float8_e5m2"), (BF16, "bfloat16")])
    def test_rounding_is_that_of_torch(self, form: object, name: str) -> None:
        torch = pytest.importorskip("torch")
        values = np.concatenate([NORMAL.ravel() * 10.0**k for k in range(-9, 2)]).astype(np.float32)
        theirs = torch.from_numpy(values).to(getattr(torch, name)).float().numpy()
        assert np.array_equal(round_to(values, form), theirs)  # type: ignore[arg-type]

    def test_the_tile_of_the_spec(self) -> None:
        tile = np.array([[896.0, 1.0, -3.3, 0.001]])
        quantised, scales = quantise(tile)
        assert scales.tolist() == [[2.0]]
        assert quantised.tolist() == [[448.0, 0.5, -1.625, 0.0]]
        assert dequantise(quantised, scales).tolist() == [[896.0, 1.0, -3.25, 0.0]]

    def test_small_tiles_confine_an_outlier(self) -> None:
        values = NORMAL[:, :].copy()
        values[0, 5] = 1e5
        others = np.ones(values.shape, bool)
        others[0, 5] = False

        def error(block: tuple[int, int]) -> float:
            back = dequantise(*quantise(values, block=block), block=block)
            return relative_error(back[others], values[others])

        assert error((1, 128)) < error((4, 256)) / 2

    def test_blocks_have_their_own_scales_and_uneven_ends(self) -> None:
        quantised, scales = quantise(np.arange(1, 301.0).reshape(2, 150), block=(128, 128))
        assert scales.shape == (1, 2)
        assert scales[0, 1] == 300 / 448
        assert np.abs(quantised).max() == 448

    @settings(max_examples=25)
    @given(floats((1, 130)))
    def test_an_error_is_at_most_half_a_step_of_its_tile(self, values: np.ndarray) -> None:
        quantised, scales = quantise(values)
        wide = np.repeat(scales, 128, axis=1)[:, : values.shape[1]]
        back = dequantise(quantised, scales)
        # Half of 1/8 of the value's power of two, or half of the smallest step.
        assert (np.abs(back - values) <= np.maximum(np.abs(values) / 16, wide * 2.0**-10) * (1 + 1e-12)).all()

    def test_zeros_stay_zeros(self) -> None:
        quantised, scales = quantise(np.zeros((1, 4)))
        assert not quantised.any()
        assert scales.tolist() == [[1.0]]

    def test_the_product_is_that_of_the_quantised_matrices(self) -> None:
        rng = np.random.default_rng(2)
        left, right = rng.standard_normal((3, 300)), rng.standard_normal((300, 140))
        expected = dequantise(*quantise(left)) @ dequantise(*quantise(right, block=(128, 128)), block=(128, 128))
        assert np.allclose(fp8_matmul(left, right), expected, atol=1e-9)
        assert 0.01 < relative_error(fp8_matmul(left, right), left @ right) < 0.05

    def test_promoting_every_128_saves_what_13_bits_lose(self) -> None:
        # All products positive: the sum grows, and a short accumulator drops more and more of each product.
        rng = np.random.default_rng(3)
        left, right = round_to(rng.random((2, 4096)), E4M3), round_to(rng.random((4096, 2)), E4M3)
        exact = left @ right
        short = relative_error(unpromoted(left, right), exact)
        ours = fp8_matmul(left, right, fraction_bits=13)
        promoted = relative_error(ours, fp8_matmul(left, right))
        assert short > 5 * promoted
        assert short > 0.005

    def test_more_accumulator_bits_are_no_worse(self) -> None:
        rng = np.random.default_rng(4)
        left, right = rng.random((2, 512)), rng.random((512, 2))
        errors = [relative_error(unpromoted(left, right, bits), left @ right) for bits in (8, 13, 23)]
        assert errors[0] > errors[1] > errors[2]


class TestLogFMT:
    def test_the_examples_of_the_spec(self) -> None:
        codes, scale = logfmt_encode([1.0, 2.0, 4.0, -8.0, 0.0], bits=4)
        assert codes.tolist() == [1, 3, 5, -7, 0]
        assert np.allclose(logfmt_decode(codes, scale), [1, 2, 4, -8, 0], rtol=1e-12)
        codes, scale = logfmt_encode([0.5, -1.5, 100.0, 0.0], bits=8)
        assert codes.tolist() == [1, -27, 127, 0]
        assert logfmt_decode(codes, scale)[1] == pytest.approx(-1.492058, abs=1e-6)

    def test_rounding_is_linear_not_logarithmic(self) -> None:
        # Of the neighbours 1 and √2, 1.2 is nearer to 1, and its logarithm to that of √2.
        values = [1.0, 1.2, 8.0]
        assert logfmt_decode(*logfmt_encode(values, bits=4))[1] == pytest.approx(1.0)
        assert logfmt_decode(*logfmt_encode(values, bits=4, linear=False))[1] == pytest.approx(1.414214, abs=1e-6)

    def test_linear_rounding_keeps_the_mean(self) -> None:
        values = np.random.default_rng(5).uniform(1, 20, (200, 128))
        bias = {
            linear: abs(logfmt_decode(*logfmt_encode(values, 5, linear=linear)).mean() / values.mean() - 1)
            for linear in (True, False)
        }
        assert bias[True] < bias[False] / 3

    def test_eight_bits_beat_fp8_and_ten_come_near_bf16(self) -> None:
        """Section 3.2's comparison, as error of the values; the paper's is of trained models."""
        values = heavy_tailed()
        errors = {bits: relative_error(logfmt_decode(*logfmt_encode(values, bits)), values) for bits in (6, 8, 10)}
        fp8 = {form: relative_error(dequantise(*quantise(values, form)), values) for form in (E4M3, E5M2)}
        assert errors[8] < fp8[E4M3] < fp8[E5M2]
        assert errors[10] < errors[8] / 3.5 < errors[6]
        assert errors[10] < 3 * relative_error(round_to(values, BF16), values)

    @given(floats((2, 9)), st.integers(3, 10))
    def test_signs_zeros_and_the_largest_survive(self, values: np.ndarray, bits: int) -> None:
        codes, scale = logfmt_encode(values, bits)
        back = logfmt_decode(codes, scale)
        assert (np.sign(back) == np.sign(values)).all()
        assert np.abs(codes).max() <= 2 ** (bits - 1) - 1
        assert np.allclose(np.abs(back).max(axis=1), np.abs(values).max(axis=1), rtol=1e-9)

    def test_what_is_too_small_becomes_the_least_magnitude(self) -> None:
        codes, scale = logfmt_encode([1e-30, 1.0], bits=8)
        assert codes.tolist() == [1, 127]
        assert logfmt_decode(codes, scale)[0] == pytest.approx(2.0**-32)

    def test_equal_magnitudes_have_one_code(self) -> None:
        codes, scale = logfmt_encode([3.0, -3.0], bits=8)
        assert codes.tolist() == [1, -1]
        assert np.allclose(logfmt_decode(codes, scale), [3, -3])

    def test_two_bits_are_refused(self) -> None:
        with pytest.raises(PlanError, match="LogFMT with 2 bits: expected 3 or more"):
            logfmt_encode([1.0], bits=2)


class TestRouting:
    def test_eight_random_experts_would_touch_five_nodes(self) -> None:
        assert expected_nodes(256, 8, 8) == pytest.approx(5.295, abs=5e-4)
        scores = np.random.default_rng(6).random((2000, 256))
        free = np.argsort(-scores, axis=1)[:, :8] // 32
        mean = np.mean([len(set(row)) for row in free])
        assert mean == pytest.approx(expected_nodes(256, 8, 8), abs=0.05)

    @given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 4))
    def test_no_token_visits_more_nodes_than_allowed(self, seed: int, nodes: int, k: int) -> None:
        scores = np.random.default_rng(seed).random((5, 32))
        chosen = route(scores, groups=8, nodes=nodes, k=k)
        assert chosen.shape == (5, k)
        for row, token in zip(chosen, scores, strict=True):
            assert len(set(row // 4)) <= nodes
            assert len(set(row)) == k
            assert (np.diff(token[row]) <= 0).all()

    def test_with_all_nodes_it_is_the_plain_best(self) -> None:
        scores = np.random.default_rng(7).random((10, 64))
        assert np.array_equal(route(scores, groups=8, nodes=8, k=6), np.argsort(-scores, axis=1)[:, :6])

    def test_a_group_counts_by_its_two_best(self) -> None:
        scores = [[0.9, 0.0, 0.0, 0.5, 0.5, 0.5]]
        assert route(scores, groups=2, nodes=1, k=2).tolist() == [[3, 4]]

    def test_the_bias_moves_the_choice(self) -> None:
        assert route([[0.9, 0.1]], groups=2, nodes=1, k=1, bias=[0, 1.0]).tolist() == [[1]]

    @pytest.mark.parametrize("wrong", [{"groups": 3}, {"nodes": 0}, {"nodes": 5}, {"k": 3, "nodes": 1}, {"k": 0}])
    def test_what_cannot_be_routed_is_refused(self, wrong: dict[str, int]) -> None:
        with pytest.raises(PlanError, match="expected"):
            route(np.ones((1, 8)), **({"groups": 4, "nodes": 2, "k": 2} | wrong))
