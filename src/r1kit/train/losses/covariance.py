"""The tokens that Clip-Cov and KL-Cov treat differently (Cui et al., arXiv 2505.22617)."""

from __future__ import annotations

import torch
from torch import Tensor

from r1kit.train.losses.policy_settings import GRPOSettings


def select(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, settings: GRPOSettings, generator: torch.Generator
) -> Tensor:
    """1.0 for the selected tokens of an update and 0.0 for all others; every tensor is [N], on the CPU.

    cov_t = (A_t - mean A)(log pi_t - mean log pi). The means are those of the whole update, so all of its
    tokens must come at once. KL-Cov takes the largest; Clip-Cov draws with `generator` among those in an interval.
    """
    rule = settings.covariance
    assert rule is not None and len(logprobs) == len(old_logprobs) == len(advantages)
    covariance = (advantages - advantages.mean()) * (logprobs - logprobs.mean())  # [N]
    count = min(len(covariance), max(1, int(rule.share * len(covariance))))
    if rule.kind == "kl":
        selected = covariance.topk(count).indices  # [count]
    else:
        ratio = (logprobs - old_logprobs).exp()
        clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
        # only tokens that PPO's clip leaves a gradient: taking it from others would change nothing
        is_candidate = (covariance > rule.low) & (covariance < rule.high) & (clipped * advantages >= ratio * advantages)
        candidates = is_candidate.nonzero()[:, 0]
        selected = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
    return torch.zeros_like(covariance).index_fill_(0, selected, 1.0)
