"""How well a policy chooses what a memory should do about statements: by operation, and by which memory it is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Judged:
    """What came of cases. pairs: how often which operation was right and which was chosen. targets: of UPDATE and
    DELETE that were rightly chosen, how many were of the right memory, and how many there were. kinds: right (memory
    too) and all, by what a case tries. joined: of right updates, how many joined or not as they should."""

    pairs: Counter[tuple[str, str]]
    targets: tuple[int, int]
    joined: tuple[int, int]
    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def f1(self) -> dict[str, float]:
        """Of each operation; 0 where it neither was right nor was chosen."""
        found = {}
        for name in OPERATIONS:
            both = self.pairs[name, name]
            wanted = sum(n for (right, _), n in self.pairs.items() if right == name)
            chosen = sum(n for (_, did), n in self.pairs.items() if did == name)
            found[name] = 2 * both / (wanted + chosen) if wanted + chosen else 0.0
        return found

    @property
    def macro_f1(self) -> float:
        """The mean over the four operations."""
        return sum(self.f1.values()) / len(OPERATIONS)

    @property
    def target_accuracy(self) -> float:
        """Share of the right memories."""
        return self.targets[0] / self.targets[1] if self.targets[1] else 0.0

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
    pairs: Counter[tuple[str, str]] = Counter()
    right, known, joined, updates = 0, 0, 0, 0
    kinds: dict[str, tuple[int, int]] = {}
    for start in range(0, len(asked), 32):
        for case, action in zip(cases[start : start + 32], policy.sample(asked[start : start + 32]), strict=True):
            what, target = chosen(action.choice[0])
            did, joins = ("UPDATE", True) if what == "JOIN" else (what, False)
            pairs[case.operation, did] += 1
            hit = did == case.operation and target == case.target
            if did == case.operation and target is not None:
                known += 1
                right += hit
                if did == "UPDATE" and hit:
                    updates += 1
                    joined += joins == case.joins
            done, n = kinds.get(case.kind, (0, 0))
            kinds[case.kind] = done + hit, n + 1
    return Judged(pairs, (right, known), (joined, updates), kinds)
