"""The blocks of code in the documentation, and the commands that stand in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- with: (?P<needs>[^\n]*) -->\n)?```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)```", re.DOTALL)


def blocks(kind: str) -> list[tuple[str, str, str]]:
    """(page and number, what it needs, text) of the blocks of a kind."""
    return [
        (f"{page.relative_to(ROOT)}-{number}", found["needs"] or "", found["text"])
        for page in PAGES
        for number, found in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")))
        if found["kind"] == kind
    ]


def commands() -> list[tuple[str, str]]:
    """Lines in blocks without a language that call `memorist`."""
    found = []
    for name, _, text in blocks(""):
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            line = re.sub(r"^(\S+=\S*\s+)*(\.venv/bin/|/opt/memorist/bin/)?", "", re.split(r"\s+# ", line)[0].strip())
            if line.startswith("memorist "):
                found.append((name, line))
    return found
