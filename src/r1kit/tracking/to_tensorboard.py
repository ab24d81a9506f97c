"""TensorBoard: event files in `tensorboard/` beside the stages, or in TENSORBOARD_LOGGING_DIR."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1kit.tracking.names import trainer_names
from r1kit.tracking.trackers import Row, TrackedStage

EVENTS = "events.out.tfevents.*"


def open_run(stage: TrackedStage, reference: str) -> TensorBoardRun:
    """The reference is the run's folder, from the stage's: both may be moved. A second run of a name gets a number."""
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    home = Path(os.environ.get("TENSORBOARD_LOGGING_DIR") or stage.folder.parent / "tensorboard").absolute()
    folder, number = home / stage.name, 1
    while not reference and any(folder.glob(EVENTS)):
        number += 1
        folder = home / f"{stage.name}-{number}"
    folder = Path(os.path.normpath(stage.folder / reference)) if reference else folder
    last_step = last_step_in(folder)
    run = TensorBoardRun(EventFileWriter(str(folder)), folder, os.path.relpath(folder, stage.folder), last_step)
    if last_step < 0:
        run.write(0, [_text("config", f"```\n{json.dumps(stage.config, indent=2, ensure_ascii=False)}\n```")])
    return run


def last_step_in(folder: Path) -> int:
    """The last step with a metric in the folder's event files; a file that a kill cut off is read to its last event."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    last = -1
    for file in folder.glob(EVENTS):
        for event in LegacyEventFileLoader(str(file)).Load():
            if any(value.HasField("simple_value") for value in event.summary.value):
                last = max(last, event.step)
    return last


def _text(tag: str, markdown: str) -> Any:
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(tag, markdown).value[0]


def markdown_table(rows: Sequence[Row]) -> str:
    """Cells in one line each; what model text holds of markup is text."""
    cells = [list(rows[0]), ["---"] * len(rows[0]), *([markdown_cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def markdown_cell(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    text = text if not isinstance(value, str) else text[1:-1]
    return "".join(f"\\{character}" if character in "\\|`*_<>[]#!~$" else character for character in text)


class TensorBoardRun:
    def __init__(self, writer: Any, folder: Path, reference: str, last_step: int) -> None:
        self.writer, self.reference, self.last_step = writer, reference, last_step
        self.hint = f"tensorboard --logdir {folder.parent}"

    def log(self, step: int, row: Row, samples: Sequence[Row]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in trainer_names(row).items()]
        # one event holds everything of a step, so that a kill leaves all of it or nothing
        self.write(step, [*values, *([_text("completions", markdown_table(samples))] if samples else [])])

    def write(self, step: int, values: Sequence[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self.writer.add_event(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))
        self.writer.flush()

    def close(self, *, finished: bool) -> None:
        self.writer.close()
