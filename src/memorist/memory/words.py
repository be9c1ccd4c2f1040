"""The words of a text as lexical search counts them, in any language.

Case and accents do not matter, nor do commonest English endings. Scripts that put no spaces between words (Chinese,
Japanese, Thai, …) are cut into overlapping pairs of letters, and single ones, so that any letter, and any two that
stand together, are found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from memorist.memory.embed import FUNCTION_WORDS, stem

VERSION = 2
"""Counts up with every change of what the words of a text are: an index made with another one is made anew."""

LONGEST = 64
"""Letters of a word that count."""

_ASCII = re.compile(r"\w+")
_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
    "]"
)
_ACCENT = re.compile(
    "["
    "\u0300-\u036f"  # of Latin, Greek, Cyrillic
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # Hebrew points
    "\u0610-\u061a\u0640\u064b-\u065f\u0670"  # Arabic vowels, and what lengthens letters
    "]"
)
_ALIKE = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "ة": "ه", "ى": "ي"})


def words(text: str) -> list[str]:
    """The words of a text in order, repeats kept; of scripts without spaces each letter too."""
    return [stem(word) for word in _words(text, letters=True)]


def asked(query: str) -> list[str]:
    """The words to look for, each once; function words only where there is nothing else."""
    found = list(_words(query))
    telling = [word for word in found if word not in FUNCTION_WORDS]
    return list(dict.fromkeys(map(stem, telling or found)))


def _words(text: str, *, letters: bool = False) -> Iterator[str]:
    if text.isascii():
        yield from (run[:LONGEST] for run in _ASCII.findall(text.lower()))
        return
    for run, unspaced in _runs(_plain(text)):
        if unspaced:
            yield from (run[i : i + 2] for i in range(max(1, len(run) - 1)))
            if letters and len(run) > 1:
                yield from run
        else:
            yield run[:LONGEST]


def _plain(text: str) -> str:
    """Without case and accents; half-width letters, ligatures and the like as what they stand for."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", _ACCENT.sub("", parts).translate(_ALIKE)).casefold()


def _runs(text: str) -> Iterator[tuple[str, bool]]:
    """Stretches of letters, digits and their marks, and whether their script puts no spaces between words."""
    run, unspaced = "", False
    for letter in text:
        kind = unicodedata.category(letter)[0]
        inside = kind in "LN" or letter == "_" or (kind == "M" and run != "")
        apart = inside and kind != "M" and (_UNSPACED.match(letter) is not None)
        if run and (not inside or (kind != "M" and apart != unspaced)):
            yield run, unspaced
            run = ""
        if inside:
            unspaced = apart if not run else unspaced
            run += letter
    if run:
        yield run, unspaced
