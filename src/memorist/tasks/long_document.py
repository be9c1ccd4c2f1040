"""Long documents with a question: real paragraphs among others, and the synthetic kinds of RULER, at any length.

After section 2 of MemAgent (arXiv 2507.02259) and RULER (arXiv 2404.06654). Unlike the original, whose shuffle has one
seed for all questions, each document has what matters at random places of its own: no policy can learn where to look.
Whether its answer is right is decided by rules (`memorist.scoring`), never by a model.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Protocol

from memorist.decision import Decision, Reward
from memorist.errors import RecipeError, need_known
from memorist.memory.bank import MemoryBank
from memorist.memory.scratch import ScratchBank
from memorist.scoring import boxed, boxed_match
from memorist.tasks.multihop import SPLITS, questions, world
from memorist.tasks.public import read_public

FILLER = (
    "The market opens early and closes before the rain.", "Nobody remembers who painted the old gate.",
    "A ferry crosses the bay twice on most days.", "The library keeps its lamps lit until ten.",
    "Bread is cheaper at the end of the week.", "Two roads meet behind the mill.",
    "The clock on the tower is always a little slow.", "In autumn the hills turn the colour of copper.",
)  # fmt: skip
"""Sentences that matter to no question."""
ADJECTIVES = ("amber", "brisk", "calm", "dusty", "eager", "faint", "gentle", "hollow", "icy", "jolly", "keen", "lucid")
NOUNS = ("anchor", "basket", "candle", "drawer", "engine", "feather", "garden", "hammer", "island", "jacket", "kettle")


class DocumentOutcome(Protocol):
    """What a reading agent's run gives back."""

    @property
    def reply(self) -> str:
        """Its last reply."""
        ...

    @property
    def memories(self) -> Sequence[str]:
        """What it remembered after each chunk."""
        ...


@dataclass(frozen=True)
class LongDocumentTask:
    """A question about a document.

    answers: any of them is right, or with `all_of` all are asked for. evidence: texts of which the memory should
    hold what matters. reward_evidence: whether the share that it holds at the end is a reward term too. reward_writes:
    whether the share of chunks that changed the memory is one, negative (a stage's `gate: answer` lets it rank right
    answers and never make failing cheaply better than failing). reward_chunks: whether each chunk's reading has
    terms of its own (see `placed`).
    """

    id: str
    question: str
    document: str
    answers: tuple[str, ...]
    evidence: tuple[str, ...] = ()
    all_of: bool = False
    reward_evidence: bool = False
    reward_writes: bool = False
    reward_chunks: bool = False
    bank: MemoryBank = field(default_factory=ScratchBank, compare=False)

    cuts: ClassVar[tuple[str, ...]] = ()

    @property
    def size(self) -> int:
        """Words of the document."""
        return len(self.document.split())

    def score(self, outcome: DocumentOutcome) -> tuple[Reward, ...]:
        """1 for a boxed answer that is right, else 0; where several are asked for, F1 of those in the box.

        RULER counts what a reply holds, so one that lists everything is right; as a reward that would be learnt.
        """
        right = listed_f1(outcome.reply, self.answers) if self.all_of else boxed_match(outcome.reply, self.answers)
        terms = [Reward("answer", right)]
        if self.reward_evidence:
            terms.append(Reward("evidence_recall", self.recall(outcome)))
        if self.reward_writes:
            terms.append(Reward("writes", -self._changes(outcome) / max(1, len(outcome.memories))))
        return tuple(terms)

    def measures(self, outcome: DocumentOutcome) -> dict[str, float]:
        """RULER's score, the share of the evidence in the last memory, and how often that changed."""
        held = contained(outcome.reply, self.answers)
        return {
            "contained": held,
            "evidence_recall": self.recall(outcome),
            "memory_changes": float(self._changes(outcome)),
        }

    def placed(self, outcome: DocumentOutcome, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
        """For each chunk what its reading did: the evidence that the memory gained (or lost), a term for each chunk, so
        that siblings are compared at the same one; and `writing`, -1 where the memory changed at all, which a stage
        weighs: what is less likely to be evidence than that weight is better left out."""
        if not self.reward_chunks:
            return ()
        found = []
        before = ""
        for chunk, memory in enumerate(outcome.memories):
            gained = contained(memory, self.evidence) - contained(before, self.evidence)
            found += [Reward(f"chunk-{chunk}", gained, chunk), Reward("writing", -float(memory != before), chunk)]
            before = memory
        return tuple(found)

    def _changes(self, outcome: DocumentOutcome) -> int:
        """How often the memory was another one after a chunk."""
        return sum(a != b for a, b in zip(("", *outcome.memories), outcome.memories, strict=False))

    def recall(self, outcome: DocumentOutcome) -> float:
        """Share of the evidence that the last memory holds; 1 without evidence."""
        return contained(outcome.memories[-1] if outcome.memories else "", self.evidence)


def contained(text: str, wanted: Sequence[str]) -> float:
    """Share of the wanted strings that the text holds, in any case (RULER's score); 1 where none is wanted."""
    lower = text.lower()
    return sum(one.lower() in lower for one in wanted) / len(wanted) if wanted else 1.0


def listed_f1(reply: str, wanted: Sequence[str]) -> float:
    """F1 of what the reply lists in its box, in any order and case, against what is wanted; 0 without a box."""
    inside = boxed(reply)
    found = {one.strip(" .").lower() for one in re.split(r",|;|\band\b|\n", inside or "")} - {""}
    common = len(found & {one.lower() for one in wanted})
    return 2 * common / (len(found) + len(set(wanted))) if common else 0.0


def _key(rng: random.Random) -> str:
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"


def _number(rng: random.Random) -> str:
    return str(rng.randint(1_000_000, 9_999_999))


def _keys(rng: random.Random, count: int) -> list[str]:
    return rng.sample([f"{a} {n}" for a in ADJECTIVES for n in NOUNS], count)


def _around(rng: random.Random, needles: Sequence[str], words: int) -> str:
    """The needles in their order at random places among so many words of filler."""
    hay: list[str] = []
    count = 0
    while count < words - sum(len(needle.split()) for needle in needles):
        hay.append(rng.choice(FILLER))
        count += len(hay[-1].split())
    places = sorted(rng.randint(0, len(hay)) for _ in needles)
    for place, needle in reversed(list(zip(places, needles, strict=True))):
        hay.insert(place, needle)
    return " ".join(hay)


Kind = Callable[[random.Random, int], dict[str, Any]]
"""From a stream and a number of words to a task's question, document, answers and evidence."""


def needle(rng: random.Random, words: int) -> dict[str, Any]:
    """One fact in noise (RULER's single needle)."""
    key, value = _key(rng), _number(rng)
    fact = f"The number of the {key} is {value}."
    return {
        "question": f"What is the number of the {key}?", "document": _around(rng, [fact], words), "answers": (value,),
        "evidence": (value,),
    }  # fmt: skip


def multi_key(rng: random.Random, words: int, others: int = 7) -> dict[str, Any]:
    """One fact asked for among others of its kind."""
    keys = _keys(rng, others + 1)
    values = [_number(rng) for _ in keys]
    facts = [f"The number of the {key} is {value}." for key, value in zip(keys, values, strict=True)]
    asked = rng.randrange(len(keys))
    return {
        "question": f"What is the number of the {keys[asked]}?", "document": _around(rng, facts, words),
        "answers": (values[asked],), "evidence": (values[asked],),
    }  # fmt: skip


def multi_value(rng: random.Random, words: int, values: int = 4) -> dict[str, Any]:
    """Several values of one key, all asked for."""
    key, found = _key(rng), tuple(_number(rng) for _ in range(values))
    facts = [f"A number of the {key} is {value}." for value in found]
    return {
        "question": f"What are all the numbers of the {key}?", "document": _around(rng, facts, words), "answers": found,
        "evidence": found, "all_of": True,
    }  # fmt: skip


def multi_query(rng: random.Random, words: int, queries: int = 4) -> dict[str, Any]:
    """Several keys, each asked for."""
    keys = _keys(rng, queries)
    found = tuple(_number(rng) for _ in keys)
    facts = [f"The number of the {key} is {value}." for key, value in zip(keys, found, strict=True)]
    asked = ", ".join(f"the {key}" for key in keys)
    return {
        "question": f"What are the numbers of {asked}?", "document": _around(rng, facts, words), "answers": found,
        "evidence": found, "all_of": True,
    }  # fmt: skip


def variables(rng: random.Random, words: int, hops: int = 4, chains: int = 3) -> dict[str, Any]:
    """Variables that are given a value or each other: which ones have a value (RULER's variable tracking)?"""
    letters = ["".join(rng.sample(string.ascii_uppercase, 5)) for _ in range(chains * (hops + 1))]
    names = list(dict.fromkeys(letters))
    values = rng.sample(range(10_000, 99_999), chains)
    lines: list[list[str]] = []
    for chain, value in enumerate(values):
        own = names[chain::chains]
        lines.append([f"VAR {own[0]} = {value}.", *(f"VAR {b} = VAR {a}." for a, b in pairwise(own))])
    mixed: list[str] = []
    while any(lines):  # a chain in its order, chains in any
        mixed.append(rng.choice([line for line in lines if line]).pop(0))
    wanted = tuple(names[0::chains])
    return {
        "question": f"Which variables have the value {values[0]}?", "document": _around(rng, mixed, words),
        "answers": wanted, "evidence": wanted, "all_of": True,
    }  # fmt: skip


def frequent_words(rng: random.Random, words: int, asked: int = 3, alpha: float = 2.0) -> dict[str, Any]:
    """Made-up words of which the n-th is seen n^-alpha as often as the first: which are the commonest?"""
    made: dict[str, None] = {}
    while len(made) < 40:
        made["".join(rng.choices(string.ascii_lowercase, k=6))] = None
    known = list(made)
    drawn = rng.choices(known, [1 / (n + 1) ** alpha for n in range(len(known))], k=words)
    # What was asked for must be the commonest by count, also in a short document.
    commonest = sorted(known, key=lambda word: -drawn.count(word))
    wanted = tuple(commonest[:asked])
    if words >= 200 and drawn.count(commonest[asked - 1]) == drawn.count(commonest[asked]):
        return frequent_words(rng, words, asked, alpha)
    return {
        "question": f"Which {asked} made-up words are the most frequent?", "document": " ".join(drawn),
        "answers": wanted, "evidence": wanted, "all_of": True,
    }  # fmt: skip


KINDS: dict[str, Kind] = {
    "needle": needle, "multi-key": multi_key, "multi-value": multi_value, "multi-query": multi_query,
    "variables": variables, "frequent-words": frequent_words,
}  # fmt: skip


def synthetic(kind: str, count: int, words: int, seed: int = 0) -> list[LongDocumentTask]:
    """Documents of about so many words, each with a random stream of its own.

    Raises:
        RecipeError: there is no such kind.
    """
    need_known("task", kind, KINDS)
    made = (KINDS[kind](random.Random(f"{kind}/{seed}/{i}"), words) for i in range(count))
    return [LongDocumentTask(f"{kind}/{seed}/{i}", **fields) for i, fields in enumerate(made)]


def pages(
    split: str, count: int, words: int, *, least: int = 0, hops: Sequence[int] = (1,), seed: int = 0
) -> list[LongDocumentTask]:
    """Questions about the world of pages: the pages that answer one among others, about so many words in all, in an
    order of its own. Questions are asked again of other documents where there are fewer than `count`.

    Args:
        least: words of the shortest document; lengths are drawn from there to `words` (0: all have `words`).

    Raises:
        RecipeError: there is no such split, or no such number of hops.
    """
    about, asked = world(seed), questions(split, count, hops=hops, seed=seed)
    tasks = []
    for number in range(count):
        question = asked[number % len(asked)]
        rng = random.Random(f"pages/{split}/{seed}/{number}")
        taken = [about.corpus.by_id[name].contents for name in question.support]
        others = [one for one in about.corpus.documents if one.id not in question.support]
        length, most = sum(len(text.split()) for text in taken), rng.randint(least or words, words)
        for other in rng.sample(others, len(others)):
            length += len(other.contents.split())
            if length > most:
                break
            taken.append(other.contents)
        rng.shuffle(taken)
        name = f"pages/{split}/{seed}/{number}"
        tasks.append(LongDocumentTask(name, question.text, "\n\n".join(taken), question.answers, question.chain[1:]))
    return tasks


def hotpot(file: str | Path, paragraphs: int, *, seed: int = 0, count: int = 0) -> list[LongDocumentTask]:
    """Each question's own paragraphs and others of the file, `paragraphs` in all, in an order of its own (RULER-HQA).

    Args:
        file: rows of HotpotQA, 2WikiMultihopQA or MuSiQue, one a line.
        paragraphs: in a document; one has about 140 tokens. Where the file has fewer, all.
        count: the first so many questions (0: all).

    Raises:
        DataError: the file is not to be found, or a row is not of that form.
    """
    asked = read_public(file)
    pool = sorted({paragraph for question in asked for paragraph in question.paragraphs})
    tasks = []
    for question in asked[: count or None]:
        rng, own = random.Random(f"hotpot/{seed}/{question.id}"), list(question.paragraphs)
        others = [paragraph for paragraph in pool if paragraph not in own]
        taken = own + rng.sample(others, max(0, min(len(others), paragraphs - len(own))))
        rng.shuffle(taken)
        document = "\n\n".join(f"Document {i + 1}:\n{title}\n{text}" for i, (title, text) in enumerate(taken))
        evidence = tuple(sorted({title for title, _ in question.gold}))
        name = f"hotpot/{seed}/{question.id}"
        tasks.append(LongDocumentTask(name, question.text, document, question.answers, evidence))
    return tasks


@dataclass(frozen=True)
class LongDocumentData:
    """Which documents: rows of HotpotQA with `paragraphs` each, or a synthetic kind with `words` each.

    task: "needle", "multi-key", "multi-value", "multi-query", "variables", "frequent-words", or "pages" of the invented
    world, whose questions are of the `split` and have 1 to `hops` hops, and documents `least` (0: `words`) to `words`
    words; file: instead of these.
    reward_evidence: whether the share of the evidence that the last memory holds is a reward term. reward_writes:
    whether the share of chunks that changed the memory is one, negative. reward_chunks: whether each chunk's reading
    has terms of its own, for the evidence that it gained and for writing at all.
    """

    kind: str = "long-document"
    task: str = "needle"
    words: int = 1000
    documents: int = 400
    file: str = ""
    paragraphs: int = 50
    seed: int = 0
    reward_evidence: bool = False
    reward_writes: bool = False
    reward_chunks: bool = False
    split: str = "train"
    hops: int = 1
    least: int = 0

    exercise: ClassVar[str] = "document"

    def check(self, where: str = "data") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: there is no such task, or a number is too small.
        """
        need_known(f"{where}.task", self.task, (*KINDS, "pages"))
        need_known(f"{where}.split", self.split, SPLITS[:3])
        if not 1 <= self.hops <= 4:
            raise RecipeError(f"{where}.hops is {self.hops}; expected 1 to 4")
        if not 0 <= self.least <= self.words:
            raise RecipeError(f"{where}.least is {self.least}; expected 0 to {self.words}, the most words")
        for name in ("words", "documents", "paragraphs"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{where}.{name} is {getattr(self, name)}; expected 1 or more")

    def tasks(self, seed: int) -> list[LongDocumentTask]:
        """The documents; `seed`, the run's, changes nothing of them."""
        if self.file:
            found = hotpot(self.file, self.paragraphs, seed=self.seed, count=self.documents)
        elif self.task == "pages":
            found = pages(
                self.split, self.documents, self.words, least=self.least, hops=range(1, self.hops + 1), seed=self.seed
            )
        else:
            found = synthetic(self.task, self.documents, self.words, self.seed)
        names = ("reward_evidence", "reward_writes", "reward_chunks")
        return [replace(task, **{name: getattr(self, name) for name in names}) for task in found]
