"""Weights & Biases. Without WANDB_MODE the run stays on this machine (`offline`) until `wandb sync` uploads it."""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from r1kit.tracking.names import trainer_names
from r1kit.tracking.trackers import Row, TrackedStage

BLOCK = 32 * 1024  # of a .wandb file, a log in LevelDB's format after a head of 7 bytes
HEAD, RECORD = 7, struct.Struct("<IHB")  # checksum, length, type
WHOLE, LAST = 1, 4  # types of pieces that end a record


def open_run(stage: TrackedStage, reference: str) -> WandbRun:
    """The reference is the run's id, which is the same in all attempts."""
    import wandb

    run_id = reference or f"{stage.name}-{secrets.token_hex(3)}"
    mode: Any = os.environ.get("WANDB_MODE") or "offline"
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or stage.recipe,
        id=run_id,
        name=stage.name,
        config=dict(stage.config),
        mode=mode,
        resume="allow",
        reinit="create_new",  # several stages may be open
        # no output and no load of this process, no code
        settings=wandb.Settings(console="off", x_disable_stats=True, disable_git=True),
    )
    home = Path(run.settings.wandb_dir).absolute()
    last_step = max([run.step - 1, *(step for file in home.glob(f"*-{run_id}/*.wandb") for step in stored_steps(file))])
    hint = run.url or f"offline in {home}; `wandb sync` there uploads it, WANDB_MODE=online sends it at once"
    return WandbRun(run, last_step, hint)


def stored_steps(file: Path) -> Iterator[int]:
    """The steps in a .wandb file, in order; a file that a kill cut off is read to its last whole record."""
    from wandb.proto.wandb_internal_pb2 import Record

    for content in records(file.read_bytes()):
        record = Record.FromString(content)
        if record.HasField("history"):
            yield record.history.step.num


def records(data: bytes) -> Iterator[bytes]:
    place, pieces = HEAD, b""
    while place + RECORD.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < RECORD.size:  # the end of a block is padding
            place += left
            continue
        _, length, kind = RECORD.unpack_from(data, place)
        place += RECORD.size + length
        if place > len(data):
            return
        pieces += data[place - length : place]
        if kind in (WHOLE, LAST):
            yield pieces
            pieces = b""


class WandbRun:
    def __init__(self, run: Any, last_step: int, hint: str) -> None:
        self.run, self.reference, self.last_step, self.hint = run, run.id, last_step, hint

    def log(self, step: int, row: Row, samples: Sequence[Row]) -> None:
        import wandb

        values: dict[str, Any] = {**trainer_names(row), "train/global_step": step}  # the axis of TRL's charts
        if samples:
            values["completions"] = wandb.Table(columns=list(samples[0]), data=[list(row.values()) for row in samples])
        self.run.log(values, step=step, commit=True)

    def close(self, *, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)
