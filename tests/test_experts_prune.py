"""Pruned checkpoints: equal to the masked model, standard, whole or not there; and what is refused."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from memorist.errors import ExpertsError  # noqa: E402
from memorist.fit.experts.checkpoint import INDEX, Checkpoint, open_checkpoint  # noqa: E402
from memorist.fit.experts.masks import bare_mask, read_mask, wrapped_mask  # noqa: E402
from memorist.fit.experts.prune import prune  # noqa: E402
from memorist.fit.experts.scores import Ids  # noqa: E402
from memorist.fit.experts.select import Routing, choose  # noqa: E402
from memorist.fit.experts.simulate import mask_router, masked  # noqa: E402
from moe import KINDS, make_moe, save_moe, some_experts  # noqa: E402

TOKENS = torch.tensor([[3, 17, 5, 9, 30, 1, 12, 7], [8, 8, 2, 25, 19, 4, 0, 31]])


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(TOKENS).logits


def difference(source: Any, keep: Ids, out: Path, mode: str = "global") -> float:
    """Largest difference of logits between the pruned checkpoint, loaded unpatched, and the masked full model."""
    with masked(source, keep, mode):
        wanted = logits(source)
    found = AutoModelForCausalLM.from_pretrained(out)
    return float((logits(found) - wanted).abs().max())


def pruned(folder: Path, kind: str, mode: str = "global", keep: int = 4, **options: Any) -> tuple[Any, Ids]:
    """Make a model in folder/full and prune it into folder/less."""
    source = save_moe(folder / "full", kind, **options)
    opened = open_checkpoint(folder / "full")
    scores = np.random.default_rng(5).random((len(opened.moe_layers), opened.experts))
    chosen = choose(scores, keep, Routing.of(opened), mode)
    prune(opened, chosen, folder / "less", mode=mode)
    return source, chosen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [{}, {"shard": "6KB"}, {"fused": True}], ids=["one", "shards", "fused"])
def test_a_pruned_checkpoint_is_the_masked_model(kind: str, form: dict[str, Any], tmp_path: Path) -> None:
    source, chosen = pruned(tmp_path, kind, **form)
    assert len(list((tmp_path / "full").glob("*.safetensors"))) > (3 if "shard" in form else 0)
    assert difference(source, chosen, tmp_path / "less") <= 1e-5
    assert difference(source, some_experts(len(chosen)), tmp_path / "less") > 1e-3


GROUPS = {"n_group": 2, "topk_group": 1, "topk_method": "group_limited_greedy"}


@pytest.mark.parametrize("kind", ["deepseek_v2", "deepseek_v3"])
@pytest.mark.parametrize("mode", ["global", "balanced"])
def test_groups_are_switched_off_or_kept(kind: str, mode: str, tmp_path: Path) -> None:
    source, chosen = pruned(tmp_path, kind, mode, **GROUPS)
    config = json.loads((tmp_path / "less/config.json").read_text())
    assert (config["n_group"], config["topk_group"]) == ((1, 1) if mode == "global" else (2, 1))
    assert difference(source, chosen, tmp_path / "less", mode) <= 1e-5


def test_masking_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    source = save_moe(tmp_path, "deepseek_v3")
    before = logits(source)
    with masked(source, some_experts(2)):
        assert not torch.equal(logits(source), before)
    assert torch.equal(logits(source), before)


def test_a_correction_bias_brings_no_pruned_expert_back(tmp_path: Path) -> None:
    source = save_moe(tmp_path, "deepseek_v3")
    router = source.model.layers[1].mlp.gate
    router.e_score_correction_bias[:4] = 3.0
    with masked(source, np.array([[4, 5, 6, 7]] * 2)), torch.no_grad():
        _, weights, ids = router(torch.randn(20, 16))
    assert int(ids.min()) >= 4 and float(weights.min()) > 0


def test_a_gate_that_is_not_renormalised_weighs_kept_experts_more_after_pruning() -> None:
    model = make_moe("qwen2_moe", num_experts=4, hidden_size=4, norm_topk_prob=False)
    router = model.model.layers[0].mlp.gate
    with torch.no_grad():
        router.weight.copy_(torch.eye(4))
    given = torch.tensor([[2.0, 1.0, 0.0, 1.5]])
    assert float(router(given)[1].sum()) == pytest.approx(0.761481, abs=1e-6)
    full = torch.softmax(given, -1)[0]
    with masked(model, np.array([[0, 1, 2]] * 2)):
        _, weights, ids = router(given)
    assert ids.tolist() == [[0, 1]]
    assert weights[0].tolist() == pytest.approx([0.665241, 0.244728], abs=1e-6)
    assert float(weights.sum() / full[:2].sum()) == pytest.approx(1.4035, abs=1e-4)


def test_routing_to_groups_after_pruning_finds_only_kept_experts() -> None:
    changes = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "hidden_size": 8, "num_experts_per_tok": 2}
    router = make_moe("deepseek_v3", **changes).model.layers[1].mlp.gate
    scores = torch.tensor([0.9, 0.1, 0.05, 0.5, 0.6, 0.55, 0.2, 0.3])
    with torch.no_grad():
        router.weight.copy_(torch.diag(torch.logit(scores)))
        router.e_score_correction_bias.zero_()
    undo = mask_router(router, np.array([0, 3, 6, 7]), "global")
    assert sorted(router(torch.ones(1, 8))[2][0].tolist()) == [0, 3]
    undo()
    assert sorted(router(torch.ones(1, 8))[2][0].tolist()) == [0, 4]


class TestWhatIsWritten:
    def test_experts_are_renumbered_and_everything_else_stays(self, tmp_path: Path) -> None:
        _, chosen = pruned(tmp_path, "mixtral")
        before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("full", "less"))
        name = "model.layers.1.block_sparse_moe.experts.{}.w2.weight"
        assert torch.equal(after[name.format(2)], before[name.format(chosen[1][2])])
        assert name.format(4) not in after
        gate = "model.layers.1.block_sparse_moe.gate.weight"
        assert torch.equal(after[gate], before[gate][torch.as_tensor(chosen[1])])
        assert torch.equal(after["lm_head.weight"], before["lm_head.weight"])

    def test_the_index_is_of_what_was_written(self, tmp_path: Path) -> None:
        pruned(tmp_path, "qwen3_moe", shard="6KB")
        index = json.loads((tmp_path / "less" / INDEX).read_text())
        held: dict[str, str] = {}
        size = 0
        for file in (tmp_path / "less").glob("*.safetensors"):
            with safe_open(file, "pt") as opened:
                assert opened.metadata() == {"format": "pt"}
                held |= dict.fromkeys(opened.keys(), file.name)
                size += sum(opened.get_tensor(key).nbytes for key in opened.keys())  # noqa: SIM118
        assert index == {"metadata": {"total_size": size}, "weight_map": held}

    def test_the_keys_that_the_configuration_has_are_changed_and_the_choice_is_noted(self, tmp_path: Path) -> None:
        save_moe(tmp_path / "full", "qwen3_moe")
        file = tmp_path / "full/config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"num_experts": 8, "num_local_experts": 8}))
        opened = open_checkpoint(tmp_path / "full")
        prune(opened, some_experts(2), tmp_path / "less", note={"scorer": "easyep"})
        config = json.loads((tmp_path / "less/config.json").read_text())
        assert config["num_experts"] == config["num_local_experts"] == 4
        assert config["num_experts_per_tok"] == 2
        assert config["pruning"]["keep"] == some_experts(2).tolist()
        assert (config["pruning"]["scorer"], config["pruning"]["moe_layers"]) == ("easyep", [0, 2])

    def test_files_beside_are_copied_but_no_other_weights_and_no_old_index(self, tmp_path: Path) -> None:
        save_moe(tmp_path / "full", "olmoe")
        for name in ("tokenizer.json", "chat_template.jinja", "pytorch_model.bin", "model.safetensors.index.json.bak"):
            (tmp_path / "full" / name).write_text("x")
        prune(open_checkpoint(tmp_path / "full"), some_experts(2), tmp_path / "less")
        assert {file.name for file in (tmp_path / "less").iterdir()} >= {"tokenizer.json", "chat_template.jinja"}
        assert not (tmp_path / "less/pytorch_model.bin").exists()
        assert not (tmp_path / "less" / INDEX).exists()

    def test_scales_follow_their_experts_and_types_stay(self, tmp_path: Path) -> None:
        save_moe(tmp_path / "full", "deepseek_v3")
        file = tmp_path / "full/model.safetensors"
        tensors = load_file(file)
        for name in [name for name in tensors if ".experts." in name]:
            tensors[name] = tensors[name].to(torch.float8_e4m3fn)
            expert = float(name.split(".experts.")[1].split(".")[0])
            tensors[f"{name}_scale_inv"] = torch.full((1, 1), expert)
        tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.bfloat16)
        save_file(tensors, file, metadata={"format": "pt"})
        prune(open_checkpoint(tmp_path / "full"), some_experts(2), tmp_path / "less")
        found = load_file(tmp_path / "less/model.safetensors")
        name = "model.layers.2.mlp.experts.{}.up_proj.weight"
        for new, old in enumerate(some_experts(2)[1]):
            assert found[name.format(new)].dtype == torch.float8_e4m3fn
            assert float(found[name.format(new) + "_scale_inv"]) == old
            assert torch.equal(found[name.format(new)].float(), tensors[name.format(old)].float())
        assert found["model.norm.weight"].dtype == torch.bfloat16

    def test_packed_fused_experts_are_sliced_as_they_are(self, tmp_path: Path) -> None:
        save_moe(tmp_path / "full", "gpt_oss")
        file = tmp_path / "full/model.safetensors"
        tensors = load_file(file)
        for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
            del tensors[name]
            tensors[f"{name}_blocks"] = torch.randint(0, 255, (8, 6, 2, 16), dtype=torch.uint8)
            tensors[f"{name}_scales"] = torch.randint(0, 255, (8, 6, 2), dtype=torch.uint8)
        save_file(tensors, file, metadata={"format": "pt"})
        prune(open_checkpoint(tmp_path / "full"), some_experts(2), tmp_path / "less")
        found = load_file(tmp_path / "less/model.safetensors")
        for ending in ("gate_up_proj_blocks", "gate_up_proj_scales", "down_proj_bias"):
            name = f"model.layers.1.mlp.experts.{ending}"
            assert torch.equal(found[name], tensors[name][torch.as_tensor(some_experts(2)[1])])

    def test_layers_of_multi_token_prediction_are_dropped(self, tmp_path: Path) -> None:
        source = save_moe(tmp_path / "full", "deepseek_v3")
        file = tmp_path / "full/model.safetensors"
        tensors = load_file(file)
        more = {name.replace("layers.2.", "layers.3."): value.clone() for name, value in tensors.items()}
        save_file(tensors | more, file, metadata={"format": "pt"})
        found = prune(open_checkpoint(tmp_path / "full"), some_experts(2), tmp_path / "less")
        assert found.dropped_layers == (3,)
        assert json.loads((tmp_path / "less/config.json").read_text())["num_nextn_predict_layers"] == 0
        assert not [name for name in load_file(tmp_path / "less/model.safetensors") if "layers.3." in name]
        assert difference(source, some_experts(2), tmp_path / "less") <= 1e-5

    def test_only_what_is_kept_is_read(self, tmp_path: Path) -> None:
        save_moe(tmp_path / "full", "qwen3_moe", shard="6KB")
        found = prune(open_checkpoint(tmp_path / "full"), some_experts(2), tmp_path / "less")
        assert found.bytes_read == found.bytes_written < found.bytes_before


def test_a_masks_array_goes_out_and_comes_back(tmp_path: Path) -> None:
    save_moe(tmp_path / "m", "olmoe")
    opened, keep = open_checkpoint(tmp_path / "m"), some_experts(2)
    for data in (
        bare_mask(keep, 8),
        [[int(value) for value in row] for row in bare_mask(keep, 8)],
        [[bool(value) for value in row] for row in bare_mask(keep, 8)],
        wrapped_mask(keep, opened, {"scorer": "peu"}),
    ):
        (tmp_path / "mask.json").write_text(json.dumps(data))
        assert read_mask(tmp_path / "mask.json", opened).tolist() == keep.tolist()
    assert bare_mask(keep, 8)[0] == [float(i in keep[0]) for i in range(8)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "no JSON"),
        ("3", "array of rows"),
        ("[]", "array of rows"),
        ("[[1, 0], [1]]", "rows of equal length"),
        ("[[1, 0.5], [1, 0]]", "only 0 and 1"),
        ('[[1, "x"], [1, 0]]', "only 0 and 1"),
        ("[[1, 0], [1, 0]]", "2 layers of 2 experts"),
        (json.dumps([[1] * 8, [1] * 7 + [0]]), "rows keep 7 to 8"),
        ('{"format_version": 9}', "format_version is 9"),
        ('{"format_version": 1, "fingerprint": "x"}', "another model"),
    ],
)
def test_a_mask_that_is_none_is_refused(data: str, message: str, tmp_path: Path) -> None:
    save_moe(tmp_path / "m", "olmoe")
    (tmp_path / "mask.json").write_text(data)
    with pytest.raises(ExpertsError, match=message):
        read_mask(tmp_path / "mask.json", open_checkpoint(tmp_path / "m"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OLMoE in several shards, for reading only."""
    folder = tmp_path_factory.mktemp("olmoe")
    save_moe(folder, "olmoe", shard="6KB")
    return folder


@pytest.fixture
def copied(full: Path, tmp_path: Path) -> Path:
    """One that may be damaged."""
    shutil.copytree(full, tmp_path / "m")
    return tmp_path / "m"


def edit(file: Path, **changes: Any) -> None:
    data = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


class TestRefusals:
    def assert_refused(self, folder: Path, message: str) -> None:
        with pytest.raises(ExpertsError, match=message):
            open_checkpoint(folder)

    def test_a_dense_model(self, tmp_path: Path) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes)).save_pretrained(tmp_path)
        self.assert_refused(tmp_path, "'llama' has no experts: not a mixture of experts")

    def test_an_unknown_architecture(self, copied: Path) -> None:
        edit(copied / "config.json", model_type="qwen4_moe")
        self.assert_refused(copied, "unknown architecture 'qwen4_moe'; did you mean 'qwen3_moe'")

    def test_a_missing_shard(self, copied: Path) -> None:
        next(copied.glob("model-00002*")).unlink()
        self.assert_refused(copied, r"model-00002.*cannot be read .*every shard of the index is needed")

    @pytest.mark.parametrize("left", [0, 5, 100, -1])
    def test_a_truncated_shard(self, copied: Path, left: int) -> None:
        file = next(copied.glob("model-00002*"))
        file.write_bytes(file.read_bytes()[:left])
        self.assert_refused(copied, r"model-00002.*fetch the file again")

    @pytest.mark.parametrize("text", ["[]", '{"a": 3}', '{"a": {"dtype": "F32"}}', "{"])
    def test_a_header_that_is_none(self, copied: Path, text: str) -> None:
        next(copied.glob("model-00002*")).write_bytes(len(text).to_bytes(8, "little") + text.encode())
        self.assert_refused(copied, r"model-00002.*fetch")

    def test_an_index_that_names_absent_tensors(self, copied: Path) -> None:
        index = json.loads((copied / INDEX).read_text())
        index["weight_map"]["model.extra.weight"] = index["weight_map"]["model.norm.weight"]
        (copied / INDEX).write_text(json.dumps(index))
        self.assert_refused(copied, "names 1 tensors that are not in their files, first 'model.extra.weight'")

    def test_an_index_that_leads_elsewhere(self, copied: Path) -> None:
        edit(copied / INDEX, weight_map={"a": "../other/model.safetensors"})
        self.assert_refused(copied, "not a file of its own folder")

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}'])
    def test_an_index_that_is_none(self, copied: Path, text: str) -> None:
        (copied / INDEX).write_text(text)
        self.assert_refused(copied, "index.json")

    def test_an_expert_that_is_missing(self, copied: Path) -> None:
        index = json.loads((copied / INDEX).read_text())
        places = {k: v for k, v in index["weight_map"].items() if ".layers.1.mlp.experts.5." not in k}
        edit(copied / INDEX, weight_map=places)
        self.assert_refused(copied, "layer 1 has 7 of experts 0 to 7; incomplete")

    def test_a_router_that_is_missing(self, copied: Path) -> None:
        index = json.loads((copied / INDEX).read_text())
        places = {k: v for k, v in index["weight_map"].items() if k != "model.layers.1.mlp.gate.weight"}
        edit(copied / INDEX, weight_map=places)
        self.assert_refused(copied, "layer 1 has experts and no router")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_experts_per_tok": ...}, "num_experts_per_tok is None; expected 1 to 8"),
            ({"num_experts_per_tok": 9}, "num_experts_per_tok is 9"),
            ({"num_hidden_layers": "two"}, "num_hidden_layers is 'two'"),
        ],
    )
    def test_a_configuration_that_contradicts(self, copied: Path, changes: dict[str, Any], message: str) -> None:
        edit(copied / "config.json", **changes)
        self.assert_refused(copied, message)

    def test_no_checkpoint_at_all(self, tmp_path: Path) -> None:
        self.assert_refused(tmp_path / "nowhere", "is no folder")
        self.assert_refused(tmp_path, "no JSON that can be read")
        (tmp_path / "config.json").write_text("{}")
        self.assert_refused(tmp_path, "only safetensors checkpoints")

    @pytest.mark.parametrize(
        ("keep", "message"),
        [
            (np.array([[0], [1]]), "each token goes through 2"),
            (np.array([[0, 1]]), "expected 2 layers"),
            (np.array([[0, 8], [0, 1]]), "none of 0 to 7"),
            (np.array([[0, 0], [0, 1]]), "names an expert twice"),
        ],
    )
    def test_a_choice_that_cannot_work(self, full: Path, keep: Ids, message: str, tmp_path: Path) -> None:
        with pytest.raises(ExpertsError, match=message):
            prune(open_checkpoint(full), keep, tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_exists_is_not_touched(self, full: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("x")
        with pytest.raises(ExpertsError, match="exists already; give another --out"):
            prune(open_checkpoint(full), some_experts(2), tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["mine"]

    @pytest.mark.parametrize("limit", [0, 3000])
    def test_a_disk_that_is_full_half_way_leaves_nothing(self, full: Path, limit: int, tmp_path: Path) -> None:
        opened = open_checkpoint(full)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # The kernel refuses to write more into a file.
        try:
            with pytest.raises(ExpertsError, match=r"could not be written .*nothing is left"):
                prune(opened, some_experts(2), tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list(tmp_path.iterdir())

    def test_a_process_that_dies_half_way_leaves_nothing_that_looks_complete(self, full: Path, tmp_path: Path) -> None:
        np.save(tmp_path / "keep.npy", some_experts(2))
        code = """if True:
            import resource, signal, sys
            from pathlib import Path
            import numpy as np
            from memorist.fit.experts.checkpoint import open_checkpoint
            from memorist.fit.experts.prune import prune
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Writing beyond the limit kills.
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
            prune(open_checkpoint(Path(sys.argv[1])), np.load(sys.argv[2]), Path(sys.argv[3]))
        """
        arguments = [full, tmp_path / "keep.npy", tmp_path / "out"]
        died = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True)
        assert died.returncode == -signal.SIGXFSZ
        assert not (tmp_path / "out").exists()
        [left] = [path for path in tmp_path.iterdir() if path.is_dir()]
        assert left.name.startswith(".out.unfinished-") and any(left.iterdir())
        with pytest.raises(ExpertsError, match="no JSON that can be read"):
            open_checkpoint(left)
        prune(open_checkpoint(full), some_experts(2), tmp_path / "out")

    def test_a_source_that_shrinks_while_it_is_read(self, copied: Path, tmp_path: Path) -> None:
        opened = open_checkpoint(copied)
        file = next(copied.glob("model-00003*"))
        file.write_bytes(file.read_bytes()[:-200])
        with pytest.raises(ExpertsError, match="was longer when it was opened"):
            prune(opened, opened_choice(opened), tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["m"]


def opened_choice(opened: Checkpoint) -> Ids:
    """All experts, so that all bytes are read."""
    return np.tile(np.arange(opened.experts), (len(opened.moe_layers), 1))
