"""The part that runs on the nodes: a Ray task attends to the process of one stage, or of an agent of its ranks."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

import ray

from r1kit.cluster import ClusterError
from r1kit.cluster.connection import ended_among, outcome_of
from r1kit.cluster.gangs import Place
from r1kit.cluster.site import Site
from r1kit.pipeline.other_nodes import Summons, serve_part
from r1kit.pipeline.progress import Display
from r1kit.pipeline.rank_process import log_of
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


@dataclass(frozen=True, slots=True)
class Errand:
    """What a process on a node is to do: `content` is a pickled function of a display. Its output goes to `log`.

    `others` are where the other ranks of a stage will be, if it has ranks on several nodes.
    """

    title: str
    log: Path
    content: bytes
    threads: int
    others: Sequence[Place] = ()


class Lead(BoardDisplay):
    """The display of an errand, which also starts the agents of a stage's other nodes and looks after them."""

    def __init__(self, site: Site, beacon: Beacon, errand: Errand, board: Any) -> None:
        super().__init__(board)
        self._site, self._beacon, self._errand = site, beacon, errand
        self._tasks: dict[Any, str] = {}  # the ranks of each

    def summon(self, summons: Summons) -> None:
        task = ray.remote(attend)
        for place in self._errand.others:
            title, log = f"{self._errand.title}, {place.ranks}", log_of(self._errand.log.parent, place.first)
            content = pickle.dumps(partial(serve_part, summons, place.number))
            errand = Errand(title, log, content, self._errand.threads)
            options = task.options(name=title, max_retries=0, **place.options)
            self._tasks[options.remote(self._site, self._beacon, errand, self._board)] = place.ranks

    def failure(self) -> tuple[str, bool] | None:
        """The first line of the error of another agent that failed, and whether its process or node was killed."""
        for task in ended_among([*self._tasks], 0.0):
            error, was_killed = outcome_of(task)
            if error is not None:
                return f"{self._tasks[task]}: {error}", was_killed
        return None

    def leave(self) -> None:
        """Return when the other agents have ended, or after some time."""
        if self._tasks:
            ray.wait([*self._tasks], num_returns=len(self._tasks), timeout=STOP_S)


def attend(site: Site, beacon: Beacon, errand: Errand, board: Any) -> tuple[str | None, bool]:
    """Do an errand in a process of its own. Returns the first line of its error, and whether a process was killed.

    The process ends with this task, however that ends, because the pipe between them closes.
    """
    display, runtime = Lead(site, beacon, errand, board), ray.get_runtime_context()
    enter(site, beacon)
    os.environ["RAY_ADDRESS"] = runtime.gcs_address  # a stage may start actors
    display.say(f"{errand.title}: on {socket.gethostname()}, node {runtime.get_node_id()[:8]}")
    worker, due = Worker(str(errand.threads)), float("inf")
    try:
        worker.start(errand.log, errand.content)
        while not worker.has_ended(display):
            connection.wait([worker.pipe], timeout=LOOK_EVERY_S)
            if failure := display.failure():
                due = min(due, time.monotonic() + STOP_S)  # until then the process itself can say more
                if time.monotonic() > due:
                    return failure
    finally:
        worker.pipe.close()
        worker.end(STOP_S)
        display.leave()
    return worker.error, worker.is_lost
