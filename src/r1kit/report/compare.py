"""Evaluations of one problem set side by side, and the paired changes between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from r1kit.evaluate.statistics import Difference, Summary, paired, paired_by_source
from r1kit.evaluate.table import show_difference, signed
from r1kit.report.folders import StageFolder

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
    """The change from one model to the next, paired by problem."""

    before: str
    after: str
    differences: Mapping[str, Difference]
    by_source: Mapping[str, Mapping[str, Difference]]

    def headlines(self) -> dict[str, tuple[str, Difference]]:
        """Title to metric and difference, for the metrics shown; accuracy by source too if there are several."""
        metrics = ("pass@1", "format", "mixed", "reasoning_tokens")
        rows = {TITLES.get(name, name): (name, self.differences[name]) for name in metrics if name in self.differences}
        if len(self.by_source) > 1:
            for source, differences in self.by_source.items():
                if "pass@1" in differences:
                    rows[f"pass@1 {source}"] = ("pass@1", differences["pass@1"])
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Evaluations of one problem set, in order.

    `differences` are last minus first, empty for a single evaluation. `changes` go from each column to the next, for
    three columns or more.
    """

    stages: Sequence[StageFolder]
    summaries: Mapping[str, Summary]
    differences: Mapping[str, Difference]
    by_source: Mapping[str, Mapping[str, Difference]]
    changes: Sequence[Change] = ()

    @property
    def problems(self) -> int:
        return next(iter(self.summaries.values())).problems


def comparisons(stages: Sequence[StageFolder]) -> list[Comparison]:
    """Group evaluations by their problems, so that only like is compared with like; the largest group first."""
    groups: dict[object, list[StageFolder]] = {}
    for stage in stages:
        if stage.kind == "evaluate" and stage.summary:
            # The question belongs to the key: data sets number the problems of every split, and of an edited file,
            # from 0. Without rows (only results.json was kept) the problems are unknown: no comparison.
            key = frozenset((row["problem_id"], row.get("question")) for row in stage.completions) or stage.name
            groups.setdefault(key, []).append(stage)
    return sorted(map(compare, groups.values()), key=lambda comparison: -len(comparison.stages))


def compare(stages: Sequence[StageFolder]) -> Comparison:
    first, last = stages[0].scored, stages[-1].scored
    several = len(stages) > 1
    changes = [
        Change(
            before=column_of(before),
            after=column_of(after),
            differences=paired(before.scored, after.scored),
            by_source=paired_by_source(before.scored, after.scored),
        )
        for before, after in pairwise(stages)
        if len(stages) > 2
    ]
    return Comparison(
        stages=stages,
        summaries={column_of(stage): stage.summary for stage in stages if stage.summary},
        differences=paired(first, last) if several else {},
        by_source=paired_by_source(first, last) if several else {},
        changes=changes,
    )


def until(comparison: Comparison, last: str) -> Comparison:
    """The columns up to `last`; all of them if there is no such column."""
    names = [column_of(stage) for stage in comparison.stages]
    if last not in names[:-1]:
        return comparison
    return compare(comparison.stages[: names.index(last) + 1])


def column_of(stage: StageFolder) -> str:
    """A stage's column: `everyday/zero` is the column `zero` of another table."""
    return stage.name.rpartition("/")[2]


def change_table(comparison: Comparison) -> list[list[str]]:
    """The changes from column to column as text, one row each under a header; empty if there are none."""
    changes = [(f"{change.before} -> {change.after}", change.headlines()) for change in comparison.changes]
    titles = list(dict.fromkeys(title for _, headlines in changes for title in headlines))
    rows = []
    for name, headlines in changes:
        pairs = [headlines.get(title) for title in titles]
        rows.append([name, *(show_difference(pair[1], pair[0]) if pair else "" for pair in pairs)])
    return [["", *titles], *rows] if rows else []


def sentence(comparison: Comparison) -> str:
    """The result in one sentence that claims no more than the interval does."""
    names, change = list(comparison.summaries), comparison.differences.get("pass@1")
    last = comparison.summaries[names[-1]].overall.get("pass@1")
    if last is None:
        return f"The verifier could not judge any of the {comparison.problems} problems."
    if change is None or change.low is None or change.high is None:
        return f"pass@1 is {100 * last.mean:.1f} % on {comparison.problems} problems."
    first = comparison.summaries[names[0]].overall["pass@1"]
    low, high = signed(change.low, "pass@1"), signed(change.high, "pass@1")
    interval = f"{signed(change.mean, 'pass@1')} points, 95 % interval {low} to {high}"
    levels = f"from {100 * first.mean:.1f} % to {100 * last.mean:.1f} %"
    problems = f"on {comparison.problems} held-out problems"
    if change.low <= 0 <= change.high:
        return f"No clear change of pass@1 {problems}: {levels} ({interval})."
    return f"pass@1 {'rose' if change.mean > 0 else 'fell'} {levels} {problems} ({interval})."
