"""PersonaTree and LikeBench joined: an assistant whose tree holds what it knows and, in leaves of style, how to reply.

It is `PersonaTree` with the listener that needs no language model (`agents.profile_offline`); what people let on of a
reply goes to leaves of style (`memory.profile_style`), which steer the next one. It knows no more than what is said to
it. How strongly it reacts was chosen on people of other seeds than those that are reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from memorist.agents.personatree import PersonaTree
from memorist.agents.profile_offline import BETWEEN, OfflineAnswerer, OfflineListener
from memorist.conversation import Message
from memorist.evaluation.likebench.assistants import BASELINES, Assistant, Manner, Told, compose, read
from memorist.evaluation.likebench.personas import TOPICS
from memorist.evaluation.likebench.text import text
from memorist.memory.profile_edits import Edit
from memorist.memory.profile_style import LEAVES, Style
from memorist.memory.record import Scope
from memorist.memory.scratch import minilm_bank
from memorist.models.sampler import Greedy

BEGAN = datetime(2025, 1, 1, tzinfo=UTC)
USER = "user"
HEARD = 3
"""Messages whose register counts."""
TOWARDS_MIDDLE = 0.85
"""Of a register that is heard, how far from the middle replies are."""
WORDS, SHORTER, LONGER = 40, 0.45, 2.4
"""Words of a reply to somebody unknown, and what those of one that was too long or too short are multiplied by."""
_HINTS: tuple[tuple[re.Pattern[str], str, Any], ...] = tuple(
    (re.compile(rf"\b(?:{words})\b", re.IGNORECASE), what, value)
    for words, what, value in (
        (r"keep it (?:shorter|brief)|too long|fewer words|be brief(?:er)?", "fewer", None),
        (r"tell me more|more detail|longer (?:replies|answers)|too short", "more", None),
        (r"hear me out|just listen", "support", "validate"),
        (r"tell me what to do", "support", "solve"),
        (r"(?:do not|don't) question me|no questions|stop asking", "support", "space"),
        (r"no jokes|not funny|stop joking", "jokes", False),
        (r"lighten up|joke more|be funnier", "jokes", True),
        (r"skip the basics|in more depth", "depth", "deep"),
        (r"more simply|in plain words", "depth", "plain"),
    )
)
_MEANS = re.compile(r"\bwhen i say (.+?) i mean ([^.!?;]+)", re.IGNORECASE)
_CLOSER = re.compile(r"(?:\s+(?:tbh|lol|haha|therefore|though))?[\s.!]*$", re.IGNORECASE)
_TO_YOU = {"i": "you", "my": "your", "me": "you", "am": "are", "i'm": "you're", "we": "you", "our": "your"}


@lru_cache(1)
def _models() -> tuple[Greedy, Greedy]:
    """A listener and an answerer for all people: they hold nothing of them."""
    bank = minilm_bank()
    return Greedy(OfflineListener(embedder=bank.embedder)), Greedy(OfflineAnswerer(bank.embedder))


class Joined:
    """Keeps a tree, and replies as its leaves of style say."""

    def __init__(self) -> None:
        listener, answerer = _models()
        self.agent = PersonaTree(bank=minilm_bank(), listener=listener, answerer=answerer, pairs=1, mode="fast")
        self.tree = self.agent.tree(Scope(USER))
        self.heard: list[float] = []
        self.turn, self.words, self.topic = 0, 0, ""

    async def reply(self, said: str) -> str:
        """Listen, then answer."""
        self.turn += 1
        style = self._listened(said)
        seen = read(said)
        self.topic = seen.topic or self.topic
        recalled = await self.recall(seen.label) if seen.label else ""
        if not (seen.label or seen.surface or _MEANS.search(said)):
            message = Message(USER, _CLOSER.sub("", said), f"t{self.turn}", self._now())
            async for _ in self.agent.observe([message], Scope(USER)):
                pass
        answer = compose(manner_of_style(style), seen, _to_you(recalled), style.allusions.get(seen.surface, ""))
        self.words = len(text(answer).tokens)
        return answer

    def _listened(self, said: str) -> Style:
        """Take what a message lets on into the leaves of style."""
        self.heard = [*self.heard, text(said).formality][-HEARD:]
        heard = sum(self.heard) / len(self.heard)
        style = replace(Style.of(self.tree.leaves()), formality=0.5 + TOWARDS_MIDDLE * (heard - 0.5))
        for hint, what, value in _HINTS:
            if hint.search(said):
                style = self._hinted(style, what, value)
        if means := _MEANS.search(said):
            style = replace(style, allusions={**style.allusions, means[1].lower(): _CLOSER.sub("", means[2]).strip()})
        known, wanted = self.tree.leaves(), style.leaves()
        edits = [Edit("UPDATE", path, value) for path, value in wanted.items() if known.get(path) != value]
        self.tree.apply(edits, at=self._now(), source=[f"t{self.turn}"])
        return style

    def _hinted(self, style: Style, what: str, value: Any) -> Style:
        if what == "fewer":  # what was too short before is no more: people change
            return replace(style, fewer=self.words, more=None if (style.more or 0) >= self.words else style.more)
        if what == "more":
            old = style.fewer
            return replace(style, more=self.words, fewer=None if old is not None and old <= self.words else old)
        if what == "depth":
            return replace(style, depth={**style.depth, self.topic: value}) if self.topic else style
        return replace(style, **{what: value})

    def _now(self) -> datetime:
        return BEGAN + timedelta(minutes=self.turn)

    async def end_session(self) -> None:
        """All is kept already."""

    def profile(self) -> list[str]:
        """The clauses about their life; how they like it is no fact that could be right or wrong here."""
        leaves = (text for path, text in self.tree.leaves().items() if path not in LEAVES)
        return [clause for leaf in leaves for clause in leaf.split(BETWEEN)]

    async def recall(self, question: str) -> str:
        """What the tree says that is nearest."""
        return (await self.agent.answer(question, Scope(USER))).text


def manner_of_style(style: Style) -> Manner:
    """How to reply, by what is known; to somebody unknown plainly, with some advice, without jokes."""
    words = WORDS
    if style.more is not None and style.fewer is not None:
        words = round((style.more * style.fewer) ** 0.5)
    elif style.fewer is not None:
        words = max(8, round(SHORTER * style.fewer))
    elif style.more is not None:
        words = round(LONGER * style.more)
    depth = {topic: {"plain": 0.1, "deep": 0.9}.get(style.depth.get(topic, ""), 0.5) for topic in TOPICS}
    formality = 0.5 if style.formality is None else style.formality
    return Manner(formality, words, style.support or "solve", bool(style.jokes), depth=depth)


def _to_you(said: str) -> str:
    """What somebody said of themselves, said to them."""
    return " ".join(_TO_YOU.get(word.lower(), word) for word in said.split())


ASSISTANTS: Mapping[str, Callable[[Told], Assistant]] = {**BASELINES, "joined": lambda told: Joined()}
"""All that can be measured by name."""
