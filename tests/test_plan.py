"""The plan: the spec's vectors, what must hold for every model and workload, and what the paper prints."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorist.errors import PlanError, RecipeError
from memorist.fit.plan import Hardware, Workload, make_plan, open_hardware, open_model
from memorist.fit.plan.architecture import STORAGES, Architecture, Layer
from memorist.fit.plan.hardware import Calibration, Rates
from memorist.fit.plan.layers import FeedForward, Precision, attention, delta_net, latent_attention, mamba, mamba2
from memorist.fit.plan.network import dragonfly, expert_parallel, topologies
from memorist.fit.plan.paper import paper_numbers
from memorist.fit.plan.speed import (
    decode_costs,
    decode_step,
    draft_gain,
    local_decode_rate,
    prefill,
    update,
    update_costs,
)
from memorist.fit.plan.whatif import break_even, pruned, variants
from memorist.fit.plan.workload import OPTIMIZERS, activation_bytes, training_bytes

H100 = open_hardware("h100")
NOT_REPRODUCED = {
    "Table 1: multiple of LLaMA-3.1 405B": 7.344,
    "Table 2: training Qwen-72B": 444.9,
    "Table 2: training LLaMA-405B": 2473.2,
    "Section 2.2.2: active in deepseek-v3": 37.55,
    "Section 2.2.2: rate of DeepSeek-V2 on an AI PC, nearly": 23.95,
    **{f"Table 3: cost of {topology.name}": None for topology in topologies()},
}
"""What the paper prints and the formulas do not give, with what they give."""

mixers = st.one_of(
    st.builds(
        lambda kv, window: attention(64, 8, kv, 16, window=window),
        st.sampled_from([1, 2, 8]),
        st.sampled_from([None, 64]),
    ),
    st.builds(lambda rank: latent_attention(64, 8, kv_rank=rank, rope=8, nope=16, value=16), st.integers(8, 64)),
    st.sampled_from([mamba(64, 64, 16, 4, 4), mamba2(64, 4, 16, 16, 1, 4), delta_net(64, 2, 4, 16, 16, 4)]),
)
parts = st.one_of(
    st.builds(FeedForward, st.just(64), st.integers(1, 512)),
    st.builds(
        FeedForward, st.just(64), st.sampled_from([0, 64]), st.integers(4, 16), st.integers(1, 4), st.integers(1, 64)
    ),
)
models = st.builds(
    lambda layers, tied: Architecture("any", 64, 500, tied, tuple(layers)),
    st.lists(st.builds(Layer, mixers, parts), min_size=1, max_size=4),
    st.booleans(),
)
workloads = st.builds(
    Workload,
    prompts=st.integers(1, 8),
    group_size=st.integers(1, 8),
    turns=st.integers(1, 5),
    prompt_tokens=st.integers(0, 2000),
    observation_tokens=st.integers(0, 500),
    new_tokens=st.integers(1, 500),
    memory_tokens=st.integers(0, 500),
    context=st.sampled_from(["append", "rewrite"]),
    purpose=st.sampled_from(["train", "serve"]),
    cache=st.sampled_from(["bf16", "fp8"]),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    lora_rank=st.sampled_from([0, 4]),
    shard=st.integers(0, 3),
    checkpointing=st.booleans(),
    scores=st.booleans(),
    logits=st.sampled_from(["all", "written", "chunks"]),
)


def model(name: str) -> Architecture:
    return open_model(name).architecture


class TestVectors:
    """Section 6.4 of the spec."""

    @pytest.mark.parametrize(
        ("name", "total", "active"),
        [
            ("deepseek-v3", 671_026_279_424, 37_552_157_696),
            ("deepseek-v2", 235_741_312_000, 21_375_677_440),
            ("qwen2.5-72b", 72_706_203_648, None),
            ("llama-3.1-405b", 405_853_388_800, None),
            ("qwen2.5-7b", 7_615_616_512, None),
            ("qwen2.5-1.5b", 1_543_714_304, None),
            ("llama-3.2-3b", 3_212_749_824, None),
        ],
    )
    def test_parameters(self, name: str, total: int, active: int | None) -> None:
        assert model(name).parameters == total
        assert model(name).active_parameters == (active or total)

    @pytest.mark.parametrize(
        ("name", "size"), [("deepseek-v3", 70_272), ("qwen2.5-72b", 327_680), ("llama-3.1-405b", 516_096)]
    )
    def test_cache(self, name: str, size: int) -> None:
        assert model(name).cache_bytes_per_token() == size

    @pytest.mark.parametrize(
        ("name", "causal", "printed"),
        [
            ("deepseek-v3", True, 250.5),
            ("deepseek-v3", False, 281.2),
            ("deepseek-v2", True, 155.3),
            ("llama-3.1-405b", True, 2473.2),
            ("qwen2.5-72b", True, 444.9),
        ],
    )
    def test_training_operations(self, name: str, causal: bool, printed: float) -> None:
        assert round(3 * model(name).forward_flops(4096, causal=causal) / 1e9, 1) == printed

    @pytest.mark.parametrize(
        ("bandwidth", "hidden", "exchange", "token", "rate"),
        [
            (50e9, 7000, 120.96, 14.757, 67.76),
            (900e9, 7000, 6.72, 0.8198, 1219.8),
            (50e9, 7168, 123.86, 15.111, 66.2),
            (40e9, 7168, 154.83, 18.889, 52.9),
            (900e9, 7168, 6.88, 0.8395, 1191.2),
        ],
    )
    def test_expert_parallel(self, bandwidth: float, hidden: int, exchange: float, token: float, rate: float) -> None:
        found = expert_parallel(layers=61, hidden=hidden, experts=9, bandwidth=bandwidth)
        assert found.exchange * 1e6 == pytest.approx(exchange, abs=0.006)
        assert found.token * 1e3 == pytest.approx(token, rel=1e-4)
        assert found.tokens_per_second == pytest.approx(rate, rel=1e-3)

    def test_latency_adds_two_hops_a_micro_batch(self) -> None:
        ideal = expert_parallel(layers=61, hidden=7168, experts=9, bandwidth=50e9)
        real = expert_parallel(layers=61, hidden=7168, experts=9, bandwidth=50e9, latency=3.7e-6)
        assert real.token - ideal.token == pytest.approx(61 * 2 * 2 * 3.7e-6)

    def test_drafts(self) -> None:
        assert draft_gain([0.85]) == pytest.approx(1.85)
        assert draft_gain([0.85, 0.85]) == pytest.approx(2.5725)
        for acceptance, cost in ((0.80, 0.0), (0.85, 0.028), (0.90, 0.056)):
            assert draft_gain([acceptance], cost) == pytest.approx(1.8, abs=1e-3)

    def test_the_largest_dragonfly(self) -> None:
        found = dragonfly(p=16, a=32, h=16, groups=513)
        assert (found.endpoints, found.switches, found.links) == (262_656, 16_416, 385_776)

    @pytest.mark.parametrize("ports", [0, -4, 6])
    def test_a_switch_has_ports(self, ports: int) -> None:
        with pytest.raises(PlanError, match=f"a switch with {ports} ports"):
            topologies(ports)

    @pytest.mark.parametrize(("name", "fits"), [("qwen2.5-7b", 63), ("llama-3.2-3b", 34)])
    def test_sequences_that_fit(self, name: str, fits: int) -> None:
        device = replace(H100, memory=139 * 2**30)
        work = Workload(prompt_tokens=32_768 - 128, purpose="serve")
        assert make_plan(model(name), work, device, workspace=0).memory.sequences == fits

    def test_a_hybrid_fits_more(self) -> None:
        m1 = hybrid_like_m1()
        assert (m1.parameters, m1.cache_bytes_per_token(), m1.state_bytes()) == (3_447_874_560, 24_576, 2_703_360)
        assert break_even(model("llama-3.2-3b"), m1) == pytest.approx(30, abs=0.01)
        device = replace(H100, memory=139 * 2**30)
        work = Workload(prompt_tokens=32_768 - 128, purpose="serve")
        assert make_plan(m1, work, device, workspace=0).memory.sequences == 157

    def test_v3_s_cache_of_a_long_sequence(self) -> None:
        assert model("deepseek-v3").sequence_bytes(131_072) / 1e9 == pytest.approx(9.21, abs=0.005)

    def test_training_states(self) -> None:
        assert training_bytes(model("qwen2.5-7b"), Workload()) / 1e9 == pytest.approx(121.85, abs=0.005)

    def test_half_of_v3_s_experts(self) -> None:
        half = pruned(model("deepseek-v3"), 0.5)
        assert half.parameters / 1e9 == pytest.approx(344.1, abs=0.1)
        # Active parameters are as before but for the router, which has half the rows.
        assert model("deepseek-v3").active_parameters - half.active_parameters == 58 * 128 * 7168

    @pytest.mark.parametrize(
        ("active", "bandwidth", "rate"), [(21.4e9, 256e9, 23.9), (21.4e9, 546e9, 51.0), (70e9, 256e9, 7.31)]
    )
    def test_one_user_at_home(self, active: float, bandwidth: float, rate: float) -> None:
        assert local_decode_rate(active, 0.5, bandwidth) == pytest.approx(rate, rel=2e-3)


def hybrid_like_m1() -> Architecture:
    """M1-3B: six of Llama-3.2-3B's layers keep attention."""
    llama = model("llama-3.2-3b")
    mixer = mamba(3072, 3072, 16, 4, 192, shared=1024)
    layers = tuple(
        layer if i in (5, 8, 12, 18, 22, 26) else replace(layer, mixer=mixer) for i, layer in enumerate(llama.layers)
    )
    return replace(llama, layers=layers)


class TestPaper:
    @pytest.mark.parametrize("number", paper_numbers(), ids=lambda number: number.name)
    def test_every_printed_number_is_reproduced_or_known_not_to_be(self, number: Any) -> None:
        if number.name in NOT_REPRODUCED:
            computed = NOT_REPRODUCED[number.name]
            assert not number.reproduced
            assert number.computed == (computed and pytest.approx(computed, rel=1e-3))
        else:
            assert number.reproduced, (number.printed, number.computed)

    def test_what_is_not_reproduced_stands_in_the_docs(self) -> None:
        page = (Path(__file__).parent.parent / "docs" / "plan.md").read_text(encoding="utf-8")
        for name in NOT_REPRODUCED:
            assert name.split(" of ")[0] in page, name
        assert NOT_REPRODUCED.keys() <= {number.name for number in paper_numbers()}

    def test_a_number_that_is_off_is_not_reproduced(self) -> None:
        first = paper_numbers()[0]
        assert not replace(first, printed=first.printed * 1.006).reproduced
        assert replace(first, printed=first.printed * 1.006, rounding=1.0).reproduced


class TestArchitecture:
    @given(models)
    def test_parts_add_up(self, one: Architecture) -> None:
        assert one.weight_bytes(STORAGES["fp32"]) == 4 * one.parameters
        assert one.weight_bytes(STORAGES["bf16"]) == 2 * one.parameters
        assert one.parameters - one.active_parameters == one.experts - one.active_experts
        assert sum(one.kinds().values()) == len(one.layers)

    @given(models, st.integers(1, 10_000), st.integers(1, 10_000))
    def test_more_context_is_never_cheaper(self, one: Architecture, first: int, more: int) -> None:
        assert one.sequence_bytes(first) <= one.sequence_bytes(first + more)
        assert one.forward_flops(first) <= one.forward_flops(first + more)
        assert one.decode_flops(first) <= one.decode_flops(first + more)
        assert one.forward_flops(first) <= one.forward_flops(first, causal=False)

    @given(models, st.integers(1, 64))
    def test_what_a_sequence_keeps_grows_by_what_a_token_keeps(self, one: Architecture, tokens: int) -> None:
        grown = one.state_bytes() + tokens * one.cache_bytes_per_token()
        assert one.sequence_bytes(tokens) == grown  # 64 is the smallest window drawn
        assert one.sequence_bytes(10 * tokens) <= one.state_bytes() + 10 * tokens * one.cache_bytes_per_token()

    @given(models, st.integers(1, 512))
    def test_a_step_reads_between_the_active_and_all_weights(self, one: Architecture, batch: int) -> None:
        once, all_ = one.read_bytes(1), one.weight_bytes() - 2 * (0 if one.tied else one.embedding)
        assert once == pytest.approx(all_ - 2 * (one.experts - one.active_experts))
        assert once - 1 <= one.read_bytes(batch) <= all_ + 1

    def test_precision_scales_what_is_kept(self) -> None:
        layer = Layer(mamba2(64, 4, 16, 16, 1, 4), FeedForward(64, 8))
        one = Architecture("m", 64, 10, True, (layer, Layer(attention(64, 4, 4, 16), FeedForward(64, 8))))
        assert one.cache_bytes_per_token(Precision(1, 4)) == 2 * 64
        assert one.state_bytes(Precision(1, 4)) == (64 + 32) * 4 + 64 * 16 * 4

    def test_adapters_leave_experts_and_routers_alone(self) -> None:
        one = Architecture("m", 64, 10, True, (Layer(attention(64, 4, 2, 16), FeedForward(64, 32, 8, 2, 16)),))
        shapes = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 32), (64, 32), (32, 64)]
        assert one.lora_parameters(3) == 3 * sum(i + o for i, o in shapes)


class TestWorkload:
    def test_tokens_of_turns_by_hand(self) -> None:
        work = Workload(
            prompts=2, group_size=4, turns=3, prompt_tokens=100, observation_tokens=10, new_tokens=20, memory_tokens=50
        )
        assert (work.longest, work.trajectories, work.row) == (190, 8, 100 + 4 * 90)
        assert work.prefill_tokens == {"again": 110 + 140 + 170, "reuse": 130, "forked": 55}
        # What the 60 written tokens see: 100 + 10 + 0…, 100 + 40 + …, 100 + 70 + ….
        assert work.mean_context == (110 + 140 + 170) / 3 + 10
        assert work.row_tokens == {"plain": 8 * 190, "shared": 2 * 100 + 8 * 90}
        again = replace(work, context="rewrite")
        assert (again.longest, again.mean_context) == (180, 170)
        assert again.prefill_tokens == {"again": 3 * 160, "reuse": 100 + 180, "forked": 25 + 180}
        assert again.row_tokens == {"plain": 24 * 180, "shared": 200 + 24 * 80}

    @given(workloads)
    def test_sharing_never_costs_tokens(self, work: Workload) -> None:
        ways, rows = work.prefill_tokens, work.row_tokens
        assert ways["forked"] <= ways["reuse"] <= ways["again"]
        assert rows["shared"] <= rows["plain"]
        assert 0 <= work.mean_context <= work.longest

    @given(models, workloads, st.integers(1, 16))
    def test_sharding_divides_what_it_says(self, one: Architecture, work: Workload, devices: int) -> None:
        sizes = [training_bytes(one, replace(work, shard=stage), devices) for stage in range(4)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[3] == pytest.approx(sizes[0] / devices)

    @pytest.mark.parametrize(
        ("optimizer", "bytes_"), [("adamw", 16), ("adamw-bf16", 12), ("adam-8bit", 10), ("adamw-fp32", 16)]
    )
    def test_states_per_parameter(self, optimizer: str, bytes_: int) -> None:
        one = model("qwen3-8b")
        assert training_bytes(one, Workload(optimizer=optimizer)) == bytes_ * one.parameters

    def test_adapters_train_little_on_a_frozen_base(self) -> None:
        one = model("qwen3-8b")
        adapted = training_bytes(one, Workload(lora_rank=16))
        assert adapted == 16 * one.lora_parameters(16) + one.weight_bytes()
        assert training_bytes(one, Workload(lora_rank=16, weights="4bit")) < adapted / 2.4

    @given(models, workloads, st.integers(1, 4096))
    def test_checkpointing_keeps_no_more(self, one: Architecture, work: Workload, tokens: int) -> None:
        kept = activation_bytes(one, replace(work, checkpointing=True, scores=False), tokens)
        whole = activation_bytes(one, replace(work, checkpointing=False, scores=False), tokens)
        bound = whole + 2 * 2 * 64 * len(one.layers) * tokens
        assert kept <= bound * (1 + 1e-9)
        assert activation_bytes(one, work, 2 * tokens) == pytest.approx(2 * activation_bytes(one, work, tokens))

    def test_logits_of_the_spec(self) -> None:
        head_only = Architecture("m", 1, 152_064, True, (Layer(mamba(1, 1, 1, 1, 1), FeedForward(1)),))
        size = activation_bytes(head_only, Workload(), 8192)
        assert size / 1e9 == pytest.approx(4.98 * (2 + 4 + 4) / 4, rel=1e-3)
        written = Workload(prompt_tokens=100, new_tokens=50, group_size=4, logits="written")
        assert activation_bytes(head_only, written, 8192) == pytest.approx(size * 200 / 300, rel=1e-3)
        assert activation_bytes(head_only, replace(written, logits="chunks"), 8192) == pytest.approx(
            size / 16, rel=1e-2
        )
        flops = [update_costs(head_only, w, 300, 1)[0] for w in (replace(written, logits="all"), written)]
        assert flops[0] - flops[1] == 4 * 100 * 2 * 152_064

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            *(({name: 0}, f"{name} is 0; expected 1 or more") for name in ("prompts", "group_size", "turns")),
            *(({name: -1}, f"{name} is -1; expected 0 or more") for name in ("prompt_tokens", "lora_rank", "copies")),
            ({"new_tokens": 0}, "new_tokens is 0"),
            ({"shard": 4}, "ZeRO stage, 0 to 3"),
            ({"acceptance": 1.5}, "acceptance is 1.5; expected 0 to 1"),
        ],
    )
    def test_impossible_counts_are_refused(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(PlanError, match=message):
            make_plan(model("qwen3-8b"), Workload(**wrong), H100)

    @pytest.mark.parametrize(
        ("wrong", "nearest"),
        [
            ({"context": "apend"}, "append"),
            ({"optimizer": "adam"}, "adamw"),
            ({"cache": "fp9"}, "fp8"),
            ({"weights": "bf17"}, "bf16"),
            ({"purpose": "training"}, "train"),
            ({"logits": "chunk"}, "chunks"),
        ],
    )
    def test_unknown_words_name_the_nearest(self, wrong: dict[str, str], nearest: str) -> None:
        with pytest.raises(RecipeError, match=f"did you mean '{nearest}'"):
            make_plan(model("qwen3-8b"), Workload(**wrong), H100)


class TestPlan:
    @settings(max_examples=60)
    @given(models, workloads, st.integers(1, 4))
    def test_what_is_suggested_fits(self, one: Architecture, work: Workload, devices: int) -> None:
        device = replace(H100, memory=2e7)
        plan = make_plan(one, work, device, devices, workspace=0)
        memory = plan.memory
        resident = memory.weights if work.purpose == "serve" else max(memory.states * devices, memory.weights)
        if memory.sequences:
            assert resident + memory.sequences * memory.sequence <= memory.available * (1 + 1e-9)
            assert resident + (memory.sequences + 1) * memory.sequence > memory.available
            assert plan.suggested_batch <= min(work.trajectories, memory.sequences)
            assert plan.suggested_batch % work.group_size == 0 or plan.suggested_batch < work.group_size
        if memory.micro_tokens:
            assert memory.states + memory.activations <= memory.available / devices
            assert math.log2(memory.micro_tokens).is_integer()
        assert plan.fits == (not plan.reasons)
        assert plan.speed.waves * plan.speed.batch >= work.trajectories

    @given(models, workloads)
    def test_bounds_are_below_estimates_and_positive(self, one: Architecture, work: Workload) -> None:
        plan = make_plan(one, work, H100)
        speed = plan.speed
        assert plan.fits  # models of kilobytes
        for step in (speed.decode, speed.rollout, speed.update, *speed.prefill.values()):
            assert 0 <= step.bound <= step.estimate
        assert speed.decode.bound > 0

    @given(models, workloads, st.integers(1, 2000))
    def test_a_longer_context_never_fits_more(self, one: Architecture, work: Workload, more: int) -> None:
        work = replace(work, scores=False)  # a prompt that is long enough to be shared is read once
        short = make_plan(one, work, H100)
        long = make_plan(one, replace(work, prompt_tokens=work.prompt_tokens + more), H100)
        assert long.memory.sequences <= short.memory.sequences
        assert long.memory.sequence >= short.memory.sequence
        assert long.speed.decode.bound >= short.speed.decode.bound or long.speed.batch < short.speed.batch

    def test_siblings_read_a_long_prompt_once_where_local_policies_do(self) -> None:
        work = Workload(prompts=1, group_size=8, prompt_tokens=4000, new_tokens=2, turns=1)
        llama, hybrid = model("llama-3.2-3b"), model("bamba-9b")

        def moved(one: Architecture, **more: Any) -> float:
            return decode_costs(one, replace(work, **more), 8)[1]

        prompt = llama.sequence_bytes(4000, work.precision)
        written = 24 * 4000 * sum(layer.mixer.heads for layer in llama.layers)
        assert moved(llama) - moved(llama, scores=True) == pytest.approx(7 * prompt - 8 * written)
        assert moved(llama, scores=True, turns=2) == moved(llama, turns=2)
        assert moved(hybrid, scores=True) == moved(hybrid)

    def test_remedies_are_named_in_order_and_only_those_that_are_needed(self) -> None:
        assert "it fits with LoRA" in make_plan(model("qwen3-8b"), Workload(), H100).advice
        small = replace(H100, memory=20e9)
        served = make_plan(model("llama-3.1-8b"), Workload(purpose="serve"), replace(H100, memory=18e9))
        assert "it fits with 4-bit weights" in served.advice
        assert "it fits with ZeRO-3" in make_plan(model("gemma-2-9b"), Workload(), small, 16).advice
        several = "it fits with an FP8 cache, logits in chunks, LoRA, ZeRO-3, 4-bit weights"
        assert several in make_plan(model("qwen2.5-72b"), Workload(), small, 4).advice
        huge = make_plan(model("llama-3.1-405b"), Workload(), small)
        assert any(line.startswith("nothing here makes it fit") for line in huge.advice)
        assert not any("fits with" in line for line in make_plan(model("bundled"), Workload(), H100).advice)

    def test_reasons_say_what_is_too_much(self) -> None:
        plan = make_plan(model("gemma-2-9b"), Workload(prompt_tokens=9000), H100)
        assert plan.reasons[0] == "a context of 9128 tokens; the model was made for 8192"
        assert "no activations fit beside 147.87 GB of training states per device" in plan.reasons

    def test_the_walls_are_named(self) -> None:
        v3, work = model("deepseek-v3"), Workload(prompts=2048, prompt_tokens=0, purpose="serve")
        assert decode_step(v3, work, H100, 1).wall == "memory"
        assert decode_step(model("qwen3-8b"), work, H100, 4096).wall == "compute"
        slow = replace(H100, scale_out=1e9)
        assert decode_step(v3, work, slow, 16_384, 64).wall == "link"
        assert decode_step(v3, work, slow, 16_384, 8).wall != "link"  # within the node

    def test_the_link_bound_is_the_paper_s(self) -> None:
        v3, work = model("deepseek-v3"), Workload(prompts=2048, prompt_tokens=0, purpose="serve")
        # 64 tokens per device in two micro-batches of 32; 58 of 61 layers have experts.
        paper = expert_parallel(layers=58, hidden=7168, experts=9, bandwidth=50e9)
        assert make_plan(v3, work, H100, 256).speed.batch == 16_384
        assert make_plan(v3, work, H100, 256).speed.expert_link == pytest.approx(paper.token)

    def test_networks_are_those_that_are_large_enough(self) -> None:
        v3, work = model("deepseek-v3"), Workload(purpose="serve")
        assert len(make_plan(v3, work, H100, 2048).networks) == 5
        assert "two-layer fat tree" not in {n.name for n in make_plan(v3, work, H100, 2056).networks}
        assert make_plan(v3, work, H100, 8).networks == ()

    def test_live_memory_has_the_larger_of_update_and_rollouts(self) -> None:
        one, work = model("qwen2.5-1.5b"), Workload(micro_tokens=1024, prompts=64)
        memory = make_plan(one, work, H100, workspace=0).memory
        assert memory.activations < 512 * memory.sequence
        assert memory.planned == memory.states + 512 * memory.sequence
        few = make_plan(one, replace(work, prompts=1, group_size=2), H100, workspace=0).memory
        assert few.planned == few.states + few.activations
        served = make_plan(one, replace(work, purpose="serve"), H100, 2, workspace=0).memory
        assert served.planned == (served.weights + 512 * served.sequence) / 2

    def test_a_calibration_replaces_what_is_assumed(self) -> None:
        rates = Rates(flop=1e-12, byte=1e-9, layer=1e-3, call=5.0)
        calibrated = Calibration("d", "2026-01-01", rates, rates, activation=4.0, base=1e9, scores=False)
        one, work = model("qwen2.5-1.5b"), Workload(micro_tokens=4096, prompts=4, checkpointing=False)
        here = make_plan(one, work, replace(H100, calibration=calibrated))
        there = make_plan(one, work, H100, workspace=1e9)
        assert here.memory.activations == 4 * there.memory.activations
        assert there.memory.planned == 1e9 + there.memory.states + there.memory.activations
        step = decode_step(one, work, replace(H100, calibration=calibrated), 4)
        bytes_ = one.read_bytes(4) + 4 * one.sequence_bytes(work.mean_context)
        assert step.estimate == pytest.approx(
            4 * one.decode_flops(work.mean_context) * 1e-12 + bytes_ * 1e-9 + 28e-3 + 5
        )
        read = prefill(one, work, replace(H100, calibration=calibrated), 4096)
        assert read.estimate == pytest.approx(
            4096 * one.forward_flops(work.longest) * 1e-12 + activation_bytes(one, work, 4096) / 3e9 + (28e-3 + 5) / 3
        )
        two = [update(one, work, replace(H100, calibration=calibrated), 4096, passes).estimate for passes in (1, 2)]
        assert two[1] - two[0] == pytest.approx(28e-3 + 5)

    @pytest.mark.parametrize("devices", [0, -1])
    def test_there_are_devices(self, devices: int) -> None:
        with pytest.raises(PlanError, match=f"{devices} devices; expected 1 or more"):
            make_plan(model("qwen3-8b"), Workload(), H100, devices)


class TestWhatIf:
    def test_the_forms_keep_less_in_the_known_order(self) -> None:
        forms = variants(model("qwen3-8b"))
        assert list(forms) == ["as given", "dense (MHA)", "MLA", "hybrid"]  # as given is GQA already
        kept = {name: form.cache_bytes_per_token() for name, form in forms.items()}
        assert kept["dense (MHA)"] == 4 * kept["as given"]
        assert kept["dense (MHA)"] > kept["as given"] > kept["MLA"] > kept["hybrid"]
        assert kept["MLA"] == 36 * 576 * 2
        assert kept["hybrid"] * 36 == kept["as given"] * 7
        assert forms["hybrid"].state_bytes() > 0

    def test_experts_can_be_pruned_and_latents_written_out(self) -> None:
        forms = variants(model("deepseek-v3"), kept_experts=0.25)
        assert list(forms) == ["as given", "dense (MHA)", "GQA", "hybrid", "pruned"]
        assert forms["pruned"].experts == forms["as given"].experts / 4
        assert forms["dense (MHA)"].cache_bytes_per_token() == 61 * 2 * 128 * 128 * 2

    def test_sliding_layers_stay(self) -> None:
        forms = variants(model("gemma-2-9b"))
        assert forms["hybrid"].kinds() == {"sliding GQA": 21, "Mamba": 17, "GQA": 4}
        assert forms["MLA"].kinds() == {"sliding GQA": 21, "MLA": 21}

    @given(models)
    def test_heads_divide_in_every_form(self, one: Architecture) -> None:
        for form in variants(one, kept_experts=1.0).values():
            for layer in form.layers:
                if layer.mixer.heads:
                    assert layer.mixer.heads % layer.mixer.kv_heads == 0

    @pytest.mark.parametrize("kept", [0.0, -0.5, 1.5, 0.01])
    def test_pruning_leaves_enough_experts(self, kept: float) -> None:
        with pytest.raises(PlanError, match=re.escape(f"{kept:g} of 256 experts kept")):
            pruned(model("deepseek-v3"), kept)

    def test_no_break_even_where_nothing_is_saved(self) -> None:
        assert break_even(model("qwen3-8b"), model("qwen3-8b")) is None
        assert break_even(hybrid_like_m1(), model("llama-3.2-3b")) is None


def test_a_device_is_needed_for_a_bound() -> None:
    slow = Hardware("slow", memory=1e9, memory_bandwidth=1e9, compute=1e9)
    one = model("bundled")
    work = Workload(purpose="serve", prompt_tokens=10, new_tokens=10)
    assert make_plan(one, work, slow).speed.decode.bound == pytest.approx(128 * one.decode_flops(15) / 1e9)
