"""A local causal language model as a policy: samples with shared prefills, scores packed rows, learns.

Each decision is drawn from its own seeded stream and keeps the ids that were sampled with their
log-probabilities under the distribution they were drawn from. Models, tokenizers and caches are transformers'.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_layers import GradientCheckpointingLayer

from memorist.decision import Action, Distribution, Observation, Picture, Stop
from memorist.errors import PolicyError
from memorist.models.attention import BLOCKS, attending, may_block
from memorist.models.decoding import batches, may_share, why_not_written
from memorist.models.distributions import (
    Legal,
    by_rows,
    few,
    finished,
    likely,
    log_probability,
    log_probability_and_entropy,
    logits_of,
    warp,
    warp_few,
)
from memorist.models.ends import Ends
from memorist.models.grammars import Grammars, legal_at
from memorist.models.masks import pairs_per_token, recurrent, tree_masks, why_not_shared
from memorist.models.prompting import observation_ids, text_ids
from memorist.models.quantised import loaded_as, settled
from memorist.models.rows import RowBatch, Unit, pack
from memorist.models.sampler import Request
from memorist.models.tensors import placed_like, whole
from memorist.models.writing import Asked, Prompt, Read, Stood, write

LOGITS = 2**25
"""Logits, tokens by vocabulary, of one piece: 128 MB in float32."""
CHECKED = 48
"""Tokens of each part of the tree that a policy tries itself on."""
PREFILL_TOKENS = {"cpu": 4_096}
"""Prompt tokens, padding included, that one prefill takes at most: on CPUs (measured) what stays in their caches."""
MOST_TOKENS = 65_536
"""Prompt tokens, padding included, whose answers are written side by side."""


class CausalPolicy:
    """A transformers causal LM with its tokenizer.

    Args:
        model: any `AutoModelForCausalLM`; put in eval mode, for a policy must score as it samples (no dropout).
        tokenizer: its tokenizer, with an end and a pad token.
        name: written into every decision.
        source: what the model can be opened by again.

    `precision` "bf16" computes products in bfloat16 beside the weights as they are; log-probabilities stay float32.
    `checkpointing` computes layers again for the backward pass instead of keeping what they gave. `together` is how
    many answers to one prompt are written at once (0: all): fewer keep less in memory and take longer. `around` is
    called with each scoring pass: what shards the weights brings them together there.
    """

    sees = False
    """Whether it can be shown pictures."""

    def __init__(self, model: Any, tokenizer: Any, name: str, *, source: str = "") -> None:
        if tokenizer.eos_token_id is None:
            raise PolicyError(f"tokenizer of {name!r} has no end token; set eos_token in its configuration")
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.source = source or name
        self.precision, self.checkpointing, self.together = "float32", False, 0
        self.around: Callable[[Callable[[], Any]], Any] = lambda compute: compute()
        self.end = int(tokenizer.eos_token_id)
        self.pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.end)
        self.window = int(model.config.get_text_config().max_position_embeddings)
        self._prompts: dict[Observation, tuple[int, ...]] = {}

    @classmethod
    def load(cls, folder: str | Path, name: str | None = None, *, int8: bool = False) -> CausalPolicy:
        """Load from a folder, or by name from a hub where one can be reached.

        Args:
            int8: its weights as integers, for inference alone.

        Raises:
            PolicyError: there is no such model here, or what integers need is not installed.
        """
        how = loaded_as(int8, str(folder))
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder))
            # On CPUs torch's fused attention with a mask falls back to a path measured 5 times slower backward.
            attention = "sdpa" if torch.cuda.is_available() else "eager"
            model = AutoModelForCausalLM.from_pretrained(str(folder), attn_implementation=attention, **how)
        except (OSError, ValueError) as error:
            offline = " (hubs are offline: HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
            raise PolicyError(
                f"no causal language model at {str(folder)!r}{offline}; expected a folder with config.json, "
                "model.safetensors and tokenizer.json, or 'bundled'"
            ) from error
        if recurrent(model.config.get_text_config()) and (why := why_not_written(model)):
            raise PolicyError(f"{str(folder)!r} would be trained on what it was not drawn from: {why}")
        return cls(settled(model, int8), tokenizer, name or Path(folder).name, source=name or str(folder))

    def save(self, folder: Path, *, write: bool = True) -> None:
        """Write a standard checkpoint folder; of processes that share the weights all take part and one writes."""
        weights = self.state()
        if not write:
            return
        self.model.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)

    def parameters(self) -> list[Any]:
        """Trainable tensors."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def state(self) -> dict[str, torch.Tensor]:
        """The weights that may change, tied ones once."""
        seen: set[int] = set()
        found = {}
        for name, value in self.model.state_dict(keep_vars=True).items():
            if id(value) not in seen:
                seen.add(id(value))
                found[name] = whole(value.detach())
        return found

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        own = self.model.state_dict()
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(placed_like(value, own[name]))

    def frozen(self, name: str) -> CausalPolicy:
        """A policy that stays as this one is now."""
        found = self.twin(name)
        found.model.requires_grad_(False)
        return found

    def twin(self, name: str) -> CausalPolicy:
        """A policy that starts as this one is now and learns on its own."""
        if any(isinstance(p, DTensor) for p in self.model.parameters()):
            model = type(self.model)(self.model.config).to(self.model.device)  # what is sharded cannot be copied
            model.load_state_dict(self.state(), strict=False)
        else:
            model = copy.deepcopy(self.model)
        found = CausalPolicy(model, self.tokenizer, name, source=self.source)
        found.precision, found.checkpointing, found.together = self.precision, self.checkpointing, self.together
        return found

    @property
    def _config(self) -> Any:
        return self.model.config.get_text_config()

    @cached_property
    def why_plain(self) -> str:
        """Why every decision gets a row of its own; empty where tree rows give what plain rows give, which is tried."""
        return why_not_shared(self._config) or self._why_trees_fail()

    def _why_trees_fail(self) -> str:
        vocabulary = self._config.vocab_size
        length = min(CHECKED, self.window // 2)
        ids = [int(i) for i in np.random.default_rng(0).integers(0, vocabulary, 3 * length)]
        prompt, tails = tuple(ids[:length]), sorted((tuple(ids[length : 2 * length]), tuple(ids[2 * length :])))
        units = [Unit(Action("", prompt, tail, (0.0,) * length), 1.0, 1.0) for tail in tails]
        with torch.no_grad(), self._in_full_precision():
            [tree] = (self.score(batch) for batch in pack(units, budget=3 * length))
            plain = torch.cat([self.score(batch) for batch in pack(units, budget=2 * length, share=False)])
        off = float((tree - plain).abs().max())
        allowed = 1e-4 if self.model.dtype == torch.float32 else 0.2
        return "" if off <= allowed else f"tree rows are off by {off:.2g} in log-probability, more than {allowed:g}"

    @cached_property
    def pairs(self) -> float:
        """Pairs of tokens in attention that cost as much as one token in all else."""
        embedding = {id(p) for p in self.model.get_input_embeddings().parameters()}
        layers = ((n, p) for n, p in self.model.base_model.named_parameters() if id(p) not in embedding)
        return pairs_per_token(self._config, {name: parameter.numel() for name, parameter in layers})

    def rows(self, units: Sequence[Unit], budget: int) -> list[RowBatch]:
        """Units as batches of at most `budget` padded tokens: trees where they are right and worth it, else plain."""
        return pack(units, budget=budget, share=not self.why_plain, pairs=self.pairs)

    def prompt_ids(self, observation: Observation) -> tuple[int, ...]:
        """The observation as token ids, by the tokenizer's chat template where it has one."""
        ids = self._prompts.get(observation)
        if ids is None:
            if len(self._prompts) > 100_000:
                self._prompts.clear()
            ids = self._prompts[observation] = tuple(observation_ids(self.tokenizer, self.name, observation))
        return ids

    def prompt(self, observation: Observation) -> Prompt:
        """The observation as a policy reads it.

        Raises:
            PolicyError: it has pictures, which this policy cannot see.
        """
        return Prompt(self.prompt_ids(observation))

    def take_place(self) -> None:
        """Let a model that others use too be this policy's; called before it is."""

    def see(self, pictures: Sequence[Picture]) -> None:
        """Be shown pictures that actions of other processes saw; who reads text alone has no use for them."""

    def make_room(self) -> None:
        """Drop what was kept of observations long ago; called before actions are sampled, never in between."""

    def encode(self, observation: Observation, text: str) -> Action:
        """An action that writes `text` and ends, for imitation; its log-probabilities are unknown (zeros)."""
        tokens = (*text_ids(self.tokenizer, text), self.end)
        prompt = self.prompt(observation)
        return Action(text, prompt.ids, tokens, (0.0,) * len(tokens), media=prompt.media)

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """One action per request. Equal prompts are prefilled once; batches are formed by length, the same way
        every time."""
        self.make_room()
        for request in requests:
            if request.observation.options:
                raise PolicyError(f"{self.name!r} writes text; it was asked to choose among options")
            self._check_legal(request.distribution)
        prompts = [self.prompt(r.observation) for r in requests]
        actions: list[Action | None] = [None] * len(requests)
        byprompt: dict[Prompt, list[int]] = {}
        for i, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            if len(prompt.ids) >= self.window or not prompt.ids:
                actions[i] = Action("", prompt.ids, stop=Stop.PROMPT_TOO_LONG, distribution=request.distribution)
            else:
                byprompt.setdefault(prompt, []).append(i)
        unique = sorted(byprompt, key=lambda p: (len(p.ids), byprompt[p][0]))
        for batch in batches(unique, MOST_TOKENS):
            members = [i for prompt in batch for i in byprompt[prompt]]
            parent = [row for row, prompt in enumerate(batch) for _ in byprompt[prompt]]
            with torch.inference_mode(), self._fused(), self._precise():
                decoded = self._decode(batch, parent, [requests[i] for i in members])
            for i, action in zip(members, decoded, strict=True):
                actions[i] = action
        return [a for a in actions if a is not None]

    @contextmanager
    def _in_full_precision(self) -> Iterator[None]:
        usual, self.precision = self.precision, "float32"
        try:
            yield
        finally:
            self.precision = usual

    def _precise(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.model.device.type, torch.bfloat16)

    @contextmanager
    def _computed_again(self) -> Iterator[None]:
        """Layers checkpoint themselves only where they are told that they are trained; nothing in them is told, so that
        no dropout acts."""
        if not (self.checkpointing and torch.is_grad_enabled()):
            yield
            return
        layers = [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]
        for layer in layers:
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            layer.gradient_checkpointing = layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.gradient_checkpointing = layer.training = False

    def _check_legal(self, distribution: Distribution) -> None:
        vocabulary = self._config.vocab_size
        for position, allowed in enumerate(distribution.legal or ()):
            if allowed is not None and not (allowed and all(0 <= token < vocabulary for token in allowed)):
                raise PolicyError(
                    f"legal set of position {position} is {allowed!r}; expected at least one id below {vocabulary}"
                )

    @cached_property
    def attention(self) -> str:
        """How layers attend when actions are scored: by blocks where that is right, else as the model was given."""
        if str(self.model.config._attn_implementation) == "eager" and may_block(self.model):
            self.model.set_attn_implementation(BLOCKS)
        return str(self.model.config._attn_implementation)

    @cached_property
    def _shares_prompts(self) -> bool:
        return self.attention == BLOCKS and may_share(self.model)

    @contextmanager
    def _fused(self) -> Iterator[None]:
        """Torch's fused attention, which is the faster one without a backward pass (measured: 1.45 times on CPUs)."""
        can = self.attention in ("eager", BLOCKS) and getattr(self.model, "_supports_sdpa", False)
        with attending(self.model, "sdpa") if can else nullcontext():
            yield

    def _decode(self, prompts: Sequence[Prompt], parent: Sequence[int], requests: Sequence[Request]) -> list[Action]:
        room = [self.window - len(prompt.ids) for prompt in prompts]
        kept = [min(r.observation.max_tokens, room[p]) for r, p in zip(requests, parent, strict=True)]
        asked = Asked(requests, kept, self.end, lambda: self.grammars, self._ends)
        most = PREFILL_TOKENS.get(self.model.device.type, MOST_TOKENS)
        reads = [Read(self.model, some, self.pad, self.inputs) for some in batches(prompts, most)]
        written = write(reads, parent, asked, self.together, lambda: self._shares_prompts)
        return [
            self._ends.finished(
                self._action(prompts[p], tokens, scores, _limited(request)), request.observation.ends, self.end
            )
            for p, (tokens, scores), request in zip(parent, written, requests, strict=True)
        ]

    def inputs(self, tokens: torch.Tensor, positions: torch.Tensor, media: Sequence[Stood]) -> dict[str, Any]:
        """What the model is called with for tokens.

        Args:
            tokens: shape (B, L).
            positions: shape (B, L), or with media (3, B, L).
            media: where pictures stand.
        """
        return {"input_ids": tokens, "position_ids": positions}

    def _action(self, prompt: Prompt, tokens: list[int], logprobs: list[float], distribution: Distribution) -> Action:
        ended = bool(tokens) and tokens[-1] == self.end
        text = self.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
        stop = Stop.END if ended else Stop.LENGTH
        return Action(
            text, prompt.ids, tuple(tokens), tuple(logprobs), stop=stop, distribution=distribution, media=prompt.media
        )

    def hidden(self, batch: RowBatch) -> torch.Tensor:
        """The last layer's output where action tokens are predicted, shape (N, width); errors as of `states`."""
        return self.states(batch)[-1]

    def states(self, batch: RowBatch, *, every: bool = False) -> list[torch.Tensor]:
        """What layers give where action tokens are predicted, shape (N, width) each: the last one, after the norm; with
        `every` all of them, the embeddings first.

        Raises:
            PolicyError: the actions saw pictures, and the policy cannot.
        """
        if batch.media and not self.sees:
            raise PolicyError(f"{self.name!r} reads text; it was asked to score actions that saw pictures")
        device, _ = self.model.device, self.attention
        if batch.plain:
            attention: Any = torch.from_numpy(batch.real).long().to(device)
        else:
            attention = tree_masks(self._config, batch, self.model.dtype, device)
        positions = torch.from_numpy(batch.positions if batch.axes is None else batch.axes).to(device)
        with self._precise(), self._computed_again():
            given = self.inputs(torch.from_numpy(batch.tokens).to(device), positions, batch.media)
            out = self.model.base_model(attention_mask=attention, use_cache=False, output_hidden_states=every, **given)
        where = torch.from_numpy(batch.target_row).to(device), torch.from_numpy(batch.target_from).to(device)
        return [one[where] for one in (out.hidden_states if every else (out.last_hidden_state,))]

    def score(self, batch: RowBatch) -> torch.Tensor:
        """Log-probabilities of all action tokens of a batch, shape (N,), in the order of its targets."""
        found: torch.Tensor = self.around(lambda: self._judged(batch, log_probability))
        return found

    def score_with_entropy(self, batch: RowBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities, and entropies in nats of the distributions that they are under, shape (N,) each."""
        logp, entropy = self.around(lambda: self._judged(batch, log_probability_and_entropy)).unbind(1)
        return logp, entropy

    @cached_property
    def _ends(self) -> Ends:
        return Ends(partial(self.tokenizer.decode, skip_special_tokens=True))

    @cached_property
    def grammars(self) -> Grammars:
        """What limits texts."""
        return Grammars(self.tokenizer, self._config.vocab_size, self.end)

    def _judged(self, batch: RowBatch, judge: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return self._judged_from(self.hidden(batch), batch, judge)

    def hidden_and_score(self, batch: RowBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """`hidden` and `score` in one pass; `around` is the caller's business."""
        hidden = self.hidden(batch)
        return hidden, self._judged_from(hidden, batch, log_probability)

    def _judged_from(
        self, hidden: torch.Tensor, batch: RowBatch, judge: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """What `judge` says of each target's log-probabilities over the vocabulary, in float32; in pieces, so that no
        more than `LOGITS` logits are kept for the backward pass."""
        targets = torch.from_numpy(batch.targets).to(hidden.device)
        most = max(1, LOGITS // self._config.vocab_size)
        places, found = [], []
        # What learns keeps what it drew: a second update, or products in bfloat16, may have moved it out of the top k.
        learns = torch.is_grad_enabled()

        def piece(states: torch.Tensor, wanted: torch.Tensor, distribution: Distribution, legal: Legal) -> torch.Tensor:
            head = self.model.get_output_embeddings()
            narrow = few(distribution, self._config.vocab_size) and by_rows(head)
            with self._precise(), torch.no_grad() if narrow else nullcontext():
                logits = finished(head(states).float(), self._config)
            if not narrow:
                return judge(warp(logits, distribution, legal, wanted if learns else None), wanted)
            # What is left out has no gradient: the likely tokens are found without one and then computed alone. Of a
            # small model the head is a third of all operations; most of its backward pass falls away.
            ids, counts = likely(logits, distribution, legal, wanted, keep=learns)
            with self._precise():
                some = logits.gather(1, ids)
                if learns:
                    some = finished(logits_of(head, states, ids).float(), self._config)
            return judge(warp_few(some, distribution, counts), torch.zeros_like(wanted))

        for distribution, where in batch.by_distribution():
            for place in torch.from_numpy(where).to(hidden.device).split(most):
                given = (
                    hidden[place],
                    targets[place],
                    distribution,
                    legal_at(batch, place.tolist(), lambda: self.grammars),
                )
                places.append(place)
                once = len(targets) <= most or not learns
                found.append(piece(*given) if once else checkpoint(piece, *given, use_reentrant=False))
        back = torch.empty_like(targets)
        back[torch.cat(places)] = torch.arange(len(targets), device=targets.device)
        return torch.cat(found)[back]


def _limited(request: Request) -> Distribution:
    """What an action of a request was drawn from."""
    return replace(request.distribution, grammar=request.observation.grammar)
