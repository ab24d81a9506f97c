"""The command `verify-run`: whether every file of a run is as it was written, also in a copy of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from r1kit.content import require_sealed
from r1kit.data.errors import DataError
from r1kit.data.jsonl import read_rows
from r1kit.pipeline.fingerprint import fingerprint
from r1kit.pipeline.manifest import FILES, MANIFEST, STARTED, read_manifest, remedy, stage_damage
from r1kit.pipeline.plan import PLAN
from r1kit.report.live.places import children, find_runs, is_stage, with_name
from r1kit.review.database import require_whole
from r1kit.review.items import ReviewError
from r1kit.store import StoreError, read_json, read_object, to_plain
from r1kit.terminal import printable
from r1kit.train.checkpoints import by_step

IDENTITY = ("kind", "version", "code", "settings", "inputs")  # the keys of stage.json that the fingerprint covers
State = Literal["intact", "unfinished", "unverified", "damaged"]


@dataclass(frozen=True, slots=True)
class Audit:
    """One stage: its state, the number of files that were hashed, and how each damaged file differs."""

    folder: Path
    state: State
    files: int
    damaged: Mapping[str, str]


def verify_run(path: Path) -> dict[str, Any]:
    """Audit the runs in a folder, one run, or one stage alone; raises ValueError if there is none.

    Every file is hashed, whatever its time says. Nothing is written.
    """
    path = with_name(path)
    if is_stage(path):
        folders, plans = [path], list[Path]()
    else:
        runs = find_runs(path)
        if not runs:
            raise ValueError(f"{path} holds no run: name a run's folder, one of its stages, or a folder of runs")
        folders = [stage for run in runs.values() for stage in sorted(children(run)) if is_stage(stage)]
        plans = [run / name for run in runs.values() for name in (PLAN, "run.json")]
    audits = [audit(folder) for folder in folders]
    broken = {str(plan): reason for plan in plans if plan.exists() and (reason := _broken(read_json, plan))}
    is_ok = not broken and all(each.state != "damaged" for each in audits)
    lines = [f"{file} is damaged: {reason}" for file, reason in broken.items()]
    for each in audits:
        lines.append(f"{each.folder.name}: {each.state}{f', {each.files} files' if each.files else ''}")
        lines += [f"  {each.folder / name} is damaged: {reason}" for name, reason in each.damaged.items()]
        lines += [f"  {remedy(each.folder)}"] if each.damaged else []
    stages = [to_plain(asdict(each)) for each in audits]
    return {"ok": is_ok, "stages": stages, "damaged": broken, "text": printable("\n".join(lines))}


def audit(folder: Path) -> Audit:
    """Compare a stage's folder with its manifest, its checkpoints with their checksums, and read its rows."""
    damaged = {**dict(_unrecorded_damage(folder)), **dict(_identity_damage(folder))}
    if not (folder / MANIFEST).exists():
        return Audit(folder, "damaged" if damaged else "unfinished", 0, damaged)
    try:
        recorded = stage_damage(folder, whole=True)
        files = len(read_manifest(folder).get(FILES, ()))
    except (StoreError, OSError) as error:
        return Audit(folder, "damaged", 0, damaged | {MANIFEST: str(error)})
    damaged |= recorded or {}
    state: State = "damaged" if damaged else "unverified" if recorded is None else "intact"
    return Audit(folder, state, files, damaged)


def _unrecorded_damage(folder: Path) -> Iterator[tuple[str, str]]:
    """Checkpoints, rows and a review queue: what has no record in a manifest."""
    for kind in ("checkpoints", "best"):
        for checkpoint in by_step(folder, kind):
            if reason := _broken(require_sealed, checkpoint):
                yield checkpoint.relative_to(folder).as_posix(), reason
    for file in sorted(folder.glob("**/*.jsonl")):
        if reason := _broken(lambda path: sum(1 for _ in read_rows(path)), file):
            yield file.relative_to(folder).as_posix(), reason
    queue = folder / "review.db"
    if queue.exists() and (reason := _broken(require_whole, queue)):
        yield queue.name, reason


def _identity_damage(folder: Path) -> Iterator[tuple[str, str]]:
    """Whether `stage.json` still gives the fingerprint in the folder's name, and each parent has the one it names."""
    if not (folder / STARTED).exists():
        return
    try:
        content = read_object(folder / STARTED)
        digest = fingerprint({name: content[name] for name in IDENTITY if name in content})
        if digest != content["fingerprint"] or not folder.name.endswith(f"-{digest[:8]}"):
            yield STARTED, f"its fingerprint is {digest[:8]}, expected that of the folder's name"
        for name, source in content["inputs"].items():
            parent = folder.with_name(f"{source.get('stage')}-{source['fingerprint'][:8]}")
            if (parent / MANIFEST).exists() and read_manifest(parent)["fingerprint"] != source["fingerprint"]:
                yield STARTED, f"input {name!r} has another fingerprint than {parent.name}"
    except (StoreError, LookupError, TypeError, AttributeError, ValueError) as error:
        yield STARTED, f"not what r1kit wrote ({error})"


def _broken(check: Any, path: Path) -> str:
    """The error of a check of a file or folder; empty if it passes."""
    try:
        check(path)
    except (StoreError, DataError, ReviewError, OSError) as error:
        return str(error).removeprefix(f"{path}: ").replace(f"{path}/", "")  # the caller names the file
    return ""
