"""Metrics of answers and of retrieval: pure functions of strings and ids, each in [0, 1].

Two families stand side by side because papers on LoCoMo report both and they disagree: the ones of mem0's
evaluation code (arXiv 2504.19413, followed by Memory-R1, arXiv 2508.19828) and the ones of LoCoMo's own
scorer (arXiv 2402.17753). Gold answers may be numbers in the data, so every gold is cast to str.

BLEU-1 and LoCoMo's F1 need NLTK (`pip install 'memorist[eval]'`), which is imported when they are first
called.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

Mode = Literal["squad", "mem0", "locomo_set"]

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SQUAD_ARTICLES = re.compile(r"\b(a|an|the)\b")
_LOCOMO_WORDS = re.compile(r"\b(a|an|the|and)\b")
_MEM0_SEPARATORS = str.maketrans(".,!?", "    ")

_BOXED_WITHIN = 300
_BARE_POINT = re.compile(r"(^|[ {])\.")
_SAME_LATEX = (
    ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
    ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""), ("\\%", ""),
)  # fmt: skip

_LONGEST_WORD = 100

# A sentence ends at . ? or ! (with closing quotes or brackets) before white space. Titles, single letters and
# dotted initials end in a period without ending a sentence, as Punkt has learnt for English.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+")
_NO_SENTENCE_END = re.compile(r"(?:\.\.|\b(?:dr|mr|mrs|ms|st|jr|sr|vs|prof|etc|[a-z](?:\.[a-z])*)\.)$", re.IGNORECASE)


def exact_match(pred: str, gold: object, mode: Mode = "squad") -> float:
    """1.0 if the answers are equal after normalisation, else 0.0. An empty answer never matches.

    Args:
        pred: the answer given.
        gold: the answer expected; cast to str.
        mode: `squad` lower-cases and drops punctuation and articles (as SQuAD and Search-R1 do); `mem0` only
            strips and lower-cases; `locomo_set` compares sets of words in LoCoMo's normalisation.

    Raises:
        ValueError: the mode does not exist.
    """
    gold = str(gold)
    if not pred.strip() or not gold.strip():
        return 0.0
    if mode == "squad":
        return float(_squad(pred) == _squad(gold))
    if mode == "mem0":
        return float(pred.strip().lower() == gold.strip().lower())
    if mode == "locomo_set":
        return float(set(_locomo_words(pred)) == set(_locomo_words(gold)))
    raise ValueError(f"mode is {mode!r}; expected 'squad', 'mem0' or 'locomo_set'")


def sub_exact_match(pred: str, gold: object) -> float:
    """1.0 if one answer holds the other after SQuAD's normalisation (MemAgent's headline accuracy), else 0.0.

    An answer of which normalisation leaves nothing ("the") never matches; in the original it always does.
    """
    found, wanted = _squad(pred), _squad(str(gold))
    return float(bool(found) and bool(wanted) and (found in wanted or wanted in found))


def squad_f1(pred: str, gold: object) -> float:
    """F1 of the words of SQuAD's normalisation, repetitions counted; yes and no match nothing but themselves."""
    found, wanted = _squad(pred), _squad(str(gold))
    if found != wanted and {found, wanted} & {"yes", "no", "noanswer"}:
        return 0.0
    a, b = Counter(found.split()), Counter(wanted.split())
    return _f1((a & b).total(), a.total(), b.total())


def boxed(text: str) -> str | None:
    r"""What is in the last \boxed{…}, braces balanced; None where there is none.

    As the verifier that MemAgent was trained with: where \boxed with a blank occurs, what follows its last one up to $.
    """
    _, blank, after = text.rpartition("\\boxed ")
    if blank:
        return after.split("$")[0]
    start = text.rfind("\\boxed{")
    depth = 0
    for place in range(start + len("\\boxed"), len(text) if start >= 0 else 0):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[start + len("\\boxed{") : place]
    return None


def boxed_match(reply: str, golds: Sequence[str]) -> float:
    """1.0 if what the reply boxes within its last 300 characters is one of the gold answers, else 0.0.

    MemAgent's reward (arXiv 2507.02259). Equal up to case, blanks and the ways to write the same in LaTeX; neither
    articles nor marks are dropped.

    Raises:
        ValueError: there is no gold answer.
    """
    if not golds:
        raise ValueError("boxed_match without a gold answer; expected at least one")
    found = boxed(reply[-_BOXED_WITHIN:].lower())
    return float(found is not None and any(_latex(found) == _latex(gold.lower()) for gold in golds))


def mem0_f1(pred: str, gold: object) -> float:
    """F1 between the sets of words, as in mem0's evaluation: `.,!?` separate words, repetitions collapse."""
    found, wanted = (set(s.lower().translate(_MEM0_SEPARATORS).split()) for s in (pred, str(gold)))
    return _f1(len(found & wanted), len(found), len(wanted))


def bleu1(pred: str, gold: object) -> float:
    """BLEU-1 of lower-cased NLTK word tokens: clipped unigram precision times the brevity penalty.

    Equals NLTK's `sentence_bleu` with weights (1, 0, 0, 0), where smoothing never plays a part. Punctuation
    marks are tokens and count.

    Raises:
        ModuleNotFoundError: NLTK is not installed.
    """
    found, wanted = _nltk_words(pred.lower()), _nltk_words(str(gold).lower())
    matches = sum((Counter(found) & Counter(wanted)).values())
    if matches == 0:
        return 0.0
    brevity = 1.0 if len(found) > len(wanted) else math.exp(1 - len(wanted) / len(found))
    return brevity * matches / len(found)


def locomo_f1(pred: str, gold: object, category: int) -> float:
    """LoCoMo's own score of one answer, by question category.

    Category 1 (multi-hop) splits both sides at commas and averages, over the gold's parts, the best F1 of
    any part of the prediction; 2 and 4 take plain stemmed F1; 3 does so with the gold cut at its first `;`,
    behind which stands a justification; 5 (adversarial) asks for abstention (`locomo_abstains`).

    Raises:
        ValueError: the category is not 1 to 5.
        ModuleNotFoundError: NLTK is not installed.
    """
    gold = str(gold)
    if category == 1:
        parts = pred.split(",")
        best = [max(_stemmed_f1(part, wanted) for part in parts) for wanted in gold.split(",")]
        return sum(best) / len(best)
    if category == 3:
        return _stemmed_f1(pred, gold.split(";")[0])
    if category in (2, 4):
        return _stemmed_f1(pred, gold)
    if category == 5:
        return float(locomo_abstains(pred))
    raise ValueError(f"category is {category!r}; expected an integer from 1 to 5")


def locomo_abstains(pred: str) -> bool:
    """Whether an answer says, in one of the two phrases of LoCoMo's scorer, that nothing is known."""
    lowered = pred.lower()
    return "no information available" in lowered or "not mentioned" in lowered


def evidence_recall(retrieved: Iterable[str], evidence: Sequence[str]) -> float:
    """Share of distinct evidence ids among the retrieved ids; 1.0 without any evidence, as in LoCoMo."""
    wanted = set(evidence)
    return len(wanted & set(retrieved)) / len(wanted) if wanted else 1.0


def _f1(common: int, found: int, wanted: int) -> float:
    return 2 * common / (found + wanted) if common else 0.0


def _latex(text: str) -> str:
    for old, new in _SAME_LATEX:
        text = text.replace(old, new)
    return _BARE_POINT.sub(r"\g<1>0.", text).replace(" ", "")


def _squad(text: str) -> str:
    return " ".join(_SQUAD_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _locomo_words(text: str) -> list[str]:
    return _LOCOMO_WORDS.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _stemmed_f1(pred: str, gold: str) -> float:
    found, wanted = (Counter(_stem(word) for word in _locomo_words(s)) for s in (pred, gold))
    return _f1((found & wanted).total(), found.total(), wanted.total())


def _sentences(text: str) -> list[str]:
    """`text` cut into sentences. The word tokeniser splits off a period at the end of its input only."""
    sentences, start = [], 0
    for gap in _SENTENCE_END.finditer(text):
        if not _NO_SENTENCE_END.search(text, max(start, gap.start() - 16), gap.start()):
            sentences.append(text[start : gap.end()])
            start = gap.end()
    return [*sentences, text[start:]]


def _nltk_words(text: str) -> list[str]:
    tokenize = _word_tokenizer()
    # Single spaces: a pattern of the tokeniser takes quadratic time on long runs of them.
    return [word for sentence in _sentences(" ".join(text.split())) for word in tokenize(sentence)]


@lru_cache(maxsize=1)
def _word_tokenizer() -> Callable[[str], list[str]]:
    """NLTK's treebank tokeniser, which needs no downloaded data (`nltk.word_tokenize` wants Punkt's)."""
    try:
        from nltk.tokenize.destructive import NLTKWordTokenizer
    except ModuleNotFoundError as error:
        raise _no_nltk("BLEU-1") from error
    tokenize: Callable[[str], list[str]] = NLTKWordTokenizer().tokenize
    return tokenize


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    try:
        from nltk.stem.porter import PorterStemmer
    except ModuleNotFoundError as error:
        raise _no_nltk("LoCoMo's F1") from error
    return PorterStemmer()


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    # No English word is that long, and NLTK 3.9 recurses once for each "y" in a row.
    return str(_stemmer().stem(word)) if len(word) <= _LONGEST_WORD else word


def _no_nltk(what: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"{what} needs NLTK, which is not installed; type: pip install 'memorist[eval]'")
