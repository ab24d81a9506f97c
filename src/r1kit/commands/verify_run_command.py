"""The command `verify-run`: whether every file of a run is as it was written, also in a copy of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from r1kit.content import is_changed
from r1kit.data.errors import DataError
from r1kit.data.jsonl import read_rows
from r1kit.pipeline.fingerprint import fingerprint
from r1kit.pipeline.manifest import FILES, MANIFEST, STARTED, checkpoint_damage, read_manifest, remedy, stage_damage
from r1kit.pipeline.plan import CALLS, PLAN
from r1kit.report.folders import UNREADABLE, planned
from r1kit.report.live.places import children, is_stage, require_runs, with_name
from r1kit.review.database import require_whole
from r1kit.review.items import ReviewError
from r1kit.store import StoreError, read_object, to_plain
from r1kit.terminal import printable

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
        root, audits, broken, absent = path.parent, [audit(path)], dict[Path, str](), list[Path]()
    else:
        root, runs = path, require_runs(path)
        audits = [audit(stage) for run in runs.values() for stage in sorted(children(run)) if is_stage(stage)]
        broken = {file: reason for run in runs.values() for file, reason in _damage_of_run(run)}
        broken |= {parent: reason for each in audits for parent, reason in _missing_inputs(each.folder)}
        absent = [stage for run in runs.values() for name in planned(run) if not (stage := run / name).exists()]
    lines = [f"{file} is damaged: {reason}" for file, reason in broken.items()]
    for each in audits:
        name = each.folder.relative_to(root)  # `rl-0a1b2c3d`, or in a folder of several runs `monday/rl-0a1b2c3d`
        lines.append(f"{name}: {each.state}{f', {each.files} files' if each.files else ''}")
        lines += [f"  {each.folder / name} is damaged: {reason}" for name, reason in each.damaged.items()]
        lines += [f"  {remedy(each.folder, each.damaged)}"] if each.damaged else []
    lines += [f"{stage.name}: absent: it never ran, or its folder was moved" for stage in absent if stage not in broken]
    return {
        "ok": not broken and all(each.state != "damaged" for each in audits),
        "stages": [to_plain(asdict(each)) for each in audits],
        "damaged": {str(file): reason for file, reason in broken.items()},
        "absent": [stage.name for stage in absent],
        "text": printable("\n".join(lines)),
    }


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


def _damage_of_run(run: Path) -> Iterator[tuple[Path, str]]:
    """What is wrong with the run's own files. A run that was killed in its first call has no list of calls."""
    for name, then in ((PLAN, "the command of the run writes it again"), (CALLS, "it has the times of calls")):
        try:
            if is_changed(read_object(run / name)):
                yield run / name, f"edited; restore it from a copy, or delete it: {then}"
        except FileNotFoundError:
            if name == PLAN:
                yield run / name, f"missing; {then}"
        except (StoreError, OSError) as error:
            yield run / name, str(error).removeprefix(f"{run / name} ")
    for stage in _finished(run):
        if stage.exists() and not (stage / MANIFEST).exists():
            ways = "restore it from a copy, or let the command of the run finish the stage again"
            yield stage / MANIFEST, f"missing, and {CALLS} says that the stage finished; {ways}"


def _finished(run: Path) -> list[Path]:
    """The folders of the stages that the run's calls finished; none if the list of calls is damaged."""
    try:
        return [run / str(name) for call in read_object(run / CALLS)["calls"] for name in call["stages"]]
    except (StoreError, OSError, LookupError, TypeError):
        return []


def _missing_inputs(folder: Path) -> Iterator[tuple[Path, str]]:
    """Folders of stages that this one read and that are not there."""
    with suppress(*UNREADABLE):
        for name, parent, _ in _parents(folder, read_object(folder / STARTED)):
            if not parent.exists():
                yield parent, f"missing, and {folder.name} read it as input {name!r}; put it back"


def _parents(folder: Path, started: Mapping[str, Any]) -> Iterator[tuple[str, Path, str]]:
    """The inputs of a stage that other stages made: name, folder and fingerprint."""
    for name, source in started["inputs"].items():
        if "stage" in source:
            digest = source["fingerprint"]
            yield name, folder.with_name(f"{source['stage']}-{digest[:8]}"), digest


def _unrecorded_damage(folder: Path) -> Iterator[tuple[str, str]]:
    """Checkpoints, rows and a review queue: what has no record in a manifest."""
    yield from checkpoint_damage(folder).items()
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
        if digest != content["fingerprint"] or folder.name != f"{content['stage']}-{digest[:8]}":
            yield STARTED, f"it is that of {content['stage']}-{digest[:8]}: it was changed, or its folder renamed"
        for name, parent, expected in _parents(folder, content):
            if (parent / MANIFEST).exists() and read_manifest(parent)["fingerprint"] != expected:
                yield STARTED, f"input {name!r} has another fingerprint than {parent.name}"
    except UNREADABLE as error:
        yield STARTED, f"not what r1kit wrote ({error})"


def _broken(check: Any, path: Path) -> str:
    """The error of a check of a file or folder; empty if it passes."""
    try:
        check(path)
    except (StoreError, DataError, ReviewError, OSError) as error:
        return str(error).removeprefix(f"{path}: ").replace(f"{path}/", "")  # the caller names the file
    return ""
