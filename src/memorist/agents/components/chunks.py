"""Cutting a long text into chunks of so many tokens, losing no character of it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

from memorist.errors import RecipeError

Starts = Callable[[str], list[int]]
"""From a text to the place where each of its tokens starts."""

_WORD = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)|\n")


def word_starts(text: str) -> list[int]:
    """Words and marks as tokens: about three for four of a language model's."""
    return [found.start() for found in _WORD.finditer(text)]


def tokenizer_starts(folder: str) -> Starts:
    """The tokens of a model's tokenizer.

    Args:
        folder: that holds tokenizer.json.

    Raises:
        RecipeError: there is none.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise RecipeError(
            f"tokenizer {folder!r} has no tokenizer.json; expected a model's folder, or '' to count words"
        )
    return partial(_token_starts, str(file))


def chunks(text: str, starts: Starts, size: int, most: int = 0, *, whole: bool = False) -> list[str]:
    """Consecutive pieces of `size` tokens, the last one shorter; together they are the text.

    Args:
        most: of more chunks than that the middle is left out, so that as much of the beginning as of the end is kept
            (0: all are kept). MemAgent trains with 8.
        whole: whether a piece that a blank line ends within is cut at the last one, and is shorter for it.
    """
    places = starts(text)
    if most and len(places) > most * size:
        half = most * size // 2
        gap = places[len(places) - (most * size - half)]
        kept = (text[: places[half]], text[gap:])
        return [piece for part in kept for piece in chunks(part, starts, size, whole=whole)]
    cuts = [0, *(_paragraph_ends(text, places, size) if whole else places[size::size]), len(text)]
    return [text[a:b] for a, b in pairwise(cuts) if places and a < b]


def _paragraph_ends(text: str, places: list[int], size: int) -> list[int]:
    """Where pieces of at most `size` tokens end, at a blank line where there is one."""
    cuts: list[int] = []
    first = 0
    while first + size < len(places):
        end = places[first + size]
        blank = text.rfind("\n\n", places[first], end)
        cuts.append(end if blank < 0 else blank + 2)
        first = bisect_left(places, cuts[-1])
    return cuts


def fitted(text: str, starts: Starts, size: int) -> str:
    """A text of at most `size` tokens as it is, a longer one up to the end of a sentence, or failing that of a word."""
    places = starts(text)
    return text if len(places) <= size else whole_sentences(text[: places[size]])


def whole_sentences(text: str) -> str:
    """A text that was cut anywhere, without the sentence that the cut went through; without a sentence, word or all."""
    kept = text.rstrip()
    ends = [found.end() for found in _SENTENCE_END.finditer(kept)]
    if ends:
        return kept[: ends[-1]].rstrip()
    return kept.rpartition(" ")[0] or kept


@lru_cache(maxsize=8)
def _read(file: str) -> object:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(file)


def _token_starts(file: str, text: str) -> list[int]:
    found = _read(file).encode(text, add_special_tokens=False)  # type: ignore[attr-defined]
    # Of a letter that is several tokens all start where it does; a cut must not go through it.
    return [start for start, _ in found.offsets]
