"""Settings of the loops that sample and train."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from r1kit.settings import Settings, Temperature, added, unhashed
from r1kit.train.losses.policy_settings import PRESETS, GRPOSettings
from r1kit.types import SamplingParams
from r1kit.verifiers import find

Share = Annotated[float, Field(ge=0, le=1)]


class RolloutSettings(Settings):
    """Sampling and updates per step: one rollout is `prompts_per_step` x `group_size` completions.

    Each rollout gives `minibatches` x `epochs` updates (the paper: 16 x 1). `truncated`: completions that hit
    `max_tokens` are trained on like all others (`keep`) or left out of the loss (`skip`, DAPO's overlong filter).
    """

    steps: int = Field(40, ge=1)
    prompts_per_step: int = Field(16, ge=1)
    group_size: int = Field(1, ge=1, description="completions per prompt")
    minibatches: int = Field(1, ge=1)
    epochs: int = Field(1, ge=1)
    max_tokens: int = Field(256, ge=1, description="completion tokens")
    temperature: Temperature = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    truncated: Literal["keep", "skip"] = "keep"
    seed: int = 0
    tokens_per_batch: int = unhashed(4096, ge=1, description="packed tokens per forward pass; limits memory")
    checkpoint_every: int = unhashed(10, ge=0)
    keep_checkpoints: int = unhashed(2, ge=2, description="newest checkpoints to keep; more make `r1kit replay` faster")
    rollouts_every: int = unhashed(5, ge=1, description="steps between rollouts on disk")
    samples_every: int = unhashed(10, ge=0, description="steps between samples of completions on the terminal; 0: none")
    max_unknown_rate: Share = unhashed(
        0.1, description="stop if a larger fraction of the verdicts is unknown or failed"
    )
    audit_share: Share = unhashed(0.02, description="fraction of verdicts that a second verifier re-checks")
    audit_verifier: str = unhashed("", description="the second verifier; '' picks `math` for number and text answers")

    @field_validator("audit_verifier")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name:
            find(name)
        return name

    @property
    def steps_ahead(self) -> int:
        """How many steps the sampler's weights are behind: with 1, it samples while the learner updates."""
        return 0

    def sampling(self, step: int, extra_round: int = 0) -> SamplingParams:
        """Sampling parameters with a seed of the step's own, so that a resumed step samples the same completions."""
        return SamplingParams(
            n=self.group_size,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            seed=self.seed * 1_000_003 + step + extra_round * 7_919,  # primes: no two (seed, step, round) meet soon
            # training needs the distribution that was sampled from (DeepSeek-V3.2 section 3.1, keep sampling mask)
            sampling_mask=self.top_p < 1 or self.top_k > 0,
        )


TRUNCATION = 2.0  # of importance weights, if the algorithm sets no bound: that of the paper on truncated sampling


class LoopSettings(RolloutSettings):
    """A rollout's settings with those of GRPO.

    `staleness=1`: the rollout of the next step is sampled while the learner updates, by the weights of the step before.

    `correction`: if another program or older weights sample, log-probs differ from the learner's. Then the ratio is
    taken against the learner's own, and the loss is weighted by min(pi_learner / pi_sampler, 2), or as the algorithm
    says.
    """

    group_size: int = Field(16, ge=2, description="G, completions per prompt; the baseline needs at least 2")
    recompute_old_logprobs: bool = Field(False, description="take the ratio against the learner's own log-probs")
    routing_replay: bool = added(False, description="mixtures of experts: train each token with its sampler's experts")
    algorithm: GRPOSettings = PRESETS["grpo"]
    offload_idle: bool = unhashed(True, description="the reference model waits in main memory while it idles")
    staleness: int = added(0, ge=0, le=1, description="1: sample the next rollout while the learner updates")
    correction: Literal["auto", "off"] = added("auto", description="of what another sampler than the learner sampled")

    @property
    def samples_elsewhere(self) -> bool:
        """Whether the sampler's log-probs may differ from the learner's."""
        return bool(self.staleness) or getattr(self, "servers", None) is not None

    @property
    def steps_ahead(self) -> int:
        return self.staleness

    @property
    def corrected(self) -> Self:
        """The settings with which the learner trains."""
        if self.correction == "off" or not self.samples_elsewhere:
            return self
        algorithm = self.algorithm
        if not algorithm.weighs_importance:
            algorithm = algorithm.replace(truncated_importance=TRUNCATION)
        return self.model_copy(update={"recompute_old_logprobs": True, "algorithm": algorithm})

    def sampling(self, step: int, extra_round: int = 0) -> SamplingParams:
        return replace(super().sampling(step, extra_round), routing=self.routing_replay)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.corrected is not self:
            self.corrected._check("with another sampler than the learner, correction=auto sets it: ")
        else:
            self._check("")
        return self

    def _check(self, why: str) -> None:
        if self.routing_replay and self.samples_elsewhere:
            raise ValueError("servers, and rollouts one step off, return no routing: set routing_replay to false")
        if self.recompute_old_logprobs and self.epochs > 1:
            raise ValueError(f"{why}recompute_old_logprobs works with epochs = 1: later, the old policy is gone")
        algorithm = self.algorithm
        if algorithm.covariance and self.recompute_old_logprobs and self.minibatches > 1:
            raise ValueError(
                f"{why}covariance chooses tokens by the policy before each update, and recompute_old_logprobs prepares "
                "all updates of a rollout before the first: set minibatches to 1, or recompute_old_logprobs to false"
            )
        if algorithm.weighs_importance and not self.recompute_old_logprobs:
            name = "masked_importance" if algorithm.truncated_importance is None else "truncated_importance"
            raise ValueError(f"{name} compares the learner with the sampler: set recompute_old_logprobs to true")
        if algorithm.baseline == "pass_at_k" and algorithm.pass_k >= self.group_size:
            raise ValueError(
                f"pass_k is {algorithm.pass_k} and group_size {self.group_size}: all subsets of k would be one"
            )
