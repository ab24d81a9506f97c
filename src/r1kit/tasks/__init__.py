"""Problems for training and evaluation, from files, hub data sets, public sets and generators, alone or mixed."""

from r1kit.data.errors import DataError
from r1kit.tasks.base import Listed, Task, iterate
from r1kit.tasks.check import Report, check_file
from r1kit.tasks.mixture import Joined, Mixture, mix
from r1kit.tasks.public_sets import KNOWN
from r1kit.tasks.sources.file import load_file
from r1kit.tasks.sources.gym import load_gym
from r1kit.tasks.sources.hub import load_hub
from r1kit.tasks.sources.public import load_known
from r1kit.tasks.task_spec import TaskSpec, load_task, load_tasks, source_files

__all__ = [
    "KNOWN",
    "DataError",
    "Joined",
    "Listed",
    "Mixture",
    "Report",
    "Task",
    "TaskSpec",
    "check_file",
    "iterate",
    "load_file",
    "load_gym",
    "load_hub",
    "load_known",
    "load_task",
    "load_tasks",
    "mix",
    "source_files",
]
