"""Gains split by control arms: from the folders of evaluations, as a picture and as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from r1kit.evaluate.gain import GainSplit, split_gain
from r1kit.evaluate.statistics import Difference
from r1kit.evaluate.table import show_difference
from r1kit.report.folders import StageFolder

Controls = Mapping[str, Mapping[str, str]]
WIDTH, ROW, LEFT, RIGHT = 620, 26, 150, 150  # of the picture; its rows; room for names and for figures
REMEDIES = {
    "learned": "right answers taught it something that none of the controls reaches",
    "format": "a reward for form alone raises the score: the base knew answers that the verifier did not find",
    "leaked": "the base answers the measured problems better than fresh ones of the same kind: measure on others",
    "chance": "random rewards raise the score: a gain of this size says nothing about the reward",
    "agreed": "the group's own majority raises the score without any reference",
}


def gain_splits(stages: Sequence[StageFolder], controls: Controls) -> dict[str, GainSplit]:
    """The split of each trained model with finished evaluations of itself, its base and at least one arm."""
    rows = {stage.name: stage.completions for stage in stages if stage.kind == "evaluate" and stage.finished}
    splits = {}
    for name, columns in controls.items():
        by_role = {role: rows[column] for role, column in columns.items() if rows.get(column)}
        base, fresh = by_role.pop("base", None), by_role.pop("fresh", [])
        if base and rows.get(name) and by_role:
            splits[name] = split_gain(base, rows[name], by_role, fresh)
    return splits


def sentences(split: GainSplit) -> list[str]:
    """The gain, what explains it, and what the base knew already."""
    lines = [f"Gain {show_difference(split.gain, 'pass@1')} points; the best control is {split.control}."]
    lines += [
        f"{name}: {REMEDIES[name]} ({show_difference(split.parts[name].difference, 'pass@1')})." for name in split.named
    ]
    if not split.named:
        lines.append("No part is clear: more problems would narrow the intervals.")
    if split.unread > 0:
        lines.append(f"Of the base's answers, {100 * split.unread:.1f} % are right but not where the verifier looks.")
    return lines


def picture(split: GainSplit) -> str:
    """The gain and its parts as inline SVG: points with intervals along one axis, named parts bold."""
    rows: list[tuple[str, Difference, bool]] = [("gain", split.gain, True)]
    rows += [(part.title, part.difference, part.is_named) for part in split.parts.values()]
    ends = [end for _, change, _ in rows for end in (change.low, change.mean, change.high, 0.0) if end is not None]
    low, high = min(ends), max(ends)
    spread = (high - low) or 1.0

    def x(value: float) -> float:
        return round(LEFT + (value - low) / spread * (WIDTH - LEFT - RIGHT), 1)

    height = ROW * len(rows) + 8
    shapes = [f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="2" y2="{height - 2}"/>']
    for index, (title, change, is_named) in enumerate(rows):
        y, weight = ROW * index + ROW // 2 + 4, ' class="named"' if is_named else ""
        least, most = (change.mean if end is None else end for end in (change.low, change.high))
        shapes.append(
            f'<g{weight}><text x="0" y="{y + 4}">{escape(title)}</text>'
            f'<line x1="{x(least)}" x2="{x(most)}" y1="{y}" y2="{y}"/><circle cx="{x(change.mean)}" cy="{y}" r="4"/>'
            f'<text x="{WIDTH}" y="{y + 4}" text-anchor="end">{escape(show_difference(change, "pass@1"))}</text></g>'
        )
    label = "the gain and its parts, in points of pass@1 with 95 % intervals"
    return f'<svg class="gain" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(shapes)}</svg>'
