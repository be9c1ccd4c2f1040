"""Make the base of the viewer from scratch, in one seeded run: a tiny Qwen2-VL that learns to see from many pictures from above (what is
where, first by layers that see alone, then in words) and imitates annotations of few (what is seen, then the answer), as annotations are
few. Both are of the base split; pictures with an answer alone, of which there are many, are what reinforcement learns from.

Run: python scripts/make_viewer.py (twenty minutes on a core that others used too)
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from make_base import byte_level, imitate, ramp
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from memorist.agents.components.fields import fields
from memorist.agents.uav import UavSettings
from memorist.decision import Observation
from memorist.models.rows import Unit
from memorist.models.vision import VisionPolicy
from memorist.tasks.aerial.data import AerialData, AerialTask
from memorist.tasks.aerial.questions import CELLS, EIGHT, cell
from memorist.tasks.aerial.rules import TAGS
from memorist.tasks.aerial.scene import COLOURS, KINDS, SHAPES, SIDE, Scene, Thing
from memorist.training.rollout import Seat, play

AGENT = UavSettings(style="compact", reply=40)
SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
PATCH, MERGE = 4, 2
VOCABULARY = 448
NAMES = (*EIGHT, "location")
LESSONS, LAST = 0.8, 0.35
"""Share of the lessons at first and in the end."""


def tokenizer(tasks: list[AerialTask]) -> PreTrainedTokenizerFast:
    """Of what is asked and answered."""
    agent = AGENT.build(bank=None, viewer=None)
    rng = random.Random(0)
    shown = ((agent.asked(one).prompt, one.annotation, *lesson(one, rng)) for one in tasks)
    texts = (part if isinstance(part, str) else part.prompt for parts in shown for part in parts)
    return byte_level(VOCABULARY, [*SPECIAL, *TAGS], texts, digits=True)


def untrained(tok: PreTrainedTokenizerFast, width: int, layers: int, depth: int, largest: int) -> VisionPolicy:
    """A tiny Qwen2-VL: four by four pixels are a patch, two by two patches a token."""
    begin, close, image, video = tok.convert_tokens_to_ids(SPECIAL)
    half = width // 4 // 2  # of a head's width, which time and both directions share
    moments = half // 4
    rows = (half - moments) // 2
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tok), "hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers,
            "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 1024, "initializer_range": 0.05,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10.0,
                                "mrope_section": [moments, rows, half - moments - rows]},
            "bos_token_id": None, "eos_token_id": tok.eos_token_id, "pad_token_id": tok.pad_token_id,
        },
        vision_config={
            "depth": depth, "embed_dim": width, "hidden_size": width, "mlp_ratio": 2, "num_heads": 4, "patch_size": PATCH,
            "spatial_merge_size": MERGE, "temporal_patch_size": 1, "initializer_range": 0.05,
        },
        image_token_id=image, video_token_id=video, vision_start_token_id=begin, vision_end_token_id=close,
        tie_word_embeddings=True, attn_implementation="eager",
    )  # fmt: skip
    processor = Qwen2VLImageProcessorPil(
        min_pixels=(PATCH * MERGE) ** 2, max_pixels=largest, patch_size=PATCH, merge_size=MERGE, temporal_patch_size=1
    )
    # Positions run from 0 to a hundred or so; with rates for long texts, columns of a picture would not be told apart.
    return VisionPolicy(Qwen2VLForConditionalGeneration(config), tok, processor, "bundled-viewer")


def listed(scene: Scene, *kinds: str) -> str:
    """Things of some kinds, each with where it is, from top to bottom and left to right; all, with what they look like,
    where no kind is named; "none" for none."""
    things = [thing for thing in scene.things if not kinds or thing.kind in kinds]
    told = sorted(things, key=lambda thing: (CELLS.index(cell(thing)), thing.box))
    return ", ".join(described(thing, not kinds) for thing in told) or "none"


def described(thing: Thing, looks: bool) -> str:
    seen = ("marked" * thing.marked, thing.colour, thing.shape) if looks else ()
    return " ".join(filter(None, (cell(thing), *seen, thing.kind)))


def lesson(task: AerialTask, rng: random.Random) -> tuple[Observation, str]:
    """All things, or those of one or two kinds, each with where it is. From questions and answers alone the same model had learnt the
    ground and little else in 500 steps."""
    kinds = rng.sample(KINDS, rng.choice((0, 1, 1, 2)))
    question = f"List every {' and '.join(kinds)}." if kinds else "List all."
    return Observation(fields("answer", question=question), max_tokens=200, pictures=task.pictures), listed(
        task.question.scene, *kinds
    )


class Seen(torch.nn.Module):
    """Says of each of a picture's tokens what is there: kind, colour, shape, whether it is marked, and whether its middle is there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, len(names) + 1) for names in LABELS)

    def loss(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of features, shape (N, width), and labels, shape (N, heads)."""
        return sum(torch.nn.functional.cross_entropy(head(features), labels[:, i]) for i, head in enumerate(self.heads))  # type: ignore[return-value]


PLACES = SIDE // (PATCH * MERGE)
LABELS = (KINDS, (*COLOURS, "green"), SHAPES, ("marked",), ("middle",), range(1, PLACES), range(1, PLACES))


def labels(task: AerialTask, down: int, across: int) -> torch.Tensor:
    """What is at each token, 0 for nothing; shape (down * across, heads)."""
    found = torch.zeros((down, across, len(LABELS)), dtype=torch.long)
    share = torch.zeros((down, across))
    high, wide = SIDE / down, SIDE / across
    for thing in task.question.scene.things:
        left, top, right, bottom = thing.box
        words = (thing.kind, thing.colour, thing.shape, "marked" * thing.marked)
        told = [names.index(word) + 1 if word in names else 0 for names, word in zip(LABELS, words, strict=False)]
        for row in range(int(top // high), min(down - 1, int(bottom // high)) + 1):
            for column in range(int(left // wide), min(across - 1, int(right // wide)) + 1):
                covered = (min(bottom + 1, (row + 1) * high) - max(top, row * high)) * (
                    min(right + 1, (column + 1) * wide) - max(left, column * wide)
                )
                if covered > share[row, column]:
                    share[row, column] = covered
                    found[row, column, :4] = torch.tensor(told)
        x, y = thing.middle
        found[min(down - 1, int(y // high)), min(across - 1, int(x // wide)), 4] = 1
    found[..., 5], found[..., 6] = torch.arange(down)[:, None], torch.arange(across)
    return found.flatten(0, 1)


def look(policy: VisionPolicy, tasks: list[AerialTask], steps: int, batch: int, lr: float) -> None:
    """Teach the layers that see to tell what is where, before anything is asked: as those of other models are taught before. Without
    it the same model had learnt the ground and little else in 500 steps of questions and answers."""
    seen, rng = Seen(policy.model.config.get_text_config().hidden_size), random.Random(1)
    weights = [*policy.model.parameters(), *seen.parameters()]
    begin, close = policy.tokenizer.convert_tokens_to_ids(SPECIAL[:2])
    optimizer, began = torch.optim.AdamW(weights, lr=lr, betas=(0.9, 0.98), weight_decay=0.01), time.time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 50, 1.4 * (1 - step / steps))
        some = rng.sample(tasks, batch)
        pictures = [task.pictures[0] for task in some]
        policy.see(pictures)
        patches = [policy._patches[picture.digest] for picture in pictures]
        ids = torch.tensor([[begin, *[policy.image] * PLACES**2, close]] * batch)
        hidden = policy.model.model(
            input_ids=ids, mm_token_type_ids=(ids == policy.image).int(), use_cache=False,
            pixel_values=torch.cat([pixels for pixels, _ in patches]),
            image_grid_thw=torch.cat([grid for _, grid in patches]),
        ).last_hidden_state[:, 1:-1]  # fmt: skip
        loss = seen.loss(
            hidden.flatten(0, 1), torch.cat([labels(t, *policy._grid(p)) for t, p in zip(some, pictures, strict=True)])
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 0:
            print(
                f"looking: step {step} loss {float(loss.detach()):.4f} minutes {(time.time() - began) / 60:.1f}",
                flush=True,
            )


def judged(policy: VisionPolicy, questions: int) -> dict[str, float]:
    """Share of right answers by task, greedily, on the validation split."""
    tasks = AerialData(split="validation", questions=questions, names=NAMES).tasks(0)
    sums: dict[str, list[float]] = {}
    for (run,) in play(AGENT.build, tasks, {"viewer": Seat(policy)}):
        for name, value in run.trajectory.facts["measures"].items():
            sums.setdefault(name, []).append(value)
    return {name: round(sum(values) / len(values), 3) for name, values in sums.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("src/memorist/models/bundled-viewer"))
    parser.add_argument("--pictures", type=int, default=16_000, help="scenes of which it is known what is where")
    parser.add_argument("--annotated", type=int, default=900, help="the first of these: scenes that have an annotation")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--looks", type=int, default=800, help="steps in which seeing is learnt alone")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--depth", type=int, default=2, help="layers that see")
    args = parser.parse_args()
    torch.manual_seed(0)
    tasks = AerialData(split="base", questions=args.pictures, names=NAMES).tasks(0)
    tok = tokenizer(tasks[:1000])
    policy = untrained(tok, args.width, args.layers, args.depth, 10**6)
    print(f"{sum(p.numel() for p in policy.parameters()):,} parameters, {len(tok)} tokens", flush=True)
    look(policy, tasks, args.looks, args.batch, args.lr)
    agent, order = AGENT.build(bank=None, viewer=None), random.Random(0)

    def unit(taught: bool) -> Unit:
        task = tasks[order.randrange(len(tasks) if taught else args.annotated)]
        return Unit(policy.encode(*(lesson(task, order) if taught else (agent.asked(task), task.annotation))), 1.0, 1.0)

    def units(step: int, done: float) -> list[Unit]:
        # Lessons become fewer as what they teach is learnt.
        share = LESSONS - (LESSONS - LAST) * ramp(done, 0.5, 0.9)
        return [unit(order.random() < share) for _ in range(args.batch)]

    imitate(
        policy, args.steps, args.lr, units, args.out, lambda step: print(judged(policy, 450), flush=True), room=6_000
    )
    policy.model.to(torch.bfloat16)  # what is shipped; it computes in float32
    policy.save(args.out)


if __name__ == "__main__":
    main()
