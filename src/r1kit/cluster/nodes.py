"""The nodes of a cluster as a pool of processes for `run_side_by_side`. Ray chooses the node of each stage."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import ray
from ray import cloudpickle  # unlike pickle, it sends functions of a script or a notebook
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from r1kit.cluster import RESTARTS, ClusterError
from r1kit.cluster.connection import connected, ended_among
from r1kit.cluster.on_node import Beacon, Board, attend, enter
from r1kit.cluster.shares import share_of
from r1kit.cluster.site import Site
from r1kit.pipeline import Display, Recipe
from r1kit.pipeline.job import Job
from r1kit.pipeline.worker import STOP_S, UNSENDABLE
from r1kit.store import held, storing, write_text

LOOK_EVERY_S = 0.2  # at the stages' progress
PROBE_S = 120.0  # for a node to start a process that looks at the run's folder
LOCK_PATIENCE_S = 120.0  # an NFS server frees the locks of a node that lost power after 90 s
ON_HEAD = {"node:__internal_head__": 0.001}  # losing the head ends the run in any case
DEATHS = {
    WorkerCrashedError: "its worker process died",
    NodeDiedError: "its node died",
    OutOfMemoryError: "its node ran out of memory",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A task that runs a job; `restarts` were before it."""

    job: Job
    content: bytes
    restarts: int


class Nodes:
    """A `Pool`: at most `limit` stages at a time, or as many as Ray has room for; Ray queues the others."""

    def __init__(self, address: str, limit: int | None, recipe: Recipe, folder: Path, display: Display) -> None:
        self._address, self._limit, self._light, self._devices = address, limit, recipe.light, recipe.devices
        self._folder, self._display = folder, display
        self._running: dict[Any, Attempt] = {}
        self._unsendable: list[tuple[Job, str]] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            lock, token = self._folder / ".cluster.lock", secrets.token_hex(8)
            with storing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
            refusal = f"{{holder}} runs the recipe in {self._folder} on a cluster: wait for it or stop it first"
            stack.enter_context(held(lock, f"process {os.getpid()} on {socket.gethostname()}", refusal))
            for left in self._folder.glob(".beacon-*"):  # of a driver that was killed: the lock is ours now
                left.unlink(missing_ok=True)
            self._beacon = Beacon((self._folder / f".beacon-{token}").absolute(), token, lock.absolute())
            write_text(self._beacon.file, token)
            stack.callback(self._beacon.file.unlink, missing_ok=True)
            stack.enter_context(connected(self._address))
            self._site = Site.here()
            nodes = [node for node in ray.nodes() if node["Alive"]]
            self._share = share_of(nodes, self._light, self._devices)
            _probe(nodes, self._site, self._beacon)
            self._board: Any = ray.remote(Board).options(num_cpus=0, resources=ON_HEAD).remote()
            self._task = ray.remote(attend)
            resources = ray.cluster_resources()
            size = f"{len(nodes)} nodes, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
            self._display.say(f"Ray {ray.__version__}: {size}; each stage asks for {self._share}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop all stages. Those that do not end in time are killed when the connection closes."""
        with self._stack, contextlib.suppress(RayError):
            for task in self._running:
                ray.cancel(task)
            if self._running:
                ray.wait([*self._running], num_returns=len(self._running), timeout=STOP_S)
            self._show()

    @property
    def busy(self) -> list[Job]:
        return [attempt.job for attempt in self._running.values()] + [job for job, _ in self._unsendable]

    @property
    def has_room(self) -> bool:
        return self._limit is None or len(self.busy) < self._limit

    def start(self, job: Job) -> None:
        try:
            content = cloudpickle.dumps(replace(job.portable(), patience_s=LOCK_PATIENCE_S))
        except Exception as error:
            self._unsendable.append((job, UNSENDABLE.format(error=error)))
        else:
            self._submit(Attempt(job, content, 0))

    def _submit(self, attempt: Attempt) -> None:
        job = attempt.job
        # max_retries=0: Ray's own restarts would neither be shown nor, after a lack of memory, be bounded
        task = self._task.options(name=job.name, max_retries=0, **self._share.of(job.row.stage))
        arguments = (job.title, job.log, attempt.content, self._share.threads_of(job.row.stage), self._board)
        self._running[task.remote(self._site, self._beacon, *arguments)] = attempt

    def ended(self) -> tuple[Job, str | None]:
        """Show progress until a job ends, and return it with the first line of its error, if it failed."""
        if self._unsendable:
            return self._unsendable.pop()
        while True:
            try:
                tasks = ended_among([*self._running], LOOK_EVERY_S)
                self._show()
            except RayError as lost:
                reason = _first_line(lost)
                raise ClusterError(f"the head of the cluster was lost ({reason}): the same command resumes") from lost
            for task in tasks:
                attempt = self._running.pop(task)
                error, is_lost = _outcome(task)
                if not is_lost:
                    return attempt.job, error
                if attempt.restarts == RESTARTS:
                    return attempt.job, f"{error}, for the {RESTARTS + 1}th time"
                again = f"starts again, {attempt.restarts + 1} of at most {RESTARTS} times"
                self._display.say(f"{attempt.job.title}: {error}; {again}")
                self._submit(replace(attempt, restarts=attempt.restarts + 1))

    def _show(self) -> None:
        """Show what the stages have reported since the last call."""
        for method, *values in ray.get(self._board.take.remote()):
            getattr(self._display, method)(*values)


def _probe(nodes: list[dict[str, Any]], site: Site, beacon: Beacon) -> None:
    """Raise `ClusterError` unless stages can run on every node."""
    task, looks = ray.remote(enter), {}
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        look = task.options(num_cpus=0, max_retries=0, scheduling_strategy=place).remote(site, beacon)
        looks[look] = node["NodeManagerHostname"]
    _, late = ray.wait([*looks], num_returns=len(looks), timeout=PROBE_S)
    if late:
        hosts = ", ".join(looks[look] for look in late)
        raise ClusterError(f"no answer from {hosts} within {PROBE_S:g} s: check `ray status`, or remove the node")
    for look, host in looks.items():
        try:
            ray.get(look)
        except RayTaskError as error:
            if isinstance(error.cause, ClusterError):
                raise error.cause from None
            reason = f"cannot run r1kit ({_first_line(error.cause)})"
            raise ClusterError(f"node {host} {reason}: install the same r1kit[ray] there") from None
        except RayError as error:
            raise ClusterError(f"node {host} was lost ({_first_line(error)})") from error


def _outcome(task: Any) -> tuple[str | None, bool]:
    """The first line of the error of a task that has ended, and whether its process or node was killed."""
    try:
        error, was_killed = ray.get(task)
        return error, was_killed
    except RayTaskError as error:  # of the node: a stage's own errors are returned
        return _first_line(error.cause), False
    except RayError as error:
        return DEATHS.get(type(error)) or _first_line(error), True


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
