"""Balancing: at most N samples per problem, and fixed shares per level of difficulty."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from r1kit.curate.duplicates import similarity
from r1kit.settings import Settings

Rows = NDArray[np.int64]


class BalanceSettings(Settings):
    """At most `per_problem` samples of a problem, then `shares` of pass-rate buckets.

    `edges=(0.25, 0.5, 0.75)` makes four buckets, hardest first; `shares=(0.3, 0.3, 0.2, 0.2)` are their parts of the
    result. Without `size`, the result is the largest with exact shares. With `size` (how many to keep), a bucket
    that is too small gives all it has and the others fill the gap. An empty bucket's share always goes to the others.
    Samples without a pass rate always stay.
    """

    per_problem: int | None = Field(default=4, ge=1)
    choose: Literal["best", "shortest", "diverse"] = Field(
        default="best", description="by quality score; by length; or the most dissimilar ones, starting from the best"
    )
    edges: tuple[float, ...] = (0.25, 0.5, 0.75)
    shares: tuple[float, ...] = Field(default=(), description="one per bucket; empty: do not balance difficulty")
    size: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if any(not low < high for low, high in pairwise((0.0, *self.edges, 1.0))):
            raise ValueError(f"edges are {self.edges}: they must rise, and each must be above 0 and below 1")
        if self.shares and len(self.shares) != len(self.edges) + 1:
            raise ValueError(f"{len(self.shares)} shares for {len(self.edges) + 1} buckets: give one for each")
        if self.shares and (min(self.shares) < 0 or sum(self.shares) <= 0):
            raise ValueError(f"shares are {self.shares}: none can be negative, and one must be above 0")
        if self.size is not None and not self.shares:
            raise ValueError("size has no effect without shares: set shares, or leave it out")
        return self

    def bucket_names(self) -> list[str]:
        return [f"{low:g} to {high:g}" for low, high in pairwise((0.0, *self.edges, 1.0))]


def within_problems(
    order: Rows, problems: NDArray[np.uint64], limit: int, signatures: NDArray[np.uint8] | None = None
) -> Rows:
    """The rows of `order` (best first) to drop beyond `limit` per problem.

    `signatures` given: keep rows unlike each other instead of the first ones. Problem 0 means no problem and has no
    limit.
    """
    ranks = rank_in_groups(problems[order])
    over = (ranks >= limit) & (problems[order] != 0)
    beyond: Rows = order[over]
    if signatures is None:
        return beyond
    dropped = []
    full = np.unique(problems[beyond])
    members = order[np.isin(problems[order], full)]
    grouped = members[np.argsort(problems[members], kind="stable")]
    for group in np.split(grouped, np.flatnonzero(np.diff(problems[grouped])) + 1):
        if len(group):
            dropped.append(np.setdiff1d(group, _most_dissimilar(group, signatures, limit)))
    return np.concatenate([np.zeros(0, np.int64), *dropped])


def rank_in_groups(groups: NDArray[np.uint64]) -> Rows:
    """For each entry, the number of earlier entries of its group."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.append(True, groups[order][1:] != groups[order][:-1]))
    sizes = np.diff(np.append(starts, len(groups)))
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return ranks


def _most_dissimilar(group: Rows, signatures: NDArray[np.uint8], limit: int) -> Rows:
    """Start with the first row; then add the row whose highest similarity to any chosen row is lowest."""
    chosen = [0]
    nearest = similarity(signatures[group[0]], signatures[group])
    while len(chosen) < limit:
        nearest[chosen] = np.inf
        chosen.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, similarity(signatures[group[chosen[-1]]], signatures[group]))
    picked: Rows = group[chosen]
    return picked


def buckets(pass_rates: NDArray[np.float32], edges: Sequence[float]) -> Rows:
    """The bucket of each pass rate, -1 for NaN."""
    bucket = np.searchsorted(np.asarray(edges, dtype=np.float32), pass_rates, side="right")
    return np.where(np.isnan(pass_rates), -1, bucket).astype(np.int64)


def beyond_shares(order: Rows, problems: NDArray[np.uint64], bucket: Rows, settings: BalanceSettings) -> Rows:
    """The rows of `order` (best first) to drop for the shares.

    Every problem's best row comes before any problem's second best.
    """
    available = [int((bucket[order] == index).sum()) for index in range(len(settings.shares))]
    quota = quotas(available, settings.shares, settings.size)
    groups = np.where(problems[order] == 0, np.arange(1, len(order) + 1, dtype=np.uint64), problems[order])
    ranked = order[np.argsort(rank_in_groups(groups), kind="stable")]
    places = rank_in_groups(bucket[ranked].astype(np.uint64))
    room = np.array([*quota, 0])[bucket[ranked]]
    return ranked[(bucket[ranked] >= 0) & (places >= room)]


def quotas(available: Sequence[int], shares: Sequence[float], size: int | None = None) -> list[int]:
    """How many to take of each kind so that the shares hold.

    Without `size`, the result is the largest with exact shares: `quotas([100, 10], [1, 1]) == [10, 10]`. With it, a
    kind that is too small gives all it has and the others fill the gap: `quotas([100, 10], [1, 1], 50) == [40, 10]`.
    The share of an empty kind always goes to the others.
    """
    counts = [0] * len(available)
    open_ones = [index for index, (count, share) in enumerate(zip(available, shares, strict=True)) if count and share]
    if not open_ones:
        return counts
    if size is None:
        total = sum(shares[index] for index in open_ones)
        scale = min(available[index] * total / shares[index] for index in open_ones)
        return _rounded(available, {index: scale * shares[index] / total for index in open_ones})
    size = min(size, sum(available[index] for index in open_ones))
    wanted: dict[int, float] = {}
    while open_ones:
        rest = size - sum(wanted.values())
        total = sum(shares[index] for index in open_ones)
        short = [index for index in open_ones if available[index] <= rest * shares[index] / total]
        wanted |= {index: rest * shares[index] / total for index in open_ones if not short}
        wanted |= {index: float(available[index]) for index in short}
        open_ones = [index for index in open_ones if index not in wanted]
    return _rounded(available, wanted)


def _rounded(available: Sequence[int], wanted: dict[int, float]) -> list[int]:
    """Whole numbers with the same sum: the largest remainders are rounded up."""
    counts = [0] * len(available)
    for index, amount in wanted.items():
        counts[index] = min(available[index], int(amount + 1e-9))
    left = round(sum(wanted.values())) - sum(counts)
    by_remainder = sorted(wanted, key=lambda index: (counts[index] - wanted[index], index))
    for index in [index for index in by_remainder if counts[index] < available[index]][: max(0, left)]:
        counts[index] += 1
    return counts
