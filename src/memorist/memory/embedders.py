"""Embedders by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from memorist.errors import BankError, nearest
from memorist.http import Service
from memorist.memory.embed import Embedder, HashedEmbedder, Vectors
from memorist.memory.minilm import MiniLM

BUNDLED = {"minilm": MiniLM.name, "hashed": HashedEmbedder().name}
"""Short names of what needs no download."""

_HASHED = re.compile(r"hashed-stems-([1-9]\d{0,5})")
_TOGETHER = 64


def open_embedder(name: str) -> Embedder:
    """The embedder of this name.

    `minilm`, `hashed` and `hashed-stems-SIZE` come with the package; `st:NAME` is a model of sentence-transformers, a
    folder or a name on a hub; `http://…/v1#MODEL` is an OpenAI-compatible endpoint.

    Raises:
        BankError: there is no such embedder, it does not answer, or what it needs is not installed.
    """
    full = BUNDLED.get(name, name)
    if full == MiniLM.name:
        return MiniLM()
    hashed = _HASHED.fullmatch(full)
    if hashed:
        return HashedEmbedder(int(hashed[1]))
    if full.startswith("st:"):
        return SentenceTransformer(full)
    if full.startswith(("http://", "https://")):
        return EndpointEmbedder(*full.partition("#")[::2])
    known = [*BUNDLED, *BUNDLED.values(), "st:NAME", "http://HOST/v1#MODEL"]
    raise BankError(f"embedder {name!r} is not known; {nearest(name, known)}")


class SentenceTransformer:
    """A model of sentence-transformers, which must be installed; named "st:" and its folder or name.

    Raises:
        BankError: sentence-transformers is not installed, or there is no such model.
    """

    def __init__(self, name: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer as Model
        except ImportError as error:
            raise BankError(
                f"embedder {name!r} needs sentence-transformers: pip install sentence-transformers"
            ) from error
        try:
            self._model: Any = Model(name.removeprefix("st:"))
        except Exception as error:  # whatever a hub or a folder may raise
            raise BankError(f"embedder {name!r} cannot be opened: {error}") from error
        self.name = name
        # Newer versions have another name for it.
        size = getattr(self._model, "get_embedding_dimension", None) or self._model.get_sentence_embedding_dimension
        self.size = int(size())

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts` to shape (len(texts), size), one by one: a text has one vector, whatever is beside it."""
        if not texts:
            return np.zeros((0, self.size), np.float32)
        found = self._model.encode(list(texts), batch_size=1, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, np.float32)


class EndpointEmbedder:
    """A model behind `POST url/embeddings`; its name in a file is the url and the model.

    Args:
        url: the base, e.g. "http://localhost:8000/v1".
        model: the model's name there.
        key: sent as a bearer token; never shown, nor kept in a file.
        size: numbers of a vector; None asks once.
        options: of `memorist.http.Service`, such as timeout and attempts.

    Raises:
        BankError: it does not answer, or not with vectors of one size.
    """

    def __init__(self, url: str, model: str, key: str | None = None, size: int | None = None, **options: Any) -> None:
        if not model:
            raise BankError(f"embedder {url!r} does not say which model; expected e.g. {url}#MODEL")
        self.name, self._model = f"{url}#{model}", model
        self._service = Service(url, model, BankError, key, **options)
        self.size = size if size is not None else len(self._ask(["a"])[0])
        if not self.size:
            raise BankError(f"embedder {self.name!r} gave vectors without numbers; check the model's name")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts` to shape (len(texts), size), rows of length 1."""
        found = np.zeros((len(texts), self.size), np.float32)
        for start in range(0, len(texts), _TOGETHER):
            rows = self._ask(list(texts[start : start + _TOGETHER]))
            if {len(row) for row in rows} != {self.size}:
                raise BankError(f"embedder {self.name!r} gave vectors of another size than {self.size}")
            found[start : start + len(rows)] = rows
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.where(lengths > 0, lengths, 1), np.float32)

    def _ask(self, texts: list[str]) -> list[list[float]]:
        def read(answer: Any) -> list[list[float]]:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            if [row["index"] for row in rows] != list(range(len(texts))):
                raise ValueError("not a vector for each text")
            return [[float(number) for number in row["embedding"]] for row in rows]

        # Services refuse empty texts.
        given = [text.encode("utf-8", "replace").decode("utf-8") or " " for text in texts]
        return self._service.post("embeddings", {"model": self._model, "input": given}, read)


def known_embedder(name: str, size: int) -> Embedder:
    """The embedder that a file names, if its name says how to open it; else another of that size."""
    full = BUNDLED.get(name, name)
    known = full == MiniLM.name or _HASHED.fullmatch(full) or full.startswith("st:")
    if full.startswith(("http://", "https://")):
        return EndpointEmbedder(*full.partition("#")[::2], size=size)  # it is asked when it is needed
    return open_embedder(name) if known else HashedEmbedder(size)
