"""The numbers that "Insights into DeepSeek-V3" (arXiv 2505.09343, version 2) prints, each beside what is computed here.

Nothing is adjusted to agree: a number that cannot be reproduced stands with both values, one that cannot be derived
from the paper with None.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memorist.fit.plan.architecture import Architecture
from memorist.fit.plan.config import open_model
from memorist.fit.plan.network import expert_parallel, topologies
from memorist.fit.plan.speed import draft_gain, local_decode_rate

TOLERANCE = 0.005
SEQUENCE = 4096
"""Sequence length of Tables 2 and 4."""
PEAK = 989.4e12
DEVICES = 2048


@dataclass(frozen=True, slots=True)
class PaperNumber:
    """One printed number. computed: None where the paper does not say how. rounding: half a unit of its last digit."""

    name: str
    printed: float
    computed: float | None
    unit: str
    rounding: float = 0.0

    @property
    def reproduced(self) -> bool:
        """Within 0.5 %, or equal once rounded as printed."""
        if self.computed is None:
            return False
        difference = abs(self.computed - self.printed)
        return difference <= max(TOLERANCE * abs(self.printed), self.rounding)


def paper_numbers() -> tuple[PaperNumber, ...]:
    """All numbers of the tables and formulas that the planner is built on."""
    return (*_caches(), *_operations(), *_training_rates(), *_links(), *_networks(), *_local())


def _model(name: str) -> Architecture:
    return open_model(name).architecture


def _caches() -> Iterator[PaperNumber]:
    v3, qwen, llama = (
        _model(n).cache_bytes_per_token() / 1e3 for n in ("deepseek-v3", "qwen2.5-72b", "llama-3.1-405b")
    )
    yield PaperNumber("Table 1: cache of DeepSeek-V3", 70.272, v3, "kB/token")
    yield PaperNumber("Table 1: cache of Qwen-2.5 72B", 327.680, qwen, "kB/token")
    yield PaperNumber("Table 1: cache of LLaMA-3.1 405B", 516.096, llama, "kB/token")
    yield PaperNumber("Table 1: multiple of Qwen-2.5 72B", 4.66, qwen / v3, "times", 0.005)
    yield PaperNumber("Table 1: multiple of LLaMA-3.1 405B", 7.28, llama / v3, "times", 0.005)


def _operations() -> Iterator[PaperNumber]:
    for name, shown, printed in (
        ("deepseek-v2", "DeepSeek-V2", 155),
        ("deepseek-v3", "DeepSeek-V3", 250),
        ("qwen2.5-72b", "Qwen-72B", 394),
        ("llama-3.1-405b", "LLaMA-405B", 2448),
    ):
        computed = 3 * _model(name).forward_flops(SEQUENCE) / 1e9
        yield PaperNumber(f"Table 2: training {shown}", printed, computed, "GFLOP/token", 0.5)


def _training_rates() -> Iterator[PaperNumber]:
    """Table 4, from the tokens per day that were measured there."""
    v3 = _model("deepseek-v3")
    parts = {
        "MPFT": (272.80e9, 19.926, (1.13, 2.06, 1.99, 0.48, 13.95, 0.29), 43.73, 38.94),
        "MRFT": (272.52e9, 19.946, (1.13, 2.03, 1.99, 0.48, 14.00, 0.31), 43.68, 38.90),
    }
    for network, (tokens, step, seconds, full_share, causal_share) in parts.items():
        rate = tokens / 86400 / DEVICES
        for word, causal, printed, share in (
            ("non-causal", False, 432, full_share),
            ("causal", True, 385, causal_share),
        ):
            flops = rate * 3 * v3.forward_flops(SEQUENCE, causal=causal)
            yield PaperNumber(f"Table 4: {network} TFLOPS, {word}", printed, flops / 1e12, "TFLOP/s")
            yield PaperNumber(f"Table 4: {network} MFU, {word}", share, 100 * flops / PEAK, "%")
        yield PaperNumber(f"Table 4: {network} time per step", step, sum(seconds), "s")
        yield PaperNumber(f"Table 4: {network} tokens per step", 15360 * SEQUENCE, tokens / 86400 * step, "tokens")


def _links() -> Iterator[PaperNumber]:
    # The paper's arithmetic has 7000 for the hidden size of 7168.
    for where, bandwidth, printed in (("50 GB/s", 50e9, (120.96, 14.76, 67)), ("900 GB/s", 900e9, (6.72, 0.82, 1200))):
        found = expert_parallel(layers=61, hidden=7000, experts=9, bandwidth=bandwidth)
        yield PaperNumber(f"Section 2.3.2: exchange at {where}", printed[0], found.exchange * 1e6, "µs")
        yield PaperNumber(f"Section 2.3.2: time per token at {where}", printed[1], found.token * 1e3, "ms")
        # Printed as 67 (cut from 67.8) and "about 1200".
        rounding = 1.0 if bandwidth == 50e9 else 50.0
        yield PaperNumber(f"Section 2.3.2: rate at {where}", printed[2], found.tokens_per_second, "tokens/s", rounding)
    # Printed beside acceptance rates of 0.80 to 0.90; a gain of 1.8 is what the lowest gives at no cost.
    yield PaperNumber("Section 2.3.3: gain of MTP", 1.8, draft_gain([0.8]), "times", 0.05)


def _networks() -> Iterator[PaperNumber]:
    table = (
        (2048, 96, 2048, 9, 4.39),
        (16384, 768, 16384, 72, 4.39),
        (65536, 5120, 131072, 491, 7.5),
        (32928, 1568, 32928, 146, 4.4),
        (261632, 16352, 384272, 1522, 5.8),
    )
    for topology, (endpoints, switches, links, cost, per_endpoint) in zip(topologies(), table, strict=True):
        yield PaperNumber(f"Table 3: endpoints of {topology.name}", endpoints, topology.endpoints, "devices")
        yield PaperNumber(f"Table 3: switches of {topology.name}", switches, topology.switches, "switches")
        yield PaperNumber(f"Table 3: links of {topology.name}", links, topology.links, "links")
        yield PaperNumber(f"Table 3: cost of {topology.name}", cost, None, "million dollars")
        each = cost * 1e3 / topology.endpoints
        yield PaperNumber(
            f"Table 3: cost per endpoint of {topology.name}", per_endpoint, each, "thousand dollars", 0.05
        )


def _local() -> Iterator[PaperNumber]:
    for name, total, active in (("deepseek-v2", 236, 21), ("deepseek-v3", 671, 37)):
        model = _model(name)
        yield PaperNumber(f"Section 2.2.2: parameters of {name}", total, model.parameters / 1e9, "billion", 0.5)
        # With the embedding, of which a token needs one row only.
        yield PaperNumber(f"Section 2.2.2: active in {name}", active, model.active_parameters / 1e9, "billion", 0.5)
    rate = local_decode_rate(_model("deepseek-v2").active_parameters, 0.5, 256e9)
    yield PaperNumber("Section 2.2.2: rate of DeepSeek-V2 on an AI PC, nearly", 20, rate, "tokens/s")
