"""A world of invented people, places and things in pages, and questions that need one to four searches of them.

After section 6.2 of the MemSearcher specification (arXiv 2511.02805 has no such world). A relation is written on its
subject's page only, so each hop costs a search; names are invented, so nothing is known beforehand; what one search of
the question itself would answer is left out, and so is what would go in a circle. Start entities of the splits
differ, and some pairs of relations follow each other in no question of training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from memorist.errors import RecipeError, need_known
from memorist.tasks.corpus import Corpus, Document

SPLITS = ("train", "validation", "test", "unseen")
"""Questions of "unseen" start where training's do not; two relations follow each other in them as in no other split."""
COUNTS = {
    "person": 200, "city": 60, "country": 15, "company": 60, "university": 30, "film": 80, "prize": 20, "river": 20,
}  # fmt: skip
NAMESAKES = 0.3
"""Share of people with whom another one shares the surname."""
HELD_OUT = 5
"""Of so many pairs of relations, one after the other, one is held out."""
TOP = 5
"""Documents of a search."""
EXHAUSTED = 2000
"""Draws in vain after which there are no more questions of a kind."""


@dataclass(frozen=True)
class Relation:
    """What leads from a thing to one other.

    target: a kind of thing, or "year" or "word". phrase: names the target by {x}. told: how a page says it, of {x} and
    {y}.
    """

    name: str
    source: str
    target: str
    phrase: str
    told: tuple[str, ...]


RELATIONS = (
    Relation("born_in", "person", "city", "the city where {x} was born",
             ("{x} was born in {y}.", "The birthplace of {x} is {y}.", "{x} came into the world in {y}.")),
    Relation("employer", "person", "company", "the company that {x} works for",
             ("{x} works for {y}.", "{x} is employed by {y}.", "The employer of {x} is {y}.")),
    Relation("studied_at", "person", "university", "the university where {x} studied",
             ("{x} studied at {y}.", "{x} is a graduate of {y}.", "The studies of {x} were at {y}.")),
    Relation("spouse", "person", "person", "the person married to {x}",
             ("{x} is married to {y}.", "The spouse of {x} is {y}.", "{x} and {y} are a married couple.")),
    Relation("in_country", "city", "country", "the country where {x} lies",
             ("{x} is a city in {y}.", "{x} lies in {y}.", "The city of {x} belongs to {y}.")),
    Relation("capital", "country", "city", "the capital of {x}",
             ("The capital of {x} is {y}.", "{x} is governed from {y}, its capital.", "{y} is the capital of {x}.")),
    Relation("currency", "country", "word", "the currency of {x}",
             ("The currency of {x} is the {y}.", "In {x} one pays with the {y}.", "{x} has a currency called {y}.")),
    Relation("founded_by", "company", "person", "the founder of {x}",
             ("{x} was founded by {y}.", "The founder of {x} is {y}.", "{y} started {x}.")),
    Relation("headquartered_in", "company", "city", "the city where {x} has its headquarters",
             ("{x} has its headquarters in {y}.", "The head office of {x} is in {y}.", "{x} is run from {y}.")),
    Relation("founded_in", "company", "year", "the year in which {x} was founded",
             ("{x} was founded in {y}.", "The founding year of {x} is {y}.", "{x} has existed since {y}.")),
    Relation("located_in", "university", "city", "the city where {x} is located",
             ("{x} is located in {y}.", "The campus of {x} is in {y}.", "{x} is a university in {y}.")),
    Relation("directed_by", "film", "person", "the director of {x}",
             ("{x} was directed by {y}.", "The director of {x} is {y}.", "{y} directed {x}.")),
    Relation("released_in", "film", "year", "the year in which {x} was released",
             ("{x} was released in {y}.", "{x} came out in {y}.", "The release year of {x} is {y}.")),
    Relation("won", "film", "prize", "the prize that {x} won",
             ("{x} won the {y}.", "The {y} went to {x}.", "{x} was awarded the {y}.")),
    Relation("named_after", "prize", "person", "the person after whom {x} is named",
             ("{x} is named after {y}.", "{x} honours {y}.", "{y} gave {x} its name.")),
    Relation("flows_through", "river", "country", "the country that {x} flows through",
             ("{x} flows through {y}.", "The course of {x} lies in {y}.", "{x} is a river of {y}.")),
)  # fmt: skip
FILLER = (
    "Little else is on record.", "This page was last looked at in spring.", "Sources disagree on the details.",
    "Several photographs exist.", "An older version of this page was shorter.", "More is told elsewhere.",
)  # fmt: skip
_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "kr", "pl", "st", "tr")
_VOWELS = ("a", "e", "i", "o", "u", "ae", "io")
_CODAS = ("", "", "l", "n", "r", "s", "m", "th")
_SUFFIX = {"company": " Works", "university": " University", "prize": " Prize", "river": " River"}


@dataclass(frozen=True)
class Question:
    """One question. chain: the entities passed, the first is named in it; support: pages that answer it.

    hops: of a comparison 2, side by side, and its chain has the two things that are compared.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    hops: int
    relations: tuple[str, ...]
    chain: tuple[str, ...]
    support: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """Things by kind, what relates them, and a page of each."""

    names: Mapping[str, tuple[str, ...]]
    facts: Mapping[tuple[str, str], str]
    kinds: Mapping[str, str]
    corpus: Corpus = field(compare=False)

    def target(self, thing: str, relation: str) -> str | None:
        """What a relation leads to from here; None where it leads nowhere."""
        return self.facts.get((thing, relation))


@lru_cache(maxsize=4)
def world(seed: int = 0) -> World:
    """The world of a seed."""
    rng = random.Random(f"world/{seed}")
    used: set[str] = set()
    names = {kind: tuple(_names(kind, count, rng, used)) for kind, count in COUNTS.items()}
    facts: dict[tuple[str, str], str] = {}
    for relation in RELATIONS:
        for thing in names[relation.source]:
            if relation.name == "spouse" or (relation.name == "won" and rng.random() < 0.5):
                continue
            facts[thing, relation.name] = _target(relation, names, rng, used)
    people = list(names["person"])
    rng.shuffle(people)
    for a, b in zip(people[::2], people[1::2], strict=False):
        facts[a, "spouse"], facts[b, "spouse"] = b, a
    kinds = {name: kind for kind, found in names.items() for name in found}
    documents = [Document(f"p{i:04d}", _page(name, facts, rng)) for i, name in enumerate(kinds)]
    return World(names, facts, kinds, Corpus(documents))


def page_id(world: World, name: str) -> str:
    """Where a thing is told of."""
    return f"p{list(world.kinds).index(name):04d}"


def _word(rng: random.Random, used: set[str]) -> str:
    while True:
        parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.randint(2, 3))]
        word = "".join(parts)
        if word not in used:
            used.add(word)
            return word.capitalize()


def _names(kind: str, count: int, rng: random.Random, used: set[str]) -> Iterator[str]:
    surname = ""
    for number in range(count):
        if kind != "person":
            yield _word(rng, used) + _SUFFIX.get(kind, "")
            continue
        if not (number and rng.random() < NAMESAKES):
            surname = _word(rng, used)
        yield f"{_word(rng, used)} {surname}"


def _target(relation: Relation, names: Mapping[str, Sequence[str]], rng: random.Random, used: set[str]) -> str:
    if relation.target == "year":
        return str(rng.randint(1850, 2020))
    return _word(rng, used).lower() if relation.target == "word" else rng.choice(names[relation.target])


def _page(name: str, facts: Mapping[tuple[str, str], str], rng: random.Random) -> str:
    told = [
        rng.choice(relation.told).format(x=name, y=facts[name, relation.name])
        for relation in RELATIONS
        if (name, relation.name) in facts
    ]
    lines = told + rng.sample(FILLER, max(1, 4 - len(told)))
    rng.shuffle(lines)
    return f'"{name}"\n' + " ".join(lines)


def compositions(hops: int) -> list[tuple[Relation, ...]]:
    """All chains of so many relations whose kinds fit."""
    chains: list[tuple[Relation, ...]] = [(relation,) for relation in RELATIONS]
    for _ in range(hops - 1):
        chains = [(*chain, after) for chain in chains for after in RELATIONS if chain[-1].target == after.source]
    return chains


@lru_cache(maxsize=1)
def _pairs_held_out() -> frozenset[tuple[Relation, ...]]:
    """Pairs of which each relation comes first, or second, in other pairs too: what is new of them is how they are put
    together, not a relation in a place where training never had it. None comes first, or second, in two of them."""
    pairs, held = compositions(2), list[tuple[Relation, ...]]()
    for first, second in random.Random("unseen").sample(pairs, len(pairs)):
        begins = [b for a, b in pairs if a == first]
        ends = [a for a, b in pairs if b == second]
        new = all(first != a and second != b for a, b in held)
        if new and len(begins) > 1 and len(ends) > 1:
            held.append((first, second))
    return frozenset(held[: len(pairs) // HELD_OUT])


def held_out(chain: Sequence[Relation]) -> bool:
    """Whether a composition is in the split "unseen" alone, because a pair in it is."""
    return any(pair in _pairs_held_out() for pair in pairwise(chain))


def questions(split: str, count: int, *, hops: Sequence[int] = (1, 2, 3, 4), seed: int = 0) -> list[Question]:
    """Questions about the world of a seed, numbers of hops in turn; fewer where there are not so many.

    Raises:
        RecipeError: there is no such split, or no such number of hops.
    """
    need_known("split", split, SPLITS)
    if not hops or not all(1 <= hop <= 4 for hop in hops) or (split == "unseen" and 1 in hops):
        raise RecipeError(f"hops is {list(hops)} in split {split!r}; expected some of 1 to 4 (of unseen ones, 2 to 4)")
    about, rng = world(seed), random.Random(f"questions/{seed}/{split}")
    starts = _starts(about, split)
    chains = {hop: [c for c in compositions(hop) if held_out(c) == (split == "unseen")] for hop in hops}
    found: dict[str, Question] = {}
    left, missed = list(hops), 0
    while left and len(found) < count:
        hop = left[len(found) % len(left)]
        question = _question(about, rng.choice(chains[hop]), rng, starts, f"{split}/{seed}/{len(found)}")
        if question is None or question.text in found:
            missed += 1
            if missed == EXHAUSTED:  # there are only so many questions of few hops
                left.remove(hop)
                missed = 0
            continue
        found[question.text], missed = question, 0
    return list(found.values())


def comparisons(split: str, count: int, *, seed: int = 0) -> list[Question]:
    """Which of two films or companies came first, and whether one did: two searches side by side.

    Raises:
        RecipeError: there is no such split.
    """
    need_known("split", split, SPLITS[:3])
    about, rng = world(seed), random.Random(f"comparisons/{seed}/{split}")
    starts = _starts(about, split)
    found: dict[str, Question] = {}
    for _ in range(200 * count):
        if len(found) == count:
            break
        kind, relation, verb = rng.choice((("film", "released_in", "released"), ("company", "founded_in", "founded")))
        a, b = rng.sample(about.names[kind], 2)
        years = (int(about.facts[a, relation]), int(about.facts[b, relation]))
        if not {a, b} <= starts or years[0] == years[1]:
            continue
        if rng.random() < 0.5:
            text, answer = f"Which was {verb} first, {a} or {b}?", a if years[0] < years[1] else b
        else:
            text, answer = f"Was {a} {verb} before {b}?", "yes" if years[0] < years[1] else "no"
        support = (page_id(about, a), page_id(about, b))
        name = f"compared/{split}/{seed}/{len(found)}"
        found.setdefault(text, Question(name, text, (answer,), 2, (relation, relation), (a, b), support))
    return list(found.values())


def _starts(about: World, split: str) -> set[str]:
    """70, 10 and 20 of a hundred things may begin questions of a split, and 30, the last two, of "unseen"."""
    order = sorted(about.kinds)
    random.Random("starts").shuffle(order)
    a, b = int(0.7 * len(order)), int(0.8 * len(order))
    return set({"train": order[:a], "validation": order[a:b], "unseen": order[a:]}.get(split, order[b:]))


def _question(
    about: World, chain: Sequence[Relation], rng: random.Random, starts: set[str], name: str
) -> Question | None:
    """A question along a chain from a random start; None where it leads nowhere, in a circle, or is too easy."""
    here = rng.choice(about.names[chain[0].source])
    if here not in starts:
        return None
    passed, phrase = [here], here
    for relation in chain:
        after = about.target(passed[-1], relation.name)
        if after is None or after in passed:
            return None
        phrase = relation.phrase.format(x=phrase)
        passed.append(after)
    support = tuple(page_id(about, thing) for thing in passed[:-1])
    text = f"What is {phrase}?"
    if len(chain) > 1:
        reached = {one.document.id for one in about.corpus.search(text, TOP)}
        if passed[-1] in about.corpus.by_id[support[0]].contents or reached >= set(support):
            return None
    relations = tuple(relation.name for relation in chain)
    return Question(name, text, (passed[-1],), len(chain), relations, tuple(passed), support)
