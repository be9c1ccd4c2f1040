"""The library from the command line: what people read, what programs read, what is said of a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from memorist import Memory
from memorist.cli import app
from memorist.errors import MemoristError

COMMANDS = (
    "add",
    "observe",
    "search",
    "context",
    "list",
    "history",
    "delete",
    "erase",
    "export",
    "import",
    "backup",
    "reembed",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Memory(tmp_path / "m.db", embedder="hashed").close()
    return tmp_path / "m.db"


def ran(file: Path, *words: str, given: str = "") -> str:
    found = CliRunner().invoke(app, [*words, "--file", str(file)], input=given)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.output


def told(file: Path, *words: str, given: str = "") -> Any:
    return json.loads(ran(file, *words, "--json", given=given))


def refused(file: Path, *words: str, given: str = "") -> str:
    with pytest.raises(MemoristError) as raised:
        ran(file, *words, given=given)
    return str(raised.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    found = CliRunner().invoke(app, [command, "--help"])
    assert found.exit_code == 0
    assert f"Example: memorist {command} " in " ".join(found.output.split())


def test_from_the_first_text_to_the_last(file: Path, tmp_path: Path) -> None:
    (added,) = told(file, "add", "Anna likes curry", "--user", "anna", "--metadata", '{"price": 12}', "--expires", "7d")
    record = added["record"]
    assert (added["kind"], added["code"], record["payload"]) == ("ADD", "applied", {"price": 12})
    assert "unchanged" not in ran(file, "add", "--user", "anna", given="one\n\ntwo\n")
    observed = ran(file, "observe", "I live in Paris. Really?", "--user", "anna")
    assert observed.startswith("ADD    applied") and "new: nothing" in observed
    chat = json.dumps([{"role": "user", "content": "I no longer live in Paris."}])
    assert told(file, "observe", "--user", "anna", given=chat)[0]["kind"] == "UPDATE"
    (hit,) = told(file, "search", "curry", "--user", "anna", "--where", '{"price": {"lt": 20}}', "--explain")
    assert hit["record"]["id"] == record["id"] and hit["parts"]["lexical"] > 0
    assert "Anna likes curry" in ran(file, "search", "curry", "--user", "anna", "-k", "1")
    assert f"[{record['id']}]" in ran(file, "context", "curry", "--user", "anna", "--max-tokens", "100")
    assert len(told(file, "list", "--user", "anna")) == 4
    assert told(file, "list", "--user", "anna", "--as-of", "2001-01-01") == []
    assert [c["kind"] for c in told(file, "history", record["id"], "--user", "anna")] == ["ADD"]
    assert told(file, "export", str(tmp_path / "out.jsonl"), "--user", "anna")["records"] == 4
    assert "a copy is in" in ran(file, "backup", str(tmp_path / "copy.db"))
    assert told(file, "delete", record["id"], "--user", "anna")["done"]
    erased = ran(file, "erase", "--user", "anna", "--yes")
    assert "3 records removed, and their bytes" in erased and "out of reach: " + str(tmp_path / "out.jsonl") in erased
    found = told(file, "import", str(tmp_path / "out.jsonl"))
    assert (found["added"], found["known"], found["broken"]) == (4, 0, [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "x", "--user", ""], "Scope.user is empty"),
        (["add", "", "--user", "anna"], "the text is empty"),
        (["add", "x", "--user", "anna", "--metadata", "{"], "--metadata is '{', which is not JSON"),
        (["add", "x", "--user", "anna", "--expires", "soon"], "--expires is 'soon'; expected a span (30s"),
        (["search", "x", "--user", "anna", "--where", '{"a": {"b": 1}}'], "the operator 'b'; valid"),
        (["search", "x", "--user", "anna", "--mode", "vectr"], "did you mean 'vector'?"),
        (["search", "x", "--user", "anna", "--as-of", "now"], "--as-of is 'now'; expected a time"),
        (["history", "none", "--user", "anna"], "there is no record 'none' in this scope"),
        (["delete", "none", "--user", "anna"], "there is no such record in this scope"),
        (["erase", "--user", "anna"], "add --yes"),
        (["import", "none.json"], "cannot be read"),
    ],
)
def test_a_mistake_is_named(file: Path, words: list[str], said: str) -> None:
    assert said in refused(file, *words)


def test_nobody_s_memory_is_read_without_saying_whose(file: Path) -> None:
    for command in ("search", "context"):
        found = CliRunner().invoke(app, [command, "x", "--file", str(file)])
        assert found.exit_code == 2 and "--user" in found.output


def test_reading_makes_no_file(tmp_path: Path) -> None:
    assert "there is no memory" in refused(tmp_path / "none.db", "search", "x", "--user", "anna")
    assert not (tmp_path / "none.db").exists()


def test_an_import_with_nothing_in_it_fails_and_says_why(file: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": ""}')
    said = refused(file, "import", str(tmp_path / "in.jsonl"), "--user", "anna")
    assert "none could be brought in; the first: row 1" in said


def test_another_embedder(file: Path) -> None:
    told(file, "add", "Anna likes curry", "--user", "anna")
    assert told(file, "reembed", "hashed-stems-32") == {"vectors": 1}
    assert len(told(file, "search", "curry", "--user", "anna", "--mode", "vector")) == 1
    assert "did you mean 'minilm'" in refused(file, "reembed", "minilmm")
    assert "there is no memory" in refused(file.with_name("none.db"), "reembed", "minilm")
