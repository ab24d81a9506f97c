"""A run that writes in all the ways that stages do, and meets trouble at its N-th write: `python ... RUNS KIND N`.

KIND is none, kill (the process is killed before that write), or full (from that write on, the disk is full). The last
line of its output is the number of writes.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1kit.data.jsonl import RowWriter, keep_steps
from r1kit.pipeline import Context, External, Kind, Recipe, Stage, execute
from r1kit.settings import Settings
from r1kit.store import atomic_folder, write_json

RENAMING = ("os.rename", "os.mkdir", "os.link", "os.truncate")


class Trouble:
    """Counts writes below a folder by Python's audit events, and does harm at one of them."""

    def __init__(self, runs: str, kind: str, at: int) -> None:
        self.runs, self.kind, self.at, self.writes = runs, kind, at, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_open = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if not (is_open or event in RENAMING) or not str(arguments[0]).startswith(self.runs):
            return
        self.writes += 1
        if self.kind == "kill" and self.writes == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "full" and self.writes >= self.at:
            raise OSError(errno.ENOSPC, "No space left on device", str(arguments[0]))


class NoSettings(Settings):
    rows: int = 12


def write_rows(context: Context) -> Mapping[str, Any]:
    """Rows in a file that a later attempt continues."""
    with RowWriter(context.folder / "rows.jsonl") as writer:
        for number in range(writer.count_lines(), context.settings.rows):
            writer.append({"row": number, "value": random.Random(f"row/{number}").random()})
    return {"rows": context.settings.rows}


def train(context: Context) -> Mapping[str, Any]:
    """Checkpoints and metrics: a later attempt goes on from the newest checkpoint."""
    rows = context.input("rows").read_text().splitlines()
    steps = sorted(int(path.name.rpartition("-")[2]) for path in context.folder.glob("checkpoint-*"))
    done = steps[-1] if steps else 0
    state = 0.0 if not done else json.loads((context.folder / f"checkpoint-{done}" / "state.json").read_text())["sum"]
    keep_steps(context.folder / "metrics.jsonl", done)
    with RowWriter(context.folder / "metrics.jsonl") as metrics:
        for step in range(done + 1, len(rows) + 1):
            state += json.loads(rows[step - 1])["value"]
            metrics.append({"step": step, "sum": state})
            if step % 4 == 0:
                with atomic_folder(context.folder / f"checkpoint-{step}") as part:
                    write_json(part / "state.json", {"sum": state})
                    (part / "weights.bin").write_bytes(str(state).encode() * 100)
    with atomic_folder(context.folder / "model") as part:
        write_json(part / "state.json", {"sum": state})
    return {"sum": state}


def recipe(data: Path) -> Recipe:
    first = Kind(name="write-rows", run=write_rows, settings=NoSettings)
    second = Kind(name="train-on-rows", run=train, settings=NoSettings)
    rows = Stage("rows", first, NoSettings(), {"data": External(data)})
    return Recipe("attacked", (rows, Stage("train", second, NoSettings(), {"rows": rows / "rows.jsonl"})))


def main() -> None:
    runs, trouble = Path(sys.argv[1]), Trouble(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.addaudithook(trouble)
    execute(recipe(Path(__file__)), runs)
    print(trouble.writes)


if __name__ == "__main__":
    main()
