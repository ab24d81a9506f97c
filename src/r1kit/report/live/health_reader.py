"""The health of a run while it is written: verdicts and checks, without reading what has not changed again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from r1kit.report.folders import Row, StageFolder, find_stages, stage_name
from r1kit.report.live.changes import stamp
from r1kit.report.run import Run

READ_EVERY_S = 10.0  # at most, while a run changes: evaluations are compared by problem, which takes time
FILES = ("manifest.json", "metrics.jsonl", "completions.jsonl", "results.json", "rollouts")


class HealthReader:
    """Remembers the last state of each run."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[float, Any, Run, dict[str, Any]]] = {}

    def read(self, run: Path) -> dict[str, Any]:
        """The run's verdict and that of each stage, with the checks of RL; empty if no stage can be read yet."""
        at, stamps, before, health = self._known.get(run, (0.0, None, None, {}))
        now = time.monotonic()
        if before is not None and now - at < READ_EVERY_S:
            return health
        damaged = dict[Path, str]()
        try:
            stages = find_stages(run, damaged, beyond_report=True)
        except ValueError:  # no stage has begun, or none can be read
            return {"verdict": None, "stages": [damaged_row(*pair) for pair in damaged.items()]}
        new = {stage.folder: [stamp(stage.folder / name) for name in FILES] for stage in stages}
        if new == stamps:
            return health
        if before is not None:
            stages = unchanged(stages, before, new, stamps)
        damaged |= {stage.folder: reason for stage in stages if (reason := stage.damage(of_rows=True))}
        state = Run([stage for stage in stages if stage.folder not in damaged], title=run.name)
        if before is not None and measures(before) == measures(state):
            vars(state)["comparisons"] = before.comparisons  # the place of a cached property
        health = health_of(state)
        health["stages"] += [damaged_row(*pair) for pair in damaged.items()]
        self._known[run] = now, new, state, health
        return health


def damaged_row(folder: Path, reason: str) -> Row:
    """A stage that cannot be judged because a file of it cannot be read."""
    row: Row = {
        "stage": folder.name,
        "name": stage_name(folder),
        "kind": "other",
        "verdict": "damaged",
        "is_fault": True,
    }
    remedy = "restore the file from a copy, or move the folder away and run the stage again"
    return row | {"evidence": [reason], "remedy": remedy, "checks": []}


def unchanged(stages: list[StageFolder], before: Run, new: Any, old: Any) -> list[StageFolder]:
    """The stages, with what the last look has read of those that have not changed."""
    read = {stage.folder: stage for stage in before.stages}
    return [read[s.folder] if s.folder in read and old.get(s.folder) == new[s.folder] else s for s in stages]


def measures(run: Run) -> list[int]:
    """The evaluations of a run, as the objects that hold what was read of them."""
    return [id(stage) for stage in run.stages if stage.kind == "evaluate"]


def health_of(run: Run) -> dict[str, Any]:
    """Plain data for the page."""
    decisive = run.verdict
    rows = []
    for stage in run.stages:
        if (verdict := run.verdicts.get(stage.name)) is not None:
            row: Row = {"stage": stage.folder.name, "name": stage.name, "kind": stage.kind, "verdict": verdict.name}
            row |= {"is_fault": verdict.is_fault, "evidence": verdict.evidence, "remedy": verdict.remedy}
            rows.append(row | {"checks": run.health.get(stage.name, [])})
    by_name = {row["name"]: row for row in rows}
    return {"verdict": by_name[decisive[0]] if decisive else None, "stages": rows}
