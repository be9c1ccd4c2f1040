"""How well a policy chooses what a memory should do about statements: by operation, and by which memory it is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from memorist.decision import Distribution, Observation
from memorist.models.chooser import ABOUT, ALONE, chosen, options
from memorist.models.sampler import Request, Sampler
from memorist.tasks.statements import Case

OPERATIONS = ("ADD", "NOOP", "UPDATE", "DELETE")


def options_of(case: Case) -> tuple[str, ...]:
    """What can be done about a case's statement."""
    return options(case.memories)


def index_of(case: Case) -> int:
    """Which option is right."""
    if case.target is None:
        return ALONE.index(case.operation)
    what = "JOIN" if case.joins else case.operation
    return len(ALONE) + len(ABOUT) * case.target + ABOUT.index(what)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen about a case. hit: the right operation on the right memory."""

    case: Case
    did: str
    hit: bool
    joins: bool


@dataclass(frozen=True)
class Judged:
    """What came of cases."""

    each: tuple[Choice, ...]

    @property
    def pairs(self) -> Counter[tuple[str, str]]:
        """How often which operation was right and which was chosen."""
        return Counter((one.case.operation, one.did) for one in self.each)

    @property
    def targets(self) -> tuple[int, int]:
        """Of UPDATE and DELETE that were rightly chosen, how many were of the right memory, and how many there were."""
        known = [one.hit for one in self.each if one.did == one.case.operation and one.case.target is not None]
        return sum(known), len(known)

    @property
    def joined(self) -> tuple[int, int]:
        """Of right updates, how many joined or not as they should, and how many there were."""
        updates = [one.joins == one.case.joins for one in self.each if one.hit and one.did == "UPDATE"]
        return sum(updates), len(updates)

    @property
    def kinds(self) -> dict[str, tuple[int, int]]:
        """Right (memory too) and all, by what a case tries."""
        found: dict[str, tuple[int, int]] = {}
        for one in self.each:
            done, n = found.get(one.case.kind, (0, 0))
            found[one.case.kind] = done + one.hit, n + 1
        return found

    @property
    def f1(self) -> dict[str, float]:
        """Of each operation; 0 where it neither was right nor was chosen."""
        found, pairs = {}, self.pairs
        for name in OPERATIONS:
            both = pairs[name, name]
            wanted = sum(n for (right, _), n in pairs.items() if right == name)
            chosen = sum(n for (_, did), n in pairs.items() if did == name)
            found[name] = 2 * both / (wanted + chosen) if wanted + chosen else 0.0
        return found

    @property
    def macro_f1(self) -> float:
        """The mean over the four operations."""
        return sum(self.f1.values()) / len(OPERATIONS)

    @property
    def target_accuracy(self) -> float:
        """Share of the right memories."""
        right, known = self.targets
        return right / known if known else 0.0

    def line(self) -> str:
        """For people."""
        f1 = " ".join(f"{name} {value:.2f}" for name, value in self.f1.items())
        hits = " ".join(f"{kind} {right}/{n}" for kind, (right, n) in sorted(self.kinds.items()))
        return (
            f"macro-F1 {self.macro_f1:.3f} ({f1}), memory {self.targets[0]}/{self.targets[1]}, "
            f"joined {self.joined[0]}/{self.joined[1]}; {hits}"
        )


def judged(policy: Sampler, cases: Sequence[Case]) -> Judged:
    """What a policy chooses, greedily."""
    how = Distribution(temperature=0.0)
    asked = [Request(Observation(case.statement, options=options_of(case)), how, 0) for case in cases]
    found = []
    for start in range(0, len(asked), 32):
        for case, action in zip(cases[start : start + 32], policy.sample(asked[start : start + 32]), strict=True):
            what, target = chosen(action.choice[0])
            did = "UPDATE" if what == "JOIN" else what
            found.append(Choice(case, did, did == case.operation and target == case.target, what == "JOIN"))
    return Judged(tuple(found))
