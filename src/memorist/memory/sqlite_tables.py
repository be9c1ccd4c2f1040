"""The tables of an `SQLiteBank`'s file, and what makes an older file a current one."""

from __future__ import annotations

from collections.abc import Callable

from memorist.memory import stored_search as search
from memorist.memory.stored_search import Database
from memorist.memory.stored_tables import fill_search

APPLICATION = 0x4D454D4F


def _create_tables(db: Database) -> None:
    """A version is a record from one commit up to another; a change leads from one version to the next."""
    for statement in (
        f"PRAGMA application_id = {APPLICATION}",
        "CREATE TABLE embedder (name TEXT NOT NULL, size INTEGER NOT NULL)",
        "CREATE TABLE commits (number INTEGER PRIMARY KEY, at TEXT, erasure INTEGER NOT NULL)",
        """CREATE TABLE versions (
            version INTEGER PRIMARY KEY, birth INTEGER NOT NULL, id TEXT NOT NULL,
            user TEXT NOT NULL, agent TEXT NOT NULL, session TEXT NOT NULL, text TEXT NOT NULL,
            created TEXT NOT NULL, updated TEXT NOT NULL, key TEXT,
            payload TEXT NOT NULL, source TEXT NOT NULL,
            from_commit INTEGER NOT NULL, to_commit INTEGER)""",
        "CREATE UNIQUE INDEX live_id ON versions (id) WHERE to_commit IS NULL",
        """CREATE UNIQUE INDEX live_key ON versions (user, agent, session, key)
            WHERE to_commit IS NULL AND key IS NOT NULL""",
        "CREATE INDEX version_id ON versions (id, from_commit)",
        "CREATE INDEX version_user ON versions (user, birth, from_commit, to_commit)",
        "CREATE INDEX version_key ON versions (user, key) WHERE key IS NOT NULL",
        "CREATE TABLE vectors (version INTEGER PRIMARY KEY, vector BLOB NOT NULL)",
        """CREATE TABLE changes (
            number INTEGER NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
            user TEXT NOT NULL, before INTEGER, after INTEGER, reason TEXT NOT NULL,
            PRIMARY KEY (number, position)) WITHOUT ROWID""",
        "CREATE INDEX change_id ON changes (id)",
        "CREATE INDEX change_user ON changes (user, number)",
    ):
        db.execute(statement)


def _add_search(db: Database) -> None:
    db.execute("ALTER TABLE versions ADD COLUMN expires TEXT")
    db.execute("CREATE TABLE erasures (number INTEGER PRIMARY KEY)")
    db.execute("CREATE TABLE copies (path TEXT NOT NULL, kind TEXT NOT NULL, at TEXT NOT NULL)")
    search.create(db)
    fill_search(db)


def _add_logs(db: Database) -> None:
    db.execute(
        """CREATE TABLE logs (
            path TEXT NOT NULL, user TEXT NOT NULL, doomed INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (path, user)) WITHOUT ROWID"""
    )


def _number_versions(db: Database) -> None:
    # Numbers of versions are never used again: what is kept elsewhere by number must not come to mean another text.
    db.execute("CREATE TABLE numbers (version INTEGER NOT NULL)")
    db.execute("INSERT INTO numbers SELECT coalesce(max(version), 0) FROM versions")


def _add_jobs(db: Database) -> None:
    db.execute(
        """CREATE TABLE jobs (
            id TEXT PRIMARY KEY, user TEXT NOT NULL, agent TEXT NOT NULL, session TEXT NOT NULL, state TEXT NOT NULL,
            asked TEXT NOT NULL, outcome TEXT NOT NULL, made REAL NOT NULL, until REAL NOT NULL,
            holder TEXT NOT NULL) WITHOUT ROWID"""
    )


MIGRATIONS: tuple[Callable[[Database], None], ...] = (
    _create_tables,
    _add_search,
    _add_logs,
    _number_versions,
    _add_jobs,
)
"""What makes an older file a current one, in order; each runs once and is recorded in the file."""
