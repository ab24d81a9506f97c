"""Tasks as settings: a name and how to read it, resolved to a task."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from r1kit.data.errors import DataError
from r1kit.data.rows import SUFFIXES
from r1kit.settings import Settings, nearest
from r1kit.tasks.base import Listed, Task, iterate
from r1kit.tasks.files import ReadOptions, load_file
from r1kit.tasks.generators import load_gym
from r1kit.tasks.hub import load_hub
from r1kit.tasks.mixture import Joined, mix
from r1kit.tasks.public_sets import KNOWN, benchmark_in_hub, benchmark_in_path, find_local, load_known
from r1kit.tasks.schemas import mapped
from r1kit.verifiers import find

GENERATED = 1000  # problems of a generator where no limit is set
HELD_OUT = ("test", "validation")  # splits of tasks that make their problems
NO_EFFECT = {
    "tiny": ("columns", "verifier", "language", "order", "calculations", "skip_invalid", "data", "options"),
    "function": ("columns", "verifier", "language", "order", "calculations", "skip_invalid", "data"),
    "gym": ("columns", "language", "order", "calculations", "skip_invalid", "data"),
    "hub": ("data", "options"),
    "known": ("columns", "options"),
    "file": ("split", "data", "options"),
}
MAKER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class TaskSpec(Settings):
    """One task of a run.

    `name` is a known set (`gsm8k`), `tiny/<generator>`, `gym/<generator>`, `hub:<id>` or `hub:<id>:<config>`, the path
    of a file, or `<module>:<function>` for a task of one's own: `function(split, seed, size)` gives the task. Where it
    reads files, `data_files(function, split)` of its module lists them, so that changed data are asked again.
    A setting that could have no effect on the kind of task named is refused.
    """

    name: str = Field(min_length=1)
    split: str = Field(default="", description="empty: train for training, test for evaluation")
    columns: dict[str, str] = Field(
        default={}, description='our fields -> the data\'s columns: {"prompt": "q", "answer": "a"}'
    )
    verifier: str | None = Field(
        default=None, description="in place of the set's own; a name in r1kit.verifiers.VERIFIERS"
    )
    language: str | None = Field(default=None, description="ISO 639-1 code of all problems, in place of the data's")
    limit: int | None = Field(
        default=None, ge=1, description=f"the first problems; of generators the size (else {GENERATED})"
    )
    order: Literal["file", "shuffled", "easiest"] = Field(
        default="file", description="before the limit: as in the data, drawn with seed, or least to calculate first"
    )
    calculations: bool = Field(
        default=False, description="ask for each calculation of the reference solutions, not for the whole problem"
    )
    skip_invalid: bool = Field(default=False, description="leave faulty rows out, in place of stopping at the first")
    seed: int = Field(default=0, ge=0)
    weight: float = Field(default=1.0, gt=0, description="share in a mixture; weights need not add up to 1")
    data: Path | None = Field(default=None, description="folder with <set>/<split>.jsonl.gz, in place of R1KIT_DATA")
    options: dict[str, Any] = Field(default={}, description="own settings of a gym generator or function")

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
    def _exists(cls, verifier: str | None) -> str | None:
        if verifier is not None:
            find(verifier)
        return verifier

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        idle = [
            field for field in NO_EFFECT[self.kind] if getattr(self, field) != type(self).model_fields[field].default
        ]
        if idle:
            raise ValueError(
                f"{', '.join(idle)} would have no effect on {self.name} (a {self.kind} task): leave it out"
            )
        return self

    @property
    def kind(self) -> str:
        """What the name is: tiny, gym, function, hub, known or file."""
        head = self.name.partition("/")[0]
        if head in ("tiny", "gym") and head != self.name:
            return head
        if self.name.startswith("hub:"):
            return "hub"
        if MAKER.fullmatch(self.name):
            return "function"
        return "known" if self.name in KNOWN else "file"


def load_tasks(specs: Sequence[TaskSpec], training: bool) -> Task:
    """The specs as one task: a weighted mixture for training, end to end for evaluation.

    Raises `DataError` for data that cannot be used and, when training, for sets that are for evaluation only.
    """
    if not specs:
        raise DataError("missing file", 'no tasks are named: give at least one, such as TaskSpec(name="gsm8k")')
    if training:
        for spec in specs:
            refuse_benchmark(spec)
    tasks = [load_task(spec, "train" if training else "test") for spec in specs]
    if len(tasks) == 1:
        return tasks[0]
    return mix(tasks, [spec.weight for spec in specs]) if training else joined(tasks)


def joined(tasks: Sequence[Task]) -> Task:
    """Tasks end to end; raises `DataError` where two of them have a problem of one id, whose samples would be mixed."""
    owners: dict[str, str] = {}
    for task in tasks:
        for name in {problem.id for problem in iterate(task)}:
            if name in owners:
                reason = f"{owners[name]} and {task.name} both have a problem {name}: name each set once"
                raise DataError("duplicate problem", f"{reason}, and keep files of one name in folders of unlike names")
            owners[name] = task.name
    return Joined(members=tuple(tasks))


def load_task(spec: TaskSpec, default_split: str = "train") -> Task:
    """One spec as a task."""
    split = spec.split or default_split
    if spec.kind in ("tiny", "gym", "function"):
        return load_generated(spec, split)
    return ordered(load_listed(spec, split), spec)


def load_generated(spec: TaskSpec, split: str) -> Task:
    """A task that makes its problems: of the tiny world, of reasoning-gym, or of one's own."""
    size, name = spec.limit or GENERATED, spec.name.partition("/")[2]
    if spec.kind == "gym":
        return load_gym(name, split, seed=spec.seed, size=size, options=spec.options, verifier=spec.verifier)
    if spec.kind == "tiny":
        from r1kit.tiny import problems as tiny

        return tiny.load(name, split, spec.seed, size)
    task: Task = import_maker(spec.name)(split=split, seed=spec.seed, size=size, **spec.options)
    return task


def import_maker(name: str) -> Any:
    """The function behind `<module>:<function>`."""
    module, _, function = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise DataError("missing file", f"{name}: {error}; it must be importable from where you run") from None
    if not callable(maker := getattr(found, function, None)):
        raise DataError("missing file", f"{name}: {module} has no function {function}")
    return maker


def load_listed(spec: TaskSpec, split: str) -> Listed:
    """A known set, a hub data set or a file."""
    if spec.kind == "known":
        return load_known(
            spec.name,
            split,
            data=spec.data,
            verifier=spec.verifier,
            language=spec.language,
            skip_invalid=spec.skip_invalid,
        )
    options = ReadOptions(
        columns=spec.columns, verifier=spec.verifier, language=spec.language, skip_invalid=spec.skip_invalid
    )
    if spec.kind == "hub":
        identifier, config = hub_parts(spec.name)
        return load_hub(identifier, split, config=config, **options)
    path = Path(spec.name).expanduser()
    if not path.name.endswith(SUFFIXES) and not path.exists():
        raise DataError(
            "missing file",
            f"there is no task {spec.name!r}: {nearest(spec.name, KNOWN)} (or give a file ending in .jsonl, .json or "
            ".parquet, hub:<id>, tiny/<generator> or gym/<generator>)",
        )
    return load_file(path, **options)


def hub_parts(name: str) -> tuple[str, str | None]:
    """`hub:openai/gsm8k:main` as id and config."""
    identifier, _, config = name.removeprefix("hub:").partition(":")
    return identifier, config or None


def ordered(task: Listed, spec: TaskSpec) -> Listed:
    """The problems that the spec asks for, in its order."""
    task = task.calculations() if spec.calculations else task
    if spec.order == "shuffled":
        task = task.shuffled(spec.seed)
    elif spec.order == "easiest":
        task = task.easiest()
    return task.first(spec.limit) if spec.limit else task


def refuse_benchmark(spec: TaskSpec) -> None:
    """Training on what is measured makes its score worthless.

    Public benchmarks are refused by name, hub id, and place in a data folder; of tasks that make their problems, the
    splits that are held out.
    """
    split = spec.split or "train"
    if spec.kind == "known":
        part = KNOWN[spec.name].splits.get(split)
        name = spec.name if part is None or part.evaluate_only else None
    elif spec.kind == "hub":
        name = benchmark_in_hub(hub_parts(spec.name)[0], split)
    elif spec.kind in ("tiny", "gym", "function"):
        name = "its held-out part" if split in HELD_OUT else None
    else:
        name = benchmark_in_path(Path(spec.name))
    if name is not None:
        raise DataError(
            "evaluation only",
            f"{spec.name} (split {split}) holds {name}, which is for evaluation only: train on another set or split, "
            "such as gsm8k or math, split train",
        )


def source_files(spec: TaskSpec) -> list[Path]:
    """The local files whose content decides what the task is: data files, or the code that makes its problems."""
    if spec.kind == "tiny":
        from r1kit.tiny import everyday, problems, world

        makers = Path(world.__file__).parent
        if spec.name.partition("/")[2] in everyday.NAMES:
            return [Path(everyday.__file__), makers / "general.py"]
        return [Path(problems.__file__), makers / "steps.py", makers / "wordings.py"]
    if spec.kind == "function":
        return made_from(spec)
    if spec.kind == "file":
        return [path] if (path := Path(spec.name).expanduser()).is_file() else []
    if spec.kind == "known":
        parts = [part.local for split, part in KNOWN[spec.name].splits.items() if not spec.split or split == spec.split]
        return [local for part in parts if (local := find_local(part, spec.data)) is not None]
    return []


def made_from(spec: TaskSpec) -> list[Path]:
    """A function's module, and what the module's `data_files` says that the function reads."""
    maker = import_maker(spec.name)
    files = getattr(inspect.getmodule(maker), "data_files", None)
    read = files(spec.name.partition(":")[2], spec.split) if files is not None else ()
    return [Path(inspect.getfile(maker)), *map(Path, read)]
