"""The viewer in a real browser: fast, by keyboard alone, in the dark, on a phone; and what memories say stays text."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("playwright", reason="needs the pip package playwright")
from playwright.sync_api import Browser, Page, sync_playwright

from memorist.decision import Reward
from memorist.log import write_trajectories
from test_view import HOSTILE, make_run, memory, started, trajectory

pytestmark = pytest.mark.promise

__all__ = ["memory"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 1.0
"""For the first view of a run with 10,000 logged trajectories."""
RUN_VIEWS = (
    "#/", "#/final", "#/stages", "#/recipe", "#/files/0", "#/files/0/stage-000-step-000001",
    "#/one/0/stage-000-step-000001/2",
)  # fmt: skip
MEMORY_VIEWS = ("#/", "#/user/anna", "#/user/anna/at/4", "#/user/anna/at/6/find/fused/where does Anna live")

UNNAMED = """() => {
  const named = (it) => (it.getAttribute("aria-label") || (it.labels && it.labels[0] && it.labels[0].textContent)
    || (it.tagName === "svg" ? "" : it.textContent) || "").trim();
  const wanted = "a, button, input, select, summary, [tabindex='0'], [role=img], [role=listbox], nav, section, table";
  return [...document.querySelectorAll(wanted)].filter((it) => !named(it)).map((it) => it.outerHTML.slice(0, 120));
}"""
"""Whatever can be operated, or stands in the list of landmarks, without a name."""
OUTLINE = """() => ({
  title: document.title, lang: document.documentElement.lang, h1: document.querySelectorAll("h1").length,
  mains: document.querySelectorAll("main").length, wide: document.documentElement.scrollWidth > innerWidth,
  twice: [...document.querySelectorAll("[id]")].map((it) => it.id).filter((id, at, all) => all.indexOf(id) !== at),
  levels: [...document.querySelectorAll("h1, h2, h3, h4")].map((it) => Number(it.tagName[1])),
})"""
PALE = """() => {
  const split = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const behind = (it) => {
    const layers = [];
    for (let at = it; at; at = at.parentElement) {
      const [r, g, b, a = 1] = split(getComputedStyle(at).backgroundColor);
      layers.push([r, g, b, a]);
      if (a === 1) break;
    }
    const over = (under, [r, g, b, a]) => [r, g, b].map((v, at) => v * a + under[at] * (1 - a));
    return layers.reverse().reduce(over, [255, 255, 255]);
  };
  const found = [];
  for (const it of document.querySelectorAll("body *")) {
    const own = [...it.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !it.checkVisibility() || it.disabled || it.closest("svg, .unseen, .skip, option")) continue;
    const [a, b] = [light(split(getComputedStyle(it).color)), light(behind(it))].sort((x, y) => y - x);
    const contrast = (a + .05) / (b + .05);
    if (contrast < 4.5) found.push(`${it.className || it.tagName} ${contrast}: ${it.textContent.slice(0, 40)}`);
  }
  return found;
}"""
"""Texts with less contrast than WCAG's AA asks for."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Watched:
    """A page of which it is known what went wrong on it, and whom it asked."""

    def __init__(self, browser: Browser, width: int = 1200, dark: bool = False) -> None:
        self.wrong: list[str] = []
        self.asked: list[str] = []
        colours: Any = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=colours)
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.wrong.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, address: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(address)
        self.page.wait_for_selector("main:not([aria-busy]) h1")
        self.page.wait_for_timeout(50)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with evaluations, whose steps are many enough for curves."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "run", 130, steps=90)
    rows = [{"name": name, "after": n, "measures": {"correct": n / 3}} for name in ("old", "new") for n in range(3)]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_first_view_of_ten_thousand_trajectories(browser: Browser, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "large", steps=1000)
    ones = [replace(trajectory(n), facts={"notes": "x" * 2000}) for n in range(500)]
    for step in range(50, 1001, 50):
        write_trajectories(folder / "trajectories" / f"stage-000-step-{step:06}.jsonl", ones)
    write_trajectories(
        folder / "trajectories" / "stage-001-step-000001.jsonl", (one for _ in range(20) for one in ones)
    )
    taken: dict[str, float] = {}
    with started(str(folder)) as (address, end):
        for view in ("", "#/files/0", "#/files/0/stage-001-step-000001/100"):
            watched = Watched(browser)
            began = time.perf_counter()
            watched.page.goto(address + view)
            watched.page.wait_for_selector("main:not([aria-busy]) h1")
            if not view:
                watched.page.wait_for_selector("svg .line")
            taken[view] = time.perf_counter() - began
            assert watched.wrong == []
        end()
    print("seconds:", {view: round(seconds, 2) for view, seconds in taken.items()})
    assert max(taken.values()) <= SECONDS, taken


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_every_view_is_whole_named_readable_and_alone(
    browser: Browser, run: Path, memory: Path, width: int, dark: bool
) -> None:
    for place, views in ((run, RUN_VIEWS), (memory, MEMORY_VIEWS)):
        with started(str(place)) as (address, end):
            watched, titles = Watched(browser, width, dark), set()
            for view in views:
                watched.open(address + view)
                outline = watched.page.evaluate(OUTLINE)
                titles.add(outline["title"])
                assert (outline["lang"], outline["h1"], outline["mains"], outline["twice"]) == ("en", 1, 1, []), view
                assert not outline["wide"], f"{view} scrolls sideways at {width} pixels"
                steps = zip(outline["levels"], outline["levels"][1:], strict=False)
                assert all(after <= before + 1 for before, after in steps), (view, outline["levels"])
                assert watched.page.evaluate(UNNAMED) == [], view
                assert watched.page.evaluate(PALE) == [], view
            assert len(titles) >= len(views) - 2, titles
            assert watched.wrong == []
            assert all(url.startswith((address, "about:")) for url in watched.asked)
            paper = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (paper == "rgb(21, 24, 28)") is dark
            end()


def test_what_a_memory_says_is_text(browser: Browser, memory: Path) -> None:
    with started(str(memory)) as (address, end):
        watched = Watched(browser)
        for view in ("#/user/anna", "#/user/anna/at/5/find/lexical/script", f"#/user/{HOSTILE.replace('/', '%2F')}"):
            watched.open(address + view)
            assert HOSTILE in watched.page.inner_text("main")
            assert watched.page.evaluate("window.hacked") is None
            assert watched.page.locator("main img, main script").count() == 0
        assert watched.wrong == []
        end()


def test_what_a_model_says_is_text(browser: Browser, run: Path) -> None:
    lone = trajectory(text=HOSTILE)
    lone = replace(lone, task=HOSTILE, facts={HOSTILE: HOSTILE}, rewards=(Reward(HOSTILE, 1.0),))
    write_trajectories(run / "trajectories" / "hostile.jsonl", [lone])
    with started(str(run)) as (address, end):
        watched = Watched(browser)
        for view in ("#/files/0/hostile", "#/one/0/hostile/1"):
            watched.open(address + view)
            assert HOSTILE in watched.page.inner_text("main")
            assert watched.page.evaluate("window.hacked") is None
            assert watched.page.locator("main img, main script").count() == 0
        assert watched.wrong == []
        end()
    (run / "trajectories" / "hostile.jsonl").unlink()


def test_the_policy_of_the_page_stops_what_slips_through(browser: Browser, run: Path) -> None:
    with started(str(run)) as (address, end):
        watched = Watched(browser)
        watched.open(address)
        for trick in (
            "document.body.innerHTML = '<img src=x onerror=window.hacked=1>'",
            "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))",
            "fetch('https://example.org/').catch(() => 0)",
        ):
            watched.page.evaluate(f"() => {{ try {{ {trick} }} catch {{}} }}")
        watched.page.wait_for_timeout(100)
        assert watched.page.evaluate("window.hacked") is None
        assert any("Content Security Policy" in one or "TrustedHTML" in one for one in watched.wrong)
        end()


def test_a_memory_by_keyboard_alone(browser: Browser, memory: Path) -> None:
    with started(str(memory)) as (address, end):
        watched = Watched(browser)
        page = watched.page
        watched.open(address)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main" and "#" not in page.url
        to(page, "document.activeElement.textContent === 'anna'")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=Memory of anna")
        to(page, "document.activeElement.id === 'moment'")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert "Commit 6" in (page.get_attribute("#moment", "aria-valuetext") or "")
        for commit, text in ((5, "Her dog is called Rex."), (4, "Anna lives in Lisbon."), (2, "Anna lives in Porto.")):
            page.keyboard.press("ArrowLeft")
            page.wait_for_selector(f"text=after commit {commit}")
            assert text in page.inner_text(".records")
            assert f"Commit {commit}," in (page.get_attribute("#moment", "aria-valuetext") or "")
            assert page.evaluate("document.activeElement.id") == "moment"
        assert page.url.endswith("#/user/anna/at/2")
        page.keyboard.press("End")
        page.wait_for_selector("text=after commit 6")
        to(page, "document.activeElement.id === 'query'")
        page.keyboard.type("where does Anna live")
        page.keyboard.press("Enter")
        page.wait_for_selector("table.hits")
        assert "Anna lives in Lisbon." in page.inner_text("table.hits tbody tr:first-child")
        assert page.inner_text("#news") == "2 hits"
        page.go_back()
        page.wait_for_selector("text=Whose memory?")
        assert watched.wrong == []
        end()


def test_a_run_by_keyboard_alone(browser: Browser, run: Path) -> None:
    with started(str(run)) as (address, end):
        watched = Watched(browser)
        page = watched.page
        watched.open(address)
        to(page, "document.activeElement.tagName === 'svg'")
        page.keyboard.press("End")
        assert page.inner_text("#news").startswith("step 90: 9")
        to(page, "document.activeElement.textContent === 'As a table'")
        page.keyboard.press("Enter")
        page.wait_for_selector("figure table")
        watched.open(address + "#/one/0/stage-000-step-000001/2")
        to(page, "document.activeElement.getAttribute('role') === 'listbox'")
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        assert "probability 50 %" in page.inner_text("[role=status].reading")
        assert "counts in the loss" in page.inner_text("[role=status].reading")
        page.keyboard.press("End")
        assert "without a probability, written by the environment, carries no loss" in page.inner_text(".reading")
        assert page.locator(".tokens .trained").count() > 3 and page.locator(".tokens .masked").count() == 1
        assert page.locator(".tokens .rewarded").count() == 2
        assert watched.wrong == []
        end()


def test_two_runs_beside_each_other(browser: Browser, run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", steps=40)
    with started(str(run), "--beside", str(other)) as (address, end):
        watched = Watched(browser)
        watched.open(address)
        assert watched.page.inner_text("h1") == "Curves of two runs"
        assert watched.page.locator("figure >> nth=0").locator(".line.look0, .line.look1").count() == 4
        watched.open(address + "#/final")
        row = watched.page.inner_text("table >> tr:has-text('Reward (mean worth of a run)')")
        assert row.split("\t")[1:] == ["8.55", "3.55", "-5"]
        assert watched.wrong == []
        end()


def to(page: Page, wanted: str, presses: int = 60) -> None:
    """Press Tab until the focus is where it should be."""
    for _ in range(presses):
        page.keyboard.press("Tab")
        if page.evaluate(wanted):
            return
    raise AssertionError(f"the Tab key does not lead to {wanted}")
