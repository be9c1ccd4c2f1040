"""Retrieval baselines that run offline: BM25 over the turns of a dialogue, judged by the evidence it finds.

Needs bm25s (`pip install 'memorist[eval]'`), which is imported when a dialogue is indexed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorist.conversation import Message
from memorist.scoring import evidence_recall
from memorist.tasks.locomo import Dialogue

KS = (5, 10, 30)


class TurnIndex:
    """BM25 over turns, each read as `speaker: text`, with shared pictures described (see `bm25_turns`)."""

    def __init__(self, turns: Sequence[Message]) -> None:
        self.turns = tuple(turns)
        self._bm25s = _library()
        self._model: Any = None
        words = self._words([f"{turn.speaker}: {turn.shown}" for turn in self.turns])
        # The library cannot index texts that are empty without stop words.
        if any(words):
            self._model = self._bm25s.BM25()
            self._model.index(words, show_progress=False)

    def scores(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """BM25 of each question with each turn, shape (questions, turns); 0 where no word is shared."""
        found = np.zeros((len(questions), len(self.turns)), np.float32)
        if self._model is not None:
            for row, words in zip(found, self._words(questions), strict=True):
                if words:
                    row[:] = self._model.get_scores(words)
        return found

    def search(self, questions: Sequence[str], k: int) -> list[list[Message]]:
        """For each question the `k` best turns, best first; ties, and turns without a shared word, by age."""
        order = np.argsort(-self.scores(questions), axis=1, kind="stable")[:, :k]
        return [[self.turns[i] for i in row] for row in order]

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        if not texts:
            return []
        found: list[list[str]] = self._bm25s.tokenize(
            list(texts), stopwords="en", return_ids=False, show_progress=False
        )
        return found


def bm25_turns(dialogue: Dialogue) -> TurnIndex:
    """An index of a dialogue's turns: bm25s with its default k1 and b, English stop words, no stemming.

    Raises:
        ModuleNotFoundError: bm25s is not installed.
    """
    return TurnIndex(tuple(dialogue.conversation.messages()))


def top_turns(dialogue: Dialogue, k: int) -> list[list[Message]]:
    """The `k` best turns by BM25 for each of the dialogue's questions, in the order of the questions."""
    return bm25_turns(dialogue).search([question.text for question in dialogue.questions], k)


def evidence_recall_values(dialogues: Iterable[Dialogue], ks: Sequence[int] = KS) -> dict[int, dict[str, list[float]]]:
    """Evidence recall of BM25 by cutoff k and dialogue: a question's share among its k best turns.

    Counts questions of categories 1 to 4 with at least one evidence id that names a turn. The inner mappings
    are what `statistics.hierarchical_bootstrap` takes as one seed.
    """
    found: dict[int, dict[str, list[float]]] = {k: {} for k in ks}
    for dialogue in dialogues:
        asked = [q for q in dialogue.questions if q.category != 5 and q.evidence]
        retrieved = bm25_turns(dialogue).search([q.text for q in asked], max(ks))
        for question, turns in zip(asked, retrieved, strict=True):
            ids = [turn.id for turn in turns]
            for k in ks:
                recall = evidence_recall(ids[:k], question.evidence)
                found[k].setdefault(dialogue.id, []).append(recall)
    return found


def evidence_recall_at(dialogues: Iterable[Dialogue], ks: Sequence[int] = KS) -> dict[int, float]:
    """Question-weighted mean evidence recall of BM25 at each cutoff, in [0, 1].

    Raises:
        ValueError: no question has evidence to be found.
        ModuleNotFoundError: bm25s is not installed.
    """
    means = {}
    for k, values in evidence_recall_values(dialogues, ks).items():
        flat = [value for recalls in values.values() for value in recalls]
        if not flat:
            raise ValueError("no question of categories 1 to 4 has evidence that names a turn")
        means[k] = sum(flat) / len(flat)
    return means


def _library() -> Any:
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the BM25 baseline needs bm25s, which is not installed; type: pip install 'memorist[eval]'"
        ) from error
    return bm25s
