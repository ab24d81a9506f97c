"""The display of a process that works for another one."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from typing import TYPE_CHECKING

from r1kit.pipeline.progress import Display

if TYPE_CHECKING:
    from r1kit.pipeline.other_nodes import Summons


class Relay(Display):
    """Everything goes to the log of the stage and, through the pipe, to the display of the run."""

    def __init__(self, pipe: connection.Connection) -> None:
        super().__init__()
        self._pipe, self._lock = pipe, threading.Lock()  # a stage may report from several threads

    def send(self, *message: object) -> None:
        with self._lock:
            self._pipe.send(message)

    def say(self, line: str) -> None:
        super().say(line)
        self.send("say", line)

    def table(self, title: str, rows: Sequence[Mapping[str, str]]) -> None:
        super().table(title, rows)
        self.send("table", title, rows)

    def summon(self, summons: Summons) -> None:
        self.send("summon", summons)

    def step(self, title: str, done: int, total: int, note: str) -> None:
        super().step(title, done, total, note)
        self.send("step", title, done, total, note)
