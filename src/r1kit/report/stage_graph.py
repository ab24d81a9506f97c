"""A picture of a run's stages and what each reads, drawn from their manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from r1kit.report.folders import StageFolder, inputs_of, stage_name

WIDTH, HEIGHT = 104, 26  # of a box
GAP, STEP = 12, 150  # between rows; from one column to the next
MEASURING = ("evaluate", "report")  # they read every model, and would hide the recipe


@dataclass(frozen=True)
class Box:
    """A stage at its column (how many stages lie before it) and row."""

    name: str
    kind: str
    column: int
    row: int

    @property
    def corner(self) -> tuple[int, int]:
        return self.column * STEP + 2, self.row * (HEIGHT + GAP) + 2


def picture(stages: Sequence[StageFolder]) -> str:
    """The graph as inline SVG, without stages that only measure; empty if no stage reads another."""
    by_name = with_ancestors(stages)
    reads = {}
    for name, stage in by_name.items():
        inputs = dict.fromkeys(stage_name(Path(folder)) for folder in inputs_of(stage).values())
        reads[name] = [parent for parent in inputs if parent in by_name]
    if not any(reads.values()):
        return ""
    boxes = layout(by_name, reads)
    shapes = []
    for box in boxes.values():
        to_x, to_y = box.corner[0], box.corner[1] + HEIGHT // 2
        for parent in reads[box.name]:
            x, y = boxes[parent].corner[0] + WIDTH, boxes[parent].corner[1] + HEIGHT // 2
            bend = (to_x - x) // 2
            shapes.append(f'<path d="M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"/>')
    for box in boxes.values():
        x, y = box.corner
        rect = f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
        text = f'<text x="{x + WIDTH // 2}" y="{y + 17}">{escape(box.name)}</text>'
        shapes.append(f"<g><title>{escape(box.kind)}</title>{rect}{text}</g>")
    width = max(box.column for box in boxes.values()) * STEP + WIDTH + 4
    height = max(box.row for box in boxes.values()) * (HEIGHT + GAP) + HEIGHT + 4
    return f'<svg class="graph" viewBox="0 0 {width} {height}" role="img" aria-label="stages">{"".join(shapes)}</svg>'


def with_ancestors(stages: Sequence[StageFolder]) -> dict[str, StageFolder]:
    """The stages and everything that they were built from, by the name in their folder."""
    by_name: dict[str, StageFolder] = {}
    queue = [stage.folder.resolve() for stage in stages]
    while queue:
        folder = queue.pop(0)
        stage = StageFolder(stage_name(folder), folder)
        if stage.name not in by_name and stage.manifest:
            by_name[stage.name] = stage
            queue += [folder.parent / name for name in inputs_of(stage).values()]
    return {name: stage for name, stage in by_name.items() if stage.kind not in MEASURING}


def layout(by_name: Mapping[str, StageFolder], reads: Mapping[str, Sequence[str]]) -> dict[str, Box]:
    """Place each stage one column to the right of the last that it reads; rows fill from the top, by start."""
    depth: dict[str, int] = {}

    def column(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max(map(column, reads[name]), default=-1)
        return depth[name]

    rows: dict[int, int] = {}
    boxes = {}
    for name in sorted(by_name, key=lambda name: (column(name), by_name[name].started)):
        row = rows.get(column(name), 0)
        rows[column(name)] = row + 1
        boxes[name] = Box(name, by_name[name].kind, column(name), row)
    return boxes
