"""GRPO and its variants as one pure function of log-probs.

    loss = mean over tokens t of ( w_t * objective(rho_t, A_t) + beta * kl_t ) - c * entropy

Each factor is a function: rho = pi / pi_old (`_log_ratio`); the objective, such as PPO's -min(rho A, clip(rho) A)
(`_objective`); weights and masks w (`_weights`); the divergence from the reference (`kl_divergence`); and the mean
(`_aggregate`). `policy_settings.GRPOSettings` names the choices and their papers. Every tensor is [N], the trained
tokens of the batch in the order of its sequences, unless a comment says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from r1kit.models.batch import Targets, Totals
from r1kit.models.policy_net import Loss, LossOutput
from r1kit.train.losses.policy_settings import GRPOSettings

ROUNDING = 1e-5  # nats by which log-probs of the same weights differ between sampler and learner in fp32


def grpo(settings: GRPOSettings, entropy_coef: Callable[[], float] | None = None) -> Loss:
    """The policy loss for `settings`; on-policy its gradient is that of -A log pi plus beta times the divergence.

    `entropy_coef` returns the coefficient of an entropy bonus that adapts; None takes the constant of the settings.
    """

    def loss(logprobs: Tensor, targets: Targets, totals: Totals) -> LossOutput:
        assert logprobs.shape == targets.old_logprobs.shape, "one log-prob for each target"
        assert logprobs.dtype in (torch.float32, torch.float64), "ratios of bf16 log-probs are off by several percent"
        log_ratio = _log_ratio(logprobs, targets, settings)
        ratio = log_ratio.exp()  # exactly 1 on-policy, where all objectives have the gradient -A
        losses = _objective(log_ratio, ratio, logprobs, targets, settings)
        if settings.covariance is not None:
            losses = _restrain_high_covariance(losses, log_ratio, targets, settings)
        weights = _weights(logprobs, targets, settings)
        if weights is not None:
            losses = losses * weights
        sums: dict[str, Tensor] = {}
        if settings.kl_coef:
            # after the weights, which are the policy term's; in the loss and not in the reward (R1 equation 1)
            kl = kl_divergence(logprobs, targets.ref_logprobs, settings.kl_estimator, targets.old_logprobs)
            losses = losses + settings.kl_coef * kl
            sums["kl"] = kl.detach().sum()
        with torch.no_grad():  # for the log alone
            is_clipped = _is_clipped(log_ratio, ratio, targets.advantages, settings)
            gap = (logprobs - targets.sampler_logprobs).abs()
            sums |= {"ratio": ratio.sum(), "clip_fraction": is_clipped.float().sum(), "logprob_gap": gap.sum()}
            if weights is not None:
                sums |= {"masked": (weights == 0).float().sum(), "importance": weights.sum()}
            if weights is not None and settings.truncated_importance is not None:
                sums["capped"] = (weights >= settings.truncated_importance).float().sum()
        constant = settings.entropy.coef if settings.entropy else 0.0
        bonus = entropy_coef() if entropy_coef else constant
        # the head adds the entropies, because it has the logits; always a mean over tokens, whatever `aggregate` is
        mean = _aggregate(losses, targets, totals, settings)
        return LossOutput(mean, sums, entropy_coef=-bonus / totals.num_tokens)

    return loss


def kl_divergence(logprobs: Tensor, ref_logprobs: Tensor, estimator: str, old_logprobs: Tensor | None = None) -> Tensor:
    """Schulman's estimators of KL(pi || ref) per token [N], with r = ref / pi.

    k1 = -log r, k2 = (log r)^2 / 2, k3 = r - 1 - log r ("Approximating KL Divergence", 2020; k3 is R1 equation 2).
    They estimate the same value, but have different gradients: on-policy, k2's is that of KL(pi || ref), k3's is close
    to it while pi is close to ref, and k1's is zero on average. So k1 gets k2's gradient. `unbiased` is k3 times
    pi / pi_old: its value and its gradient are those of KL(pi || ref) on tokens that pi_old sampled (DeepSeek-V3.2
    equation 7).
    """
    assert estimator in ("k1", "k2", "k3", "unbiased"), estimator
    log_ratio = ref_logprobs - logprobs  # log r [N]
    if estimator in ("k3", "unbiased"):
        k3 = log_ratio.exp() - 1 - log_ratio  # never negative, and its variance is low
        if estimator == "k3":
            return k3
        assert old_logprobs is not None, "the ratio needs the log-probs of the policy that sampled"
        return (logprobs - old_logprobs).exp() * k3  # the ratio keeps its gradient: that is what removes the bias
    k2 = log_ratio.square() / 2
    return k2 if estimator == "k2" else k2 + (-log_ratio - k2).detach()  # k1's value, k2's gradient


def _log_ratio(logprobs: Tensor, targets: Targets, settings: GRPOSettings) -> Tensor:
    """log rho of each token; at the level of sequences it is their mean over the sequence, the same for each token."""
    log_ratio = logprobs - targets.old_logprobs  # [N]
    if settings.ratio == "token":
        return log_ratio
    means = _over_sequences(log_ratio, targets)  # log of the geometric mean of ratios (GSPO equation 7)
    # sequence_token: the mean's value, the token's own gradient (GSPO equation 14)
    return means if settings.ratio == "sequence" else means.detach() + (logprobs - logprobs.detach())


def _objective(log_ratio: Tensor, ratio: Tensor, logprobs: Tensor, targets: Targets, settings: GRPOSettings) -> Tensor:
    """The loss of each token before weights and KL term: minus the paper's objective, which is to be maximised."""
    advantages = targets.advantages
    if settings.objective == "reinforce":
        return -advantages * logprobs
    if settings.objective == "soft":  # SAPO (arXiv 2511.20347)
        positive, other = (ratio.new_tensor(value) for value in settings.soft_temperatures)
        tau = torch.where(advantages > 0, positive, other)
        # 4 / tau: slope 1 at ratio 1, so on-policy this is the policy gradient
        return -torch.sigmoid(tau * (ratio - 1)) * (4 / tau) * advantages
    if settings.objective == "geometric":  # GMPO (arXiv 2507.20673)
        # as in PPO, the bound holds only where the ratio has moved in A's favour
        bounded = torch.where(
            advantages >= 0, log_ratio.clamp(max=settings.clip_high), log_ratio.clamp(min=-settings.clip_low)
        )
        return -_over_sequences(bounded, targets).exp() * advantages
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    if settings.objective == "clipped_weight":
        # detached: the weight scales the gradient of log pi, it has none itself (MiniMax-M1 equation 4)
        return -clipped.detach() * advantages * logprobs
    if settings.dual_clip is not None:  # bounds the loss for A < 0; for A > 0 clip_high is a lower bound already
        ratio = ratio.clamp(max=settings.dual_clip)  # arXiv 1912.09729 equation 5
    # the minimum clips only where the ratio has moved in A's favour (R1 equation 1)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def _restrain_high_covariance(losses: Tensor, log_ratio: Tensor, targets: Targets, settings: GRPOSettings) -> Tensor:
    """The losses after Clip-Cov or KL-Cov (arXiv 2505.22617 equations 10 and 12).

    `targets.selected` marks the tokens that `covariance.select` chose.
    """
    assert settings.covariance is not None
    if settings.covariance.kind == "clip":
        return losses * (1 - targets.selected)
    # below the threshold the two log-probs differ by rounding alone, whose sign would be the gradient of |log rho|
    distance = log_ratio.abs() * (log_ratio.detach().abs() > ROUNDING)
    return losses + settings.covariance.coef * distance * targets.selected


def _weights(logprobs: Tensor, targets: Targets, settings: GRPOSettings) -> Tensor | None:
    """Weights of the policy loss, without a gradient; None if all are 1."""
    weights: Tensor | None = None
    if settings.weighs_importance:
        # pi_old / pi_sampler corrects for an engine whose numbers are not the learner's
        log_weights = targets.old_logprobs - targets.sampler_logprobs
        if settings.importance_level == "sequence":  # the ratio of whole sequences, not its geometric mean
            log_weights = _over_sequences(log_weights, targets, mean=False)
        weights = log_weights.exp()
        if settings.truncated_importance is not None:
            weights = weights.clamp(max=settings.truncated_importance)
        if settings.masked_importance is not None:
            low, high = settings.masked_importance
            weights = weights.masked_fill((weights < low) | (weights > high), 0.0)
    if settings.off_policy_delta is not None:
        # an estimate of KL(pi_sampler || pi) for each sequence: bad samples that are far off teach nothing (V3.2 eq. 9)
        drift = _over_sequences(targets.sampler_logprobs - logprobs.detach(), targets)
        is_kept = ((targets.advantages >= 0) | (drift <= settings.off_policy_delta)).to(drift.dtype)
        weights = is_kept if weights is None else weights * is_kept
    return weights


def _is_clipped(log_ratio: Tensor, ratio: Tensor, advantages: Tensor, settings: GRPOSettings) -> Tensor:
    """Whether a bound takes a token's gradient away or, with `clipped_weight`, limits its weight."""
    if settings.objective in ("soft", "reinforce"):  # these have no bounds
        return torch.zeros_like(advantages, dtype=torch.bool)
    if settings.objective == "geometric":
        above, below = log_ratio > settings.clip_high, log_ratio < -settings.clip_low
    else:
        above, below = ratio > 1 + settings.clip_high, ratio < 1 - settings.clip_low
    if settings.objective == "clipped_weight":
        return above | below  # the weight is limited whatever the sign
    if settings.objective == "clip" and settings.dual_clip is not None:
        below |= ratio > settings.dual_clip
    return (above & (advantages > 0)) | (below & (advantages < 0))


def _aggregate(losses: Tensor, targets: Targets, totals: Totals, settings: GRPOSettings) -> Tensor:
    """From losses [N] to a scalar: this batch's share of the mean over the whole update, which `totals` count."""
    if settings.aggregate == "token":
        return losses.sum() / totals.num_tokens  # DAPO equation 8: long completions weigh more
    if settings.aggregate == "fixed":
        return losses.sum() / (totals.num_sequences * totals.max_tokens)  # Dr. GRPO: no division by own length
    # 1/G sum_i 1/|o_i| sum_t (DeepSeekMath equation 3): each token is divided by the length of its sequence
    lengths = torch.tensor(targets.lengths, device=losses.device, dtype=losses.dtype).clamp(min=1)
    return (losses / lengths[targets.sequence_ids()]).sum() / totals.num_sequences


def _over_sequences(values: Tensor, targets: Targets, *, mean: bool = True) -> Tensor:
    """For each token the mean (or sum) of the values of its sequence's tokens."""
    ids = targets.sequence_ids()
    sums = values.new_zeros(len(targets.lengths)).index_add(0, ids, values)  # [sequences]
    if mean:  # clamped: a sequence without targets has length 0
        sums = sums / torch.tensor(targets.lengths, device=ids.device, dtype=values.dtype).clamp(min=1)
    return sums[ids]
