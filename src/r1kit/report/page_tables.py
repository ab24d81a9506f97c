"""The tables as the page's template reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.evaluate.statistics import Difference, Estimate, is_share
from r1kit.evaluate.table import metric_order, number, show, show_difference, show_p, signed
from r1kit.report.compare import TITLES, Comparison, change_table
from r1kit.report.stage_table import StageTable, retention_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """An estimate as text. `bar` is low, mean and high in per cent of the bar's width, for shares only."""

    mean: str
    interval: str = ""
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One metric across the columns, with the paired difference if there is one."""

    title: str
    cells: Sequence[Cell | None]
    difference: Cell | None = None
    p_value: str = ""
    is_clear: bool = False


def comparison_table(comparison: Comparison) -> dict[str, Any]:
    """A comparison for the template: overall rows, and rows by source if there are several."""
    summaries = comparison.summaries.values()
    overall = {name: summary.overall for name, summary in comparison.summaries.items()}
    sources = list(dict.fromkeys(source for summary in summaries for source in summary.by_source))
    by_source = []
    for source in sources if len(sources) > 1 else ():
        columns = {name: summary.by_source.get(source, {}) for name, summary in comparison.summaries.items()}
        rows = metric_rows(columns, comparison.by_source.get(source, {}))
        by_source.append((source or "(no source)", rows))
    return {
        "names": list(comparison.summaries),
        "rows": metric_rows(overall, comparison.differences),
        "sources": by_source,
        "problems": comparison.problems,
        "samples": list(dict.fromkeys(summary.k for summary in summaries)),
        "has_difference": bool(comparison.differences),
        "changes": change_table(comparison),
    }


def metric_rows(
    columns: Mapping[str, Mapping[str, Estimate]], differences: Mapping[str, Difference]
) -> list[MetricRow]:
    rows = []
    for metric in metric_order(columns):
        title, difference = TITLES.get(metric, metric), differences.get(metric)
        cells = [metric_cell(column.get(metric), metric) for column in columns.values()]
        if difference is None:
            rows.append(MetricRow(title=title, cells=cells))
            continue
        interval, is_clear = "", False
        if difference.low is not None and difference.high is not None:
            interval = f"{signed(difference.low, metric)} to {signed(difference.high, metric)}"
            is_clear = not difference.low <= 0 <= difference.high
        delta = Cell(mean=signed(difference.mean, metric), interval=interval)
        p_value = show_p(difference.p_value)
        rows.append(MetricRow(title=title, cells=cells, difference=delta, p_value=p_value, is_clear=is_clear))
    return rows


def metric_cell(estimate: Estimate | None, metric: str) -> Cell | None:
    if estimate is None:
        return None
    mean = number(estimate.mean, metric) + (" %" if is_share(metric) else "")
    if estimate.low is None or estimate.high is None:
        return Cell(mean=mean)
    interval = f"{number(estimate.low, metric)} \N{EN DASH} {number(estimate.high, metric)}"
    bar = (100 * estimate.low, 100 * estimate.mean, 100 * estimate.high) if is_share(metric) else None
    return Cell(mean=mean, interval=interval, bar=bar)


def stage_columns(table: StageTable) -> dict[str, Any]:
    """The table of stages for the template: each cell with the change from the column before."""
    rows = []
    for row, changes in zip(table.rows, table.changes, strict=True):
        cells = []
        for name in table.columns:
            change, estimate = changes.get(name), row.cells.get(name)
            mean, _, interval = show(estimate, row.metric).partition(" [") if estimate else ("", "", "")
            cells.append(
                {
                    "mean": mean,
                    "interval": interval.removesuffix("]").replace(", ", " \N{EN DASH} "),
                    "change": show_difference(change.difference, row.metric) if change and estimate else "",
                    "p": show_p(change.p_holm) if change else "",
                    "is_clear": change is not None and change.is_clear,
                }
            )
        rows.append({"title": row.title, "cells": cells})
    return {"columns": table.columns, "rows": rows, "kept": retention_table(table)}
