"""The part that runs on the nodes: a Ray task attends to the process of one stage."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import ray

from r1kit.cluster import ClusterError
from r1kit.cluster.site import Site
from r1kit.pipeline.progress import Display
from r1kit.pipeline.worker import LOOK_EVERY_S, STOP_S, Worker
from r1kit.store import StoreError, held


class Board:
    """An actor that collects the progress of all stages, until the driver takes it."""

    def __init__(self) -> None:
        self._messages: list[tuple[Any, ...]] = []

    def add(self, *message: Any) -> None:
        self._messages.append(message)

    def take(self) -> list[tuple[Any, ...]]:
        messages, self._messages = self._messages, []
        return messages


class BoardDisplay(Display):
    """Sends everything to the board. It waits for each message to arrive, so none is lost when the task ends."""

    def __init__(self, board: Any) -> None:
        super().__init__()
        self._board = board

    def _add(self, *message: Any) -> None:
        ray.get(self._board.add.remote(*message))

    def say(self, line: str) -> None:
        self._add("say", line)

    def table(self, title: str, rows: Sequence[Mapping[str, str]]) -> None:
        self._add("table", title, rows)

    def step(self, title: str, done: int, total: int, note: str) -> None:
        self._add("step", title, done, total, note)


@dataclass(frozen=True, slots=True)
class Beacon:
    """What shows that nodes share the run's folder: a file with the text `token`, and a lock that the driver holds."""

    file: Path
    token: str
    lock: Path

    def check(self) -> None:
        """Raise `ClusterError` if this node does not see them."""
        node = f"node {socket.gethostname()}"
        remedy = "runs on a cluster need a file system that all nodes mount at the same path"
        try:
            token = self.file.read_text(encoding="utf-8")
        except OSError as error:
            raise ClusterError(f"{node} cannot read {self.file} ({error.strerror}): {remedy}") from None
        if token != self.token:
            raise ClusterError(f"{node} has another file {self.file}: {remedy}")
        try:
            with held(self.lock, node, ""):
                pass
        except StoreError:
            return  # the driver holds it
        remedy = "mount it with locks that all nodes see (NFS without nolock, Lustre with flock)"
        raise ClusterError(f"{node} does not see locks of other machines in {self.lock.parent}: {remedy}")


def enter(site: Site, beacon: Beacon) -> None:
    """Raise `ClusterError` if stages cannot run on this node."""
    beacon.check()
    site.enter()


def attend(
    site: Site, beacon: Beacon, title: str, log: Path, content: bytes, threads: int, board: Any
) -> tuple[str | None, bool]:
    """Run a job in a process of its own. Returns the first line of its error, and whether a process was killed.

    The process ends with this task, however that ends, because the pipe between them closes.
    """
    display, runtime = BoardDisplay(board), ray.get_runtime_context()
    enter(site, beacon)
    os.environ["RAY_ADDRESS"] = runtime.gcs_address  # a stage may start actors
    display.say(f"{title}: on {socket.gethostname()}, node {runtime.get_node_id()[:8]}")
    worker = Worker(str(threads))
    try:
        worker.start(log, content)
        while not worker.has_ended(display):
            connection.wait([worker.pipe], timeout=LOOK_EVERY_S)
    finally:
        worker.pipe.close()
        worker.end(STOP_S)
    return worker.error, worker.is_lost
