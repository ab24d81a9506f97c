"""Differences of many arms to one, over few seeds: paired t tests whose variances learn from each other.

Five differences say little about their own variance. Smyth's moderated t (Statistical Applications in Genetics and
Molecular Biology 3, 2004) takes each variance s² as drawn around a common s0², and estimates from the spread of all of
them how many degrees of freedom d0 the common one is worth: many if the arms are alike, few if they are not. A dozen
arms estimate d0 poorly, so here it is at most that of one arm's own variance: then a bench of 12 arms that do not
differ names one in 3 to 6 % of the cases, however unlike their variances are (tests/test_bench_algorithms.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

from r1kit.evaluate.intervals import critical, two_sided
from r1kit.evaluate.statistics import holm


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmDifference:
    """An arm minus the reference, over seeds, with its 95 % interval; `p_holm` is corrected over all arms."""

    mean: float
    low: float
    high: float
    p_value: float
    p_holm: float
    seeds: int


def compare_arms(values: Mapping[str, Sequence[float]], reference: str) -> dict[str, ArmDifference]:
    """Each arm minus the reference; `values` holds one figure per seed, of the same seeds in the same order.

    Raises ValueError for fewer than two seeds or arms, and for arms of different lengths.
    """
    before = values[reference]
    arms = {name: after for name, after in values.items() if name != reference}
    if len(before) < 2 or not arms:
        raise ValueError(
            f"{len(before)} seeds and {len(arms)} arms beside {reference}: give at least 2 seeds and 1 arm"
        )
    changes = {name: [b - a for a, b in zip(before, after, strict=True)] for name, after in arms.items()}
    own = len(before) - 1  # degrees of freedom of one arm's variance
    common, prior = common_variance([variance(change) for change in changes.values()], own)
    df = int(prior + own)
    tests = {}
    for name, change in changes.items():
        weight = prior / (prior + own)
        error = math.sqrt((weight * common + (1 - weight) * variance(change)) / len(change))
        mean = fmean(change)
        margin = critical(df) * error
        p_value = two_sided(mean / error, df) if error > 0 else float(abs(mean) < 1e-12)
        tests[name] = (mean, mean - margin, mean + margin, p_value)
    corrected = holm([p_value for *_, p_value in tests.values()])
    return {
        name: ArmDifference(mean=mean, low=low, high=high, p_value=p, p_holm=p_holm, seeds=len(before))
        for (name, (mean, low, high, p)), p_holm in zip(tests.items(), corrected, strict=True)
    }


def common_variance(variances: Sequence[float], df: int) -> tuple[float, float]:
    """s0² and its degrees of freedom d0, at most `df`, from variances of `df` degrees each (Smyth 2004, section 6.2).

    One variance alone has none in common with others: d0 is 0.
    """
    if len(variances) == 1:
        return variances[0], 0.0
    least = 1e-5 * median(variances) or 1e-24  # the logarithm of a variance that happens to be 0
    logs = [math.log(max(each, least)) - digamma(df / 2) + math.log(df / 2) for each in variances]
    excess = variance(logs) - trigamma(df / 2)
    if excess <= 0:  # no more spread than equal variances have
        return fmean(variances), float(df)
    prior = 2 * inverse_trigamma(excess)
    return math.exp(fmean(logs) + digamma(prior / 2) - math.log(prior / 2)), min(prior, float(df))


def digamma(x: float) -> float:
    """The derivative of log gamma, for x > 0 (Abramowitz and Stegun 6.3.5, 6.3.18)."""
    shift = 0.0
    while x < 8:
        shift -= 1 / x
        x += 1
    inverse = 1 / (x * x)
    return shift + math.log(x) - 0.5 / x - inverse * (1 / 12 - inverse * (1 / 120 - inverse / 252))


def trigamma(x: float) -> float:
    """The derivative of `digamma`, for x > 0 (Abramowitz and Stegun 6.4.6, 6.4.12)."""
    shift = 0.0
    while x < 8:
        shift += 1 / (x * x)
        x += 1
    inverse = 1 / (x * x)
    return shift + 1 / x + inverse / 2 + inverse / x * (1 / 6 - inverse * (1 / 30 - inverse / 42))


def inverse_trigamma(y: float) -> float:
    """The x > 0 with trigamma(x) = y, by halving: trigamma falls from infinity to 0."""
    low, high = 1e-8, 1e8
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if trigamma(middle) > y else (low, middle)
    return high
