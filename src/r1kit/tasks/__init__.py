"""Problems for training and evaluation, from files, hub data sets, public sets and generators, alone or mixed."""

from r1kit.tasks.base import Listed, Task, iterate, say_readings
from r1kit.tasks.check import check_file
from r1kit.tasks.mixture import mix
from r1kit.tasks.public_sets import KNOWN
from r1kit.tasks.sources.file import load_file
from r1kit.tasks.sources.public import load_known
from r1kit.tasks.task_spec import TaskSpec, load_task, load_tasks, source_files

__all__ = [
    "KNOWN",
    "Listed",
    "Task",
    "TaskSpec",
    "check_file",
    "iterate",
    "load_file",
    "load_known",
    "load_task",
    "load_tasks",
    "mix",
    "say_readings",
    "source_files",
]
