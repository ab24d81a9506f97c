"""Settings of GRPO and its variants; presets name the published combinations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from r1kit.settings import Settings, is_dotted_path, nearest
from r1kit.train.advantages import BASELINES


class EntropyBonus(Settings):
    """The loss gets -coef x (mean entropy over all tokens of the update).

    With a `target` the coefficient adapts (Skywork-OR1, arXiv 2505.22312): after an update whose entropy was at most
    the target it rises by `step`, otherwise it falls by `step`, within [0, max]. It applies only if the entropy of the
    update before was at most the target.
    """

    coef: float = Field(0.0, ge=0, description="the coefficient; with a target, the one to start from")
    target: float | None = Field(None, gt=0, description="nats per token")
    step: float = Field(0.005, gt=0)
    max: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _has_an_effect(self) -> EntropyBonus:
        if not self.coef and self.target is None:
            raise ValueError("an entropy bonus needs a coef above 0, or a target that raises it")
        return self


class HighCovariance(Settings):
    """Tokens whose log-prob and advantage covary most, which collapse the entropy (arXiv 2505.22617).

    The covariance of token t is (log pi_t - mean)(A_t - mean), with means over all tokens of the update. `clip` takes
    the gradient of a random `share` of the tokens away, among those with a covariance in (low, high) that PPO's clip
    leaves alone (Clip-Cov, equation 10). `kl` adds coef x |log rho| to the loss of the `share` of tokens with the
    highest covariance (KL-Cov, equation 12).
    """

    kind: Literal["clip", "kl"]
    share: float = Field(2e-4, gt=0, le=1, description="of the tokens of an update; at least one token")
    low: float = 1.0
    high: float = 5.0
    coef: float = Field(1.0, gt=0)


class GRPOSettings(Settings):
    """GRPO (DeepSeekMath section 4.1, R1 equations 1-3) and its variants; the presets below name the combinations.

    Advantage. `baseline`: see `advantages.advantages`; or a function of your own, by dotted path, from a group's
    rewards to its advantages (`list[float | None]`; None: not trained on). `pass_k` is the k of `pass_at_k`. `whiten`:
    minus the mean, over the deviation, over all tokens of the rollout (REINFORCE++). `length_penalty` weighs Kimi
    k1.5's reward for short answers, which is added to the rewards.

    Ratio. `token`, or `sequence` (GSPO equation 7: the exponential of the mean log ratio), or `sequence_token`, which
    has GSPO's value and lets each token carry its own gradient (GSPO-token, equations 13-14).

    Objective. `clip` is PPO's min(rho A, clip(rho) A) with clip to [1 - clip_low, 1 + clip_high]; with `dual_clip` = c,
    rho counts as at most c if A < 0 (arXiv 1912.09729 equation 5). `clipped_weight` is CISPO's sg[clip(rho)] A log pi
    (MiniMax-M1 equation 4). `reinforce` is -A log pi. `soft` is SAPO's 4/tau sigmoid(tau (rho - 1)) A, with tau of
    `soft_temperatures` for A > 0 and for all other tokens (arXiv 2511.20347). `geometric` is GMPO's exp(mean log rho) A
    with each log rho clipped to [-clip_low, clip_high] before the mean (arXiv 2507.20673).

    Aggregate. `sequence` means 1/G sum_i 1/|o_i| sum_t, `token` divides by all tokens of the update (DAPO equation 8),
    `fixed` by sequences x max_tokens (Dr. GRPO appendix G).

    Regularisation. `kl_coef` is beta; 0 drops the reference model. `kl_estimator` is Schulman's k1, k2 or k3, or
    `unbiased`: k3 times the ratio (DeepSeek-V3.2 equation 7). `entropy` and `covariance` have classes of their own.

    Masks and weights, without a gradient. `off_policy_delta`: a sequence with A < 0 is not trained on if the mean of
    log pi_sampler - log pi exceeds it (V3.2 equation 9). For engines that are not the learner, the loss is weighted by
    w = pi_old / pi_sampler, per token or per sequence (`importance_level`): `truncated_importance` is the cap C of
    min(w, C), `masked_importance` the interval outside of which w counts as 0 (IcePop, MIS).

    `loss` names a function of your own from these settings to a `Loss`.
    """

    loss: str = Field("", description="dotted path of a loss of your own; '': the policy loss of these settings")
    baseline: str = "group_std"
    pass_k: int = Field(4, ge=1)
    whiten: bool = False
    length_penalty: float = Field(0.0, ge=0)
    ratio: Literal["token", "sequence", "sequence_token"] = "token"
    objective: Literal["clip", "clipped_weight", "reinforce", "soft", "geometric"] = "clip"
    aggregate: Literal["sequence", "token", "fixed"] = "sequence"
    clip_low: float = Field(0.2, ge=0)
    clip_high: float = Field(0.2, ge=0)
    dual_clip: float | None = Field(None, gt=1)
    soft_temperatures: tuple[float, float] = (1.0, 1.05)
    kl_coef: float = Field(0.0, ge=0)
    kl_estimator: Literal["k1", "k2", "k3", "unbiased"] = "k3"
    reference_refresh: int = Field(
        0, ge=0, description="replace the reference by the policy every N updates; 0 = never"
    )
    entropy: EntropyBonus | None = None
    covariance: HighCovariance | None = None
    off_policy_delta: float | None = Field(None, gt=0)
    truncated_importance: float | None = Field(None, gt=0)
    masked_importance: tuple[float, float] | None = None
    importance_level: Literal["token", "sequence"] = "token"
    dynamic_sampling: int = Field(0, ge=0, description="extra rounds of sampling that replace zero-variance groups")

    @property
    def weighs_importance(self) -> bool:
        """Whether the learner's own log-probs are compared with the sampler's."""
        return self.truncated_importance is not None or self.masked_importance is not None

    @property
    def trains_all(self) -> bool:
        """Whether a sample with advantage 0 may have a gradient. A loss of your own may need any sample."""
        return bool(self.kl_coef or self.loss or self.entropy or self.covariance)

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
        if self.dynamic_sampling and (self.baseline == "none" or self.length_penalty):
            cause = "a length penalty" if self.length_penalty else "baseline 'none'"
            raise ValueError(
                f"dynamic_sampling replaces groups of equal rewards, which have a gradient with {cause}: set it to 0"
            )
        if self.objective == "reinforce" and self.ratio != "token":
            raise ValueError("objective 'reinforce' has no ratio: set ratio to 'token'")
        if self.objective == "geometric" and self.ratio != "token":
            raise ValueError("objective 'geometric' takes the mean of the tokens' ratios itself: set ratio to 'token'")
        if self.covariance and self.ratio != "token":
            raise ValueError("covariance chooses among tokens: set ratio to 'token'")
        if self.dual_clip is not None and self.dual_clip < 1 + self.clip_high:
            raise ValueError(f"dual_clip bounds ratios above 1 + clip_high: set it to at least {1 + self.clip_high:g}")
        if min(self.soft_temperatures) <= 0:
            raise ValueError(f"soft_temperatures are {self.soft_temperatures}: both must be above 0")
        if self.masked_importance and not 0 <= self.masked_importance[0] < 1 < self.masked_importance[1]:
            raise ValueError("masked_importance is an interval around 1, such as [0.5, 5.0]")
        if self.masked_importance and self.truncated_importance is not None:
            raise ValueError("truncated_importance and masked_importance bound the same weight: set one of them")
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
    # DeepSeek-V3.2 section 3.1, which gives neither beta nor delta: R1's beta, and the delta of TRL's documentation
    "v3_2": GRPOSettings(baseline="group_mean", kl_coef=0.001, kl_estimator="unbiased", off_policy_delta=0.5),
    "dr_grpo": GRPOSettings(baseline="group_mean", aggregate="fixed"),
    "dapo": GRPOSettings(aggregate="token", clip_high=0.28, dynamic_sampling=3),
    "gspo": GRPOSettings(ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    "gspo_token": GRPOSettings(ratio="sequence_token", clip_low=3e-4, clip_high=4e-4),
    "gmpo": GRPOSettings(objective="geometric", clip_low=0.4, clip_high=0.4),
    "sapo": GRPOSettings(objective="soft"),
    "cispo": GRPOSettings(objective="clipped_weight", aggregate="token", clip_low=1.0, clip_high=4.0),
    # the log-prob of a whole completion is a sum over its tokens: any division by its own length would not be RLOO
    "rloo": GRPOSettings(baseline="leave_one_out", objective="reinforce", aggregate="fixed"),
    "reinforce_pp": GRPOSettings(baseline="none", whiten=True, aggregate="token"),
    "reinforce_pp_baseline": GRPOSettings(baseline="group_mean", whiten=True, aggregate="token"),
    "dual_clip": GRPOSettings(dual_clip=3.0),
    "clip_cov": GRPOSettings(aggregate="token", covariance=HighCovariance(kind="clip")),
    # KL-Cov has no clip: the ratio cannot leave these bounds
    "kl_cov": GRPOSettings(aggregate="token", clip_low=1.0, clip_high=1e6, covariance=HighCovariance(kind="kl")),
    "entropy": GRPOSettings(entropy=EntropyBonus(coef=0.001)),
    "adaptive_entropy": GRPOSettings(aggregate="token", entropy=EntropyBonus(target=0.2)),
    "short": GRPOSettings(length_penalty=0.1),
    "pass_at_k": GRPOSettings(baseline="pass_at_k"),
    "pass_at_group": GRPOSettings(baseline="best_of_group"),
    "icepop": GRPOSettings(aggregate="token", masked_importance=(0.5, 5.0)),
    "mis": GRPOSettings(masked_importance=(0.0, 3.0), importance_level="sequence"),
}
