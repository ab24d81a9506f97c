"""Stages as a graph, with resume and provenance. This is mechanism only: it knows nothing about models.

`Stage(name, kind, settings, inputs)` is a node of the graph, `stage / "model"` an input for another stage, and `Recipe`
the whole graph. `plan` says what would run and why, `check_ready` checks that it can start, and `execute` runs it.
"""

from r1kit.pipeline.context import Context
from r1kit.pipeline.execute import check_ready, execute
from r1kit.pipeline.graph import External, Kind, Output, Recipe, Stage
from r1kit.pipeline.guards import Stopped
from r1kit.pipeline.plan import PlanRow, plan
from r1kit.pipeline.progress import Display, Progress
from r1kit.pipeline.side_by_side import Pool, StagesFailed, longest_chains
from r1kit.pipeline.work import ModelSize, Work

__all__ = [
    "Context",
    "Display",
    "External",
    "Kind",
    "ModelSize",
    "Output",
    "PlanRow",
    "Pool",
    "Progress",
    "Recipe",
    "Stage",
    "StagesFailed",
    "Stopped",
    "Work",
    "check_ready",
    "execute",
    "longest_chains",
    "plan",
]
