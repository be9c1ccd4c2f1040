"""One side of a comparison of GRPO steps: ours or TRL's, in an environment of its own.

Started by benchmarks/trainer.py. Prints "ready", then for each line "step" that it reads the seconds of one step, and
for "memory" the bytes that steps took at most above the idle process with model and optimizer. What both sides share
(model, prompts, lengths, rewards) is made here, so that it is the same.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

Case = dict[str, Any]


def made(case: Case) -> tuple[Any, Any]:
    """A random Qwen3 and a tokenizer of words."""
    size = case["vocabulary"]
    vocabulary = {f"w{i}": i for i in range(size - 3)} | {"<pad>": size - 3, "<eos>": size - 2, "<unk>": size - 1}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=size, hidden_size=case["width"], intermediate_size=3 * case["width"],
        num_hidden_layers=case["layers"], num_attention_heads=case["width"] // 64,
        num_key_value_heads=max(1, case["width"] // 128), head_dim=64, max_position_embeddings=8192,
        tie_word_embeddings=True, pad_token_id=size - 3, eos_token_id=size - 2, bos_token_id=None,
    )  # fmt: skip
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return Qwen3ForCausalLM._from_config(config, attn_implementation=case["attention"]), tokenizer


def prompts(case: Case, rng: random.Random, count: int) -> list[str]:
    return [" ".join(f"w{rng.randrange(case['vocabulary'] - 3)}" for _ in range(case["prompt"])) for _ in range(count)]


def lengths(case: Case, rng: random.Random, count: int) -> list[int]:
    return [rng.randint(*case["completion"]) for _ in range(count)]


class Ours:
    """Our rollout and learner on a task that asks once."""

    def __init__(self, case: Case, micro: int) -> None:
        from memorist.models.causal import CausalPolicy
        from memorist.recipe import Stage
        from memorist.training.devices import Devices
        from memorist.training.learner import Learner

        model, tokenizer = made(case)
        self.case, self.policy, self.rng, self.number = (
            case,
            CausalPolicy(model, tokenizer, "ours"),
            random.Random(1),
            0,
        )
        self.policy.precision = "bf16" if case.get("bf16") else "float32"
        self.policy.end = -1  # lengths are given: what TRL's side is made to do
        self.stage = Stage(
            role="writer", cut="whole", tasks=case["groups"], siblings=case["siblings"], lr=1e-5, budget=micro
        )
        self.learner = Learner(self.stage, self.policy, {}, Devices())
        _ = self.policy.why_plain, self.policy.pairs

    def step(self) -> None:
        from memorist.decision import Distribution, Observation, Reward
        from memorist.memory.scratch import ScratchBank
        from memorist.training.rollout import Seat, play

        case, rng = self.case, self.rng
        siblings = case["siblings"]
        drawn = {text: lengths(case, rng, siblings) for text in prompts(case, rng, case["groups"])}

        class Exercise:
            def __init__(self, text: str) -> None:
                self.id, self.text, self.bank = text[:40], text, ScratchBank()

            def score(self, outcome: str) -> tuple[Reward, ...]:
                return (Reward("random", rng.random()),)

        class Writer:
            def __init__(self, *, bank: Any, writer: Any) -> None:
                self.writer = writer

            async def run(self, task: Exercise) -> str:
                tokens = drawn[task.text].pop()
                return str((await self.writer.act(Observation(task.text, max_tokens=tokens))).text)

        seats = {"writer": Seat(self.policy, Distribution())}
        groups = play(Writer, [Exercise(t) for t in drawn], seats, siblings=siblings, seed=self.number)
        self.learner.update(self.number, groups, 0)
        self.number += 1

    def serve(self) -> None:
        self.step()
        answer(self.step)


class Theirs:
    """TRL's GRPOTrainer; its loop waits for us at the beginning of each step."""

    def __init__(self, case: Case, micro: int) -> None:
        from datasets import Dataset
        from transformers import LogitsProcessor, LogitsProcessorList, TrainerCallback
        from trl import GRPOConfig, GRPOTrainer

        model, tokenizer = made(case)
        rng = random.Random(1)
        rows = case["groups"] * case["siblings"]
        data = Dataset.from_list([{"prompt": text} for text in prompts(case, rng, 512)])
        end = tokenizer.eos_token_id

        class Ends(LogitsProcessor):
            """Completions of given lengths."""

            def __init__(self) -> None:
                self.wanted = torch.tensor(lengths(case, rng, rows), device=model.device)
                self.written = 0

            def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
                self.written += 1
                scores[:, end] = -torch.inf
                last = self.written >= self.wanted[: len(scores)]
                scores[last] = -torch.inf
                scores[last, end] = 0.0
                return scores

        usual = model.generate
        model.generate = lambda *a, **k: usual(*a, **k, logits_processor=LogitsProcessorList([Ends()]))

        class Waits(TrainerCallback):
            began = 0.0

            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step == 0:  # a warm-up, as ours has one
                    return
                if state.global_step == 1:
                    say("ready")
                if not wait():
                    os._exit(0)
                self.began = time.perf_counter()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step > 1:
                    settle()
                    say(time.perf_counter() - self.began)

        settings = GRPOConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=micro,
            gradient_accumulation_steps=rows // micro, num_generations=case["siblings"],
            max_completion_length=case["completion"][1], learning_rate=1e-5, max_steps=10_000, logging_steps=1000,
            report_to=[], use_cpu=not torch.cuda.is_available(), beta=0.0, bf16=bool(case.get("bf16")),
            save_strategy="no", disable_tqdm=True, gradient_checkpointing=False,
        )  # fmt: skip
        self.trainer = GRPOTrainer(
            model=model, reward_funcs=lambda completions, **_: [rng.random() for _ in completions], args=settings,
            train_dataset=data, processing_class=tokenizer, callbacks=[Waits()],
        )  # fmt: skip

    def serve(self) -> None:
        self.trainer.train()


def settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def say(what: Any) -> None:
    print(f"@{json.dumps(what)}", flush=True)


def wait() -> bool:
    """Whether another step is wanted; questions about memory are answered on the way."""
    for line in sys.stdin:
        if line.strip() == "memory":
            say(memory())
        elif line.strip() == "forget":
            say(forget())
        else:
            return line.strip() == "step"
    return False


def memory() -> float:
    """The most that this process has had, in bytes."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(status.partition("VmHWM:")[2].split()[0])


def forget() -> float:
    """Start the peak anew; what the process has now, in bytes."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what a step freed and the allocator kept is not the idle process's
    Path("/proc/self/clear_refs").write_text("5")
    return memory()


def answer(step: Any) -> None:
    say("ready")
    while wait():
        began = time.perf_counter()
        step()
        settle()
        say(time.perf_counter() - began)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given.get("threads", 2))
    side = {"ours": Ours, "trl": Theirs}[given["side"]](given["case"], given["micro"])
    side.serve()
