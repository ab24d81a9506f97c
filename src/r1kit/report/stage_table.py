"""The table of stages: models across, and down what the paper looks at, with paired tests between all columns.

It gathers rows from all evaluations of a run: problems give accuracy, format, language, readability and length; the
other evaluations give one row for each of their sources.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, variance
from typing import Any

from r1kit.evaluate.intervals import critical
from r1kit.evaluate.statistics import Difference, Estimate, difference, estimates, group, values
from r1kit.evaluate.table import align, show, show_difference, show_p
from r1kit.report.compare import Comparison, column
from r1kit.report.folders import Stage

# What an evaluation of requests measures, by the last part of its problems' source; others show the source itself.
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
CLEAR = 0.05  # p-value below which a change is marked
ACROSS = 5  # columns beside each other in a terminal


@dataclass(frozen=True)
class Row:
    """One measure of every model. `per_problem` are each column's values by problem, which differences pair."""

    title: str
    metric: str
    cells: Mapping[str, Estimate]
    per_problem: Mapping[str, Mapping[str, float]]

    def change(self, before: str, after: str) -> Difference | None:
        """After minus before on the problems that both tell; None where there are none."""
        old, new = self.per_problem.get(before, {}), self.per_problem.get(after, {})
        both = [name for name in old if name in new]
        return difference(self.metric, [new[name] - old[name] for name in both]) if both else None

    def retained(self, teacher: str, student: str) -> tuple[float, float, float] | None:
        """A student's mean over the teacher's, with the 95 % interval of the ratio by the delta method.

        None where fewer than two problems are known of both, or the teacher has nothing to keep.
        """
        old, new = self.per_problem.get(teacher, {}), self.per_problem.get(student, {})
        both = [name for name in old if name in new]
        whole = fmean(old[name] for name in both) if both else 0.0
        if len(both) < 2 or not whole:
            return None
        ratio = fmean(new[name] for name in both) / whole
        spread = variance([new[name] - ratio * old[name] for name in both])
        reach = critical(len(both) - 1) * math.sqrt(spread / len(both)) / whole
        return ratio, max(0.0, ratio - reach), ratio + reach


@dataclass(frozen=True)
class StageTable:
    """Columns are models in the order of the recipe; `retention` compares students with `teacher`, if one is named."""

    columns: Sequence[str]
    rows: Sequence[Row]
    teacher: str = ""

    @cached_property
    def changes(self) -> Mapping[tuple[int, str], Difference]:
        """The change of each row from the column before, by the row's place and the column."""
        found = {}
        for place, row in enumerate(self.rows):
            for before, after in zip(self.columns, self.columns[1:], strict=False):
                if (change := row.change(before, after)) is not None:
                    found[place, after] = change
        return found

    @property
    def students(self) -> list[str]:
        """Columns after the teacher's."""
        return list(self.columns[self.columns.index(self.teacher) + 1 :]) if self.teacher in self.columns else []

    def retention(self) -> list[tuple[str, dict[str, tuple[float, float, float] | None]]]:
        """What students keep of the teacher's accuracy: a line for each row that counts right answers."""
        told = [row for row in self.rows if row.title.startswith(OVERALL["pass@1"])]
        return [(row.title, {name: row.retained(self.teacher, name) for name in self.students}) for row in told]


def stage_table(comparisons: Sequence[Comparison], teacher: str = "") -> StageTable | None:
    """The table of a run; None where one evaluation, or one pair of them, says it all."""
    if not comparisons or (len(comparisons) == 1 and len(comparisons[0].stages) < 3):
        return None
    main, *others = comparisons
    rows = [row for found in (_overall(main), *map(_by_source, others)) for row in found]
    columns = list(dict.fromkeys(column(stage) for found in comparisons for stage in found.stages))
    return StageTable(columns, rows, teacher)


def _overall(found: Comparison) -> list[Row]:
    """Accuracy, over everything and by source, then what the answers look like."""
    whole = {metric: _row(title, metric, found.stages) for metric, title in OVERALL.items()}
    names = _sources(found.stages)
    accuracy = [_row(f"accuracy {name}", "pass@1", found.stages, name) for name in names] if len(names) > 1 else []
    return [row for row in (whole.pop("pass@1"), *accuracy, *whole.values()) if row.cells]


def _by_source(found: Comparison) -> list[Row]:
    """Right answers by source, under the name of what that says."""
    rows = [
        _row(MEASURES.get(name.rpartition("/")[2], name or "others"), "pass@1", found.stages, name)
        for name in _sources(found.stages)
    ]
    return [row for row in rows if row.cells]


def _sources(stages: Sequence[Stage]) -> list[str]:
    return sorted({row.source for stage in stages for row in stage.scored})


def _row(title: str, metric: str, stages: Sequence[Stage], source: str | None = None) -> Row:
    cells, told = {}, {}
    for stage in stages:
        rows = [row for row in stage.scored if source is None or row.source == source]
        if not rows:
            continue
        problems = group(rows)
        if (estimate := estimates(problems, 1).get(metric)) is not None:
            cells[column(stage)] = estimate
            known = {name: values(own, 1).get(metric) for name, own in problems.items()}
            told[column(stage)] = {name: value for name, value in known.items() if value is not None}
    return Row(title, metric, cells, told)


def is_clear(change: Difference | None) -> bool:
    return change is not None and change.p_value < CLEAR


def lines(table: StageTable) -> list[list[str]]:
    """The table as text: `98.1 % [97.0, 98.8]`, with * where a column clearly differs from the one before."""
    found = [["", *table.columns]]
    for place, row in enumerate(table.rows):
        marks = {name: " *" if is_clear(table.changes.get((place, name))) else "" for name in table.columns}
        cells = [show(row.cells[name], row.metric) + marks[name] if name in row.cells else "" for name in table.columns]
        found.append([row.title, *cells])
    return found


def retention_lines(table: StageTable) -> list[list[str]]:
    """What students keep: a column for each, under a line of titles; nothing without a teacher."""
    told = [
        [
            title,
            *(f"{100 * one[0]:.1f} % [{100 * one[1]:.1f}, {100 * one[2]:.1f}]" if one else "" for one in kept.values()),
        ]
        for title, kept in table.retention()
    ]
    return [[f"kept of {table.teacher}'s", *table.students], *told] if table.students else []


def text(table: StageTable) -> str:
    """For the terminal."""
    parts = [
        *_blocks(lines(table)),
        "[95 % interval, clustered by problem]; * differs from the column before, p < 0.05",
    ]
    if kept := retention_lines(table):
        parts.append(align(kept))
    return "\n\n".join(parts)


def _blocks(whole: Sequence[Sequence[str]]) -> list[str]:
    """A wide table as several that fit beside their titles."""
    width = len(whole[0]) - 1
    count = math.ceil(width / ACROSS)
    each = math.ceil(width / count)
    return [align([[line[0], *line[1 + at : 1 + at + each]] for line in whole]) for at in range(0, width, each)]


def pages_rows(table: StageTable) -> list[dict[str, Any]]:
    """What the page shows: a cell for each column with the change from the one before."""
    found = []
    for place, row in enumerate(table.rows):
        cells: list[dict[str, Any]] = []
        for name in table.columns:
            change, told = table.changes.get((place, name)), row.cells.get(name)
            mean, _, interval = show(told, row.metric).partition(" [") if told else ("", "", "")
            cells.append(
                {
                    "mean": mean,
                    "interval": interval.removesuffix("]").replace(", ", " \N{EN DASH} "),
                    "change": show_difference(change, row.metric) if change and told else "",
                    "p": show_p(change.p_value) if change else "",
                    "is_clear": is_clear(change),
                }
            )
        found.append({"title": row.title, "cells": cells})
    return found


def to_json(table: StageTable) -> dict[str, Any]:
    """For programs: estimates by row and column, the paired difference of every two columns, what students keep."""
    pairs = [(a, b) for place, a in enumerate(table.columns) for b in table.columns[place + 1 :]]
    return {
        "columns": list(table.columns),
        "rows": [
            {
                "title": row.title,
                "metric": row.metric,
                "cells": dict(row.cells),
                "differences": [
                    {"from": a, "to": b, "difference": change} for a, b in pairs if (change := row.change(a, b))
                ],
            }
            for row in table.rows
        ],
        "teacher": table.teacher,
        "retention": {
            title: {name: dict(zip(("share", "low", "high"), one, strict=True)) for name, one in kept.items() if one}
            for title, kept in table.retention()
        }
        if table.students
        else {},
    }
