"""How good a listener's edits are: beside the right ones, and by the tree that they leave (arXiv 2601.05171).

`strict` is what the released code describes and never runs; `graded` weighs kind, path and text; `state` compares
trees, so that an ADD in place of an UPDATE costs nothing where both leave the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from memorist.memory.profile_edits import Edit, read_edits
from memorist.memory.profile_schema import shared_parts
from memorist.memory.profile_text import token_f1
from memorist.memory.profile_tree import ProfileTree

MATCHES, GRADED_MATCHES = 0.5, 0.35
"""From which likeness on a right and a given edit are compared with each other."""
EXACT, SAME_PATH, OTHER_PATH = 0.9, 0.3, 0.5
"""F1 of texts: as good as equal; half right at the right path; half right at another."""
MISSING, WRONG, HALF = -0.5, -1.0, 0.5
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
Likeness = Callable[[Edit, Edit], float]


def strict(right: Sequence[Edit], given: Sequence[Edit]) -> float:
    """From -1 to 1: a right edit that is met counts 1 or a half, or -1 where what meets it is wrong, a missing one
    -1/2, and all that are too many together at most -1."""
    return _matched(right, given, _near, MATCHES, _strictly, len(given))


def graded(right: Sequence[Edit], given: Sequence[Edit]) -> float:
    """The same, where what meets counts by how like it is: a fifth its kind, two fifths its path and its text each."""
    return _matched(right, given, _quality, GRADED_MATCHES, _quality, None)


def state(tree: ProfileTree, right: Sequence[Edit], given: Sequence[Edit]) -> float:
    """From -1 to 1: the mean F1 of the leaves that either changes, done on overlays of a tree; 1 where none is."""
    return alike(tree.leaves(), *(_after(tree, edits) for edits in (right, given)))


def alike(before: Mapping[str, str], wanted: Mapping[str, str], found: Mapping[str, str]) -> float:
    """The same of leaves as they were, as they should be, and as they are."""
    changed = [
        path
        for path in dict.fromkeys([*before, *wanted, *found])
        if not before.get(path, "") == wanted.get(path, "") == found.get(path, "")
    ]
    if not changed:
        return 1.0
    return 2 * sum(token_f1(found.get(p, ""), wanted.get(p, "")) for p in changed) / len(changed) - 1


def form(text: str) -> float:
    """From -1, where no line of a reply is an edit, to 1, where all are."""
    found = read_edits(text)
    return 1 - 2 * len(found.bad) / found.lines if found.found else -1.0


def _after(tree: ProfileTree, edits: Sequence[Edit]) -> dict[str, str]:
    copy = ProfileTree(tree.bank.fork(), tree.scope, tree.schema, tree.policy, tree.budget, tree.guard)
    copy.apply(edits, at=_NEVER)
    return copy.leaves()


def _matched(
    right: Sequence[Edit], given: Sequence[Edit], like: Likeness, least: float, term: Likeness, most: int | None
) -> float:
    """The mean of terms, greedily matched one to one by likeness; `most`: how many are given, where all count as too
    many beyond the right ones; None where those that met nothing do."""
    right, given = ([edit for edit in some if edit.kind != "NO_OP"] for some in (right, given))
    if not right:
        return max(-1.0, -float(len(given))) if given else 1.0
    pairs = [(-like(a, b), i, j) for i, a in enumerate(right) for j, b in enumerate(given) if like(a, b) >= least]
    met: dict[int, int] = {}
    for _, i, j in sorted(pairs):
        if i not in met and j not in met.values():
            met[i] = j
    terms = [term(a, given[met[i]]) if i in met else MISSING for i, a in enumerate(right)]
    extra = len(given) - (len(met) if most is None else len(right))
    if extra > 0:
        terms.append(max(-1.0, -extra / len(right)))
    return min(1.0, max(-1.0, sum(terms) / len(terms)))


def _same_beginning(one: str, other: str) -> float:
    return shared_parts(one, other) / (1 + max(one.count("."), other.count(".")))


def _near(right: Edit, given: Edit) -> float:
    return _same_beginning(right.path, given.path) + 0.01 * token_f1(right.value, given.value)


def _strictly(right: Edit, given: Edit) -> float:
    if right.kind != given.kind:
        return WRONG
    same, f1 = right.path == given.path, token_f1(right.value, given.value)
    if same and (right.kind == "DELETE" or f1 >= EXACT):
        return 1.0
    return HALF if f1 >= (SAME_PATH if same else OTHER_PATH) else WRONG


def _quality(right: Edit, given: Edit) -> float:
    deletes = (right.kind == "DELETE") + (given.kind == "DELETE")
    kind = 1.0 if right.kind == given.kind else 0.0 if deletes else 0.5
    text = {0: token_f1(right.value, given.value), 1: 0.0, 2: 1.0}[deletes]
    return 0.2 * kind + 0.4 * _same_beginning(right.path, given.path) + 0.4 * text
