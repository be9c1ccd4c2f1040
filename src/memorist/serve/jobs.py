"""Reading that is asked for now and done later: where a model is slow, nobody has to hold a line open for it.

Jobs lie in the memory's own tables, so that a server that is killed loses none; each process takes one after another.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from memorist.errors import MemoristError, UnreadError
from memorist.library.asynchronous import AsyncMemory
from memorist.memory.record import Scope
from memorist.memory.stored import ROOM
from memorist.memory.stored_jobs import DONE, FAILED, UNDER, Job
from memorist.serve import bodies
from memorist.serve.telling import told

log = logging.getLogger("memorist.serve")
LEASE = 60.0
"""Seconds after which a job whose process says nothing any more is taken up by another."""
KEPT = timedelta(days=1)
"""How long it can be asked what came of a job."""
IDLE = 1.0
"""Seconds between two looks at what others have left."""


@dataclass
class Runner:
    """Does one job after another.

    Args:
        memory_of: the memory, once it is open.
        clock: says what time it is.
    """

    memory_of: Callable[[], AsyncMemory]
    clock: Callable[[], datetime]
    _new: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _closing: bool = False

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End after the job that is under way: what reads cannot be stopped, and would be done twice."""
        self._closing = True
        self._new.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def put(
        self, messages: Sequence[dict[str, Any]], scope: Scope, at: datetime | None, room: tuple[str, int] | None = None
    ) -> Job:  # fmt: skip
        """Keep messages that are to be read; they are on disk when this returns. room: see `memory.stored.ROOM`."""
        asked = {"messages": list(messages), "at": at.isoformat() if at else None, "room": room}
        job = Job(secrets.token_hex(8), scope, asked, self.clock())
        await self.memory_of().beside(lambda bank: bank.queue(job))
        self._new.set()
        return job

    async def _run(self) -> None:
        while not self._closing:
            self._new.clear()
            try:
                # Each claim is somebody else's, so that whoever lost a job cannot end it.
                job = await self.memory_of().beside(lambda b: b.claim(self.clock(), LEASE, secrets.token_hex(8)))
                if job is not None:
                    await self._do(job)
                    continue
            except MemoristError as error:  # a disk that is full, a database that is away: it is tried again
                log.error(json.dumps({"problem": "jobs wait", "kind": type(error).__name__}))
            except Exception:  # whatever it is, jobs of others go on
                log.exception(json.dumps({"problem": "jobs wait"}))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._new.wait(), IDLE)

    async def _do(self, job: Job) -> None:
        """Read the messages of a job, and say so again and again meanwhile."""
        memory, asked = self.memory_of(), job.asked
        alive = asyncio.create_task(self._renew(job))
        ROOM.set(tuple(asked["room"]) if asked["room"] else None)
        UNDER.set(job)
        results: Sequence[Any] = ()
        unread: Sequence[Any] = asked["messages"]
        try:
            when = datetime.fromisoformat(asked["at"]) if asked["at"] else job.made
            results, unread = await memory.observe(asked["messages"], job.scope, at=when), ()
            detail = ""
        except UnreadError as error:
            results, detail = error.results, told(error, job.id)[1]
            unread = [{"role": message.speaker, "content": message.text} for message in error.unread]
        except MemoristError as error:
            detail = told(error, job.id)[1]
        except Exception:  # of an agent of somebody's own: one job fails, the others go on
            log.exception(json.dumps({"job": job.id, "problem": "unexpected"}))
            detail = "something went wrong inside; the log has it under the job's id"
        finally:
            UNDER.set(None)
            ROOM.set(None)
            alive.cancel()
        outcome = {"results": _plain(results), "unread": list(unread), "detail": detail}
        done = replace(job, state=FAILED if unread else DONE, outcome=outcome)
        await memory.beside(lambda bank: bank.end(done, self.clock(), KEPT))

    async def _renew(self, job: Job) -> None:
        while True:
            await asyncio.sleep(LEASE / 4)
            try:
                await self.memory_of().beside(lambda bank: bank.renew(job, self.clock(), LEASE))
            except MemoristError as error:  # tried again before the time is over
                log.warning(json.dumps({"job": job.id, "problem": "not renewed", "kind": type(error).__name__}))


def _plain(results: Sequence[Any]) -> list[Any]:
    return [bodies.Done.of(one).model_dump(mode="json") for one in results]


def state_of(job: Job) -> bodies.JobState:
    """A job as its tenant is told of it."""
    found = job.outcome or {}
    return bodies.JobState(
        job=job.id, state=job.state, results=found.get("results", []), unread=found.get("unread", []),
        detail=found.get("detail", ""),
    )  # fmt: skip
