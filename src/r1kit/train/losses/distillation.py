"""Distillation from a teacher's distribution over next tokens (Hinton, Vinyals and Dean, section 2), chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from r1kit.models.batch import Batch, Targets, Totals
from r1kit.models.head import Chunk, ChunkLoss
from r1kit.settings import Settings, Weight
from r1kit.train.losses.divergence import SoftTargets, divergence

SofteningTemperature = Annotated[float, Field(gt=0, le=100)]  # Hinton et al. went up to 20; nothing is sampled at it
SoftTargetsOf = Callable[[slice], SoftTargets]  # the teacher's distributions for a slice of a batch's targets


class Teacher(Protocol):
    """A source of soft targets: a model in memory, or stored logits."""

    def targets(self, batch: Batch, temperature: float) -> SoftTargetsOf:
        """The soft targets of a packed row at a temperature; each slice is computed or read when it is asked for."""


def teacher_chunks(
    teacher: Teacher, batch: Batch, temperature: float, size: int, loss: Callable[..., ChunkLoss]
) -> Iterator[Chunk]:
    """All targets of the batch that this rank has, in chunks of at most `size`, with the teacher's distributions.

    `loss(logits, targets=..., soft=...)` is that of a chunk. It is a sum over tokens, so sequences may be split.
    """
    with torch.no_grad():  # the teacher is data
        soft_targets, start = teacher.targets(batch, temperature), 0
    for targets in batch.own_targets.chunks(size, whole=False):
        chunk = slice(start, start + len(targets))
        yield Chunk(targets.positions, partial(loss, targets=targets, soft=soft_targets(chunk)))
        start = chunk.stop


class DistillationSettings(Settings):
    """loss = soft_weight T^2 KL(teacher || student at temperature T) + hard_weight cross-entropy, per trained token.

    T^2 keeps the gradient of the soft part at the size of the hard part's for any T.
    """

    temperature: SofteningTemperature = 3.0
    soft_weight: Weight = Field(0.7, ge=0)
    hard_weight: Weight = Field(0.3, ge=0)

    @model_validator(mode="after")
    def _teaches(self) -> Self:
        if not self.soft_weight and not self.hard_weight:
            raise ValueError("soft_weight and hard_weight are both 0: nothing would be learned; set one above 0")
        return self


@dataclass(frozen=True)
class Distillation:
    """The loss, a `LogitsLoss`; its gradient is formed by hand from the logits of each chunk."""

    settings: DistillationSettings
    teacher: Teacher

    def chunks(self, batch: Batch, totals: Totals, temperature: float, size: int) -> Iterator[Chunk]:
        """See `LogitsLoss`. Raises ValueError for a temperature of the learner: distillation has its own."""
        if temperature != 1.0:
            raise ValueError(f"the learner's temperature is {temperature}: distillation has its own, leave this at 1")
        loss = partial(self._loss, totals=totals)
        return teacher_chunks(self.teacher, batch, self.settings.temperature, size, loss)

    def _loss(self, logits: Tensor, targets: Targets, totals: Totals, soft: SoftTargets) -> ChunkLoss:
        """The loss of a chunk's logits [n, V] and its gradient, by hand."""
        settings, t = self.settings, self.settings.temperature
        kl, grad = divergence(soft, (logits / t).log_softmax(-1), beta=0.0)  # [n], [n, V]
        grad.mul_(settings.soft_weight * t)  # d(T^2 KL) / d(logits) = T (q - p)
        log_q = logits.log_softmax(-1)  # [n, V]; the hard part is at temperature 1
        probs, labels = log_q.exp(), targets.token_ids[:, None]  # [n, V], [n, 1]
        entropy = -torch.dot(probs.view(-1), log_q.view(-1))
        hard = -log_q.gather(1, labels)[:, 0]  # [n], cross-entropy
        probs.scatter_add_(1, labels, -torch.ones_like(hard)[:, None])  # d(cross-entropy) / d(logits) = q - onehot
        grad.add_(probs, alpha=settings.hard_weight).div_(totals.num_tokens)
        # T^2: the gradient of the soft part alone would shrink with 1 / T^2 (Hinton et al., section 2)
        loss = settings.soft_weight * t * t * kl.sum() + settings.hard_weight * hard.sum()
        sums = {"kl": kl.sum(), "cross_entropy": hard.sum(), "entropy": entropy}
        return ChunkLoss(loss / totals.num_tokens, grad, sums)
