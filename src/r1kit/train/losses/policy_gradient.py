"""GRPO and its variants as one pure function of log-probs: a ratio, an objective of it, weights, a KL term, a mean."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from r1kit.models.batch import Targets, Totals
from r1kit.models.policy_net import Loss, LossOutput
from r1kit.train.losses.policy_settings import GRPOSettings

ROUNDING = 1e-5  # by which equal log-probs of the sampler and the learner may differ in fp32


def grpo(settings: GRPOSettings, entropy_coef: Callable[[], float] | None = None) -> Loss:
    """The policy loss for `settings`; on-policy its gradient is that of -A log pi plus beta times the divergence.

    `entropy_coef` gives the coefficient of an entropy bonus that adapts; None: the one of the settings.
    """

    def loss(logprobs: Tensor, targets: Targets, totals: Totals) -> LossOutput:  # every tensor is [N]
        assert logprobs.shape == targets.old_logprobs.shape, "one log-prob for each target"
        assert logprobs.dtype in (torch.float32, torch.float64), "ratios of bf16 log-probs are off by several percent"
        log_ratio = _log_ratio(logprobs, targets, settings)
        ratio = log_ratio.exp()  # exactly 1 on-policy, where all objectives have the gradient -A
        per_token = _objective(log_ratio, ratio, logprobs, targets, settings)
        if settings.covariance is not None:
            per_token = _high_covariance(per_token, log_ratio, targets, settings)
        weights = _weights(logprobs, targets, settings)
        if weights is not None:
            per_token = per_token * weights
        sums: dict[str, Tensor] = {}
        if settings.kl_coef:
            kl = kl_divergence(logprobs, targets.ref_logprobs, settings.kl_estimator, targets.old_logprobs)
            per_token = per_token + settings.kl_coef * kl  # in the loss and not in the reward: R1 equation 1
            sums["kl"] = kl.detach().sum()
        with torch.no_grad():
            outside = _is_clipped(log_ratio, ratio, targets.advantages, settings)
            gap = (logprobs - targets.sampler_logprobs).abs()
            sums |= {"ratio": ratio.sum(), "clip_fraction": outside.float().sum(), "logprob_gap": gap.sum()}
            if weights is not None:
                sums |= {"masked": (weights == 0).float().sum(), "importance": weights.sum()}
            if weights is not None and settings.truncated_importance is not None:
                sums["capped"] = (weights >= settings.truncated_importance).float().sum()
        bonus = entropy_coef() if entropy_coef else settings.entropy.coef if settings.entropy else 0.0
        return LossOutput(
            _aggregate(per_token, targets, totals, settings), sums, entropy_coef=-bonus / totals.num_tokens
        )

    return loss


def kl_divergence(logprobs: Tensor, ref_logprobs: Tensor, estimator: str, old_logprobs: Tensor | None = None) -> Tensor:
    """Schulman's estimators of KL(pi || ref) per token, of r = ref / pi: -log r, (log r)^2 / 2 and r - 1 - log r.

    All estimate one value, but not one gradient: on-policy k2's is that of KL(pi || ref), k3's (the papers' choice)
    is near to it where pi is near ref, and k1's is zero on average. So k1 is given k2's gradient. `unbiased` is k3
    times pi / pi_old: value and gradient are those of KL(pi || ref) on tokens that pi_old sampled (V3.2 equation 7).
    """
    assert estimator in ("k1", "k2", "k3", "unbiased"), estimator
    log_ratio = ref_logprobs - logprobs  # log r [N]
    if estimator in ("k3", "unbiased"):
        k3 = log_ratio.exp() - 1 - log_ratio  # never negative, and of low variance (R1 equation 2)
        if estimator == "k3":
            return k3
        assert old_logprobs is not None, "the ratio needs the log-probs of the policy that sampled"
        return (logprobs - old_logprobs).exp() * k3  # the ratio keeps its gradient: that is what removes the bias
    k2 = log_ratio.square() / 2
    return k2 if estimator == "k2" else k2 + (-log_ratio - k2).detach()  # k1's value, k2's gradient


def _log_ratio(logprobs: Tensor, targets: Targets, settings: GRPOSettings) -> Tensor:
    """log rho [N]; per sequence it is the mean over the sequence's tokens, the same for each of them."""
    log_ratio = logprobs - targets.old_logprobs  # [N]
    if settings.ratio == "token":
        return log_ratio
    means = _over_sequences(log_ratio, targets)  # GSPO equation 7
    # sequence_token: the mean's value, the token's own gradient (GSPO equation 14)
    return means if settings.ratio == "sequence" else means.detach() + (logprobs - logprobs.detach())


def _objective(log_ratio: Tensor, ratio: Tensor, logprobs: Tensor, targets: Targets, settings: GRPOSettings) -> Tensor:
    """The loss of each token [N] before weights and KL term."""
    advantages = targets.advantages
    if settings.objective == "reinforce":
        return -advantages * logprobs
    if settings.objective == "soft":
        positive, other = (ratio.new_tensor(value) for value in settings.soft_temperatures)
        tau = torch.where(advantages > 0, positive, other)
        # 4 / tau: slope 1 at ratio 1, so on-policy this is the policy gradient
        return -torch.sigmoid(tau * (ratio - 1)) * (4 / tau) * advantages
    if settings.objective == "geometric":
        # as in PPO, the bound holds only where the ratio has moved in A's favour
        bounded = torch.where(
            advantages >= 0, log_ratio.clamp(max=settings.clip_high), log_ratio.clamp(min=-settings.clip_low)
        )
        return -_over_sequences(bounded, targets).exp() * advantages
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    if settings.objective == "clipped_weight":
        # detached: the weight scales the gradient of log pi, it has none itself (MiniMax-M1 equation 4)
        return -clipped.detach() * advantages * logprobs
    if settings.dual_clip is not None:  # no effect if A > 0, because clip_high is the lower bound
        ratio = ratio.clamp(max=settings.dual_clip)
    # the minimum clips only where the ratio has moved in A's favour (R1 equation 1)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def _high_covariance(per_token: Tensor, log_ratio: Tensor, targets: Targets, settings: GRPOSettings) -> Tensor:
    """The losses [N] after Clip-Cov or KL-Cov; `targets.selected` marks the tokens that `covariance.select` chose."""
    assert settings.covariance is not None
    if settings.covariance.kind == "clip":
        return per_token * (1 - targets.selected)
    # below the threshold the two log-probs differ by rounding, and the gradient would be the sign of that
    moved = log_ratio.abs() * (log_ratio.detach().abs() > ROUNDING)
    return per_token + settings.covariance.coef * moved * targets.selected


def _weights(logprobs: Tensor, targets: Targets, settings: GRPOSettings) -> Tensor | None:
    """Weights [N] of the policy loss, without a gradient; None if all are 1."""
    weights: Tensor | None = None
    if settings.weighs_importance:
        # pi_old / pi_sampler: both are data
        log_weights = targets.old_logprobs - targets.sampler_logprobs
        if settings.importance_level == "sequence":  # of the whole sequence, not its geometric mean
            log_weights = _over_sequences(log_weights, targets, mean=False)
        weights = log_weights.exp()
        if settings.truncated_importance is not None:
            weights = weights.clamp(max=settings.truncated_importance)
        if settings.masked_importance is not None:
            low, high = settings.masked_importance
            weights = weights.masked_fill((weights < low) | (weights > high), 0.0)
    if settings.off_policy_delta is not None:
        # an estimate of KL(pi_sampler || pi)
        drift = _over_sequences(targets.sampler_logprobs - logprobs.detach(), targets)
        is_kept = ((targets.advantages >= 0) | (drift <= settings.off_policy_delta)).to(drift.dtype)
        weights = is_kept if weights is None else weights * is_kept
    return weights


def _is_clipped(log_ratio: Tensor, ratio: Tensor, advantages: Tensor, settings: GRPOSettings) -> Tensor:
    """Whether a bound takes a token's gradient away or, with `clipped_weight`, limits its weight [N]."""
    if settings.objective in ("soft", "reinforce"):  # have no bounds
        return torch.zeros_like(advantages, dtype=torch.bool)
    if settings.objective == "geometric":
        above, below = log_ratio > settings.clip_high, log_ratio < -settings.clip_low
    else:
        above, below = ratio > 1 + settings.clip_high, ratio < 1 - settings.clip_low
    if settings.objective == "clip" and settings.dual_clip is not None:
        below |= ratio > settings.dual_clip
    return (above & (advantages > 0)) | (below & (advantages < 0))


def _aggregate(per_token: Tensor, targets: Targets, totals: Totals, settings: GRPOSettings) -> Tensor:
    """From losses [N] to a scalar: this batch's share of the mean over the whole update."""
    if settings.aggregate == "token":
        return per_token.sum() / totals.num_tokens  # DAPO equation 8: long completions weigh more
    if settings.aggregate == "fixed":
        return per_token.sum() / (totals.num_sequences * totals.max_tokens)  # Dr. GRPO: no division by own length
    # each token divided by its sequence's length before the sum: 1/G sum_i 1/|o_i| sum_t
    lengths = torch.tensor(targets.lengths, device=per_token.device, dtype=per_token.dtype).clamp(min=1)
    return (per_token / lengths[targets.sequence_ids()]).sum() / totals.num_sequences


def _over_sequences(values: Tensor, targets: Targets, *, mean: bool = True) -> Tensor:
    """[N] -> [N], the mean or the sum over the tokens of the same sequence."""
    ids = targets.sequence_ids()  # [N]
    sums = values.new_zeros(len(targets.lengths)).index_add(0, ids, values)  # [sequences]
    if mean:  # clamped: a sequence without targets has length 0
        sums = sums / torch.tensor(targets.lengths, device=ids.device, dtype=values.dtype).clamp(min=1)
    return sums[ids]
