"""Search by words in a stored bank: exact BM25 over a user's texts, with the postings that were read kept in memory.

What was kept follows the file: versions are numbered in the order of writing, so later ones are read after the last
that is known, and whatever was erased empties all.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memorist.memory.bank import best
from memorist.memory.stored_search import Database, Versions

K1, B = 1.2, 0.75
"""Of BM25 (Robertson and Zaragoza, 2009): how soon repeats stop counting, and how much long texts count less."""

KEPT = 2_000_000
"""Postings that are kept at most, 24 bytes each; those of words that were asked for last."""

FEW = 256
"""Versions of which the words are read one by one; of more, all that have the word."""

Rows = npt.NDArray[np.int64]
"""Postings of a word, shape (N, 3): version, how often it has the word, and how many words it has; by version."""


@dataclass(slots=True)
class _Known:
    """A word's postings up to a version, or only how many there are."""

    upto: int
    count: int
    rows: Rows | None = None


class WordIndex:
    """The words of a bank's texts. Call it with the connection's lock held, in one transaction."""

    def __init__(self, kept: int = KEPT) -> None:
        self._most, self._commit = kept, 0
        self._known: OrderedDict[tuple[int, str], _Known] = OrderedDict()
        self._size = 0

    def forget(self) -> None:
        """Drop all: something was erased, or the words were made anew."""
        self._known.clear()
        self._size = 0

    def search(
        self, db: Database, user: int, asked: Sequence[str], limit: int, allowed: Versions | None, commit: int
    ) -> list[tuple[int, float]]:
        """The versions of a user that share most with the words asked for: (version, BM25), best first, ties by age.

        Rare words come first. Once `limit` versions have more than all words that are left could give, those that have
        none of the rare words are not looked at any more (MaxScore: Turtle and Flood, 1995); what is found is the same.

        Args:
            db: the file, at its newest commit.
            user: number of the user.
            asked: words.
            limit: how many versions.
            allowed: the only ones that are wanted; None for all.
            commit: the newest one.
        """
        last = self._follow(db, commit)
        versions, length = db.execute("SELECT versions, words FROM users WHERE number = ?", (user,)).fetchone()
        mean = length / max(1, versions)
        weights = []
        for word in asked:
            having = self._count(db, user, word, last)
            if having:
                weights.append((math.log1p((versions - having + 0.5) / (having + 0.5)), word))
        weights.sort(key=lambda pair: (-pair[0], pair[1]))
        found, scores = np.zeros(0, np.int64), np.zeros(0)
        for place, (weight, word) in enumerate(weights):
            left = (K1 + 1) * sum(weight for weight, _ in weights[place:])
            closed = len(scores) >= limit and np.partition(scores, -limit)[-limit] > left
            if closed:
                keep = scores + left >= np.partition(scores, -limit)[-limit]
                found, scores = found[keep], scores[keep]
            rows = self._rows(db, user, word, found if closed else allowed)
            counts, lengths = rows[:, 1], rows[:, 2]
            gained = weight * counts * (K1 + 1) / (counts + K1 * (1 - B + B * lengths / mean))
            if not closed:
                union = np.union1d(found, rows[:, 0])
                widened = np.zeros(len(union))
                widened[np.searchsorted(union, found)] = scores
                found, scores = union, widened
            scores[np.searchsorted(found, rows[:, 0])] += gained
        scores = scores.round(9)  # sums of the same parts in another order are equal
        return [(int(found[i]), float(scores[i])) for i in best(scores, limit)]

    def _follow(self, db: Database, commit: int) -> int:
        """Empty what does not hold any more; the last version that there is."""
        if commit != self._commit:
            query = "SELECT coalesce(max(erasure), 0) FROM commits WHERE number > ?"
            if commit < self._commit or db.execute(query, (self._commit,)).fetchone()[0]:
                self.forget()
            self._commit = commit
        return int(db.execute("SELECT version FROM numbers").fetchone()[0])

    def _count(self, db: Database, user: int, word: str, last: int) -> int:
        known = self._known.get((user, word))
        if known is None:
            known = self._known[user, word] = _Known(0, 0)
            self._size += 1
        self._known.move_to_end((user, word))
        if known.upto < last:
            if known.rows is not None:
                later = _read(db, user, word, "AND version > ? ORDER BY version", known.upto)
                known.rows = np.concatenate([known.rows, later])
                known.count += len(later)
                self._size += len(later)
            else:
                query = "SELECT count(*) FROM words WHERE user = ? AND word = ? AND version > ?"
                known.count += db.execute(query, (user, word, known.upto)).fetchone()[0]
            known.upto = last
        while self._size > self._most and len(self._known) > 1:
            _, gone = self._known.popitem(last=False)
            self._size -= 1 + (0 if gone.rows is None else len(gone.rows))
        return known.count

    def _rows(self, db: Database, user: int, word: str, wanted: Versions | None) -> Rows:
        """A word's postings, of the wanted versions."""
        known = self._known.get((user, word))
        if known is not None and known.rows is not None:
            rows = known.rows
        elif wanted is not None and len(wanted) <= FEW:
            some = json.dumps(wanted.tolist())
            return _read(db, user, word, "AND version IN (SELECT value FROM json_each(?)) ORDER BY version", some)
        else:
            rows = _read(db, user, word, "ORDER BY version")
            if known is not None:
                known.rows = rows
                self._size += len(rows)
        return rows if wanted is None else rows[np.isin(rows[:, 0], wanted)]


def _read(db: Database, user: int, word: str, more: str, *values: object) -> Rows:
    query = f"SELECT version, count, length FROM words WHERE user = ? AND word = ? {more}"
    return np.array(db.execute(query, (user, word, *values)).fetchall(), np.int64).reshape(-1, 3)
