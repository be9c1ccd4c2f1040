"""What is to be run: how many trajectories, how long, with which precision and optimizer. Counts of tokens from it."""

from __future__ import annotations

from dataclasses import dataclass

from memorist.errors import PlanError, need_known
from memorist.fit.plan.architecture import STORAGES, Architecture, Storage
from memorist.fit.plan.layers import Precision

CONTEXTS = ("append", "rewrite")
LOGITS = ("all", "written", "chunks")
BLOCK, SHARED_FROM = 128, 128
"""Queries of a block, and prompt tokens from which siblings read a prompt once, of local policies on CPUs: as
`models.attention` and `models.decoding` have them, which need torch."""
CHUNKS = 16
PURPOSES = ("train", "serve")
CACHES = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0, "4bit": 0.5}
"""Bytes of one element of the cache."""


@dataclass(frozen=True, slots=True)
class States:
    """Bytes per trained parameter: weight, gradient, and what the optimizer keeps (master weight and moments)."""

    weight: float
    gradient: float
    optimizer: float


OPTIMIZERS = {
    "adamw": States(2, 2, 12),
    "adamw-bf16": States(2, 2, 8),  # moments in 16 bits, as V3's
    "adam-8bit": States(2, 2, 6),
    "adamw-fp32": States(4, 4, 8),  # as this trainer: everything in FP32, no second copy of the weights
}


@dataclass(frozen=True, slots=True)
class Workload:
    """One training step's rollouts and update, or one round of serving.

    prompts, group_size: tasks, and trajectories of each. turns: model calls of a trajectory. prompt_tokens: its
    beginning, shared by the group. observation_tokens, new_tokens: read, then written, in each turn. context:
    "append" keeps all turns in one window; "rewrite" sees in each turn the prompt, `memory_tokens` and what is new.
    weights: how weights are stored (None: as the checkpoint). cache: of attention. lora_rank: 0 trains everything.
    shard: ZeRO stage, what devices divide: 1 optimizer, 2 and gradients, 3 and weights. copies: frozen models beside
    the trained one (reference, other roles). checkpointing: activations are computed twice and kept once. scores:
    attention writes its scores out, in blocks, and reads siblings' prompt once, as on CPUs. micro_tokens: tokens of
    one backward pass (0: as many as fit).
    logits: made for "all" tokens of a row, for the "written" ones, or for all in "chunks", one at a time.
    acceptance: of each MTP draft.
    """

    prompts: int = 16
    group_size: int = 8
    turns: int = 1
    prompt_tokens: int = 1024
    observation_tokens: int = 0
    new_tokens: int = 128
    memory_tokens: int = 0
    context: str = "append"
    purpose: str = "train"
    weights: str | None = None
    cache: str = "bf16"
    optimizer: str = "adamw"
    lora_rank: int = 0
    shard: int = 0
    copies: int = 0
    checkpointing: bool = True
    scores: bool = False
    micro_tokens: int = 0
    logits: str = "all"
    acceptance: float = 0.85

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            PlanError: a count is zero or negative where it may not be.
            RecipeError: a name does not exist.
        """
        for name in ("prompts", "group_size", "turns", "new_tokens"):
            if getattr(self, name) < 1:
                raise PlanError(f"workload: {name} is {getattr(self, name)}; expected 1 or more")
        for name in ("prompt_tokens", "observation_tokens", "memory_tokens", "lora_rank", "copies", "micro_tokens"):
            if getattr(self, name) < 0:
                raise PlanError(f"workload: {name} is {getattr(self, name)}; expected 0 or more")
        if not 0 <= self.shard <= 3:
            raise PlanError(f"workload: shard is {self.shard}; expected a ZeRO stage, 0 to 3")
        if not 0 <= self.acceptance <= 1:
            raise PlanError(f"workload: acceptance is {self.acceptance:g}; expected 0 to 1")
        need_known("context", self.context, CONTEXTS)
        need_known("purpose", self.purpose, PURPOSES)
        need_known("logits", self.logits, LOGITS)
        need_known("cache", self.cache, CACHES)
        need_known("optimizer", self.optimizer, OPTIMIZERS)
        if self.weights is not None:
            need_known("weights", self.weights, STORAGES)

    @property
    def storage(self) -> Storage | None:
        """How weights are stored, where the workload says so."""
        return STORAGES[self.weights] if self.weights else None

    @property
    def trajectories(self) -> int:
        """Of all groups."""
        return self.prompts * self.group_size

    @property
    def precision(self) -> Precision:
        """Of what is kept per sequence; recurrent states stay in 16 bits or more."""
        return Precision(CACHES[self.cache], max(2.0, CACHES[self.cache]))

    @property
    def longest(self) -> int:
        """Tokens of the longest context."""
        turn = self.observation_tokens + self.new_tokens
        return self.prompt_tokens + (self.turns * turn if self.context == "append" else self.memory_tokens + turn)

    @property
    def row(self) -> int:
        """Tokens of one training row: a group's prompt once, and what each sibling adds."""
        beyond = self.longest - self.prompt_tokens
        return self.prompt_tokens + beyond * self.group_size

    @property
    def compared(self) -> float:
        """Keys of its row that a token is compared with where attention goes by blocks of queries, on average."""
        written = self.row - self.prompt_tokens
        own = (self.longest - self.prompt_tokens) / 2
        inside = self.prompt_tokens * (self.prompt_tokens + BLOCK) / 2
        return (inside + written * (self.prompt_tokens + min(written, own + BLOCK))) / max(1, self.row)

    @property
    def mean_context(self) -> float:
        """Tokens that a written token sees on average."""
        if self.context == "rewrite":
            return self.longest - self.new_tokens / 2
        return self.prompt_tokens + (self.turns + 1) / 2 * self.observation_tokens + self.turns / 2 * self.new_tokens

    @property
    def prefill_tokens(self) -> dict[str, float]:
        """Tokens to prefill per trajectory.

        "again": the whole history in each turn. "reuse": each token once. "forked": and the prompt once per group.
        A rewritten context is new in each turn but for the prompt.
        """
        read, turns = self.observation_tokens, self.turns
        new: float
        again: float
        if self.context == "rewrite":
            new = turns * (self.memory_tokens + read)
            again = turns * self.prompt_tokens + new
        else:
            new = turns * read
            written = turns * (turns - 1) / 2 * self.new_tokens
            again = turns * self.prompt_tokens + turns * (turns + 1) / 2 * read + written
        reuse = self.prompt_tokens + new
        return {"again": again, "reuse": reuse, "forked": self.prompt_tokens / self.group_size + new}

    @property
    def row_tokens(self) -> dict[str, float]:
        """Tokens of a step's rows: "plain", every context written out; "shared", a group's prompt once."""
        if self.context == "append":
            contexts, turn = self.trajectories, self.turns * (self.observation_tokens + self.new_tokens)
        else:
            contexts = self.trajectories * self.turns
            turn = self.memory_tokens + self.observation_tokens + self.new_tokens
        shared = self.prompts * self.prompt_tokens + contexts * turn
        return {"plain": contexts * (self.prompt_tokens + turn), "shared": shared}

    @property
    def logit_share(self) -> float:
        """Share of a step's tokens that logits are computed for."""
        if self.logits != "written":
            return 1.0
        return self.trajectories * self.turns * self.new_tokens / self.row_tokens["shared"]


def training_bytes(architecture: Architecture, workload: Workload, devices: int = 1) -> float:
    """Bytes per device of weights, gradients, optimizer and frozen copies.

    arXiv 2505.09343 names FP32 masters and gradients and BF16 moments; the bytes per parameter are the usual ones.
    Adapters are trained in 16 bits with FP32 masters on a frozen base that may be quantised.
    """
    states, stage = OPTIMIZERS[workload.optimizer], workload.shard
    count = architecture.parameters
    frozen = 0.0
    if workload.lora_rank:
        count = architecture.lora_parameters(workload.lora_rank)
        frozen = architecture.weight_bytes(workload.storage)
    copy = architecture.parameters * states.weight
    weights = count * states.weight + frozen + copy * workload.copies
    parts = ((count * states.optimizer, 1), (count * states.gradient, 2), (weights, 3))
    return sum(size / devices if stage >= least else size for size, least in parts)


def activation_bytes(architecture: Architecture, workload: Workload, tokens: float) -> float:
    """Bytes that a backward pass over `tokens` tokens of shared rows needs beside the states.

    Per token and layer 34 bytes per hidden unit and 6 per feed-forward unit in 16 bits; with checkpointing only each
    layer's input and one layer in full. Written-out scores are kept once per layer, of the pairs that blocks read.
    Logits: 16-bit, FP32 and their gradient. A conservative choice of ours, to be calibrated.
    """
    size = 2 if OPTIMIZERS[workload.optimizer].weight == 4 else 1
    hidden, layers = architecture.hidden, architecture.layers
    per_layer = [
        (34 * hidden + 6 * layer.feed_forward.active_width) * size
        + 2 * size * layer.mixer.heads * workload.compared * workload.scores
        for layer in layers
    ]
    largest = max(per_layer)
    if workload.checkpointing:
        kept = 2 * size * hidden * len(layers) + largest
    else:
        kept = sum(per_layer)
    held = 1 / CHUNKS if workload.logits == "chunks" else workload.logit_share
    logits = held * architecture.vocab * (2 * size + 4 + 4)
    return tokens * (kept + logits)
