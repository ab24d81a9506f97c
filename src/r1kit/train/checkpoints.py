"""The checkpoints of a stage, and the best weights beside them, in folders named by their step."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from r1kit.store import StoreError, read_json


def folder_of(stage: Path, step: int) -> Path:
    """`checkpoints/step-000040` in the stage's folder."""
    return stage / "checkpoints" / f"step-{step:06d}"  # six digits, so names sort like numbers


def best_folder(stage: Path, step: int) -> Path:
    """`best/step-000015` in the stage's folder: the weights of the step with the best validation."""
    return stage / "best" / f"step-{step:06d}"


def latest(stage: Path) -> Path | None:
    """The newest checkpoint. It is complete, since a checkpoint is renamed to its name as the last step."""
    return max(stage.glob("checkpoints/step-[0-9]*"), default=None)


def prune(stage: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for old in sorted(stage.glob("checkpoints/step-[0-9]*"))[:-keep]:
        shutil.rmtree(old)


def prune_best(stage: Path, step: int) -> None:
    """Remove all best weights but those of `step` and those that a checkpoint refers to."""
    needed = {best_folder(stage, step)}
    for state in stage.glob("checkpoints/step-[0-9]*/state.json"):
        with suppress(StoreError):  # a damaged checkpoint needs nothing
            best = read_json(state).get("best") or {}
            needed.add(best_folder(stage, int(best.get("step", 0))))
    for old in stage.glob("best/step-[0-9]*"):
        if old not in needed:
            shutil.rmtree(old)
