"""How soon a run with 10,000 logged trajectories is to be seen: from opening the address to a page that is drawn.

    python benchmarks/view.py [--json results/view.json]

In a real Chromium, as a newcomer's: nothing kept from before. The bound is the browser's own: an empty page of a server
that does nothing takes as long as `empty` says.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from memorist.decision import Action, Decision, Observation, Reward, Trajectory
from memorist.log import write_trajectories

FILES, EACH, TIMES = 20, 500, 5
TOKENS = 60


def run_folder(folder: Path) -> Path:
    """A run of twenty logged steps with five hundred trajectories each, and its numbers."""
    for number in range(FILES):
        some = [trajectory(number * EACH + n) for n in range(EACH)]
        write_trajectories(folder / "trajectories" / f"stage-000-step-{1 + 50 * number:06d}.jsonl", some)
    rows = [
        {"stage": 0, "kind": "rl", "role": "writer", "step": n, "steps": 1000, "reward": n / 1000, "loss": 1 / n,
         "terms": {"right": n / 1000, "brief": -n / 1000}, "seconds": 1.0}
        for n in range(1, 1001)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text("name: made\nstages:\n- {kind: rl, role: writer, steps: 1000}\n")
    return folder


def trajectory(number: int) -> Trajectory:
    tokens = tuple((number * 7 + n) % 500 for n in range(TOKENS))
    text = f"reply {number} " + "word " * TOKENS
    action = Action(text, prompt=tokens[:40], tokens=tokens, logprobs=(-0.1,) * TOKENS)
    decision = Decision("writer", "made", Observation("what is asked " * 20), action)
    rewards = (Reward("right", float(number % 2)), Reward("brief", -0.1))
    return Trajectory(f"task-{number // 8}", number, (decision,) * 3, rewards)


def first_views(folder: Path) -> dict[str, list[float]]:
    """Seconds of each view, by name."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("needs a Chromium (Debian: apt-get install chromium)")
    command = [sys.executable, "-m", "memorist", "view", str(folder), "--port", "0"]
    found: dict[str, list[float]] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as viewer, sync_playwright() as playwright:
        try:
            assert viewer.stdout is not None
            told = re.search(r"http://\S+", viewer.stdout.readline())
            if told is None:
                raise SystemExit("the viewer did not start")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

            def seconds(address: str, drawn: Callable[[Any], object]) -> float:
                page = browser.new_context().new_page()  # nothing kept
                began = time.perf_counter()
                page.goto(address)
                drawn(page)
                taken = time.perf_counter() - began
                page.context.close()
                return taken

            seconds("about:blank", lambda page: None)
            for name, where in (("first", "#/"), ("list", "#/files/0/stage-000-step-000501")):
                address = told[0].rstrip("/") + "/" + where
                found[name] = [
                    seconds(address, lambda page: page.wait_for_selector("main:not([aria-busy]) h1"))
                    for _ in range(TIMES)
                ]
            found["empty"] = [seconds("about:blank", lambda page: None) for _ in range(TIMES)]
            browser.close()
        finally:
            viewer.terminate()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = first_views(run_folder(Path(folder) / "run"))
    rows = [
        {"row": f"viewer.{name}-view.seconds", "value": statistics.median(taken), "low": min(taken), "high": max(taken),
         "unit": "s", "n": TIMES, "trajectories": FILES * EACH, "peer": None, "peer_value": None,
         "how": "python benchmarks/view.py", "device": "2 CPU cores, Chromium",
         "date": date.today().isoformat()}
        for name, taken in found.items()
    ]  # fmt: skip
    for row in rows:
        print(json.dumps(row))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
