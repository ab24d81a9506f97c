"""Sends the rows of one stage to a tracker, each step once."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from r1kit.data.jsonl import lines_of, parsed, read_rows
from r1kit.pipeline.manifest import MANIFEST
from r1kit.store import StoreError, held, open_file, read_object, write_json
from r1kit.tracking.trackers import TrackedStage, TrackerRun, open_run

CALL_S = 60  # a call of a tracker's library that takes longer ends the process
SAMPLES = 16  # rows of a table of completions


class Tail:
    """The new rows of a JSONL file, which may grow, or be replaced by a shorter one when a run resumes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file_id, self._offset = 0, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows that no earlier iteration has passed; none if there is no file."""
        with suppress(FileNotFoundError), open_file(self.path) as file:
            file_id = os.fstat(file.fileno()).st_ino
            if file_id != self._file_id:
                self._file_id, self._offset = file_id, 0
            file.seek(self._offset)
            for line in lines_of(file, offset=self._offset):
                yield parsed(line, self.path)
                self._offset = line.offset + line.length


class Feed:
    """One stage on its way to one tracker.

    The tracker itself knows which steps it has stored, so a process that is killed at any moment leaves neither gaps
    nor repetitions. `tracking/NAME.json` in the stage's folder says which of the tracker's runs is the stage's, and
    whether it has all of a finished stage; without that file the stage gets a new run. A step that a resumed stage
    repeats keeps the values of its first attempt.
    """

    def __init__(self, tracker: str, stage: TrackedStage) -> None:
        self.tracker, self.stage = tracker, stage
        self.hint = ""
        self.is_waiting = False  # for the process of an earlier attempt, which still sends
        self._run: TrackerRun | None = None
        self._record = stage.folder / "tracking" / f"{tracker}.json"
        self._rows = Tail(stage.folder / "metrics.jsonl")
        self._lock = ExitStack()

    def send(self) -> bool:
        """Send the rows that are new; returns whether the stage is done and all of it was sent."""
        finished = (self.stage.folder / MANIFEST).exists()  # before its last rows are read
        if finished and self._run is None and self._known()["finished"]:
            return True
        for row in self._rows:
            if (run := self._run or self._open()) is None:
                return False
            if (step := row["step"]) > run.last_step:
                with bounded():
                    run.log(step, row, samples(self.stage.folder, step))
                run.last_step = step  # the file may be read from its beginning again
        if finished:
            self.close(finished=True)
        return finished

    def close(self, *, finished: bool = False) -> None:
        """End the tracker's run, if there is one."""
        run, self._run = self._run, None
        with self._lock:
            if run is None:
                return
            with bounded():
                run.close(finished=finished)
            write_json(self._record, {"run": run.reference, "finished": finished})

    def restart(self) -> None:
        """Forget what was sent after an error: the tracker is asked again."""
        with suppress(Exception):
            self.close()
        self._rows = Tail(self._rows.path)

    def _open(self) -> TrackerRun | None:
        """The stage's run in the tracker; None while another process sends it."""
        lock = self._record.with_suffix(".lock")
        lock.parent.mkdir(exist_ok=True)
        try:
            self._lock.enter_context(held(lock, f"process {os.getpid()}", "{holder} sends it"))
        except StoreError:
            self.is_waiting = True
            return None
        self.is_waiting = False
        with bounded():
            self._run = open_run(self.tracker, self.stage, self._known()["run"])
        write_json(self._record, {"run": self._run.reference, "finished": False})
        self.hint = self._run.hint
        return self._run

    def _known(self) -> dict[str, Any]:
        return read_object(self._record) if self._record.exists() else {"run": "", "finished": False}


@contextmanager
def bounded() -> Iterator[None]:
    """End this process if the block hangs, even in code that lets no other thread run; the stacks go to stderr."""
    faulthandler.dump_traceback_later(CALL_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def samples(folder: Path, step: int) -> list[dict[str, Any]]:
    """Some completions of a step in TRL's columns, evenly spread over its groups; empty if they were not stored."""
    rows = list(read_rows(folder / "rollouts" / f"step-{step:06d}.jsonl", missing_ok=True))
    names = dict.fromkeys(name for row in rows for name in row["parts"])
    return [
        {
            "step": step,
            "prompt": row["question"],
            "completion": row["completion"],
            "answer": str(row["answer"]),
            **{name: row["parts"].get(name) for name in names},
            "reward": row["reward"],
            "advantage": row["advantage"],
            "verdict": str(row["notes"].get("verdict", "")),
        }
        for row in rows[:: -(-len(rows) // SAMPLES) or 1]
    ]
