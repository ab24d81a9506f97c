"""On-policy distillation: a teacher's distribution over the tokens that the student sampled (Agarwal et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from r1kit.models.batch import Batch, Targets, Totals
from r1kit.models.head import Chunk, ChunkLoss
from r1kit.models.policy_net import Loss, LossOutput, per_token
from r1kit.settings import Settings
from r1kit.train.losses.distillation import Teacher, teacher_chunks
from r1kit.train.losses.divergence import SoftTargets, divergence

BETAS = {"forward": 0.0, "reverse": 1.0}


class OnPolicySettings(Settings):
    """The divergence between teacher and student on the student's own completions, as a mean over all tokens.

    `reverse` is KL(student || teacher), `forward` KL(teacher || student), `jsd` the generalised Jensen-Shannon
    divergence with the teacher's weight `beta`: over the whole vocabulary, or over the teacher's `top_k_tokens` with
    the exact mass of all others. `sampled` needs the log-probs of the sampled tokens only: a policy gradient whose
    advantage at each token is log p_teacher - log p_student, with the gradient of reverse KL on average.
    """

    divergence: Literal["reverse", "forward", "jsd", "sampled"] = "reverse"
    beta: float = Field(0.5, gt=0, lt=1, description="weight of the teacher in the mixture of jsd")
    top_k_tokens: int = Field(0, ge=0, description="tokens of the teacher that are compared; 0: the whole vocabulary")

    @property
    def interpolation(self) -> float:
        """The beta of `losses.divergence`."""
        return BETAS.get(self.divergence, self.beta)


@dataclass(frozen=True)
class OnPolicyDivergence:
    """A divergence over whole distributions, a `LogitsLoss`. Teacher and student have the learner's temperature."""

    settings: OnPolicySettings
    teacher: Teacher
    label: str = ""  # of the teacher, in the names of metrics
    is_sampled: bool = True  # by the student; given samples have no log-probs of a sampler

    def chunks(self, batch: Batch, totals: Totals, temperature: float, size: int) -> Iterator[Chunk]:
        """See `LogitsLoss`."""
        return teacher_chunks(self.teacher, batch, temperature, size, partial(self._loss, totals=totals))

    def _loss(self, logits: Tensor, targets: Targets, totals: Totals, soft: SoftTargets) -> ChunkLoss:
        """The loss of a chunk's logits [n, V] and its gradient, by hand."""
        log_q = logits.log_softmax(-1)  # [n, V]
        value, gradient = divergence(soft, log_q, self.settings.interpolation)  # [n], [n, V]
        sums = {"divergence": value.sum(), "entropy": -torch.dot(log_q.exp().view(-1), log_q.view(-1))}
        if self.is_sampled:
            own = log_q.gather(1, targets.token_ids[:, None])[:, 0]  # [n]
            sums["logprob_gap"] = (own - targets.sampler_logprobs).abs().sum()
        return ChunkLoss(
            value.sum() / totals.num_tokens, gradient.div_(totals.num_tokens), with_label(sums, self.label)
        )


def sampled_divergence(label: str = "") -> Loss:
    """The policy gradient of reverse KL on sampled tokens; `targets.ref_logprobs` are the teacher's log-probs.

    Each token's advantage is log p_teacher - log p_student; on average that has the gradient of KL(student || teacher).
    """

    def loss(logprobs: Tensor, targets: Targets, totals: Totals) -> LossOutput:  # every tensor is [N]
        gap = targets.old_logprobs - targets.ref_logprobs  # minus the advantage, of the policy that sampled: data
        ratio = (logprobs - targets.old_logprobs).exp()  # 1 in the first update of a rollout
        sums = {
            "divergence": gap.sum(),  # the estimate k1 of reverse KL
            "ratio": ratio.detach().sum(),
            "logprob_gap": (logprobs.detach() - targets.sampler_logprobs).abs().sum(),
        }
        return LossOutput((ratio * gap).sum() / totals.num_tokens, with_label(sums, label))

    return per_token(loss)


def with_label(sums: dict[str, Tensor], label: str) -> dict[str, Tensor]:
    """The sums, and with a label the divergence under the teacher's own name too."""
    return sums | ({f"distill/divergence/{label}": sums["divergence"]} if label else {})
