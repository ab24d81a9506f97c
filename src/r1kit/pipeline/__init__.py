"""Stages as a graph, resume and provenance: mechanism only, it knows nothing of models.

`Stage(name, kind, settings, inputs)` is a box, `stage / "model"` an input for the next one, `Recipe` all of them.
`plan` says what would be done and why, `check_ready` whether it can begin; `execute` does it.
"""

from r1kit.pipeline.context import Context
from r1kit.pipeline.execute import check_ready, execute
from r1kit.pipeline.graph import External, Kind, Output, Recipe, Stage
from r1kit.pipeline.guards import Stopped
from r1kit.pipeline.plan import PlanRow, plan
from r1kit.pipeline.progress import Progress
from r1kit.pipeline.work import ModelSize, Work

__all__ = [
    "Context",
    "External",
    "Kind",
    "ModelSize",
    "Output",
    "PlanRow",
    "Progress",
    "Recipe",
    "Stage",
    "Stopped",
    "Work",
    "check_ready",
    "execute",
    "plan",
]
