"""`memorist components`: what recipes can name."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Any

import typer

from memorist.catalogue import BUILT_IN, offered
from memorist.cli.shared import Json
from memorist.errors import need_known

SETTING = {
    "agents": "agent.name", "data": "data.kind", "extractors": "agent.extractor", "updaters": "agent.updater",
    "retrievers": "agent.retriever", "rerankers": "agent.reranker", "answerers": "agent.answerer", "banks": "data.bank",
    "rewards": "data.rewards", "teachers": "stages[].teacher",
}  # fmt: skip
"""Where a recipe names each kind."""


def components(
    kind: Annotated[str, typer.Argument(help=f"only these: {', '.join(SETTING)}")] = "",
    as_json: Json = False,
) -> None:
    """List what a recipe can name, one line each; what installed packages add says where it is from."""
    if kind:
        need_known("kind", kind, SETTING)
    rows = [row for each in SETTING if kind in ("", each) for row in _rows(each)]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    wide = max(len(row["name"]) for row in rows)
    for each in dict.fromkeys(row["kind"] for row in rows):
        print(f"{each} ({SETTING[each]})")
        for row in (row for row in rows if row["kind"] == each):
            print(f"  {row['name']:<{wide}}  {row['what']}{' [from ' + row['from'] + ']' if row['from'] else ''}")


def _rows(kind: str) -> list[dict[str, Any]]:
    found = []
    for name, point in sorted(offered(kind).items()):
        try:
            thing = point.load()
            what = _line(inspect.getmodule(thing) if kind == "agents" else thing)
        except (ImportError, AttributeError) as error:
            what = f"cannot be used here: {error}"
        added = "" if name in BUILT_IN[kind] else point.value.partition(":")[0]
        found.append({"kind": kind, "setting": SETTING[kind], "name": name, "what": what, "from": added})
    return found


def _line(thing: Any) -> str:
    """The first sentence of its docstring."""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split()).split(". ")[0]
    name, colon, rest = text.partition(": ")
    return rest if colon and " " not in name else text
