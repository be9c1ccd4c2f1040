from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from memorist import doctor


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine with the base install alone: no extras, no bundled model, no data."""
    requirements = ["numpy>=1.26", "torch>=2.6; extra == 'all'", "torch>=2.6; extra == 'train'"]
    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(doctor, "_installed", {"numpy": "2.4.6"}.get)
    monkeypatch.setattr(doctor, "BUNDLED", tmp_path)
    monkeypatch.delenv(doctor.DATA_VARIABLE, raising=False)
    return monkeypatch


APART = {"thor", "langgraph", "llama-index", "crewai", "openai-agents"}
"""No parts of `all`."""


def test_the_real_requirements_are_found_installed_and_new_enough() -> None:
    packages = {package.name: package for package in doctor.examine().packages}
    assert {"numpy", "torch", "nltk", "pytest"} <= packages.keys()
    assert packages["numpy"].extra == doctor.BASE
    assert packages["torch"].extra == "train"
    assert all(package.good for package in packages.values() if package.extra not in APART)


def test_every_extra_says_what_it_is_for() -> None:
    assert {package.extra for package in doctor.examine().packages} == doctor.PURPOSES.keys()


def test_each_missing_thing_says_what_for_and_what_to_type(bare: pytest.MonkeyPatch) -> None:
    findings = doctor.examine()
    assert [missing.command for missing in findings.missing] == [
        "pip install 'memorist[train]'",
        "pip install --force-reinstall --no-deps memorist",
        "export MEMORIST_DATA=FOLDER  (the one that holds locomo/)",
    ]
    text = doctor.render(findings)
    for missing in findings.missing:
        assert missing.what in text
        assert missing.purpose in text
        assert missing.command in text
    assert "torch missing" in text


def test_a_package_that_is_too_old_is_missing(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(doctor, "_installed", {"numpy": "1.9.3", "torch": "2.13.0+cpu"}.get)
    findings = doctor.examine()
    assert findings.missing[0] == doctor.Missing("numpy", "everything", "pip install --upgrade memorist")
    assert "numpy 1.9.3 (too old: 1.26 is needed)" in doctor.render(findings)
    assert "torch 2.13.0+cpu" in doctor.render(findings)


@pytest.mark.parametrize(
    ("installed", "needed", "good"),
    [("2.13.0+cpu", "2.6", True), ("2.6", "2.6.0", True), ("2.5.9", "2.6", False), ("3.0rc1", "3", True)],
)
def test_versions_are_compared_by_their_numbers(installed: str, needed: str, good: bool) -> None:
    assert doctor.Package("torch", "train", needed, installed).good is good


def test_a_complete_machine_misses_nothing(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setattr(doctor, "_installed", {"numpy": "2.4.6", "torch": "2.13.0"}.get)
    (tmp_path / "manager").mkdir()
    (tmp_path / "manager" / "model.safetensors").touch()
    (tmp_path / "data" / "locomo").mkdir(parents=True)
    bare.setenv(doctor.DATA_VARIABLE, str(tmp_path / "data"))
    findings = doctor.examine()
    assert findings.bundled_models == ("manager",)
    assert findings.data_sets == ("locomo",)
    assert findings.missing == ()
    assert doctor.render(findings).endswith("Nothing is missing.")


def test_a_data_folder_that_is_not_there_is_named(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv(doctor.DATA_VARIABLE, str(tmp_path / "nowhere"))
    assert f"MEMORIST_DATA is {tmp_path / 'nowhere'}, which holds none" in doctor.render(doctor.examine())


def test_from_the_sources_without_an_install(bare: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    bare.setattr(metadata, "requires", requires)
    assert doctor.examine().missing[0].command == "pip install memorist"


def test_threads_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(doctor.THREADS_VARIABLE, "3")
    assert doctor.examine().device.threads == 3
    monkeypatch.setenv(doctor.THREADS_VARIABLE, "many")
    device = doctor.examine().device
    assert device.threads == device.cores >= 1


def test_an_accelerator_is_seen_without_torch_but_not_vouched_for(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(shutil, "which", lambda name: name)
    assert "an NVIDIA GPU (torch was not asked)" in doctor.render(doctor.examine())


def test_deep_asks_torch() -> None:
    torch = pytest.importorskip("torch")
    device = doctor.examine(deep=True).device
    assert device.checked
    assert device.threads == torch.get_num_threads()


def test_deep_without_torch_does_not_fail(bare: pytest.MonkeyPatch) -> None:
    assert not doctor.examine(deep=True).device.checked


def test_json_holds_everything() -> None:
    findings = doctor.examine()
    loaded = json.loads(doctor.to_json(findings))
    assert loaded["python"] == findings.python
    assert len(loaded["packages"]) == len(findings.packages)
    assert loaded["device"]["cores"] == findings.device.cores


def test_looking_imports_nothing() -> None:
    code = "import sys; from memorist import doctor; doctor.examine(); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
