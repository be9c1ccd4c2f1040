"""A small encoder that decides about a statement in milliseconds, without torch: it reads the statement by itself, and
beside each memory that it may be about.

Of the statement alone it says how likely it is worth keeping, and how likely not; beside a memory, whether it is known
from it, takes its place, adds to it, or ends it. All that is a softmax over the options ADD, NOOP and, for each memory,
UPDATE (by the statement), JOIN (of both) and DELETE; what is known from a memory counts for NOOP.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from memorist.decision import Action
from memorist.errors import PolicyError
from memorist.models.sampler import Request

ALONE, ABOUT = ("ADD", "NOOP"), ("UPDATE", "JOIN", "DELETE")
"""Options whatever is held, and those about each memory, in their order."""
OUTPUTS = ("ADD", "NOOP", "known", *ABOUT)
"""What the encoder gives for a statement and a memory (or none): the first two count where there is none, the others
where there is one."""
LONGEST = 128
"""Tokens of a statement with a memory."""
READ = 2000
"""Characters of a text that are read."""
BUNDLED = Path(__file__).with_name("bundled-chooser")
"""Where the chooser lies that comes with the package."""
Numbers = npt.NDArray[np.float64]


def options(memories: Sequence[str]) -> tuple[str, ...]:
    """What can be done about a statement where these memories are near."""
    return (*ALONE, *(f"{kind} {text}" for text in memories for kind in ABOUT))


def chosen(choice: int) -> tuple[str, int | None]:
    """What an option does, and which memory it is about; None where it is about none."""
    if choice < len(ALONE):
        return ALONE[choice], None
    target, what = divmod(choice - len(ALONE), len(ABOUT))
    return ABOUT[what], target


def memories_of(offered: Sequence[str]) -> list[str]:
    """The memories that options are about.

    Raises:
        PolicyError: they are not what `options` gives.
    """
    found = [option.partition(" ")[2] for option in offered[len(ALONE) :: len(ABOUT)]]
    if tuple(offered) != options(found):
        raise PolicyError(
            f"options are {list(offered)[:4]}…; expected ADD, NOOP, and UPDATE, JOIN, DELETE of each memory"
        )
    return found


def readable(text: str) -> str:
    """What is read of a text: its beginning, without lone surrogates, which no tokenizer takes."""
    return text[:READ].encode("utf-8", "replace").decode("utf-8")


def logits(outputs: Numbers) -> Numbers:
    """From outputs of shape (1 + M, 6), the first without a memory, to options, shape (2 + 3 M,)."""
    nothing = np.concatenate([outputs[:1, 1], outputs[1:, 2]])
    top = nothing.max()
    noop = top + np.log(np.exp(nothing - top).sum())
    return np.concatenate([outputs[0, :1], [noop], outputs[1:, len(ALONE) + 1 :].reshape(-1)])


def drawn(z: Numbers, request: Request) -> Action:
    """One of a request's options by the law of their logits, shape (2 + 3 M,); the likeliest where it is greedy."""
    how = request.distribution
    law = z / (how.temperature or 1.0)
    law = law - law.max()
    law -= np.log(np.exp(law).sum())
    rng = np.random.default_rng(request.seed)
    choice = int(law.argmax() if how.greedy else rng.choice(len(law), p=np.exp(law)))
    logprob = 0.0 if how.greedy else float(law[choice])
    return Action(str(choice), tokens=(choice,), logprobs=(logprob,), choice=(choice,), distribution=how)


class Chooser:
    """The encoder on ONNX Runtime.

    Args:
        folder: with model.onnx and tokenizer.json; None for the one that comes with the package.
        threads: that a decision is computed by.
    """

    def __init__(self, folder: str | Path | None = None, *, threads: int = 2, name: str = "chooser") -> None:
        self.folder = BUNDLED if folder is None else Path(folder)
        self.threads, self.name = threads, name
        self._loading = Lock()

    def outputs(self, statement: str, memories: Sequence[str]) -> Numbers:
        """The encoder's outputs, shape (1 + M, 6).

        Raises:
            PolicyError: the model is missing or damaged.
        """
        with self._loading:
            tokenizer, session = self._loaded
        pairs = [(readable(statement), readable(text)) for text in ("", *memories)]
        read = tokenizer.encode_batch(pairs)
        given = {
            "ids": np.array([one.ids for one in read], np.int64),
            "types": np.array([one.type_ids for one in read], np.int64),
            "mask": np.array([one.attention_mask for one in read], np.int64),
        }
        (found,) = session.run(None, given)
        return np.asarray(found, np.float64)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise PolicyError(f"the chooser needs {error.name}: pip install onnxruntime tokenizers") from error
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.log_severity_level = 3
        try:
            tokenizer = Tokenizer.from_str((self.folder / "tokenizer.json").read_text(encoding="utf-8"))
            model = (self.folder / "model.onnx").read_bytes()
            session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever a damaged file makes a runtime raise
            raise PolicyError(
                f"{self.folder} cannot be read as a chooser ({error}); expected what one saved"
            ) from error
        tokenizer.enable_truncation(LONGEST, strategy="longest_first")
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]") or 0, pad_token="[PAD]")
        return tokenizer, session

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Choose one of each request's options; greedy ones the likeliest."""
        return [self._choose(request) for request in requests]

    def _choose(self, request: Request) -> Action:
        seen = request.observation
        return drawn(logits(self.outputs(seen.prompt, memories_of(seen.options))), request)
