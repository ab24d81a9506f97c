"""How far the stages of a run are, from the files that a running stage leaves: is it at work, and how did it end?"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from r1kit.numeric import is_number
from r1kit.pipeline.guards import is_locked
from r1kit.pipeline.manifest import MANIFEST, STARTED
from r1kit.pipeline.plan import PLAN
from r1kit.pipeline.progress import FILE as PROGRESS
from r1kit.report.folders import Row, StageFolder, inputs_of, is_current, read_object, stage_name
from r1kit.report.live.places import children, is_stage, row_files
from r1kit.report.stage_graph import MEASURING
from r1kit.store import StoreError, open_file

State = Literal["waiting", "running", "done", "failed", "stopped", "died", "unknown", "damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """One stage. `done` and `total` are steps, rows or completions, None if the stage does not say. Times are seconds
    since 1970; `seconds` belongs to the last attempt. `reads` are ids of stages."""

    id: str
    name: str
    kind: str
    state: State
    done: int | None = None
    total: int | None = None
    note: str = ""
    seconds: float | None = None
    seconds_left: float | None = None
    started: float | None = None
    changed: float | None = None
    attempts: int = 0
    error: str = ""
    reads: Sequence[str] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    has: Mapping[str, Any] = field(default_factory=lambda: {"curves": False, "rollouts": False, "rows": []})

    @property
    def measures(self) -> bool:
        """Whether it only measures models, and would hide the recipe in a picture."""
        return self.kind in MEASURING


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """A run: the stages of its last plan in order, and `earlier` folders with other settings."""

    stages: Sequence[StageState]
    earlier: Sequence[StageState]
    title: str = ""
    command: str = ""

    @property
    def state(self) -> str:
        """The most urgent state of a stage; "finished" if all are done."""
        states = {stage.state for stage in self.stages}
        if states == {"done"}:
            return "finished"
        urgent = ("running", "damaged", "failed", "died", "unknown", "stopped")
        return next((state for state in urgent if state in states), "stopped" if "done" in states else "waiting")

    @property
    def at(self) -> StageState | None:
        """The stage that decides the state."""
        return next((stage for stage in self.stages if stage.state == self.state), None)

    @property
    def says(self) -> str:
        """The state as a sentence."""
        done, at = sum(stage.state == "done" for stage in self.stages), self.at
        count = f"{done} of {len(self.stages)} stages done"
        if at is None:
            return count if self.state != "waiting" else "no stage has started"
        step = f", step {at.done} of {at.total}" if at.total else f", step {at.done}" if at.done else ""
        died = " (its process is gone)" if at.state == "died" else ""
        reason = at.error.splitlines()[0] if at.error else ""
        if reason.startswith(at.state):  # "stopped by SIGTERM" is both
            return f"{at.name} {reason}{step}; {count}"
        return f"{at.name} {at.state}{step}{died}{': ' if reason else ''}{reason}; {count}"


class States:
    """Reads the states of runs; a finished stage is read once."""

    def __init__(self) -> None:
        self._finished: dict[Path, tuple[int, StageState]] = {}

    def run(self, run: Path) -> RunState:
        """Never raises for what a run's folder holds: a stage with a damaged file says so."""
        plan = read_plan(run / PLAN)
        planned: list[Row] = plan["stages"]
        by_id = {path.name: self.stage(path) for path in children(run) if is_stage(path)}
        folders = {row["stage"]: row["folder"] for row in planned}
        current = [
            by_id.get(row["folder"])
            or StageState(
                id=row["folder"],
                name=row["stage"],
                kind=row["kind"],
                state="waiting",
                reads=[folders[name] for name in row["reads"]],
            )
            for row in planned
        ]
        if not planned:
            latest = newest_folders(run, by_id)
            current = sorted((by_id[name] for name in latest), key=lambda stage: stage.started or 0.0)
        names = {stage.id for stage in current}
        earlier = [stage for name, stage in by_id.items() if name not in names]
        return RunState(
            stages=current,
            earlier=sorted(earlier, key=lambda stage: stage.started or 0.0),
            title=str(plan.get("title") or run.resolve().name),
            command=str(plan.get("command", "")),
        )

    def stage(self, folder: Path) -> StageState:
        """The state of one stage's folder."""
        try:
            stamp = (folder / MANIFEST).stat().st_mtime_ns
        except OSError:
            stamp = 0
        known = self._finished.get(folder)
        if stamp and known is not None and known[0] == stamp:
            return known[1]
        try:
            state = stage_state(folder)
        except (StoreError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            name = stage_name(folder)
            state = StageState(id=folder.name, name=name, kind="other", state="damaged", error=str(error))
        if stamp and state.state == "done":
            self._finished[folder] = (stamp, state)
        return state


def read_plan(path: Path) -> Row:
    """The run's plan; without stages if there is none, or if it is damaged."""
    try:
        plan = read_object(path)
    except (StoreError, OSError, ValueError):
        plan = {}
    stages = plan.get("stages")
    rows = [row for row in stages if is_planned(row)] if isinstance(stages, list) else []
    named = {row["stage"] for row in rows}
    is_whole = isinstance(stages, list) and len(rows) == len(stages)
    is_whole = is_whole and all(name in named for row in rows for name in row["reads"])
    return plan | {"stages": rows if is_whole else []}


def is_planned(row: Any) -> bool:
    """Whether this is a stage of a plan with all its fields."""
    if not isinstance(row, dict) or not isinstance(row.get("reads"), list):
        return False
    return all(isinstance(text, str) for text in (row.get("stage"), row.get("kind"), row.get("folder"), *row["reads"]))


def newest_folders(run: Path, by_id: Mapping[str, StageState]) -> list[str]:
    """Without a plan: the last started folder of each stage, if it was built on the last ones of all that it reads."""
    readable = [state for state in by_id.values() if state.state != "damaged"]
    ordered = sorted(readable, key=lambda state: state.started or 0.0)
    latest = {state.name: StageFolder(state.name, run / state.id) for state in ordered}
    return [stage.folder.name for stage in latest.values() if is_current(stage, latest)]


def stage_state(folder: Path) -> StageState:
    """Raises `StoreError` for a damaged file."""
    stage, progress = StageFolder(stage_name(folder), folder), read_object(folder / PROGRESS)
    manifest = stage.manifest
    attempts, changed = manifest.get("attempts", 0), number_in(progress, "changed") or last_change(folder)
    curves = (folder / "metrics.jsonl").exists()
    known = StageState(
        id=folder.name,
        name=stage.name,
        kind=stage.kind,
        state="done",
        started=stage.started,
        attempts=attempts if isinstance(attempts, int) else 0,
        changed=changed,
        reads=list(dict.fromkeys(inputs_of(stage).values())),
        has={"curves": curves, "rollouts": (folder / "rollouts").is_dir(), "rows": row_files(folder)},
        done=number_in(progress, "done"),
        total=number_in(progress, "total"),
    )
    if stage.finished:
        if stage.changed:
            raise StoreError(f"{stage.changed}; r1kit verify-run names all damage, and what to do")
        metrics = manifest.get("metrics")
        return replace(
            known, seconds=number_in(manifest, "seconds"), metrics=metrics if isinstance(metrics, dict) else {}
        )
    steps = number_in(manifest.get("settings", {}), "steps")  # a run of an older version has no progress.json
    if known.done is None and curves:
        known = replace(known, done=last_step(folder / "metrics.jsonl"), total=steps)
    state = state_of(folder, progress)
    began = changed_at(folder / STARTED) or stage.started  # written at the beginning of each attempt
    return replace(
        known,
        state=state,
        note=str(progress.get("note", "")),
        error=str(progress.get("error", "")) if state in ("failed", "stopped") else "",
        seconds=max(0.0, changed - began),
        seconds_left=number_in(progress, "seconds_left") if state == "running" else None,
    )


def number_in(row: Mapping[str, Any], name: str) -> Any:
    """A finite number, or None: a file may hold anything."""
    value = row.get(name)
    return value if is_number(value) and math.isfinite(value) else None


def state_of(folder: Path, progress: Row) -> State:
    """The state of an unfinished stage."""
    if not (folder / STARTED).exists() and not progress:
        return "died" if is_stage(folder) else "waiting"
    here = progress.get("host") in (None, socket.gethostname())
    if here and progress.get("process") == os.getpid():  # opening and closing .lock would release our own lock
        locked = progress.get("state") == "running"
    else:
        locked = is_locked(folder / ".lock")
    if locked:
        return "running"
    ended = progress.get("state")
    if ended in ("failed", "stopped"):
        return "failed" if ended == "failed" else "stopped"
    return "died" if here else "unknown"


def last_change(folder: Path) -> float:
    """When the stage last wrote a row or a file of its own."""
    names = ("metrics.jsonl", "completions.jsonl", "samples.jsonl", MANIFEST, STARTED)
    return max(filter(None, (changed_at(folder / name) for name in names)), default=folder.stat().st_mtime)


def changed_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def last_step(path: Path) -> int | None:
    """The step of the last whole row of a metrics file; reads only the end of it."""
    with open_file(path) as file:
        file.seek(max(0, path.stat().st_size - 2**16))
        lines = file.read().split(b"\n")[:-1]
    head = lines[-1].partition(b",")[0] if lines else b""
    digits = head.partition(b":")[2].strip().rstrip(b"}")
    return int(digits) if digits.isdigit() else None
