"""Make the base of PersonaTree's listener from scratch, in one seeded run: a tiny Llama that imitates `RuleListener`.

In half of its replies the rules do something else (`error`): any part of what was said goes into a leaf that is near, or a
clause is taken out, so that every way of editing has some probability. What is told comes of invented lives; in most of them all
values are invented too, so that the base copies what it has never seen. Every leaf's path is one token, so a tiny model
writes none that is not there.

Run: python scripts/make_listener.py (about an hour on 2 cores)
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import torch
from make_base import COMMON, byte_level, imitate, ramp, untrained, whole
from transformers import PreTrainedTokenizerFast

from memorist.agents.components.profile_prompts import EDITS, KNOWN, NEW
from memorist.agents.profile_heuristics import RuleListener
from memorist.decision import Distribution, Observation
from memorist.memory.minilm import MiniLM
from memorist.memory.profile_edits import Edit, read_edits
from memorist.memory.profile_schema import persona_schema
from memorist.models.causal import CausalPolicy
from memorist.models.rows import Unit
from memorist.models.sampler import Request
from memorist.tasks.lives import Life
from memorist.tasks.phrasing import ENDINGS, ONSETS, VOWELS
from memorist.tasks.profile_rewards import alike
from memorist.tasks.profiles import Heard, heard, history

VOCABULARY = 2048
ERROR = 0.5
STRANGE = 0.7
"""Share of lives whose values are invented."""
PIECES = [KNOWN, NEW, EDITS, "ADD(", "UPDATE(", "DELETE(", ', "', '")', ", None)", "NO_OP()", "planned: "]
_KEPT = frozenset("a an the of to in on at for with and my by no not is".split())


def word(rng: random.Random) -> str:
    """One that is not in any list."""
    return rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(("", rng.choice(ONSETS) + rng.choice(VOWELS))) + rng.choice(ENDINGS)  # fmt: skip


def invented(text: str, rng: random.Random) -> str:
    """A text of the same form, of other words and numbers."""

    def other(match: re.Match[str]) -> str:
        old = match[0]
        if old.lower() in _KEPT:
            return old
        if old.isdigit():
            return "".join(rng.choice("0123456789") for _ in old)
        new = rng.choice(COMMON) if rng.random() < 0.3 else word(rng)
        return new.title() if old[0].isupper() else new

    return re.sub(r"[^\W_]+", other, text)


def life(name: str) -> list[Heard]:
    """One that the base is made on."""
    rng = random.Random(f"listener/{name}")
    made = Life(rng, split="train", voice="first", rough=0.3, subjects_=rng.randint(3, 8))
    if rng.random() < STRANGE:
        made.subjects = [
            replace(s, values=tuple(dict.fromkeys(invented(v, rng) for v in s.values)),
                    details=tuple(dict.fromkeys(invented(d, rng) for d in s.details)) if rng.random() < 0.5 else s.details)
            for s in made.subjects
        ]  # fmt: skip
    return heard(made, name, rng.randint(10, 30))


def prompts(name: str) -> Iterator[tuple[Observation, Heard, dict[str, str]]]:
    """What is asked after each message, with what is right and what was known."""
    known: dict[str, str] = {}
    for one in life(name):
        yield asked(known, one.message.text), one, known
        known = dict(one.tree)


def asked(known: dict[str, str], said: str) -> Observation:
    """A compact prompt of `PersonaTree`."""
    lines = "".join(f"{path}: {text}\n" for path, text in known.items())
    return Observation(f"{KNOWN}{lines}{NEW}{' '.join(said.split())}\n{EDITS}", max_tokens=96)


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Of lives and invented words; paths and what replies are made of are single tokens."""
    rng = random.Random(0)
    told = (one.message.text for i in range(1500) for one in life(f"tokenizer-{i}"))
    held = (f" {text}" for i in range(200) for one in life(f"tokenizer-{i}")[-1:] for text in one.tree.values())
    lists = (" ".join(["", *(word(rng) for _ in range(20))]) for _ in range(600))
    return byte_level(size, [*PIECES, *persona_schema().leaves], chain(told, held, lists))


def as_copied(reply: str) -> str:
    """With a blank before each value, so that its tokens are those of the same words in a message: copying is the identity."""
    return re.sub(r', "(planned: )?(?=\S)', lambda match: f"{match[0]} ", reply)


def step_units(policy: CausalPolicy, listener: RuleListener, step: int, done: float, budget: int) -> list[Unit]:
    """A step's examples."""
    rng = random.Random(step)
    listener.error = 0.2 + (ERROR - 0.2) * ramp(done, 0.3, 0.5) if step < 10**6 else ERROR
    language = step < 300 or step % 8 == 0
    units: list[Unit] = []
    left, number = budget, 0
    while left > 0:
        seen = [one[0] for one in prompts(f"{step}-{number}")]
        number += 1
        replies = listener.sample([Request(one, Distribution(), rng.getrandbits(32)) for one in seen])
        for one, reply in zip(seen, replies, strict=True):
            if reply.text == str(Edit("NO_OP")) and rng.random() < 0.4:
                continue  # it is most of what is right, and soon learnt
            action = policy.encode(one, as_copied(reply.text))
            left -= len(action.prompt) + len(action.tokens)
            units.append(Unit(whole(action) if language else action, 1.0, 1.0))
    return units


def watch(policy: CausalPolicy) -> None:
    """Its state reward on unseen values, greedy and drawn, and how much of what it writes was said."""
    told = [history(f"w{i}", 24, split="validation") for i in range(8)]
    for temperature in (0.0, 1.0):
        worth, written, copied, bad, lines = [], 0, 0, 0, 0
        seen = [(asked(dict(a.tree), b.message.text), dict(a.tree), b) for one in told for a, b in pairwise(one)]
        found = policy.sample(
            [Request(o, Distribution(temperature=temperature), i) for i, (o, _, _) in enumerate(seen)]
        )
        for action, (_, known, one) in zip(found, seen, strict=True):
            read = read_edits(action.text)
            bad, lines = bad + len(read.bad), lines + read.lines
            own = known.copy()
            for edit in read.found:
                if edit.kind == "DELETE":
                    own.pop(edit.path, None)
                elif edit.kind != "NO_OP":
                    own[edit.path] = edit.value
                    written += 1
                    copied += all(
                        part in f"{one.message.text} {known.get(edit.path, '')} planned:"
                        for part in edit.value.split("; ")
                    )
            worth.append(alike(known, one.tree, own))
        print(
            f"  at {temperature:g}: state {sum(worth) / len(worth):.3f}, {copied} of {written} copied, {bad} of {lines} lines bad",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("src/memorist/models/bundled-listener"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--go-on", type=Path, help="from what this folder holds")
    parser.add_argument("--budget", type=int, default=4000, help="tokens a step")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.go_on:
        policy = CausalPolicy.load(args.go_on, "bundled-listener")
    else:
        tok = tokenizer(VOCABULARY)
        policy = CausalPolicy(untrained(tok, args.width, args.layers, 0, VOCABULARY), tok, "bundled-listener")
    print(f"{sum(p.numel() for p in policy.parameters()):,} parameters", flush=True)
    listener = RuleListener(error=ERROR, embedder=MiniLM())
    imitate(
        policy, args.steps, args.lr, lambda step, done: step_units(policy, listener, step + 10**6 * bool(args.go_on), done, args.budget), args.out,
        lambda step: watch(policy),
    )  # fmt: skip


if __name__ == "__main__":
    main()
