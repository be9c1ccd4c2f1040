"""Make the base of the household's seeker from scratch, in one seeded run: a tiny Llama that imitates `MemoryOnly` and
`AskThenSweep`, now an act of one, now one of the other, with acts at random at the rate ERROR: so that every way of searching has some
probability. When each search was all by one of them, reinforcement chose one and never put together what the two know
(docs/household.md). The more finding is worth, the more is asked and the less is done by memory alone: from a base that took no notice
of what it is worth, reinforcement learnt to take none. Homes are of the base split. A third of the prompts do not say what acts cost: what is compared with those
that do starts from the same base.

Run: python scripts/make_seeker.py (3.4 minutes on 2 cores)
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from make_base import byte_level, imitate, untrained, whole
from transformers import PreTrainedTokenizerFast

from memorist.agents.components.household_prompts import WORTH, choices, compact, worth
from memorist.agents.search_heuristics import AskThenSweep, MemoryOnly
from memorist.decision import Observation
from memorist.models.causal import CausalPolicy
from memorist.models.rows import Unit
from memorist.tasks.household.belief import QUESTIONS, told
from memorist.tasks.household.episode import Episode, episode
from memorist.tasks.household.scene import CATEGORIES, NAMES, VALUES
from memorist.tasks.household.searching import SPLITS, drawn_prices
from memorist.tasks.household.world import Household

VOCABULARY = 640
ERROR = 0.15
SILENT = 1 / 3
BY_MEMORY = dict(zip(WORTH, (0.7, 0.6, 0.5, 0.4, 0.3), strict=True))
"""How often an act is `MemoryOnly`'s, by what finding is worth."""
ASKED = dict(zip(WORTH, (1, 2, 2, 3, 3), strict=True))
"""Attributes that `AskThenSweep` asks for, by what finding is worth."""
LETTERS = "abcdefghijklmnop"
WORDS = (*CATEGORIES, *NAMES, *(value for values in VALUES.values() for value in values), *QUESTIONS, "memory", "go", "stop", "seen", "there",
         "h", "?", "worth")  # fmt: skip
PIECES = ["Find:", "Known:", "Act:", "\n", *(f" = {letter}" for letter in LETTERS), *(f" {word}" for word in WORDS),
          *(f" {i / 20:.2f}" for i in range(20)), *(f" {i / 2:g}" for i in range(2, 20)), *(f" {i}" for i in range(10, 61)), " 100", " 200"]  # fmt: skip


def search(number: int) -> Episode:
    """One that the base is made on."""
    rng = random.Random(f"seeker/{number}")
    found = episode(SPLITS["base"] + number, rng.randint(1, 4))
    return found if rng.random() < 0.4 else replace(found, prices=drawn_prices(number))


def examples(number: int) -> Iterator[tuple[Observation, str]]:
    """What a searcher that errs does in one search."""
    rng = random.Random(f"imitated/{number}")
    house = Household(search(number))
    told_worth = worth(house.search.prices)
    remembering, asking = MemoryOnly(), AskThenSweep(tuple(VALUES)[: ASKED[told_worth]])
    costs = rng.random() >= SILENT
    while not house.over:
        asking.known = told(house).known
        asking.questions = [name for name in asking.questions if name not in told(house).asked]
        searcher = remembering if rng.random() < BY_MEMORY[told_worth] else asking
        offered = choices(house, costs)
        act = searcher.next(house)
        if rng.random() < ERROR:
            act = rng.choice(offered).act
        place = next((i for i, one in enumerate(offered) if one.act == act), None)
        if place is not None:
            yield Observation(compact(house, offered, costs), max_tokens=8), LETTERS[place]
        house.act(act)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("src/memorist/models/bundled-seeker"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--searches", type=int, default=10, help="of a step")
    args = parser.parse_args()
    torch.manual_seed(0)
    seen = (prompt.prompt for i in range(200) for prompt, _ in islice(examples(10**6 + i), 3))
    tok: PreTrainedTokenizerFast = byte_level(VOCABULARY, list(dict.fromkeys(PIECES)), seen)
    policy = CausalPolicy(untrained(tok, args.width, args.layers, 0, VOCABULARY), tok, "bundled-seeker")
    print(f"{sum(p.numel() for p in policy.parameters()):,} parameters", flush=True)

    def units(step: int, done: float) -> list[Unit]:
        pairs = [one for i in range(args.searches) for one in examples(step * args.searches + i)]
        actions = [policy.encode(*pair) for pair in pairs]
        return [Unit(whole(a) if done < 0.1 else a, 1.0, 1.0) for a in actions]

    imitate(policy, args.steps, args.lr, units, args.out)


if __name__ == "__main__":
    main()
