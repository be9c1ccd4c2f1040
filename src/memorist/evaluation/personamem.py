"""PersonaTree on PersonaMem: a dialogue is listened to up to each question, which is then answered in each mode.

Nothing that is said after a question is known when it is answered (the released scripts build the tree of the whole
dialogue). A reply without a letter is wrong (there it counts as "(c)", the commonest key). The row `oracle` asks the
dialogue only where the tree's answer was wrong, by the right answer: what the released numbers are, and no result.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from memorist.agents.personatree import PersonaTree
from memorist.memory.record import Scope
from memorist.memory.scratch import minilm_bank
from memorist.models.sampler import Greedy, Sampler
from memorist.tasks.personamem import TYPES, Dialogues, PersonaQuestion, chosen, load_personamem

MODES = ("fast", "agentic", "gated")
USER = Scope("user")
Make = Callable[[str], PersonaTree]
"""An agent with an empty bank, that answers in a mode."""


@dataclass(frozen=True, slots=True)
class Row:
    """One answer. words: of the tree as it was."""

    id: str
    kind: str
    mode: str
    reply: str
    chosen: str
    right: bool
    words: int


async def answered(
    make: Make, messages: Sequence[Any], asked: Sequence[PersonaQuestion], *, system: bool = True
) -> list[Row]:
    """All questions of one dialogue, in the order in which they are asked.

    Args:
        make: the agent; its bank is listened into once, all modes answer from it.
        system: whether system messages, which describe the person, are listened to.
    """
    agent, rows, heard = make("fast"), [], 0
    for question in sorted(asked, key=lambda one: one.end):
        new = [m for m in messages[heard : question.end] if system or m.speaker.lower() != "system"]
        heard = max(heard, question.end)
        async for _ in agent.observe(new, USER):
            pass
        words, right = len(agent.tree(USER).view().split()), {}
        for mode in MODES:
            agent.mode = mode
            reply = (await agent.answer(question.text, USER, options=question.choices)).shown
            letter = chosen(reply) or chosen(f"<final_answer>{reply}")
            right[mode] = letter == question.answer
            rows.append(Row(question.id, question.kind, mode, reply[:500], letter, right[mode], words))
        best = right["fast"] or right["agentic"]
        rows.append(Row(question.id, question.kind, "oracle", "", "", best, words))
    return rows


def evaluate(
    make: Make, questions: Sequence[PersonaQuestion], dialogues: Dialogues, *, system: bool = True
) -> Iterator[Row]:
    """Dialogue by dialogue."""
    for name, messages in dialogues.items():
        asked = [question for question in questions if question.context == name]
        if asked:
            yield from asyncio.run(answered(make, messages, asked, system=system))


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Accuracy by mode: over all questions, and by their type."""
    found: dict[str, Any] = {}
    for mode in (*MODES, "oracle"):
        some = [row for row in rows if row.mode == mode]
        if not some:
            continue
        types = {kind: [row.right for row in some if row.kind == kind] for kind in dict.fromkeys(r.kind for r in some)}
        found[mode] = {
            "accuracy": sum(row.right for row in some) / len(some), "questions": len(some),
            "without_a_letter": sum(not row.chosen for row in some) if mode != "oracle" else None,
            "types": {TYPES.get(kind, kind): sum(right) / len(right) for kind, right in types.items()},
            "tree_words": sum(row.words for row in some) / len(some),
        }  # fmt: skip
    return found


def write(rows: Sequence[Row], file: Path) -> None:
    """A row a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def run(
    questions: Path, contexts: Path, model: Sampler, out: Path, as_json: bool, screen: Console, *, system: bool = True
) -> None:  # fmt: skip
    """`memorist eval personamem`: a model in both roles; rows go to `out`.

    Raises:
        DataError: a file has another form.
    """
    asked, dialogues = load_personamem(questions, contexts)
    actor = Greedy(model)

    def make(mode: str) -> PersonaTree:
        return PersonaTree(bank=minilm_bank(), listener=actor, answerer=actor, mode=mode)

    rows = list(evaluate(make, asked, dialogues, system=system))
    write(rows, out / "personamem.jsonl")
    found = summary(rows)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for mode, one in found.items():
        note = (
            " (asks the dialogue where the tree was wrong, by the right answer: no result)" if mode == "oracle" else ""
        )
        kinds = ", ".join(f"{kind} {100 * share:.1f}" for kind, share in one["types"].items())
        screen.print(f"{mode}: {100 * one['accuracy']:.1f} % of {one['questions']}; {kinds}{note}", highlight=False)
    screen.print(f"rows: {out / 'personamem.jsonl'}", soft_wrap=True)
