"""A scripted searcher that follows names: it searches the question, then the names that what it read points to.

No model: it says what searching with a memory finds on real text before anything is learnt, and is a baseline for what
is. A name is worth more the more words of the question stand in the texts that hold it and in their titles; the
memory is the list of names with their worth, those that were searched marked as done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from memorist.agents.components.fields import read_fields
from memorist.agents.text_heuristics import TOOL
from memorist.decision import Action, Observation
from memorist.models.sampler import Request

_WORD = re.compile(r"[a-z0-9]+")
_NAME = re.compile(r"\b[A-Z](?:\.|[\w'’-]*)(?:\s+(?:(?:of|the|de|la|von|van|and|&)\s+)?[A-Z](?:\.|[\w'’-]*))*")
_LINE = re.compile(r"^(-?[\d.]+) (.+)$")
_TELLS_NOTHING = frozenset(
    "a after all also an and are as at be been before between both but by did do does during each first for "
    "from had has have he her his how if in into is it its last more most name not of on one or other same "
    "she so some such than s t that the their them then there these they this those to two under was were "
    "what when where which who whom whose why will with would".split()
)
KEPT = 24
"""Names that the memory holds."""


def telling(text: str) -> list[str]:
    """The words of a text that say what it is about, in their order."""
    return [word for word in _WORD.findall(text.lower()) if word not in _TELLS_NOTHING]


class NameFollower:
    """Reads the compact prompts of MemSearcher.

    Args:
        first: documents of the first search, for the question itself.
        searches: turns in all; after them it answers with the name that is worth most.
        names: that are searched in each later turn, a document each.
    """

    name = "name-follower"

    def __init__(self, first: int = 4, searches: int = 4, names: int = 2) -> None:
        self.first, self.searches, self.names = first, searches, names

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Act on each request on its own."""
        return [Action(self._act(request.observation)) for request in requests]

    def _act(self, observation: Observation) -> str:
        begun = [read_fields(asked.prompt) for asked, _ in observation.after]
        asked = read_fields(observation.prompt)
        start = (begun or [asked])[0]
        question, (worth, turn, seen) = start["question"], _read(start["memory"])
        if "new memory" in asked:
            chosen = () if turn == 0 else self._best(worth)
            known = worth | dict.fromkeys(chosen, -1.0)
            return f"<memory>{_written(*_judged(question, asked['found'], known, seen), turn + 1)}</memory>"
        best = self._best(worth)
        if turn and (turn >= self.searches or not best):
            return f"\\boxed{{{best[0] if best else 'unknown'}}}"
        words = " ".join(telling(question))
        queries = [f"{name} {words}" for name in best] if turn else [question]
        return "".join(_call(query, 1 if turn else self.first) for query in queries)

    def _best(self, worth: Mapping[str, float]) -> list[str]:
        left = [name for name, value in worth.items() if value >= 0]
        return sorted(left, key=lambda name: -worth[name])[: self.names]


def _call(query: str, count: int) -> str:
    call = {"name": TOOL, "arguments": {"query": query, "top_n": count}}
    return f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>"


def _judged(question: str, found: str, worth: Mapping[str, float], seen: int) -> tuple[dict[str, float], int]:
    """The names with what these documents add to their worth, and how many documents were seen."""
    asked, known = set(telling(question)), dict(worth)
    for document in re.split(r"\n\s*\n", found):
        title, _, body = document.partition("\n")
        title = title.strip('" ')
        if not body:
            continue
        shared = len(asked & set(telling(document))) / max(1, len(asked))
        titled = set(_WORD.findall(title.lower()))
        shared += len(asked & titled) / max(1, len(titled))
        for name in sorted({one.strip(" .,'") for one in _NAME.findall(body)}):
            new = set(telling(name)) - asked
            if new and len(name) > 2 and known.get(name, 0.0) >= 0:
                known[name] = known.get(name, 0.0) + shared / (1 + 0.3 * seen)
        seen += 1
    return known, seen


def _written(worth: Mapping[str, float], seen: int, turn: int) -> str:
    kept = sorted(worth, key=lambda name: (worth[name] >= 0, -worth[name]))  # what was searched is never forgotten
    lines = [f"{worth[name]:.4f} {name}" for name in kept[: KEPT + sum(value < 0 for value in worth.values())]]
    return "\n".join([f"{turn} turns, {seen} read", *lines])


def _read(memory: str) -> tuple[dict[str, float], int, int]:
    """Names with their worth, turns, documents."""
    counts = re.match(r"(\d+) turns, (\d+) read", memory)
    found = {m[2]: float(m[1]) for line in memory.split("\n")[1:] if (m := _LINE.match(line))}
    return found, int(counts[1]) if counts else 0, int(counts[2]) if counts else 0
