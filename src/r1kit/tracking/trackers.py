"""The seam that all trackers share: a stage to show, and a run in a tracker that shows it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]

FINISH_S = 120  # for what is left when the run has ended

# Each module has `open_run`. It imports its library only when it is called.
TRACKERS = {
    "trackio": "r1kit.tracking.to_trackio",
    "tensorboard": "r1kit.tracking.to_tensorboard",
    "wandb": "r1kit.tracking.to_wandb",
    "mlflow": "r1kit.tracking.to_mlflow",
}


@dataclass(frozen=True)
class TrackedStage:
    """A stage of a recipe, with its folder and its settings."""

    recipe: str
    folder: Path
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The run's name in trackers."""
        return self.folder.name


class TrackerRun(Protocol):
    """A stage's run in a tracker.

    `reference` finds the run again, and `hint` tells people how to look at it. `last_step` is the last step that the
    tracker had stored when the run was opened (-1: none); whoever logs keeps it up to date.
    """

    reference: str
    last_step: int
    hint: str

    def log(self, step: int, row: Row, samples: Sequence[Row]) -> None:
        """Store the metrics of a step, under the tracker's names, and a table of samples unless it is empty."""

    def close(self, *, finished: bool) -> None:
        """Store everything that is buffered. `finished`: the stage is done, otherwise it stopped."""


def open_run(tracker: str, stage: TrackedStage, reference: str) -> TrackerRun:
    """The run that `reference` names, or a new one if it is empty; raises ImportError without the tracker's library."""
    run: TrackerRun = importlib.import_module(TRACKERS[tracker]).open_run(stage, reference)
    return run
