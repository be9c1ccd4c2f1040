"""Configurations are read as transformers builds them, and what is unknown or impossible is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memorist.errors import PlanError
from memorist.fit.plan.config import Model, open_model, read_config, shipped
from memorist.fit.plan.fields import FAMILIES
from memorist.fit.plan.layers import FeedForward, Precision, attention, delta_net, mamba, mamba2

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "vocab_size": 100, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 128, "dtype": "bfloat16",
}  # fmt: skip
MOE = LLAMA | {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
EXACT = {
    "bamba-9b": 9_780_235_392, "deepseek-v3": 671_026_404_352, "gemma-2-9b": 9_241_705_984,
    "gpt-oss-20b": 20_914_757_184, "llama-3.1-8b": 8_030_261_248, "mixtral-8x7b": 46_702_792_704,
    "olmoe-1b-7b": 6_919_161_856, "qwen2.5-7b": 7_615_616_512, "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-8b": 8_190_735_360,
}  # fmt: skip
"""Parameters of ten public models, as transformers builds them (the test below) and their pages say."""


def kinds(model: Model) -> list[str]:
    return [layer.mixer.kind for layer in model.architecture.layers]


def warned(config: dict[str, Any]) -> str:
    return "\n".join(read_config(config).warnings)


@pytest.mark.parametrize("name", EXACT)
def test_ten_public_models_have_the_parameters_that_they_have(name: str) -> None:
    # What is left out are norms inside attention, router biases and sinks.
    assert open_model(name).architecture.parameters == pytest.approx(EXACT[name], rel=1e-5)


@pytest.mark.parametrize("name", [name for name in shipped() if name != "bundled"])
def test_parameters_are_those_that_transformers_builds(name: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = json.loads(shipped()[name].read_text())
    config.pop("quantization_config", None)
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(config.pop("model_type"), **config)
        )
    exact = sum(parameter.numel() for parameter in built.parameters())
    assert open_model(name).architecture.parameters == pytest.approx(exact, rel=1e-5)
    assert exact == EXACT.get(name, exact)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"bamba", "deepseek_v2", "nemotron_h"}))
def test_every_known_family_is_read_as_transformers_builds_it(family: str) -> None:
    """With the family's default sizes, as transformers writes them; those of the others are not whole."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(family)
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(config)
    read = read_config(json.loads(json.dumps(config.to_dict())))
    exact = sum(parameter.numel() for parameter in built.parameters())
    assert read.architecture.parameters == pytest.approx(exact, rel=1e-4)
    assert read.warnings == ()


@pytest.mark.parametrize("name", shipped())
def test_shipped_configurations_are_read_without_a_warning(name: str) -> None:
    assert open_model(name).warnings == ()


def test_the_bundled_model_is_what_its_file_holds() -> None:
    architecture = open_model("bundled").architecture
    data = (shipped()["bundled"] / "model.safetensors").read_bytes()
    header = int.from_bytes(data[:8], "little")
    assert architecture.weight_bytes() == len(data) - 8 - header


class TestLayers:
    def test_latent_attention_keeps_the_same_for_any_number_of_heads(self) -> None:
        mla = LLAMA | {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16}
        for heads in (4, 8):
            read = read_config(mla | {"num_attention_heads": heads, "num_key_value_heads": heads})
            assert read.architecture.layers[0].mixer.kind == "MLA"
            assert read.architecture.cache_bytes_per_token() == 4 * (16 + 8) * 2

    @pytest.mark.parametrize(("kv_heads", "kind"), [(4, "MHA"), (2, "GQA"), (1, "MQA")])
    def test_attention_is_named_by_its_heads(self, kv_heads: int, kind: str) -> None:
        assert kinds(read_config(LLAMA | {"num_key_value_heads": kv_heads})) == [kind] * 4

    @pytest.mark.parametrize(
        ("fields", "sliding"),
        [
            ({"model_type": "mistral", "sliding_window": 8}, [1, 1, 1, 1]),
            ({"model_type": "gemma2", "sliding_window": 8}, [1, 0, 1, 0]),
            ({"model_type": "gemma3_text", "sliding_window": 8, "sliding_window_pattern": 3}, [1, 1, 0, 1]),
            ({"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": False}, [0, 0, 0, 0]),
            (
                {"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": True, "max_window_layers": 3},
                [0, 0, 0, 1],
            ),
            ({"layer_types": ["full_attention", "sliding_attention"] * 2, "sliding_window": 8}, [0, 1, 0, 1]),
        ],
    )
    def test_each_family_has_its_sliding_layers(self, fields: dict[str, Any], sliding: list[int]) -> None:
        read = read_config(LLAMA | fields)
        assert [layer.mixer.window for layer in read.architecture.layers] == [8 if s else None for s in sliding]
        assert read.warnings == ()

    @pytest.mark.parametrize(
        ("rule", "attends"),
        [
            ({"attn_layer_indices": [1]}, [1]),
            ({"full_attn_idxs": [0, 3]}, [0, 3]),
            ({"hybrid_override_pattern": "M*MM"}, [1]),
            ({"attn_layer_period": 2, "attn_layer_offset": 1}, [1, 3]),
            ({"full_attention_interval": 4}, [3]),
            ({"layers_block_type": ["mamba", "attention", "mamba", "mamba"]}, [1]),
            ({"mamba_config": {"attn_layers": [2], "d_inner": 64, "d_xb": 32}}, [2]),
        ],
    )
    def test_every_rule_for_hybrids_is_known_and_named(self, rule: dict[str, Any], attends: list[int]) -> None:
        read = read_config(LLAMA | {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16} | rule)
        assert [i for i, kind in enumerate(kinds(read)) if kind == "GQA"] == attends
        assert f"layers by {next(iter(rule)).removesuffix('.json')}" in read.notes[0]

    @pytest.mark.parametrize(
        ("fields", "mixer"),
        [
            ({"mamba_n_heads": 8, "mamba_d_state": 16, "mamba_d_head": "auto"}, mamba2(64, 8, 16, 16, 1, 4)),
            ({"mamba_d_state": 16}, mamba(64, 128, 16, 4, 4)),
            (
                {"mamba_num_heads": 8, "mamba_head_dim": 4, "ssm_state_size": 6, "n_groups": 2, "conv_kernel": 3},
                mamba2(64, 8, 4, 6, 2, 3),
            ),
            (
                {f"linear_{name}": 4 for name in (
                    "num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim"
                )},
                delta_net(64, 4, 4, 4, 4, 4),
            ),
        ],
    )  # fmt: skip
    def test_recurrent_layers_are_told_by_their_fields(self, fields: dict[str, Any], mixer: Any) -> None:
        made = read_config(LLAMA | {"full_attention_interval": 4} | fields).architecture.layers[0].mixer
        assert made == mixer
        assert made.state_bytes(Precision()) > 0
        assert made.cache_bytes(Precision()) == 0

    def test_layers_of_nemotron_are_one_part_each(self) -> None:
        fields = {"model_type": "nemotron_h", "hybrid_override_pattern": "M-*-", "mamba_num_heads": 8}
        read = read_config(LLAMA | fields | {"mamba_head_dim": 4, "ssm_state_size": 6})
        parts = [(layer.mixer.kind, layer.feed_forward.width, layer.norms) for layer in read.architecture.layers]
        assert parts == [("Mamba-2", 0, 1), ("none", 128, 1), ("GQA", 0, 1), ("none", 128, 1)]
        assert read.architecture.layers[1].feed_forward.projections == 2

    @pytest.mark.parametrize(
        ("fields", "sparse"),
        [
            ({}, [0, 1, 2, 3]),
            ({"first_k_dense_replace": 2}, [2, 3]),
            ({"decoder_sparse_step": 2}, [1, 3]),
            ({"mlp_only_layers": [0]}, [1, 2, 3]),
            ({"expert_layer_period": 2, "expert_layer_offset": 1}, [1, 3]),
            ({"moe_layer_freq": 2}, [0, 2]),
        ],
    )
    def test_experts_are_where_the_fields_say(self, fields: dict[str, Any], sparse: list[int]) -> None:
        layers = read_config(MOE | fields).architecture.layers
        assert [i for i, layer in enumerate(layers) if layer.feed_forward.count] == sparse
        assert layers[sparse[0]].feed_forward == FeedForward(64, 0, 8, 2, 32)

    def test_shared_experts_are_as_wide_as_all_of_them(self) -> None:
        part = read_config(MOE | {"n_shared_experts": 2}).architecture.layers[0].feed_forward
        assert part.width == 64
        assert part.active_width == 64 + 2 * 32


class TestWarnings:
    def test_an_unknown_field_is_named(self) -> None:
        assert warned(LLAMA | {"memory_heads": 3, "eyes": 2}) == (
            "fields that are not used: 'eyes', 'memory_heads'; if they change sizes, this plan does not know"
        )

    def test_a_null_says_nothing(self) -> None:
        assert warned(LLAMA | {"memory_heads": None}) == ""

    def test_an_unknown_family_is_named_with_what_it_is_taken_for(self) -> None:
        assert warned(LLAMA | {"model_type": "lama"}) == (
            "model_type 'lama' is not known: taken as Llama-like; did you mean 'llama'?"
        )

    @pytest.mark.parametrize(
        ("config", "names"),
        [
            (MOE | {"num_local_experts": 4}, ("num_experts is 8", "num_local_experts is 4", "contradict")),
            (LLAMA | {"torch_dtype": "float32"}, ("dtype is 'bfloat16'", "torch_dtype is 'float32'")),
            (
                LLAMA | {"attn_layer_indices": [0], "full_attention_interval": 4, "mamba_d_state": 8},
                ("attn_layer_indices and full_attention_interval contradict",),
            ),
            (
                LLAMA | {"layer_types": ["sliding_attention"] * 4, "sliding_window": 8, "use_sliding_window": False},
                ("use_sliding_window is false and layers slide",),
            ),
            (LLAMA | {"attn_layer_indices": [0], "mamba_d_state": 8, "mamba_conv_bias": False}, ("mamba_conv_bias",)),
        ],
    )
    def test_fields_that_contradict_are_named_with_the_one_used(
        self, config: dict[str, Any], names: tuple[str, ...]
    ) -> None:
        found = warned(config)
        assert all(name in found for name in names)
        assert len(found.splitlines()) == 1


class TestRefused:
    @pytest.mark.parametrize("value", [0, -1, 2.5, True, "64"])
    @pytest.mark.parametrize(
        "name", ["hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
    )
    def test_sizes_that_are_no_sizes(self, name: str, value: Any) -> None:
        with pytest.raises(PlanError, match=f"config: {name} is {value!r}; expected a whole number of 1 or more"):
            read_config(LLAMA | {name: value})

    @pytest.mark.parametrize("name", ["num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step"])
    def test_sizes_of_experts_that_are_no_sizes(self, name: str) -> None:
        with pytest.raises(PlanError, match=f"{name} is -2"):
            read_config(MOE | {name: -2})

    @pytest.mark.parametrize("name", ["hidden_size", "vocab_size", "num_attention_heads", "intermediate_size"])
    def test_a_missing_size_says_how_to_get_it(self, name: str) -> None:
        with pytest.raises(PlanError, match=rf"{name!r} is missing; .*AutoConfig\.from_pretrained"):
            read_config({key: value for key, value in LLAMA.items() if key != name})

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (LLAMA | {"num_key_value_heads": 3}, "4 query heads on 3 key-value heads"),
            (LLAMA | {"num_attention_heads": 6, "num_key_value_heads": 6}, "64 on 6 heads without head_dim"),
            (MOE | {"num_experts_per_tok": 9}, "num_experts_per_tok is 9 and there are 8 experts"),
            (LLAMA | {"layer_types": ["full_attention"]}, "layer_types has 1 layers and num_hidden_layers is 4"),
            (LLAMA | {"layer_types": ["full_atention"] * 4}, "did you mean 'full_attention'?"),
            (LLAMA | {"layer_types": ["sliding_attention"] * 4}, "'sliding_window' is missing"),
            (LLAMA | {"model_type": "mistral", "sliding_window": 0}, "sliding_window is 0"),
            (LLAMA | {"hybrid_override_pattern": "MXMM"}, "expected only M"),
            (LLAMA | {"attn_layer_indices": [4]}, "names layer 4; num_hidden_layers is 4"),
            (LLAMA | {"full_attention_interval": 2}, "recurrent layers of no known kind"),
            (LLAMA | {"dtype": "float8"}, "dtype is 'float8'; did you mean 'float32'?"),
            (LLAMA | {"is_encoder_decoder": True}, "only decoder-only language models can be planned"),
            ({"vision_config": {}, "hidden_size": 3}, "multimodal configuration without any of text_config"),
            (LLAMA | {"quantization_config": {"quant_method": "aqlm"}}, "method 'aqlm'.* --weights"),
            (LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "method 'gptq'.*groups of None"),
        ],
    )
    def test_what_cannot_be(self, config: dict[str, Any], message: str) -> None:
        with pytest.raises(PlanError, match=message):
            read_config(config)

    def test_a_model_that_is_nowhere(self) -> None:
        with pytest.raises(
            PlanError, match="'qwen3-9b' is neither a folder, a file nor shipped; did you mean 'qwen3-8b'"
        ):
            open_model("qwen3-9b")

    @pytest.mark.parametrize("text", ["{", "[]", "\xff"])
    def test_a_file_that_is_no_configuration(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(PlanError, match=r"config\.json: (no JSON that can be read|expected an object of fields)"):
            open_model(tmp_path)

    def test_a_folder_without_one(self, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="no JSON that can be read"):
            open_model(tmp_path)


class TestWrapped:
    def test_a_multimodal_wrapper_is_planned_for_its_language_model(self) -> None:
        wrapper = {"model_type": "qwen2_5_vl", "vision_config": {"depth": 3}, "text_config": LLAMA}
        read = read_config(wrapper | {"tie_word_embeddings": True})
        assert read.architecture.tied
        assert (
            read.architecture.parameters == read_config(LLAMA | {"tie_word_embeddings": True}).architecture.parameters
        )
        assert "multimodal wrapper: the language model in text_config; other towers are not counted" in read.notes

    @pytest.mark.parametrize(
        ("quantised", "size"),
        [
            ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1 + 4 / 16384),
            ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 0.5 + 2.5 / 128),
            ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5 + 2 / 64),
            ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1 + 2 / 128),
        ],
    )
    def test_a_quantised_checkpoint_says_so_and_counts_its_bytes(self, quantised: Any, size: float) -> None:
        plain, read = read_config(LLAMA), read_config(LLAMA | {"quantization_config": quantised})
        rest = (2 * 100 + 4 * 2 + 1) * 64  # embedding, head and norms stay in 16 bits
        assert read.architecture.weight_bytes() == (plain.architecture.parameters - rest) * size + rest * 2
        assert any("quantised checkpoint" in note for note in read.notes)

    def test_mxfp4_is_for_experts_only(self) -> None:
        read = read_config(MOE | {"quantization_config": {"quant_method": "mxfp4"}}).architecture
        assert read.weight_bytes() == (read.parameters - read.experts) * 2 + read.experts * (0.5 + 1 / 32)

    def test_a_conversion_of_m1_is_read_from_its_side_file(self, tmp_path: Path) -> None:
        llama = json.loads(shipped()["llama-3.2-3b"].read_text())
        side = {"attn_layers": [5, 8, 12, 18, 22, 26], "d_inner": 3072, "d_xb": 1024, "ssm_cfg": {"expand": 1}}
        (tmp_path / "config.json").write_text(json.dumps(llama))
        (tmp_path / "mamba_config.json").write_text(json.dumps(side))
        hybrid = open_model(tmp_path).architecture
        assert hybrid.parameters == 3_447_874_560
        assert (hybrid.cache_bytes_per_token(), hybrid.state_bytes()) == (24_576, 2_703_360)

    @pytest.mark.parametrize(("factor", "warns"), [(1.0, 0), (1.01, 0), (1.1, 1)])
    def test_the_checkpoint_s_index_is_checked(self, factor: float, warns: int, tmp_path: Path) -> None:
        size = read_config(LLAMA).architecture.weight_bytes() * factor
        (tmp_path / "config.json").write_text(json.dumps(LLAMA))
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}}))
        assert len(open_model(tmp_path).warnings) == warns


def test_biases_and_gates_are_counted() -> None:
    plain, biased = attention(32, 4, 2, 8), attention(32, 4, 2, 8, qkv_bias=True, out_bias=True)
    assert biased.extras - plain.extras == (4 + 2 + 2) * 8 + 32
    assert attention(32, 4, 2, 8, gated=True).matrices[0] == (32, 64)


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from memorist.fit.plan import open_model, open_hardware, make_plan, Workload; import memorist.fit."
        "plan.command; make_plan(open_model('qwen3-8b').architecture, Workload(), open_hardware('h100')); "
        "print(sorted({'torch', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
