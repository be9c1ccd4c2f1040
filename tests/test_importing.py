"""What comes out of one memory goes into another; a broken row is named, and the rest is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from memorist import Memory, Scope
from memorist.errors import DataError, ScopeError

ANNA = Scope("anna")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "m.db", embedder="hashed") as opened:
        yield opened


def written(tmp_path: Path, data: Any, *more: Any) -> Path:
    file = tmp_path / "in.json"
    file.write_text("\n".join(json.dumps(one) for one in (data, *more)), encoding="utf-8")
    return file


class TestRoundTrip:
    def test_records_history_ids_times_and_sessions(self, memory: Memory, tmp_path: Path) -> None:
        told = datetime(2020, 1, 1, tzinfo=UTC)
        memory.add(
            "Anna lives in Paris", ANNA, metadata={"topic": ["home", 1, None]}, key="home", at=told, source=["d1"]
        )
        memory.update(memory.list(ANNA)[0].id, "Anna lives in Lyon", ANNA, reason="moved", at=datetime(2021, 1, 1))
        memory.add("日本 é \N{PILE OF POO}", Scope("anna", "butler", "s1"), expires=datetime(2099, 1, 1, tzinfo=UTC))
        memory.add("Ben's", Scope("ben"))
        assert memory.export(tmp_path / "out.jsonl", ANNA) == 2
        with Memory(tmp_path / "n.db", embedder="hashed") as other:
            found = other.import_file(tmp_path / "out.jsonl", ANNA)
            assert (found.added, found.known, found.broken) == (2, 0, ())
            assert [r.to_json() | {"updated": 0} for r in other.list(ANNA)] == [
                r.to_json() | {"updated": 0} for r in memory.list(ANNA)
            ]
            record = other.list(ANNA)[0]
            past = [(c.record.text, c.reason) for c in other.history(record.id, ANNA)]
            assert past == [("Anna lives in Paris", ""), ("Anna lives in Lyon", "moved")]
            (then,) = other.list(ANNA, as_of=datetime(2020, 6, 1))
            assert then.text == "Anna lives in Paris"
            again = other.import_file(tmp_path / "out.jsonl", None)
            assert (again.added, again.known) == (0, 2)

    def test_an_id_that_somebody_else_has_is_replaced(self, memory: Memory, tmp_path: Path) -> None:
        memory.add("Anna lives in Paris", ANNA)
        memory.export(tmp_path / "out.jsonl", ANNA)
        found = memory.import_file(tmp_path / "out.jsonl", Scope("ben"))
        assert found.added == 1 and len(memory.list(Scope("ben"))) == 1
        assert memory.list(Scope("ben"))[0].id != memory.list(ANNA)[0].id


def test_broken_lines_are_named_and_the_rest_is_there(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    lines = [
        '{"text": "one"}',
        "{not json",
        '{"words": "two"}',
        '{"text": 3}',
        '["four"]',
        '{"text": "five", "at": "yesterday"}',
        '{"text": ""}',
        '{"text": "eight", "metadata": [1]}',
        '{"text": "nine", "at": 86400, "metadata": {"a": 1}, "session": "s", "user": "anna"}',
        '{"text": "one"}',
        "[" * 100_000,
    ]
    file.write_text("\n".join(lines))
    found = memory.import_file(file, ANNA)
    assert (found.added, found.known) == (2, 1)
    assert [broken.partition(":")[0] for broken in found.broken] == [f"row {n}" for n in (2, 3, 4, 5, 6, 7, 8, 11)]
    named = dict(broken.split(": ", 1) for broken in found.broken)
    assert named["row 2"].startswith("is not JSON") and named["row 3"] == "field 'text' is missing"
    assert named["row 4"] == "field 'text' is 3; expected a text" and "expected an object" in named["row 5"]
    assert "expected a time" in named["row 6"] and "the text is empty" in named["row 7"]
    assert "not plain JSON" in named["row 8"]
    (nine,) = memory.list(Scope("anna", session="s"))
    assert (nine.text, nine.created, nine.payload) == ("nine", datetime(1970, 1, 2, tzinfo=UTC), {"a": 1})


def test_mem0(memory: Memory, tmp_path: Path) -> None:
    row = {
        "id": "9f1", "memory": "Likes curry", "hash": "x", "metadata": {"topic": "food"}, "categories": ["food"],
        "created_at": "2024-07-01T10:00:00-07:00", "updated_at": None, "user_id": "anna", "run_id": "r1",
    }  # fmt: skip
    found = memory.import_file(written(tmp_path, {"results": [row, row | {"id": "9f2", "user_id": None}]}), None)
    assert (found.added, len(found.broken)) == (1, 1) and "does not say whose" in found.broken[0]
    (record,) = memory.list(Scope("anna", session="r1"))
    assert (record.id, record.text, record.payload) == ("9f1", "Likes curry", {"topic": "food", "categories": ["food"]})
    assert record.created == datetime(2024, 7, 1, 17, tzinfo=UTC)


def test_graphiti(memory: Memory, tmp_path: Path) -> None:
    edges = [
        {"uuid": "e1", "name": "LIVES_IN", "fact": "Anna lives in Paris", "group_id": "g",
         "valid_at": "2020-01-01T00:00:00Z", "invalid_at": "2022-01-01T00:00:00Z", "episodes": ["p1"],
         "source_node_uuid": "n1", "target_node_uuid": "n2"},
        {"uuid": "e2", "name": "LIVES_IN", "fact": "Anna lives in Lyon", "group_id": "g",
         "valid_at": "2022-01-01T00:00:00Z", "invalid_at": None, "expired_at": None,
         "created_at": "2023-01-01T00:00:00Z", "episodes": []},
    ]  # fmt: skip
    assert memory.import_file(written(tmp_path, {"nodes": [], "edges": edges}), ANNA).added == 2
    assert [r.text for r in memory.list(ANNA)] == ["Anna lives in Lyon"]
    assert [r.text for r in memory.list(ANNA, as_of=datetime(2021, 1, 1))] == ["Anna lives in Paris"]
    assert memory.search("Paris", ANNA, as_of=datetime(2021, 1, 1))[0].record.source == ("p1",)


def turn(role: str, text: str, parent: str | None, **more: Any) -> dict[str, Any]:
    author, content = {"role": role}, {"content_type": "text", "parts": [text]}
    return {"message": {"id": text[:3], "author": author, "content": content, **more}, "parent": parent}


def test_chatgpt_follows_the_thread_that_was_shown(memory: Memory, tmp_path: Path) -> None:
    mapping = {
        "root": {"message": None, "parent": None},
        "a": turn("user", "I live in Paris with my cat.", "root", create_time=1_700_000_000.5),
        "edited": turn("user", "I live in Rome with my dog.", "root"),
        "b": turn("assistant", "What a nice place it is.", "a"),
        "c": turn("user", "We moved there in spring.", "b", create_time=None),
    }
    talk = {
        "title": "t",
        "create_time": 1_700_000_000,
        "mapping": mapping,
        "current_node": "c",
        "conversation_id": "c1",
    }
    found = memory.import_file(written(tmp_path, [talk]), ANNA)
    records = memory.list(Scope("anna", session="c1"))
    assert [r.text for r in records] == ["I live in Paris with my cat.", "We moved there in spring."]
    assert found.added == 2 and records[0].created.year == 2023 and records[0].source == ("I l",)
    assert memory.import_file(written(tmp_path, [talk]), ANNA).added == 0


def test_claude(memory: Memory, tmp_path: Path) -> None:
    said = [
        {"uuid": "u1", "sender": "human", "text": "", "content": [{"type": "text", "text": "I play the viola."}],
         "created_at": "2025-01-01T00:00:00Z"},
        {"uuid": "u2", "sender": "assistant", "text": "You play the viola well.", "created_at": "2025-01-01T00:00:01Z"},
    ]  # fmt: skip
    talk = {"uuid": "t1", "name": "n", "created_at": "2025-01-01T00:00:00Z", "chat_messages": said}
    assert memory.import_file(written(tmp_path, [talk, {"uuid": "t2", "chat_messages": 3}]), ANNA).added == 1
    assert [r.text for r in memory.list(ANNA)] == ["I play the viola."]


@pytest.mark.parametrize(
    ("text", "form", "said"),
    [
        ("{}", None, "is none of those that are known (rows have no names); give one of memorist, jsonl"),
        ('{"a": 1, "b": 2}', None, "(rows have 'a', 'b')"),
        ("[1, 2]", None, "is none of those"),
        ('{"text": "x"}', "mem", "is 'mem'; did you mean 'mem0'?"),
    ],
)
def test_what_is_in_no_known_form(memory: Memory, tmp_path: Path, text: str, form: str | None, said: str) -> None:
    (tmp_path / "in.json").write_text(text)
    with pytest.raises(DataError) as raised:
        memory.import_file(tmp_path / "in.json", ANNA, form=form)
    assert said in str(raised.value)


def test_a_file_that_cannot_be_read(memory: Memory, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        memory.import_file(tmp_path / "none.json", ANNA)
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="cannot be read"):
        memory.import_file(tmp_path / "latin.json", ANNA)
    with pytest.raises(ScopeError):
        memory.import_file(tmp_path / "none.json", "anna")  # type: ignore[arg-type]
