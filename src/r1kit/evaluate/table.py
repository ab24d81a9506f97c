"""Tables of evaluations as plain text and as JSON: one column per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from r1kit.evaluate.statistics import Difference, Estimate, Summary, is_share

MINUS = "\N{MINUS SIGN}"


def text_table(
    summaries: Mapping[str, Summary],
    differences: Mapping[str, Difference] | None = None,
    by_source: Mapping[str, Mapping[str, Difference]] | None = None,
) -> str:
    """One line per metric, one column per model with cells `mean [low, high]`, then the difference of first and last.

    Shares are in per cent, their differences in points. If there are several sources, each has a line with pass@1, and
    `by_source` holds their paired differences.
    """
    lines = [["", *summaries] + (["difference", "p"] if differences else [])]
    overall = {name: summary.overall for name, summary in summaries.items()}
    lines += [line(metric, metric, overall, differences) for metric in metric_order(overall)]
    for source in sources(summaries):
        columns = {name: summary.by_source.get(source, {}) for name, summary in summaries.items()}
        own = (by_source or {}).get(source, {}) if differences else None
        lines.append(line(f"pass@1 {source}", "pass@1", columns, own))
    sizes = dict.fromkeys(f"{summary.problems} problems x {summary.k}" for summary in summaries.values())
    return "\n".join([align(lines), "", f"{', '.join(sizes)} samples; [95 % interval, clustered by problem]"])


def line(
    title: str, metric: str, columns: Mapping[str, Mapping[str, Estimate]], differences: Mapping[str, Difference] | None
) -> list[str]:
    """One line of the table: a cell per model and, with `differences`, the difference and its p-value."""
    cells = [show(column[metric], metric) if metric in column else "" for column in columns.values()]
    if differences is not None:
        change = differences.get(metric)
        cells += [show_difference(change, metric), show_p(change.p_value)] if change else ["", ""]
    return [title, *cells]


def sources(summaries: Mapping[str, Summary]) -> list[str]:
    """The sources of the problems; none if there is only one, whose numbers are the overall ones."""
    names = list(dict.fromkeys(name for summary in summaries.values() for name in summary.by_source))
    return names if len(names) > 1 else []


def json_table(
    summaries: Mapping[str, Summary],
    differences: Mapping[str, Difference] | None = None,
    by_source: Mapping[str, Mapping[str, Difference]] | None = None,
) -> dict[str, Any]:
    """The same table for programs: `{"columns": {name: summary}, "differences": {metric: ...}}`, shares from 0 to 1."""
    table: dict[str, Any] = {"columns": {name: summary.to_json() for name, summary in summaries.items()}}
    if differences:
        first, *_, last = summaries
        table |= {"from": first, "to": last, "differences": {name: asdict(item) for name, item in differences.items()}}
        table["differences_by_source"] = {
            source: {name: asdict(item) for name, item in items.items()} for source, items in (by_source or {}).items()
        }
    return table


def metric_order(columns: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    """All metrics of all columns: those with an "@" first, the others in order of appearance."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    at = [name.split("@") for name in names if "@" in name]
    at.sort(key=lambda parts: (parts[0] != "pass", int(parts[1])))  # pass@1, pass@4, pass@16, cons@16
    return [*map("@".join, at), *(name for name in names if "@" not in name)]


def show(estimate: Estimate, metric: str) -> str:
    """`97.8 % [96.2, 98.7]` for a share, `48.2 [46.9, 49.5]` for an amount."""
    mean = number(estimate.mean, metric) + (" %" if is_share(metric) else "")
    low, high = estimate.low, estimate.high
    return mean if low is None or high is None else f"{mean} [{number(low, metric)}, {number(high, metric)}]"


def show_difference(change: Difference, metric: str) -> str:
    """`+86.6 [+84.1, +89.0]`, in points for a share."""
    mean, low, high = signed(change.mean, metric), change.low, change.high
    return mean if low is None or high is None else f"{mean} [{signed(low, metric)}, {signed(high, metric)}]"


def number(value: float, metric: str) -> str:
    """Per cent for shares; two decimals for steps, of which a completion has few."""
    return f"{100 * value:.1f}" if is_share(metric) else f"{value:.{2 if metric == 'steps' else 1}f}"


def show_p(p_value: float) -> str:
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def signed(value: float, metric: str) -> str:
    """`number` with a sign, unless it rounds to zero."""
    digits = number(abs(value), metric)
    return digits if float(digits) == 0 else ("+" if value > 0 else MINUS) + digits


def align(lines: Sequence[Sequence[str]]) -> str:
    """Cells of equal columns, padded to the widest of each column."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
