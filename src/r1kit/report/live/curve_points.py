"""Curves for a screen: the plots of the report, with about as many points as there are pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1kit.report.curve_svg import first_and_last, smoothed
from r1kit.report.curves import Plot, plots, points_of
from r1kit.report.health.course import stopped_at
from r1kit.report.metrics import Metrics, Points

MAX_POINTS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One metric in columns: steps, values, and the smoothed values at the same steps.

    `ends` are its figures, as in the verdict: see `first_and_last`; the second is None if it is no longer logged.
    """

    metric: str
    label: str
    steps: Sequence[float]
    values: Sequence[float]
    smooth: Sequence[float]
    ends: tuple[float, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotCurves:
    """The curves that share a plot of `report.curves`."""

    title: str
    note: str
    is_share: bool
    exact: bool
    series: Sequence[Curve]


def plot_curves(metrics: Metrics, since: float, points: int) -> list[PlotCurves]:
    """All plots that have a point after the step `since`, each curve with at most `points` of them."""
    drawn = []
    for plot in plots(metrics.names()):
        curves = [curve_of(metrics, plot, name, since, points) for name in plot.metrics]
        if present := [curve for curve in curves if curve is not None]:
            drawn.append(
                PlotCurves(title=plot.title, note=plot.note, is_share=plot.is_share, exact=plot.exact, series=present)
            )
    return drawn


def curve_of(metrics: Metrics, plot: Plot, name: str, since: float, points: int) -> Curve | None:
    """None if the metric has no value after `since`. The whole course is smoothed, so that a part continues it."""
    course = points_of(metrics, name)
    smooth = smoothed([value for _, value in course], plot.exact)
    first = next((place for place, (step, _) in enumerate(course) if step > since), len(course))
    if first == len(course):
        return None
    start, end = first_and_last([value for _, value in course], plot.exact)
    kept = [first + place for place in thinned(course[first:], points)]
    return Curve(
        metric=name,
        label=plot.metrics[name],
        steps=[course[place][0] for place in kept],
        values=[course[place][1] for place in kept],
        smooth=[smooth[place] for place in kept],
        ends=(start, end if stopped_at(metrics, name) is None else None),
    )


def thinned(course: Points, points: int) -> list[int]:
    """Places of at most `points` points: lowest and highest of each of equal parts, so no spike is lost."""
    points = max(4, min(points, MAX_POINTS))
    if len(course) <= points:
        return list(range(len(course)))
    parts = points // 2 - 1  # the first and the last point are always kept
    kept = {0, len(course) - 1}
    for part in range(parts):
        places = range(part * len(course) // parts, (part + 1) * len(course) // parts)
        kept |= {min(places, key=lambda place: course[place][1]), max(places, key=lambda place: course[place][1])}
    return sorted(kept)
