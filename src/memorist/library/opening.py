"""Where a memory is kept: a file, or a database."""

from __future__ import annotations

import os
from pathlib import Path

from memorist.errors import BankError
from memorist.library.arguments import default_path
from memorist.memory.bank import Guard, IdSource
from memorist.memory.embed import Embedder
from memorist.memory.embedders import open_embedder
from memorist.memory.sqlite import SQLiteBank
from memorist.memory.stored import StoredBank

SCHEMES = ("postgresql://", "postgres://")


def is_database(place: str | os.PathLike[str]) -> bool:
    """Whether it is the address of a database and not a file."""
    return isinstance(place, str) and place.startswith(SCHEMES)


def place_of(place: str | os.PathLike[str] | None) -> str | Path:
    """The address of a database, or a file; the one among the user's data where nothing is said."""
    if place is None:
        return default_path()
    return str(place) if is_database(place) else Path(place)


def need_file(place: str | os.PathLike[str] | None, what: str) -> Path:
    """The file of a memory, for what works on files alone.

    Raises:
        BankError: it is a database.
    """
    found = place_of(place)
    if isinstance(found, Path):
        return found
    raise BankError(f"{what} works on a memory in a file; a database is copied with pg_dump, or exported and imported")


def open_bank(
    place: str | os.PathLike[str] | None,
    embedder: str | Embedder | None,
    *,
    ids: IdSource,
    guard: Guard | None,
    read_only: bool,
) -> StoredBank:
    """The bank that is kept there; a new one has "minilm" for an embedder unless another is asked for.

    Raises:
        BankError: it cannot be opened, is damaged, or was made by a newer version or with another embedder.
    """
    where = place_of(place)
    if isinstance(where, str):
        from memorist.memory.postgres import PostgresBank

        new = not read_only and embedder is None and not PostgresBank.exists(where)
        return PostgresBank(where, embedder=_opened(embedder, new), ids=ids, guard=guard, read_only=read_only)
    new = not read_only and (not where.exists() or (where.is_file() and not where.stat().st_size))
    if new and place is None:
        where.parent.mkdir(parents=True, exist_ok=True)
    return SQLiteBank(where, embedder=_opened(embedder, new), ids=ids, guard=guard, read_only=read_only)


def _opened(embedder: str | Embedder | None, new: bool) -> Embedder | None:
    named = embedder or ("minilm" if new else None)
    return open_embedder(named) if isinstance(named, str) else named
