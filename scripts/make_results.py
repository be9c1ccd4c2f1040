"""Make docs/results.md from results/*.json. With --check, fail if it is out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """# Results

Made by `make docs` from `results/*.json`; each row says how it was measured. Intervals are 95 %, by hierarchical
bootstrap over seeds and, inside them, dialogues. `null` rows have not been measured; they say why.
"""


def number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"


def page() -> str:
    parts = [HEAD]
    for file in sorted(Path("results").glob("*.json")):
        parts.append(
            f"\n## {file.stem}\n\n| row | value | interval | unit | n | seeds | how | device | date |\n|---|--:|---|---|--:|--:|---|---|---|\n"
        )
        for row in json.loads(file.read_text()):
            interval = f"{number(row['low'])} to {number(row['high'])}" if row.get("low") is not None else ""
            value = number(row["value"]) if row["value"] is not None else f"not measured: {row['why']}"
            cells = [
                row["row"],
                value,
                interval,
                row["unit"],
                row.get("n", ""),
                row.get("seeds", ""),
                f"`{row['how']}`",
                row["device"],
                row["date"],
            ]
            parts.append("| " + " | ".join(map(str, cells)) + " |\n")
        note = Path("results") / f"{file.stem}.md"
        if note.exists():
            parts.append("\n" + note.read_text())
    return "".join(parts)


def main() -> None:
    target = Path("docs/results.md")
    if "--check" in sys.argv:
        if target.read_text() != page():
            sys.exit("docs/results.md is out of date: run `make docs`")
        return
    target.write_text(page())


if __name__ == "__main__":
    main()
