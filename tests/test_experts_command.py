"""`memorist experts` from end to end: calibrate, mix, prune, masks, match, report, memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("transformers")

from memorist.cli import app
from memorist.errors import MemoristError
from memorist.fit.experts.checkpoint import open_checkpoint
from memorist.fit.experts.memory import bytes_with, most_experts
from memorist.fit.experts.report import kept_mass
from memorist.fit.experts.statistics import load_statistics
from memorist.fit.plan.architecture import STORAGES
from memorist.fit.plan.config import open_model
from memorist.models.registry import bundled_folder
from moe import save_moe


def ran(*arguments: object) -> str:
    found = CliRunner().invoke(app, ["experts", *map(str, arguments)])
    assert found.exit_code == 0, found.exception
    return found.output


def refused(*arguments: object) -> str:
    found = CliRunner().invoke(app, ["experts", *map(str, arguments)])
    assert isinstance(found.exception, MemoristError), found.output
    return str(found.exception)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a tokenizer and two calibrated tasks, for reading only."""
    folder = tmp_path_factory.mktemp("home")
    vocabulary = json.loads((bundled_folder() / "config.json").read_text())["vocab_size"]
    save_moe(folder / "model", "qwen3_moe", shard="30KB", vocab_size=vocabulary)
    for file in bundled_folder().glob("*token*"):
        shutil.copy(file, folder / "model")
    for task, text in (("one", "Ann likes tea."), ("two", "Where did Bob go? Oslo.")):
        data = folder / f"{task}.jsonl"
        data.write_text(f'{{"text": "{text}"}}\n{{"text": "{text} {text}"}}\n')
        ran("calibrate", folder / "model", "--data", data, "--task", task, "--store", folder / "store")
    return folder


def test_calibration_says_what_it_kept(home: Path, tmp_path: Path) -> None:
    arguments = ("calibrate", home / "model", "--data", home / "one.jsonl", "--task", "t", "--store", tmp_path)
    found = json.loads(ran(*arguments, "--samples", "1", "--max-tokens", "3", "--json"))
    assert (found["samples"], found["tokens"], found["experts"], found["layers"]) == (1, 3, 8, 2)
    assert found["fingerprint"] == open_checkpoint(home / "model").fingerprint
    assert "kept in" in ran(*arguments)


def test_tasks_are_mixed_and_pruned(home: Path, tmp_path: Path) -> None:
    options = ("--store", home / "store", "--keep", "4", "--json")
    for number, tasks in enumerate((("one",), ("one=1", "two=0"), ("one", "two=3"))):
        given = [part for task in tasks for part in ("--task", task)]
        found = json.loads(ran("prune", home / "model", *given, *options, "--out", tmp_path / str(number)))
        assert (found["keep"], found["experts_before"]) == (4, 8)
    keep = [json.loads((tmp_path / f"{number}/config.json").read_text())["pruning"]["keep"] for number in range(3)]
    assert keep[0] == keep[1]
    assert open_checkpoint(tmp_path / "2").experts == 4
    assert (tmp_path / "2/tokenizer.json").is_file()
    assert json.loads((tmp_path / "2/config.json").read_text())["pruning"]["tasks"] == {"one": 1.0, "two": 3.0}


@pytest.mark.parametrize("bare", [[], ["--bare"]])
def test_a_mask_goes_out_and_prunes(bare: list[str], home: Path, tmp_path: Path) -> None:
    options = ("--store", home / "store", "--keep", 3, "--task", "one", "--scorer", "peu")
    ran("mask", home / "model", *options, "--out", tmp_path / "mask.json", *bare)
    ran("prune", home / "model", *options, "--out", tmp_path / "by-task")
    ran("prune", home / "model", "--mask", tmp_path / "mask.json", "--out", tmp_path / "by-mask")
    kept = [
        json.loads((tmp_path / name / "config.json").read_text())["pruning"]["keep"] for name in ("by-task", "by-mask")
    ]
    assert kept[0] == kept[1]


def test_a_prompt_is_matched_to_its_task(home: Path) -> None:
    arguments = ("match", home / "model", "Where did Bob go? Oslo.", "--store", home / "store", "--layers", "2")
    found = json.loads(ran(*arguments, "--json"))
    assert (found["task"], found["fell_back"]) == ("two", False)
    assert ran(*arguments, "--fall-back", "one", "--margin", "2").startswith("one (similarity")


def test_scorers_and_numbers_are_compared_on_held_out_samples(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ("compare", home / "model", "--data", home / "two.jsonl", "--task", "one", "--store", home / "store")
    found = json.loads(ran(*arguments, "--keep", 4, "--keep", 8, "--scorer", "peu", "--scorer", "random", "--json"))
    assert [(one["keep"], one["scorer"]) for one in found] == [(4, "peu"), (4, "random"), (8, "peu"), (8, "random")]
    assert all(one["low"] <= one["kl"] <= one["high"] and one["samples"] == 2 for one in found)
    assert min(one["kl"] for one in found[:2]) > 1e-4 > max(one["kl"] for one in found[2:])
    assert found[2]["agreement"] == 1
    assert "KL, nats per token" in ran(*arguments, "--keep", 4)
    mistaken = ("compare", home / "model", "--data", home / "one.jsonl", "--task", "one", "--store", home / "store")
    assert "was calibrated on these samples" in refused(*mistaken, "--keep", 4)


SEEN = {
    "manager": ["Ann moved to Oslo.", "Bob likes tea.", "Cleo sold the boat."],
    "answerer": ["Where does Ann live?", "What does Bob drink?", "Who has a boat?"],
}


@pytest.fixture(scope="module")
def logs(home: Path) -> Path:
    """Two logs of what the model wrote in two roles, on different prompts; both roles calibrated on the first."""
    from memorist.decision import Decision, Distribution, Observation, Trajectory
    from memorist.log import write_trajectories
    from memorist.models.causal import CausalPolicy
    from memorist.models.sampler import Request

    policy = CausalPolicy.load(home / "model")
    for name, ending in (("first", ""), ("second", " So what?")):
        runs = []
        for seed in (1, 2):  # siblings that do the same: greedy
            asked = [(role, Observation(text + ending, max_tokens=5)) for role, texts in SEEN.items() for text in texts]
            written = policy.sample([Request(seen, Distribution(temperature=0.0), seed) for _, seen in asked])
            decisions = [Decision(role, "moe", seen, done) for (role, seen), done in zip(asked, written, strict=True)]
            runs.append(Trajectory(name, seed, tuple(decisions), ()))
        write_trajectories(home / f"logs/{name}/runs.jsonl", runs)
    for role in SEEN:
        data = ("--data", home / "logs/first", "--role", role, "--task", role, "--store", home / "roles")
        assert json.loads(ran("calibrate", home / "model", *data, "--json"))["samples"] == 3
    return home / "logs"


class TestRoles:
    def given(self, home: Path, *options: object) -> tuple[object, ...]:
        roles = ("--role", "manager", "--role", "answerer")
        return ("roles", home / "model", *roles, "--store", home / "roles", *options)

    def test_modes_are_compared_on_an_agents_own_held_out_log(
        self, home: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "250")
        options = ("--keep", 4, "--log", logs / "second/runs.jsonl", "--most-kl", 100)
        found = json.loads(ran(*self.given(home, *options, "--json")))
        specialist, union, general = (found["modes"][mode] for mode in ("specialist", "union", "generalist"))
        assert specialist["experts"] == general["experts"] == 4 <= union["experts"] <= 8
        assert specialist["moved_experts"] > 0 == union["moved_bytes"] == general["moved_experts"]
        assert union["roles"] == specialist["roles"] != general["roles"]
        for mode in (specialist, general):
            for role in SEEN:
                one = mode["roles"][role]
                assert one["low"] <= one["kl"] <= one["high"] and one["kl"] > 1e-5
                assert one["samples"] == 3 and one["tokens"] <= 15 and one["reasons"] == []
        assert 0 <= found["common"]["manager, answerer"] <= 1
        assert found["use"] == "union"
        shown = ran(*self.given(home, *options))
        assert "manager: KL, nats per token" in shown and "use: union (all roles' experts fit" in shown

    def test_the_gate_says_why_nothing_is_used(self, home: Path, logs: Path) -> None:
        options = ("--keep", 4, "--log", logs / "second", "--most-kl", 0)
        found = json.loads(ran(*self.given(home, *options, "--json")))
        assert (found["use"], found["why"]) == ("none", "none that fits passes the gate; keep more experts")
        assert "nats per token, over 0" in found["modes"]["union"]["roles"]["manager"]["reasons"][0]
        assert "generalist, answerer: the divergence may be" in ran(*self.given(home, *options))

    def test_without_a_log_it_is_arithmetic(self, home: Path, logs: Path) -> None:
        found = json.loads(ran(*self.given(home, "--keep", 4, "--json")))
        architecture = open_model(str(home / "model")).architecture
        for mode in found["modes"].values():
            assert mode["bytes"] == bytes_with(architecture, mode["experts"]) and "roles" not in mode
        moved = found["modes"]["specialist"]
        each = (bytes_with(architecture, 8) - bytes_with(architecture, 7)) / 2
        assert moved["moved_bytes"] == pytest.approx(moved["moved_experts"] * each)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--log", "first"), "manager was calibrated on these replies"),
            (("--log", "none"), "cannot be read"),
            (("--read-rate", "0"), "--read-rate is 0 GB; expected more than 0"),
            (("--budget", "-1"), "--budget is -1 GB; expected more than 0"),
            (("--changes", "-1"), "--changes is -1; expected 0 or more"),
            (("--role", "manager"), "roles manager, answerer, manager; give two or more, each once"),
            (("--role", "retriever"), "no such calibration"),
        ],
    )
    def test_of_what_cannot_be_measured(self, options: tuple[str, str], message: str, home: Path, logs: Path) -> None:
        name, value = options
        assert message in refused(*self.given(home, "--keep", 4, name, logs / value if name == "--log" else value))

    def test_a_log_of_another_tokenizer_is_refused(self, home: Path, logs: Path, tmp_path: Path) -> None:
        text = (logs / "first/runs.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        for row in rows:
            row["decisions"][0]["action"]["text"] = "quite another thing"
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = ("--data", tmp_path / "log.jsonl", "--role", "manager", "--task", "t", "--store", tmp_path)
        assert "which this model's tokenizer reads as" in refused("calibrate", home / "model", *data)

    def test_logs_and_other_data_are_told_apart(self, home: Path, logs: Path, tmp_path: Path) -> None:
        options = ("--task", "t", "--store", tmp_path)
        message = refused("calibrate", home / "model", "--data", logs / "first/runs.jsonl", *options)
        assert "a logged trajectory; say whose replies are wanted: --role manager" in message
        message = refused("calibrate", home / "model", "--data", home / "one.jsonl", "--role", "manager", *options)
        assert "lacks 'decisions'; expected a logged trajectory" in message

    def test_a_role_that_nobody_reads_is_refused(self, home: Path, logs: Path, tmp_path: Path) -> None:
        shutil.copytree(home / "roles", tmp_path / "roles")
        shutil.copy(home / "store/one.safetensors", tmp_path / "roles")
        options = ("--role", "manager", "--role", "one", "--keep", 4, "--log", logs / "second")
        message = refused("roles", home / "model", *options, "--store", tmp_path / "roles")
        assert "nobody can read its replies" in message


def test_a_report_shows_tasks_overlap_mass_and_memory(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    tasks = ("--task", "one", "--task", "two")
    ran("report", home / "model", *tasks, "--keep", 4, "--store", home / "store", "--out", tmp_path / "deep/r.html")
    page = (tmp_path / "deep/r.html").read_text()
    assert page.count("<svg") == 4
    for part in (
        "Overlap",
        "one: scores by easyep",
        "gate weights that fall",
        "DeepSeek-R1 (fp8)",
        "gpt-oss-20b (mxfp4)",
    ):
        assert part in page, part
    assert "<script" not in page and "http-equiv" not in page


def test_what_came_from_outside_is_escaped(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ("--data", home / "one.jsonl", "--task", "<i>x", "--description", "<b>y", "--store", tmp_path)
    ran("calibrate", home / "model", *options)
    ran("report", home / "model", "--task", "<i>x", "--keep", 4, "--store", tmp_path, "--out", tmp_path / "r.html")
    assert "<i>" not in (tmp_path / "r.html").read_text()
    assert "<b>" not in (tmp_path / "r.html").read_text()


def test_kept_mass_rises_to_one_and_the_gate_keeps_most(home: Path) -> None:
    task = load_statistics(home / "store/one.safetensors")
    best, other = kept_mass(task, "gate"), kept_mass(task, "random")
    assert (best >= other - 1e-12).all() and (best[1:] >= best[:-1]).all()
    assert best[-1] == pytest.approx(1) == other[-1]


def test_choosing_and_pruning_need_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'safetensors'}"
    code = f"import sys, memorist.fit.experts.command; print({heavy} & {{*sys.modules}})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


class TestMemory:
    def test_totals_are_those_of_the_papers_arithmetic(self) -> None:
        r1 = open_model("deepseek-v3").architecture
        for keep, total in (
            (256, 671_026_419_200),
            (128, 344_018_811_136),
            (64, 180_515_007_104),
            (32, 98_763_105_088),
        ):
            # The planner leaves out norms inside attention and correction biases: 139,776 of 671 billion.
            assert bytes_with(r1, keep, "bf16") / 2 == pytest.approx(total, rel=2e-6)
        assert STORAGES["4bit"].expert * 44_040_192 == 23_396_352
        assert r1.experts == 58 * 256 * 44_040_192 == 653_908_770_816
        qwen = open_model("qwen3-235b-a22b").architecture
        assert bytes_with(qwen, 64, "bf16") < 0.52 * bytes_with(qwen, 128, "bf16")

    def test_the_most_that_fits_fits_and_one_more_does_not(self) -> None:
        model = open_model("mixtral-8x7b").architecture
        kept = most_experts(model, 60e9)
        assert kept is not None and 2 <= kept < 8
        cache = 8 * model.sequence_bytes(2048)
        assert bytes_with(model, kept) + cache <= 60e9 < bytes_with(model, kept + 1) + cache
        assert most_experts(model, 1e9) is None
        assert most_experts(model, 1e12) == 8

    def test_the_table_is_printed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        rows = json.loads(ran("memory", "--budget", "24", "--json"))
        assert [row["name"] for row in rows] == ["DeepSeek-R1", "Qwen3-235B-A22B", "Mixtral-8x7B", "gpt-oss-20b"]
        assert rows[0]["kept"] == [None]
        assert "mixtral-8x7b (8)" in ran("memory", "mixtral-8x7b")

    def test_a_dense_model_is_refused(self) -> None:
        assert "0 kinds of layers with experts" in refused("memory", "qwen3-8b")


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ((), "give either --task (with --keep) or --mask"),
            (("--task", "one", "--mask", "m.json"), "give either --task"),
            (("--task", "one"), "give --keep"),
            (("--task", "none", "--keep", "4"), "no such calibration; make it: memorist experts calibrate"),
            (("--task", "one=x", "--keep", "4"), "'x' is no number; expected NAME or NAME=WEIGHT"),
            (("--task", "one=-1", "--keep", "4"), "expected one number of 0 or more"),
            (("--task", "../one", "--keep", "4"), "expected a plain name"),
            (("--task", "one", "--keep", "1"), "each token goes through 2"),
            (("--task", "one", "--keep", "9"), "expected 1 to 8"),
            (("--task", "one", "--keep", "4", "--scorer", "easy"), "did you mean 'easyep'"),
            (("--task", "one", "--keep", "4", "--groups", "globl"), "did you mean 'global'"),
        ],
    )
    def test_of_pruning(self, options: tuple[str, ...], message: str, home: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert message in refused("prune", home / "model", *options, "--store", home / "store", "--out", out)
        assert not out.exists()

    def test_a_calibration_of_another_model(self, home: Path, tmp_path: Path) -> None:
        save_moe(tmp_path / "other", "qwen3_moe", initializer_range=0.2)
        options = ("--task", "one", "--keep", 4, "--store", home / "store", "--out", tmp_path / "out")
        assert "is of another model" in refused("prune", tmp_path / "other", *options)

    def test_a_folder_that_exists(self, home: Path, tmp_path: Path) -> None:
        assert "exists already" in refused("prune", home / "model", "--task", "one", "--keep", 4, "--out", tmp_path)

    def test_a_mask_and_another_number(self, home: Path, tmp_path: Path) -> None:
        options = ("--keep", 4, "--task", "one", "--store", home / "store", "--out", tmp_path / "m.json")
        ran("mask", home / "model", *options)
        options = ("--keep", 5, "--mask", tmp_path / "m.json", "--out", tmp_path / "out")
        assert "keeps 4; leave --keep out" in refused("prune", home / "model", *options)

    def test_of_matching(self, home: Path, tmp_path: Path) -> None:
        assert "no patterns" in refused("match", home / "model", "Hello", "--store", tmp_path)
        options = ("--store", home / "store")
        assert "known: one, two" in refused("match", home / "model", "Hello", *options, "--fall-back", "three")
        shutil.copytree(home / "model", tmp_path / "bare", ignore=shutil.ignore_patterns("*token*"))
        assert "no tokenizer; put its files there" in refused("match", tmp_path / "bare", "Hello", *options)
        assert "--layers 9; expected 1 to 2" in refused("match", home / "model", "Hello", *options, "--layers", "9")
