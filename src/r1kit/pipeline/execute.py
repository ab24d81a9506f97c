"""Run the stages that have not finished yet. A finished stage is never run again, changed or deleted."""

from __future__ import annotations

import contextlib
import datetime
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from r1kit.content import is_changed, with_digest
from r1kit.pipeline.fingerprint import UNKNOWN, Hashes
from r1kit.pipeline.graph import Recipe
from r1kit.pipeline.guards import require_free, stop_on_signals
from r1kit.pipeline.job import Job, check, context_of, naming, run_job
from r1kit.pipeline.manifest import checkpoint_damage, describe, is_within, stage_damage
from r1kit.pipeline.plan import CALLS, PLAN, PlanRow, plan
from r1kit.pipeline.progress import Display, Progress
from r1kit.pipeline.provenance import command, host
from r1kit.pipeline.sharing import require_devices, require_shareable
from r1kit.pipeline.side_by_side import Pool, run_side_by_side
from r1kit.pipeline.worker import Workers
from r1kit.store import StoreError, read_object, sha256, storing, sweep, write_json, write_text
from r1kit.terminal import shortened

RECIPE = "recipe.toml"


Companion = Callable[[Sequence[PlanRow], Display], AbstractContextManager[None]]
Cluster = Callable[[Recipe, Path, Display], Pool]
Costs = Callable[[Recipe], Mapping[str, float]]


def execute(
    recipe: Recipe,
    runs: Path,
    until: str | None = None,
    jobs: int = 1,
    *,
    devices: int = 1,
    cluster: Cluster | None = None,
    costs: Costs | None = None,
    on_step: Callable[[Path], object] | None = None,
    companion: Companion | None = None,
    verify: bool = False,
) -> Path:
    """Run the unfinished stages, and return the folder of the last one (or the last one of `until`, see `plan`).

    With one job, stages run in this process and in order, and the first error ends the run, with a note that names the
    stage and its folder. With more, so many worker processes run the stages whose inputs are ready; stages that need no
    failed one are finished before `StagesFailed` is raised. `cluster`, which gets the recipe and its folder, runs them
    on other machines instead, whatever `jobs` is. Of the stages that are ready, those whose chains cost most start
    first: `costs` is asked for the costs of the recipe's stages, in any unit; without it all cost the same. Raises
    `Stopped` on SIGINT or SIGTERM.

    With several `devices`, a process for each of them shares the work of a training stage. The results are equal up to
    rounding, so stages that finished with another number stay finished.

    `on_step` is called in this process with the folder of a stage after its steps, at most once a second. `companion`
    is entered with the plan before the first stage runs, and left after the last one, however that ends.

    Finished stages must hold what they wrote. Raises `StoreError` if a file is damaged that a stage reads, or that
    belongs to the result; other damage is only said. Sizes and times are compared first, and with `verify` every file
    is hashed, and any damage is an error.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}: give at least 1")
    if devices < 1:
        raise ValueError(f"devices is {devices}: give at least 1")
    with stop_on_signals(signal.SIGINT, signal.SIGTERM):
        rows = plan(recipe, runs, until, fetch=True)
        unverified = _check_finished(rows, Hashes(runs), verify)
        checked = check_ready(rows, devices, elsewhere=cluster is not None)
        if recipe.file and rows[-1].status != "done":
            write_text(rows[-1].folder / RECIPE, recipe.file)
        titles = {row.stage.name: f"[{number}/{len(rows)}] {row.stage.name}" for number, row in enumerate(rows, 1)}
        folders = {titles[row.stage.name]: row.folder for row in rows}
        listener = None if on_step is None else lambda title: on_step(folders[title])
        with Display(on_step=listener) as display:
            for row in rows:
                if row.status == "done":
                    note = unverified.get(row.stage.name, "")
                    display.say(f"{titles[row.stage.name]}: done already: {row.folder}{note}")
            left = [
                Job(row, titles[row.stage.name], row.stage.name in checked, devices)
                for row in rows
                if row.status != "done"
            ]
            for job in left if cluster is None else ():  # a node that was lost may hold a lock for a while
                require_free(job.row.folder)  # before a companion starts, which would have to end again first
            if left:
                for place in (runs, runs / recipe.name):
                    sweep(place, ".*")
            if left or not (runs / recipe.name / PLAN).exists():
                _write_plan(runs / recipe.name / PLAN, recipe, rows)
            beside = companion(rows, display) if companion is not None else contextlib.nullcontext()
            with beside, _timed(runs / recipe.name / CALLS, left, jobs, display):
                if left and (cluster is not None or jobs > 1):
                    pool = Workers(jobs, display) if cluster is None else cluster(recipe, runs / recipe.name, display)
                    run_side_by_side(left, pool, display, {} if costs is None else costs(recipe))
                else:
                    for job in left:
                        run_job(job, display)
    return rows[-1].folder


def check_ready(rows: Sequence[PlanRow], devices: int = 1, *, elsewhere: bool = False) -> set[str]:
    """Check every stage whose inputs exist already, so that bad input is refused before any stage has run for hours.

    What several devices cannot share is refused in all stages, and devices that this machine lacks unless the stages
    run `elsewhere`. Returns the names of the stages with inputs. Raises the error of a stage's `check`, with a note
    that names stage and folder.
    """
    left = [row.stage for row in rows if row.status != "done"]
    for stage in left:
        require_shareable(stage, devices)
    if not elsewhere:
        require_devices(left, devices)
    done = {row.stage.name for row in rows if row.status == "done"}
    known = [row for row in rows if row.status != "done" and row.fingerprint != UNKNOWN]
    ready = [row for row in known if all(parent.name in done for parent in row.stage.parents)]
    for row in ready:
        with naming(row):
            check(row, context_of(row, Progress(row.stage.name), devices))
    return {row.stage.name for row in ready}


def _check_finished(rows: Sequence[PlanRow], hashes: Hashes, verify: bool) -> dict[str, str]:
    """Compare the files of finished stages with what these wrote. Returns what to say about some, by name."""
    notes, errors = {}, []
    # paths that stages of this run will read, by the stage that wrote them
    reads = [source for row in rows if row.status != "done" for source in row.identity["inputs"].values()]
    for row in rows:
        if row.status != "done":
            continue
        damaged = stage_damage(row.folder, whole=verify, hash_of=sha256 if verify else hashes.of)
        used = [source["path"] for source in reads if source.get("stage") == row.stage.name]
        if damaged is None:
            notes[row.stage.name] = " (unverified: an older version recorded no hashes)"
            continue
        if verify:
            damaged |= checkpoint_damage(row.folder)
        if verify or row is rows[-1] or any(is_within(name, used) for name in damaged):
            errors += [describe(row.folder, damaged)] if damaged else []
        elif damaged:
            files = ", ".join(f"{name}: {reason}" for name, reason in damaged.items())
            notes[row.stage.name] = f" (damaged, but nothing reads it now: {shortened(files, 300)})"
    hashes.save()
    if errors:
        raise StoreError("\n".join(errors))
    return notes


def _write_plan(file: Path, recipe: Recipe, rows: Sequence[PlanRow]) -> None:
    """All stages of this call in order, also those without a folder yet, for readers of the run's folder."""
    stages = [
        {
            "stage": row.stage.name,
            "kind": row.stage.kind.name,
            "folder": row.folder.name,
            "reads": sorted({parent.name for parent in row.stage.parents}),
        }
        for row in rows
    ]
    write_json(file, with_digest({"title": recipe.title, "command": command(), "stages": stages}))


@contextlib.contextmanager
def _timed(file: Path, left: Sequence[Job], jobs: int, display: Display) -> Iterator[None]:
    """Add the wall-clock time of this call to the run's calls, however it ends: stages side by side overlap."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    clock = time.monotonic()
    try:
        yield
    finally:
        if left and file.parent.is_dir():
            call = {"command": command(), "host": host(), "started": now, "jobs": jobs}
            call["seconds"] = round(time.monotonic() - clock, 3)
            call["stages"] = [job.row.folder.name for job in left if job.is_done]
            with contextlib.suppress(StoreError):  # an error of a stage matters more
                write_json(file, with_digest({"calls": [*_calls(file, display), call]}))


def _calls(file: Path, display: Display) -> list[Any]:
    """The earlier calls of a run. A damaged list is renamed, which is said, and a new one begins.

    Raises `StoreError` if it cannot be renamed.
    """
    with contextlib.suppress(OSError, StoreError):
        content = read_object(file)
        if isinstance(content.get("calls"), list) and not is_changed(content):
            return list(content["calls"])
    if file.exists():
        kept = file.with_suffix(f".damaged-{time.time_ns()}.json")
        with storing(file):  # a list that cannot be renamed is not written over
            file.rename(kept)
        display.say(f"{file} is damaged: it is kept as {kept.name}, and the list of calls begins again")
    return []
