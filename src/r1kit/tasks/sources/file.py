"""Tasks from files: JSONL, JSON or Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from r1kit.data.errors import DataError
from r1kit.data.rows import SUFFIXES, numbered_rows, stem
from r1kit.settings import nearest
from r1kit.tasks.base import Listed
from r1kit.tasks.from_rows import ReadOptions, from_rows
from r1kit.tasks.public_sets import KNOWN, benchmark_in_path
from r1kit.tasks.sources.source import Source, arranged, read_options

if TYPE_CHECKING:
    from r1kit.tasks.task_spec import TaskSpec


class FileSource(Source):
    """A path; claims every name, so it comes last."""

    kind = "file"
    ignores = ("split", "data", "options")

    def claims(self, name: str) -> bool:
        return True

    def load(self, spec: TaskSpec, split: str) -> Listed:
        path = Path(spec.name).expanduser()
        if not path.name.endswith(SUFFIXES) and not path.exists():
            raise DataError(
                "missing file",
                f"there is no task {spec.name!r}: {nearest(spec.name, KNOWN)} (or give a file ending in .jsonl, "
                ".json or .parquet, hub:<id>, tiny/<generator> or gym/<generator>)",
            )
        return arranged(load_file(path, **read_options(spec)), spec)

    def files(self, spec: TaskSpec) -> list[Path]:
        return [path] if (path := Path(spec.name).expanduser()).is_file() else []

    def benchmark(self, spec: TaskSpec, split: str) -> str | None:
        return benchmark_in_path(Path(spec.name))


def load_file(path: str | Path, *, name: str = "", **options: Unpack[ReadOptions]) -> Listed:
    """A JSONL, JSON (both also .gz) or Parquet file as a task; its name defaults to `<folder>/<file>`."""
    path = Path(path).expanduser()
    name = name or f"{path.absolute().parent.name}/{stem(path)}".lstrip("/")
    return from_rows(numbered_rows(path), name=name, file=str(path), **options)
