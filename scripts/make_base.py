"""Make the bundled base from scratch: a tiny Llama that imitates two named heuristics on the base split.

The Manager role imitates `SimilarityManager` with 20 % random kinds; the Answer Agent imitates a most-similar-memory
reader with 20 % errors. Nothing of the train, validation or test splits is seen. Run: python scripts/make_base.py
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from memorist.agents.components.prompts import Compact
from memorist.agents.heuristics import SimilarityManager, answer_json
from memorist.conversation import Message
from memorist.memory.record import Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.models.causal import CausalPolicy
from memorist.models.rows import Unit, pack
from memorist.tasks.locomo import load_json
from memorist.tasks.world import _Writer

ERROR = 0.2
PIECES = ['[{"event":"ADD","text":"', '[{"event":"UPDATE","id":"', '","text":"', '"}]', '[{"event":"DELETE","id":"',
          '[{"event":"NONE"}]', '{"memories":["', '{"memories":[],"answer":"', '"],"answer":"', '","', '"}']  # fmt: skip


def dialogue(index: int) -> tuple[dict[str, Any], list[str]]:
    """A base-split dialogue (grammar "a") and the values that it uses, longest first."""
    writer = _Writer("base", 0, index, random.Random(index).choice(["easy", "easy", "medium"]), "a")
    sample = writer.sample()
    return sample, sorted(writer.words._used, key=len, reverse=True)


def manager_view(records: list[Any], rng: random.Random) -> list[Any]:
    """Usually the five nearest; sometimes fewer, so that short lists are known too."""
    return records[: rng.choice([5, 5, 5, 4, 3])]


def examples(index: int) -> list[tuple[Any, str]]:
    """(observation, imitated reply) pairs of one dialogue, from a bank run by the erring heuristic."""
    rng = random.Random(f"base-{index}")
    sample, values = dialogue(index)
    compact = Compact()
    data = load_json([sample], "base")[0]
    bank = ScratchBank()
    manager = SimilarityManager(rng.uniform(0.9, 1.0), rng.uniform(0.5, 0.75), error=ERROR, embedder=bank.embedder)
    pairs: list[tuple[Any, str]] = []
    messages = [m for m in data.conversation.messages() if m.statements]
    for message in messages:
        _turn(message, bank, manager, compact, rng, pairs)
    scopes = [Scope(name) for name in data.conversation.speakers]
    for question in data.questions:
        hits = sorted(
            (h for s in scopes for h in bank.search(question.text, s, k=rng.choice([2, 3, 4, 6]))),
            key=lambda h: -h.score,
        )
        records = [h.record for h in hits]
        if records:
            reply = _read(records, [h.score for h in hits], values, rng)
            pairs.append((compact.answer(question.text, records), reply))
    return pairs


def _turn(
    message: Message,
    bank: ScratchBank,
    manager: SimilarityManager,
    compact: Compact,
    rng: random.Random,
    pairs: list[Any],
) -> None:
    scope = Scope(message.speaker)
    for fact in message.statements:
        related = manager_view([h.record for h in bank.search(fact, scope, k=5)], rng)
        reply = manager._decide([r.text for r in related], fact, rng.getrandbits(32))
        pairs.append((compact.manage(related, [fact]), reply))
        item = json.loads(reply)[0]
        target = related[int(item["id"])].id if "id" in item else None
        kind = "NOOP" if item["event"] == "NONE" else item["event"]
        assert message.time is not None
        bank.apply([Operation(kind, item.get("text", ""), target)], scope, at=message.time, source=[message.id])


def _value(text: str, values: list[str]) -> str:
    return next((v for v in values if re.search(rf"\b{re.escape(v)}\b", text)), "none")


def _read(records: list[Any], scores: list[float], values: list[str], rng: random.Random) -> str:
    """The most similar memory's value, "none" if nothing is similar; with errors that open other ways of answering."""
    first = _value(records[0].text, values)
    if rng.random() < ERROR:
        other = min(rng.choices(range(4), [6, 2, 1, 1])[0], len(records) - 1)
        way = rng.choices(["date", "other", "none", "both", "likely"], [6, 5, 4, 3, 2])[0]
        if way == "date":
            picked = records[other]
            return answer_json([other], f"{picked.updated.day} {picked.updated:%B %Y}")
        if way == "other":
            return answer_json([other], _value(records[other].text, values))
        if way == "none":
            return answer_json([], "none")
        if way == "both" and len(records) > 1:
            a, b = rng.sample(range(min(3, len(records))), 2)
            return answer_json([a, b], f"{_value(records[a].text, values)}, {_value(records[b].text, values)}")
        return answer_json([0], rng.choice(["likely yes", "likely no"]))
    if scores[0] < 0.4:
        return answer_json([], "none")
    return answer_json([0], first)


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of base-split text; JSON pieces of the compact replies are single tokens."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(PIECES), special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tok.train_from_iterator((o.prompt for i in range(300) for o, _ in examples(1_000_000 + i)), trainer)
    tok.add_tokens([AddedToken(piece, normalized=False) for piece in PIECES])
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, pad_token="<|pad|>", eos_token="<|end|>", clean_up_tokenization_spaces=False
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("src/memorist/models/bundled"))
    parser.add_argument("--init", help="go on from this folder instead of random weights")
    parser.add_argument("--skip", type=int, default=0, help="dialogues that an earlier run has seen")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=3, help="dialogues a step")
    args = parser.parse_args()
    torch.manual_seed(0)
    tok = AutoTokenizer.from_pretrained(args.init) if args.init else tokenizer(1024)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=args.width, intermediate_size=3 * args.width, num_hidden_layers=args.layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, pad_token_id=tok.pad_token_id,
        eos_token_id=tok.eos_token_id, bos_token_id=None, initializer_range=0.05, attn_implementation="eager",
    )  # fmt: skip
    policy = CausalPolicy.load(args.init) if args.init else CausalPolicy(LlamaForCausalLM(config), tok, "bundled")
    print(f"{sum(p.numel() for p in policy.parameters()):,} parameters", flush=True)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    began, index = time.time(), args.skip
    for step in range(args.steps):
        done = step / args.steps
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1.0, (step + 1) / 200) * (1 - done) ** 0.5
        pairs = [p for i in range(index, index + args.batch) for p in examples(i)]
        index += args.batch
        rng = random.Random(step)
        answers = [p for p in pairs if "Question:" in p[0].prompt]
        managed = [p for p in pairs if "New:" in p[0].prompt]
        # Few of the long answer prompts, most of the short ones: both roles get about as many tokens.
        chosen = rng.sample(managed, min(48, len(managed))) + rng.sample(answers, min(24, len(answers)))
        actions = [policy.encode(o, reply) for o, reply in chosen]
        if (
            step < args.steps // 4 or step % 5 == 0
        ):  # First the language itself: every token of prompt and reply is predicted.
            actions = [
                replace(
                    a,
                    prompt=a.prompt[:1],
                    tokens=a.prompt[1:] + a.tokens,
                    logprobs=(0.0,) * (len(a.prompt) + len(a.tokens) - 1),
                )
                for a in actions
            ]
        units = [Unit(action, 1.0, 1.0) for action in actions]
        loss_sum, tokens = 0.0, sum(len(u.action.tokens) for u in units)
        for batch in pack(units, budget=12_000, share=False):
            logp = policy.score(batch)
            loss = -logp.sum() / tokens
            loss.backward()
            loss_sum += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(
                f"step {step} loss {loss_sum:.4f} tokens {tokens} minutes {(time.time() - began) / 60:.1f}", flush=True
            )
        if step % 200 == 199:
            policy.save(args.out)
    policy.save(args.out)


if __name__ == "__main__":
    main()
