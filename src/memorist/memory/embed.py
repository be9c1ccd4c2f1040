"""Turning text into vectors. The default needs nothing but NumPy and keeps lexical similarity."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

_WORD = re.compile(r"\w+", re.UNICODE)
FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an the and or but if of to in on at by for with from as is are was were be been am do does did "
        "has have had i you he she it we they me him her us them my your his its our their this that these "
        "those what which who whom when where why how will would can could should may might not no so than "
        "then too very s t"
    )
)


_CACHED = 1000  # characters; what is longer is not kept, since a few such texts would fill the memory


class Embedder(Protocol):
    """Text to unit vectors."""

    name: str
    size: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts` to shape (len(texts), size), float32, rows of length 1 (or 0 for empty text)."""
        ...


class HashedEmbedder:
    """Signed feature hashing of word stems and their character trigrams.

    Deterministic across machines and processes. Texts that share words, or forms of a word ("drives", "driving"), are
    near; meaning beyond that is not seen. Function words count a quarter.
    """

    def __init__(self, size: int = 256) -> None:
        self.size = size
        self.name = f"hashed-stems-{size}"  # stored with the vectors: a new name for every change of them
        self._one = lru_cache(maxsize=65_536)(self._embed_one)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts` to shape (len(texts), size)."""
        if not texts:
            return np.zeros((0, self.size), np.float32)
        return np.stack([self._one(t) if len(t) <= _CACHED else self._embed_one(t) for t in texts])

    def _embed_one(self, text: str) -> Vectors:
        vector = np.zeros(self.size, np.float32)
        for word in _WORD.findall(text.lower()):
            features = _features if len(word) <= _CACHED else _features.__wrapped__
            for bucket, value in features(word, self.size):
                vector[bucket] += value
        norm = float(np.linalg.norm(vector))
        if norm > 0:
            vector /= norm
        vector.flags.writeable = False
        return vector


def stem(word: str) -> str:
    """A lower-case word without its commonest English ending: "lives", "living" and "live" are all "liv".

    Lighter than Porter's algorithm, which the base install does not have; it need not give words, only equal ones.
    """
    if len(word) <= 3:
        return word
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)] + instead
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


_ENDINGS = (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""))


@lru_cache(maxsize=65_536)
def _features(word: str, size: int) -> tuple[tuple[int, float], ...]:
    """(bucket, signed weight) of a word and its trigrams."""
    weight = 0.25 if word in FUNCTION_WORDS else 1.0
    root = stem(word)
    padded = f"^{root}$"
    grams = [padded[i : i + 3] for i in range(len(padded) - 2)]
    parts = [(f"w:{root}", weight)] + [(f"g:{gram}", weight * 0.7 / len(grams) ** 0.5) for gram in grams]
    out = []
    for name, value in parts:
        code = zlib.crc32(name.encode("utf-8", "surrogatepass"))
        out.append(((code >> 1) % size, value if code & 1 else -value))
    return tuple(out)


class Remembering:
    """An embedder that keeps the vectors of texts that it was given lately: siblings of a rollout read the same.

    Args:
        embedder: what computes them.
        texts: how many are kept.
    """

    def __init__(self, embedder: Embedder, texts: int = 20_000) -> None:
        self.embedder, self.name, self.size = embedder, embedder.name, embedder.size
        self._one = lru_cache(maxsize=texts)(lambda text: embedder.embed([text])[0])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts` to shape (len(texts), size)."""
        if not texts:
            return np.zeros((0, self.size), np.float32)
        return np.stack([self._one(t) if len(t) <= _CACHED else self.embedder.embed([t])[0] for t in texts])
