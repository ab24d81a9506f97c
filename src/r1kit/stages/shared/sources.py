"""Models, data files and code of the user's own as inputs of stages, so that a change redoes what depends on them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from r1kit.engines.engine_settings import LocalEngineSettings, OwnEngineSettings
from r1kit.models.folder_code import MARK, is_allowed
from r1kit.models.known import find, resolve
from r1kit.pipeline import External, Stage
from r1kit.rewards import RewardSpec
from r1kit.rewards.loading import source_files as reward_files
from r1kit.settings import Settings
from r1kit.tasks import TaskSpec, source_files
from r1kit.tasks.public_files import FILES, fetched, local_file


def sources(tasks: Sequence[TaskSpec], rewards: Sequence[RewardSpec] = ()) -> dict[str, External]:
    """Files that tasks and rewards are made from, as inputs `task/0`, `task/1`, ... and `code/REWARD`."""
    files = [path for spec in tasks for path in source_files(spec)]
    code = {
        f"code/{spec.title}{ending}": External(path) for spec in rewards for ending, path in reward_files(spec).items()
    }
    return {f"task/{index}": External(path) for index, path in enumerate(files)} | code


def engine_sources(settings: Settings) -> dict[str, External]:
    """The code of the user's own engines among the fields of `settings`, as inputs `code/FIELD`."""
    return {f"code/{name}": External(it.source_file()) for name, it in settings if isinstance(it, OwnEngineSettings)}


def answers_on_device(stage: Stage) -> bool:
    """Whether a stage that asks engines loads one of the models here, and not for the processor alone."""
    local = [engine for _, engine in stage.settings if isinstance(engine, LocalEngineSettings)]
    if local or {"model", "judge", "rewriter"} & stage.inputs.keys():
        return getattr(stage.settings, "device", "auto") != "cpu"
    return False


def model_input(name: str) -> External:
    """A model by known name, folder or hub id. A model that is not on this machine is fetched when a stage needs it."""
    folder, mark = find(name), MARK if is_allowed(name) else ""
    return External(folder, mark=mark) if folder else External(Path(name), partial(resolve, name), mark)


def file_input(name: str) -> External:
    """A public file by name or a file of one's own. A public one that is not here is fetched when a stage needs it."""
    path = local_file(name)
    if path is not None:
        return External(path)
    file = FILES[name]
    return External(Path(name), fetch=partial(fetched, file)) if file.hub else External(fetched(file))
