"""From a question to memories that may answer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from memorist.errors import BankError
from memorist.memory.bank import Hit, MemoryBank
from memorist.memory.fusion import fuse
from memorist.memory.record import Scope
from memorist.memory.words import asked, words


class Retriever(Protocol):
    """Finds memories."""

    def find(self, bank: MemoryBank, question: str, scopes: Sequence[Scope], k: int) -> list[Hit]:
        """The `k` best of each scope, best first."""
        ...


def _together(hits: Sequence[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: -hit.score)


@dataclass(frozen=True)
class Nearest:
    """By meaning: the cosine of the bank's vectors."""

    def find(self, bank: MemoryBank, question: str, scopes: Sequence[Scope], k: int) -> list[Hit]:
        """The `k` nearest of each scope, nearest first."""
        return _together([hit for scope in scopes for hit in bank.search(question, scope, k=k)])


@dataclass(frozen=True)
class Fused:
    """By meaning and by words: both scores in one (`memory.fusion`). Words are indexed anew for each question, so
    this is for banks of some thousand memories; the durable bank has an index of its own.

    Needs bm25s (`pip install 'memorist[eval]'`).
    """

    def find(self, bank: MemoryBank, question: str, scopes: Sequence[Scope], k: int) -> list[Hit]:
        """The `k` best of each scope, best first."""
        return _together([hit for scope in scopes for hit in self._find(bank, question, scope)[:k]])

    def _find(self, bank: MemoryBank, question: str, scope: Scope) -> list[Hit]:
        records = dict(enumerate(bank.list(scope)))
        near = {hit.record.id: hit.score for hit in bank.search(question, scope, k=len(records))}
        scores = {
            "vector": {i: near.get(record.id, 0.0) for i, record in records.items()},
            "lexical": dict(enumerate(_by_words(question, [record.text for record in records.values()]))),
        }
        return fuse(scores, records)


def _by_words(question: str, texts: Sequence[str]) -> list[float]:
    """BM25 of each text."""
    indexed, query = [words(text) for text in texts], asked(question)
    if not any(indexed) or not query:
        return [0.0] * len(texts)
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise BankError("retriever 'fused' needs bm25s; type: pip install 'memorist[eval]'") from error
    model: Any = bm25s.BM25()
    model.index(indexed, show_progress=False)
    return [float(score) for score in model.get_scores(query)]
