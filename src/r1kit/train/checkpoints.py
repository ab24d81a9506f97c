"""Where a stage's checkpoints lie, which is the newest, and which may go."""

from __future__ import annotations

import shutil
from pathlib import Path


def folder_of(stage: Path, step: int) -> Path:
    """`checkpoints/step-000040` in the stage's folder."""
    return stage / "checkpoints" / f"step-{step:06d}"


def latest(stage: Path) -> Path | None:
    """The newest checkpoint; every one that exists under its name is whole, since it is renamed into place."""
    found = sorted(stage.glob("checkpoints/step-[0-9]*"))
    return found[-1] if found else None


def prune(stage: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for old in sorted(stage.glob("checkpoints/step-[0-9]*"))[:-keep]:
        shutil.rmtree(old)
