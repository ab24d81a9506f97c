"""The interface of a kind of source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from r1kit.tasks.base import Listed, Task
from r1kit.tasks.calculations import calculations
from r1kit.tasks.from_rows import ReadOptions

if TYPE_CHECKING:
    from r1kit.tasks.task_spec import TaskSpec

HELD_OUT = ("test", "validation")  # splits of generated tasks that are for evaluation only


class Source(Protocol):
    """One kind of source. `ignores` lists the settings that have no effect on it; setting one of them is an error."""

    kind: ClassVar[str]
    ignores: ClassVar[tuple[str, ...]]

    def claims(self, name: str) -> bool:
        """Whether a task of this name comes from here."""
        ...

    def unused(self, spec: TaskSpec) -> tuple[str, ...]:
        """The settings that have no effect on this spec."""
        return self.ignores

    def load(self, spec: TaskSpec, split: str) -> Task:
        """The task; raises `DataError` if it does not exist or its data cannot be used."""
        ...

    def files(self, spec: TaskSpec) -> list[Path]:
        """The local files whose content decides what the task is: its data, or the code that generates it."""
        return []

    def problem_source(self, spec: TaskSpec) -> str:
        """The `source` of the problems, unless the data has one for each row."""
        return spec.name

    def benchmark(self, spec: TaskSpec, split: str) -> str | None:
        """The evaluation-only set that the split contains, or None if it may be trained on."""
        return None


class Generator(Source, Protocol):
    """A source that generates its problems: the held-out splits are for evaluation only."""

    def benchmark(self, spec: TaskSpec, split: str) -> str | None:
        return "its held-out part" if split in HELD_OUT else None


def read_options(spec: TaskSpec) -> ReadOptions:
    """The options of a spec that say how rows become problems."""
    return ReadOptions(
        columns=spec.columns,
        verifier=spec.verifier,
        language=spec.language,
        skip_invalid=spec.skip_invalid,
        nested_columns=spec.nested_columns,
    )


def arranged(task: Listed, spec: TaskSpec) -> Listed:
    """The problems that the spec selects, in its order."""
    if spec.calculations != "no":
        task = calculations(task, spec.calculations)
    if spec.order == "shuffled":
        task = task.shuffled(spec.seed)
    elif spec.order == "easiest":
        task = task.easiest()
    return task.first(spec.limit) if spec.limit else task
