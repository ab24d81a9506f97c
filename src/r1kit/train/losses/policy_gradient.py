"""GRPO and its variants as one pure function of log-probs; presets name the published combinations."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from r1kit.models.batch import Targets, Totals
from r1kit.models.policy_net import Loss, LossOutput
from r1kit.settings import Settings, is_dotted_path, nearest
from r1kit.train.advantages import BASELINES


class GRPOSettings(Settings):
    """GRPO (DeepSeekMath section 4.1, R1 equations 1-3) and its variants; the presets below name the combinations.

    `ratio`: importance ratio per token, or per sequence (GSPO equation 7: the exponential of the mean log ratio).
    `objective`: `clip` is PPO's min(rho A, clip(rho) A); `clipped_weight` is CISPO's sg[clip(rho)] A log pi (MiniMax-M1
    equation 4); `reinforce` is -A log pi. `aggregate`: `sequence` means 1/G sum_i 1/|o_i| sum_t, `token` divides by
    all tokens of the update (DAPO equation 8), `fixed` by sequences x max_tokens (Dr. GRPO appendix G).
    `clip_low`, `clip_high`: the ratio is clipped to [1 - clip_low, 1 + clip_high].
    `kl_coef` is beta; 0 drops the reference model. `kl_estimator` is Schulman's k1, k2 or k3.
    `loss`, `baseline`: also functions of your own, by dotted path. `loss` names a function from these settings to a
    `Loss`, `baseline` one from a group's rewards to its advantages (`list[float | None]`; None: not trained on).
    `truncated_importance`: None, or the cap C of min(pi_train / pi_sampler, C), for engines that are not the learner.
    """

    loss: str = Field("", description="dotted path of a loss of your own; '': the policy loss of these settings")
    baseline: str = "group_std"
    ratio: Literal["token", "sequence"] = "token"
    objective: Literal["clip", "clipped_weight", "reinforce"] = "clip"
    aggregate: Literal["sequence", "token", "fixed"] = "sequence"
    clip_low: float = Field(0.2, ge=0)
    clip_high: float = Field(0.2, ge=0)
    kl_coef: float = Field(0.0, ge=0)
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    reference_refresh: int = Field(
        0, ge=0, description="replace the reference by the policy every N updates; 0 = never"
    )
    truncated_importance: float | None = Field(None, gt=0)
    dynamic_sampling: int = Field(0, ge=0, description="extra rounds of sampling that replace zero-variance groups")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """A preset's name stands for its settings."""
        if not isinstance(value, str):
            return value
        if value not in PRESETS:
            raise ValueError(f"there is no algorithm {value!r}: give one of {', '.join(PRESETS)}")
        return PRESETS[value].model_dump()

    @field_validator("loss")
    @classmethod
    def _is_path(cls, loss: str) -> str:
        if loss and not is_dotted_path(loss):
            raise ValueError("expected package.module:function, the dotted path of a function that returns a loss")
        return loss

    @field_validator("baseline")
    @classmethod
    def _is_known(cls, baseline: str) -> str:
        if baseline not in BASELINES and not is_dotted_path(baseline):
            hint = f"{nearest(baseline, BASELINES)} (or give package.module:function)"
            raise ValueError(f"there is no baseline {baseline!r}: {hint}")
        return baseline

    @model_validator(mode="after")
    def _consistent(self) -> GRPOSettings:
        if self.objective == "reinforce" and self.ratio == "sequence":
            raise ValueError("objective 'reinforce' has no ratio: set ratio to 'token'")
        if self.reference_refresh and not self.kl_coef:
            raise ValueError(
                "reference_refresh needs a reference model: set kl_coef above 0, or reference_refresh to 0"
            )
        return self


PRESETS: dict[str, GRPOSettings] = {
    "grpo": GRPOSettings(),
    # R1-Zero, paper section 2.1: beta 0.001, reference replaced every 400 updates; its eps is not stated,
    # DeepSeekMath's is 0.2
    "paper": GRPOSettings(kl_coef=0.001, reference_refresh=400),
    "dr_grpo": GRPOSettings(baseline="group_mean", aggregate="fixed"),
    "dapo": GRPOSettings(aggregate="token", clip_high=0.28, dynamic_sampling=3),
    "gspo": GRPOSettings(ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    "cispo": GRPOSettings(objective="clipped_weight", aggregate="token", clip_low=1.0, clip_high=4.0),
    # the log-prob of a whole completion is a sum over its tokens: any division by its own length would not be RLOO
    "rloo": GRPOSettings(baseline="leave_one_out", objective="reinforce", aggregate="fixed"),
}


def grpo(settings: GRPOSettings) -> Loss:
    """The policy loss for `settings`; on-policy its gradient is that of -A log pi plus beta times the divergence."""

    def loss(logprobs: Tensor, targets: Targets, totals: Totals) -> LossOutput:  # every tensor is [N]
        assert logprobs.shape == targets.old_logprobs.shape, "one log-prob for each target"
        assert logprobs.dtype in (torch.float32, torch.float64), "ratios of bf16 log-probs are off by several percent"
        log_ratio = _log_ratio(logprobs, targets, settings)
        ratio = log_ratio.exp()  # exactly 1 on-policy, where all objectives have the gradient -A
        clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
        advantages = targets.advantages
        if settings.objective == "reinforce":
            per_token = -advantages * logprobs
        elif settings.objective == "clipped_weight":
            # detached: the weight scales the gradient of log pi, it has none itself (MiniMax-M1 equation 4)
            per_token = -clipped.detach() * advantages * logprobs
        else:
            # the minimum clips only where the ratio has moved in A's favour (R1 equation 1)
            per_token = -torch.minimum(ratio * advantages, clipped * advantages)
        if settings.truncated_importance is not None:
            # min(pi_train / pi_sampler, C); no gradient, since both log-probs are data
            trust = (targets.old_logprobs - targets.sampler_logprobs).exp().clamp(max=settings.truncated_importance)
            per_token = per_token * trust
        sums: dict[str, Tensor] = {}
        if settings.kl_coef:
            kl = kl_divergence(logprobs, targets.ref_logprobs, settings.kl_estimator)
            per_token = per_token + settings.kl_coef * kl  # in the loss and not in the reward: R1 equation 1
            sums["kl"] = kl.detach().sum()
        with torch.no_grad():
            # a token counts as clipped where PPO's clip takes its gradient away
            outside = ((ratio > 1 + settings.clip_high) & (advantages > 0)) | (
                (ratio < 1 - settings.clip_low) & (advantages < 0)
            )
            gap = (logprobs - targets.sampler_logprobs).abs()
            sums |= {"ratio": ratio.sum(), "clip_fraction": outside.float().sum(), "logprob_gap": gap.sum()}
        return LossOutput(_aggregate(per_token, targets, totals, settings), sums)

    return loss


def _log_ratio(logprobs: Tensor, targets: Targets, settings: GRPOSettings) -> Tensor:
    """log rho [N]; per sequence it is the mean over the sequence's tokens, the same for each of them."""
    log_ratio = logprobs - targets.old_logprobs  # [N]
    if settings.ratio == "token":
        return log_ratio
    ids = targets.sequence_ids()  # [N]
    # clamped: a sequence without targets has length 0
    lengths = torch.tensor(targets.lengths, device=ids.device, dtype=log_ratio.dtype).clamp(min=1)  # [sequences]
    means = log_ratio.new_zeros(len(targets.lengths)).index_add(0, ids, log_ratio) / lengths  # GSPO equation 7
    return means[ids]


def kl_divergence(logprobs: Tensor, ref_logprobs: Tensor, estimator: str) -> Tensor:
    """Schulman's estimators of KL(pi || ref) per token, of r = ref / pi: -log r, (log r)^2 / 2 and r - 1 - log r.

    All estimate one value, but not one gradient: on-policy k2's is that of KL(pi || ref), k3's (the papers' choice)
    is near to it where pi is near ref, and k1's is zero on average. So k1 is given k2's gradient.
    """
    assert estimator in ("k1", "k2", "k3"), estimator
    log_ratio = ref_logprobs - logprobs  # log r [N]
    if estimator == "k3":
        return log_ratio.exp() - 1 - log_ratio  # never negative, and of low variance (R1 equation 2)
    k2 = log_ratio.square() / 2
    return k2 if estimator == "k2" else k2 + (-log_ratio - k2).detach()  # k1's value, k2's gradient


def _aggregate(per_token: Tensor, targets: Targets, totals: Totals, settings: GRPOSettings) -> Tensor:
    """From losses [N] to a scalar: this batch's share of the mean over the whole update."""
    if settings.aggregate == "token":
        return per_token.sum() / totals.num_tokens  # DAPO equation 8: long completions weigh more
    if settings.aggregate == "fixed":
        return per_token.sum() / (totals.num_sequences * totals.max_tokens)  # Dr. GRPO: no division by own length
    # each token divided by its sequence's length before the sum: 1/G sum_i 1/|o_i| sum_t
    lengths = torch.tensor(targets.lengths, device=per_token.device, dtype=per_token.dtype).clamp(min=1)
    return (per_token / lengths[targets.sequence_ids()]).sum() / totals.num_sequences
