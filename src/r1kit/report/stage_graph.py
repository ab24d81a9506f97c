"""One picture of a run's stages and what each reads, drawn from their manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from r1kit.report.folders import Stage, inputs_of, stage_name

WIDTH, HEIGHT, GAP, STEP = 104, 26, 12, 150  # of a box, between boxes, and from one column to the next
MEASURING = ("evaluate", "report")  # they hang on all models, and would hide the recipe


@dataclass(frozen=True)
class Box:
    """A stage in the picture, at a column (how many stages lie before it) and a row."""

    name: str
    kind: str
    column: int
    row: int

    @property
    def place(self) -> tuple[int, int]:
        return self.column * STEP + 2, self.row * (HEIGHT + GAP) + 2


def picture(stages: Sequence[Stage]) -> str:
    """The graph as inline SVG, without stages that only measure; empty where there is nothing to connect."""
    found = _reachable(stages)
    reads = {name: [one for one in _read(stage) if one in found] for name, stage in found.items()}
    if not any(reads.values()):
        return ""
    boxes = _placed(found, reads)
    lines = [_line(boxes[source], box) for box in boxes.values() for source in reads[box.name]]
    width = max(box.column for box in boxes.values()) * STEP + WIDTH + 4
    height = max(box.row for box in boxes.values()) * (HEIGHT + GAP) + HEIGHT + 4
    inside = "".join([*lines, *map(_box, boxes.values())])
    return f'<svg class="graph" viewBox="0 0 {width} {height}" role="img" aria-label="stages">{inside}</svg>'


def _reachable(stages: Sequence[Stage]) -> dict[str, Stage]:
    """The stages given and all that they were made from, by the name in their folder."""
    found: dict[str, Stage] = {}
    left = [stage.folder.resolve() for stage in stages]
    while left:
        folder = left.pop(0)
        name, stage = stage_name(folder), Stage(stage_name(folder), folder)
        if name in found or not stage.manifest:
            continue
        found[name] = stage
        left += [folder.parent / one for one in inputs_of(stage).values()]
    return {name: stage for name, stage in found.items() if stage.kind not in MEASURING}


def _read(stage: Stage) -> list[str]:
    return list(dict.fromkeys(stage_name(Path(folder)) for folder in inputs_of(stage).values()))


def _placed(found: Mapping[str, Stage], reads: Mapping[str, Sequence[str]]) -> dict[str, Box]:
    """Each stage one column to the right of the last that it reads, rows from the top."""
    depth: dict[str, int] = {}

    def column(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max(map(column, reads[name]), default=-1)
        return depth[name]

    rows: dict[int, int] = {}
    boxes = {}
    for name in sorted(found, key=lambda one: (column(one), found[one].started)):
        row = rows.get(column(name), 0)
        rows[column(name)] = row + 1
        boxes[name] = Box(name, found[name].kind, column(name), row)
    return boxes


def _line(source: Box, target: Box) -> str:
    (x, y), (to_x, to_y) = source.place, target.place
    x, y, to_y = x + WIDTH, y + HEIGHT // 2, to_y + HEIGHT // 2
    bend = (to_x - x) // 2
    return f'<path d="M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"/>'


def _box(box: Box) -> str:
    x, y = box.place
    words = f'<text x="{x + WIDTH // 2}" y="{y + 17}">{escape(box.name)}</text>'
    shape = f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
    return f"<g><title>{escape(box.kind)}</title>{shape}{words}</g>"
