"""How well a reward model's scores order held-out pairs and separate labels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from r1kit.numeric import sigmoid, softplus

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence: their mean confidence and their accuracy."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(probabilities: Sequence[float], outcomes: Sequence[bool]) -> list[Bin]:
    """Bins of equal width over the confidence in the likelier outcome, 0.5 to 1; empty ones are left out."""
    rows = [
        # the confidence, and whether it was right: an undecided prediction is half right
        (max(p, 1 - p), 0.5 if p == 0.5 else float((p > 0.5) == outcome))
        for p, outcome in zip(probabilities, outcomes, strict=True)
    ]
    bins = []
    for index in range(BINS):
        low, high = 0.5 + index / (2 * BINS), 0.5 + (index + 1) / (2 * BINS)
        # half-open bins, but the last one holds a confidence of exactly 1
        inside = [row for row in rows if low <= row[0] and (row[0] < high or index == BINS - 1)]
        if inside:
            confidence, accuracy = (statistics.fmean(row[side] for row in inside) for side in (0, 1))
            bins.append(Bin(low, high, len(inside), confidence, accuracy))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, by predictions."""
    total = sum(item.count for item in bins)
    return math.fsum(item.count * abs(item.confidence - item.accuracy) for item in bins) / total


def correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's r; None if either is constant."""
    if len(x) < 2 or min(x) == max(x) or min(y) == max(y):
        return None
    return statistics.correlation(x, y)


def pair_metrics(scores: Sequence[tuple[float, float]], lengths: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """How well scores (chosen, rejected) order held-out pairs.

    `longer_wins` is the accuracy of preferring the longer answer: a model that is no better has learned only length.
    The length correlation is within pairs, of margins with differences in length, so the prompt plays no part.
    """
    margins = [chosen - rejected for chosen, rejected in scores]
    # Bradley-Terry: sigmoid(margin) is the probability that the chosen answer is better (R1 supplement, equation 5)
    bins = reliability([sigmoid(margin) for margin in margins], [True] * len(margins))
    # each pair in both directions: which side comes first must not matter, so both means are 0
    both_margins = [signed for margin in margins for signed in (margin, -margin)]
    both_differences = [sign * (chosen - rejected) for chosen, rejected in lengths for sign in (1.0, -1.0)]
    return {
        "pairs": len(margins),
        "accuracy": statistics.fmean((margin > 0) + 0.5 * (margin == 0) for margin in margins),  # a tie is half right
        "loss": statistics.fmean(softplus(-margin) for margin in margins),  # -log sigmoid(margin)
        "margin": statistics.fmean(margins),
        "calibration_error": calibration_error(bins),
        "length_correlation": correlation(both_margins, both_differences) if len(margins) > 1 else None,
        "longer_wins": statistics.fmean((a > b) + 0.5 * (a == b) for a, b in lengths),
        "reliability": [asdict(item) for item in bins],
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
        "reliability": [asdict(item) for item in bins],
    }


def _auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """The share of (safe, unsafe) pairs that the scores order correctly; None if either kind is missing."""
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
    # Mann-Whitney's U: the rank sum of the safe ones, less its smallest possible value
    above = sum(rank for rank, label in zip(ranks, labels, strict=True) if label) - safe * (safe + 1) / 2
    return above / (safe * unsafe)
