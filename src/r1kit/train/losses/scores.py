"""Losses of a reward model's scores: preference pairs and safety labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from r1kit.models.batch import Batch, Totals
from r1kit.models.policy_net import LossOutput, ScoreLoss


def bradley_terry(center: float = 0.0) -> ScoreLoss:
    """-log sigmoid(chosen - rejected), the mean over pairs (equation 5 of the paper's supplement).

    Sequences come as chosen, rejected, chosen, rejected ... (`pack_together`). `center` pulls the sum of a pair's
    scores towards zero, as TRL's `center_rewards_coefficient` does.
    """

    def loss(scores: Tensor, batch: Batch, totals: Totals) -> LossOutput:
        order = batch.order
        assert order[1::2] == tuple(index + 1 for index in order[::2]), "the two of a pair are neighbours, chosen first"
        chosen, rejected = scores.view(-1, 2).unbind(1)  # [pairs] each
        # logsigmoid, not log(sigmoid): a large negative margin would give log(0)
        total = -F.logsigmoid(chosen - rejected).sum()
        if center:
            total = total + center * (chosen + rejected).square().sum()
        with torch.no_grad():  # for the log alone
            sums = {"accuracy": (chosen > rejected).float().sum(), "margin": (chosen - rejected).sum()}
        return LossOutput(total / totals.num_sequences, sums, len(chosen))  # `num_sequences` counts pairs

    return loss


def safety(labels: Sequence[bool]) -> ScoreLoss:
    """Binary cross-entropy of sigmoid(score) with "is safe", the mean over responses (equation 6).

    `labels` are in the order of the samples before packing.
    """

    def loss(scores: Tensor, batch: Batch, totals: Totals) -> LossOutput:
        is_safe = torch.tensor([float(labels[index]) for index in batch.order], device=scores.device)  # [sequences]
        assert len(is_safe) == len(scores), "one label for each score"
        # a sum: the division by all responses of the update comes last, so micro-batches add up
        total = F.binary_cross_entropy_with_logits(scores, is_safe, reduction="sum")
        sums = {"accuracy": ((scores > 0) == (is_safe > 0.5)).float().sum()}
        return LossOutput(total / totals.num_sequences, sums)

    return loss
