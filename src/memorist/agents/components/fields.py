"""Prompts of named fields, for small models that are trained on them: the data and nothing else.

A field's name stands alone on its line; every line of its data begins with a blank, so no data can look like a name,
and a word has the same tokens wherever it stands.
"""

from __future__ import annotations

NOTHING = "-"
"""What an empty field says."""


def fields(asked: str, **data: str) -> str:
    """The named data, one after the other, and the name of what is asked for."""
    parts = [f"{name.capitalize()}:\n{_shown(text)}\n" for name, text in data.items()]
    return "".join([*parts, f"{asked.capitalize()}:\n"])


def read_fields(prompt: str) -> dict[str, str]:
    """The data by name, and under its own name an empty text for what is asked; the inverse of `fields`."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in prompt.split("\n"):
        if line.startswith(" "):
            found[name].append(line[1:])
        elif line:
            name = line.removesuffix(":").lower()
            found[name] = []
    texts = {key: "\n".join(lines) for key, lines in found.items()}
    return {key: "" if text == NOTHING else text for key, text in texts.items()}


def _shown(text: str) -> str:
    return "\n".join(f" {line}" for line in (text or NOTHING).split("\n"))
