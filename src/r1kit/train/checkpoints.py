"""The checkpoints of a stage, and the best weights beside them, in folders named by their step."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from r1kit.store import StoreError, read_json


def folder_of(stage: Path, step: int) -> Path:
    """`checkpoints/step-000040` in the stage's folder."""
    return stage / "checkpoints" / _name(step)


def best_folder(stage: Path, step: int) -> Path:
    """`best/step-000015` in the stage's folder: the weights of the step with the best validation."""
    return stage / "best" / _name(step)


def _name(step: int) -> str:
    return f"step-{step:06d}"


def latest(stage: Path) -> Path | None:
    """The newest checkpoint. It is complete, since a checkpoint is renamed to its name as the last step."""
    return max(stage.glob("checkpoints/step-[0-9]*"), default=None)


def prune(stage: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for old in sorted(stage.glob("checkpoints/step-[0-9]*"))[:-keep]:
        shutil.rmtree(old)


def prune_best(stage: Path, step: int) -> None:
    """Remove all best weights but those of `step` and those that a checkpoint refers to."""
    needed = {_name(step), *(_name(_best_step(state)) for state in stage.glob("checkpoints/step-[0-9]*/state.json"))}
    for old in stage.glob("best/step-[0-9]*"):
        if old.name not in needed:
            shutil.rmtree(old)


def _best_step(state: Path) -> int:
    """The step with the best validation when a checkpoint was written; 0 if there was none, or if it is damaged."""
    try:
        content: dict[str, Any] = read_json(state)
    except StoreError:
        return 0
    return int((content.get("best") or {}).get("step", 0))
