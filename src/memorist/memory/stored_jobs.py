"""Work that a stored bank is to do later: kept beside the records, so that a process that is killed loses none of it.

A job is claimed by one process for a while; where that has not ended it by then, another one takes it up. What a job
was asked and what came of it is somebody's text, and goes with what is erased of theirs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from memorist.errors import BankError
from memorist.memory.record import Scope, clean_text, instant
from memorist.memory.stored_search import Database
from memorist.memory.stored_tables import Tables

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
_COLUMNS = "id, user, agent, session, state, asked, outcome, made"


@dataclass(frozen=True, slots=True)
class Job:
    """asked and outcome: plain objects. state: waiting, running, done or failed. made: when it was asked for. holder:
    who has claimed it."""

    id: str
    scope: Scope
    asked: Any
    made: datetime
    state: str = WAITING
    outcome: Any = None
    holder: str = ""


UNDER: ContextVar[Job | None] = ContextVar("UNDER", default=None)
"""The job for which something is written: where it was erased, or another holds it, nothing is written any more."""


def need_job(db: Database) -> None:
    """Refuse to write for a job that was erased, or that was lost to another.

    Raises:
        BankError: it was.
    """
    job = UNDER.get()
    if job is None:
        return
    row = db.execute("SELECT holder FROM jobs WHERE id = ?", (job.id,)).fetchone()
    if row is None:
        raise BankError("what was to be read was erased meanwhile; nothing of it is kept")
    if row[0] != job.holder:
        raise BankError("what was to be read took too long, and another reads it now")


class Jobs:
    """Jobs of a stored bank."""

    _tables: Tables

    def queue(self, job: Job) -> None:
        """Keep a job; it is on disk when this returns."""
        scope = job.scope
        row = (job.id, scope.user, scope.agent, scope.session, job.state, json.dumps(job.asked), "null")
        with self._tables.writing() as db:
            db.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, '')", (*row, instant(job.made)))

    def claim(self, now: datetime, seconds: float, holder: str) -> Job | None:
        """A job that waits, or whose time with another is over; `holder` has `seconds` for it from now on.

        Of the tenants who wait each is as likely, whose oldest it then is: many jobs of one hold up nobody else's.

        Jobs that ended, and whose time to be asked for is over, are forgotten.
        """
        time = instant(now)
        with self._tables.reading() as db:  # so that nobody is kept from writing where there is nothing to do
            query = f"SELECT count(*) FROM jobs WHERE state = '{WAITING}' OR until < ?"
            if not db.execute(query, (time,)).fetchone()[0]:
                return None
        with self._tables.writing() as db:
            db.execute(f"DELETE FROM jobs WHERE state IN ('{DONE}', '{FAILED}') AND until < ?", (time,))
            # Of those that ended none is left that is over, so these are waiting, or running for too long.
            due = f"(state = '{WAITING}' OR until < ?)"
            query = f"SELECT user, min(made) FROM jobs WHERE {due} GROUP BY user"
            oldest = dict(db.execute(query, (time,)).fetchall())
            if not oldest:
                return None
            tenant = random.choice(sorted({user.partition(":")[0] for user in oldest}))
            user = min((user for user in oldest if user.partition(":")[0] == tenant), key=lambda user: oldest[user])
            query = f"SELECT {_COLUMNS} FROM jobs WHERE {due} AND user = ? ORDER BY made, id LIMIT 1"
            row = db.execute(query, (time, user)).fetchone()
            query = f"UPDATE jobs SET state = '{RUNNING}', until = ?, holder = ? WHERE id = ?"
            db.execute(query, (time + seconds, holder, row[0]))
        return replace(_job(row), state=RUNNING, holder=holder)

    def renew(self, job: Job, now: datetime, seconds: float) -> None:
        """Say that a job is still under way, for so long."""
        with self._tables.writing() as db:
            query = f"UPDATE jobs SET until = ? WHERE id = ? AND state = '{RUNNING}' AND holder = ?"
            db.execute(query, (instant(now) + seconds, job.id, job.holder))

    def end(self, job: Job, now: datetime, kept: timedelta) -> None:
        """Say what came of a job, which can be asked for so long; nothing where it was erased meanwhile, or another
        holds it."""
        row = (job.state, json.dumps(job.outcome), instant(now) + kept.total_seconds(), job.id, job.holder)
        with self._tables.writing() as db:
            query = (
                f"UPDATE jobs SET state = ?, outcome = ?, until = ? WHERE id = ? AND holder = ? AND state = '{RUNNING}'"
            )
            db.execute(query, row)

    def job(self, job_id: str, scope: Scope) -> Job | None:
        """A job that a scope covers."""
        if clean_text(job_id) != job_id:
            return None
        with self._tables.reading(scope.user) as db:
            query = f"SELECT {_COLUMNS} FROM jobs WHERE id = ? AND user = ?"
            row = db.execute(query, (job_id, scope.user)).fetchone()
        found = None if row is None else _job(row)
        return found if found is not None and scope.covers(found.scope) else None


def _job(row: Sequence[Any]) -> Job:
    job_id, user, agent, session, state, asked, outcome, made = row
    when = datetime.fromtimestamp(made, UTC)
    return Job(job_id, Scope(user, agent, session), json.loads(asked), when, state, json.loads(outcome))
