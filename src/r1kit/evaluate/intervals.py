"""95 % intervals for averages over problems: Student's t for amounts, Wilson on the effective sample size for shares.

The completions of one problem are not independent, so the unit is the problem: each has one value (the mean over its
samples), and the standard error comes from the spread of these values. With one value per cluster this *is* the
cluster-robust standard error, and with one sample per problem it is the ordinary one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, stdev

CONFIDENCE = 0.95
NORMAL_FROM = 2000  # degrees of freedom; from here on, t and normal quantiles agree to three digits


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of independent values; needs two or more."""
    return stdev(values) / math.sqrt(len(values))


def two_sided(t: float, df: int) -> float:
    """P(|T| > |t|) for Student's t with `df` degrees of freedom, an integer (Abramowitz and Stegun 26.7.3-4)."""
    if df >= NORMAL_FROM or math.isinf(t):
        return 2 * NormalDist().cdf(-abs(t))
    angle = math.atan(abs(t) / math.sqrt(df))
    cos_squared = math.cos(angle) ** 2
    odd = df % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for n in range(2 + odd, df + 1, 2):
        total += term
        term *= cos_squared * (n - 1) / n
    inside = math.sin(angle) * total
    return max(0.0, 1 - ((angle + inside) * 2 / math.pi if odd else inside))


@lru_cache(maxsize=256)
def critical(df: int) -> float:
    """The t value that |T| exceeds with probability 5 %: 12.706 for df 1, 1.960 for large df."""
    if df >= NORMAL_FROM:
        return NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, df) > 1 - CONFIDENCE else (low, middle)
    return high


def amount_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """mean +- t * standard error for lengths and counts, at least 0; None for a single problem."""
    if len(values) < 2:
        return None
    mean, margin = fmean(values), critical(len(values) - 1) * standard_error(values)
    return max(0.0, mean - margin), mean + margin


def share_interval(values: Sequence[float], draws: int) -> tuple[float, float]:
    """Wilson's score interval at the effective sample size, with the t quantile; `draws` is the number of samples.

    The effective size is the number of independent draws that would have the standard error between problems (as in
    Korn and Graubard's interval for surveys), at most `draws`. At 0 % and 100 % there is no spread, so it is the number
    of problems: no interval has width zero, and that of 0 in 100 reaches up to 4 %. A single problem gives (0, 1).
    """
    problems = len(values)
    if problems < 2:
        return 0.0, 1.0
    share = min(1.0, max(0.0, fmean(values)))
    return wilson(share, effective_size(values, draws), critical(problems - 1))


def effective_size(values: Sequence[float], draws: int) -> float:
    """The effective sample size of `share_interval`; needs two or more problems."""
    share = min(1.0, max(0.0, fmean(values)))
    spread, variance = share * (1 - share), standard_error(values) ** 2
    return min(spread / variance, draws) if variance > 0 else (draws if spread > 0 else len(values))


def clustered_interval(clusters: Sequence[Sequence[float]]) -> tuple[float, float]:
    """`share_interval` for the mean over all values of clusters of different sizes, by the cluster-robust error."""
    draws, count = sum(map(len, clusters)), len(clusters)
    if count < 2:
        return 0.0, 1.0
    share = math.fsum(value for cluster in clusters for value in cluster) / draws
    deviations = [math.fsum(value - share for value in cluster) for cluster in clusters]
    variance = count / (count - 1) * math.fsum(total * total for total in deviations) / draws**2
    spread = share * (1 - share)
    size = min(spread / variance, draws) if variance > 1e-24 else (draws if spread > 0 else count)
    return wilson(share, size, critical(count - 1))


def wilson(share: float, size: float, z: float) -> tuple[float, float]:
    """Wilson's score interval for a share in `size` draws; it always contains the share."""
    shrink = 1 + z * z / size
    centre = (share + z * z / (2 * size)) / shrink
    margin = z * math.sqrt(share * (1 - share) / size + (z / (2 * size)) ** 2) / shrink
    return max(0.0, min(share, centre - margin)), min(1.0, max(share, centre + margin))


def paired_interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Low, high and p-value of a paired t test over problems; needs two or more differences.

    If all problems differ by the same amount, a t test would be certain. Then the interval tells what share of all
    problems may differ at all (Wilson), and the p-value is that of the sign test. No difference at all gives 0, 0, 1.
    """
    mean, error, count = fmean(differences), standard_error(differences), len(differences)
    z = critical(count - 1)
    if error > 1e-12:
        return mean - z * error, mean + z * error, two_sided(mean / error, count - 1)
    if abs(mean) < 1e-12:
        return 0.0, 0.0, 1.0
    least = mean * wilson(1.0, count, z)[0]
    return min(least, mean), max(least, mean), 2.0 ** (1 - count)
