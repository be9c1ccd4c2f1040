"""A question and somewhere to search for what answers it, as a task."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, Protocol

from memorist.decision import Decision, Reward
from memorist.errors import RecipeError, need_known
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.scoring import exact_match, squad_f1
from memorist.tasks.corpus import Corpus, Document, Found
from memorist.tasks.long_document import contained
from memorist.tasks.multihop import SPLITS, Question, World, comparisons, questions, world

REWARDS = ("published", "monotone", "exact")
WELL_FORMED = 0.1
"""What an answer is worth that has the form and is wrong."""


class SearchOutcome(Protocol):
    """What a searching agent's run gives back."""

    @property
    def answer(self) -> str | None:
        """What it answered; None where it did not."""
        ...

    @property
    def well_formed(self) -> bool:
        """Whether its replies had the form that they should have."""
        ...

    @property
    def queries(self) -> Sequence[str]:
        """What it searched for."""
        ...

    @property
    def memories(self) -> Sequence[str]:
        """What it remembered after each turn."""
        ...

    @property
    def read(self) -> Sequence[Sequence[str]]:
        """Ids of the documents that each search showed."""
        ...


class Searchable(Protocol):
    """A corpus, here or behind a server."""

    def search(self, query: str, k: int) -> list[Found]:
        """The `k` best documents, best first."""
        ...


@dataclass(frozen=True)
class SearchTask:
    """A question about a corpus.

    support: ids of the documents that answer it. bridges: what must be found on the way, as the documents name it.
    reward: "published" (F1 with the best gold answer, 0.1 for a wrong one) or "monotone" (never less than 0.1, so that
    a partly right answer is not worth less than a wrong one) or "exact" (1 or 0: a guess that has the form is worth
    nothing, and neither is one that shares a word with the answer). reward_bridges: whether the share of the bridges
    that the last memory holds is a reward term too, of runs that answer. reward_turns: whether each turn has terms
    of its own (see `placed`). memory: what is remembered when it begins.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    corpus: Searchable = field(compare=False, repr=False)
    support: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    reward: str = "published"
    reward_bridges: bool = False
    reward_turns: bool = False
    memory: str = ""
    bank: MemoryBank = field(default_factory=ScratchBank, compare=False)

    cuts: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.memory:
            begun = Operation("ADD", self.memory, key="memory")
            self.bank.apply([begun], Scope("question"), at=datetime(1970, 1, 1, tzinfo=UTC))

    @property
    def size(self) -> int:
        """Documents that must be found."""
        return len(self.support)

    async def search(self, query: str, k: int) -> list[Document]:
        """The `k` best documents; other runs go on while a server searches."""
        here = isinstance(self.corpus, Corpus)
        found = self.corpus.search(query, k) if here else await asyncio.to_thread(self.corpus.search, query, k)
        return [one.document for one in found]

    def score(self, outcome: SearchOutcome) -> tuple[Reward, ...]:
        """0 without a well-formed answer, else its F1 with the best gold answer (section 4.2 of MemSearcher's spec)."""
        answers = outcome.well_formed and outcome.answer is not None
        # Paid without an answer, it is earned by searching until no turn is left (seen in a trial).
        kept = (Reward("bridges", self._kept(outcome) if answers else 0.0),) if self.reward_bridges else ()
        if not answers or outcome.answer is None:
            return (Reward("answer", 0.0), *kept)
        if self.reward == "exact":
            right = any(exact_match(outcome.answer, gold) for gold in self.answers)
            return (Reward("answer", float(right)), *kept)
        f1 = max(squad_f1(outcome.answer, gold) for gold in self.answers)
        value = max(f1, WELL_FORMED) if self.reward == "monotone" else f1 or WELL_FORMED
        return (Reward("answer", value), *kept)

    def placed(self, outcome: SearchOutcome, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
        """For each turn what its memory gained of the bridges, on its search and on its memory; a term for each turn
        and for what was held before it, so that siblings are compared in the same place. Who answers gains nothing
        more: else who goes on would be compared with nobody who does not. Who never answers loses what was held, with
        the reply that cannot be read or with the last turn: else one search too many is where most can be earned. Where
        all stays in one window, a search gains what it was shown; nothing, where turns did not search once each."""
        if not self.reward_turns:
            return ()
        found: list[Reward] = []
        whole = not outcome.memories and isinstance(self.corpus, Corpus)
        seen = self._shown(outcome) if whole else outcome.memories
        each = 1 if whole else 2
        before = contained(self.memory, self.bridges)
        if whole and len(decisions) - len(seen) not in ((0, 1) if outcome.answer is None else (1,)):
            return ()
        told = seen[: len(decisions) // each]
        replied = len(decisions) == each * len(seen) + 1
        for turn, memory in enumerate(told):
            last = turn == len(told) - 1 and outcome.answer is None and not replied
            held, place = 0.0 if last else contained(memory, self.bridges), f"{turn}-from-{before:.2f}"
            found.append(Reward(f"search-{place}", held - before, each * turn))
            if not whole:
                found.append(Reward(f"memory-{place}", held - before, 2 * turn + 1))
            before = held
        if replied:
            lost = before if outcome.answer is None else 0.0
            found.append(Reward(f"search-{len(seen)}-from-{before:.2f}", -lost, len(decisions) - 1))
        return tuple(found)

    def _shown(self, outcome: SearchOutcome) -> list[str]:
        """All that has been shown after each search of this corpus."""
        assert isinstance(self.corpus, Corpus)
        shown: list[str] = []
        for names in outcome.read:
            new = "\n".join(self.corpus.by_id[name].contents for name in names)
            shown.append("\n".join([*shown[-1:], new]))
        return shown

    def _kept(self, outcome: SearchOutcome) -> float:
        """Share of the bridges that the last memory holds; where all stays in one window, that window."""
        if outcome.memories or not isinstance(self.corpus, Corpus):
            return contained(outcome.memories[-1] if outcome.memories else self.memory, self.bridges)
        return contained("\n".join([self.memory, *self._shown(outcome)[-1:]]), self.bridges)

    def measures(self, outcome: SearchOutcome) -> dict[str, float]:
        """Exact match; searches; the share of bridges in memory, and of support that was shown."""
        right = any(exact_match(outcome.answer or "", gold) for gold in self.answers)
        found = {
            "exact_match": float(right),
            "searches": float(len(outcome.queries)),
            "bridge_recall": self._kept(outcome),
        }
        if self.support:
            seen = {name for names in outcome.read for name in names}
            found["support_recall"] = len(seen & set(self.support)) / len(self.support)
        return found


@dataclass(frozen=True)
class MultihopData:
    """Questions about the world of pages.

    hops: from 1 to this many, in turn; with split "unseen" from 2. compared: share of questions that compare two
    things. reward: "published", "monotone" or "exact". reward_bridges: whether what is remembered is rewarded too.
    reward_turns: whether each turn is rewarded for what it added to that. begun: share of the questions of two hops and
    more that begin with the first hop in memory, as its page tells it: what is learnt last is then tried from the
    first step on (a reverse curriculum, arXiv 1707.05300).
    """

    kind: str = "multihop"
    split: str = "train"
    questions: int = 4000
    hops: int = 2
    compared: float = 0.0
    seed: int = 0
    reward: str = "published"
    reward_bridges: bool = False
    reward_turns: bool = False
    begun: float = 0.0

    exercise: ClassVar[str] = "search"

    def check(self, where: str = "data") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist, or a number is impossible.
        """
        need_known(f"{where}.split", self.split, SPLITS)
        need_known(f"{where}.reward", self.reward, REWARDS)
        least = 2 if self.split == "unseen" else 1
        if not least <= self.hops <= 4:
            raise RecipeError(f"{where}.hops is {self.hops}; expected {least} to 4")
        if self.questions < 1:
            raise RecipeError(f"{where}.questions is {self.questions}; expected 1 or more")
        if not 0 <= self.begun <= 1:
            raise RecipeError(f"{where}.begun is {self.begun:g}; expected a share of 0 to 1")
        if not 0 <= self.compared <= 1 or (self.compared and self.split == "unseen"):
            raise RecipeError(
                f"{where}.compared is {self.compared:g}; expected a share of 0 to 1, and 0 of unseen ones"
            )

    def tasks(self, seed: int) -> list[SearchTask]:
        """The questions; `seed`, the run's, changes nothing of them."""
        about = world(self.seed)
        side_by_side = round(self.compared * self.questions)
        hops = range(2 if self.split == "unseen" else 1, self.hops + 1)
        asked = questions(self.split, self.questions - side_by_side, hops=hops, seed=self.seed)
        asked += comparisons(self.split, side_by_side, seed=self.seed) if side_by_side else []
        return [
            SearchTask(
                q.id,
                q.text,
                q.answers,
                about.corpus,
                q.support,
                q.chain[1:],
                self.reward,
                self.reward_bridges,
                self.reward_turns,
                first_hop(about, q) if random.Random(f"begun/{q.id}").random() < self.begun else "",
            )
            for q in asked
        ]


def first_hop(about: World, question: Question) -> str:
    """The sentence that tells the first hop of a question; "" where there is one hop alone, or two side by side."""
    if question.hops < 2 or question.id.startswith("compared"):
        return ""
    told = re.findall(r"[^.\n]+\.", about.corpus.by_id[question.support[0]].contents)
    return next((one.strip() for one in told if question.chain[0] in one and question.chain[1] in one), "")
