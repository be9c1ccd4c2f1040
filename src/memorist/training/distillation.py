"""Distillation along what a teacher wrote: the policy comes to hold for likely what the teacher does.

At each token that the teacher wrote, from what stood before it, the policy's distribution is compared with the
teacher's over the whole vocabulary, by the reverse divergence (M1, arXiv 2504.10449). Its released code compares the
distributions one token later than what was written; here they are those that the written tokens were predicted by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.checkpoint import checkpoint

from memorist.models.distributions import finished
from memorist.models.rows import RowBatch

if TYPE_CHECKING:
    from memorist.models.causal import CausalPolicy

LOGITS = 2**23
"""Logits, tokens by vocabulary, of one piece: there are the policy's and the teacher's, and what is kept of both."""


def reverse_divergence(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(policy ‖ teacher) in nats, shape (N,), of logits of shape (N, V) each.

    What the policy holds for impossible counts nothing; a token that the teacher alone does would cost without bound.
    """
    policy, other = logits.float().log_softmax(-1), teacher.float().log_softmax(-1)
    return (policy.exp() * (policy - other)).nan_to_num(0.0, posinf=float("inf")).sum(-1)


def distillation_loss(
    policy: CausalPolicy, teacher: CausalPolicy, batch: RowBatch, align: float
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of a batch, already weighted (batches of a step add up), and sums worth logging.

    Args:
        policy: it learns.
        teacher: with the same tokens and, to align, as many layers of the same width.
        batch: what the teacher wrote, as the policy would have written it.
        align: weight of the squared distance between the outputs of layers, of their mean square.
    """
    device = policy.model.device
    weight = torch.from_numpy(batch.weight).to(device)
    with torch.no_grad():
        theirs: list[torch.Tensor] = teacher.around(lambda: teacher.states(batch, every=bool(align)))
    heads = (policy.model.get_output_embeddings(), teacher.model.get_output_embeddings())

    def piece(mine: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            known = finished(heads[1](other).float(), teacher.model.config.get_text_config())
        return reverse_divergence(finished(heads[0](mine).float(), policy.model.config.get_text_config()), known)

    def compared() -> tuple[torch.Tensor, torch.Tensor]:
        mine: list[torch.Tensor] = policy.states(batch, every=bool(align))
        most = max(1, LOGITS // policy.model.config.get_text_config().vocab_size)
        parts = zip(mine[-1].split(most), theirs[-1].split(most), strict=True)
        far = torch.cat([checkpoint(piece, one, other, use_reentrant=False) for one, other in parts])
        apart = [
            (a - b).float().square().mean(-1) / b.float().square().mean() for a, b in zip(mine, theirs, strict=True)
        ]
        return far, torch.stack(apart).mean(0)

    far, apart = policy.around(compared)
    divergence, distance = (weight * far).sum(), (weight * apart).sum()
    facts = {"divergence": float(divergence.detach()), "distance": float(distance.detach())}
    return divergence + align * distance if align else divergence, facts
