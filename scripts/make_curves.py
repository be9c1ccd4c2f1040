"""Draw the curves to expect when a recipe is trained, from what `results/agents` kept of each seed's steps, and what one policy of
ESearch finds at which cost, to docs/curves.

Run: python scripts/make_curves.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

SHOWN = {
    "memagent": ("answer", "right answers while sampling (share)"),
    "memsearcher": ("answer", "right answers while sampling (share)"),
    "rmm": ("citations", "reward of a shown memory (-1 to 1)"),
}
"""Of each recipe, the reward term that is drawn."""
SPAN = 10
"""Steps that a point of a curve is the mean of."""


def smooth(values: list[float]) -> np.ndarray:
    """The mean over the last steps."""
    return np.array([np.mean(values[max(0, i + 1 - SPAN) : i + 1]) for i in range(len(values))])


def curves(name: str, term: str) -> list[list[float]]:
    """By seed."""
    files = sorted(Path("results/agents").glob(f"{name}-[0-9].json"))
    kept = [json.loads(file.read_text()).get("curve", {}) for file in files]
    return [one[term] for one in kept if term in one]


def draw(name: str, found: list[list[float]], label: str, out: Path) -> None:
    """Each seed thin, their mean thick."""
    lines = [smooth(values) for values in found]
    steps = np.arange(1, min(map(len, lines)) + 1)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9}):
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            axes.plot(steps, line[: len(steps)], color="#9ab", linewidth=0.8)
        axes.plot(steps, np.mean([line[: len(steps)] for line in lines], 0), color="#135", linewidth=2)
        axes.set(xlabel="step", ylabel=label, title=f"memorist train {name}, {len(lines)} seeds, mean of {SPAN} steps")
        axes.grid(axis="y", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(out, metadata={"Date": None})
    out.write_text(re.sub(r"\s+\n", "\n", out.read_text()))


def front(out: Path) -> None:
    """Success against cost, at each setting of prices: scripts as points, each seed of the policy as a line over what it is
    told a failure costs."""
    folder = Path("results/household")
    scripts = json.loads((folder / "scripts.json").read_text())["front"]
    seeds = [json.loads(file.read_text())["front"] for file in sorted(folder.glob("rl-[0-9].json"))]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "front", "font.size": 8}):
        figure = Figure(figsize=(8, 2.8), layout="constrained")
        every = figure.subplots(1, len(scripts), sharey=True)
        for axes, (place, theirs) in zip(every, scripts.items(), strict=True):
            for name, one in theirs.items():
                axes.plot(one["cost"], one["success"], "o", color="#9ab", markersize=4)
                if name == "memory-and-ask":
                    axes.annotate(
                        name, (one["cost"], one["success"]), fontsize=6, xytext=(-6, -9), textcoords="offset points"
                    )
            for seed in seeds:
                points = sorted((one["cost"], one["success"]) for one in seed[place])
                axes.plot(*zip(*points, strict=True), ".-", color="#135", linewidth=1, markersize=4)
            axes.set(xlabel="cost", title=f"prices: {place}")
            axes.grid(linewidth=0.4)
            axes.spines[["top", "right"]].set_visible(False)
        every[0].set(ylabel="found")
        figure.savefig(out, metadata={"Date": None})
    out.write_text(re.sub(r"\s+\n", "\n", out.read_text()))


def main() -> None:
    folder = Path("docs/curves")
    folder.mkdir(exist_ok=True)
    for name, (term, label) in SHOWN.items():
        found = curves(name, term)
        if found:
            draw(name, found, label, folder / f"{name}.svg")
        print(f"{name}: {len(found)} seeds")
    if Path("results/household/rl-0.json").exists():
        front(folder / "esearch-front.svg")


if __name__ == "__main__":
    main()
