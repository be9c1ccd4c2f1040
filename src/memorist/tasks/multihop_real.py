"""Questions of HotpotQA, 2WikiMultihopQA and MuSiQue, each over the paragraphs of its whole file."""

from __future__ import annotations

from pathlib import Path

from memorist.tasks.corpus import Corpus, Document
from memorist.tasks.public import read_public
from memorist.tasks.searching import SearchTask


def read_multihop(file: str | Path) -> list[SearchTask]:
    """The questions of a file, over one corpus of all its paragraphs.

    Raises:
        DataError: the file is not to be found, or a row has none of the three forms.
    """
    asked = read_public(file)
    distinct = dict.fromkeys(paragraph for question in asked for paragraph in question.paragraphs)
    known = {paragraph: f"{i:06d}" for i, paragraph in enumerate(distinct)}
    corpus = Corpus(Document(name, f'"{title}"\n{text}') for (title, text), name in known.items())
    source = Path(file).stem
    return [
        SearchTask(f"{source}/{q.id}", q.text, q.answers, corpus, tuple(sorted(known[p] for p in q.gold)))
        for q in asked
    ]
