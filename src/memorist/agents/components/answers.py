"""Reading an answer, and the memories it was distilled from, out of what a model wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memorist.agents.components.operations import MAX_REPLY, read_json
from memorist.memory.record import MemoryRecord, clean_text

# Every repetition is bounded or followed by what it cannot match: models write megabytes of blanks.
_MARKER = re.compile(r"(?:\*{1,2}[ \t]{0,3})?answer[\s*]{0,8}:(?:[ \t]{0,3}\*{1,2})?", re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*(.+)$")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its evidence.

    `used` are the memories that the model says it used; `invented` counts those it made up. `fallback` is the
    last line of a reply without an answer marker: for people and evaluation, never for reward.
    """

    text: str
    used: tuple[MemoryRecord, ...] = ()
    candidates: tuple[MemoryRecord, ...] = ()
    invented: int = 0
    well_formed: bool = True
    fallback: str = ""

    @property
    def shown(self) -> str:
        """What a person is shown."""
        return self.text or self.fallback


def read_compact(reply: str, candidates: Sequence[MemoryRecord]) -> Answer:
    """Read `{"memories": ["0"], "answer": "…"}`."""
    data = read_json(reply)
    if not isinstance(data, dict) or not isinstance(data.get("answer"), str | int | float):
        return Answer("", candidates=tuple(candidates), well_formed=False, fallback=_last_line(reply))
    named = data.get("memories", [])
    named = named if isinstance(named, list) else []
    numbers = [_number(name) for name in named]
    real = [n for n in numbers if n is not None and n < len(candidates)]
    used = tuple(candidates[n] for n in dict.fromkeys(real))
    text = clean_text(str(data["answer"])).strip()
    return Answer(text, used, tuple(candidates), invented=len(named) - len(real))


def _number(name: Any) -> int | None:
    text = str(name) if isinstance(name, str | int) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def read_full(reply: str, candidates: Sequence[MemoryRecord]) -> Answer:
    """Read memories copied as bullets, then the answer after the last `**Answer:**`."""
    markers = list(_MARKER.finditer(reply)) if len(reply) <= MAX_REPLY else []
    if not markers:
        return Answer("", candidates=tuple(candidates), well_formed=False, fallback=_last_line(reply))
    after = reply[markers[-1].end() :].strip()
    text = clean_text(after.split("\n", 1)[0]).strip().strip("*\"'“” ").strip()
    by_text = {_plain(record.text): record for record in candidates}
    bullets = [m.group(1) for line in reply[: markers[-1].start()].splitlines() if (m := _BULLET.match(line))]
    found = [_match(bullet, by_text) for bullet in bullets]
    used = tuple(dict.fromkeys(record.id for record in found if record is not None))
    records = {record.id: record for record in candidates}
    return Answer(text, tuple(records[i] for i in used), tuple(candidates), invented=found.count(None))


def _match(bullet: str, by_text: dict[str, MemoryRecord]) -> MemoryRecord | None:
    plain = _plain(bullet)
    if plain in by_text:
        return by_text[plain]
    # Models copy the line with its date; the memory is then the end of the bullet.
    return next((record for text, record in by_text.items() if text and plain.endswith(text)), None)


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def _last_line(reply: str) -> str:
    lines = [line.strip() for line in clean_text(reply).splitlines() if line.strip()]
    return lines[-1][:1000] if lines else ""
