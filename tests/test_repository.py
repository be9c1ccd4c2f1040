"""The shape of the house: which way imports run, how light the base is, how long things are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "memorist"
SOURCES = sorted(PACKAGE.rglob("*.py"))

ORDER = [
    *("conversation", "persons", "scoring", "decision", "log", "catalogue", "recipe_checks", "recipe", "page"),
    *("memory", "models", "fit", "tasks", "agents", "library"),
    *("training", "evaluation", "serve", "integrations", "view", "cli"),
]
"""Imports run one way: a part may import what stands before it."""
STRANGERS = {("models", "memory"), ("serve", "evaluation")}
"""(importer, imported) that do not know each other although the order would allow it."""
EVERYWHERE = {"errors", "http", "plain", "_version", "doctor"}
ROOTS = {"__init__", "__main__"}
"""They gather what the library shows; nothing inside the package imports them."""

HEAVY = {"torch", "transformers", "safetensors"}
MAY_BE_HEAVY = {"models", "fit", "training", "doctor"}
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}

LONGEST_FILE = 450
LONGEST_FUNCTION = 80
IMPORT_SECONDS = 0.3
MACHINE_PATH = re.compile("/" + "work/|/" + "farm/|/" + "root/|bash_" + "jobs")


def modules_imported(tree: ast.Module, module: str = "memorist.any") -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, also inside functions and by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                source = ".".join([*parents, source] if source else parents)
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            name = node.args[0]
            text = name.values[0] if isinstance(name, ast.JoinedStr) and name.values else name
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield node.lineno, text.value


def part_of(dotted: str) -> str:
    """memorist.memory.bank → memory; memorist → __init__."""
    return [*dotted.split("."), "__init__"][1]


def complaint(importer: str, imported: str, known: set[str]) -> str | None:
    """Why one part of the package may not import another, or None where it may."""
    if imported == importer or imported in EVERYWHERE or importer in ROOTS:
        return None
    if importer in EVERYWHERE:
        return "is imported everywhere, so it imports nothing of the package"
    if imported in ROOTS or imported not in known:
        return "is no part of the package: a thing is imported from where it is defined"
    if importer not in ORDER or imported not in ORDER:
        return "has no place in ORDER yet: give it one, here and in docs/design"
    if (importer, imported) in STRANGERS:
        return "and it do not know each other"
    if ORDER.index(imported) > ORDER.index(importer):
        return "comes later"
    return None


def complaints(path: Path, text: str) -> list[str]:
    """Every import of one file that runs the wrong way."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    module = ".".join(("memorist", *parts))
    found = []
    known = {file.stem for file in PACKAGE.iterdir()} | set(ORDER)
    for line, dotted in modules_imported(ast.parse(text), module):
        if dotted.split(".")[0] == "memorist":
            problem = complaint(parts[0], part_of(dotted), known)
            if problem:
                found.append(f"{path.relative_to(ROOT)}:{line} imports {dotted}, which {problem}")
    return found


def committed_texts() -> Iterator[tuple[Path, str]]:
    """What git would commit, or the whole tree where there is no git, as far as it is text."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        files = [ROOT / name for name in listed.stdout.splitlines()]
    except (OSError, subprocess.CalledProcessError):
        made = {".git", ".venv", "__pycache__", ".hypothesis", *(path.name for path in ROOT.glob(".*_cache"))}
        files = [file for file in ROOT.rglob("*") if not made & set(file.relative_to(ROOT).parts)]
    for file in files:
        if file.is_file():
            data = file.read_bytes()
            if b"\0" not in data[:8192]:
                yield file.relative_to(ROOT), data.decode("utf-8", errors="replace")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_run_one_way(path: Path) -> None:
    assert complaints(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "text", "wrong"),
    [
        ("memory/bank.py", "from memorist.memory.record import Scope", False),
        ("memory/bank.py", "from memorist.errors import BankError", False),
        ("memory/bank.py", "from memorist.models import sampler", True),
        ("models/causal.py", "import memorist.memory.bank", True),
        ("models/causal.py", "from ..memory import bank", True),
        ("models/__init__.py", "from .causal import Causal", False),
        ("training/trainer.py", "def f():\n    from memorist.evaluation import report", True),
        ("serve/http.py", "from memorist.evaluation import report", True),
        ("agents/rmm.py", "import importlib\nimportlib.import_module('memorist.training.credit')", True),
        ("agents/rmm.py", "import importlib\nimportlib.import_module(f'memorist.training.{x}')", True),
        ("agents/rmm.py", "from memorist.tasks.dialogue import Dialogue", False),
        ("agents/rmm.py", "from memorist import Memory", True),
        ("agents/rmm.py", "from memorist.attic import Chest", True),
        ("doctor.py", "from memorist.recipe import Recipe", True),
        ("cli/__init__.py", "from memorist.evaluation import report", False),
        ("__init__.py", "from memorist.library import Memory", False),
    ],
)
def test_the_rule_of_imports_itself(file: str, text: str, wrong: bool) -> None:
    assert bool(complaints(PACKAGE / file, text)) is wrong


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_torch_stays_in_policies_training_and_fit(path: Path) -> None:
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {name.split(".")[0] for _, name in modules_imported(tree)}
    assert part in MAY_BE_HEAVY or not imported & HEAVY


def test_the_base_import_is_light_and_fast() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import memorist; took = time.perf_counter() - began\n"
        "print(took, *sorted({'torch', 'transformers', 'nltk', 'matplotlib'} & sys.modules.keys()))"
    )
    best = float("inf")
    for _ in range(7):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        took, *heavy = out.stdout.split()
        assert heavy == []
        assert out.stderr == ""
        best = min(best, float(took))
        if best < IMPORT_SECONDS:
            break
    assert best < IMPORT_SECONDS


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= LONGEST_FUNCTION, node.name


def unsafe(text: str) -> list[str]:
    """What in a source could run code that came in as data."""
    tree = ast.parse(text)
    found = [name for _, name in modules_imported(tree) if name.split(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (
            called in UNSAFE_CALLS
            or called in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}
            or (called == "torch.load" and given.get("weights_only") != "True")
            or given.get("allow_pickle") == "True"
            or given.get("trust_remote_code") == "True"
        ):
            found.append(ast.unparse(node))
    return found


SANDBOXED = ROOT / "src/memorist/tasks/notebook/cells.py"
"""Runs cells of notebooks, and is itself only ever run in a sandbox."""


@pytest.mark.parametrize("path", [path for path in SOURCES if path != SANDBOXED], ids=relative)
def test_nothing_runs_code_that_came_as_data(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert unsafe(text) == []
    assert not any(name.startswith("memorist.tasks.notebook.cells") for _, name in modules_imported(ast.parse(text)))
    assert "notebook import cells" not in text


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "exec(code)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader)",
    ],
)
def test_the_rule_of_data_itself(text: str) -> None:
    assert unsafe(text)


def test_what_only_looks_unsafe_is_allowed() -> None:
    assert not unsafe("model.eval(); re.compile('x'); yaml.safe_load(text)")
    assert not unsafe("torch.load(path, weights_only=True)")


def test_no_text_names_a_machine_path() -> None:
    hits = [
        f"{path}:{number}"
        for path, text in committed_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert hits == []


def test_the_rule_of_machine_paths_itself() -> None:
    assert MACHINE_PATH.search("see /" + "work/main/x.py")
    assert not MACHINE_PATH.search("the framework/module and ../shared/data")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in rows}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned_and_torch_without_a_local_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    required = [requirement for group in (project["dependencies"], *extras) for requirement in group]
    names = {canonical(re.split(r"[<>=\[ ]", requirement)[0]) for requirement in required} - {"memorist"}
    assert names <= pins().keys()
    assert pins()["torch"] == "2.13.0"
    assert not [name for name, version in pins().items() if "+" in version]


def test_the_base_install_is_small() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = {canonical(re.split(r"[<>=\[ ]", requirement)[0]) for requirement in project["dependencies"]}
    assert not base & (HEAVY | {"nltk", "bm25s", "matplotlib"})


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
    assert phony is not None
    described = set(re.findall(r"^([a-z0-9-]+):.*## \S", makefile, re.M))
    assert described == set(phony[1].split())
    assert {"demo", "test", "test-promises"} <= described
