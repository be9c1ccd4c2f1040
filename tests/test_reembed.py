"""Another embedder for a file: all vectors or none, and nobody searches old ones with new ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from banks import ANNA, AT, LATER, add, texts
from memorist.errors import BankError
from memorist.memory import reembed as module
from memorist.memory import stored_vectors
from memorist.memory.embed import HashedEmbedder
from memorist.memory.record import Operation
from memorist.memory.reembed import reembed
from memorist.memory.sqlite import SQLiteBank


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with SQLiteBank(tmp_path / "b.db") as bank:
        bank.apply([add(f"dog number {i}") for i in range(30)], ANNA, at=AT)
        bank.apply([Operation("UPDATE", "a cat", id=bank.list(ANNA)[3].id)], ANNA, at=LATER)
    return tmp_path / "b.db"


def test_every_version_is_embedded_and_the_old_vectors_are_gone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 8)
    monkeypatch.setattr(stored_vectors, "BIG", 6)
    old = HashedEmbedder().embed(["a cat"])[0].tobytes()
    with SQLiteBank(path) as bank:
        bank.search("dog", ANNA)  # an index of the old ones
    assert old in path.read_bytes()
    told: list[tuple[int, int]] = []
    assert reembed(path, HashedEmbedder(64), lambda done, total: told.append((done, total))) == 31
    assert told[0] == (8, 31) and told[-1] == (31, 31)
    assert old not in path.read_bytes()
    with SQLiteBank(path) as bank:
        assert bank.embedder.name == "hashed-stems-64"
        assert bank.search("a cat", ANNA, k=1)[0].record.text == "a cat"
        assert bank.search("dog number 3", ANNA, k=1, as_of=1)[0].record.text == "dog number 3"
        assert bank.search("dog", ANNA, k=40) == bank.fork().search("dog", ANNA, k=40)


def test_who_had_it_open_is_told_to_open_it_again(path: Path) -> None:
    with SQLiteBank(path) as bank:
        reembed(path, HashedEmbedder(64))
        for call in (lambda: bank.search("dog", ANNA), lambda: bank.apply([add("new")], ANNA, at=LATER)):
            with pytest.raises(BankError, match="made anew with 'hashed-stems-64'; open it again"):
                call()


def test_what_is_written_meanwhile_is_embedded_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 8)
    with SQLiteBank(path) as bank:

        class Busy(HashedEmbedder):
            written = 0

            def embed(self, texts: Sequence[str]) -> np.ndarray:
                if self.written < 3:
                    self.written += 1
                    bank.apply([add(f"meanwhile {self.written}")], ANNA, at=LATER)
                return super().embed(texts)

        assert reembed(path, Busy(64)) == 34
    with SQLiteBank(path) as bank:
        assert "meanwhile 3" in texts(bank.list(ANNA))
        assert bank.search("meanwhile 2", ANNA, k=1)[0].record.text == "meanwhile 2"


def test_one_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 8)

    class Failing(HashedEmbedder):
        calls = 0

        def embed(self, texts: Sequence[str]) -> np.ndarray:
            self.calls += 1
            if self.calls > 2:
                raise ConnectionError("no answer")
            return super().embed(texts)

    with pytest.raises(ConnectionError):
        reembed(path, Failing(64))
    with SQLiteBank(path) as bank:
        assert len(bank.search("dog", ANNA, k=40)) == 30
    assert reembed(path, HashedEmbedder(64)) == 31
