"""Run what a plan says is missing. Nothing that is finished is ever run again, changed or deleted."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from r1kit.pipeline.context import Context
from r1kit.pipeline.fingerprint import UNKNOWN, settings_of
from r1kit.pipeline.graph import Recipe
from r1kit.pipeline.guards import locked, stop_on_signals
from r1kit.pipeline.plan import MANIFEST, STARTED, PlanRow, plan
from r1kit.pipeline.progress import Progress
from r1kit.pipeline.provenance import command, commit, host, versions
from r1kit.store import StoreError, read_json, storing, write_json


def execute(recipe: Recipe, runs: Path, until: str | None = None) -> Path:
    """Run the stages that are missing, in order, and return the folder of the last one (or of `until`).

    Raises what the stage raised, with a note that names stage and folder; `Stopped` on SIGINT or SIGTERM.
    """
    with stop_on_signals():
        rows = plan(recipe, runs, until, fetch=True)
        checked = check_ready(rows)
        for number, row in enumerate(rows, 1):
            with Progress(f"[{number}/{len(rows)}] {row.stage.name}") as progress, _noting(row):
                if row.status == "done":
                    progress.say(f"done already: {row.folder}")
                else:
                    progress.say(f"{row.why}; working in {row.folder}")
                    _run(row, _context(row, progress), check=row.stage.name not in checked)
    return rows[-1].folder


def check_ready(rows: Sequence[PlanRow]) -> set[str]:
    """Let every stage whose inputs are all there refuse them now, rather than after hours of the stages before.

    Returns the names of these stages. Raises what a stage's `check` raises, with a note that names stage and folder.
    """
    done = {row.stage.name for row in rows if row.status == "done"}
    left = [row for row in rows if row.status != "done" and row.fingerprint != UNKNOWN]
    ready = [row for row in left if all(parent.name in done for parent in row.stage.parents)]
    for row in ready:
        with _noting(row):
            _check(row, _context(row, Progress(row.stage.name)))
    return {row.stage.name for row in ready}


def _check(row: PlanRow, context: Context) -> None:
    if row.stage.kind.check is not None:
        row.stage.kind.check(context)


def _context(row: PlanRow, progress: Progress) -> Context:
    for name, path in row.paths.items():
        if not path.exists():
            raise StoreError(
                f"input {name} is missing: {path}. Put it back, or move the folder it belongs to away to have it "
                "made again"
            )
    settings, folder = row.stage.settings, row.folder
    return Context(stage=row.stage.name, settings=settings, folder=folder, paths=row.paths, progress=progress)


def _run(row: PlanRow, context: Context, *, check: bool) -> None:
    if check:
        _check(row, context)
    with storing(row.folder):
        row.folder.mkdir(parents=True, exist_ok=True)
    with locked(row.folder):
        if (row.folder / MANIFEST).exists():  # another process finished it since the plan was made
            return
        started = _start(row)
        clock = time.monotonic()
        metrics = row.stage.kind.run(context)
        seconds = round(time.monotonic() - clock, 3)
        write_json(row.folder / MANIFEST, {**started, "seconds": seconds, "metrics": dict(metrics)})
        context.progress.say(f"done in {datetime.timedelta(seconds=round(seconds))}")


def _start(row: PlanRow) -> dict[str, Any]:
    """Write stage.json before the work begins, and return the manifest as far as it is known by then.

    `started` is the first attempt's; `attempts` says how many there were, and `seconds` is the last one's.
    """
    path = row.folder / STARTED
    earlier = read_json(path) if path.exists() else {}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    began = {"started": earlier.get("started", now), "attempts": earlier.get("attempts", 0) + 1}
    known = {"stage": row.stage.name, **row.made_of, "fingerprint": row.fingerprint, **began}
    write_json(path, known)
    return {
        **known,
        "settings": settings_of(row.stage, all_fields=True),
        "inputs": {name: _input(row, name) for name in row.paths},
        "versions": versions(),
        "git": commit(),
        "command": command(),
        "host": host(),
        "seed": getattr(row.stage.settings, "seed", 0),
    }


def _input(row: PlanRow, name: str) -> dict[str, str]:
    """An input for the manifest: its path is relative to the stage's folder, so that a runs folder can be moved."""
    path = Path(os.path.relpath(row.paths[name], row.folder)).as_posix()
    return {"path": path, "fingerprint": row.made_of["inputs"][name]["fingerprint"]}


@contextlib.contextmanager
def _noting(row: PlanRow) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note(f"in stage {row.stage.name} ({row.folder})")
        raise
