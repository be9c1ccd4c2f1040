"""Low-precision number formats of DeepSeek-V3 as reference functions: FP8 in tiles and blocks, LogFMT.

Written to be checked against, not to be fast: values are rounded as the format would round them and handed back as
float64. Sources: "Insights into DeepSeek-V3" (arXiv 2505.09343) sections 3.1 and 3.2, and the DeepSeek-V3 report
(arXiv 2412.19437) section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from memorist.errors import PlanError

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

TILE = 128
"""Values along the last axis that share one scale."""
ALIGNED = 32
"""Products that Hopper's tensor cores align to their largest exponent and add at once (section 3.1.1)."""


@dataclass(frozen=True, slots=True)
class Format:
    """A binary floating-point format: explicit fraction bits, exponent of the smallest normal, largest value."""

    fraction_bits: int
    least_exponent: int
    largest: float


E4M3 = Format(3, -6, 448.0)
E5M2 = Format(2, -14, 57344.0)
BF16 = Format(7, -126, 3.3895313892515355e38)


def round_to(values: Any, form: Format) -> Floats:
    """The nearest values of a format, ties to even; what is too large becomes the largest."""
    given = np.asarray(values, np.float64)
    exponent = np.maximum(np.frexp(given)[1] - 1, form.least_exponent)
    step = np.ldexp(1.0, exponent - form.fraction_bits)
    return np.clip(np.rint(given / step) * step, -form.largest, form.largest)


def quantise(values: Any, form: Format = E4M3, block: tuple[int, int] = (1, TILE)) -> tuple[Floats, Floats]:
    """A matrix in blocks that share a scale: 1 × 128 for activations, 128 × 128 for weights.

    The scale is the block's largest magnitude over the format's largest value, computed from the data at hand.

    Args:
        values: shape (R, C); the last blocks may be smaller.
        form: the format of the quantised values.
        block: rows and columns of a block.

    Returns:
        quantised values of shape (R, C), and their scales, one per block. Their product is `dequantise`.
    """
    given = np.atleast_2d(np.asarray(values, np.float64))
    rows, columns = (np.arange(0, size, step) for size, step in zip(given.shape, block, strict=True))
    largest = np.maximum.reduceat(np.maximum.reduceat(np.abs(given), rows, axis=0), columns, axis=1)
    scales = np.where(largest > 0, largest / form.largest, 1.0)
    return round_to(given / _spread(scales, block, given.shape), form), scales


def dequantise(quantised: Floats, scales: Floats, block: tuple[int, int] = (1, TILE)) -> Floats:
    """The values that quantised ones stand for; the inverse of `quantise` up to rounding."""
    return quantised * _spread(scales, block, quantised.shape)


def _spread(scales: Floats, block: tuple[int, int], shape: tuple[int, ...]) -> Floats:
    wide = np.repeat(np.repeat(scales, block[0], axis=0), block[1], axis=1)
    return wide[: shape[0], : shape[1]]


def fp8_matmul(left: Any, right: Any, fraction_bits: int | None = None) -> Floats:
    """`left @ right` as V3 computes it: tiles on the left, blocks on the right, partial sums promoted every 128.

    Args:
        left: activations, shape (M, K).
        right: weights, shape (K, N).
        fraction_bits: what the tensor core's accumulator keeps; Hopper 13. None: all of them.

    Returns:
        the product, shape (M, N).
    """
    (a, a_scale), (b, b_scale) = quantise(left), quantise(right, block=(TILE, TILE))
    total = np.zeros((len(a), b.shape[1]))
    for tile, start in enumerate(range(0, a.shape[1], TILE)):
        span = slice(start, start + TILE)
        partial = _accumulate(a[:, span, None] * b[None, span], np.zeros(total.shape), fraction_bits)
        # One scale per 128 of K: it is applied to the partial sum where that is promoted to FP32.
        total += partial * a_scale[:, tile, None] * np.repeat(b_scale[tile], TILE)[: b.shape[1]]
    return total


def unpromoted(left: Any, right: Any, fraction_bits: int = 13) -> Floats:
    """Sum of products along all of K in one limited accumulator: what promotion avoids. Shapes as in `fp8_matmul`."""
    a, b = np.asarray(left, np.float64), np.asarray(right, np.float64)
    total = np.zeros((len(a), b.shape[1]))
    for start in range(0, a.shape[1], TILE):
        span = slice(start, start + TILE)
        total = _accumulate(a[:, span, None] * b[None, span], total, fraction_bits)
    return total


def _accumulate(products: Floats, total: Floats, fraction_bits: int | None) -> Floats:
    """Add products of shape (M, K, N) along K, 32 at a time, cut to the fraction bits under the largest of them."""
    if fraction_bits is None:
        return np.asarray(total + products.sum(axis=1))
    for start in range(0, products.shape[1], ALIGNED):
        terms = np.concatenate([products[:, start : start + ALIGNED], total[:, None]], axis=1)
        step = np.ldexp(1.0, np.frexp(np.abs(terms).max(axis=1))[1] - 1 - fraction_bits)
        total = (np.trunc(terms / step[:, None]) * step[:, None]).sum(axis=1)
    return total


def logfmt_encode(values: Any, bits: int = 8, *, linear: bool = True) -> tuple[Codes, Floats]:
    """LogFMT of section 3.2: sign, and magnitudes evenly spaced in logarithm between the tile's least and largest.

    Args:
        values: shape (…, C), each row of the last axis one tile (the paper's is 128 long).
        bits: n, the sign among them.
        linear: choose the neighbour that is nearer to the value itself, which keeps the mean unbiased; False: the
            nearer logarithm.

    Returns:
        codes of shape (…, C), 0 for zero and ±1 … ±(2^(n−1) − 1), and (least logarithm, step) of shape (…, 2).

    Raises:
        PlanError: fewer than 3 bits, which leave no magnitude between least and largest.
    """
    if bits < 3:
        raise PlanError(f"LogFMT with {bits} bits: expected 3 or more, a sign and at least three magnitudes")
    given = np.asarray(values, np.float64)
    size, steps = np.abs(given), 2 ** (bits - 1) - 2
    logs = np.log(np.where(size > 0, size, np.nan))
    empty = ~(size > 0).any(axis=-1, keepdims=True)
    logs = np.where(empty, 0.0, logs)
    largest = np.nanmax(logs, axis=-1, keepdims=True)
    # The paper bounds the range to that of a 5-bit exponent.
    least = np.maximum(np.nanmin(logs, axis=-1, keepdims=True), largest - 32 * math.log(2))
    step = (largest - least) / steps
    place = np.where(size > 0, (np.nan_to_num(logs) - least) / np.where(step > 0, step, 1.0), 0.0)
    place = np.clip(place, 0, steps)
    if linear:
        low = np.floor(place)
        high = np.minimum(low + 1, steps)
        below, above = np.exp(least + step * low), np.exp(least + step * high)
        place = np.where(np.abs(size - below) <= np.abs(above - size), low, high)
    codes = np.where(size > 0, np.sign(given) * (np.rint(place) + 1), 0).astype(np.int64)
    return codes, np.concatenate([least, step], axis=-1)


def logfmt_decode(codes: Codes, scale: Floats) -> Floats:
    """The values that LogFMT codes stand for. Shapes as in `logfmt_encode`."""
    size = np.exp(scale[..., :1] + scale[..., 1:] * (np.abs(codes) - 1))
    return np.where(codes == 0, 0.0, np.sign(codes) * size)


def relative_error(approximate: Any, exact: Any) -> float:
    """Norm of the difference over the norm of the exact values."""
    return float(np.linalg.norm(np.asarray(approximate) - exact) / np.linalg.norm(exact))
