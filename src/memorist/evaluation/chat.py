"""`memorist chat`: a person tells and asks; the agent manages a durable bank."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rich.console import Console

from memorist.agents.memory_r1 import MemoryR1
from memorist.conversation import Message
from memorist.evaluation.runs import greedy_seats, recipe_of, talking_agent
from memorist.memory.record import Scope
from memorist.memory.sqlite import SQLiteBank
from memorist.training.rollout import Recorder, Rounds


def chat(run: Path | None, file: Path, name: str, console: Console) -> None:
    """Read lines until /quit or end of input. Statements are remembered; lines that end with "?" are answered."""
    recipe = recipe_of(run)
    seats = greedy_seats(recipe.models, run)
    build = replace(talking_agent(recipe), extract="sentences").build
    scope = Scope(name)
    with SQLiteBank(file) as bank:
        console.print(f"Memories are kept in {file}. Tell me about yourself; end questions with '?'. /memory, /quit.")
        for number, line in enumerate(_lines(console)):
            if line == "/memory":
                for record in bank.list(scope):
                    console.print(f"  {record.updated:%d %b %Y}  {record.text}", highlight=False, markup=False)
                continue
            rounds = Rounds(seats)
            agent = build(bank=bank, **Recorder(rounds, 0, number).roles)

            async def turn(agent: MemoryR1 = agent, line: str = line) -> None:
                if line.endswith("?"):
                    answer = await agent.answer(line, [scope])
                    console.print(answer.shown or "(no answer)", markup=False)
                    for record in answer.used:
                        console.print(f"  from: {record.text}", style="dim", markup=False)
                    return
                said = Message(name, line, time=datetime.now())
                async for results in agent.observe([said]):
                    for result in results:
                        console.print(
                            f"  {result.operation.kind} ({result.code})  {result.operation.text}",
                            style="dim",
                            markup=False,
                        )

            asyncio.run(rounds.run_all([turn]))


def _lines(console: Console) -> Iterator[str]:
    while True:
        try:
            line = console.input("> ") if console.is_terminal else sys.stdin.readline()
        except EOFError:
            return
        if not line and not console.is_terminal:
            return
        if line.strip() == "/quit":
            return
        if line.strip():
            yield line.strip()
