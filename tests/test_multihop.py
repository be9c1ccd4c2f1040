"""The world of pages: each hop costs a search, and no split knows what another asks."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

pytest.importorskip("bm25s")

from memorist.errors import RecipeError
from memorist.tasks.multihop import (
    COUNTS,
    RELATIONS,
    TOP,
    comparisons,
    compositions,
    held_out,
    page_id,
    questions,
    world,
)

TRAIN = questions("train", 200)


def test_the_world_repeats_and_other_seeds_are_other_worlds() -> None:
    assert world(0).facts == world.__wrapped__(0).facts != world(1).facts
    assert [q.text for q in questions("train", 40)] == [q.text for q in TRAIN[:40]]


def test_every_thing_has_a_page_that_tells_what_leads_from_it_and_nothing_else() -> None:
    here = world()
    assert {kind: len(names) for kind, names in here.names.items()} == COUNTS
    for name in here.kinds:
        page = here.corpus.by_id[page_id(here, name)].contents
        told = {target for (thing, _), target in here.facts.items() if thing == name}
        assert page.startswith(f'"{name}"\n') and all(target in page for target in told)
        others = {other for other in here.kinds if re.search(rf"\b{re.escape(other)}\b", page)} - {name}
        assert others == told & set(here.kinds)


def test_people_have_namesakes_and_marriages_are_mutual() -> None:
    here = world()
    surnames = [name.split()[1] for name in here.names["person"]]
    shared = sum(surnames.count(name) > 1 for name in surnames) / len(surnames)
    assert 0.3 < shared < 0.7
    assert all(here.facts[here.facts[p, "spouse"], "spouse"] == p for p in here.names["person"])


@pytest.mark.parametrize("question", TRAIN, ids=lambda q: q.id)
def test_an_answer_is_reached_by_its_hops_and_not_by_one_search(question: object) -> None:
    here, q = world(), question
    assert q.hops == len(q.relations) == len(q.chain) - 1 == len(q.support)  # type: ignore[attr-defined]
    thing = q.chain[0]  # type: ignore[attr-defined]
    assert thing in q.text  # type: ignore[attr-defined]
    for relation, page in zip(q.relations, q.support, strict=True):  # type: ignore[attr-defined]
        assert page in [one.document.id for one in here.corpus.search(thing, TOP)]  # a name finds its page
        assert here.facts[thing, relation] in here.corpus.by_id[page].contents
        thing = here.facts[thing, relation]
    assert q.answers == (thing,)  # type: ignore[attr-defined]
    once = {one.document.id for one in here.corpus.search(q.text, TOP)}  # type: ignore[attr-defined]
    assert q.hops == 1 or not once >= set(q.support)  # type: ignore[attr-defined]


def test_splits_share_neither_starts_nor_compositions() -> None:
    other = {split: questions(split, 60, hops=(2, 3)) for split in ("validation", "test", "unseen")}
    trained = {q.chain[0] for q in TRAIN}
    for split, found in other.items():
        assert len(found) == 60 and not trained & {q.chain[0] for q in found}, split
    seen = {q.relations for q in TRAIN} | {q.relations for q in other["test"]}
    assert not seen & {q.relations for q in other["unseen"]}
    assert sum(map(held_out, compositions(2))) == len(compositions(2)) // 5
    pairs = {pair for q in TRAIN for pair in pairwise(q.relations)}
    assert all(set(pairwise(q.relations)) - pairs for q in other["unseen"])
    assert len(compositions(1)) == len(RELATIONS) and not any(map(held_out, compositions(1)))
    # What is new of a pair is how it is put together: both relations come in the same place in others.
    known = [pair for pair in compositions(2) if not held_out(pair)]
    for pair in filter(held_out, compositions(2)):
        assert all(any(other[place] == pair[place] for other in known) for place in (0, 1))


def test_comparisons_are_decided_by_two_pages() -> None:
    here, asked = world(), comparisons("train", 60)
    assert len(asked) == 60 and {q.answers[0] in ("yes", "no") for q in asked} == {True, False}
    for q in asked:
        years = [int(here.facts[thing, relation]) for thing, relation in zip(q.chain, q.relations, strict=True)]
        first = q.chain[years.index(min(years))]
        assert q.answers[0] == (first if q.text.startswith("Which") else "yes" if first == q.chain[0] else "no")
        assert all(str(year) in here.corpus.by_id[page].contents for year, page in zip(years, q.support, strict=True))
    assert not {thing for q in asked for thing in q.chain} & {t for q in comparisons("test", 30) for t in q.chain}


@pytest.mark.parametrize(
    ("split", "hops", "message"),
    [("tests", (1,), "'test'"), ("train", (), "hops is"), ("train", (5,), "hops is"), ("unseen", (1, 2), "2 to 4")],
)
def test_what_is_not_there_is_refused(split: str, hops: tuple[int, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        questions(split, 3, hops=hops)
