"""The heuristics that today's memory layers run on, as samplers: baselines to beat, and what the bundled base
imitates. They read the compact prompts, so the same agent runs on them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence

from memorist.decision import Action
from memorist.memory.embed import Embedder, HashedEmbedder
from memorist.models.sampler import Request

_NUMBERED = re.compile(r"^(.*) ~\d #\d+$")


def operation_json(event: str, text: str = "", number: int | None = None) -> str:
    """One operation in the compact reply form; ADD and UPDATE without `text` take the new fact as it was said."""
    item: dict[str, str] = {"event": event}
    if number is not None:
        item["id"] = str(number)
    if text and event in ("ADD", "UPDATE"):
        item["text"] = text
    return json.dumps([item], ensure_ascii=False, separators=(",", ":"))


def answer_json(numbers: Sequence[int], answer: str) -> str:
    """An answer in the compact reply form."""
    data = {"memories": [str(n) for n in numbers], "answer": answer}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def read_compact_prompt(prompt: str) -> tuple[list[str], str]:
    """(memories in order of their numbers, the new fact or the question) of a compact prompt."""
    asked, _, rest = prompt.rpartition("\nMemories:\n")  # the last: memories end with their numbers, facts may not
    memories = [m.group(1) for line in rest.split("\n")[:-2] if (m := _NUMBERED.match(line))]
    return memories, asked.partition("\n")[2]


class SimilarityManager:
    """NOOP above one similarity, UPDATE of the nearest memory above another, ADD below: never DELETE.

    Args:
        same: at or above it the fact is taken as known.
        related: at or above it the nearest memory is overwritten.
        error: share of decisions that take another kind at random (the base imitates this with 0.25; 0 as baseline).
    """

    def __init__(
        self, same: float = 0.95, related: float = 0.55, *, error: float = 0.0, embedder: Embedder | None = None
    ) -> None:
        self.same, self.related, self.error = same, related, error
        self.embedder = embedder or HashedEmbedder()
        self.name = f"similarity({same:g},{related:g})"

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Decide each request on its own."""
        return [Action(self._decide(*read_compact_prompt(r.observation.prompt), r.seed)) for r in requests]

    def _decide(self, memories: list[str], fact: str, seed: int) -> str:
        kind, nearest = "ADD", None
        if memories:
            vectors = self.embedder.embed([fact, *memories])
            scores = vectors[1:] @ vectors[0]
            nearest = int(scores.argmax())
            if scores[nearest] >= self.same:
                kind = "NONE"
            elif scores[nearest] >= self.related:
                kind = "UPDATE"
        if self.error:
            rng = random.Random(seed)
            if rng.random() < self.error:
                kind = rng.choice(["ADD", "NONE", "UPDATE", "DELETE"] if memories else ["ADD", "NONE"])
        return operation_json(kind, number=nearest if kind in ("UPDATE", "DELETE") else None)


class AddOnlyManager:
    """Keeps everything, changes nothing: what newer memory layers do."""

    name = "add-only"

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """ADD every fact."""
        return [Action(operation_json("ADD")) for _ in requests]


class NoMemoryManager:
    """Keeps nothing: the floor."""

    name = "no-memory"

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """NONE for every fact."""
        return [Action(operation_json("NONE")) for _ in requests]
