"""Which evaluations can be set side by side, what changed between the first and the last, and how to say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from r1kit.evaluate.statistics import Difference, Estimate, Summary, is_share, paired, paired_by_source
from r1kit.evaluate.table import metric_order, number, show_difference, show_p, signed
from r1kit.report.folders import Stage

TITLES = {
    "format": "format kept",
    "language": "language consistency",
    "reasoning_tokens": "reasoning tokens",
    "completion_tokens": "completion tokens",
    "steps": "reasoning steps",
    "mixed": "languages mixed",
    "truncated": "cut off",
    "unknown": "verifier cannot tell",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What changed from one model to the next one, paired by problem."""

    before: str
    after: str
    differences: Mapping[str, Difference]
    by_source: Mapping[str, Mapping[str, Difference]]

    def told(self) -> dict[str, tuple[str, Difference]]:
        """The changes that are shown, by title, each with its metric: accuracy by source where there are several."""
        overall = ("pass@1", "format", "mixed", "reasoning_tokens")
        rows = {TITLES.get(name, name): (name, self.differences[name]) for name in overall if name in self.differences}
        if len(self.by_source) > 1:
            named = {f"pass@1 {name}": found for name, found in self.by_source.items() if "pass@1" in found}
            rows |= {title: ("pass@1", found["pass@1"]) for title, found in named.items()}
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Evaluations of one problem set in order; `differences` are last minus first, empty for a single one.

    `changes` go from each column to the next, where there are more than two.
    """

    stages: Sequence[Stage]
    summaries: Mapping[str, Summary]
    differences: Mapping[str, Difference]
    by_source: Mapping[str, Mapping[str, Difference]]
    changes: Sequence[Change] = ()

    @property
    def problems(self) -> int:
        return next(iter(self.summaries.values())).problems


def comparisons(stages: Sequence[Stage]) -> list[Comparison]:
    """Evaluate stages grouped by their problems, so that only like is compared with like; the largest group first."""
    groups: dict[object, list[Stage]] = {}
    for stage in stages:
        if stage.kind == "evaluate" and stage.summary:
            # without rows (only results.json kept) nothing says which problems it were: the stage stands alone; names
            # alone do not tell, as data sets number each split, and a file that was changed, from 0
            key = frozenset((row["problem_id"], row.get("question")) for row in stage.completions) or stage.name
            groups.setdefault(key, []).append(stage)
    return sorted((compare(group) for group in groups.values()), key=lambda found: -len(found.stages))


def compare(stages: Sequence[Stage]) -> Comparison:
    first, last = stages[0].scored, stages[-1].scored
    several = len(stages) > 1
    differences = paired(first, last) if several else {}
    by_source = paired_by_source(first, last) if several else {}
    summaries = {column(stage): stage.summary for stage in stages if stage.summary}
    changes = [change(before, after) for before, after in pairwise(stages)] if len(stages) > 2 else []
    return Comparison(stages=stages, summaries=summaries, differences=differences, by_source=by_source, changes=changes)


def until(comparison: Comparison, last: str) -> Comparison:
    """The columns up to one; all of them where there is none of that name."""
    names = [column(stage) for stage in comparison.stages]
    if last not in names[:-1]:
        return comparison
    return compare(comparison.stages[: names.index(last) + 1])


def change(before: Stage, after: Stage) -> Change:
    return Change(
        before=column(before),
        after=column(after),
        differences=paired(before.scored, after.scored),
        by_source=paired_by_source(before.scored, after.scored),
    )


def column(stage: Stage) -> str:
    """A stage's name as a column: `everyday/zero` is the column `zero` of another table."""
    return stage.name.rpartition("/")[2]


def change_lines(comparison: Comparison) -> list[list[str]]:
    """The changes from column to column as text: a line for each, under a line of titles."""
    rows = [(f"{one.before} -> {one.after}", one.told()) for one in comparison.changes]
    titles = list(dict.fromkeys(title for _, told in rows for title in told))
    shown = [
        [name, *(show_difference(told[title][1], told[title][0]) if title in told else "" for title in titles)]
        for name, told in rows
    ]
    return [["", *titles], *shown] if shown else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """An estimate for the page; `bar` is low, mean, high in per cent of the width, for shares only."""

    mean: str
    interval: str
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One metric across the columns, with the paired difference where there is one."""

    title: str
    cells: Sequence[Cell | None]
    difference: Cell | None = None
    p_value: str = ""
    is_clear: bool = False


def lines(comparison: Comparison, source: str | None = None) -> list[Line]:
    """The page's table, overall or for one source."""
    columns = {
        name: summary.overall if source is None else summary.by_source.get(source, {})
        for name, summary in comparison.summaries.items()
    }
    changes = comparison.differences if source is None else comparison.by_source.get(source, {})
    return [
        line(metric, [column.get(metric) for column in columns.values()], changes.get(metric))
        for metric in metric_order(columns)
    ]


def line(metric: str, estimates: Sequence[Estimate | None], change: Difference | None) -> Line:
    title, cells = TITLES.get(metric, metric), [cell(item, metric) if item else None for item in estimates]
    if change is None:
        return Line(title=title, cells=cells)
    interval = ""
    if change.low is not None and change.high is not None:
        interval = f"{signed(change.low, metric)} to {signed(change.high, metric)}"
    clear = change.low is not None and change.high is not None and not change.low <= 0 <= change.high
    shown = Cell(mean=signed(change.mean, metric), interval=interval)
    return Line(title=title, cells=cells, difference=shown, p_value=show_p(change.p_value), is_clear=clear)


def cell(estimate: Estimate, metric: str) -> Cell:
    mean = number(estimate.mean, metric) + (" %" if is_share(metric) else "")
    if estimate.low is None or estimate.high is None:
        return Cell(mean=mean, interval="")
    interval = f"{number(estimate.low, metric)} \N{EN DASH} {number(estimate.high, metric)}"
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
    low, high = signed(change.low, "pass@1"), signed(change.high, "pass@1")
    span = f"{signed(change.mean, 'pass@1')} points, 95 % interval {low} to {high}"
    went = f"from {100 * first.mean:.1f} % to {100 * last.mean:.1f} %"
    where = f"on {comparison.problems} held-out problems"
    if change.low <= 0 <= change.high:
        return f"No clear change of pass@1 {where}: {went} ({span})."
    return f"pass@1 {'rose' if change.mean > 0 else 'fell'} {went} {where} ({span})."
