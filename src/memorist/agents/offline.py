"""An agent that needs no language model: a small encoder decides about each statement of a message, in milliseconds and
without torch.

Messages are taken apart by `components.splitter`; what to do about each statement (add it, leave all as it is, replace,
join or end a memory) the bundled chooser decides. It was taught on English: what is mostly written in other scripts,
and everything where its file is missing or damaged, is left to the rules of `agents.rules`.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import AsyncIterator, Iterable

from memorist.agents.components.extractors import Fact
from memorist.agents.components.splitter import statements_in
from memorist.agents.components.updaters import UNDATED, Choosing
from memorist.agents.rules import RuleAgent
from memorist.conversation import Message
from memorist.errors import PolicyError
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Result, Scope
from memorist.models.chooser import Chooser
from memorist.models.sampler import Greedy, Sampler


class OfflineAgent:
    """Decides about each statement that a person makes.

    Args:
        bank: where memories live.
        chooser: what decides; None for the one that comes with the package.
        k: memories that a statement is compared with.
    """

    def __init__(self, bank: MemoryBank, chooser: Sampler | None = None, *, k: int = 4) -> None:
        self.bank = bank
        self._choosing = Choosing(Greedy(Chooser() if chooser is None else chooser), k)
        self._rules = RuleAgent(bank)
        self._broken = False

    async def observe(self, messages: Iterable[Message], scope: Scope) -> AsyncIterator[tuple[Result, ...]]:
        """Read messages in order; yield the results of each statement."""
        for message in messages:
            if not message.by_person or message.time is None:
                continue
            if in_latin_letters(message.shown):
                for statement in statements_in(message.shown):
                    yield await self.write(Fact(statement, message.speaker, _source(message), message.time), scope)
            else:
                for sentence in self._rules.sentences(message):
                    yield self._rules.write(sentence, scope, message.time, _source(message))

    async def write(self, fact: Fact, scope: Scope) -> tuple[Result, ...]:
        """Do what is to do about one statement; by rules, with a warning the first time, where the chooser cannot be
        asked."""
        if not self._broken:
            try:
                [results] = await self._choosing.write([fact], self.bank, scope)
                return results
            except PolicyError as error:
                self._broken = True
                warnings.warn(f"what to remember is decided by rules: {error}", RuntimeWarning, stacklevel=2)
        return self._rules.write(fact.text, scope, fact.time or UNDATED, fact.source)


def _source(message: Message) -> tuple[str, ...]:
    return (message.id,) if message.id else ()


def in_latin_letters(text: str) -> bool:
    """Whether half of a text's letters or more are Latin ones (of its first 2,000 characters)."""
    letters = [letter for letter in text[:2000] if letter.isalpha()]
    return 2 * sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters) >= len(letters)
