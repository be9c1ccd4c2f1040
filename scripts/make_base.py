"""Make the bundled base from scratch, in one seeded run: a tiny Llama that imitates two named heuristics.

The Manager role imitates `SimilarityManager`, the Answer Agent a reader of the most similar memory about the one who is
asked about (its value; its date where the question asks when; "none" where there is none). Both err at random at the rate
ERROR, and questions that ask for a form of their own get an answer of it, right or wrong, at the rate FITTING: so that
every way of acting has some probability. The dialogues are of the base split: most in grammar "a", others in dialects of random words,
so that the base copies what it has never seen. Nothing of the train, validation or test splits or of grammar "b" is seen.
Lists grow from one memory a speaker to five, and until near the end some replies write out the facts and memories that
they are about: copying is learnt by that. Lists are in the agent's own order, nearest first: with lists in random order the same model
learnt neither to point nor to copy in 2,600 steps.

Run: python scripts/make_base.py (half an hour to an hour on 2 cores)
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from memorist.agents.components.prompts import Compact, day
from memorist.agents.heuristics import SimilarityManager, answer_json, operation_json
from memorist.conversation import Message
from memorist.decision import Action
from memorist.memory.record import Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.models.causal import CausalPolicy
from memorist.models.rows import Unit, pack
from memorist.tasks.locomo import load_json
from memorist.tasks.phrasing import ATTRIBUTES, DETAILED, ENDINGS, GRAMMARS, ONSETS, RELATIVES, VOWELS, Frame, Grammar
from memorist.tasks.world import Vocabulary, _Writer

ERROR = 0.25
FITTING = 0.25  # share of questions about two people, or "would …", that get two people's values, or "likely …"
FORMS = {1: "both", 3: "likely"}  # by category
MOST = 5
_RELATIVE = re.compile(rf"'s ({'|'.join(RELATIVES)})\b")
VOCABULARY = 2048
DIALECTS = 0.4
NOT_SIMILAR = 0.4  # as the prompts show it: "~4" is similar, "~3" is not
UNKNOWN = 0.25  # share of questions whose answers are taken away
PLAIN = 0.5  # share of plain questions that are left out: neither "when" nor about another than the nearest memory
PIECES = ['[{"event":"ADD"}]', '[{"event":"ADD","text":"', '","text":"', '[{"event":"NONE"}]', '[{"event":"UPDATE","id":"', '[{"event":"DELETE","id":"', '"}]',
          '{"memories":["', '{"memories":[],"answer":"', '"],"answer":"', '"],"said":"', '","answer":"', '","', '"}',
          "Memories:\n", "New:\n", "Question:\n", "Operations:\n", "Answer:\n"]  # fmt: skip
COMMON = (
    "about after again all almost already also always and anyway around back before best better both but chance "
    "course day days else end enough even ever every few first for fine friend good happily here hour in indeed just "
    "kind last later less like little long lot made many maybe moment month more morning most much name never new next "
    "nice night no now of often old on once one only other over own part past perhaps place plan quite rather ready "
    "really right sadly same second since some soon still sure than that the then there these thing this though "
    "time to today together too truth two up very way week well while with word work year yes yet"
).split()


def dialect(rng: random.Random) -> Grammar:
    """A grammar of random words: what is marked by which phrase differs in every dialogue."""

    def word() -> str:
        return rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(("", "", rng.choice(ONSETS) + rng.choice(VOWELS))) + rng.choice(ENDINGS)  # fmt: skip

    def phrase(*counts: int) -> str:
        return " ".join(rng.choice(COMMON) if rng.random() < 0.8 else word() for _ in range(rng.choice(counts)))

    def joined(*parts: str) -> str:
        text = " ".join(part for part in parts if part)
        return text[0].upper() + text[1:]

    def frame(attribute: str) -> Frame:
        verb, link, tail = word(), phrase(0, 1, 1, 2), phrase(0, 0, 0, 1, 2)
        base, third, doing = (
            " ".join(p for p in (v, link, "{v}", tail) if p) for v in (verb, verb + "s", verb + "ing")
        )
        what = joined(rng.choice(("which", "what", "in which", "at what", "with which")), phrase(1, 1, 2))
        bare = " ".join(p for p in (verb, link if rng.random() < 0.5 else "", tail) if p)
        detail: tuple[str, ...] = ("", "", "")
        if attribute in DETAILED:
            about, seen = phrase(2, 3), word()
            detail = (
                f"{{S}} {about} {seen}s {{d}}.",
                f"I {about} {seen} {{d}}.",
                joined(f"what does {{S}} {about} {seen}?"),
            )
        return Frame(
            base, third, doing, f"{what} does {{S}} {bare}?", f"{what} does {{S}}'s {{r}} {bare}?",
            f"{what} does {{S}} {phrase(1)} to {bare}?", f"{what} do {{S}} and {{T}} {bare}?", phrase(2, 3), *detail,
        )  # fmt: skip

    def forms(kind: str) -> tuple[tuple[str, str], ...]:
        made = []
        for _ in range(rng.choice((1, 2, 3))):
            before, after, between = phrase(0, 0, 1, 2, 3), phrase(0, 0, 1, 2, 3), phrase(1, 2)
            subject, verb = ("{S}'s {r}", "{s}") if kind == "other" else ("{S}", rng.choice(("{s}", "{b}", "{g}")))
            body = f"{subject} {verb}" if verb == "{s}" else f"{subject} {between} {verb}"
            made.append((joined(before, body, after) + ".", joined(before, body.replace("{S}", "I"), after) + "."))
        return tuple(made)

    known = GRAMMARS["a"]
    chat = tuple((f"{{S}} {phrase(2, 3, 4)}.", f"I {phrase(2, 3, 4)}.") for _ in range(6))
    return Grammar(
        {attribute: frame(attribute) for attribute in ATTRIBUTES}, {kind: forms(kind) for kind in known.statements},
        joined(rng.choice(("when did {S}", "on what day did {S}", "since when did {S}")), phrase(0, 1), "{b}?"), chat, known.openers,
    )  # fmt: skip


def dialogue(index: int, split: str, grammar: str, dialects: float) -> tuple[dict[str, Any], list[str]]:
    """A dialogue, in the grammar or with probability `dialects` in one of its own, and its values, longest first."""
    rng = random.Random(f"dialect-{index}")
    writer = _Writer(split, 0, index, rng.choice(["easy", "easy", "medium"]), grammar)
    if rng.random() < dialects:
        writer.grammar = dialect(rng)
    sample = writer.sample()
    return sample, sorted(writer.words._used, key=len, reverse=True)


@dataclass(frozen=True)
class Setting:
    """How hard the exercises are.

    most: memories a speaker that are shown at most. error: the heuristics' rate of random acts. fitting: share of
    questions that ask for a form of their own (`FORMS`) that get an answer of it. dialects: share of
    dialogues in a dialect. echo: share of replies that write out the fact or memory that they are about. shuffled: share
    of lists in random order, to measure pointing. unknown: share of questions whose similar memories are taken away.
    """

    most: int = MOST
    error: float = 0.0
    fitting: float = 0.0
    dialects: float = 0.0
    echo: float = 0.0
    shuffled: float = 0.0
    unknown: float = UNKNOWN


def examples(index: int, setting: Setting, *, split: str = "base", grammar: str = "a") -> list[tuple[Any, str]]:
    """(observation, imitated reply) pairs of one dialogue, from a bank run by the heuristic."""
    rng = random.Random(f"base-{index}")
    sample, values = dialogue(index, split, grammar, setting.dialects)
    data = load_json([sample], "base")[0]
    bank = ScratchBank()
    same, related = rng.uniform(0.9, 1.0), rng.uniform(0.5, 0.75)
    manager = SimilarityManager(same, related, error=setting.error, embedder=bank.embedder)
    pairs: list[tuple[Any, str]] = []
    for message in data.conversation.messages():
        _turn(message, bank, manager, rng, setting, pairs)
    scopes = [Scope(name) for name in data.conversation.speakers]
    asked = [q for q in data.questions for _ in range(2 if q.category in FORMS else 1)]  # rare ones twice
    for question in asked:
        few = rng.randint((setting.most + 1) // 2, setting.most)
        # As many memories as otherwise where the answers are taken away: a shorter list would give it away.
        unknown = rng.random() < setting.unknown
        found = [bank.search(question.text, scope, k=50) for scope in scopes]
        hits = [h for theirs in found for h in [h for h in theirs if not (unknown and _answers(h, question))][:few]]
        hits.sort(key=lambda h: -h.score)
        # Dates are copied later than values, and the nearest memory is named sooner than another.
        plain = question.category in (4, 5) and (not hits or _answers(hits[0], question))
        if plain and rng.random() < PLAIN:
            continue
        if rng.random() < setting.shuffled:
            rng.shuffle(hits)
        if hits:
            reply = _read(hits, question, values, rng, setting)
            pairs.append((Compact().answer(question.text, hits), reply))
    return pairs


def _turn(
    message: Message, bank: ScratchBank, manager: SimilarityManager, rng: random.Random, setting: Setting,
    pairs: list[Any],
) -> None:  # fmt: skip
    scope = Scope(message.speaker)
    for fact in message.statements:
        hits = list(bank.search(fact, scope, k=rng.randint((setting.most + 1) // 2, setting.most)))
        if rng.random() < setting.shuffled:
            rng.shuffle(hits)
        related = [hit.record for hit in hits]
        reply = manager._decide([r.text for r in related], fact, rng.getrandbits(32))
        item = json.loads(reply)[0]
        written = fact if rng.random() < setting.echo else ""
        again = operation_json(item["event"], written, int(item["id"]) if "id" in item else None)
        pairs.append((Compact().manage(hits, [fact]), again))
        target = related[int(item["id"])].id if "id" in item else None
        kind = "NOOP" if item["event"] == "NONE" else item["event"]
        assert message.time is not None
        bank.apply([Operation(kind, fact, target)], scope, at=message.time, source=[message.id])


def _answer(numbers: list[int], answer: str) -> str:
    """The answer after a space, so that its tokens are those of the same words in a memory: copying is the identity."""
    return answer_json(numbers, f" {answer}")


def _value(text: str, values: list[str]) -> str:
    return next((v for v in values if re.search(rf"\b{re.escape(v)}\b", text)), "none")


def _relative(text: str) -> str:
    """The relative of whom a text speaks; "" if it speaks of the person."""
    found = _RELATIVE.search(text)
    return found[1] if found else ""


def _answers(hit: Any, question: Any) -> bool:
    """Whether a memory is similar to the question and about the one whom it asks about."""
    same = hit.record.scope.user in question.text and _relative(hit.record.text) == _relative(question.text)
    return same and hit.score >= NOT_SIMILAR


def _read(hits: list[Any], question: Any, values: list[str], rng: random.Random, setting: Setting) -> str:
    """What the most similar memory about the one who is asked about says, "none" if there is none; with errors that open
    other ways of answering."""
    fitting = [i for i, hit in enumerate(hits) if _answers(hit, question)]
    best = picked = max(fitting or range(len(hits)), key=lambda i: hits[i].score)
    way = "none" if not fitting else "date" if question.category == 2 else "value"
    form = FORMS.get(question.category)
    fits = form is not None and rng.random() < setting.fitting
    if fits or rng.random() < setting.error:
        way = form if fits else rng.choices(["other", "both", "none", "date", "likely"], [5, 6, 4, 3, 3])[0]
        near = sorted(range(len(hits)), key=lambda i: -hits[i].score)[:4]
        picked = best if way == "likely" else rng.choice(near)
        if way == "both":  # The most similar memory of each of two people, about the one who is asked about.
            meant = _relative(question.text)
            order = sorted(range(len(hits)), key=lambda i: -hits[i].score)
            about = [i for i in order if _relative(hits[i].record.text) == meant]
            people = list(dict.fromkeys(hits[i].record.scope for i in about))
            theirs = [next(i for i in about if hits[i].record.scope == person) for person in people]
            if len(theirs) == 2:
                rng.shuffle(theirs)
                return _answer(theirs, ", ".join(_value(hits[i].record.text, values) for i in theirs))
    if way == "none":
        return _answer([], "none")
    record = hits[picked].record
    text = (
        rng.choice(["likely yes", "likely no"])
        if way == "likely"
        else day(record)
        if way == "date"
        else _value(record.text, values)
    )
    reply = _answer([picked], text)
    if rng.random() < setting.echo:
        reply = reply.replace('"],"answer":"', f'"],"said":" {record.text} | {day(record)}","answer":"')
    return reply


def byte_level(size: int, pieces: list[str], texts: Iterable[str], *, digits: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE of texts; the pieces are single tokens, and if wanted all digits are, and the space before them."""
    tok = Tokenizer(models.BPE())
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alone = pre_tokenizers.Digits(individual_digits=True)
    tok.pre_tokenizer = pre_tokenizers.Sequence([alone, bytewise]) if digits else bytewise
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(pieces), special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tok.train_from_iterator(texts, trainer)
    tok.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, pad_token="<|pad|>", eos_token="<|end|>", clean_up_tokenization_spaces=False
    )


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Of base-split text; JSON pieces of the compact replies are single tokens."""
    prompts = (o.prompt for i in range(300) for o, _ in examples(1_000_000 + i, Setting(dialects=DIALECTS)))
    # Invented words beside the prompts: so that a word that was never seen is a few syllables, not letters.
    words = Vocabulary("base", random.Random(0))
    lists = [" ".join(words._any_word() for _ in range(20)) for _ in range(2000)]
    return byte_level(size, PIECES, chain(prompts, lists, (text.title() for text in lists[::4])))


def whole(action: Action) -> Action:
    """The same tokens with loss on all but the first: the language itself is learnt."""
    tokens = (*action.prompt[1:], *action.tokens)
    return replace(action, prompt=action.prompt[:1], tokens=tokens, logprobs=(0.0,) * len(tokens))


def ramp(done: float, start: float, end: float) -> float:
    """0 before `start`, 1 after `end`, and between them a line."""
    return min(1.0, max(0.0, (done - start) / (end - start)))


def imitate(
    policy: CausalPolicy, steps: int, lr: float, units_of: Callable[[int, float], list[Unit]], out: Path,
    watch: Callable[[int], None] = lambda step: None, first: float = 1.0, room: int = 2_500,
    share: bool = False,
) -> None:  # fmt: skip
    """Train on the units of each step (and the share of the way that is done); saved now and then. The first token of an
    action, which says what is done, weighs `first` times as much as the others; a batch has `room` tokens at most, and what
    begins alike is computed once if it is to `share`."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    began = time.time()
    for step in range(steps):
        done = step / steps
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 100, 1.4 * (1 - done))
        units = units_of(step, done)
        tokens, total = sum(len(unit.action.tokens) for unit in units), 0.0
        for batch in pack(units, budget=room, share=share):
            with torch.autocast(policy.model.device.type, torch.bfloat16):
                weights = torch.from_numpy(1.0 + (first - 1.0) * (batch.place == 0)).float().to(policy.model.device)
                loss = -(policy.score(batch) * weights).sum() / tokens
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 < 2:
            print(f"step {step} loss {total:.4f} minutes {(time.time() - began) / 60:.1f}", flush=True)
        if step % 250 == 249:
            policy.save(out)
            watch(step)
    policy.save(out)


def step_units(policy: CausalPolicy, step: int, done: float, dialogues: int, budget: int) -> list[Unit]:
    """A step's examples: as many of each role as half of `budget` tokens holds."""
    rng = random.Random(step)
    # Copying is learnt sooner from few memories in plain words, by writing out whole facts and memories. So lists, dialects
    # and errors grow, and the help goes.
    setting = Setting(
        most=1 + min(MOST - 1, int(done * MOST * 1.25)),
        error=ERROR * ramp(done, 0.6, 0.8),
        # More often while it is learnt than what is left in the end.
        fitting=FITTING * (2 * ramp(done, 0.2, 0.3) - ramp(done, 0.7, 0.85)),
        dialects=DIALECTS * ramp(done, 0.4, 0.6),
        echo=1 - 0.5 * ramp(done, 0.25, 0.4) - 0.5 * ramp(done, 0.75, 0.85),
        unknown=UNKNOWN * ramp(done, 0.15, 0.3),
    )
    pairs = [pair for i in range(step * dialogues, (step + 1) * dialogues) for pair in examples(i, setting)]
    rng.shuffle(pairs)
    language = step < 200 or step % 8 == 0
    left = {"New:": budget // 3, "Question:": budget - budget // 3}
    units = []
    for observation, reply in pairs:
        role = observation.prompt.partition("\n")[0]
        action = policy.encode(observation, reply)
        if left[role] > 0:
            left[role] -= len(action.prompt) + len(action.tokens)
            units.append(Unit(whole(action) if language else action, 1.0, 1.0))
    return units


def untrained(tok: PreTrainedTokenizerFast, width: int, layers: int, experts: int, vocabulary: int = VOCABULARY) -> Any:
    """A tiny Llama; with `experts`, a Qwen3-MoE whose two active experts are as wide as the Llama's one network."""
    shared = {
        "vocab_size": vocabulary, "hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 4096, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "pad_token_id": tok.pad_token_id,
        "eos_token_id": tok.eos_token_id, "bos_token_id": None, "initializer_range": 0.05,
        "attn_implementation": "eager",
    }  # fmt: skip
    if not experts:
        return LlamaForCausalLM(LlamaConfig(**shared))
    mixture = {"num_experts": experts, "num_experts_per_tok": 2, "norm_topk_prob": True, "head_dim": width // 4}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**shared, **mixture, moe_intermediate_size=3 * width // 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("src/memorist/models/bundled"))
    parser.add_argument("--steps", type=int, default=3400)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--experts", type=int, default=0, help="a mixture (Qwen3-MoE) of so many, two of them active")
    parser.add_argument("--dialogues", type=int, default=3, help="dialogues a step")
    parser.add_argument("--budget", type=int, default=5000, help="tokens a step")
    args = parser.parse_args()
    torch.manual_seed(0)
    tok = tokenizer(VOCABULARY)
    policy = CausalPolicy(untrained(tok, args.width, args.layers, args.experts), tok, "bundled")
    print(f"{sum(p.numel() for p in policy.parameters()):,} parameters", flush=True)
    imitate(
        policy,
        args.steps,
        args.lr,
        lambda step, done: step_units(policy, step, done, args.dialogues, args.budget),
        args.out,
    )


if __name__ == "__main__":
    main()
