"""Reward models: losses on scores, and how good the scores are on held-out pairs and labels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1kit.models.classify import score_at_ends
from r1kit.rewards.modelled import sigmoid
from r1kit.train.batch import Batch, Totals
from r1kit.train.head import Gradient
from r1kit.train.losses import LossOutput

ScoreLoss = Callable[[Tensor, Batch, Totals], LossOutput]
BINS = 10


@dataclass(frozen=True)
class OfScores:
    """A loss that is a function of each sequence's score, for the learner: `scores` [S] in the batch's order.

    `sequences`: how many make one item of the log, 2 for pairs.
    """

    loss: ScoreLoss
    sequences: int = 1

    def backward(self, model: Any, hidden: Tensor, batch: Batch, totals: Totals, temperature: float) -> Gradient:
        leaf = hidden.detach().requires_grad_()
        with torch.enable_grad():
            output = self.loss(score_at_ends(model, leaf, batch.ends), batch, totals)
            output.loss.backward()
        gradient = torch.zeros_like(hidden) if leaf.grad is None else leaf.grad
        return Gradient(gradient, output.loss.detach(), output.sums, len(batch.order) // self.sequences)


def bradley_terry(center: float = 0.0) -> ScoreLoss:
    """-log sigmoid(chosen - rejected), the mean over pairs (equation 5 of the paper's supplement).

    Sequences come as chosen, rejected, chosen, rejected ... (`pack_together`). `center` pulls the sum of a pair's
    scores to zero, as TRL's `center_rewards_coefficient` does.
    """

    def loss(scores: Tensor, batch: Batch, totals: Totals) -> LossOutput:
        chosen, rejected = scores.view(-1, 2).unbind(1)
        total = -F.logsigmoid(chosen - rejected).sum()
        if center:
            total = total + center * (chosen + rejected).square().sum()
        with torch.no_grad():
            sums = {"accuracy": (chosen > rejected).float().sum(), "margin": (chosen - rejected).sum()}
        return LossOutput(total / totals.num_sequences, sums)

    return loss


def safety(labels: Sequence[bool]) -> ScoreLoss:
    """Binary cross-entropy of sigmoid(score) with "is safe", the mean over responses (equation 6).

    `labels` belong to the samples that were packed.
    """

    def loss(scores: Tensor, batch: Batch, totals: Totals) -> LossOutput:
        wanted = torch.tensor([float(labels[index]) for index in batch.order], device=scores.device)
        total = F.binary_cross_entropy_with_logits(scores, wanted, reduction="sum")
        sums = {"accuracy": ((scores > 0) == (wanted > 0.5)).float().sum()}
        return LossOutput(total / totals.num_sequences, sums)

    return loss


@dataclass(frozen=True)
class Bin:
    """Predictions of about one confidence: how sure they were, and how often they were right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(probabilities: Sequence[float], outcomes: Sequence[bool]) -> list[Bin]:
    """Bins of equal width over the confidence in the likelier outcome, 0.5 to 1; empty ones are left out."""
    rows = [
        (max(p, 1 - p), 0.5 if p == 0.5 else float((p > 0.5) == outcome))  # of no opinion, half is right
        for p, outcome in zip(probabilities, outcomes, strict=True)
    ]
    found = []
    for index in range(BINS):
        low, high = 0.5 + index / (2 * BINS), 0.5 + (index + 1) / (2 * BINS)
        inside = [row for row in rows if low <= row[0] and (row[0] < high or index == BINS - 1)]
        if inside:
            sure, right = (statistics.fmean(row[side] for row in inside) for side in (0, 1))
            found.append(Bin(low, high, len(inside), sure, right))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, by predictions."""
    total = sum(one.count for one in bins)
    return math.fsum(one.count * abs(one.confidence - one.accuracy) for one in bins) / total


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's r; None where one of them does not vary."""
    if len(one) < 2 or min(one) == max(one) or min(other) == max(other):
        return None
    return statistics.correlation(one, other)


def pair_metrics(scores: Sequence[tuple[float, float]], lengths: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """How well scores (chosen, rejected) order held-out pairs.

    `longer_wins` is the accuracy of preferring the longer answer: a model that is no better learned only length. The
    length correlation is within pairs: of margins with differences in length, in which the prompt plays no part.
    """
    margins = [chosen - rejected for chosen, rejected in scores]
    bins = reliability([sigmoid(margin) for margin in margins], [True] * len(margins))
    longer = [float(chosen - rejected) for chosen, rejected in lengths]
    both = [(value, -value) for value in margins], [(value, -value) for value in longer]  # whichever side comes first
    apart, sizes = ([value for pair in one for value in pair] for one in both)
    return {
        "pairs": len(margins),
        "accuracy": statistics.fmean((margin > 0) + 0.5 * (margin == 0) for margin in margins),
        "loss": statistics.fmean(softplus(-margin) for margin in margins),
        "margin": statistics.fmean(margins),
        "calibration_error": calibration_error(bins),
        "length_correlation": correlation(apart, sizes) if len(margins) > 1 else None,
        "longer_wins": statistics.fmean((a > b) + 0.5 * (a == b) for a, b in lengths),
        "reliability": [asdict(one) for one in bins],
    }


def label_metrics(scores: Sequence[float], labels: Sequence[bool], lengths: Sequence[int]) -> dict[str, Any]:
    """How well scores tell safe from unsafe held-out responses; `majority`: accuracy of always saying the same."""
    bins = reliability([sigmoid(score) for score in scores], labels)
    share = statistics.fmean(labels)
    return {
        "responses": len(scores),
        "accuracy": statistics.fmean((score > 0) == label for score, label in zip(scores, labels, strict=True)),
        "majority": max(share, 1 - share),
        "auc": _auc(scores, labels),
        "loss": statistics.fmean(softplus(-s if label else s) for s, label in zip(scores, labels, strict=True)),
        "calibration_error": calibration_error(bins),
        "length_correlation": correlation(scores, [float(length) for length in lengths]),
        "reliability": [asdict(one) for one in bins],
    }


def _auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """The share of (safe, unsafe) couples that the scores order rightly; None where one kind is missing."""
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    ranks, start = [0.0] * len(scores), 0
    while start < len(order):  # equal scores share the mean of their ranks
        stop = start
        while stop < len(order) and scores[order[stop]] == scores[order[start]]:
            stop += 1
        for place in range(start, stop):
            ranks[order[place]] = (start + stop + 1) / 2
        start = stop
    safe, unsafe = sum(labels), len(labels) - sum(labels)
    if not safe or not unsafe:
        return None
    above = sum(rank for rank, label in zip(ranks, labels, strict=True) if label) - safe * (safe + 1) / 2
    return above / (safe * unsafe)


def softplus(value: float) -> float:
    """log(1 + exp(value)) without overflow."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
