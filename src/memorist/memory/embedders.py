"""Embedders by name."""

from __future__ import annotations

import re

from memorist.errors import BankError, nearest
from memorist.memory.embed import Embedder, HashedEmbedder
from memorist.memory.minilm import MiniLM

BUNDLED = {"minilm": MiniLM.name, "hashed": HashedEmbedder().name}
"""Short names of what needs no download."""

_HASHED = re.compile(r"hashed-stems-(\d+)")


def open_embedder(name: str) -> Embedder:
    """The embedder of this name: `minilm`, `hashed` or `hashed-stems-SIZE`.

    Raises:
        BankError: there is no such embedder.
    """
    full = BUNDLED.get(name, name)
    if full == MiniLM.name:
        return MiniLM()
    hashed = _HASHED.fullmatch(full)
    if hashed:
        return HashedEmbedder(int(hashed[1]))
    raise BankError(f"embedder {name!r} is not known; {nearest(name, [*BUNDLED, *BUNDLED.values()])}")


def known_embedder(name: str, size: int) -> Embedder:
    """The embedder that a file names if it can be opened by its name; else another of that size."""
    try:
        return open_embedder(name)
    except BankError:
        return HashedEmbedder(size)
