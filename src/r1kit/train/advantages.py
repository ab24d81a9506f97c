"""Advantages from rewards: baselines of a group that replace a value model, and what shapes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import comb

BASELINES = ("group_std", "group_mean", "leave_one_out", "none", "pass_at_k", "best_of_group")
STD_EPS = 1e-4  # added to the standard deviation of a group's rewards, as in TRL
WHITEN_EPS = 1e-8  # added to the variance


def advantages(rewards: Sequence[float | None], baseline: str = "group_std", pass_k: int = 4) -> list[float | None]:
    """One advantage per rollout of a group. A reward of None gives None, and the baseline does not count it.

    `group_std`: (r - mean) / (std + 1e-4), sample standard deviation (DeepSeekMath section 4.1; R1 equation 3; TRL's
    convention). `group_mean`: r - mean (Dr. GRPO section 3.2). `leave_one_out`: r_i - mean of the others (RLOO).
    `none`: r (REINFORCE++, which whitens it). `pass_at_k` and `best_of_group`: see the functions of these names.
    `advantages([1.0, 0.0], "group_mean") == [0.5, -0.5]`. Equal rewards give 0 (except with `none`), and so does a
    single reward. Raises ValueError for a group of fewer than two rollouts.
    """
    assert baseline in BASELINES, baseline
    if len(rewards) < 2:
        raise ValueError(f"a group of {len(rewards)} rollout(s) has no baseline: group_size must be at least 2")
    if baseline == "none":
        return list(rewards)
    known = [reward for reward in rewards if reward is not None]
    if len(known) < 2 or max(known) == min(known):  # exactly 0: (r - mean) / eps could be a rounding error
        return [None if reward is None else 0.0 for reward in rewards]
    if baseline in ("pass_at_k", "best_of_group"):
        values = iter(pass_at_k(known, pass_k) if baseline == "pass_at_k" else best_of_group(known))
        return [None if reward is None else next(values) for reward in rewards]
    mean = math.fsum(known) / len(known)  # fsum is exact, so the order of the group makes no difference
    scale = 1.0  # group_mean: a division by std would give very easy and very hard problems more weight (Dr. GRPO)
    if baseline == "group_std":
        # n - 1, as TRL divides; the paper does not say which
        scale = 1.0 / (math.sqrt(math.fsum((r - mean) ** 2 for r in known) / (len(known) - 1)) + STD_EPS)
    elif baseline == "leave_one_out":
        scale = len(known) / (len(known) - 1)  # r_i - mean of the others = (r_i - mean) * n / (n - 1)
    return [None if reward is None else (reward - mean) * scale for reward in rewards]


def pass_at_k(rewards: Sequence[float], k: int) -> list[float]:
    """(R_i - R) / sigma, of the best reward among k rollouts (arXiv 2508.10751 section 2.4, for any rewards).

    R and sigma are the mean and deviation of that best reward over all subsets of size k, R_i its mean over those that
    contain rollout i. With rewards 0 and 1, R is the unbiased estimate of pass@k. If every subset has the same best
    reward, all advantages are 0: with k = len(rewards), or fewer than k wrong rollouts.
    """
    n, order = len(rewards), sorted(range(len(rewards)), key=rewards.__getitem__)
    if k >= n:
        return [0.0] * n
    ranked = [rewards[index] for index in order]  # ascending; place j is the best of C(j, k - 1) subsets
    weights = [comb(j, k - 1) / comb(n, k) for j in range(n)]
    mean = math.fsum(w * r for w, r in zip(weights, ranked, strict=True))
    variance = math.fsum(w * (r - mean) ** 2 for w, r in zip(weights, ranked, strict=True))
    values = [0.0] * n
    if len({r for w, r in zip(weights, ranked, strict=True) if w}) > 1:  # otherwise variance is 0, or rounding
        for place, index in enumerate(order):
            # among the C(n - 1, k - 1) subsets with this rollout: those in which it is the best, and those in which one
            # at place j above it is
            above = math.fsum(comb(j - 1, k - 2) * ranked[j] for j in range(place + 1, n)) if k > 1 else 0.0
            mean_with = (comb(place, k - 1) * ranked[place] + above) / comb(n - 1, k - 1)
            values[index] = (mean_with - mean) / math.sqrt(variance)
    return values


def best_of_group(rewards: Sequence[float]) -> list[float]:
    """The best reward minus the best of the others: above 0 for a single best rollout only (arXiv 2503.19595)."""
    first, second = sorted(rewards, reverse=True)[:2]
    return [first - second if reward == first else 0.0 for reward in rewards]


def whiten(values: Sequence[float], lengths: Sequence[int]) -> list[float]:
    """Values minus their mean, over their deviation, counted once per token: `lengths` tokens have each value.

    REINFORCE++ (arXiv 2501.03262 equation 9). Equal values give 0.
    """
    total = sum(lengths)
    counted = [value for value, length in zip(values, lengths, strict=True) if length]
    if total < 2 or max(counted) == min(counted):
        return [0.0] * len(values)
    mean = math.fsum(v * n for v, n in zip(values, lengths, strict=True)) / total
    variance = math.fsum(n * (v - mean) ** 2 for v, n in zip(values, lengths, strict=True)) / (total - 1)
    return [(value - mean) / math.sqrt(variance + WHITEN_EPS) for value in values]


def length_rewards(lengths: Sequence[int], right: Sequence[bool]) -> list[float]:
    """Kimi k1.5's reward for short answers of a group (section 2.3.3): 0.5 - (len - min) / (max - min) in [-0.5, 0.5].

    A wrong answer gets at most 0, so being short does not pay for it. Equal lengths give 0.
    """
    shortest, longest = min(lengths), max(lengths)
    if shortest == longest:
        return [0.0] * len(lengths)
    values = [0.5 - (length - shortest) / (longest - shortest) for length in lengths]
    return [value if is_right else min(0.0, value) for value, is_right in zip(values, right, strict=True)]
