"""Make the base of the analyst from scratch, in one seeded run: a tiny Llama that imitates experts who answer questions about tables in a
notebook (`tasks.notebook.experts`), and who err and slip at fixed rates. Tables and questions are of the base split; what cells print is
what they printed in the sandbox.

Run: python scripts/make_analyst.py (episodes are kept in runs/analyst; eight minutes for them, half an hour for the model, on one core)
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from make_base import byte_level, imitate, ramp, untrained, whole
from transformers import PreTrainedTokenizerFast

from memorist.agents.datarus import DatarusSettings
from memorist.agents.datarus_pairs import episode
from memorist.decision import Observation
from memorist.models.causal import CausalPolicy
from memorist.models.rows import Unit
from memorist.tasks.notebook.episodes import ASKED, NotebookData, task
from memorist.tasks.notebook.experts import Expert, Move, written
from memorist.tasks.notebook.skills import BY_HAND as BY_HAND_SKILLS
from memorist.tasks.notebook.steps import TAGS, render_observation
from memorist.tasks.notebook.tables import DOMAINS
from memorist.training.reward_model import in_one_window

VOCABULARY = 1024
ROOM = 1200
ERRS, LEAVES, SLIPS, DOUBTS = 0.25, 0.5, 0.3, 0.5
BY_HAND = 0.4
WORDS = [*(name for domain in DOMAINS for name in domain.names), *(["positive", "negative"] * 4)]
LESSONS = 48
AGENT = DatarusSettings(style="compact", reply=160)
AT_ONCE = 32
Messages = list[tuple[Observation, str]]
PIECES = [*(f"<{tag}>" for tag in TAGS), *(f"</{tag}>" for tag in TAGS), "Table:", "File:", "Question:", "Agentic:", "python_executor",
          *(domain.file for domain in DOMAINS)]  # fmt: skip


def episodes(file: Path, count: int) -> list[Messages]:
    """What experts do with questions of the base split; read from a file, and played where it has too few."""
    file = file.with_name(f"{file.stem}-{made_by()}{file.suffix}")
    whole_lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []  # without a torn one
    found = [read(line) for line in whole_lines]
    file.parent.mkdir(parents=True, exist_ok=True)

    tasks = NotebookData(split="base", questions=count, by_hand=BY_HAND, modes=ASKED).tasks(0)

    async def some(numbers: Sequence[int]) -> list[Messages]:
        async def one(number: int) -> Messages:
            asked = tasks[number]
            return list(
                (
                    await episode(asked, Expert(asked, errs=ERRS, leaves=LEAVES, slips=SLIPS, doubts=DOUBTS), AGENT)
                ).messages
            )

        return list(await asyncio.gather(*(one(number) for number in numbers)))

    file.write_text("".join(f"{line}\n" for line in whole_lines), encoding="utf-8")
    while len(found) < count:
        more = asyncio.run(some(range(len(found), min(count, len(found) + AT_ONCE))))
        with open(file, "a", encoding="utf-8") as out:
            out.writelines(json.dumps([(o.prompt, o.max_tokens, text) for o, text in one]) + "\n" for one in more)
        found += more
        print(f"{len(found)} episodes", end="\r", flush=True)
    return found[:count]


def made_by() -> str:
    """Changes with what plays the episodes."""
    root = Path(str(resources.files("memorist")))
    sources = [*sorted((root / "tasks" / "notebook").glob("*.py")), root / "agents" / "datarus.py"]
    made = f"{ERRS} {LEAVES} {SLIPS} {DOUBTS} {BY_HAND} {AGENT}".encode() + b"".join(
        source.read_bytes() for source in sources
    )
    return hashlib.sha256(made).hexdigest()[:12]


def read(line: str) -> Messages:
    """Messages of an episode. Each observation is what is new: `in_one_window` puts them one after the other."""
    return [(Observation(prompt, max_tokens=tokens), text) for prompt, tokens, text in json.loads(line)]


def tokenizer(size: int, known: Sequence[Messages]) -> PreTrainedTokenizerFast:
    """Of what is asked, seen and written in some episodes."""
    parts = (part for one in known for seen, text in one for part in (seen.prompt, text))
    return byte_level(size, PIECES, parts, digits=True)


def lessons(rng: random.Random, many: int) -> list[Messages]:
    """Short ones, by which copying is learnt: what was printed is the answer, and small tables by hand. From episodes alone the
    same model had not learnt to copy a number in 1,000 steps."""
    found = []
    for _ in range(many):
        if rng.random() < 0.6:
            kind = rng.random()
            value = (
                f"{rng.uniform(-1, 1) * 10 ** rng.randint(0, 6):.{rng.randint(1, 4)}f}" if kind < 0.5
                else str(rng.randint(0, 10 ** rng.randint(1, 5))) if kind < 0.7
                else rng.choice(WORDS)
            )  # fmt: skip
            seen = Observation(f"{render_observation(value)}\n</step>")
            found.append([(seen, written(Move("The result is there.", answer=value)))])
        else:
            number = rng.randrange(10_000_000)
            asked = task("base", number, rng.choice(BY_HAND_SKILLS), small=True, mode="reflection")
            expert = Expert(asked, errs=ERRS, doubts=DOUBTS, seed=1)
            prompt = AGENT.build(bank=asked.bank, analyst=None).asked(asked)  # type: ignore[arg-type]
            found.append([(prompt, written(expert.next([])))])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("src/memorist/models/bundled-analyst"))
    parser.add_argument("--episodes", type=int, default=8000)
    parser.add_argument("--kept", type=Path, default=Path("runs/analyst/episodes.jsonl"))
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--a-step", type=int, default=10, help="episodes of a step")
    args = parser.parse_args()
    torch.manual_seed(0)
    known = episodes(args.kept, args.episodes)
    tok = tokenizer(VOCABULARY, known[:1000])
    policy = CausalPolicy(untrained(tok, args.width, args.layers, 0, VOCABULARY), tok, "bundled-analyst")
    print(f"{sum(p.numel() for p in policy.parameters()):,} parameters", flush=True)
    order = random.Random(0)

    def units(step: int, done: float) -> list[Unit]:
        # Lessons go as what they teach is learnt; episodes come as they go.
        left = 1 - ramp(done, 0.4, 0.7)
        some = order.choices(known, k=max(2, round(args.a_step * (1 - 0.7 * left)))) + lessons(
            order, round(LESSONS * left)
        )
        actions = [action for one in some for action in in_one_window(policy, one)]
        return [Unit(whole(a) if done < 0.05 else a, 1.0, 1.0) for a in actions]

    imitate(policy, args.steps, args.lr, units, args.out, room=ROOM, share=True)
    policy.model.to(torch.bfloat16)  # what is shipped; it computes in float32
    policy.save(args.out)


if __name__ == "__main__":
    main()
