"""Make the base of PersonaTree's listener from scratch, in one seeded run: a tiny Llama that imitates `RuleListener`.

In half of its replies the rules do something else (`error`): any part of what was said goes into a leaf that is near, or a
clause is taken out, so that every way of editing has some probability. What is told comes of invented lives; in most of them all
values are invented too, so that the base copies what it has never seen. Every leaf's path is one token, so a tiny model
writes none that is not there.

What it imitates is written to a folder first, and read from there: finding leaves takes longer than learning.
Run: python scripts/make_listener.py (lessons: about 25 minutes on 2 cores; learning: 7 minutes on an H100. On CPUs alone it has not been run whole)
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain, pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from make_base import COMMON, byte_level, imitate, ramp, untrained, whole
from transformers import PreTrainedTokenizerFast

from memorist.agents.components.profile_prompts import EDITS, KNOWN, NEW
from memorist.agents.profile_heuristics import RuleListener
from memorist.decision import Action, Distribution, Observation
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
LESSON = 4000
"""Tokens that are written at once, about a life or two."""
FILE = 150
"""Lessons in a file."""
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
    return heard(made, name, rng.randint(10, 60))


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


Example = tuple[tuple[int, ...], tuple[int, ...]]
"""Tokens of a prompt and of its reply."""


def lesson(policy: CausalPolicy, listener: RuleListener, number: int, done: float) -> list[Example]:
    """Some LESSON tokens of examples; the rules err more the more is done."""
    rng = random.Random(number)
    listener.error = 0.2 + (ERROR - 0.2) * ramp(done, 0.3, 0.5)
    found: list[Example] = []
    left, lives = LESSON, 0
    while left > 0:
        seen = [one[0] for one in prompts(f"{number}-{lives}") if rng.random() < 0.4]
        lives += 1
        replies = listener.sample([Request(one, Distribution(), rng.getrandbits(32)) for one in seen])
        for one, reply in zip(seen, replies, strict=True):
            if reply.text == str(Edit("NO_OP")) and rng.random() < 0.4:
                continue  # it is most of what is right, and soon learnt
            action = policy.encode(one, as_copied(reply.text))
            left -= len(action.prompt) + len(action.tokens)
            found.append((action.prompt, action.tokens))
    return found


def write_lessons(file: Path, numbers: Sequence[int], lessons: int) -> None:
    """Write those with these numbers, of so many in all, unless they are there."""
    if file.exists():
        return
    policy = untaught(PreTrainedTokenizerFast.from_pretrained(file.parent), 16, 1)
    listener = RuleListener(error=ERROR, embedder=MiniLM())
    made = [lesson(policy, listener, number, number / lessons) for number in numbers]
    flat = [ids for one in made for pair in one for ids in pair]
    half = file.with_suffix(".half.npz")
    np.savez_compressed(
        half, tokens=np.concatenate(flat).astype(np.uint16), lengths=np.array([len(ids) for ids in flat], np.uint16),
        examples=np.array([len(one) for one in made], np.uint16),
    )  # fmt: skip
    half.rename(file)
    print(f"{file.name} written", flush=True)


def read_lessons(folder: Path) -> list[list[Example]]:
    """All that were written."""
    found: list[list[Example]] = []
    for file in sorted(folder.glob("lessons-?????.npz")):
        with np.load(file) as kept:
            tokens, ends = kept["tokens"].tolist(), np.cumsum(kept["lengths"]).tolist()
            places = iter(pairwise([0, *ends]))
            for count in kept["examples"].tolist():
                pairs = [(next(places), next(places)) for _ in range(count)]
                found.append([(tuple(tokens[a:b]), tuple(tokens[c:d])) for (a, b), (c, d) in pairs])
    return found


def units(lessons: Sequence[list[Example]], step: int, done: float) -> list[Unit]:
    """A step's examples, of so many lessons; at first, and now and then, the language itself is learnt."""
    language = done < 0.07 or step % 8 == 0
    actions = [
        Action("", prompt, tokens, (0.0,) * len(tokens)) for one in lessons for prompt, tokens in one
    ]  # fmt: skip
    return [Unit(whole(action) if language else action, 1.0, 1.0) for action in actions]


def untaught(tok: PreTrainedTokenizerFast, width: int, layers: int) -> CausalPolicy:
    return CausalPolicy(untrained(tok, width, layers, 0, VOCABULARY), tok, "bundled-listener")


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("src/memorist/models/bundled-listener"))
    parser.add_argument("--examples", type=Path, default=Path("runs/listener/examples"))
    parser.add_argument("--lessons", type=int, default=9000, help=f"of {LESSON} tokens")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--a-step", type=int, default=4, help="lessons a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--only", choices=("write", "learn"))
    args = parser.parse_args()
    if args.only != "learn":
        write(args.examples, args.lessons, args.processes)
    if args.only == "write":
        return
    torch.manual_seed(0)
    policy = untaught(PreTrainedTokenizerFast.from_pretrained(args.examples), args.width, args.layers)
    print(f"{sum(p.numel() for p in policy.parameters()):,} parameters", flush=True)
    if torch.cuda.is_available():
        policy.model.to("cuda").set_attn_implementation("sdpa")
    found = read_lessons(args.examples)
    steps = len(found) // args.a_step
    imitate(
        policy, steps, args.lr, lambda step, done: units(found[step * args.a_step :][: args.a_step], step, done), args.out,
        lambda step: watch(policy), room=16_000 if torch.cuda.is_available() else 2_500,
    )  # fmt: skip
    policy.model.set_attn_implementation("eager")
    policy.save(args.out)


def write(folder: Path, lessons: int, processes: int) -> None:
    """Write the tokenizer and the lessons that are not there."""
    if not (folder / "tokenizer.json").exists():
        tokenizer(VOCABULARY).save_pretrained(folder)
    files = [
        (folder / f"lessons-{first:05}.npz", range(first, min(first + FILE, lessons)))
        for first in range(0, lessons, FILE)
    ]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(write_lessons, file, numbers, lessons) for file, numbers in files]:
            done.result()


if __name__ == "__main__":
    main()
