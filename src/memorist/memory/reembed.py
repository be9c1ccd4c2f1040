"""Changing the embedder of a file: every vector is made anew, and then all at once take the place of the old ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from memorist.errors import BankError
from memorist.memory.bank import embed_texts
from memorist.memory.embed import Embedder
from memorist.memory.sqlite_file import BankFile

TOGETHER = 256
"""Texts that are embedded and written at once."""


def reembed(path: Path, embedder: Embedder, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Make the vectors of all versions in a file with another embedder; how many there are.

    Others may read and write meanwhile, with the old one; once it is done they are told to open the file again. Where
    it is killed, the file is as it was.

    Raises:
        BankError: there is no such file, it cannot be written, or the embedder does not keep its promise.
    """
    if not path.exists():
        raise BankError(f"{path}: there is no memory to embed anew")
    file = BankFile(path, read_only=False)
    try:
        file.bring_up_to_date(None)
        with file.writing() as db:
            db.execute("DROP TABLE IF EXISTS new_vectors")  # of one that was killed
            db.execute("CREATE TABLE new_vectors (version INTEGER PRIMARY KEY, vector BLOB NOT NULL)")
        done = 0
        while True:
            with file.reading() as db:
                texts = _missing(db)
                total = db.execute("SELECT count(*) FROM versions").fetchone()[0]
            if len(texts) < TOGETHER:
                break
            vectors = _vectors(texts, embedder)
            with file.writing() as db:  # save of what was erased meanwhile
                db.executemany(
                    "INSERT OR REPLACE INTO new_vectors SELECT ?1, ?2 WHERE EXISTS "
                    "(SELECT 1 FROM versions WHERE version = ?1)",
                    vectors,
                )
            done += len(texts)
            progress(done, total)
        with file.writing() as db:  # nobody writes while the last ones are made
            while texts := _missing(db):
                db.executemany("INSERT OR REPLACE INTO new_vectors VALUES (?, ?)", _vectors(texts, embedder))
            db.execute("DROP TABLE vectors")
            db.execute("ALTER TABLE new_vectors RENAME TO vectors")
            db.execute("DELETE FROM vectors WHERE version NOT IN (SELECT version FROM versions)")
            db.execute("UPDATE embedder SET name = ?, size = ?", (embedder.name, embedder.size))
            # Whoever keeps vectors in memory must read them anew, as after an erasure.
            db.execute("INSERT INTO commits SELECT coalesce(max(number), 0) + 1, NULL, 1 FROM commits")
            (total,) = db.execute("SELECT count(*) FROM vectors").fetchone()
        file.settle(0, ())
        progress(total, total)
        return int(total)
    finally:
        file.close()


def _missing(db: sqlite3.Connection) -> list[tuple[int, str]]:
    query = """SELECT version, text FROM versions WHERE version NOT IN (SELECT version FROM new_vectors)
        ORDER BY version LIMIT ?"""
    return db.execute(query, (TOGETHER,)).fetchall()


def _vectors(texts: list[tuple[int, str]], embedder: Embedder) -> list[tuple[int, bytes]]:
    vectors = embed_texts([text for _, text in texts], embedder)
    return [(version, row.astype("<f4").tobytes()) for (version, _), row in zip(texts, vectors, strict=True)]
