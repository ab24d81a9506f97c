"""A metric's course over a run, and a finding on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from r1kit.report.curve_svg import readable_number
from r1kit.report.curves import series
from r1kit.report.folders import Row

Status = Literal["healthy", "attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding: its subject, the status, the numbers behind it, and what to do."""

    name: str
    status: Status
    evidence: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Means over the first tenth and the last quarter of a run (one step at least), and the maximum."""

    first: float
    last: float
    highest: float

    @property
    def growth(self) -> float:
        return self.last / self.first if self.first else math.inf

    @property
    def rise(self) -> float:
        return self.last - self.first


def course(rows: Sequence[Row], metric: str) -> Course | None:
    """None if the metric was not logged."""
    values = [value for _, value in series(rows, metric)]
    if not values:
        return None
    head, tail = max(1, len(values) // 10), max(1, len(values) // 4)
    return Course(first=fmean(values[:head]), last=fmean(values[-tail:]), highest=max(values))


def finding(name: str, bad: bool, evidence: str, advice: str) -> Check:
    """The advice is given only if something is wrong."""
    return Check(name=name, status="attention" if bad else "healthy", evidence=evidence, advice=advice if bad else "")


def below(rows: Sequence[Row], metric: str, name: str, limit: float, advice: str) -> Check | None:
    """A share that should stay below a limit in the last quarter."""
    share = course(rows, metric)
    if not share:
        return None
    evidence = f"{percent(share.last)} in the last quarter (at most {percent(share.highest)}, limit {percent(limit)})"
    return finding(name, share.last > limit, evidence, advice)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def from_to(metric: Course) -> str:
    return f"{readable_number(metric.first)} to {readable_number(metric.last)}"
