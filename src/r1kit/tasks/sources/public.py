"""Tasks from public sets known by name: from the data folder if the file is there, otherwise from the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from r1kit.data.errors import DataError
from r1kit.tasks.base import Listed
from r1kit.tasks.from_rows import ReadOptions
from r1kit.tasks.public_sets import DATA_VARIABLE, KNOWN, MGSM_LANGUAGES, Known, Split, find_local
from r1kit.tasks.sources.file import load_file
from r1kit.tasks.sources.hub import load_hub
from r1kit.tasks.sources.source import Source, arranged

if TYPE_CHECKING:
    from r1kit.tasks.task_spec import TaskSpec


class KnownSource(Source):
    """A name in `KNOWN`, such as `gsm8k`."""

    kind = "known"
    ignores = ("columns", "options")

    def claims(self, name: str) -> bool:
        return name in KNOWN

    def load(self, spec: TaskSpec, split: str) -> Listed:
        labels = {"verifier": spec.verifier, "language": spec.language}
        return arranged(load_known(spec.name, split, data=spec.data, skip_invalid=spec.skip_invalid, **labels), spec)

    def files(self, spec: TaskSpec) -> list[Path]:
        splits = KNOWN[spec.name].splits
        parts = [splits[spec.split]] if spec.split in splits else [] if spec.split else splits.values()
        return [path for part in parts if (path := find_local(part.local, spec.data)) is not None]

    def benchmark(self, spec: TaskSpec, split: str) -> str | None:
        part = KNOWN[spec.name].splits.get(split)
        return spec.name if part is None or part.evaluate_only else None


def load_known(
    name: str,
    split: str,
    *,
    data: str | Path | None = None,
    verifier: str | None = None,
    language: str | None = None,
    skip_invalid: bool = False,
) -> Listed:
    """One split of a known set; MGSM's `test` is all languages, problem by problem, so that a limit keeps a balance."""
    known = KNOWN[name]
    if name == "mgsm" and split == "test":
        parts = [load_known("mgsm", code, data=data, verifier=verifier) for code in MGSM_LANGUAGES]
        rows = zip(*(part.problems for part in parts), strict=True)
        return Listed(name="mgsm/test", problems=tuple(problem for row in rows for problem in row))
    if split not in known.splits:
        splits = [*known.splits, *(["test"] if name == "mgsm" else [])]
        hint = "; it is for evaluation only" if "train" not in known.splits else ""
        raise DataError("missing file", f"{name} has no split {split!r}: it has {', '.join(splits)}{hint}")
    part = known.splits[split]
    skip_invalid = skip_invalid or part.skip_invalid
    options = ReadOptions(verifier=verifier, language=language or part.language, skip_invalid=skip_invalid)
    path = find_local(part.local, data)
    if path is None:
        return from_hub(known, part, f"{name}/{split}", **options)
    options["schema"] = known.schema
    task = load_file(path, name=f"{name}/{split}", **options)
    if part.rows is None:
        return task
    first, end = part.rows
    chosen = (problem for problem in task.problems if first <= int(problem.id.rpartition("/")[2]) < end)
    return replace(task, problems=tuple(chosen))


def from_hub(known: Known, part: Split, name: str, **options: Unpack[ReadOptions]) -> Listed:
    """A split from the hub; the error also says where a local file would be found."""
    options["schema"] = known.hub_schema
    try:
        return load_hub(known.hub, part.hub, config=part.config, revision=known.revision, name=name, **options)
    except DataError as error:
        if error.kind != "missing file":
            raise
        remedy = f"put {part.local}.jsonl.gz into a folder and set {DATA_VARIABLE} (or the option data) to it"
        raise DataError("missing file", f"{error.reason}; or {remedy}", error.file) from error
