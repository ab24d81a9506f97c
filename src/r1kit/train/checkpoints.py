"""The checkpoints of a stage, and the best weights beside them, in folders named by their step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from r1kit import ranks
from r1kit.content import require_sealed
from r1kit.data import step_rows
from r1kit.data.jsonl import keep_steps
from r1kit.store import StoreError, read_object, sha256, storing

State = dict[str, Any]
LOGS = ("metrics.jsonl", step_rows.FILE)  # a row per step


def folder_of(stage: Path, step: int) -> Path:
    """`checkpoints/step-000040` in the stage's folder."""
    return stage / "checkpoints" / f"step-{step:06d}"


def best_folder(stage: Path, step: int) -> Path:
    """`best/step-000015` in the stage's folder: the weights of the step with the best validation."""
    return stage / "best" / f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """The step in a folder's name; -1 if there is none."""
    digits = folder.name.removeprefix("step-")
    return int(digits) if digits.isdecimal() else -1


def by_step(stage: Path, kind: str = "checkpoints") -> list[Path]:
    """The checkpoints of a stage, or other folders named by steps, oldest first."""
    # by number: as text, step-1000000 comes before step-999990
    return sorted((path for path in stage.glob(f"{kind}/step-*") if step_of(path) >= 0), key=step_of)


def latest(stage: Path) -> Path | None:
    """The newest checkpoint. It is complete, since a checkpoint is renamed to its name as the last step."""
    return next(reversed(by_step(stage)), None)


def restore(stage: Path, load: Callable[[Path], State], note: Callable[[str], None]) -> State | None:
    """Load the newest checkpoint that is not damaged, and return its state; None if there are no checkpoints.

    `note` receives a line for each damaged one. Raises `StoreError` if every checkpoint is damaged: training from the
    start again would be a costly surprise.
    """
    folders = by_step(stage)
    if not folders:
        return None
    remedy = f"restore a checkpoint, or delete {stage / 'checkpoints'} to train the stage from its start"
    step, state = load_newest(folders, load, note, f"no other checkpoint is left: {remedy}")
    note(f"resumes after step {step}")
    return state


def load_newest(
    folders: Sequence[Path], load: Callable[[Path], State], note: Callable[[str], None], refusal: str
) -> tuple[int, State]:
    """Load the newest of these checkpoints, oldest first, that is not damaged; returns its step and its state.

    `note` receives a line for each damaged one. Raises `StoreError` with `refusal` if no checkpoint is left.
    """
    reasons = []
    for folder in reversed(folders):
        try:
            with ranks.alike(StoreError):
                require_sealed(folder)
            state = load(folder)
        except StoreError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            note(f"{reason}; an older checkpoint is used")
        return step_of(folder), state
    raise StoreError("\n".join([*reasons, refusal]))


def log_hashes(stage: Path) -> dict[str, str]:
    """The hashes of the logs so far, which a checkpoint holds for `keep_logs`. Only the first rank writes logs."""
    return {name: sha256(stage / name) for name in LOGS} if ranks.is_first() else {}


def keep_logs(stage: Path, last: int, hashes: Mapping[str, str]) -> list[str]:
    """Drop the rows of the logs after step `last`, which is that of the checkpoint; of a fresh start, -1.

    `hashes` are the checkpoint's; one of an older version has none. Returns a line for each log that has lost rows
    before it: damage, or a power cut. Raises `StoreError` for a log whose rows have changed.
    """
    lost = {name: keep_steps(stage / name, last, hashes.get(name)) for name in LOGS}
    return [
        f"{name} has lost the rows of {count} of the {last} steps before; the stage goes on without them"
        for name, count in lost.items()
        if count
    ]


def prune(stage: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for old in by_step(stage)[:-keep]:
        _remove(old)


def prune_best(stage: Path, step: int) -> None:
    """Remove all best weights but those of `step` and those that a checkpoint refers to."""
    needed = {best_folder(stage, step)}
    for folder in by_step(stage):
        with suppress(StoreError, OSError, ValueError, TypeError, AttributeError):  # a damaged one needs nothing
            best = read_object(folder / "state.json").get("best") or {}
            needed.add(best_folder(stage, int(best.get("step", 0))))
    for old in by_step(stage, "best"):
        if old not in needed:
            _remove(old)


def _remove(folder: Path) -> None:
    """Delete a folder under a temporary name, so that a kill never leaves a part of it under its own."""
    if not ranks.is_first():
        return
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    with storing(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        os.rename(folder, temporary)
        shutil.rmtree(temporary)
