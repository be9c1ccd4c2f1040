"""`memorist plan` from end to end: tables, JSON, pictures, profiles, calibration, and plans beside runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from memorist.cli import app
from memorist.errors import MemoristError, PlanError
from memorist.fit.plan.command import prepare
from memorist.fit.plan.config import shipped
from memorist.fit.plan.hardware import (
    HERE,
    Calibration,
    Hardware,
    Rates,
    open_hardware,
    read_hardware,
    save_calibrated,
    shipped_hardware,
)
from memorist.fit.plan.runs import Watch, departure, planned_memory, read_measured, workload_of
from memorist.recipe import Recipe, WeightSettings, load_recipe

QUANTITY = {"value": 80, "unit": "GB", "source": "a data sheet"}
PROFILE = {
    "name": "mine",
    "memory": QUANTITY,
    "memory_bandwidth": QUANTITY | {"unit": "TB/s", "value": 3},
    "compute": QUANTITY | {"unit": "TFLOP/s"},
}
RATES = Rates(1e-11, 1e-9, 1e-4, 1e-3)
MEASURED_HERE = Hardware(
    "here", 16e9, 2e10, 1e11, sources=dict.fromkeys(("memory", "memory_bandwidth", "compute"), "measured"),
    calibration=Calibration("2 threads", "2026-01-02", RATES, RATES, 1.1, 4e8, scores=True),
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of this test alone."""
    monkeypatch.setenv("MEMORIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "cache"


def ran(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["plan", *arguments])
    assert found.exit_code == 0, found.exception
    return found.output


def refused(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["plan", *arguments])
    assert isinstance(found.exception, MemoristError)
    return str(found.exception)


class TestCommand:
    def test_it_says_what_is_needed_and_how_fast(self) -> None:
        out = ran("qwen3-8b", "--hardware", "h200", "--devices", "8", "--shard", "3", "--turns", "4")
        assert "8.19 B parameters" in out
        assert "8 × H200 SXM" in out
        for row in ("kept per token", "147.46 kB", "full, ZeRO-3", "16.38 GB", "prefill, forked", "compute", "waves"):
            assert row in out, row
        assert "does not fit" not in out

    def test_json_holds_every_number_and_is_json(self) -> None:
        found = json.loads(ran("deepseek-v3", "--serve", "--hardware", "h800", "--devices", "64", "--json"))
        assert found["parameters"] == 671_026_279_424
        assert found["memory"]["per_token"] == 70_272
        assert found["architecture"]["layers"] == {"MLA": 61}
        assert found["speed"]["decode"]["wall"] in ("memory", "compute", "link")
        assert found["fits"] is True
        assert found["networks"][0]["cost"] == 4394.53
        assert any("quantised checkpoint" in note for note in found["notes"])
        assert found["memory"]["states"] == 0 == found["memory"]["activations"]

    def test_forms_stand_side_by_side(self) -> None:
        out = ran("mixtral-8x7b", "--serve", "--compare", "--devices", "2")
        for column in ("as given", "dense (MHA)", "MLA", "hybrid", "pruned"):
            assert column in out
        assert "Quality is not part of this" in out
        assert re.search(r"keeps less from .*│ 40 tokens", out)  # 26 · 163,840 bytes of state for 106,496 a token
        found = json.loads(ran("mixtral-8x7b", "--serve", "--compare", "--kept-experts", "0.25", "--json"))
        kept = {name: plan["parameters"] for name, plan in found["compared"].items()}
        assert kept["pruned"] < kept["as given"] / 3

    def test_every_option_reaches_the_workload(self) -> None:
        options = {
            "prompts": 3, "group-size": 5, "turns": 2, "prompt-tokens": 70, "observation-tokens": 11,
            "new-tokens": 13, "memory-tokens": 17, "context": "rewrite", "weights": "fp8", "cache": "fp8",
            "optimizer": "adam-8bit", "lora-rank": 4, "shard": 1, "acceptance": 0.5,
        }  # fmt: skip
        found = json.loads(ran("qwen3-8b", "--json", *(f"--{name}={value}" for name, value in options.items())))
        assert {name: found["workload"][name.replace("-", "_")] for name in options} == options

    @pytest.mark.parametrize("ending", ["svg", "png"])
    def test_a_picture_is_drawn(self, ending: str, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        ran("llama-3.2-3b", "--plot", str(tmp_path / f"deep/plot.{ending}"))
        assert (tmp_path / f"deep/plot.{ending}").stat().st_size > 5000

    def test_a_picture_of_no_known_kind_is_refused(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        assert "give .svg, .png or .pdf" in refused("llama-3.2-3b", "--plot", str(tmp_path / "plot.doc"))

    def test_warnings_are_shown(self, tmp_path: Path) -> None:
        config = json.loads((Path(__file__).parent.parent / "src/memorist/models/bundled/config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"num_memories": 3}))
        assert "! fields that are not used: 'num_memories'" in ran(str(tmp_path))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "nothing to plan: give a model, --recipe or --calibrate"),
            (("qwen3-8b", "--hardware", "h10"), "did you mean 'h100'?"),
            (("qwen3-8b", "--hardware", HERE), "not calibrated; type: memorist plan --calibrate"),
            (("qwen3-8b", "--devices", "0"), "0 devices; expected 1 or more"),
            (("qwen3-8b", "--turns", "-1"), "turns is -1; expected 1 or more"),
            (("qwen3-8b", "--acceptance", "1.5"), "acceptance is 1.5; expected 0 to 1"),
            (("qwen3-8b", "--context", "apend"), "did you mean 'append'?"),
            (("--recipe", "memory-r2"), "did you mean 'memory-r1'?"),
            (("mixtral-8x7b", "--compare", "--kept-experts", "0"), "0 of 8 experts kept"),
        ],
    )
    def test_mistakes_say_what_to_do(self, arguments: tuple[str, ...], message: str) -> None:
        assert message in refused(*arguments)


class TestHardware:
    @pytest.mark.parametrize("name", shipped_hardware())
    def test_shipped_profiles_have_sources_and_plausible_sizes(self, name: str) -> None:
        found = open_hardware(name)
        assert 1e10 < found.memory < 1e12
        assert 5e10 < found.memory_bandwidth < 1e13
        assert found.compute / found.memory_bandwidth > 20
        assert all(len(source) > 5 for source in found.sources.values())

    def test_the_asked_for_machines_are_there(self) -> None:
        named = {"h100", "h200", "h800", "a100", "l40s", "rtx-4090", "rtx-5090", "m4-max", "cpu"}
        assert named <= shipped_hardware().keys()

    def test_units_are_read(self) -> None:
        found = read_hardware(PROFILE | {"memory": QUANTITY | {"unit": "GiB"}, "node": QUANTITY | {"unit": "devices"}})
        assert (found.memory, found.memory_bandwidth, found.compute, found.node) == (80 * 2**30, 3e12, 80e12, 80)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"memory": 80}, r"memory is 80, without a unit; write memory: \{value: 80, unit: GB"),
            ({"memory": {"value": 80, "source": "x"}}, "memory has no unit"),
            ({"memory": {"value": 80, "unit": "GB"}}, "memory has no source"),
            ({"compute": QUANTITY | {"unit": "TFLOPS"}}, r"unit 'TFLOPS'; did you mean 'TFLOP/s'\?"),
            ({"memory": QUANTITY | {"value": 0}}, "memory is 0; expected a number over 0"),
            ({"memory": QUANTITY | {"value": -80}}, "memory is -80"),
            ({"memory": QUANTITY | {"value": "many"}}, "memory is 'many'"),
            ({"memory": QUANTITY | {"value": float("nan")}}, "memory is nan"),
            ({"memroy": QUANTITY}, r"unknown quantity 'memroy'; did you mean 'memory'\?"),
            ({"calibration": {"update": {}}}, "calibration cannot be read"),
        ],
    )
    def test_a_profile_that_lacks_something_is_refused(self, changed: dict[str, Any], message: str) -> None:
        with pytest.raises(PlanError, match=message):
            read_hardware(PROFILE | changed)

    @pytest.mark.parametrize("lacking", ["name", "memory", "memory_bandwidth", "compute"])
    def test_a_missing_quantity_is_named(self, lacking: str) -> None:
        with pytest.raises(PlanError, match=f"'{lacking}' is missing"):
            read_hardware({key: value for key, value in PROFILE.items() if key != lacking})

    @pytest.mark.parametrize("text", ["- 1", "{", "a: [\n"])
    def test_a_file_that_is_no_profile(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(PlanError, match=r"mine\.yaml: (not YAML|expected quantities)"):
            open_hardware(tmp_path / "mine.yaml")

    def test_a_calibration_is_kept_as_it_was(self) -> None:
        save_calibrated(MEASURED_HERE)
        assert open_hardware(HERE) == MEASURED_HERE

    def test_what_was_not_measured_is_not_kept(self) -> None:
        with pytest.raises(PlanError, match="was not calibrated"):
            save_calibrated(open_hardware("h100"))


class TestCalibration:
    def test_what_a_plan_supposes_of_attention_is_what_policies_do(self) -> None:
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        from memorist.fit.plan import workload
        from memorist.models import attention, decoding

        assert (workload.BLOCK, workload.SHARED_FROM) == (attention.QUERIES, decoding.SHARED_FROM)

    def test_rates_are_found_again(self) -> None:
        pytest.importorskip("torch")
        from memorist.fit.plan.calibrate import fit_rates

        costs = [(1e9, 1e6, 2, 1), (5e9, 9e6, 4, 1), (2e9, 8e7, 8, 2), (7e9, 3e6, 3, 1), (1e8, 1e8, 6, 4)]
        found = fit_rates(costs, [RATES.seconds(*cost) for cost in costs])
        assert found.flop == pytest.approx(RATES.flop)
        assert found.byte == pytest.approx(RATES.byte)
        assert found.layer == pytest.approx(RATES.layer)
        assert found.call == pytest.approx(RATES.call)

    def test_no_rate_is_negative(self) -> None:
        pytest.importorskip("torch")
        from memorist.fit.plan.calibrate import fit_rates

        found = fit_rates([(1, 5, 1, 1), (2, 3, 1, 1), (3, 1, 1, 1)], [1.0, 2.0, 3.0])
        assert min(found.flop, found.byte, found.layer, found.call) >= 0
        assert found.flop == pytest.approx(1.0)

    def test_this_machine_is_measured_and_planned_with(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        from memorist.fit.plan import calibrate

        monkeypatch.setattr(calibrate, "References", lambda: calibrate.QUICK)
        ran("--calibrate")
        found = open_hardware(HERE)
        assert found.calibration is not None
        assert found.calibration.base > 2**24
        assert found.calibration.update.seconds(1e9, 1e8, 2, 1) > 0
        assert found.calibration.decode.seconds(1e9, 1e8, 2, 1) > 0
        assert found.memory > 1e9
        assert found.compute > 0  # how fast it is depends on what else runs
        out = ran("--recipe", "memory-r1-demo", "--hardware", HERE)
        assert f"calibrated {found.calibration.date}" in out


def written(folder: Path, **changes: Any) -> dict[str, Any]:
    """Put one step's metrics into a run's folder."""
    row = {
        "stage": 0, "step": 1, "steps": 2, "decisions": 10, "length": 4.0, "seconds": 3.0, "update_seconds": 1.0,
        "peak_memory_bytes": 10**9,
    } | changes  # fmt: skip
    folder.mkdir(exist_ok=True)
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")
    return row


class TestRuns:
    def test_a_recipe_is_planned_as_it_is_trained(self) -> None:
        recipe = load_recipe("memory-r1")
        work = workload_of(recipe, scores=True)
        assert (work.prompts, work.group_size, work.micro_tokens) == (32, 8, 8192)
        assert (work.optimizer, work.weights, work.copies, work.checkpointing) == ("adamw-fp32", "fp32", 2, False)
        with pytest.raises(PlanError, match="has no stages"):
            workload_of(Recipe(), scores=True)

    def test_adapters_of_a_recipe_are_planned_on_one_frozen_base_with_checkpointing_where_it_is_asked_for(self) -> None:
        work = workload_of(load_recipe("memory-r1-7b"), scores=False)
        assert (work.lora_rank, work.copies, work.checkpointing) == (16, 0, True)
        without = replace(load_recipe("memory-r1-7b"), weights=WeightSettings())
        work = workload_of(without, scores=False)
        assert (work.lora_rank, work.copies, work.checkpointing) == (0, 2, False)

    @pytest.mark.parametrize(("size", "hardware", "memory"), [("7b", "h100", 80e9), ("1.5b", "rtx-4090", 24e9)])
    def test_recipes_of_instruct_models_fit_where_the_docs_say(self, size: str, hardware: str, memory: float) -> None:
        lengths = {"prompt_tokens": 2048, "new_tokens": 256}
        plan = prepare(f"qwen2.5-{size}", f"memory-r1-{size}", hardware, 1, lengths).plan
        assert 0.5 * memory < plan.memory.planned < 0.9 * memory

    def test_a_recipe_names_its_model_and_may_be_given_another(self) -> None:
        assert ran("--recipe", "memory-r1").startswith("bundled: 1.12 M parameters")
        assert ran("qwen2.5-1.5b", "--recipe", "memory-r1").startswith("qwen2.5-1.5b")

    def test_a_plan_is_kept_before_a_run_and_not_after_its_first_step(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        ran("--recipe", "memory-r1", "--run", str(run))
        first = planned_memory(run)
        assert first is not None and first > 2e9
        written(run)
        out = ran("qwen2.5-1.5b", "--recipe", "memory-r1", "--run", str(run))
        assert planned_memory(run) == first
        assert "1.00 GB" in out
        assert "! live memory is 1.00 GB, -" in out

    def test_measured_values_stand_beside_the_plan(self, tmp_path: Path) -> None:
        written(tmp_path, update_seconds=0.123, seconds=1.0)
        found = json.loads(ran("--recipe", "memory-r1", "--run", str(tmp_path), "--json"))
        assert found["measured"]["update_seconds"] == 0.123
        assert found["departure"].startswith("live memory is 1.00 GB")

    def test_measurements_are_the_peak_and_medians(self, tmp_path: Path) -> None:
        assert read_measured(tmp_path) == {}
        for seconds, peak in ((1.0, 3), (2.0, 9), (9.0, 5)):
            written(tmp_path, update_seconds=seconds, seconds=seconds + 2, peak_memory_bytes=peak)
        with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as log:
            log.write('{"step": 4, "upd')  # torn by a kill
        assert read_measured(tmp_path) == {"peak_memory_bytes": 9, "update_seconds": 2.0, "rollout_rate": 20.0}

    def test_metrics_of_older_runs_have_nothing_measured(self, tmp_path: Path) -> None:
        (tmp_path / "metrics.jsonl").write_text('{"step": 1, "seconds": 2.0}\n')
        assert read_measured(tmp_path) == {}

    @pytest.mark.parametrize(("measured", "said"), [(1.14e9, None), (0.86e9, None), (1.16e9, "+16%"), (0.84e9, "-16%")])
    def test_more_than_15_percent_is_a_departure(self, measured: float, said: str | None) -> None:
        sentence = departure(1e9, measured)
        assert sentence is None if said is None else said in (sentence or "")

    @pytest.mark.parametrize(
        ("peaks", "during", "after"),
        [
            ((1.0e9, 1.2e9, 1.3e9), "live memory is 1.20 GB, +20% from the plan's 1.00 GB", None),
            ((0.5e9, 0.6e9), None, "live memory is 0.60 GB, -40% from the plan's 1.00 GB"),
            ((0.5e9, 1.1e9), None, None),
            ((), None, None),
        ],
    )
    def test_a_run_says_once_that_it_departs_and_waits_with_less(
        self, peaks: tuple[float, ...], during: str | None, after: str | None, tmp_path: Path
    ) -> None:
        shown: list[Any] = []
        said: list[str] = []
        (tmp_path / "plan.json").write_text(json.dumps({"memory": {"planned": 1e9}}))
        watch = Watch(tmp_path, shown.append, said.append)
        for peak in peaks:
            watch({"peak_memory_bytes": peak})
        assert len(shown) == len(peaks)
        assert said == ([during] if during else [])
        watch.end()
        assert said[bool(during) :] == ([after] if after else [])

    def test_without_a_plan_nothing_is_said(self, tmp_path: Path) -> None:
        said: list[str] = []
        watch = Watch(tmp_path, lambda metrics: None, said.append)
        watch({"peak_memory_bytes": 9e9})
        watch.end()
        assert said == []

    @pytest.mark.parametrize("text", ["{", "{}", '{"memory": 3}'])
    def test_a_plan_that_cannot_be_read_says_how_to_make_it_again(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(PlanError, match=r"plan\.json: no plan that can be read; make it again with memorist plan"):
            planned_memory(tmp_path)

    def test_train_watches_the_plan_of_its_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("torch")
        from memorist.evaluation import runs

        def train(recipe: Any, folder: Path, *, resume: bool, progress: Any, say: Any) -> None:
            progress({"stage": 0, "kind": "rl", "role": "manager", "step": 1, "steps": 1, "reward": 0.0, "left": 0.0,
                      "peak_memory_bytes": 2e9})  # fmt: skip

        monkeypatch.setattr(runs, "train", train)
        (tmp_path / "plan.json").write_text(json.dumps({"memory": {"planned": 1e9}}))
        found = CliRunner().invoke(app, ["train", "memory-r1-demo", "--out", str(tmp_path)])
        assert "live memory is 2.00 GB, +100% from the plan's 1.00 GB" in found.output


def test_the_docs_name_all_that_is_shipped() -> None:
    page = (Path(__file__).parent.parent / "docs" / "plan.md").read_text(encoding="utf-8")
    listed = page.partition("Shipped models: ")[2].partition("\n\n")[0].replace("\n", " ")
    models, _, profiles = listed.removesuffix(".").partition(", and the bundled one. Shipped hardware: ")
    assert set(models.split(", ")) | {"bundled"} == shipped().keys()
    assert set(profiles.split(", ")) == shipped_hardware().keys()


def test_profiles_are_data_that_anybody_can_add(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(PROFILE))
    assert "1 × mine" in ran("qwen2.5-1.5b", "--hardware", str(tmp_path / "mine.yaml"))
