"""Run the stages that have not finished yet. A finished stage is never run again, changed or deleted."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Iterator, Mapping, Sequence
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
    """Run the unfinished stages in order, and return the folder of the last one (or of `until`).

    An error of a stage gets a note that names the stage and its folder. Raises `Stopped` on SIGINT or SIGTERM.
    """
    with stop_on_signals():
        rows = plan(recipe, runs, until, fetch=True)
        checked = check_ready(rows)
        for number, row in enumerate(rows, 1):
            with Progress(f"[{number}/{len(rows)}] {row.stage.name}") as progress, _naming(row):
                if row.status == "done":
                    progress.say(f"done already: {row.folder}")
                else:
                    progress.say(f"{row.why}; working in {row.folder}")
                    _run(row, _context(row, progress), check=row.stage.name not in checked)
    return rows[-1].folder


def check_ready(rows: Sequence[PlanRow]) -> set[str]:
    """Check every stage whose inputs exist already, so that bad input is refused before any stage has run for hours.

    Returns the names of these stages. Raises the error of a stage's `check`, with a note that names stage and folder.
    """
    done = {row.stage.name for row in rows if row.status == "done"}
    known = [row for row in rows if row.status != "done" and row.fingerprint != UNKNOWN]
    ready = [row for row in known if all(parent.name in done for parent in row.stage.parents)]
    for row in ready:
        with _naming(row):
            _check(row, _context(row, Progress(row.stage.name)))
    return {row.stage.name for row in ready}


def _check(row: PlanRow, context: Context) -> None:
    if row.stage.kind.check is not None:
        row.stage.kind.check(context)


def _context(row: PlanRow, progress: Progress) -> Context:
    for name, path in row.paths.items():
        if not path.exists():
            raise StoreError(
                f"input {name!r} is missing: {path}. Put it back, or move the folder that held it away to run its "
                "stage again"
            )
    settings, folder = row.stage.settings, row.folder
    return Context(stage=row.stage.name, settings=settings, folder=folder, paths=row.paths, progress=progress)


def _run(row: PlanRow, context: Context, *, check: bool) -> None:
    if check:
        _check(row, context)
    with storing(row.folder):
        row.folder.mkdir(parents=True, exist_ok=True)
    with locked(row.folder):
        if (row.folder / MANIFEST).exists():  # another process has finished it since the plan was made
            return
        started = _start(row)
        clock = time.monotonic()
        metrics: Any = row.stage.kind.run(context)  # may be a user's function, so its result is checked
        if not isinstance(metrics, Mapping):
            kind = row.stage.kind.name
            raise ValueError(f"run of kind {kind!r} returned {metrics!r:.80}, expected a mapping of metrics")
        seconds = round(time.monotonic() - clock, 3)
        write_json(row.folder / MANIFEST, {**started, "seconds": seconds, "metrics": dict(metrics)})
        context.progress.say(f"done in {datetime.timedelta(seconds=round(seconds))}")


def _start(row: PlanRow) -> dict[str, Any]:
    """Write stage.json before the work starts, and return the part of the manifest that is known by then.

    `started` is the time of the first attempt, and `attempts` their number. `seconds` is only the last attempt's time.
    """
    path = row.folder / STARTED
    earlier = read_json(path) if path.exists() else {}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    attempt = {"started": earlier.get("started", now), "attempts": earlier.get("attempts", 0) + 1}
    known = {"stage": row.stage.name, **row.identity, "fingerprint": row.fingerprint, **attempt}
    write_json(path, known)
    # Paths of inputs are relative to the stage's folder, so a runs folder can be moved.
    inputs = {
        name: {
            "path": Path(os.path.relpath(source, row.folder)).as_posix(),
            "fingerprint": row.identity["inputs"][name]["fingerprint"],
        }
        for name, source in row.paths.items()
    }
    return {
        **known,
        "settings": settings_of(row.stage, all_fields=True),
        "inputs": inputs,
        "versions": versions(),
        "git": commit(),
        "command": command(),
        "host": host(),
        "seed": getattr(row.stage.settings, "seed", 0),
    }


@contextlib.contextmanager
def _naming(row: PlanRow) -> Iterator[None]:
    """Add the stage and its folder to any error."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in stage {row.stage.name} ({row.folder})")
        raise
