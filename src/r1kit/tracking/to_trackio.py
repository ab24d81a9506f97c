"""Trackio: a local database in TRACKIO_DIR, or the Space or server that its environment variables name."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Context
from typing import Any

from r1kit.tracking.names import trainer_names
from r1kit.tracking.trackers import Row, TrackedStage


def open_run(stage: TrackedStage, reference: str) -> TrackioRun:
    """The reference is the run's name, by which trackio finds it; a second folder of that name gets a number."""
    import trackio

    name = reference or free_name(stage)
    options = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}  # that would be of this process
    # in a context of its own, because `init` ends the run that was opened before
    run = Context().run(
        trackio.init, project=stage.recipe, name=name, config=dict(stage.config), resume="allow", **options
    )
    return TrackioRun(run, stage.recipe)


def free_name(stage: TrackedStage) -> str:
    import trackio

    try:
        in_use = {run.name for run in trackio.Api().runs(stage.recipe)}
    except ValueError:  # there is no such project yet
        return stage.name
    names = [stage.name, *(f"{stage.name}-{number}" for number in range(2, len(in_use) + 3))]
    return next(name for name in names if name not in in_use)


class TrackioRun:
    def __init__(self, run: Any, project: str) -> None:
        self.run, self.reference = run, run.name
        self.last_step: int = run._next_step - 1  # the last one stored, here or on a server
        self.hint = f"trackio show --project {project}"

    def log(self, step: int, row: Row, samples: Sequence[Row]) -> None:
        import trackio

        table = {"completions": trackio.Table(data=[dict(sample) for sample in samples])} if samples else {}
        self.run.log({**trainer_names(row), **table}, step=step)

    def close(self, *, finished: bool) -> None:
        """Raises an error if steps are missing: trackio only warns of a full disk."""
        from trackio.sqlite_storage import SQLiteStorage

        self.run.finish()
        stored = SQLiteStorage.get_max_step_for_run(self.run.project, self.run.name, run_id=self.run.id)
        if self.run._is_local and (-1 if stored is None else stored) < self.last_step:
            raise OSError(f"trackio has stored the steps up to {stored} of {self.last_step}: see its warnings")
