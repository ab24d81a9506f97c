"""What has changed in the runs since the last look, as small events that say what to fetch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1kit.report.live.places import NotThere, find_runs, run_folder
from r1kit.report.live.rollouts import step_files
from r1kit.report.live.stage_state import StageState, States, last_step

Event = tuple[str, dict[str, Any]]  # name and data
LIST_EVERY = 5  # looks; the list of runs changes seldom


class Changes:
    """Looks at one run (or at none) and at the list of runs. The first look only remembers."""

    def __init__(self, root: Path, run: str, states: States) -> None:
        self.root, self.run, self.states = root, run, states
        self._known: dict[tuple[str, ...], Any] = {}
        self._looks = 0

    def look(self) -> list[Event]:
        """The events since the last look. A run that has vanished has none."""
        events = list(self._events())
        is_first = not self._looks
        self._looks += 1
        return [] if is_first else events

    def _events(self) -> Iterator[Event]:
        if self._looks % LIST_EVERY == 0:
            runs = find_runs(self.root)
            if self._differs(("runs",), {name: self.states.run(path).state for name, path in runs.items()}):
                yield "runs", {}
        if not self.run:
            return
        try:
            folder = run_folder(self.root, self.run)
        except NotThere:
            return
        state = self.states.run(folder)
        for stage in (*state.stages, *state.earlier):
            place = {"run": self.run, "stage": stage.id}
            progress = {"state": stage.state, "done": stage.done, "total": stage.total}
            is_over = self._known.get((stage.id, "stage")) == progress and stage.state == "done"
            if is_over:
                continue
            if self._differs((stage.id, "stage"), progress):
                yield "stage", place | progress | {"seconds_left": stage.seconds_left}
            for name, data in self._files(folder / stage.id, stage):
                yield name, place | data

    def _files(self, folder: Path, stage: StageState) -> Iterator[Event]:
        """New steps, rollouts and rows of one stage; a file is opened only if its size or time differs."""
        if self._differs((stage.id, "metrics"), stamp(folder / "metrics.jsonl")):
            step = last_step(folder / "metrics.jsonl") if stage.has.get("curves") else None
            if self._differs((stage.id, "step"), step) and step is not None:
                yield "step", {"step": step}
        if self._differs((stage.id, "folder"), stamp(folder / "rollouts")):
            steps = list(step_files(folder))
            if self._differs((stage.id, "rollouts"), steps[-1:]) and steps:
                yield "rollouts", {"step": steps[-1]}
        for file in stage.has.get("rows", ()):
            if self._differs((stage.id, "rows", file), stamp(folder / file)):
                yield "rows", {"file": file}

    def _differs(self, key: tuple[str, ...], value: Any) -> bool:
        differs = key not in self._known or self._known[key] != value
        self._known[key] = value
        return differs


def stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of a file or a folder; None if there is none."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns
