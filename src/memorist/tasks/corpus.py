"""Texts that can be searched by words: BM25 as Lucene weighs it, by bm25s.

Needs bm25s (`pip install 'memorist[eval]'`), which is imported when a corpus is indexed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memorist.errors import DataError
from memorist.tasks.public import read_rows

K1, B = 0.9, 0.4
"""As the searchers that Search-R1 and MemSearcher were trained with."""
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Document:
    """One text. contents: a title in quotes on the first line, then the text."""

    id: str
    contents: str


@dataclass(frozen=True, slots=True)
class Found:
    """A document and how well it fits."""

    document: Document
    score: float


class Corpus:
    """Documents behind one index.

    Args:
        documents: each with an id of its own; without a word one is kept and never found.

    Raises:
        DataError: two have the same id.
        ModuleNotFoundError: bm25s is not installed.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        self.documents = tuple(documents)
        self.by_id: dict[str, Document] = {}
        for document in self.documents:
            if document.id in self.by_id:
                raise DataError(
                    "corpus", document.id, "id", "occurs twice; expected an id of its own for each document"
                )
            self.by_id[document.id] = document
        # Ties go to the lesser id: the index keeps them in that order.
        self._order = sorted(range(len(self.documents)), key=lambda i: self.documents[i].id)
        texts = [words(self.documents[i].contents) for i in self._order]
        self._model: Any = None
        if any(texts):
            self._model = _library().BM25(method="lucene", k1=K1, b=B, dtype="float64")
            self._model.index(texts, show_progress=False)

    @classmethod
    def read(cls, file: str | Path) -> Corpus:
        """From rows of {"id", "contents"}, one a line.

        Raises:
            DataError: the file is not to be found, or a row is not of that form.
        """
        expected = 'rows of {"id", "contents"}'
        return cls(read_rows(file, expected, lambda row: Document(str(row["id"]), str(row["contents"]))))

    def search(self, query: str, k: int) -> list[Found]:
        """The `k` best documents that share a word with the query, best first."""
        asked = words(query)
        if self._model is None or not asked or k < 1:
            return []
        # bm25s leaves out the factor k1 + 1, which changes no order.
        scores = (K1 + 1) * self._model.get_scores(asked)
        best = np.argsort(-scores, kind="stable")[:k]
        return [Found(self.documents[self._order[i]], float(scores[i])) for i in best if scores[i] > 0]


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits: no stemming, no stop words."""
    return _WORD.findall(text.lower())


def _library() -> Any:
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("searching needs bm25s; type: pip install 'memorist[eval]'") from error
    return bm25s
