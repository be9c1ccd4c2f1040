"""Searches of a household, judged: a model beside searchers that are written down, and how some searches went."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from memorist.agents.esearch import ESearchSettings
from memorist.agents.search_heuristics import SEARCHERS, Searcher, searched
from memorist.agents.search_planner import Planner
from memorist.errors import RecipeError
from memorist.evaluation.runs import greedy_seats, recipe_of
from memorist.evaluation.statistics import hierarchical_bootstrap
from memorist.models.sampler import Sampler
from memorist.page import COLOURS, escaped, figure, grid, page
from memorist.tasks.household.episode import Prices, priced
from memorist.tasks.household.measures import Measures, measured, with_failures
from memorist.tasks.household.scene import Cell, Scene
from memorist.tasks.household.searching import HouseholdData, HouseholdTask
from memorist.tasks.household.world import Household
from memorist.training.rollout import Seat, play

SHOWN, SIDE = 4, 20
"""Searches that a report shows; pixels of a cell there."""
WAY, MEANT = "#2a6fdb", "#e08a00"
HEAD = ("", "found", "cost", "failed: 25", "swc", "spl", "asked", "read")


def homes(count: int) -> HouseholdData:
    """Held-out homes: of one to four things that look alike in turn."""
    data = HouseholdData(split="test", homes=count, least=1, most=4)
    data.check("homes")
    return data


def by_script(make: Callable[[], Searcher], data: HouseholdData, prices: Prices | None = None) -> list[Household]:
    """What a searcher that is written down does, search by search; at other prices than the data's, if given."""
    return [searched(task.searches[0], make()) for task in at_prices(data, prices)]


def by_model(
    seats: Mapping[str, Seat], settings: ESearchSettings, data: HouseholdData, prices: Prices | None = None
) -> list[tuple[Household, ...]]:
    """What a model does, home by home."""
    return [run.outcome.houses for (run,) in play(settings.build, at_prices(data, prices), seats)]


def at_prices(data: HouseholdData, prices: Prices | None) -> list[HouseholdTask]:
    """Tasks at other prices than the data's; None for those."""
    tasks = data.tasks(0)
    if prices is None:
        return tasks
    return [replace(task, searches=tuple(priced(one, prices) for one in task.searches)) for task in tasks]


def run(
    trained: Path | None, served: Sampler | None, data: HouseholdData, out: Path, as_json: bool, screen: Console,
    err: Console,
) -> dict[str, list[Household]]:  # fmt: skip
    """Judge scripts, the planner and a model on homes; a table or JSON, and a report.

    Args:
        trained: a folder that training wrote; None for the bundled base.
        served: a model behind an endpoint, which takes the place of a run and is asked in full.

    Raises:
        RecipeError: the run is of another agent.
    """
    makers: dict[str, Callable[[], Searcher]] = {**SEARCHERS, "planner": Planner}
    found: dict[str, list[Household]] = {}
    for name, make in makers.items():
        with err.status(f"searching: {name}"):
            found[name] = by_script(make, data)
    if served is not None:
        seats, name, settings = {"seeker": Seat(served)}, served.name, ESearchSettings()
    else:
        recipe = recipe_of(trained) if trained else None
        given = recipe.agent if recipe else ESearchSettings(style="compact", reply=8)
        if not isinstance(given, ESearchSettings):
            raise RecipeError(f"agent {given.name!r} does not search homes; expected a run of 'esearch'")
        settings = given
        models = recipe.models if recipe else {"seeker": "bundled-seeker"}
        seats, name = greedy_seats(models, trained), str(trained or "bundled-seeker")
    found[name] = [house for houses in by_model(seats, settings, data) for house in houses]
    out.mkdir(parents=True, exist_ok=True)
    write_report(out / "report.html", found)
    if as_json:
        print(json.dumps({name: asdict(measured(some)) for name, some in found.items()}, indent=1))
    else:
        show(found, screen)
        screen.print(f"report: {out / 'report.html'}")
    return found


def show(found: Mapping[str, Sequence[Household]], screen: Console) -> None:
    """A table of what they are worth."""
    table = Table(
        HEAD[0],
        *(Column(name, justify="right") for name in HEAD[1:]),
        title=f"{len(next(iter(found.values())))} searches",
    )
    for name, some in found.items():
        table.add_row(name, *_cells(measured(some)))
    screen.print(table)


def _cells(one: Measures) -> list[str]:
    shares = f"{one.success:.0%}", f"{one.cost:.1f}", f"{one.with_failures:.1f}", f"{one.swc:.2f}", f"{one.spl:.2f}"
    return [*shares, f"{one.asks:.1f}", f"{one.reads:.1f}"]


def write_report(file: Path, found: Mapping[str, Sequence[Household]]) -> None:
    """A page: what each is worth, and ways that the last one went, beside those of the others."""
    rows = "".join(
        f"<tr><th>{escaped(name)}</th>{''.join(f'<td class=n>{cell}</td>' for cell in _cells(measured(some)))}</tr>"
        for name, some in found.items()
    )
    last = list(found)[-1]
    parts = [
        "<p>What a search costs: metres, questions, looks at memory, and 25 where nothing was found. Below, some "
        "searches from above: grey places that were looked at, faint ones that were not, an orange ring around what "
        "was meant, the way that was gone, and numbers of steps.</p>",
        grid(HEAD, rows),
        figure(
            "Cost with failures, and its 95% interval", lambda axes: _bars(axes, found), (7, 0.5 + 0.4 * len(found))
        ),
    ]
    beside = [name for name in ("memory-and-ask",) if name in found]
    for number in _telling(found[last])[:SHOWN]:
        search = found[last][number].search
        parts.append(f"<h2>{escaped(search.id)}</h2><p>{escaped(search.instruction)}</p>")
        parts += [replay(name, found[name][number]) for name in (last, *beside)]
    file.write_text(page("Searches of a household", "\n".join(parts)), encoding="utf-8")


def _bars(axes: Any, found: Mapping[str, Sequence[Household]]) -> None:
    for place, (name, some) in enumerate(found.items()):
        points = hierarchical_bootstrap({0: {str(i): [with_failures(one)] for i, one in enumerate(some)}})
        ends = [[points.value - points.low], [points.high - points.value]]
        axes.barh(place, points.value, xerr=ends, color=COLOURS["line"], ecolor=COLOURS["ink"], height=0.6)
        axes.text(0.3, place, f" {name}", va="center")
    axes.set_yticks([])
    axes.invert_yaxis()


def _telling(some: Sequence[Household]) -> list[int]:
    """Searches that say most: a failure, the dearest, the cheapest that was found, then the others."""
    order = sorted(range(len(some)), key=lambda i: some[i].cost.total)
    lost = [i for i in order if not some[i].success][:1]
    won = [i for i in order if some[i].success]
    return list(dict.fromkeys([*lost, *won[-1:], *won[:1], *order]))


def replay(name: str, house: Household) -> str:
    """A search as a picture of the home with the way that was gone, and what was done step by step."""
    mark = '<span class="ok">found</span>' if house.success else '<span class="no">not found</span>'
    body = "".join(
        f"<tr><td>{i}. {escaped(said, 80)}</td><td>{escaped(step.seen, 300)}</td><td>{step.cost.total:.2f}</td></tr>"
        for i, (said, step) in enumerate(house.log, 1)
    )
    head = f"<h3>{escaped(name)} {mark} · {house.cost.total:.2f}</h3>"
    steps = grid(("done", "seen", "cost"), body, "stack")
    more = f"<details><summary>{len(house.log)} steps</summary>{steps}</details>"
    return f'<div class="card">{head}{drawn(house)}{more}</div>'


def drawn(house: Household) -> str:
    """A home from above as an SVG, with the way that was gone and the numbers of the steps that ended somewhere."""
    scene = house.search.scene
    cells = {*scene.walkable, *(one.cell for one in scene.receptacles)}
    left, top = min(x for x, _ in cells), min(y for _, y in cells)
    wide, high = (max(axis) - low + 3 for axis, low in ((([x for x, _ in cells]), left), ([y for _, y in cells], top)))

    def at(cell: Cell) -> tuple[int, int]:
        return (cell[0] - left + 1) * SIDE, (cell[1] - top + 1) * SIDE

    def box(cell: Cell, fill: str, inset: int = 0) -> str:
        x, y = at(cell)
        side = SIDE - 2 * inset
        return f'<rect x="{x + inset}" y="{y + inset}" width="{side}" height="{side}" fill="{fill}"/>'

    def middle(cell: Cell) -> tuple[int, int]:
        x, y = at(cell)
        return x + SIDE // 2, y + SIDE // 2

    shapes = [box(cell, "var(--card)") for cell in sorted(scene.walkable)]
    for one in scene.receptacles:
        place = f"{box(one.cell, 'var(--dim)', 1)}<title>{escaped(one.id)}</title>"
        shapes.append(f'<g opacity="{1 if one.id in house.visited else 0.45}">{place}</g>')
        x, y = middle(one.cell)
        for thing in scene.on[one.id]:
            if thing.id == house.search.target.id:
                shapes.append(f'<circle cx="{x}" cy="{y}" r="{SIDE}" fill="none" stroke="{MEANT}" stroke-width="3"/>')
            shapes.append(
                f'<circle cx="{x}" cy="{y}" r="{SIDE // 3}" fill="{escaped(thing.color)}" stroke="var(--ink)">'
                f"<title>{escaped(thing.id)}</title></circle>"
            )
    way, stops = gone(house)
    points = " ".join(f"{x},{y}" for x, y in map(middle, way))
    shapes.append(f'<polyline points="{points}" fill="none" stroke="{WAY}" stroke-width="2" stroke-opacity=".7"/>')
    for cell, numbers in stops.items():
        x, y = at(cell)
        text = escaped(", ".join(map(str, numbers)), 12)
        shapes.append(
            f'<text x="{x + 2}" y="{y + SIDE - 3}" font-size="11" font-weight="700" fill="var(--ink)">{text}</text>'
        )
    told_ = f"{house.search.category}: {len(way) - 1} steps"
    return (
        f'<svg viewBox="0 0 {wide * SIDE} {high * SIDE}" role="img" aria-label="{escaped(told_)}" '
        f'style="max-width:{wide * SIDE}px;width:100%">{"".join(shapes)}</svg>'
    )


def gone(house: Household) -> tuple[list[Cell], dict[Cell, list[int]]]:
    """The cells of the way that a search went, and by cell the numbers of the steps that ended there."""
    again = Household(house.search, notes=lambda: list(house.recalled))
    way: list[Cell] = [again.at]
    stops: dict[Cell, list[int]] = {}
    for number, (said, _) in enumerate(house.log, 1):
        before = again.at
        again.message(said)
        if again.at != before:
            way += between(house.search.scene, before, again.at)
            stops.setdefault(again.at, []).append(number)
    return way, stops


def between(scene: Scene, start: Cell, end: Cell) -> list[Cell]:
    """A shortest way from one cell to another, without the first."""
    steps, way = scene.steps(start), [end]
    while steps[way[-1]] > 1:
        x, y = way[-1]
        near = ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1))
        way.append(next(cell for cell in near if steps.get(cell) == steps[way[-1]] - 1))
    return way[::-1]
