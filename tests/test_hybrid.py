"""Hybrids: what has a place is copied, stock classes open it, and the trainer's policies act and learn as any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hybrids import converted
from memorist.decision import Distribution, Observation
from memorist.errors import HybridError, PolicyError
from memorist.fit.hybrid.convert import FASTEST, SLOWEST, convert, hybrid, kept, state_bytes, token_bytes
from memorist.fit.hybrid.probes import choose_layers, recall_costs
from memorist.models.causal import CausalPolicy
from memorist.models.decoding import why_not_written
from memorist.models.registry import bundled_folder
from memorist.models.rows import Unit
from memorist.models.sampler import Request
from memorist.models.states import State, why_not_continued

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.1,
}  # fmt: skip
IDS = torch.arange(60).view(2, 30) * 31 % 97


def llama(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**(SMALL | changes))).eval()


class TestConversion:
    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize(
        "rope",
        [{"rope_type": "default", "rope_theta": 500.0}, {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}],
    )
    def test_with_all_attention_kept_nothing_changes(self, tied: bool, rope: dict[str, Any]) -> None:
        model = llama(tie_word_embeddings=tied, rope_parameters=rope | {"rope_theta": 500.0})
        other = hybrid(model.config, model.state_dict(), (0, 1), "linear", 0)
        with torch.no_grad():
            assert float((model(IDS).logits - other(IDS).logits).abs().max()) <= 1e-5

    def test_the_bundled_base_with_all_attention_kept_gives_the_same_logits(self, tmp_path: Path) -> None:
        convert(bundled_folder(), tmp_path / "all", range(4))
        ids = torch.arange(400).view(2, 200) * 7919 % 2048
        with torch.no_grad():
            folders = bundled_folder(), tmp_path / "all"
            first, second = (AutoModelForCausalLM.from_pretrained(folder)(ids).logits for folder in folders)
        assert float((first - second).abs().max()) <= 1e-5

    def test_keys_and_values_meet_the_queries_that_they_met(self) -> None:
        """Without softmax, decay, gate, norm and positions, a layer is (Q·K) V with shared heads repeated."""
        model = llama()
        mixer = hybrid(model.config, model.state_dict(), (1,), "linear", 0).model.layers[0].mamba
        attention, wide, width = model.model.layers[0].self_attn, 32, 8
        seen = torch.randn(1, 5, wide)
        rows = mixer.in_proj.weight[wide : 4 * wide]
        value, key, query = (seen @ part.T for part in rows.split(wide))
        parts = attention.k_proj.weight, attention.v_proj.weight
        keys, values = ((seen @ part.T).view(1, 5, 2, width).repeat_interleave(2, 2) for part in parts)
        torch.testing.assert_close(key.view(1, 5, 4, width), keys)
        torch.testing.assert_close(value.view(1, 5, 4, width), values)
        torch.testing.assert_close(query, seen @ attention.q_proj.weight.T)
        torch.testing.assert_close(mixer.out_proj.weight, attention.o_proj.weight)

    def test_a_layer_that_starts_as_linear_attention_is_it(self) -> None:
        """Its state after T tokens is the sum of what they wrote, but for what little decays."""
        from transformers import DynamicCache

        model = llama()
        found = hybrid(model.config, model.state_dict(), (1,), "linear", 0)
        mixer, wide = found.model.layers[0].mamba, 32
        with torch.no_grad():
            mixer.A_log.fill_(-30.0)  # nothing decays
            mixer.in_proj.weight[4 * wide :].zero_()  # and each step is 1
            cache = DynamicCache(config=found.config)
            seen = torch.randn(1, 6, wide)
            mixer(seen, cache_params=cache)
            value, key = ((seen @ part.T).view(6, 4, 8) for part in mixer.in_proj.weight[wide : 3 * wide].split(wide))
            value, key = torch.nn.functional.silu(value), torch.nn.functional.silu(key)
            expected = torch.einsum("thv,thk->hvk", value, key)
        torch.testing.assert_close(cache.layers[0].recurrent_states[0][0], expected, atol=1e-5, rtol=1e-4)

    def test_as_released_steps_and_decays_are_drawn_as_there(self) -> None:
        model = llama()
        mixer = hybrid(model.config, model.state_dict(), (1,), "released", 5).model.layers[0].mamba
        steps, decays = torch.nn.functional.softplus(mixer.dt_bias), mixer.A_log.exp()
        assert bool(((steps >= 0.99 * SLOWEST) & (steps <= 1.01 * FASTEST)).all()) and bool((mixer.D == 1).all())
        assert bool(((decays >= 1) & (decays <= 16)).all()) and len(set(decays.tolist())) > 1

    def test_bytes_are_those_of_the_specification(self) -> None:
        """Section 6.4, vector 9: 28 layers of 3,072 with 6 that attend, converted to this container."""
        config = AutoConfig.for_model(
            "bamba", vocab_size=8, hidden_size=3072, intermediate_size=8, num_hidden_layers=28, num_attention_heads=24,
            num_key_value_heads=8, attn_layer_indices=[3, 8, 13, 18, 23, 27], mamba_expand=1, mamba_n_heads=24,
            mamba_n_groups=24, mamba_d_head=128, mamba_d_state=128,
        )  # fmt: skip
        assert state_bytes(config) == 18_923_520
        assert token_bytes(config) == 24_576
        before = LlamaConfig(hidden_size=3072, num_hidden_layers=28, num_attention_heads=24, num_key_value_heads=8)
        assert token_bytes(before) == 114_688 and state_bytes(before) == 0

    @given(st.lists(st.integers(-3, 8)))
    def test_layers_are_there_once(self, asked: list[int]) -> None:
        right = bool(asked) and len(set(asked)) == len(asked) and all(0 <= layer < 6 for layer in asked)
        if right:
            assert kept(asked, 6) == tuple(sorted(asked))
        else:
            with pytest.raises(HybridError):
                kept(asked, 6)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"attention_bias": True}, "attention_bias"),
            ({"mlp_bias": True}, "nowhere to go"),
            ({"head_dim": 16}, "fill the width"),
        ],
    )
    def test_what_has_no_place_is_refused(self, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
        llama(**changes).save_pretrained(tmp_path / "base")
        with pytest.raises(HybridError, match=said):
            convert(tmp_path / "base", tmp_path / "out", [1])
        assert not (tmp_path / "out").exists()

    def test_other_families_are_refused_by_name(self, tmp_path: Path) -> None:
        AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **SMALL)).save_pretrained(tmp_path / "base")
        with pytest.raises(HybridError, match="'qwen2'"):
            convert(tmp_path / "base", tmp_path / "out", [1])

    def test_what_is_there_stays_and_what_is_not_is_told(self, tmp_path: Path) -> None:
        llama().save_pretrained(tmp_path / "base")
        (tmp_path / "out").mkdir()
        with pytest.raises(HybridError, match="exists already"):
            convert(tmp_path / "base", tmp_path / "out", [1])
        with pytest.raises(HybridError, match="no model to convert"):
            convert(tmp_path / "nothing", tmp_path / "other", [1])
        with pytest.raises(HybridError, match="linear, released"):
            convert(tmp_path / "base", tmp_path / "other", [1], start="random")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]

    def test_stock_classes_open_it_with_its_tokenizer(self, tiny: CausalPolicy, tmp_path: Path) -> None:
        policy = converted(tiny, tmp_path)
        assert type(policy.model).__name__ == "BambaForCausalLM"
        described = json.loads((Path(policy.source) / "config.json").read_text())
        assert (
            described["hybrid"]["attention_layers"] == [1]
            and described["layers_block_type" if "layers_block_type" in described else "attn_layer_indices"]
        )
        assert policy.tokenizer.get_vocab() == tiny.tokenizer.get_vocab()


@pytest.fixture(scope="module")
def mixed(make_tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> CausalPolicy:
    """A policy whose first layer is recurrent, and whose second attends."""
    return converted(make_tiny(), tmp_path_factory.mktemp("hybrid"))


class TestPolicy:
    def asked(self, siblings: int = 3) -> list[Request]:
        seen = [Observation(text, max_tokens=9) for text in ("Hello.", "A longer question, with more in it?", "x")]
        return [Request(one, Distribution(), n) for n, one in enumerate(o for o in seen for _ in range(siblings))]

    def test_it_is_scored_by_what_it_was_drawn_from(self, mixed: CausalPolicy) -> None:
        actions = mixed.sample(self.asked())
        units = [Unit(action, 1.0, 1.0) for action in actions]
        assert "linear_attention" in mixed.why_plain
        worst = 0.0
        with torch.no_grad():
            for batch in mixed.rows(units, 400):
                worst = max(worst, float((mixed.score(batch) - torch.from_numpy(batch.old)).abs().max()))
        assert worst <= 1e-5

    def test_an_action_does_not_depend_on_who_is_beside_it(self, mixed: CausalPolicy) -> None:
        requests = self.asked()
        together = mixed.sample(requests)
        for request, action in zip(requests, together, strict=True):
            [alone] = mixed.sample([request])
            assert alone.tokens == action.tokens
            assert alone.logprobs == pytest.approx(action.logprobs, abs=1e-5)

    def test_all_of_it_learns(self, mixed: CausalPolicy) -> None:
        policy = mixed.twin("learns")
        units = [Unit(action, 1.0, 1.0) for action in policy.sample(self.asked())]
        sum(policy.score(batch).sum() for batch in policy.rows(units, 400)).backward()  # type: ignore[union-attr]
        assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in policy.parameters())


class TestStates:
    @settings(max_examples=8, deadline=None)
    @given(cuts=st.lists(st.integers(1, 7), min_size=1, max_size=5))
    def test_what_is_read_in_parts_is_what_is_read_at_once(self, mixed: CausalPolicy, cuts: list[int]) -> None:
        tokens = [31 * n % 200 for n in range(sum(cuts))]
        state, at = State(mixed), 0
        for cut in cuts:
            logits = state.append(tokens[at : at + cut])
            at += cut
        assert float((logits - State(mixed).append(tokens)).abs().max()) <= 1e-5
        assert state.tokens == tuple(tokens)

    def test_forks_go_their_own_ways_as_separate_runs_do(self, mixed: CausalPolicy) -> None:
        start = State(mixed)
        start.append(list(range(20)))
        forks = start.fork(4)
        for number, fork in enumerate(forks):
            for step in range(5):
                fork.append([40 + 7 * number + step])
        for number, fork in enumerate(forks):
            alone = State(mixed)
            alone.append(list(range(20)))
            for step in range(5):
                logits = alone.append([40 + 7 * number + step])
            assert fork.logits is not None and float((fork.logits - logits).abs().max()) <= 1e-5
        assert start.tokens == tuple(range(20)) and len({fork.tokens for fork in forks}) == 4
        # What was put aside is brought back by going on from another copy of it.
        [again] = start.fork()
        assert float((again.append([40]) - State(mixed).append([*range(20), 40])).abs().max()) <= 1e-5

    def test_bytes_grow_by_what_attends_alone(self, mixed: CausalPolicy, tiny: CausalPolicy) -> None:
        state, plain = State(mixed), State(tiny)
        for one in (state, plain):
            one.append(list(range(10)))
        config = mixed.model.config
        assert state.bytes == state_bytes(config, size=4) + 10 * token_bytes(config, size=4)
        assert plain.bytes == 10 * token_bytes(tiny.model.config, size=4)
        before = state.bytes
        state.append([1, 2, 3])
        assert state.bytes - before == 3 * token_bytes(config, size=4)

    def test_nothing_and_too_much_are_refused(self, mixed: CausalPolicy) -> None:
        state = State(mixed)
        with pytest.raises(PolicyError, match="at least one"):
            state.append([])
        state.append([1])
        with pytest.raises(PolicyError, match="at most 512"):
            state.append([0] * 512)
        assert state.tokens == (1,)

    def test_families_that_start_anew_are_refused(self, tiny: CausalPolicy) -> None:
        config = AutoConfig.for_model(
            "jamba", **SMALL, attn_layer_period=2, attn_layer_offset=1, mamba_d_state=8, mamba_dt_rank=4, num_experts=1,
            use_mamba_kernels=False,
        )  # fmt: skip
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        policy = CausalPolicy(model, tiny.tokenizer, "jamba")
        assert "are off by" in why_not_continued(policy)
        with pytest.raises(PolicyError, match="all at once"):
            State(policy)
        assert why_not_written(model) == ""  # token by token it is right

    def test_rows_of_layers_with_keys_and_a_state_take_both_along(self, tiny: CausalPolicy) -> None:
        """Falcon-H1: a layer's state would stay with other rows where only its keys are selected."""
        config = AutoConfig.for_model(
            "falcon_h1", **SMALL | {"vocab_size": len(tiny.tokenizer)}, head_dim=8, mamba_d_ssm=32, mamba_n_heads=4,
            mamba_n_groups=1, mamba_d_head=8, mamba_d_state=8, mamba_expand=1,
        )  # fmt: skip
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        assert why_not_written(model) == ""
        policy = CausalPolicy(model, tiny.tokenizer, "falcon")
        requests = [Request(Observation(text, max_tokens=5), Distribution(), n) for text in "ab" for n in range(3)]
        actions = policy.sample(requests)
        for request, action in zip(requests, actions, strict=True):
            assert policy.sample([request])[0].tokens == action.tokens

    def test_a_family_that_keeps_it_elsewhere_is_not_opened(self, tiny: CausalPolicy, tmp_path: Path) -> None:
        config = AutoConfig.for_model(
            "mamba2", vocab_size=len(tiny.tokenizer), hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=8,
            state_size=8, expand=1, n_groups=1, max_position_embeddings=256,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
        tiny.tokenizer.save_pretrained(tmp_path)
        with pytest.raises(PolicyError, match="not drawn from"):
            CausalPolicy.load(tmp_path)


class TestProbes:
    def test_the_layer_that_looks_far_back_is_found(self) -> None:
        """One whose values are nothing loses nothing."""
        model = llama()
        with torch.no_grad():
            model.model.layers[0].self_attn.v_proj.weight.zero_()
        replies = [(list(range(5, 45)), [50, 51, 52]), (list(range(40)), [7])]
        near = recall_costs(model, replies, near=4)
        assert near[0] == pytest.approx(0.0, abs=1e-6) and abs(near[1]) > 1e-4
        assert recall_costs(model, replies, near=50) == pytest.approx([0.0, 0.0], abs=1e-6)

    def test_those_that_lose_most_are_kept(self) -> None:
        assert choose_layers([0.1, 0.5, -0.1, 0.3], 2) == (1, 3)
        with pytest.raises(HybridError, match="1 to 2"):
            choose_layers([0.1, 0.2], 3)

    def test_nothing_to_probe_with(self, mixed: CausalPolicy) -> None:
        with pytest.raises(HybridError, match="no replies"):
            recall_costs(llama(), [([1], [])])
        with pytest.raises(HybridError, match="before its conversion"):
            recall_costs(mixed.model, [([1, 2], [3])])
