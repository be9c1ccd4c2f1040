"""A bank in one SQLite file."""

from __future__ import annotations

import os
from datetime import datetime
from functools import partial
from pathlib import Path

from memorist.errors import BankError
from memorist.memory.bank import Guard, IdSource, sequential_ids
from memorist.memory.embed import Embedder
from memorist.memory.record import Scope
from memorist.memory.sqlite_file import BankFile, claim
from memorist.memory.stored import StoredBank
from memorist.memory.stored_vectors import VectorCache


class SQLiteBank(StoredBank):
    """A durable bank in one file (`StoredBank`); threads and processes may share it.

    The file must lie on a local disk: the write-ahead log beside it needs memory that processes share. The bytes of
    what is erased are overwritten with zeros; while another process reads, older pages may stay in the file and the log
    beside it, as `settle` says.

    Args:
        path: the file; it is created if need be, its folder is not.
        embedder: what makes the vectors; None for the `HashedEmbedder` that the file was made with.
        ids: gives new records their ids.
        guard: asked before an ADD or UPDATE is written; a text that it returns is why it is refused.
        read_only: refuse to write, and do not create the file.

    Raises:
        BankError: the file cannot be opened, is damaged, or was made by a newer version or with another
            embedder.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        embedder: Embedder | None = None,
        ids: IdSource = sequential_ids,
        guard: Guard | None = None,
        read_only: bool = False,
    ) -> None:
        self.path = Path(path)
        self._file = BankFile(self.path, read_only)
        folder = None if read_only else self.path.with_name(f"{self.path.name}.index")
        super().__init__(self._file, partial(VectorCache, folder=folder), embedder=embedder, ids=ids, guard=guard)

    def backup(self, path: str | os.PathLike[str], *, at: datetime) -> None:
        """Write a whole copy of the file, which `SQLiteBank` opens; others may go on writing.

        Raises:
            BankError: there is a file at `path`, or it cannot be written.
        """
        place = Path(path)
        claim(place)
        if not self.read_only:
            self._file.note_copy(str(place.absolute()), "backup", at)
        self._file.copy_to(place)

    def own_log(self, path: str | os.PathLike[str], scope: Scope) -> None:
        """Take a file for the bank's own: it is removed with whatever is erased of the scope's user next."""
        place, own = Path(path).resolve(), self.path.resolve()
        if place == own or place.name.startswith(f"{own.name}-") or place.is_relative_to(f"{own}.index"):
            raise BankError(f"{place} is the memory itself, and no log; give the log's path")
        super().own_log(path, scope)
