"""One unfinished stage of a run, and how it is done: in this process or, as a message, in another one."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1kit.pipeline.agent import Part
from r1kit.pipeline.context import Context
from r1kit.pipeline.fingerprint import Hashes, settings_of
from r1kit.pipeline.guards import locked
from r1kit.pipeline.launcher import run_on_ranks
from r1kit.pipeline.manifest import MANIFEST, STARTED, describe, stage_damage, write_manifest
from r1kit.pipeline.plan import PlanRow
from r1kit.pipeline.progress import Display, Progress
from r1kit.pipeline.provenance import command, commit, host, threads, versions
from r1kit.store import StoreError, read_object, storing, sweep, write_json


@dataclass(frozen=True, slots=True)
class Job:
    """A stage to be done.

    `title` begins its lines of progress; `checked` says that its input was checked already. `devices` is for stages
    whose work several devices can share; `parts` are their ranks by node, and none if all are on one machine.
    `patience_s` is how long it waits for the folder's lock, which an attempt that was killed on another node can hold a
    little longer.
    """

    row: PlanRow
    title: str
    checked: bool
    devices: int = 1
    parts: tuple[Part, ...] = ()
    patience_s: float = 0.0

    @property
    def name(self) -> str:
        return self.row.stage.name

    @property
    def log(self) -> Path:
        """The output of the stage, if it runs in a worker process."""
        return self.row.folder / "log.txt"

    @property
    def is_done(self) -> bool:
        return (self.row.folder / MANIFEST).exists()

    def portable(self) -> Job:
        """The same without what only plans need and no other process can receive: the graph, sources and costs."""
        kind = replace(self.row.stage.kind, sources=None, cost=None, on_device=None)
        return replace(self, row=replace(self.row, stage=replace(self.row.stage, kind=kind, inputs={})))


def run_job(job: Job, display: Display) -> None:
    """Do the stage's work and write its manifest. Any error gets a note that names the stage and its folder."""
    row = job.row
    progress = Progress(job.title, display, folder=row.folder)
    with naming(row):
        progress.say(f"{row.why}; working in {row.folder}")
        context = context_of(row, progress, job.devices)
        if not job.checked:
            check(row, context)
        with storing(row.folder):
            row.folder.mkdir(parents=True, exist_ok=True)
        with locked(row.folder, job.patience_s):
            if not job.is_done:  # another process may have finished it since the plan was made
                sweep(row.folder)
                with recorded(progress):
                    do(job, context, display)
    display.end(job.title)


def do(job: Job, context: Context, display: Display) -> None:
    """Do the work, in this process or in several ranks, and write the manifest."""
    row, run = job.row, job.row.stage.kind.run
    started = _start(row, context.progress)
    clock = time.monotonic()
    # may be a user's function, so its result is checked
    alone = context.devices == 1
    metrics: Any = run(context) if alone else run_on_ranks(run, context, job.title, display, job.parts)
    if not isinstance(metrics, Mapping):
        kind = row.stage.kind.name
        raise ValueError(f"run of kind {kind!r} returned {metrics!r:.80}, expected a mapping of metrics")
    seconds = round(time.monotonic() - clock, 3)
    manifest = {**started, "threads": threads(), "seconds": seconds, "metrics": dict(metrics)}
    write_manifest(row.folder, manifest)
    context.progress.say(f"done in {datetime.timedelta(seconds=round(seconds))}")


@contextlib.contextmanager
def recorded(progress: Progress) -> Iterator[None]:
    """Keep `progress.json` up to date: a reader sees that the stage runs, and how it ended."""
    progress.save("running")
    try:
        yield
    except BaseException as error:
        is_stop = isinstance(error, KeyboardInterrupt)
        progress.save("stopped" if is_stop else "failed", str(error) if is_stop else f"{type(error).__name__}: {error}")
        raise
    progress.save("done")


def check(row: PlanRow, context: Context) -> None:
    """Check the stage's settings and inputs; raises ValueError."""
    if row.stage.kind.check is not None:
        row.stage.kind.check(context)


def context_of(row: PlanRow, progress: Progress, devices: int = 1) -> Context:
    """The stage's context; raises `StoreError` if an input is missing, or is not what its stage wrote."""
    for name, path in row.paths.items():
        if not path.exists():
            raise StoreError(
                f"input {name!r} is missing: {path}. Put it back, or move the folder that held it away to run its "
                "stage again"
            )
    _require_intact_inputs(row)
    settings, folder, count = row.stage.settings, row.folder, devices if row.stage.kind.shards else 1
    return Context(
        stage=row.stage.name, settings=settings, folder=folder, paths=row.paths, progress=progress, devices=count
    )


def _require_intact_inputs(row: PlanRow) -> None:
    hashes = Hashes(row.folder.parents[1])
    for name, source in row.identity["inputs"].items():
        if "stage" not in source:
            continue
        parent = row.folder.with_name(f"{source['stage']}-{source['fingerprint'][:8]}")
        if damaged := stage_damage(parent, [source["path"]], hash_of=hashes.of):
            raise StoreError(f"input {name!r} of stage {row.stage.name} is damaged:\n{describe(parent, damaged)}")
    hashes.save()


@contextlib.contextmanager
def naming(row: PlanRow) -> Iterator[None]:
    """Add the stage and its folder to any error."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in stage {row.stage.name} ({row.folder})")
        raise


def _start(row: PlanRow, progress: Progress) -> dict[str, Any]:
    """Write stage.json before the work starts, and return the part of the manifest that is known by then.

    `started` is the time of the first attempt, and `attempts` their number. `seconds` is only the last attempt's time.
    """
    path, attempts = row.folder / STARTED, 0
    now = started = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    try:
        if path.exists():
            earlier = read_object(path)
            started, attempts = str(earlier.get("started", now)), int(earlier.get("attempts", 0))
    except (StoreError, ValueError, TypeError):
        progress.say(f"{path} was damaged, and is written again")
    attempt = {"started": started, "attempts": attempts + 1}
    known = {"stage": row.stage.name, **row.identity, "fingerprint": row.fingerprint, **attempt}
    # Paths of inputs are relative to the stage's folder, so a runs folder can be moved.
    inputs = {
        name: {
            "path": Path(os.path.relpath(source, row.folder)).as_posix(),
            "fingerprint": row.identity["inputs"][name]["fingerprint"],
        }
        for name, source in row.paths.items()
    }
    run = {
        "settings": settings_of(row.stage, all_fields=True),
        "inputs": inputs,
        "versions": versions(),
        "git": commit(),
        "command": command(),
        "host": host(),
        "seed": getattr(row.stage.settings, "seed", 0),
    }
    write_json(path, known | {"run": run})
    return known | run
