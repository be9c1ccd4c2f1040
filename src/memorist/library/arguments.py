"""Checks of what people give, so that a wrong type is named where it was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from memorist.errors import ArgumentError, RefusedError
from memorist.library.results import New
from memorist.memory.bank import source_ids
from memorist.memory.record import Code, MemoryRecord, Operation, Result


def need_type(name: str, value: object, kind: Any) -> None:
    """Check an argument's type.

    Raises:
        ArgumentError: it has another one.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, int | None)):
        expected = getattr(kind, "__name__", str(kind)).replace("datetime.", "")
        raise ArgumentError(f"{name} is {value!r} ({type(value).__name__}); expected {expected}")


def need_moment(as_of: object) -> None:
    """Check what a read is as of.

    Raises:
        ArgumentError: it is no commit, no time with hours, and not None.
    """
    if isinstance(as_of, bool) or not isinstance(as_of, int | datetime | None):
        raise ArgumentError(
            f"as_of is {as_of!r} ({type(as_of).__name__}); expected a datetime, the number of a commit, or None for now"
        )


def need_count(name: str, value: object) -> None:
    """Check how many are wanted.

    Raises:
        ArgumentError: it is no whole number of 0 or more.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ArgumentError(f"{name} is {value!r}; expected a whole number of 0 or more")


def need_share(name: str, value: object) -> None:
    """Check a cosine that may be left out.

    Raises:
        ArgumentError: it is none between 0 and 1.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1):
        raise ArgumentError(f"{name} is {value!r}; expected a cosine above 0 and up to 1, e.g. 0.97")


def need_several(items: object) -> None:
    """Check that things to remember are several: a text would be taken letter by letter.

    Raises:
        ArgumentError: it is a text, or nothing that has several.
    """
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise ArgumentError(f"add_many takes several texts, and got {items!r}; use add for one")


def until(expires: datetime | timedelta | None, now: datetime) -> datetime | None:
    """A time, or a time from now, as a time.

    Raises:
        ArgumentError: it is something else, or beyond what times can be.
    """
    need_type("expires", expires, datetime | timedelta | None)
    try:
        return now + expires if isinstance(expires, timedelta) else expires
    except OverflowError:
        raise ArgumentError(f"expires is {expires}, which ends after the year 9999; leave it out") from None


def addition(item: Any, now: datetime) -> Operation:
    """The operation that remembers something.

    Raises:
        ArgumentError: a part of it has a wrong type.
    """
    if not isinstance(item, New):
        raise ArgumentError(f"a thing to remember is {item!r} ({type(item).__name__}); expected a text or New(…)")
    for name, kind in (("text", str), ("key", str | None), ("at", datetime | None), ("metadata", Mapping | None)):
        need_type(name, getattr(item, name), kind)
    sources = source_ids(item.source)
    for one in sources:
        need_type("source", one, str)
    return Operation("ADD", item.text, None, item.key, item.metadata, "", until(item.expires, now), item.at, sources)


def need_unexpired(record: MemoryRecord | None, now: datetime) -> None:
    """Check that what is to be updated is to be found.

    Raises:
        RefusedError: it has expired.
    """
    if record is not None and record.has_expired(now):
        op = Operation("UPDATE", id=record.id)
        why = "it has expired; say with expires= until when it holds now (datetime.max: for good)"
        raise RefusedError(f"UPDATE {record.id} for {record.scope} was refused: {why}", Result(op, Code.UNKNOWN_ID))


def default_path() -> Path:
    """Where a memory is kept if nobody says where: the platform's directory for a user's data."""
    from platformdirs import user_data_path

    return user_data_path("memorist") / "memory.db"
