"""Cross-entropy of the next token: pre-training, SFT, distillation from traces."""

from __future__ import annotations

from torch import Tensor

from r1kit.models.batch import Targets, Totals
from r1kit.models.policy_net import LossOutput, per_token


@per_token
def next_token(logprobs: Tensor, targets: Targets, totals: Totals) -> LossOutput:
    """The mean of -log pi over all trained tokens of the update, whatever the rank or micro-batch they are in."""
    return LossOutput(-logprobs.sum() / totals.num_tokens, {})
