"""Tasks from a function of the user's own, named `<module>:<function>`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.settings import SettingsError, article, import_function
from r1kit.tasks.base import Task
from r1kit.tasks.sources.source import Generator

if TYPE_CHECKING:
    from r1kit.tasks.task_spec import TaskSpec

NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class FunctionSource(Generator):
    """`function(split=..., seed=..., size=..., **options)` returns the task.

    If the function reads files, its module lists them in `data_files(function_name, split)`.
    """

    kind = "function"
    ignores = ("columns", "verifier", "language", "order", "calculations", "skip_invalid", "data")

    def claims(self, name: str) -> bool:
        return NAME.fullmatch(name) is not None

    def load(self, spec: TaskSpec, split: str) -> Task:
        task: Any = import_function(spec.name, "task")(split=split, seed=spec.seed, size=spec.size, **spec.options)
        if lacking := [name for name in ("name", "__len__", "__getitem__") if not hasattr(task, name)]:
            remedy = f"it has no {', '.join(lacking)}; r1kit.tasks.Listed(name=..., problems=...) has them all"
            raise SettingsError(f"{spec.name} returned {article(task)}, expected a Task: {remedy}")
        checked: Task = task
        return checked

    def files(self, spec: TaskSpec) -> list[Path]:
        """The function's module, and the files that the module's `data_files` lists."""
        function = import_function(spec.name, "task")
        data_files = getattr(inspect.getmodule(function), "data_files", None)
        read = data_files(spec.name.partition(":")[2], spec.split) if data_files is not None else ()
        return [Path(inspect.getfile(function)), *map(Path, read)]
