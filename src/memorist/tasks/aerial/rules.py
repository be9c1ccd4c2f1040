"""Rules that reward an answer in `<think>` and `<answer>` tags: is it right, is it well formed (section 4.3 of the
specification of UAV-VL-R1; the paper's own equations are not public)."""

from __future__ import annotations

import re

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_FORM = re.compile(r"\s*<think>.+</think>\s*<answer>.+</answer>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SYNONYMS = {
    "color": "colour", "gray": "grey", "automobile": "car", "lorry": "truck", "ship": "boat", "airplane": "plane",
    "aeroplane": "plane", "aircraft": "plane", "round": "circle", "circular": "circle", "rectangle": "square",
    "triangular": "triangle", "city": "urban", "town": "urban", "countryside": "rural", "harbor": "harbour",
    "port": "harbour", "under": "below", "over": "above", "on the left": "left", "on the right": "right",
    "upper": "top", "lower": "bottom", "center": "centre",
}  # fmt: skip
RELATIVE, ABSOLUTE = 0.01, 1e-6


def form(text: str, *, soft: bool = False) -> float:
    """1 where the whole text is one think pair and one answer pair, neither empty, with nothing around them. soft: a
    quarter for each of the four tags that occurs exactly once, in whatever order."""
    once = [text.count(tag) == 1 for tag in TAGS]
    if soft:
        return sum(once) / len(TAGS)
    return float(all(once) and _FORM.fullmatch(text) is not None)


def answer(text: str) -> str | None:
    """What stands in the last answer pair; None where there is none."""
    found = _ANSWER.findall(text)
    return found[-1].strip() if found else None


def correct(said: str | None, gold: str, kind: str) -> bool:
    """Whether an answer is right.

    Args:
        kind: "choice", "yesno", "int", "cell" or "float" (within 1 %).
    """
    if said is None:
        return False
    if kind == "yesno":
        first = plain(said).split(" ")[0].strip(".,;:!")
        return first in ("yes", "no") and first == plain(gold)
    if kind == "int":
        number = whole(said)
        return number is not None and number == whole(gold)
    if kind == "float":
        found, right = one_number(said), one_number(gold)
        return found is not None and right is not None and abs(found - right) <= max(ABSOLUTE, RELATIVE * abs(right))
    if kind == "cell":
        return _cell(said) == _cell(gold)
    return plain(said) == plain(gold)


def counted(said: str | None, gold: int) -> float:
    """How near a count is: 1 where it is exact, else half of what its relative error leaves of 1."""
    number = None if said is None else whole(said)
    if number is None:
        return 0.0
    return 1.0 if number == gold else 0.5 * max(0.0, 1 - abs(number - gold) / max(1, gold))


def plain(text: str) -> str:
    """In small letters, without an article before it, marks around it and double spaces, by one of its names."""
    found = " ".join(text.lower().split()).strip(" .,;:!?'\"()")
    found = re.sub(r"^(?:an?|the) ", "", found)
    return SYNONYMS.get(found, found)


def whole(text: str) -> int | None:
    """The one whole number in a text, in digits or as a word up to ten; None where there is none, or several."""
    number = one_number(text)
    return int(number) if number is not None and number == int(number) else None


def one_number(text: str) -> float | None:
    """The one number in a text; None where there is none, or several."""
    digits = _NUMBER.findall(text)
    words = [word for word in re.findall(r"[a-z]+", text.lower()) if word in WORDS]
    if len(digits) + len(words) != 1:
        return None
    return float(WORDS.index(words[0])) if words else float(digits[0].replace(",", ""))


def _cell(text: str) -> str:
    words = [SYNONYMS.get(word, word) for word in re.split(r"[\s-]+", plain(text)) if word]
    words = ["middle" if word == "centre" else word for word in words]
    if words in (["middle"], ["middle", "middle"]):
        return "middle"
    return " ".join(words)
