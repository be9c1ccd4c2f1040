"""How far a choice of experts takes a model from itself, on samples that it was not calibrated on.

Kullback–Leibler divergence of the next token's distribution, full model against masked one: what picks a scorer and a
number of experts, and the gate before a pruned model is used. It is no measure of a task: that is an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from memorist.errors import ExpertsError
from memorist.fit.experts.scores import Array, Ids
from memorist.fit.experts.simulate import masked

ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(full ‖ masked) in nats per token with its 95 % interval over samples; agreement: same most likely token."""

    kl: float
    low: float
    high: float
    agreement: float
    samples: int
    tokens: int


def divergences(
    model: Any,
    samples: Sequence[Sequence[int]],
    choices: Mapping[str, Ids],
    mode: str = "global",
    seed: int = 0,
    starts: Sequence[int] | None = None,
) -> dict[str, Divergence]:
    """Each choice of experts against the whole model.

    Args:
        model: loaded by transformers, of a known architecture.
        samples: token ids, held out from calibration.
        choices: kept experts by name, each [L, M].
        mode: what becomes of the router's groups, as for `prune`.
        seed: of the bootstrap.
        starts: of each sample, the first token whose prediction counts (a reply's first); default: all.

    Raises:
        ExpertsError: there are no samples, or a choice is not for this model.
    """
    if not samples or not all(samples):
        raise ExpertsError("no samples, or an empty one; give samples that were held out from calibration")
    sums: dict[str, list[tuple[float, float, int]]] = {name: [] for name in choices}
    for number, sample in enumerate(samples):
        # The token at `start` is predicted one place before; what follows the sample's end does not count then.
        counted = slice(None) if starts is None else slice(max(0, starts[number] - 1), len(sample) - 1)
        whole = _log_probabilities(model, sample)[counted]
        for name, keep in choices.items():
            with masked(model, keep, mode):
                less = _log_probabilities(model, sample)[counted]
            kl = float((whole.exp() * (whole - less)).sum())
            same = float((whole.argmax(-1) == less.argmax(-1)).sum())
            sums[name].append((kl, same, len(whole)))
    return {name: _summed(np.array(rows, dtype=np.float64), seed) for name, rows in sums.items()}


def _log_probabilities(model: Any, sample: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(sample)]), use_cache=False).logits[0]
    return logits.double().log_softmax(dim=-1)


def _summed(rows: Array, seed: int) -> Divergence:
    """From (KL, agreements, tokens) of each sample."""
    kl, same, tokens = rows.sum(axis=0)
    drawn = np.random.default_rng(seed).integers(0, len(rows), (ROUNDS, len(rows)))
    low, high = np.quantile(rows[drawn, 0].sum(axis=1) / rows[drawn, 2].sum(axis=1), (0.025, 0.975))
    return Divergence(kl / tokens, float(low), float(high), same / tokens, len(rows), int(tokens))


@dataclass(frozen=True, slots=True)
class Gate:
    """What a choice must reach before it is used.

    most_kl: upper end of the divergence's interval, nats per token. most_lost: share of replies that may stop being
    valid; replies' form breaks first (operations, tags), and a divergence over all tokens hardly shows it.
    """

    most_kl: float = 0.1
    most_lost: float = 0.02

    def reasons(self, divergence: Divergence, valid_before: float, valid_after: float) -> list[str]:
        """Why a choice does not pass; empty where it does. Shares are those of `valid_share`."""
        found = []
        if divergence.high > self.most_kl:
            found.append(
                f"the divergence may be {divergence.high:.3f} nats per token, over {self.most_kl:g}; keep more experts"
            )
        if valid_before - valid_after > self.most_lost:
            found.append(
                f"{valid_after:.1%} of replies are valid, {valid_before:.1%} before; calibrate on replies of that role"
            )
        return found


def valid_share(
    model: Any, prompts: Sequence[Sequence[int]], accepts: Callable[[list[int]], bool], new_tokens: int = 64
) -> float:
    """Share of prompts to which the most likely reply has the right form, 0 to 1.

    Args:
        model: loaded by transformers; inside `simulate.masked`, of the choice.
        prompts: token ids of each.
        accepts: whether a reply, as token ids without the prompt, has the form that its reader needs.
        new_tokens: most tokens of a reply.

    Raises:
        ExpertsError: there are no prompts.
    """
    if not prompts:
        raise ExpertsError("no prompts; give those of the role that the model is to play")
    right = 0
    for prompt in prompts:
        given = torch.tensor([list(prompt)])
        with torch.no_grad():
            # The mask says which tokens are padding: none.
            reply = model.generate(
                given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=new_tokens
            )
        right += accepts(reply[0, len(prompt) :].tolist())
    return right / len(prompts)
