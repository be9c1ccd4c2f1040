"""What was seen in a home, as records of a memory bank: a thing's key is its name, so seeing it again overwrites."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from memorist.memory.bank import MemoryBank
from memorist.memory.record import MemoryRecord, Operation, Result, Scope
from memorist.tasks.household.episode import Noted
from memorist.tasks.household.scene import VALUES, Scene, Thing
from memorist.tasks.household.world import Household

HOME = Scope("home")
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
"""When the first search in a home begins."""


def after(hours: float) -> datetime:
    """So many hours later."""
    return BEGIN + timedelta(hours=hours)


def read_notes(bank: MemoryBank, at: datetime) -> list[Noted]:
    """What a bank holds of things, newest first."""
    found = [note for record in bank.list(HOME) if (note := _noted(record, at)) is not None]
    return sorted(found, key=lambda one: one.hours)


def _noted(record: MemoryRecord, at: datetime) -> Noted | None:
    """A record as a note; None for what is another kind of record."""
    held: Any = record.payload or {}
    looks = {name: held.get(name) for name in VALUES}
    told = [held.get(name) for name in ("category", "receptacle", "room", "seen")]
    if not all(isinstance(one, str) for one in told) or not all(isinstance(v, str | None) for v in looks.values()):
        return None
    try:
        hours = max(0.0, (at - datetime.fromisoformat(held["seen"])).total_seconds() / 3600)
    except (ValueError, TypeError):
        return None
    place, room, key = held["receptacle"], held["room"], record.key or ""
    return Noted(hours, held["category"], **looks, receptacle=place, room=room, thing=key)


def write_notes(bank: MemoryBank, notes: Iterable[Noted], at: datetime, scene: Scene) -> list[Result]:
    """Remember things as they were seen so many hours before; what is known of the same thing is overwritten."""
    known = {record.key: record.id for record in bank.list(HOME)}
    return bank.apply([_written(one, known.get(one.thing), at, scene) for one in notes], HOME, at=at)


def _written(one: Noted, old: str | None, at: datetime, scene: Scene) -> Operation:
    looks = {name: getattr(one, name) for name in VALUES}
    told = " ".join(value or "?" for value in looks.values())
    text = f"{one.category} ({told}) on {one.receptacle} in the {scene.names.get(one.room, one.room)}"
    seen = at - timedelta(hours=one.hours)
    # With the time in it, what is seen again as it was is newer.
    held = {"category": one.category, "receptacle": one.receptacle, "room": one.room, "seen": seen.isoformat(), **looks}
    return Operation("UPDATE" if old else "ADD", text, old, None if old else one.thing or None, held, at=seen)


def seen_now(thing: Thing, scene: Scene) -> Noted:
    """A thing as it is seen."""
    color, material, size = thing.looks
    room = scene.by_id[thing.receptacle].room
    return Noted(0.0, thing.category, color, material, size, thing.receptacle, room, thing.id)


def forget_moved(bank: MemoryBank, house: Household, at: datetime) -> list[Result]:
    """Forget what is not where it was said to be."""
    found = [
        Operation("DELETE", id=record.id, reason="it is not there")
        for record in bank.list(HOME)
        if (note := _noted(record, at)) is not None
        and note.receptacle in house.visited
        and not (note.thing in house.seen and house.seen[note.thing].receptacle == note.receptacle)
    ]
    return bank.apply(found, HOME, at=at) if found else []
