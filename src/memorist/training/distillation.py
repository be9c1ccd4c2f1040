"""Distillation along what a teacher wrote: the policy comes to hold for likely what the teacher does.

At each token that the teacher wrote, from what stood before it, the policy's distribution is compared with the
teacher's over the whole vocabulary, by the reverse divergence (M1, arXiv 2504.10449) or the forward one, by which a
policy that is far from its teacher learns about three times as fast (docs/hybrid.md). M1's released code compares the
distributions one token later than what was written; here they are those that the written tokens were predicted by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from memorist.errors import RecipeError
from memorist.models.distributions import finished
from memorist.models.rows import RowBatch
from memorist.models.tensors import whole

if TYPE_CHECKING:
    from memorist.models.causal import CausalPolicy

LOGITS = 2**23
"""Logits, tokens by vocabulary, of one piece: there are the policy's and the teacher's, and what is kept of both."""
Head = Callable[[torch.Tensor], torch.Tensor]


def divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """KL(first ‖ second) in nats, shape (N,), of logits of shape (N, V) each.

    What the first holds for impossible counts nothing. What the second alone does has a bound: the least number.
    """
    least = torch.finfo(torch.float32).min / 4
    one, other = (logits.float().clamp(min=least).log_softmax(-1) for logits in (first, second))
    return (one.exp() * (one - other)).sum(-1)


def check_alike(policy: CausalPolicy, teacher: CausalPolicy, align: float) -> None:
    """Whether a policy can be distilled from a teacher.

    Raises:
        RecipeError: their tokens are not the same, or layers that are to be brought together differ in number or width.
    """
    if teacher.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise RecipeError(f"teacher {teacher.name!r} has other tokens than {policy.name!r}; expected the same")
    configs = [one.model.config.get_text_config() for one in (policy, teacher)]
    sizes = [(config.num_hidden_layers, config.hidden_size) for config in configs]
    if align and sizes[0] != sizes[1]:
        raise RecipeError(
            f"align is {align:g}, and {policy.name!r} has {sizes[0][0]} layers of {sizes[0][1]}, {teacher.name!r} "
            f"{sizes[1][0]} of {sizes[1][1]}; expected as many of the same width, or align 0"
        )


def distillation_loss(
    policy: CausalPolicy, teacher: CausalPolicy, batch: RowBatch, align: float, *, forward: bool = False
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of a batch, already weighted (batches of a step add up), and sums worth logging.

    Args:
        policy: it learns.
        teacher: with the same tokens and, to align, as many layers of the same width (`check_alike`).
        batch: what the teacher wrote, as the policy would have written it.
        align: weight of the squared distance between the outputs of layers at a token, of their mean square there.
        forward: KL(teacher ‖ policy), in place of KL(policy ‖ teacher).
    """
    weight = torch.from_numpy(batch.weight).to(policy.model.device)
    with torch.no_grad():
        theirs: list[torch.Tensor] = teacher.around(lambda: teacher.states(batch, every=bool(align)))
    known, learnt = _head(teacher, apart=True), _head(policy)
    # A head may have more rows than there are tokens, and not as many as the other's.
    size = min(p.model.config.get_text_config().vocab_size for p in (policy, teacher))

    def piece(mine: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            expected = known(other)[:, :size]
        given = learnt(mine)[:, :size]
        return divergence(expected, given) if forward else divergence(given, expected)

    def compared() -> tuple[torch.Tensor, torch.Tensor]:
        mine: list[torch.Tensor] = policy.states(batch, every=bool(align))
        most = max(1, LOGITS // policy.model.config.get_text_config().vocab_size)
        parts = zip(mine[-1].split(most), theirs[-1].split(most), strict=True)
        far = torch.cat([checkpoint(piece, one, other, use_reentrant=False) for one, other in parts])
        if not align:
            return far, torch.zeros_like(far)
        pairs = [(a.float(), b.float()) for a, b in zip(mine, theirs, strict=True)]
        return far, torch.stack([(a - b).square().mean(-1) / b.square().mean(-1) for a, b in pairs]).mean(0)

    far, apart = policy.around(compared)
    total, distance = (weight * far).sum(), (weight * apart).sum()
    facts = {"divergence": float(total.detach()), "distance": float(distance.detach())}
    return total + align * distance if align else total, facts


def _head(policy: CausalPolicy, *, apart: bool = False) -> Head:
    """From states to logits. apart: used while the policy's weights are not together; then they are brought together
    here, once, in all processes alike."""
    head, config = policy.model.get_output_embeddings(), policy.model.config.get_text_config()
    if apart and isinstance(head.weight, DTensor):
        matrix = whole(head.weight.detach())
        return lambda states: finished(torch.nn.functional.linear(states, matrix).float(), config)
    return lambda states: finished(head(states).float(), config)
