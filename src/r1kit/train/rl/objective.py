"""The objective of a loop that samples and trains: GRPO's, or another one with the same few methods.

The loop samples, scores and steps; an objective turns samples into batches with a loss. `PolicyGradient` is the one of
GRPO and its variants, `rl.teachers.DistillObjective` that of on-policy distillation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from r1kit import ranks
from r1kit.models.batch import Batch, with_column
from r1kit.models.policy_net import AnyLoss
from r1kit.train.learner import Learner
from r1kit.train.losses.covariance import select
from r1kit.train.packing import pack, rank_share
from r1kit.train.rl.algorithm import baseline_of, group_advantages, loss_of
from r1kit.train.rl.entropy import EntropyControl
from r1kit.train.rl.loop_settings import LoopSettings
from r1kit.train.rl.reference import Reference
from r1kit.types import Group, Sample


class LossBatches(NamedTuple):
    """Batches of an update that share a loss: those to train on, and those that are only measured for metrics."""

    loss: AnyLoss
    batches: list[Batch]
    measured: list[Batch]


class Objective(Protocol):
    """The loss of a loop, with the models and rows behind it."""

    learns_from_rewards: bool  # otherwise rewards are only reported, and undecided verdicts stop nothing
    compares_groups: bool  # equal rewards of a group leave it without a gradient
    prepares_ahead: bool  # all minibatches of a rollout are prepared before the first update moves the weights
    extra_rounds: int  # of sampling, which replace groups of equal rewards
    chooses_tokens: bool  # among all tokens of an update, so its rows alone have other gradients
    reference: Reference | None  # of the KL term
    state: dict[str, Any]  # what a checkpoint must hold beside tensors, as JSON
    longest_given: int  # tokens of the longest sample of `given_samples`; 0: there are none

    @property
    def loss(self) -> AnyLoss:
        """The loss that takes the most memory."""

    @property
    def moving_reference(self) -> Mapping[str, Tensor] | None:
        """Tensors of a reference that training replaces, which a checkpoint must hold."""

    def advantages(self, groups: Sequence[Group]) -> list[list[float | None]]:
        """One for each completion of a rollout's groups; None leaves it out of training."""

    def given_samples(self, step: int) -> list[Sample]:
        """Samples of data that the step trains on beside its rollout; they depend on the step alone."""

    def prepare(self, samples: Sequence[Sample]) -> list[LossBatches]:
        """The parts of a minibatch. Their gradients add up."""

    def measure(self, samples: Sequence[Sample]) -> list[LossBatches]:
        """The parts of samples that are not trained on."""

    def after_update(self, means: Mapping[str, float]) -> dict[str, float]:
        """Called after each update with the means over its tokens; returns metrics to log beside them."""

    def after_updates(self, before: int) -> None:
        """Called after each rollout's updates; `before`: the updates done before them."""


class PolicyGradient:
    """GRPO and its variants, with a reference model if there is a KL term.

    The reference is a copy of the learner's policy, so it is made before a checkpoint is loaded. A refreshed reference
    is in the checkpoint and replaces this copy.
    """

    learns_from_rewards = True
    longest_given = 0

    def __init__(self, learner: Learner, settings: LoopSettings) -> None:
        algorithm = settings.algorithm
        self.learner, self.settings = learner, settings
        self.compares_groups = algorithm.baseline != "none" and not algorithm.length_penalty
        # raises here, before any work, for a loss or baseline that cannot be imported
        self._baseline = baseline_of(algorithm)
        self._entropy = None if algorithm.entropy is None else EntropyControl(algorithm.entropy)
        self.state: dict[str, Any] = {} if self._entropy is None else self._entropy.state
        self.loss = loss_of(algorithm, self._entropy)
        self.prepares_ahead, self.extra_rounds = settings.recompute_old_logprobs, algorithm.dynamic_sampling
        self.chooses_tokens = algorithm.covariance is not None
        self.reference: Reference | None = self._new_reference() if algorithm.kl_coef else None

    def advantages(self, groups: Sequence[Group]) -> list[list[float | None]]:
        skips = self.settings.truncated == "skip"
        return group_advantages(groups, self._baseline, self.settings.algorithm, skip_truncated=skips)

    def given_samples(self, step: int) -> list[Sample]:
        return []

    def prepare(self, samples: Sequence[Sample]) -> list[LossBatches]:
        """GRPO without a KL term gives a sample with advantage 0 no gradient, so no backward pass is spent on it; it
        is measured, so that metrics cover every sample."""
        algorithm = self.settings.algorithm
        # the last token stands for all: a completion has one advantage
        trained = [s for s in samples if s.advantages[-1] != 0.0 or algorithm.trains_all]
        measured = [s for s in samples if s.advantages[-1] == 0.0] if len(trained) < len(samples) else []
        batches = self._pack(trained)
        if algorithm.covariance is not None and trained:
            batches = self._with_selected_tokens(batches)
        return [LossBatches(self.loss, batches, self._pack(measured))]

    def measure(self, samples: Sequence[Sample]) -> list[LossBatches]:
        return [LossBatches(self.loss, [], self._pack(samples))]

    def after_update(self, means: Mapping[str, float]) -> dict[str, float]:
        """Adapt the entropy bonus."""
        if self._entropy is None or "entropy" not in means:  # an update without batches
            return {}
        applied = self._entropy()  # before it adapts: the coefficient of the update that is over
        self._entropy.observe(means["entropy"])
        return {"policy/entropy_coef": applied}

    def after_updates(self, before: int) -> None:
        """Replace the reference by the policy every `reference_refresh` updates (R1 section 2.1: 400)."""
        every = self.settings.algorithm.reference_refresh
        # updates come in runs of minibatches x epochs, so a multiple of `every` may be passed inside a step
        if self.reference is not None and every and self.learner.updates // every > before // every:
            self.reference = self._new_reference()

    @property
    def moving_reference(self) -> Mapping[str, Tensor] | None:
        """The reference's tensors if it is ever refreshed, otherwise None."""
        if self.reference is None or not self.settings.algorithm.reference_refresh:
            return None
        return self.reference.tensors

    def _pack(self, samples: Sequence[Sample]) -> list[Batch]:
        """Batches of this rank's share, with the reference's log-probs and, with `recompute_old_logprobs`, the
        learner's own as old ones."""
        batches = pack(rank_share(samples), self.settings.tokens_per_batch, self.learner.model)
        if self.reference is not None:
            batches = with_column(batches, "ref_logprobs", self.reference.logprobs(batches))
        if self.settings.recompute_old_logprobs:  # otherwise the old ones are those that the sampler reported
            batches = with_column(batches, "old_logprobs", self.learner.all_logprobs(batches))
        return batches

    def _with_selected_tokens(self, batches: Sequence[Batch]) -> list[Batch]:
        """The batches with `targets.selected`, the tokens that Clip-Cov or KL-Cov chooses among all of the update.

        The covariance needs the policy's log-probs, which cost a forward pass.
        """
        targets = [batch.targets for batch in batches]
        # back from the packed order to that of the samples, so that neither packing nor ranks change the draw
        sample_of_token = [torch.tensor(batch.order)[batch.targets.sequence_ids().cpu()] for batch in batches]
        order = torch.cat([torch.zeros(0, dtype=torch.int64), *sample_of_token]).argsort(stable=True)  # [N]
        columns = (
            self.learner.all_logprobs(batches),
            [each.old_logprobs for each in targets],
            [each.advantages for each in targets],
        )
        own = torch.stack([torch.cat([torch.zeros(0), *(part.cpu() for part in column)])[order] for column in columns])
        # [3, n] of each share; a share is a run of neighbouring samples, so one after another they are all of them
        shares = ranks.gather_rows(own)
        logprobs, old_logprobs, advantages = torch.cat(shares, dim=1)  # [N of all ranks] each
        # seeded by the update, so a resumed run draws the same tokens
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.learner.updates)
        selected = select(logprobs, old_logprobs, advantages, self.settings.algorithm, generator)
        own_selected = selected.split([share.shape[1] for share in shares])[ranks.rank() // ranks.row_size()]
        marks = torch.empty_like(own[0])
        marks[order] = own_selected  # to the packed order again
        by_batch = marks.to(self.learner.device).split([len(each) for each in targets])
        return with_column(batches, "selected", by_batch)

    def _new_reference(self) -> Reference:
        return Reference(self.learner, idles_off=self.settings.offload_idle)
