"""Make the bases of MemAgent and MemSearcher from scratch, each in one seeded run: tiny Llamas that imitate named heuristics.

Reading documents they imitate `FirstSentences` (keep the first sentence of each chunk), searching `QuestionWords` (search for
the question's words, keep the first sentence that is found); both do something else in half of their decisions and more, most
of it apt (a sentence about a name of the question, the newest name), so that every way of acting has some probability: learning
chooses among what a base can do, and a base that never did these, or could not tell what a text is about, did not learn them
in a hundred steps. A few runs are in one window without a memory (full context, ReAct). All worlds are others than world 0,
which recipes and results use: names that it reads there it has never seen. The first phase is the same of both bases: `--go-on`
spares it the second time.

Run: python scripts/make_reader.py [--base bundled-searcher] (about an hour and a quarter on 2 cores)
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from make_base import byte_level, imitate, ramp, untrained, whole
from transformers import PreTrainedTokenizerFast

from memorist.agents.memagent import UNCHANGED, MemAgentSettings
from memorist.agents.memsearcher import MemSearcherSettings
from memorist.agents.text_heuristics import TOOL, FirstSentences, QuestionWords, sentences
from memorist.decision import Distribution
from memorist.models.causal import CausalPolicy
from memorist.models.rows import Unit
from memorist.models.sampler import Request
from memorist.tasks.long_document import pages
from memorist.tasks.multihop import _word, world
from memorist.tasks.searching import MultihopData
from memorist.training.rollout import Group, Seat, play

ALL = (0.4, 0.4, 0.08, 0.12)
"""Of a step's tokens, by way of acting: reading, searching, each of them in one window without a memory."""


@dataclass(frozen=True)
class Phase:
    """Steps, learning rate; error: how often something else is done than the heuristic does; apt: how much of that is
    apt; first: weight of an action's first token, which says whether anything is written; shares: of a step's tokens;
    shown: whether what is imitated is apt throughout, in states that the erring heuristic came to."""

    steps: int
    rate: float
    error: float
    apt: float
    first: float = 1.0
    shares: tuple[float, ...] = ALL
    shown: bool = False


FIRST = Phase(3400, 2e-3, 0.4, 0.0)
READER = (
    FIRST,
    # What a text is about is learnt by choosing alone; among other ways of acting it was not, in 750 steps.
    Phase(900, 1.5e-3, 1.0, 1.0, 5.0, (0.7, 0.3, 0.0, 0.0)),
    # Who is always apt never has anything needless in memory, and takes "something is remembered" for "nothing is to do".
    Phase(900, 1.5e-3, 0.5, 0.85, 5.0, (0.7, 0.3, 0.0, 0.0), shown=True),
    Phase(150, 3e-4, 0.5, 0.85, 3.0),
)
SEARCHES = (0.0, 0.85, 0.0, 0.15)
# Searching among other things had a fifth of these examples: the second search for the newest name was hardly ever tried.
SEARCHER = (
    FIRST,
    Phase(2400, 1.5e-3, 0.7, 0.85, shares=SEARCHES, shown=True),
    Phase(150, 3e-4, 0.5, 0.85, shares=SEARCHES),
    # Five decisions in a row must be apt before anything is earned: half of them made one run in forty right.
    Phase(150, 3e-4, 0.7, 0.85, shares=SEARCHES),
)
BASES = {"bundled-reader": READER, "bundled-searcher": SEARCHER}
VOCABULARY = 3072
WORLDS = 1000  # the first seed of those that are seen
WINDOW = 8192  # tokens; sixty-four chunks are 4,700
POOL = 160  # tasks of each kind from a world
SERVES = 20  # steps that a world serves
PIECES = [
    '<tool_call>{"name": "' + TOOL + '", "arguments": {"query": "', '"}}</tool_call>', "<memory>", "</memory>", "\\boxed{", "}", UNCHANGED,
    "Question:\n", "Text:\n", "Memory:\n", "New memory:\n", "Answer:\n", "Act:\n", "Found:\n",
]  # fmt: skip


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Of worlds and their questions; the pieces that every reply is made of are single tokens."""
    rng, used = random.Random(0), set[str]()
    texts = [d.contents.replace("\n", "\n ") for seed in range(5) for d in world(WORLDS + seed).corpus.documents]
    asked = [" " + task.question for task in MultihopData(questions=500, hops=3, seed=WORLDS).tasks(0)]
    lists = [" ".join([""] + [_word(rng, used) for _ in range(20)]) for _ in range(3000)]
    return byte_level(size, PIECES, chain(texts, asked, lists))


Runs = Callable[[random.Random, float], list[Group]]


def heuristic_runs(seed: int, phase: Phase) -> Iterator[Runs]:
    """Ways to act in the world of a seed, each from a stream and the share of the way that is done."""
    error, apt = phase.error, phase.apt
    searches = 15 if phase.shares[1] > 0.5 else 7
    reading = pages("train", POOL, 150, hops=(1, 1, 2), seed=seed)
    searching = MultihopData(questions=POOL, hops=3, seed=seed).tasks(0)

    def read(rng: random.Random, done: float) -> list[Group]:
        build = MemAgentSettings(
            style="compact",
            chunk=rng.randint(25, 35 + int(45 * ramp(done, 0.1, 0.5))),
            memory=rng.choice((24, 40)),
            whole=True,
        ).build
        keeper = FirstSentences(rng.choice((1, 1, 2)), error=error, apt=apt)
        return play(build, rng.sample(reading, 8), {"reader": Seat(keeper)}, seed=rng.getrandbits(32))

    def search(rng: random.Random, done: float) -> list[Group]:
        most = 1 + round(2 * ramp(done, 0.1, 0.5))
        build = MemSearcherSettings(style="compact", memory=64, documents=rng.randint(1, most)).build
        keeper = QuestionWords(rng.choice((1, 1, 2, 3)), error=error, apt=apt)
        return play(build, rng.sample(searching, searches), {"searcher": Seat(keeper)}, seed=rng.getrandbits(32))

    def read_whole(rng: random.Random, done: float) -> list[Group]:
        build = MemAgentSettings(style="compact", window="all").build
        small = [t for t in rng.sample(reading, 20) if len(t.document.split()) < 40 + 120 * ramp(done, 0.2, 0.6)]
        return play(build, small[:3], {"reader": Seat(FirstSentences(error=error, apt=apt))}, seed=rng.getrandbits(32))

    def search_whole(rng: random.Random, done: float) -> list[Group]:
        most = 1 + round(2 * ramp(done, 0.1, 0.5))
        build = MemSearcherSettings(style="compact", window="all", documents=rng.randint(1, most)).build
        keeper = QuestionWords(rng.choice((1, 1, 2)), error=error, apt=apt)
        return play(build, rng.sample(searching, 2), {"searcher": Seat(keeper)}, seed=rng.getrandbits(32))

    return iter((read, search, read_whole, search_whole))


def step_units(
    policy: CausalPolicy, step: int, done: float, budget: int, known: dict[int, list[Runs]], phase: Phase
) -> list[Unit]:
    """A step's examples: what the heuristics decide in runs of theirs."""
    rng, seed = random.Random(step), WORLDS + step // SERVES
    if seed not in known:
        known.clear()
        known[seed] = list(heuristic_runs(seed, phase))
    language = not phase.apt and (step < 300 or step % 8 == 0)
    units = []
    apt = (FirstSentences(error=1.0, apt=1.0), QuestionWords(rng.choice((1, 1, 2, 3)), error=1.0, apt=1.0))
    for way, (runs, share) in enumerate(zip(known[seed], phase.shares, strict=True)):
        left = share * budget
        if not share:
            continue
        decisions = [d for group in runs(rng, done) for run in group for d in run.trajectory.decisions]
        rng.shuffle(decisions)
        for decision in decisions:
            done_so = decision.action
            if phase.shown:
                asked = Request(decision.observation, Distribution(), rng.getrandbits(32))
                [done_so] = apt[way % 2].sample([asked])
            action = policy.encode(decision.observation, done_so.text)
            if left > 0:
                left -= len(action.prompt) + len(action.tokens)
                units.append(Unit(whole(action) if language else action, 1.0, 1.0))
    return units


def watch(policy: CausalPolicy) -> None:
    """How well it acts greedily in a world that it has not seen."""
    reading = pages("train", 32, 120, seed=7)
    searching = MultihopData(questions=32, hops=2, seed=7).tasks(0)
    read = play(
        MemAgentSettings(style="compact", chunk=70, memory=40, whole=True).build, reading, {"reader": Seat(policy)}
    )
    search = play(
        MemSearcherSettings(style="compact", memory=64, documents=3).build, searching, {"searcher": Seat(policy)}
    )
    known = {one for document in world(7).corpus.documents for one in sentences(document.contents)}
    for name, groups in (("reading", read), ("searching", search)):
        outcomes = [run.outcome for group in groups for run in group]
        held = [one for outcome in outcomes for one in sentences(outcome.memories[-1] if outcome.memories else "")]
        exact = sum(one in known for one in held) / max(1, len(held))
        reward = sum(group[0].reward for group in groups) / len(groups)
        formed = sum(getattr(outcome, "well_formed", bool(outcome.answer)) for outcome in outcomes) / len(outcomes)
        print(
            f"  {name}: reward {reward:.3f}, exact sentences {exact:.3f} of {len(held)}, readable {formed:.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", choices=list(BASES), default="bundled-reader")
    parser.add_argument("--out", type=Path, help="default: where the package has it")
    parser.add_argument("--phase", type=int, default=0, help="begin with this one, from what --go-on holds")
    parser.add_argument("--go-on", type=Path, help="what the phase before left")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--budget", type=int, default=5000, help="tokens a step")
    args = parser.parse_args()
    torch.manual_seed(0)
    out, phases = args.out or Path("src/memorist/models") / args.base, BASES[args.base]
    if args.go_on:
        policy = CausalPolicy.load(args.go_on, args.base)
    else:
        tok = tokenizer(VOCABULARY)
        policy = CausalPolicy(untrained(tok, args.width, args.layers, 0, VOCABULARY), tok, args.base)
    policy.model.config.max_position_embeddings = WINDOW
    print(f"{sum(p.numel() for p in policy.parameters()):,} parameters", flush=True)
    known: dict[int, list[Runs]] = {}
    for number, phase in list(enumerate(phases))[args.phase :]:
        before = sum(one.steps for one in phases[:number]) + SERVES * number

        def units(step: int, done: float, before: int = before, phase: Phase = phase) -> list[Unit]:
            return step_units(policy, before + step, 1.0 if before else done, args.budget, known, phase)

        known.clear()
        imitate(policy, phase.steps, phase.rate, units, out, lambda step: watch(policy), phase.first)


if __name__ == "__main__":
    main()
