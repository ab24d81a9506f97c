"""The table of stages: models across, the paper's measures down, with paired tests between all columns.

Rows come from all evaluations of a run. Problems give accuracy, format, language, readability and length; every other
evaluation gives one row per source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from statistics import fmean, variance
from typing import Any

from r1kit.evaluate.intervals import critical
from r1kit.evaluate.statistics import Difference, Estimate, difference, estimates, group, holm, values
from r1kit.evaluate.table import align, show
from r1kit.report.compare import Comparison, column_of
from r1kit.report.folders import StageFolder

# Row titles for evaluations of requests, by the last part of the source; other sources are their own title.
MEASURES = {
    "general": "helpfulness",
    "instructions": "follows instructions",
    "harmful": "refuses the harmful",
    "harmless": "answers the harmless",
}
OVERALL = {
    "pass@1": "accuracy",
    "format": "format kept",
    "language": "language consistency",
    "mixed": "mixes languages",
    "readable": "readable",
    "reasoning_tokens": "reasoning tokens",
}
SIGNIFICANT = 0.05  # family-wise: over the changes of one row
MAX_COLUMNS = 5  # side by side in a terminal
FOOTNOTE = (
    "[95 % interval, clustered by problem]; * differs from the column before, p < 0.05 after Holm's correction over "
    "the row's comparisons"
)


@dataclass(frozen=True)
class TableRow:
    """One measure of every model. `per_problem` holds each column's value by problem, which differences pair."""

    title: str
    metric: str
    cells: Mapping[str, Estimate]
    per_problem: Mapping[str, Mapping[str, float]]

    def change(self, before: str, after: str) -> Difference | None:
        """After minus before, on the problems that have a value in both columns; None if there are none."""
        old, new = self.per_problem.get(before, {}), self.per_problem.get(after, {})
        shared = [name for name in old if name in new]
        return difference(self.metric, [new[name] - old[name] for name in shared]) if shared else None

    def retained(self, teacher: str, student: str) -> tuple[float, float, float] | None:
        """The student's mean over the teacher's, with the 95 % interval of the ratio (delta method).

        None with fewer than two shared problems, or if the teacher's mean is 0.
        """
        old, new = self.per_problem.get(teacher, {}), self.per_problem.get(student, {})
        shared = [name for name in old if name in new]
        mean = fmean(old[name] for name in shared) if shared else 0.0
        if len(shared) < 2 or not mean:
            return None
        ratio = fmean(new[name] for name in shared) / mean
        spread = variance([new[name] - ratio * old[name] for name in shared])
        margin = critical(len(shared) - 1) * math.sqrt(spread / len(shared)) / mean
        return ratio, max(0.0, ratio - margin), ratio + margin


@dataclass(frozen=True)
class ColumnChange:
    """A cell's change from the column before. `p_holm` is corrected for all such changes of its row."""

    difference: Difference
    p_holm: float

    @property
    def is_clear(self) -> bool:
        return self.p_holm < SIGNIFICANT


@dataclass(frozen=True)
class StageTable:
    """Columns are models in the order of the recipe; columns after `teacher`, if one is named, are its students."""

    columns: Sequence[str]
    rows: Sequence[TableRow]
    teacher: str = ""

    @cached_property
    def changes(self) -> list[dict[str, ColumnChange]]:
        """For each row, the change from the column before, by column."""
        by_row = []
        for row in self.rows:
            steps = {after: row.change(before, after) for before, after in pairwise(self.columns)}
            tested = {name: step for name, step in steps.items() if step is not None}
            corrected = holm([step.p_value for step in tested.values()])
            by_row.append({name: ColumnChange(tested[name], p) for name, p in zip(tested, corrected, strict=True)})
        return by_row

    @cached_property
    def students(self) -> list[str]:
        return list(self.columns[self.columns.index(self.teacher) + 1 :]) if self.teacher in self.columns else []

    @cached_property
    def retention(self) -> dict[str, dict[str, tuple[float, float, float] | None]]:
        """By row of accuracy and by student: the share of the teacher's accuracy that the student keeps."""
        rows = [row for row in self.rows if row.title.startswith(OVERALL["pass@1"])] if self.students else []
        return {row.title: {name: row.retained(self.teacher, name) for name in self.students} for row in rows}


def stage_table(comparisons: Sequence[Comparison], teacher: str = "") -> StageTable | None:
    """The table of a run; None if the run has a single evaluation, or a single pair."""
    if not comparisons or (len(comparisons) == 1 and len(comparisons[0].stages) < 3):
        return None
    main, *others = comparisons
    overall = {metric: table_row(title, metric, main.stages) for metric, title in OVERALL.items()}
    rows = [overall.pop("pass@1")]
    if len(names := sources_of(main.stages)) > 1:
        rows += [table_row(f"accuracy {name}", "pass@1", main.stages, name) for name in names]
    rows += overall.values()
    for other in others:
        for name in sources_of(other.stages):
            title = MEASURES.get(name.rpartition("/")[2], name or "others")
            rows.append(table_row(title, "pass@1", other.stages, name))
    columns = list(dict.fromkeys(column_of(stage) for comparison in comparisons for stage in comparison.stages))
    return StageTable(columns, [row for row in rows if row.cells], teacher)


def sources_of(stages: Sequence[StageFolder]) -> list[str]:
    return sorted({row.source for stage in stages for row in stage.scored})


def table_row(title: str, metric: str, stages: Sequence[StageFolder], source: str | None = None) -> TableRow:
    """One metric of every stage, on the problems of one source if it is given."""
    cells, per_problem = {}, {}
    for stage in stages:
        rows = [row for row in stage.scored if source is None or row.source == source]
        problems = group(rows) if rows else {}
        if (estimate := estimates(problems, 1).get(metric)) is not None:
            cells[column_of(stage)] = estimate
            known = {name: values(samples, 1).get(metric) for name, samples in problems.items()}
            per_problem[column_of(stage)] = {name: value for name, value in known.items() if value is not None}
    return TableRow(title, metric, cells, per_problem)


def stage_table_text(table: StageTable) -> str:
    """For the terminal: `98.1 % [97.0, 98.8] *`, a wide table as several that fit beside their titles."""
    lines = [["", *table.columns]]
    for row, changes in zip(table.rows, table.changes, strict=True):
        cells = {name: show(estimate, row.metric) for name, estimate in row.cells.items()}
        stars = {name: " *" for name, change in changes.items() if change.is_clear}
        lines.append([row.title, *(cells.get(name, "") + stars.get(name, "") for name in table.columns)])
    count = math.ceil(len(table.columns) / MAX_COLUMNS)
    width = math.ceil(len(table.columns) / count)
    starts = range(1, 1 + len(table.columns), width)
    blocks = [align([[line[0], *line[start : start + width]] for line in lines]) for start in starts]
    retention = [align(retention_table(table))] if table.students else []
    return "\n\n".join([*blocks, FOOTNOTE, *retention])


def retention_table(table: StageTable) -> list[list[str]]:
    """The share of the teacher's accuracy that students keep, as text; empty if there are no students."""
    rows = []
    for title, by_student in table.retention.items():
        shares = [share and tuple(100 * bound for bound in share) for share in by_student.values()]
        rows.append([title, *("{:.1f} % [{:.1f}, {:.1f}]".format(*share) if share else "" for share in shares)])
    return [[f"kept of {table.teacher}'s", *table.students], *rows] if table.students else []


def stage_table_json(table: StageTable) -> dict[str, Any]:
    """For programs: estimates by row and column, the paired difference of every two columns, and the retention.

    Differences from the column before, which stars are about, have `p_holm` too.
    """
    rows = []
    for row, changes in zip(table.rows, table.changes, strict=True):
        differences: list[dict[str, Any]] = []
        for before, after in combinations(table.columns, 2):
            if (change := row.change(before, after)) is not None:
                differences.append({"from": before, "to": after, "difference": change})
                if (before, after) in pairwise(table.columns):
                    differences[-1]["p_holm"] = changes[after].p_holm
        rows.append({"title": row.title, "metric": row.metric, "cells": dict(row.cells), "differences": differences})
    retention = {
        title: {
            name: dict(zip(("share", "low", "high"), share, strict=True)) for name, share in by_student.items() if share
        }
        for title, by_student in table.retention.items()
    }
    return {"columns": list(table.columns), "rows": rows, "teacher": table.teacher, "retention": retention}
