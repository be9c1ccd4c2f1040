"""Calibration layer by layer, lazy loading and retrieval, on the seven architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from memorist.decision import Action, Decision, Observation  # noqa: E402
from memorist.errors import DataError, ExpertsError  # noqa: E402
from memorist.fit.experts.calibrate import calibrate, signature  # noqa: E402
from memorist.fit.experts.checkpoint import open_checkpoint  # noqa: E402
from memorist.fit.experts.lazy import LazyModel  # noqa: E402
from memorist.fit.experts.quality import Gate, divergences, valid_share  # noqa: E402
from memorist.fit.experts.retrieve import permutations, recognise, similarity  # noqa: E402
from memorist.fit.experts.scores import adaptive_threshold, leaders, routed_sums, turned  # noqa: E402
from memorist.fit.experts.simulate import decoder_layers, masked, router_of  # noqa: E402
from memorist.fit.experts.statistics import check_fits, load_statistics  # noqa: E402
from memorist.fit.samples import read_samples, samples_of, write_samples  # noqa: E402
from moe import KINDS, save_moe, some_experts  # noqa: E402

SAMPLES = [[3, 17, 5, 9, 30, 1, 12], [8, 8, 2, 25]]
TOKENS = torch.tensor([SAMPLES[0]])


def slowly(model: Any) -> list[dict[str, Any]]:
    """The same statistics, by the plainest route: the whole model, hooks, and each expert's weights by hand."""
    found: list[dict[str, Any]] = []
    for layer in decoder_layers(model):
        if router_of(layer) is None:
            continue
        kept: dict[str, Any] = {"easyep": np.zeros(8), "frequency": np.zeros(8), "gate": np.zeros(8), "logits": []}
        seen: dict[str, Any] = {}
        found.append(kept)

        def before(module: Any, args: Any, seen: dict[str, Any] = seen) -> None:
            seen["h"] = args[0][0]

        def routed(module: Any, args: Any, out: Any, seen: dict[str, Any] = seen) -> None:
            seen["r"] = out

        def after(module: Any, args: Any, out: Any, seen: dict[str, Any] = seen, kept: dict[str, Any] = kept) -> None:
            logits, weights, ids = seen["r"]
            kept["logits"].append(logits.double().numpy())
            s = turned(seen["h"].double().numpy(), out.double().numpy())
            for token in range(len(ids)):
                for weight, expert in zip(weights[token], ids[token], strict=True):
                    one = torch.ones(1, 1, dtype=out.dtype)
                    alone = module.forward(args[0][token : token + 1], expert.reshape(1, 1), one)
                    kept["easyep"][expert] += float(weight) * float(alone.norm()) * s[token]
                    kept["frequency"][expert] += 1
                    kept["gate"][expert] += float(weight)

        layer.post_attention_layernorm.register_forward_pre_hook(before)
        router_of(layer).register_forward_hook(routed)
        layer.mlp.experts.register_forward_hook(after)
    with torch.no_grad():
        for sample in SAMPLES:
            model(torch.tensor([sample]))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_layer_by_layer_finds_what_the_whole_model_shows(kind: str, tmp_path: Path) -> None:
    model = save_moe(tmp_path, kind, shard="6KB")
    found = calibrate(open_checkpoint(tmp_path), SAMPLES, "both")
    wanted = slowly(model)
    assert len(wanted) == len(found.moe_layers) == len(found.thresholds)
    for layer, plain in enumerate(wanted):
        for name in ("easyep", "frequency", "gate"):
            assert found.sums[name].sum(axis=0)[layer] == pytest.approx(plain[name], rel=1e-4, abs=1e-6)
        ids, values = leaders(np.concatenate(plain["logits"]), 2)
        threshold = adaptive_threshold(values)
        peu = routed_sums(ids, values, 8, threshold=threshold, transform="max")
        assert found.thresholds[layer] == pytest.approx(threshold, rel=1e-5)
        assert found.scores("peu")[layer] == pytest.approx(peu / 11, rel=1e-4, abs=1e-6)
        assert found.scores("tcess")[layer] == pytest.approx(routed_sums(ids, values, 8) / 11, rel=1e-4, abs=1e-6)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-MoE for reading only; its layer 1 is dense."""
    folder = tmp_path_factory.mktemp("qwen")
    save_moe(folder, "qwen3_moe")
    return folder


class TestCalibration:
    def test_fused_files_give_the_same(self, qwen: Path, tmp_path: Path) -> None:
        save_moe(tmp_path, "qwen3_moe", fused=True)
        one, other = (calibrate(open_checkpoint(folder), SAMPLES, "t") for folder in (qwen, tmp_path))
        assert one.fingerprint == other.fingerprint
        assert all((one.sums[name] == other.sums[name]).all() for name in one.sums)

    def test_it_says_what_of_and_is_kept(self, qwen: Path, tmp_path: Path) -> None:
        steps: list[tuple[int, int]] = []
        made = calibrate(
            open_checkpoint(qwen), SAMPLES, "t", description="two lines", progress=lambda *at: steps.append(at)
        )
        made.save(tmp_path / "t.safetensors")
        found = load_statistics(tmp_path / "t.safetensors")
        assert (found.moe_layers, found.tokens.tolist(), found.description) == ((0, 2), [7, 4], "two lines")
        assert found.sums["peu"].shape == (2, 2, 8)
        assert found.data_hash == made.data_hash != calibrate(open_checkpoint(qwen), SAMPLES[:1], "t").data_hash
        assert steps == [(1, 3), (2, 3), (3, 3)]
        check_fits(found, open_checkpoint(qwen))

    def test_the_first_token_may_be_left_out(self, qwen: Path) -> None:
        found = calibrate(open_checkpoint(qwen), SAMPLES, "t", skip_first=True)
        assert found.tokens.tolist() == [6, 3]
        assert found.sums["frequency"].sum(axis=(1, 2)).tolist() == [6 * 2 * 2, 3 * 2 * 2]

    def test_another_model_does_not_fit(self, qwen: Path, tmp_path: Path) -> None:
        save_moe(tmp_path, "qwen3_moe", initializer_range=0.2)
        with pytest.raises(ExpertsError, match=r"calibration 't' is of another model .* calibrate this one"):
            check_fits(calibrate(open_checkpoint(qwen), SAMPLES, "t"), open_checkpoint(tmp_path))

    @pytest.mark.parametrize(
        ("samples", "message"), [([], "no samples"), ([[]], "empty"), ([[32]], "token 32 of a vocab")]
    )
    def test_samples_that_cannot_be_run(self, qwen: Path, samples: list[list[int]], message: str) -> None:
        with pytest.raises(ExpertsError, match=message):
            calibrate(open_checkpoint(qwen), samples, "t")

    def test_a_quantised_checkpoint_is_refused(self, tmp_path: Path) -> None:
        save_moe(tmp_path, "olmoe")
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
        with pytest.raises(ExpertsError, match=r"quantised; .* dequantised copy"):
            calibrate(open_checkpoint(tmp_path), SAMPLES, "t")


class TestData:
    def read(self, text: str, file: Path, **options: Any) -> list[list[int]]:
        file.write_text(text)
        return read_samples(file, file.parent, **options)

    def test_ids_are_taken_as_they_are(self, tmp_path: Path) -> None:
        text = '{"input_ids": [1, 2, 3]}\n\n{"input_ids": [4]}\n{"input_ids": [5]}\n'
        assert self.read(text, tmp_path / "d.jsonl", most_tokens=2, limit=2) == [[1, 2], [4]]

    def test_an_agents_own_decisions_are_data_by_role(self, tmp_path: Path) -> None:
        seen, text_only = Observation("?"), Decision("manager", "endpoint", Observation("?"), Action("NOOP"))
        decisions = [
            Decision("manager", "tiny", seen, Action("a", prompt=(1, 2), tokens=(3,))),
            Decision("answerer", "tiny", seen, Action("b", prompt=(4,), tokens=(5, 6))),
            text_only,
        ]
        found = samples_of(decisions, "manager")
        assert found == [[1, 2, 3]]
        write_samples(tmp_path / "manager.jsonl", found)
        assert read_samples(tmp_path / "manager.jsonl", tmp_path) == found
        with pytest.raises(ExpertsError, match="roles that have them: answerer, manager"):
            samples_of(decisions, "retriever")
        with pytest.raises(ExpertsError, match="roles that have them: none"):
            samples_of([text_only], "manager")

    def test_text_and_pairs_are_tokenised(self, tmp_path: Path) -> None:
        from memorist.models.registry import bundled_folder

        file = tmp_path / "d.jsonl"
        file.write_text('{"text": "a b c"}\n{"prompt": "a b", "response": " c"}\n')
        first, second = read_samples(file, bundled_folder())
        assert first == second and len(first) > 1

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("", ExpertsError, "empty; give JSON Lines with input_ids"),
            ("\n \n", ExpertsError, "empty"),
            ("{", DataError, r"record 1.*no JSON"),
            ('{"input_ids": [1]}\n[1]', DataError, "record 2.*expected an object"),
            ('{"input_ids": "abc"}', DataError, "'input_ids': expected a list of token ids"),
            ('{"input_ids": []}', DataError, "expected a list of token ids"),
            ('{"input_ids": [true]}', DataError, "expected a list of token ids"),
        ],
    )
    def test_bad_files_say_where(self, text: str, error: type[Exception], message: str, tmp_path: Path) -> None:
        with pytest.raises(error, match=message):
            self.read(text, tmp_path / "d.jsonl")

    @pytest.mark.parametrize("line", ['{"txt": "a"}', '{"prompt": "a"}', '{"text": 3}', '{"messages": []}', "{}"])
    def test_wrong_fields_name_the_right_ones(self, line: str, tmp_path: Path) -> None:
        from memorist.models.registry import bundled_folder

        (tmp_path / "d.jsonl").write_text(line)
        with pytest.raises(DataError, match="expected input_ids, messages, prompt and response, or text"):
            read_samples(tmp_path / "d.jsonl", bundled_folder())

    def test_no_file_and_no_tokenizer(self, tmp_path: Path) -> None:
        with pytest.raises(ExpertsError, match="cannot be read"):
            read_samples(tmp_path / "d.jsonl", tmp_path)
        with pytest.raises(ExpertsError, match="no tokenizer; put its files there, or give data with input_ids"):
            self.read('{"text": "a"}', tmp_path / "d.jsonl")


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(TOKENS).logits


class TestLazy:
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_answers_as_the_masked_model_before_and_after_a_switch(self, kind: str, tmp_path: Path) -> None:
        full = save_moe(tmp_path, kind, shard="6KB")
        first, second = some_experts(2), 7 - some_experts(2)
        with LazyModel(tmp_path, first) as lazy:
            for keep in (first, second):
                if keep is second:
                    lazy.switch(second)
                with masked(full, keep):
                    assert float((logits(lazy.model) - logits(full)).abs().max()) <= 1e-5
                assert np.sort(lazy.experts, axis=1).tolist() == np.sort(keep, axis=1).tolist()

    def test_only_the_chosen_experts_are_read_and_only_new_ones_moved(self, qwen: Path) -> None:
        tensors = load_file(qwen / "model.safetensors")
        experts = sum(tensor.nbytes for name, tensor in tensors.items() if ".experts." in name)
        others = sum(tensor.nbytes for name, tensor in tensors.items()) - experts
        with LazyModel(qwen, np.array([[0, 1], [2, 3]])) as lazy:
            assert lazy.bytes_read == others + experts // 4
            assert lazy.switch(np.array([[1, 5], [2, 3]])) == experts // 2 // 8
            assert lazy.experts.tolist() == [[5, 1], [2, 3]]
            assert lazy.switch(np.array([[5, 1], [3, 2]])) == 0

    @pytest.mark.parametrize("kind", ["qwen2_moe", "deepseek_v3"])
    def test_roles_that_share_a_union_answer_as_on_their_own(self, kind: str, tmp_path: Path) -> None:
        full = save_moe(tmp_path, kind)
        roles = [np.array([[0, 3], [5, 6]]), np.array([[3, 7], [1, 5]])]
        with LazyModel(tmp_path, np.array([[0, 3, 7], [1, 5, 6]])) as lazy:
            for keep in roles:
                with lazy.only(keep) as model, masked(full, keep):
                    assert float((logits(model) - logits(full)).abs().max()) <= 1e-5
            with pytest.raises(ExpertsError, match="not in memory"), lazy.only(np.array([[0, 1], [5, 6]])):
                pass

    def test_mass_on_absent_experts_is_seen(self, qwen: Path) -> None:
        with LazyModel(qwen, np.array([[0, 1], [2, 3]])) as few:
            assert np.isnan(few.absent_mass).all()
            logits(few.model)
            assert ((few.absent_mass > 0.2) & (few.absent_mass < 1)).all()
            few.switch(np.array([[4, 5], [6, 7]]))
            assert np.isnan(few.absent_mass).all()
        with LazyModel(qwen, np.tile(np.arange(8), (2, 1))) as all_of_them:
            logits(all_of_them.model)
            assert all_of_them.absent_mass == pytest.approx([0, 0], abs=1e-6)

    @pytest.mark.parametrize("kind", ["deepseek_v3", "gpt_oss", "mixtral"])
    def test_16_bits_with_a_router_in_32_are_run_and_loaded(self, kind: str, tmp_path: Path) -> None:
        save_moe(tmp_path, kind)
        file, config = tmp_path / "model.safetensors", json.loads((tmp_path / "config.json").read_text())
        tensors = {
            name: tensor if ".gate." in name or ".router." in name else tensor.to(torch.bfloat16)
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})
        (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
        full = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
        with LazyModel(tmp_path, some_experts(2)) as lazy, masked(full, some_experts(2)):
            assert float((logits(lazy.model) - logits(full)).abs().max()) <= 1e-5
        found = calibrate(open_checkpoint(tmp_path), SAMPLES, "t")
        wanted = slowly(full)
        for layer, plain in enumerate(wanted):
            assert found.sums["gate"].sum(axis=0)[layer] == pytest.approx(plain["gate"], rel=1e-4, abs=1e-6)

    def test_tied_heads_are_tied(self, tmp_path: Path) -> None:
        full = save_moe(tmp_path, "olmoe", tie_word_embeddings=True)
        with LazyModel(tmp_path, some_experts(2)) as lazy, masked(full, some_experts(2)):
            assert float((logits(lazy.model) - logits(full)).abs().max()) <= 1e-5

    def test_another_number_of_experts_is_refused(self, qwen: Path) -> None:
        with LazyModel(qwen, some_experts(2)) as lazy, pytest.raises(ExpertsError, match="3 experts for 4 slots"):
            lazy.switch(some_experts(2, keep=3))


class TestQuality:
    def test_divergence_is_that_of_the_two_distributions(self, qwen: Path) -> None:
        full = AutoModelForCausalLM.from_pretrained(qwen)
        choices = {"half": some_experts(2), "all": np.tile(np.arange(8), (2, 1))}
        found = divergences(full, SAMPLES, choices)
        total = 0.0
        for sample in SAMPLES:
            given = torch.tensor([sample])
            with torch.no_grad(), masked(full, choices["half"]):
                less = torch.log_softmax(full(given).logits, -1)
            with torch.no_grad():
                whole = torch.log_softmax(full(given).logits, -1)
            total += float(torch.nn.functional.kl_div(less, whole, log_target=True, reduction="sum"))
        assert found["half"].kl == pytest.approx(total / 11, rel=1e-4)
        assert found["half"].low < found["half"].kl < found["half"].high
        assert (found["half"].samples, found["half"].tokens) == (2, 11)
        assert (found["all"].kl, found["all"].agreement) == (pytest.approx(0, abs=1e-9), 1)

    def test_only_a_replys_tokens_may_count(self, qwen: Path) -> None:
        full, choices = AutoModelForCausalLM.from_pretrained(qwen), {"half": some_experts(2)}
        starts = [5, 1]
        found = divergences(full, SAMPLES, choices, starts=starts)["half"]
        total = 0.0
        for sample, start in zip(SAMPLES, starts, strict=True):
            given = torch.tensor([sample])
            with torch.no_grad(), masked(full, choices["half"]):
                less = torch.log_softmax(full(given).logits, -1)[:, start - 1 : -1]
            with torch.no_grad():
                whole = torch.log_softmax(full(given).logits, -1)[:, start - 1 : -1]
            total += float(torch.nn.functional.kl_div(less, whole, log_target=True, reduction="sum"))
        assert found.tokens == sum(map(len, SAMPLES)) - sum(starts)
        assert found.kl == pytest.approx(total / found.tokens, rel=1e-4)

    def test_the_form_of_replies_is_part_of_the_gate(self, qwen: Path) -> None:
        full = AutoModelForCausalLM.from_pretrained(qwen)
        prompts = [[3, 17, 5], [8, 2], [30, 30, 1]]
        wanted = [full.generate(torch.tensor([p]), do_sample=False, max_new_tokens=3)[0, -3:].tolist() for p in prompts]
        before = valid_share(full, prompts, lambda reply: reply in wanted, new_tokens=3)
        with masked(full, some_experts(2, keep=2)):
            after = valid_share(full, prompts, lambda reply: reply in wanted, new_tokens=3)
        assert before == 1 > after
        found = divergences(full, SAMPLES, {"half": some_experts(2)})["half"]
        assert Gate(most_kl=found.high, most_lost=1).reasons(found, before, after) == []
        [first, second] = Gate(most_kl=found.low, most_lost=0.02).reasons(found, before, after)
        assert "nats per token, over" in first and "100.0% before" in second

    def test_no_samples_are_refused(self, qwen: Path) -> None:
        with pytest.raises(ExpertsError, match="no samples"):
            divergences(AutoModelForCausalLM.from_pretrained(qwen), [], {})
        with pytest.raises(ExpertsError, match="no prompts"):
            valid_share(None, [], lambda reply: True)


class TestRetrieval:
    def test_cosine_is_not_fooled_by_length(self) -> None:
        query = np.array([[0, 0.2, 0.1, 0]])
        patterns = {"m": np.array([[0, 0.6, 0.3, 0]]), "a": np.array([[0.1, 0.1, 0.1, 0]])}
        squared = {task: float(((query - pattern) ** 2).sum()) for task, pattern in patterns.items()}
        assert squared == pytest.approx({"m": 0.20, "a": 0.02})
        assert similarity(query, patterns["a"]) == pytest.approx(0.775, abs=1e-3)
        found = recognise(query, patterns)
        assert (found.task, found.similarity) == ("m", pytest.approx(1.0))
        assert found.margin == pytest.approx(0.225, abs=1e-3)

    def test_what_is_too_near_to_tell_falls_back(self) -> None:
        patterns = {"m": np.array([[1, 0.1]]), "a": np.array([[1, 0.11]])}
        found = recognise(np.array([[1, 0.1]]), patterns, fall_back="general", margin=0.01)
        assert found.task == "general" and found.fell_back
        assert recognise(np.array([[1, 0.1]]), patterns, fall_back="general", margin=0).task == "m"

    def test_one_task_has_its_similarity_as_margin(self) -> None:
        found = recognise(np.array([[1.0, 0.0]]), {"m": np.array([[1.0, 1.0]])})
        assert found.margin == found.similarity == pytest.approx(0.5**0.5)

    def test_a_store_of_permutations_says_every_ranking(self) -> None:
        scores = np.array([[0.1, 0.4, 0.3, 0.2], [0.5, 0.1, 0.2, 0.9]])
        [row] = permutations(scores)
        assert row.tolist() == [1, 3, 0, 2]
        assert sorted(row[[1, 2]].tolist()) == [0, 3]

    def test_patterns_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(ExpertsError, match="no patterns"):
            recognise(np.ones((1, 4)), {})
        with pytest.raises(ExpertsError, match="of another model"):
            recognise(np.ones((1, 4)), {"m": np.ones((1, 5))})

    @pytest.mark.parametrize("layers", [1, 2])
    def test_a_prompts_signature_is_its_peu_without_the_last_layers_experts(self, layers: int, qwen: Path) -> None:
        opened = open_checkpoint(qwen)
        found = signature(opened, SAMPLES[0], layers)
        wanted = calibrate(opened, SAMPLES[:1], "t").scores("peu")[:layers]
        assert found == pytest.approx(wanted)
        assert recognise(found, {"same": wanted, "other": wanted[:, ::-1]}).task == "same"
