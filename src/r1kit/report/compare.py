"""Which evaluations can be set side by side, what changed between the first and the last, and how to say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r1kit.evaluate.statistics import Difference, Estimate, Summary, is_share, paired
from r1kit.evaluate.table import metric_order, show_difference, show_p, signed
from r1kit.report.folders import Stage

TITLES = {
    "format": "format kept",
    "reasoning_tokens": "reasoning tokens",
    "completion_tokens": "completion tokens",
    "steps": "reasoning steps",
    "mixed": "languages mixed",
    "truncated": "cut off",
    "unknown": "verifier cannot tell",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Evaluations of one problem set in order; `differences` are last minus first, empty for a single one."""

    stages: Sequence[Stage]
    summaries: Mapping[str, Summary]
    differences: Mapping[str, Difference]

    @property
    def problems(self) -> int:
        return next(iter(self.summaries.values())).problems


def comparisons(stages: Sequence[Stage]) -> list[Comparison]:
    """Evaluate stages grouped by their problems, so that only like is compared with like; the largest group first."""
    groups: dict[object, list[Stage]] = {}
    for stage in stages:
        if stage.kind == "evaluate" and stage.summary:
            # without rows (only results.json kept) nothing says which problems it were: the stage stands alone
            key = frozenset(row.problem_id for row in stage.scored) or stage.name
            groups.setdefault(key, []).append(stage)
    return sorted((compare(group) for group in groups.values()), key=lambda found: -len(found.stages))


def compare(stages: Sequence[Stage]) -> Comparison:
    differences = paired(stages[0].scored, stages[-1].scored) if len(stages) > 1 else {}
    summaries = {stage.name: stage.summary for stage in stages if stage.summary}
    return Comparison(stages=stages, summaries=summaries, differences=differences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """An estimate for the page; `bar` is low, mean, high in per cent of the width, for shares only."""

    mean: str
    interval: str
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One metric across the columns, with the paired difference as text where there is one."""

    title: str
    cells: Sequence[Cell | None]
    difference: str = ""
    p_value: str = ""
    is_clear: bool = False


def lines(comparison: Comparison, source: str | None = None) -> list[Line]:
    """The page's table, overall or for one source (differences are overall)."""
    columns = {
        name: summary.overall if source is None else summary.by_source.get(source, {})
        for name, summary in comparison.summaries.items()
    }
    found = []
    for metric in metric_order(columns):
        cells = [cell(column[metric], metric) if metric in column else None for column in columns.values()]
        change = comparison.differences.get(metric) if source is None else None
        if change:
            clear = change.low is not None and change.high is not None and (change.low > 0 or change.high < 0)
            texts = {"difference": show_difference(change, metric), "p_value": show_p(change.p_value)}
            found.append(Line(title=TITLES.get(metric, metric), cells=cells, is_clear=clear, **texts))
        else:
            found.append(Line(title=TITLES.get(metric, metric), cells=cells))
    return found


def cell(estimate: Estimate, metric: str) -> Cell:
    scale, unit = (100, " %") if is_share(metric) else (1, "")
    mean = f"{estimate.mean * scale:.1f}{unit}"
    if estimate.low is None or estimate.high is None:
        return Cell(mean=mean, interval="")
    interval = f"{estimate.low * scale:.1f} \N{EN DASH} {estimate.high * scale:.1f}"
    bar = (100 * estimate.low, 100 * estimate.mean, 100 * estimate.high) if is_share(metric) else None
    return Cell(mean=mean, interval=interval, bar=bar)


def sentence(comparison: Comparison) -> str:
    """The finding in one sentence, as careful as the interval."""
    names, change = list(comparison.summaries), comparison.differences.get("pass@1")
    last = comparison.summaries[names[-1]].overall.get("pass@1")
    if last is None:
        return f"No verdict could be given on any of the {comparison.problems} problems."
    if change is None or change.low is None or change.high is None:
        return f"pass@1 is {100 * last.mean:.1f} % on {comparison.problems} problems."
    first = comparison.summaries[names[0]].overall["pass@1"]
    span = f"{signed(100 * change.mean)} points, 95 % interval {signed(100 * change.low)} to {signed(100 * change.high)}"
    went = f"from {100 * first.mean:.1f} % to {100 * last.mean:.1f} %"
    where = f"on {comparison.problems} held-out problems"
    if change.low <= 0 <= change.high:
        return f"No clear change of pass@1 {where}: {went} ({span})."
    return f"pass@1 {'rose' if change.mean > 0 else 'fell'} {went} {where} ({span})."
