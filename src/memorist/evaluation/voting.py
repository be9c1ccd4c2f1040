"""What most of several answers say, within a budget (M1, arXiv 2504.10449, section 3.6: a model that writes faster may
answer more often in the same time). Nobody is asked once more whose leading answer cannot be overtaken."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from memorist.errors import ArgumentError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Budget:
    """votes: answers to a question at most. tokens: written for a question, from which on it is not asked again (0: no
    limit). seconds: of all questions together; a round begins only where one as long as the longest so far would end in
    time (0: no limit). One answer is always given.

    Raises:
        ArgumentError: a number is too small.
    """

    votes: int = 1
    tokens: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.votes < 1 or self.tokens < 0 or self.seconds < 0:
            raise ArgumentError(
                f"votes is {self.votes}, tokens {self.tokens} and seconds {self.seconds:g}; expected 1 or more votes, "
                "and 0 (no limit) or more of the others"
            )


def voted(
    count: int,
    ask: Callable[[Sequence[int], int], Sequence[T]],
    budget: Budget,
    *,
    says: Callable[[T], Hashable | None],
    tokens: Callable[[T], int],
    clock: Callable[[], float] = time.monotonic,
) -> list[list[T]]:
    """The answers to each of `count` questions, in rounds.

    Args:
        ask: one more answer to each of some questions, by their numbers; it is told which round it is, from 0.
        budget: when to stop.
        says: what counts as the same answer; None where there is none.
        tokens: that an answer took to write.
        clock: seconds.
    """
    found: list[list[T]] = [[] for _ in range(count)]
    began, longest = clock(), 0.0
    for number in range(budget.votes):
        open_ = [i for i, own in enumerate(found) if not own or _undecided(own, budget, says, tokens)]
        start = clock()
        late = number and budget.seconds and start - began + longest > budget.seconds
        if late or not open_:
            break
        for i, answer in zip(open_, ask(open_, number), strict=True):
            found[i].append(answer)
        longest = max(longest, clock() - start)
    return found


def leading(answers: Sequence[T], says: Callable[[T], Hashable | None]) -> T | None:
    """The first of those that say what most say; None where none says anything."""
    said = [says(one) for one in answers]
    counts = Counter(what for what in said if what is not None)
    best = max(counts.values(), default=0)
    return next(
        (one for one, what in zip(answers, said, strict=True) if counts[what] == best and what is not None), None
    )


def _undecided(
    answers: Sequence[T], budget: Budget, says: Callable[[T], Hashable | None], tokens: Callable[[T], int]
) -> bool:
    """Whether another answer may be asked for, and may matter."""
    if budget.tokens and sum(map(tokens, answers)) >= budget.tokens:
        return False
    counts = Counter(what for one in answers if (what := says(one)) is not None)
    first, second, *_ = (*(count for _, count in counts.most_common(2)), 0, 0)
    lead = first - second
    return lead <= budget.votes - len(answers)
