"""Tasks as settings: a name and how to load it, resolved to a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from r1kit.data.columns import ColumnMap
from r1kit.data.errors import DataError
from r1kit.settings import Settings, Weight, nearest, unhashed
from r1kit.tasks.base import Task, iterate
from r1kit.tasks.mapping import mapped
from r1kit.tasks.mixture import Joined, mix
from r1kit.tasks.sources import source_of
from r1kit.tasks.sources.file import HELD_OUT_SHARE
from r1kit.tasks.sources.source import Source
from r1kit.verifiers import find

GENERATED = 1000  # problems of a generated task without a limit


class TaskSpec(Settings):
    """One task of a run.

    `name` is a known set (`gsm8k`), `tiny/<generator>`, `gym/<generator>`, `hub:<id>` or `hub:<id>:<config>`, the path
    of a file, `requests:` or `harmful:` with the name of a set or a file, `shuffled:` before any of these for the same
    problems with each other's answers, or `<module>:<function>` for a task of your own: `function(split, seed, size)`
    returns the task. If it reads files, `data_files(function, split)` of its module lists them, so that a change of the
    data is noticed. With `options={"held_out": 0.2}` a fifth of a file is for evaluation and the rest for training.
    Settings that have no effect on this kind of task are errors.
    """

    name: str = Field(min_length=1)
    split: str = Field(default="", description="empty: train for training, test for evaluation")
    columns: ColumnMap = Field(
        default={},
        description='our fields -> the data\'s columns: {"prompt": "q", "answer": "a"} or "prompt=q,answer=a"',
    )
    verifier: str | None = Field(
        default=None, description="in place of the set's own, such as math, or math+thinking (see r1kit.verifiers)"
    )
    language: str | None = Field(default=None, description="ISO 639-1 code of all problems, in place of the data's")
    limit: int | None = Field(
        default=None, ge=1, description=f"the first problems; for generators the size (default: {GENERATED})"
    )
    order: Literal["file", "shuffled", "easiest"] = Field(
        default="file", description="before the limit: as in the data, shuffled by seed, or least calculation first"
    )
    calculations: Literal["no", "alone", "in_context", "last"] = Field(
        default="no",
        description="one problem per calculation in the reference solutions, not the whole problems: the calculation "
        "alone, in_context with the question, or last, only the one that the question itself asks",
    )
    skip_invalid: bool = Field(default=False, description="skip faulty rows instead of stopping at the first")
    nested_columns: bool = unhashed(
        False,
        description="keep columns of lists and objects in memory, for rewards of your own; `rl` does so if it has any",
    )
    seed: int = Field(default=0, ge=0)
    weight: Weight = Field(default=1.0, gt=0, description="share in a mixture; weights need not add up to 1")
    data: Path | None = Field(default=None, description="folder with <set>/<split>.jsonl.gz, in place of R1KIT_DATA")
    options: dict[str, Any] = Field(
        default={},
        description='settings of a gym generator or function; of a file, "held_out": the share for evaluation',
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """A plain text is the name."""
        return {"name": value} if isinstance(value, str) else value

    @field_validator("columns")
    @classmethod
    def _fields_exist(cls, columns: dict[str, str]) -> dict[str, str]:
        if columns:
            mapped(columns)
        return columns

    @field_validator("verifier")
    @classmethod
    def _verifier_exists(cls, verifier: str | None) -> str | None:
        if verifier is not None:
            find(verifier)
        return verifier

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        fields = type(self).model_fields
        idle = [field for field in self.source.unused(self) if getattr(self, field) != fields[field].default]
        if idle == ["options"] and self.source.kind == "file":
            option = next(iter(self.options))
            raise ValueError(f"a file has no option {option}: {nearest(option, [HELD_OUT_SHARE])}")
        if idle:
            task = f"{self.name} (a {self.source.kind} task)"
            raise ValueError(f"{', '.join(idle)} would have no effect on {task}: leave it out")
        return self

    @property
    def source(self) -> Source:
        """The kind of source that the name belongs to."""
        return source_of(self.name)

    @property
    def size(self) -> int:
        """The number of problems to generate."""
        return self.limit or GENERATED


def load_tasks(specs: Sequence[TaskSpec], training: bool, *, nested_columns: bool = False) -> Task:
    """The specs as one task: a weighted mixture for training, end to end for evaluation.

    `nested_columns` keeps columns of lists and objects, whatever the specs say.

    Raises `DataError` for data that cannot be used and, when training, for sets that are for evaluation only.
    """
    if not specs:
        raise DataError("missing file", 'no tasks are named: give at least one, such as TaskSpec(name="gsm8k")')
    if training:
        for spec in specs:
            refuse_benchmark(spec)
    if nested_columns:
        specs = [spec.replace(nested_columns=True) for spec in specs]
    tasks = [load_task(spec, "train" if training else "test") for spec in specs]
    if len(tasks) == 1:
        return tasks[0]
    return mix(tasks, [spec.weight for spec in specs]) if training else joined(tasks)


def joined(tasks: Sequence[Task]) -> Task:
    """Tasks end to end; raises `DataError` if two share a problem id, which would mix up their samples."""
    owners: dict[str, str] = {}
    for task in tasks:
        for problem_id in {problem.id for problem in iterate(task)}:
            if problem_id in owners:
                reason = f"{owners[problem_id]} and {task.name} both have a problem {problem_id}: name each set once"
                reason += ", and put files of one name into folders of different names"
                raise DataError("duplicate problem", reason)
            owners[problem_id] = task.name
    return Joined(members=tuple(tasks))


def load_task(spec: TaskSpec, default_split: str = "train") -> Task:
    """One spec as a task."""
    return spec.source.load(spec, spec.split or default_split)


def refuse_benchmark(spec: TaskSpec) -> None:
    """Raise `DataError` if training on the spec would train on a benchmark, which makes its score meaningless.

    Public benchmarks are recognised by name, hub id, and place in a data folder. The test and validation splits of
    generated tasks count as benchmarks.
    """
    split = spec.split or "train"
    name = spec.source.benchmark(spec, split)
    if name is not None:
        raise DataError(
            "evaluation only",
            f"{spec.name} (split {split}) holds {name}, which is for evaluation only: train on another set or split, "
            "such as gsm8k or math, split train",
        )


def source_files(spec: TaskSpec) -> list[Path]:
    """The local files whose content decides what the task is: its data, or the code that generates it."""
    return spec.source.files(spec)
