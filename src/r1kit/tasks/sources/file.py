"""Tasks from files: JSONL, JSON or Parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from r1kit.data.errors import DataError
from r1kit.data.rows import SUFFIXES, numbered_rows, stem
from r1kit.settings import nearest
from r1kit.tasks.base import Listed
from r1kit.tasks.from_rows import ReadOptions, from_rows
from r1kit.tasks.public_sets import KNOWN, benchmark_in_path
from r1kit.tasks.sources.source import HELD_OUT, Source, arranged, read_options

if TYPE_CHECKING:
    from r1kit.tasks.task_spec import TaskSpec

HELD_OUT_SHARE = "held_out"


class FileSource(Source):
    """A path; claims every name, so it comes last."""

    kind = "file"
    ignores = ("split", "data", "options")

    def unused(self, spec: TaskSpec) -> tuple[str, ...]:
        return ("data",) if HELD_OUT_SHARE in spec.options else self.ignores

    def claims(self, name: str) -> bool:
        return True

    def load(self, spec: TaskSpec, split: str) -> Listed:
        task = load_file(self.existing(spec), **read_options(spec))
        return arranged(part_of(task, spec.options, split) if spec.options else task, spec)

    def existing(self, spec: TaskSpec) -> Path:
        """The path; raises `DataError` if nothing is there, and names a known set that may have been meant."""
        path = Path(spec.name).expanduser()
        if path.exists():
            return path
        if path.name.endswith(SUFFIXES):
            raise DataError("missing file", "there is no such file", str(path))
        raise DataError(
            "missing file",
            f"there is no task {spec.name!r}: {nearest(spec.name, KNOWN)} (or give a file ending in .jsonl, "
            ".json or .parquet, hub:<id>, tiny/<generator> or gym/<generator>)",
        )

    def files(self, spec: TaskSpec) -> list[Path]:
        return [path] if (path := Path(spec.name).expanduser()).is_file() else []

    def problem_source(self, spec: TaskSpec) -> str:
        return default_name(Path(spec.name).expanduser())

    def benchmark(self, spec: TaskSpec, split: str) -> str | None:
        if spec.options and split in HELD_OUT:
            return "its held-out part"
        return benchmark_in_path(Path(spec.name))


def part_of(task: Listed, options: Mapping[str, Any], split: str) -> Listed:
    """The problems of one side of a file: `train`, or `test`, the share `held_out` of the prompts.

    The text of a prompt decides its side, whatever else is in the file: equal prompts are never on both sides, and more
    rows move none. Raises `DataError` for an empty side.
    """
    share = options[HELD_OUT_SHARE]
    if set(options) != {HELD_OUT_SHARE} or isinstance(share, bool) or not isinstance(share, int | float):
        raise DataError("wrong type", f'the options of a file are {options}: expected {{"held_out": 0.2}}', task.name)
    if not 0 < share < 1 or split not in ("train", "test"):
        reason = f"held_out is {share} and the split {split!r}: expected a share between 0 and 1, and train or test"
        raise DataError("wrong type", reason, task.name)
    problems = tuple(problem for problem in task.problems if _is_held_out(problem.prompt, share) == (split == "test"))
    if not problems:
        side = "held out" if split == "test" else "left for training"
        reason = f"with held_out {share}, none of {len(task)} problems is {side}: add problems, or name others for eval"
        raise DataError("empty file", reason, task.name)
    return replace(task, problems=problems)


def _is_held_out(prompt: str, share: float) -> bool:
    digest = hashlib.sha256(" ".join(prompt.casefold().split()).encode()).digest()
    return int.from_bytes(digest[:6]) < share * 2**48


def default_name(path: Path) -> str:
    """`<folder>/<file>` without the file's ending."""
    return f"{path.absolute().parent.name}/{stem(path)}".lstrip("/")


def load_file(path: str | Path, *, name: str = "", **options: Unpack[ReadOptions]) -> Listed:
    """A JSONL, JSON (both also .gz) or Parquet file as a task; its name defaults to `<folder>/<file>`."""
    path = Path(path).expanduser()
    name = name or default_name(path)
    return from_rows(numbered_rows(path), name=name, file=str(path), **options)
