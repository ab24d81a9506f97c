"""Names of runs, stages and files, resolved to paths that are inside the runs folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from r1kit.pipeline.plan import PLAN
from r1kit.report.folders import FILES

ROW_FILES = (  # data that a stage may leave, in the order of its work
    *("samples.jsonl", "selected/kept.jsonl", "rewritten.jsonl", "kept.jsonl", "dropped.jsonl", "mixed.jsonl"),
    *("general.jsonl", "preferences.jsonl", "safety.jsonl", "completions.jsonl", "audit.jsonl"),
    "tokens/train/rows.jsonl",
)


class NotThere(LookupError):
    """There is no such run, stage, file, step or row; the message is a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlace:
    """A row of a stage's file; rows count from 1."""

    stage: str
    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.stage}/{self.file}:{self.row}"


def find_runs(root: Path) -> Mapping[str, Path]:
    """Run folders by name: those in `root`, or `root` itself if it is one. An unreadable folder is left out."""
    if is_run(root):
        return {root.resolve().name: root}
    return {path.name: path for path in sorted(children(root)) if is_run(path)}


def require_runs(root: Path) -> Mapping[str, Path]:
    """`find_runs`; raises ValueError if there is none."""
    if runs := find_runs(root):
        return runs
    what = "holds no run" if root.exists() else "does not exist"
    raise ValueError(f"{root} {what}: name a run's folder, one of its stages, or a folder of runs")


def is_run(folder: Path) -> bool:
    return (folder / PLAN).exists() or any(is_stage(path) for path in children(folder))


def with_name(folder: Path) -> Path:
    """The same folder with its own name, which `.` and `..` lack."""
    return folder.resolve() if folder.name in ("", "..") else folder


def is_stage(folder: Path) -> bool:
    return any((folder / name).exists() for name in FILES)


def children(folder: Path) -> list[Path]:
    """The folders in a folder, without hidden ones and without links that lead out of it; none if it is gone."""
    try:
        inside = [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir()]
        return [path for path in inside if not path.is_symlink() or path.resolve().parent == folder.resolve()]
    except OSError:
        return []


def run_folder(root: Path, name: str) -> Path:
    """Raises `NotThere`."""
    folders = {root.resolve().name: root} if is_run(root) else {path.name: path for path in children(root)}
    if name not in folders or not is_run(folders[name]):
        raise NotThere(f"there is no run {name!r:.80} in {root}")
    return folders[name]


def stage_folder(run: Path, name: str) -> Path:
    """Raises `NotThere`."""
    if name not in {path.name for path in children(run)}:
        raise NotThere(f"run {run.name} has no stage folder {name!r:.80}")
    return run / name


def file_in(folder: Path, name: str) -> Path:
    """An existing file in a stage's folder, by its path from there. Raises `NotThere`, also if it leads outside."""
    parts, path = PurePosixPath(name), folder / name
    if not name or parts.is_absolute() or ".." in parts.parts or "\0" in name or not path.is_file():
        raise NotThere(f"stage {folder.name} has no file {name!r:.80}")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise NotThere(f"{folder.name}/{name} is a link that leads out of its folder")
    return path


def row_files(folder: Path) -> list[str]:
    """The data files of a stage that exist."""
    return [name for name in ROW_FILES if (folder / name).is_file()]
