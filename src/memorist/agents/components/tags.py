"""Text in tags, as models write it and as they are shown it."""

from __future__ import annotations

import re
from collections.abc import Iterable


def blocks(text: str, tag: str) -> list[str] | None:
    """What stands between each `<tag>` and the `</tag>` after it, stripped; None where they are out of balance."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    opened, closed = _places(text, opening), _places(text, closing)
    if len(opened) != len(closed) or any(a > b for a, b in zip(opened, closed, strict=True)):
        return None
    return [part.partition(closing)[0].strip() for part in text.split(opening)[1:]]


def harmless(text: str, tags: Iterable[str]) -> str:
    """A text that can neither open nor close any of the tags."""
    return re.sub(rf"<(?=/?(?:{'|'.join(map(re.escape, tags))})\b)", "‹", text, flags=re.IGNORECASE)


def _places(text: str, part: str) -> list[int]:
    return [found.start() for found in re.finditer(re.escape(part), text)]
