"""`memorist add`, `observe`, `search`, … : the library from the command line."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorist.cli.shared import Json, MemoryPlace, console
from memorist.errors import BankError, DataError, RecipeError

if TYPE_CHECKING:
    from memorist.library.memory import Memory
    from memorist.library.results import Erased
    from memorist.memory.record import MemoryRecord, Result, Scope

User = Annotated[str, typer.Option(help="whose memory")]
Agent = Annotated[str, typer.Option(help="the agent's part of it")]
Session = Annotated[str, typer.Option(help="the session's part of it")]
Where = Annotated[str | None, typer.Option(help="""a filter, e.g. '{"topic": "food", "price": {"lt": 20}}'""")]
AsOf = Annotated[str | None, typer.Option(help="what held at a time, e.g. 2026-01-31")]
Timeout = Annotated[float, typer.Option(help="seconds to wait for readers of older pages")]

_SPAN = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command, example in (
        (add, """memorist add "Anna is allergic to nuts" --user anna --metadata '{"topic": "food"}' --expires 30d"""),
        (
            observe,
            """memorist observe "I moved to Lyon last week." --user anna; memorist observe --user anna < chat.json""",
        ),
        (search, """memorist search "What may she eat?" --user anna --where '{"topic": "food"}' --explain"""),
        (context, """memorist context "What may she eat?" --user anna --max-tokens 500"""),
        (records, "memorist list --user anna --as-of 2026-01-31 --json"),
        (history, "memorist history 85cd2c4d9cb6c4a3 --user anna"),
        (delete, "memorist delete 85cd2c4d9cb6c4a3 --user anna"),
        (erase, "memorist erase --user anna --session s1 --yes"),
        (export, "memorist export anna.jsonl --user anna"),
        (import_, "memorist import conversations.json --user anna; memorist import mem0.json --form mem0"),
        (backup, "memorist backup copy.db"),
        (reembed, "memorist reembed minilm --file memory.db"),
    ):
        name = {"records": "list", "import_": "import"}.get(command.__name__, command.__name__)
        app.command(name, epilog=f"Example: {example}")(command)


@contextmanager
def opened(file: str | None, *, reading: bool = False) -> Iterator[Memory]:
    """The memory; a file that is only read must be there."""
    from memorist.library.memory import Memory
    from memorist.library.opening import place_of

    place = place_of(file)
    if reading and isinstance(place, Path) and not place.exists():
        raise BankError(f"{place}: there is no memory; `memorist add` makes one, or give --file")
    # A disk that cannot be written can be read all the same.
    fixed = reading and isinstance(place, Path) and not all(os.access(p, os.W_OK) for p in (place, place.parent))
    with Memory(file, read_only=fixed) as memory:
        yield memory


def _scope(user: str, agent: str, session: str) -> Scope:
    from memorist.memory.record import Scope

    return Scope(user, agent, session)


def _show(plain: Any, as_json: bool, lines: Iterator[str]) -> None:
    if as_json:
        print(json.dumps(plain, indent=1, ensure_ascii=False))
    else:
        for line in lines:
            print(line)


def _plain(result: Result) -> dict[str, Any]:
    record = None if result.record is None else result.record.to_json()
    return {"kind": result.operation.kind, "code": result.code, "reason": result.operation.reason, "record": record}


def _line(record: MemoryRecord) -> str:
    text = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(record.text.split())
    )
    return f"{record.id}  {record.updated:%Y-%m-%d}  {text}"


def _told(results: list[Result], as_json: bool) -> None:
    lines = (
        f"{r.operation.kind:<6} {r.code:<9} {'' if r.record is None else _line(r.record)}"
        + (f"  ({r.operation.reason})" if r.operation.reason else "")
        for r in results
    )
    _show([_plain(result) for result in results], as_json, lines)


def _json(text: str | None, option: str) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise RecipeError(
            f"""{option} is {text!r}, which is not JSON ({error}); expected e.g. '{{"a": 1}}'"""
        ) from error


def _time(text: str | None, option: str) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise RecipeError(f"{option} is {text!r}; expected a time, e.g. 2026-01-31 or 2026-01-31T12:00:00Z") from None


def _until(text: str | None) -> datetime | timedelta | None:
    span = None if text is None else _SPAN.fullmatch(text)
    if span is not None:
        try:
            return timedelta(**{_UNITS[span[2]]: int(span[1])})
        except OverflowError:
            raise RecipeError(f"--expires is {text!r}, which ends after the year 9999; leave it out") from None
    try:
        return _time(text, "--expires")
    except RecipeError:
        raise RecipeError(f"--expires is {text!r}; expected a span (30s, 15m, 12h, 7d, 2w) or a time") from None


def add(
    texts: Annotated[list[str] | None, typer.Argument(help="what to remember; none: each line of the input")] = None,
    *,
    user: User,
    agent: Agent = "",
    session: Session = "",
    metadata: Annotated[str | None, typer.Option(help="a JSON object to filter by")] = None,
    key: Annotated[str | None, typer.Option(help="a name that is unique in the scope")] = None,
    expires: Annotated[str | None, typer.Option(help="a span such as 7d, or a time")] = None,
    near: Annotated[
        float | None, typer.Option(help="a cosine, e.g. 0.97, from which on a text counts as known")
    ] = None,
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Remember texts word by word."""
    from memorist.library.results import New

    given = texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    about = _json(metadata, "--metadata")
    with opened(file) as memory:
        new = [New(text, about, key, _until(expires)) for text in given]
        _told(memory.add_many(new, _scope(user, agent, session), near=near), as_json)


def observe(
    texts: Annotated[
        list[str] | None, typer.Argument(help="what the user said; none: text or JSON from the input")
    ] = None,
    *,
    user: User,
    agent: Agent = "",
    session: Session = "",
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Let the agent read what was said and decide what to remember."""
    said: Any = texts
    if not texts:
        text = sys.stdin.read()
        try:
            read = json.loads(text)
            said = read if isinstance(read, list | dict) else text
        except ValueError:
            said = text
    with opened(file) as memory:
        _told(memory.observe(said, _scope(user, agent, session)), as_json)


def search(
    query: Annotated[str, typer.Argument(help="what to look for")],
    *,
    user: User,
    agent: Agent = "",
    session: Session = "",
    k: Annotated[int, typer.Option("-k", help="how many at most")] = 10,
    mode: Annotated[str, typer.Option(help="fused, lexical or vector")] = "fused",
    where: Where = None,
    as_of: AsOf = None,
    explain: Annotated[bool, typer.Option("--explain", help="show the parts of each score")] = False,
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Find what was remembered, by words and by meaning."""
    with opened(file, reading=True) as memory:
        filters, time = _json(where, "--where"), _time(as_of, "--as-of")
        try:
            hits = memory.search(
                query, _scope(user, agent, session), k=k, mode=mode, where=filters, as_of=time, explain=explain
            )
        except ValueError as error:
            raise RecipeError(str(error)) from error
    lines = (
        f"{hit.score:.4f}  {_line(hit.record)}"
        + "".join(f"\n        {name} {value:.4g}" for name, value in hit.parts.items())
        for hit in hits
    )
    plain = [{"score": hit.score, "record": hit.record.to_json(), "parts": dict(hit.parts)} for hit in hits]
    _show(plain, as_json, lines)


def context(
    query: Annotated[str, typer.Argument(help="what is asked, or the last message")],
    *,
    user: User,
    agent: Agent = "",
    session: Session = "",
    max_tokens: Annotated[int, typer.Option(help="of the whole text")] = 1000,
    where: Where = None,
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Print the memories to put before a model, within a token budget."""
    with opened(file, reading=True) as memory:
        filters = _json(where, "--where")
        found = memory.context(query, _scope(user, agent, session), max_tokens=max_tokens, where=filters)
    plain = {"text": found.text, "ids": list(found.ids), "tokens": found.tokens}
    _show(plain, as_json, iter([found.text] if found.text else []))


def records(
    *,
    user: User,
    agent: Agent = "",
    session: Session = "",
    where: Where = None,
    as_of: AsOf = None,
    limit: Annotated[int | None, typer.Option(help="how many at most")] = None,
    after: Annotated[str | None, typer.Option(help="from the record after this id on")] = None,
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """List what is remembered, oldest first."""
    with opened(file, reading=True) as memory:
        filters, time = _json(where, "--where"), _time(as_of, "--as-of")
        found = memory.list(_scope(user, agent, session), where=filters, after=after, limit=limit, as_of=time)
    _show([record.to_json() for record in found], as_json, map(_line, found))


def history(
    record_id: Annotated[str, typer.Argument(help="a record's id")],
    *,
    user: User,
    agent: Agent = "",
    session: Session = "",
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Show every change of a record, with reasons."""
    with opened(file, reading=True) as memory:
        changes = memory.history(record_id, _scope(user, agent, session))
    if not changes:
        raise BankError(f"there is no record {record_id!r} in this scope; `memorist list` shows those there are")
    plain = [
        {"commit": c.commit, "kind": c.kind, "reason": c.reason, "record": c.record.to_json()} for c in changes
    ]  # fmt: skip
    lines = (f"{c.commit:>6}  {c.kind:<6} {_line(c.record)}" + f"  ({c.reason})" * bool(c.reason) for c in changes)
    _show(plain, as_json, lines)


def _gone(erased: Erased, as_json: bool) -> None:
    def lines() -> Iterator[str]:
        yield f"{erased.records} records removed, " + (
            "and their bytes from the file" if erased.done else "but older pages are still read:"
        )
        yield from (f"  by {who}; whoever opens or closes the file next finishes" for who in erased.pending)
        yield from (f"  out of reach: {path}" for path in erased.out_of_reach)

    plain = {
        "records": erased.records, "done": erased.done, "pending": list(erased.pending),
        "out_of_reach": list(erased.out_of_reach),
    }  # fmt: skip
    _show(plain, as_json, lines())


def delete(
    record_id: Annotated[str, typer.Argument(help="a record's id")],
    *,
    user: User,
    agent: Agent = "",
    session: Session = "",
    timeout: Timeout = 10.0,
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Remove a record, its history and its bytes."""
    with opened(file, reading=True) as memory:
        _gone(memory.delete(record_id, _scope(user, agent, session), timeout=timeout), as_json)


def erase(
    *,
    user: User,
    agent: Agent = "",
    session: Session = "",
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    timeout: Timeout = 10.0,
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Remove all that a scope covers, its history and its bytes."""
    scope = _scope(user, agent, session)
    with opened(file, reading=True) as memory:
        if not yes:
            if not sys.stdin.isatty():
                raise RecipeError("erase asks before it removes, and nobody is there to answer; add --yes")
            typer.confirm(f"Remove {len(memory.list(scope))} records of {scope} for good?", abort=True)
        _gone(memory.erase(scope, timeout=timeout), as_json)


def export(
    out: Annotated[Path, typer.Argument(help="a new JSONL file")],
    *,
    user: User,
    agent: Agent = "",
    session: Session = "",
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Write a scope's records, with their history, to a file."""
    with opened(file, reading=True) as memory:
        count = memory.export(out, _scope(user, agent, session))
    _show({"records": count, "path": str(out)}, as_json, iter([f"{count} records in {out}"]))


def import_(
    path: Annotated[Path, typer.Argument(help="an export of Memorist, Mem0, Graphiti, ChatGPT or Claude, or JSONL")],
    user: Annotated[str | None, typer.Option(help="whose it becomes; default: as the rows say")] = None,
    agent: Agent = "",
    session: Session = "",
    form: Annotated[str | None, typer.Option(help="memorist, jsonl, mem0, graphiti, chatgpt or claude")] = None,
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Bring in what another memory exported; broken rows are named, the rest is kept."""
    with opened(file) as memory, console(stderr=True).status("importing") as status:
        scope = None if user is None else _scope(user, agent, session)
        show = lambda done: status.update(f"importing: {done} rows")  # noqa: E731
        found = memory.import_file(path, scope, form=form, progress=show)
    if found.broken and not found.added and not found.known:
        raise DataError(str(path), "all", "rows", f"none could be brought in; the first: {found.broken[0]}")
    plain = {"added": found.added, "known": found.known, "broken": list(found.broken)}
    first = f"{found.added} added, {found.known} there already, {len(found.broken)} broken"
    _show(plain, as_json, iter([first, *(f"  {line}" for line in found.broken)]))


def backup(
    out: Annotated[Path, typer.Argument(help="a new file")],
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Copy the whole memory while others go on using it."""
    with opened(file, reading=True) as memory:
        memory.backup(out)
    _show({"path": str(out)}, as_json, iter([f"a copy is in {out}"]))


def reembed(
    embedder: Annotated[str, typer.Argument(help="minilm, hashed, st:NAME, or http://HOST/v1#MODEL")],
    file: MemoryPlace = None,
    as_json: Json = False,
) -> None:
    """Make all vectors anew with another embedder."""
    from rich.progress import Progress

    from memorist.library.opening import need_file
    from memorist.memory.embedders import open_embedder
    from memorist.memory.reembed import reembed as make_anew

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("embedding", total=None)
        count = make_anew(
            need_file(file, "reembed"),
            open_embedder(embedder),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    _show({"vectors": count}, as_json, iter([f"{count} vectors made with {embedder}"]))
