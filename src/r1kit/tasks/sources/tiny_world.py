"""Tasks of the tiny world, named `tiny/<generator>`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r1kit.tasks.base import Task
from r1kit.tasks.sources.source import Generator

if TYPE_CHECKING:
    from r1kit.tasks.task_spec import TaskSpec


class TinySource(Generator):
    """See `r1kit.tiny.problems`."""

    kind = "tiny"
    ignores = ("columns", "verifier", "language", "order", "calculations", "skip_invalid", "data", "options")

    def claims(self, name: str) -> bool:
        return name.startswith("tiny/")

    def load(self, spec: TaskSpec, split: str) -> Task:
        from r1kit.tiny import problems

        return problems.load(spec.name.partition("/")[2], split, spec.seed, spec.size)

    def files(self, spec: TaskSpec) -> list[Path]:
        """The code that generates the problems."""
        from r1kit.tiny import everyday, problems, world

        world_folder = Path(world.__file__).parent
        if spec.name.partition("/")[2] in everyday.NAMES:
            return [Path(everyday.__file__), world_folder / "general.py"]
        return [Path(problems.__file__), world_folder / "steps.py", world_folder / "wordings.py"]
