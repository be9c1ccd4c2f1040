"""One self-contained page for people: tables and charts, no scripts, no requests, every text escaped."""

from __future__ import annotations

import html
import io
import re
import warnings
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

LONGEST_TEXT = 400
"""Characters of a memory, turn or answer that are shown: models write megabytes."""
OPERATIONS = ("ADD", "UPDATE", "DELETE", "NOOP", "malformed")
PALETTE = ("ink", "line", "before", "after", "peer", *OPERATIONS, "other")
COLOURS = {name: f"#0101{number:02x}" for number, name in enumerate(PALETTE)}
"""What matplotlib draws with; each becomes a CSS variable, so that charts follow light and dark mode."""

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1f2328; --dim: #667079; --line: #d5d9de; --card: #f3f4f6;
  --before: #c2702a; --after: #2463b5; --peer: #a3abb5; --heat: 36 99 181; --good: #167534; --bad: #b3261e;
  --ADD: #18835a; --UPDATE: #2463b5; --DELETE: #c0392b; --NOOP: #8b95a1; --malformed: #a04fa0; --other: #c59a1a; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e4e7eb; --dim: #9aa4af; --line: #363c44;
  --card: #1e2329; --before: #e39a5b; --after: #6aa5f0; --peer: #69727d; --heat: 86 150 235; --good: #56c271;
  --bad: #f2857c; --ADD: #3fbf8a; --UPDATE: #6aa5f0; --DELETE: #ee7868; --malformed: #cf86cf; --other: #dcb74a; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink); margin: 0 auto;
  background: var(--paper); max-width: 1120px; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .5rem 0; } h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; } p { max-width: 46rem; margin: .5rem 0 1rem; } li { margin: .4rem 0; }
.dim, small { color: var(--dim); } small, code { font-size: .87em; } .lead { font-size: 1.15rem; }
.scroll { overflow-x: auto; margin: 1rem 0; overflow-wrap: break-word; } .stack { width: 100%; table-layout: fixed; }
table { border-collapse: collapse; font-size: .93rem; } th { text-align: left; font-weight: 600; color: var(--dim); }
td, th { border-bottom: 1px solid var(--line); padding: .4rem .8rem; vertical-align: top; }
.n { text-align: right; font-variant-numeric: tabular-nums; } td.n { white-space: nowrap; }
.before { --edge: var(--before); } .after { --edge: var(--after); } .differs { --edge: var(--other); }
td:first-child { box-shadow: inset 4px 0 var(--edge, #0000); } .session th { background: var(--card); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1rem; }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: .8rem; }
figcaption { font-size: .93rem; font-weight: 600; line-height: 1.35; margin-bottom: .4rem; }
figure img { display: block; width: 100%; max-width: 280px; image-rendering: pixelated; margin-bottom: .4rem; }
figure svg { display: block; width: 100%; height: auto; } figure svg text { font-family: inherit !important; }
.heat td.n { background: rgb(var(--heat) / calc(var(--share) * .6)); min-width: 4.2rem; }
.heat td:first-child { min-width: 8.5rem; } .heat .gold { outline: 2px solid var(--good); outline-offset: -2px; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; } td > div + div { margin-top: .35rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 0 1rem 1rem; margin: 1.5rem 0; }
.op { font: 600 .72rem ui-monospace, monospace; padding: .1em .4em; border-radius: 4px; color: var(--paper);
  background: var(--kind); margin-right: .4em; } ins { text-decoration: none; } del, .no { color: var(--bad); }
.ok { color: var(--good); } .ok, .no { font-weight: 700; margin-right: .3em; }
@media (max-width: 700px) { body { font-size: 15px; } .card { padding: 0 .6rem .6rem; } td, th { padding: .4rem; }
  table:not(.stack) { zoom: .82; } .stack thead { display: none; } .stack :is(tbody, tr, td, th) { display: block; }
  .stack tr { border-bottom: 1px solid var(--line); padding: .3rem 0; box-shadow: inset 4px 0 var(--edge, #0000); }
  .stack td { border: 0; padding: .15rem .6rem; box-shadow: none; } .stack td[data-of] > div:first-of-type {
  display: inline; } [data-of]::before { content: attr(data-of) ": "; color: var(--dim); font-size: .85rem; } }
"""


def escaped(text: object, longest: int = LONGEST_TEXT) -> str:
    """A text as HTML, cut where it is longer."""
    shown = str(text)
    return html.escape(shown if len(shown) <= longest else shown[:longest] + " …")


def grid(head: Sequence[str], body: str, css: str = "") -> str:
    """A table: its first column is text; in tables that do not stack on small screens the others are numbers."""
    number = "" if css == "stack" else ' class="n"'
    top = "".join(f"<th{number if place else ''}>{escaped(cell, 30)}</th>" for place, cell in enumerate(head))
    return f'<div class="scroll"><table class="{css}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(caption: str, draw: Callable[[Any], None], size: tuple[float, float], *, polar: bool = False) -> str:
    """A figure with an inline SVG of what `draw(axes)` draws; `polar`: axes of an angle and a radius."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        hint = "This chart needs matplotlib: pip install 'memorist[report]'"
        return f'<figure><figcaption>{escaped(caption)}</figcaption><p class="dim">{hint}</p></figure>'
    ink, line = COLOURS["ink"], COLOURS["line"]
    options = {
        "svg.fonttype": "none", "svg.hashsalt": caption, "text.parse_math": False, "font.size": 9,
        "text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "axes.edgecolor": line,
        "grid.color": line, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
        "legend.frameon": False,
    }  # fmt: skip
    buffer = io.StringIO()
    with matplotlib.rc_context(options), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # A name in letters that the measuring font lacks.
        drawing = Figure(figsize=size, layout="constrained")
        draw(drawing.subplots(subplot_kw={"projection": "polar"} if polar else None))
        drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg \1 role="img" aria-label="{escaped(caption)}">', svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return f"<figure><figcaption>{escaped(caption)}</figcaption>{svg[svg.index('<svg') :]}</figure>"


def png(data: bytes) -> str:
    """The address of a PNG that is in the page itself."""
    return f"data:image/png;base64,{b64encode(data).decode()}"


def page(title: str, body: str) -> str:
    """A whole page. Its policy lets a browser load nothing from elsewhere, whatever slips through."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{escaped(title)}</title><style>{STYLE}</style></head><body><h1>{escaped(title)}</h1>
{body}</body></html>
"""
