"""The tokens that Clip-Cov and KL-Cov treat differently (Cui et al., arXiv 2505.22617)."""

from __future__ import annotations

import torch
from torch import Tensor

from r1kit.train.losses.policy_settings import GRPOSettings


def select(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, settings: GRPOSettings, generator: torch.Generator
) -> Tensor:
    """1.0 for the selected tokens of an update and 0.0 for all others; every tensor is [N], on the CPU.

    The means are those of the whole update, so its tokens must come together. `generator` draws among the candidates of
    Clip-Cov.
    """
    rule = settings.covariance
    assert rule is not None and len(logprobs) == len(old_logprobs) == len(advantages)
    covariance = (advantages - advantages.mean()) * (logprobs - logprobs.mean())  # [N]
    count = min(len(covariance), max(1, int(rule.share * len(covariance))))
    if rule.kind == "kl":
        chosen = covariance.topk(count).indices  # [count]
    else:
        ratio = (logprobs - old_logprobs).exp()
        clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
        # candidates keep their gradient under PPO's clip
        is_candidate = (covariance > rule.low) & (covariance < rule.high) & (clipped * advantages >= ratio * advantages)
        places = is_candidate.nonzero()[:, 0]
        chosen = places[torch.randperm(len(places), generator=generator)[:count]]
    return torch.zeros_like(covariance).index_fill_(0, chosen, 1.0)
