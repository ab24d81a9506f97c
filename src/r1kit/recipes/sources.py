"""Models, data files and code of the user's own as inputs, so that a change redoes what depends on them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from r1kit import tiny
from r1kit.models.known import find, resolve
from r1kit.pipeline import External
from r1kit.rewards import RewardSpec, source_file
from r1kit.tasks import TaskSpec, source_files


def externals(tasks: Sequence[TaskSpec], rewards: Sequence[RewardSpec] = ()) -> dict[str, External]:
    """Inputs by name: `data/0`, `data/1`, ... and `code/<reward>`."""
    files = [path for spec in tasks for path in source_files(spec)]
    code = {f"code/{spec.title}": External(path) for spec in rewards if (path := source_file(spec)) is not None}
    return {f"data/{index}": External(path) for index, path in enumerate(files)} | code


def request_sources() -> dict[str, External]:
    """The code that makes the tiny world's requests."""
    return {f"code/{path.name}": External(path) for path in source_files(TaskSpec(name="tiny/general"))}


def world_sources() -> dict[str, External]:
    """The code that makes the corpus of the tiny world."""
    world = sorted(Path(tiny.__file__).parent.rglob("*.py"))
    return {f"code/{path.parent.name}/{path.name}": External(path) for path in world}


def model_input(name: str) -> External:
    """A model by what `resolve` takes; one that is not on this machine is fetched when a stage needs it."""
    folder = find(name)
    return External(folder) if folder else External(Path(name), fetch=partial(resolve, name))
