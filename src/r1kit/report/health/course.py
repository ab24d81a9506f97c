"""A metric's course over a run, and a finding on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Literal

from r1kit.report.curve_svg import first_and_last, head_and_tail, readable_number
from r1kit.report.metrics import Metrics

Status = Literal["healthy", "attention", "not applicable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A number that one metric should not pass, and the side on which it should stay; the live page draws it."""

    metric: str
    side: Literal["at most", "at least"]
    value: float

    def is_passed(self, value: float) -> bool:
        return value > self.value if self.side == "at most" else value < self.value


def at_most(metric: str, value: float) -> Bound:
    return Bound(metric=metric, side="at most", value=value)


def at_least(metric: str, value: float) -> Bound:
    return Bound(metric=metric, side="at least", value=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding: its subject, the status, the numbers behind it, what to do, and from where on it is a worry.

    It is not applicable if the run does not do what it looks for: a reward that falls cannot be over-optimised.
    `bounds` are the numbers in `limit` that hold for one metric by itself.
    """

    name: str
    status: Status
    evidence: str
    advice: str = ""
    limit: str = ""
    bounds: Sequence[Bound] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Means over the first tenth and the last quarter of a run (one step at least), and how far they can be trusted.

    `start` is the first value, `highest` the highest one, and `peak` the highest mean over as many steps as `last`.
    `rise_error` and `fall_error` are the standard errors of `last - first` and of `peak - last`, from how far each step
    is from the mean of its two neighbours: a trend does not count as noise.
    """

    start: float
    first: float
    last: float
    highest: float
    peak: float
    rise_error: float
    fall_error: float

    @property
    def growth(self) -> float:
        return self.last / self.first if self.first else math.inf

    @property
    def rise(self) -> float:
        return self.last - self.first

    @property
    def fall(self) -> float:
        return self.peak - self.last

    @property
    def rose(self) -> bool:
        """By more than chance explains."""
        return self.rise > 2 * self.rise_error and self.rise > 0

    def fell(self, share: float) -> bool:
        """From its peak, by more than that share of it and than chance explains: the highest of many means is lucky."""
        return self.fall > max(share * abs(self.peak), 3 * self.fall_error)


def course(metrics: Metrics, metric: str) -> Course | None:
    """None if the metric was not logged."""
    values = metrics.values(metric)
    if not values:
        return None
    head, tail = head_and_tail(len(values))
    first, last = first_and_last(values)
    bends = [a - 2 * b + c for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    sums = [0.0, *accumulate(values)]
    peak_end = max(range(tail, len(values) + 1), key=lambda end: sums[end] - sums[end - tail])
    noise = math.sqrt(fmean(bend**2 for bend in bends) / 6) if bends else math.inf  # 6 = 1 + 4 + 1 variances of a step
    return Course(
        start=values[0],
        first=first,
        last=last,
        highest=max(values),
        peak=fmean(values[peak_end - tail : peak_end]),
        rise_error=noise * math.sqrt(1 / head + 1 / tail),
        fall_error=noise * math.sqrt(2 / tail),
    )


def finding(
    name: str,
    bad: bool,
    evidence: str,
    advice: str = "",
    *,
    limit: str = "",
    bounds: Sequence[Bound] = (),
    is_applicable: bool = True,
) -> Check:
    """The advice is given only if something is wrong, and the bounds only if the check applies."""
    status: Status = "attention" if bad else "healthy" if is_applicable else "not applicable"
    return Check(
        name=name,
        status=status,
        evidence=evidence,
        advice=advice if bad else "",
        limit=limit,
        bounds=bounds if bad or is_applicable else (),
    )


def below(metrics: Metrics, metric: str, name: str, limit: float, advice: str) -> Check | None:
    """A share that should stay below a limit in the last quarter."""
    share = course(metrics, metric)
    if not share:
        return None
    evidence = f"{percent(share.last)} in the last quarter, at most {percent(share.highest)} in a step"
    bound, words = at_most(metric, limit), f"{100 * limit:.0f} % in the last quarter"
    return finding(name, bound.is_passed(share.last), evidence, advice, limit=words, bounds=[bound])


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def is_accuracy(name: str) -> bool:
    """Whether it is shown in percent; other scores may be of any size."""
    return name.endswith("accuracy")


def from_to(metric: Course, is_share: bool = False) -> str:
    return f"{readable_number(metric.first, is_share)} to {readable_number(metric.last, is_share)}"


def best_and_last(metric: Course, is_share: bool = False) -> str:
    """The highest value, as the curve shows it: `peak`, by which a fall is judged, is in no picture."""
    best, last = readable_number(metric.highest, is_share), readable_number(metric.last, is_share)
    return f"{best} at best, {last} in the last quarter"


def stopped_at(metrics: Metrics, metric: str) -> float | None:
    """The last step of a metric that is no longer logged: not in the last quarter, nor for twice its longest gap."""
    steps = [step for step, _ in metrics.series(metric)]
    first, end = metrics.steps[0], metrics.steps[-1]
    gap = max((after - before for before, after in pairwise(steps)), default=0)
    is_over = bool(steps) and steps[-1] < end - (end - first) / 4 and end - steps[-1] > 2 * gap
    return steps[-1] if is_over else None
